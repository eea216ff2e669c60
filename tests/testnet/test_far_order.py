"""A far limit order is placed, queried and cancelled: at the user's own testnet account by
`pytest -m testnet`, and, by the same words, at the venue on loopback in every run of the tests.

Keys and hosts are those of `start --mode testnet`; a host of real money is refused, and is never
asked anything.
"""

import os
import time
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal

import pytest

from bot4_runtime.app.hosts import host_faults
from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import OrderAccepted
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    Order,
    OrderIntent,
    OrderStatus,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from bot4_runtime.exchange.binance.limits import shared_budget
from bot4_runtime.exchange.binance.market_messages import decode_snapshot
from bot4_runtime.exchange.binance.signing import (
    API_KEY,
    Secret,
    Signer,
    signer_from_environment,
)
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.settings import load_settings
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

SYMBOL = "BTCUSDT"
SHARE = Decimal("0.8")
"""Of the best bid: far enough not to trade, and within Binance's bands."""


def far_order(client: BinanceSpot, number: int) -> OrderIntent:
    """Return the smallest buy that the rules let pass, 20 % below the market."""
    book = decode_snapshot(client._http.get("/api/v3/depth", f"symbol={SYMBOL}&limit=5", {}))
    rules = client.rules(SYMBOL)
    assert rules is not None, "the venue told its rules"
    told = rules.instrument()
    price = rules.price(book.bids[0][0] * SHARE, up=False)
    steps = (told.min_notional * Decimal("1.2") / price / told.step_size).to_integral_value(
        ROUND_CEILING
    )
    quantity = max(steps * told.step_size, told.min_quantity)
    return OrderIntent(
        intent_no=number,
        book=Book.VALIDATED,
        purpose=Purpose.ENTRY,
        symbol=SYMBOL,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        quantity=quantity,
        price=price,
        stop_price=None,
        time_in_force=TimeInForce.GTC,
        reduce_only=False,
        reference_price=book.bids[0][0],
        stop_loss=None,
        expires_after=0,
        signal_id="s",
        rule_id="r",
        ts_ns=time.time_ns(),
    )


def until(wanted: Callable[[], object], within_s: float = 15.0) -> bool:
    end = time.monotonic() + within_s
    while not wanted():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def placed_queried_and_cancelled(client: BinanceSpot, name: str) -> None:
    """Take an order through its life, and leave nothing behind however that goes."""
    client.start()
    assert until(lambda: client.following), "the user stream stands"
    intent = far_order(client, 1)
    order = Order(
        intent=intent,
        client_id=name,
        status=OrderStatus.ACCEPTED,
        filled=Decimal(0),
        spent=Decimal(0),
        cancel_requested=True,
        age=0,
        reason="",
    )
    reported: list[tuple[str, OrderStatus]] = []

    def reports(status: OrderStatus) -> bool:
        reported.extend((u.order.client_id, u.order.status) for u in client.poll())
        return (name, status) in reported

    try:
        [accepted] = client.submit(intent, name, 0.0)
        assert isinstance(accepted, OrderAccepted), "it rests, and nothing of it traded"
        told = client.query(SYMBOL, name)
        assert told is not None
        assert (told.status, told.quantity, told.filled) == (
            OrderStatus.ACCEPTED,
            intent.quantity,
            0,
        )
        assert told.venue_order_id == accepted.venue_order_id
        assert name in {one.client_id for one in client.open_orders()}
        assert until(lambda: reports(OrderStatus.ACCEPTED)), "the user stream told of it"
    finally:
        client.cancel(order, time.time_ns())
    ended = client.query(SYMBOL, name)
    assert ended is not None
    assert (ended.status, ended.filled) == (OrderStatus.CANCELED, 0)
    assert name not in {one.client_id for one in client.open_orders()}
    assert until(lambda: reports(OrderStatus.CANCELED)), "and of its end"


@pytest.mark.testnet
def test_at_the_users_own_testnet_account():
    if not os.environ.get(API_KEY):
        pytest.skip(f"{API_KEY} and its secret are not set: no testnet account to try it at")
    settings = load_settings(overrides={"runtime": {"mode": "testnet"}})
    faults = host_faults(settings)
    assert not faults, "; ".join(faults)
    rest_url, stream_url = settings.binance.hosts("testnet")
    client = BinanceSpot(
        rest_url,
        stream_url,
        signer_from_environment(os.environ),
        LiveClock(),
        budget=shared_budget(Market.SPOT, testnet=True),
        order_url=stream_url,
        symbols=[SYMBOL],
        proxy=settings.binance.proxy or None,
    )
    try:
        placed_queried_and_cancelled(client, f"b4-testnet-{time.time_ns()}")
    finally:
        client.close()


@pytest.mark.parametrize("by_line", [True, False])
def test_at_the_venue_on_loopback(by_line):
    rules = SymbolRules.of(Instrument.assume(SYMBOL, Market.SPOT, 40_000.0))
    venue = Loopback(LiveClock(), [(rules, Decimal(40_000))])
    venue.open_account(1, "key", "secret", [("USDT", Decimal(100_000))])
    with hosted(venue) as server:
        ws = f"ws://127.0.0.1:{server.port}/ws-api/v3"
        client = BinanceSpot(
            f"http://127.0.0.1:{server.port}",
            ws,
            Signer(Secret("key"), Secret("secret")),
            LiveClock(),
            order_url=ws if by_line else None,
            symbols=[SYMBOL],
        )
        try:
            placed_queried_and_cancelled(client, "b4-1-1")
        finally:
            client.close()
        account = venue.exchange.account("key")
        [order] = venue.exchange.orders(account)
        assert (order.client_id, order.status.value, order.filled) == ("b4-1-1", "CANCELED", 0)


def test_hosts_of_real_money_are_refused(monkeypatch):
    monkeypatch.setenv(API_KEY, "key")
    monkeypatch.setenv("BOT4_BINANCE__REST_URL", "https://api.binance.com")
    monkeypatch.setenv("BOT4_BINANCE__STREAM_URL", "wss://ws-api.binance.com/ws-api/v3")
    with pytest.raises(AssertionError, match="real money"):
        test_at_the_users_own_testnet_account()
