"""What a venue should hold follows from fills and what the operator accepted."""

from decimal import Decimal

from bot4_runtime.domain.account import Difference, DifferenceKind
from bot4_runtime.domain.events import Reconciled
from bot4_runtime.domain.order import Book, Fill, Liquidity, Side
from bot4_runtime.state.venue_account import _NAMES_KEPT, VenueAccount


def fill(side: Side, *, fee_asset: str) -> Fill:
    return Fill(
        trade_id="1",
        intent_no=1,
        book=Book.VALIDATED,
        symbol="BTCUSDT",
        side=side,
        price=Decimal(100),
        quantity=Decimal(2),
        fee=Decimal("0.5"),
        fee_asset=fee_asset,
        liquidity=Liquidity.TAKER,
        ts_event_ns=0,
    )


def difference(kind: DifferenceKind, name: str, ours: int, venue: int) -> Difference:
    return Difference(kind=kind, name=name, ours=Decimal(ours), venue=Decimal(venue), reason="r")


def told(*differences: Difference, opening: dict[str, Decimal] | None = None) -> Reconciled:
    return Reconciled(
        ts_event_ns=0, trades_through={"BTCUSDT": 7}, opening=opening, differences=differences
    )


def test_fills_and_their_fees_move_exactly_what_they_name() -> None:
    account = VenueAccount()
    account.reconciled(told(opening={"USDT": Decimal(1000)}))
    account.booked(fill(Side.BUY, fee_asset="BTC"), "BTC", "USDT")
    account.booked(fill(Side.SELL, fee_asset="BNB"), "BTC", "USDT")
    assert {asset: account.expected(asset) for asset in sorted(account.assets())} == {
        "BNB": Decimal("-0.5"),
        "BTC": Decimal("-0.5"),
        "USDT": Decimal(1000),
    }
    assert account.trades_through == {"BTCUSDT": 7}


def test_an_accept_takes_the_venues_word_and_clears_the_list() -> None:
    account = VenueAccount()
    account.reconciled(
        told(
            difference(DifferenceKind.BALANCE, "USDT", 10, 25),
            difference(DifferenceKind.ORDER, "web_1", 0, 1),
        )
    )
    account.accept()
    assert account.expected("USDT") == 15
    assert account.accepted == ["order web_1"]
    assert account.differences == ()


def test_names_of_orders_are_kept_to_a_bound_the_oldest_going_first() -> None:
    account = VenueAccount()
    for number in range(_NAMES_KEPT + 1):
        account.named("BTCUSDT", str(number), number)
    assert len(account.intents) == _NAMES_KEPT
    assert account.intent_of("BTCUSDT", "0") is None
    assert account.intent_of("BTCUSDT", "1") == 1
