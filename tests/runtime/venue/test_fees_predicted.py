"""What the loopback venue charges, by its own code, is what `fees` predicts from the schedule."""

from decimal import Decimal

import pytest

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import InstrumentDefined
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
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.exchange.reconcile import fill_event
from bot4_runtime.fee_report import fee_report
from bot4_runtime.settings import FeesSection
from bot4_runtime.venue.hosting import hosted

SYMBOL = "BTCUSDT"
ORDERS = (  # odd amounts, so that eight decimals have to cut
    (Side.BUY, OrderType.MARKET, "0.01337", None),
    (Side.SELL, OrderType.MARKET, "0.00777", None),
    (Side.BUY, OrderType.LIMIT, "0.02129", "39999.7"),
    (Side.SELL, OrderType.LIMIT, "0.01013", "40000.7"),
)


class Journaled:
    """Events in memory, read as from a journal."""

    def __init__(self, events):
        self.kept = events

    def events(self, kinds):
        return [(seq, event) for seq, event in enumerate(self.kept, 1) if isinstance(event, kinds)]

    def account(self):
        return "memory"


def order(number, side, kind, quantity, price):
    intent = OrderIntent(
        intent_no=number,
        book=Book.VALIDATED,
        purpose=Purpose.ENTRY,
        symbol=SYMBOL,
        side=side,
        order_type=kind,
        quantity=Decimal(quantity),
        price=None if price is None else Decimal(price),
        stop_price=None,
        time_in_force=TimeInForce.GTC,
        reduce_only=False,
        reference_price=Decimal(40_000),
        stop_loss=None,
        expires_after=0,
        signal_id="s",
        rule_id="r",
        ts_ns=1,
    )
    return Order(
        intent=intent,
        client_id=f"b4-1-{number}",
        status=OrderStatus.ACCEPTED,
        filled=Decimal(0),
        spent=Decimal(0),
        cancel_requested=False,
        age=0,
        reason="",
    )


@pytest.fixture
def traded(make):
    """Trade at a venue that takes these commissions; return the events a journal would hold."""

    def through(maker: str, taker: str) -> list[object]:
        venue = make(live=True)
        account = venue.exchange.account("key1")
        account.maker, account.taker = Decimal(maker), Decimal(taker)
        events: list[object] = [
            InstrumentDefined(
                ts_event_ns=0, instrument=Instrument.assume(SYMBOL, Market.SPOT, 40_000.0)
            )
        ]
        with hosted(venue) as server:
            client = BinanceSpot(
                f"http://127.0.0.1:{server.port}",
                None,
                Signer(Secret("key1"), Secret("secret1")),
                LiveClock(),
            )
            orders = [order(number, *what) for number, what in enumerate(ORDERS, 1)]
            for sent in orders:
                client.submit(sent.intent, sent.client_id, 0.0)
            for price in ("39990", "40010"):
                venue.exchange.print(SYMBOL, Decimal(price), Decimal(1_000))
            by_venue_id = {
                client.query(SYMBOL, sent.client_id).venue_order_id: sent for sent in orders
            }
            events += [
                fill_event(by_venue_id[trade.venue_order_id], trade)
                for trade in client.trades(SYMBOL, 0)
            ]
            client.close()
        return events

    return through


# Binance, "Fee rate", spot: VIP 0 and 3 as of the schedule's date
@pytest.mark.parametrize(
    ("tier", "maker", "taker"), [(0, "0.001", "0.001"), (3, "0.00042", "0.0006")]
)
def test_the_venues_charges_are_those_predicted(traded, tier, maker, taker):
    events = traded(maker, taker)
    found = fee_report(Journaled(events), FeesSection(vip_tier=tier))
    assert found["fills"] == len(ORDERS)
    assert set(found["by_liquidity"]) == {"maker", "taker"}
    (day,) = found["reconciliation"].values()
    assert (day["checked"], day["unchecked"], day["deviations"]) == (4, 0, [])
    assert set(day["charged"]) == {"BTC", "USDT"}
    assert found["matches"] is True


@pytest.mark.parametrize(("maker", "taker"), [("0.00042", "0.00061"), ("0.00041", "0.0006")])
def test_a_venue_that_charges_something_else_is_noticed(traded, maker, taker):
    found = fee_report(Journaled(traded(maker, taker)), FeesSection(vip_tier=3))
    (day,) = found["reconciliation"].values()
    assert len(day["deviations"]) == 2
    assert found["matches"] is False
