"""A key that may move money, or is another account's, is refused by name."""

import msgspec
import pytest

from bot4_runtime.clock import LiveClock
from bot4_runtime.exchange.binance.key_rights import KeyHolder, KeyRights, KeyTold
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback

EXCESS = ("enable_withdrawals", "enable_internal_transfer", "permits_universal_transfer", "enable_margin", "enable_futures", "enable_vanilla_options", "enable_portfolio_margin_trading")  # fmt: skip
GOOD = {"ip_restrict": True, "enable_reading": True, "enable_spot_and_margin_trading": True} | dict.fromkeys(EXCESS, False)  # fmt: skip


@pytest.mark.parametrize(
    ("rights", "can_trade", "uid", "told"),
    [
        ({}, True, 7, None),
        ({"enable_withdrawals": True}, True, 7, "withdraw"),
        ({"enable_internal_transfer": True}, True, 7, "transfer to others"),
        ({"permits_universal_transfer": True}, True, 7, "between accounts"),
        ({"enable_margin": True}, True, 7, "enableMargin"),
        ({"enable_futures": True}, True, 7, "enableFutures"),
        ({"enable_vanilla_options": True}, True, 7, "enableVanillaOptions"),
        ({"enable_portfolio_margin_trading": True}, True, 7, "enablePortfolioMarginTrading"),
        ({"ip_restrict": False}, True, 7, "bound to no address"),
        ({"enable_reading": False}, True, 7, "may not read"),
        ({"enable_spot_and_margin_trading": False}, True, 7, "may not read and trade"),
        ({}, False, 7, "account 7 may not trade"),
        ({}, True, 8, "account 7, and binance.account_uid is 8"),
        ({}, True, 0, "set binance.account_uid = 7"),
    ],
)
def test_each_fault_of_a_key_is_told(rights, can_trade, uid, told):
    key = KeyTold(KeyHolder(uid=7, can_trade=can_trade), KeyRights(**GOOD | rights))
    faults = key.faults(uid)
    assert len(faults) == (told is not None)
    assert told is None or told in faults[0]


@pytest.mark.parametrize("right", EXCESS)
def test_a_right_that_is_not_told_counts_against_the_key(right):
    names = {field.name: field.encode_name for field in msgspec.structs.fields(KeyRights)}
    told = {names[field]: value for field, value in GOOD.items()}
    name = names[right]
    del told[name]
    rights = msgspec.json.decode(msgspec.json.encode(told), type=KeyRights)
    (fault,) = KeyTold(KeyHolder(uid=7, can_trade=True), rights).faults(7)
    assert "does not tell" in fault
    assert name in fault


@pytest.mark.parametrize(("withdraws", "bound"), [(False, True), (True, True), (False, False)])
def test_the_venue_is_asked_what_the_key_may_do(withdraws, bound):
    venue = Loopback(LiveClock(), [])
    account = venue.open_account(7, "key", "secret", [])
    account.withdraws, account.ip_bound = withdraws, bound
    with hosted(venue) as server:
        client = BinanceSpot(f"http://127.0.0.1:{server.port}", None, Signer(Secret("key"), Secret("secret")), LiveClock())  # fmt: skip
        told = client.key()
        client.close()
    assert msgspec.structs.asdict(told.holder) == {"uid": 7, "can_trade": True}
    assert bool(told.faults(7)) == (withdraws or not bound)
