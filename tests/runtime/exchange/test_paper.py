"""The paper venue is a pure function of orders and candle, and never better than the candle."""

from decimal import ROUND_DOWN, Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.events import OrderAccepted, OrderClosed, OrderFilled, OrderRejected
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    Liquidity,
    Order,
    OrderIntent,
    OrderStatus,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from bot4_runtime.exchange.paper import PaperVenue
from bot4_runtime.exchange.paper_model import PaperModel
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.schedules import binance_schedule

HOUR = 3_600_000
INSTRUMENT = Instrument.assume("BTCUSDT", Market.SPOT, 100.0)


def venue(**changed: float) -> PaperVenue:
    return PaperVenue(PaperModel(**changed), FeeCalculator(binance_schedule(Market.SPOT)))  # type: ignore[arg-type]


def candle(
    open_: float = 100.0,
    high: float = 101.0,
    low: float = 99.0,
    close: float = 100.5,
    volume: float = 1000.0,
    at: int = HOUR,
) -> Candle:
    return Candle(
        symbol="BTCUSDT",
        interval="1h",
        open_time_ms=at,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
    )


def order(
    side: Side = Side.BUY,
    kind: OrderType = OrderType.MARKET,
    quantity: str = "1",
    price: str | None = None,
    stop: str | None = None,
    number: int = 1,
    age: int = 0,
    filled: str = "0",
    book: Book = Book.VALIDATED,
    force: TimeInForce = TimeInForce.GTC,
    status: OrderStatus = OrderStatus.ACCEPTED,
) -> Order:
    return Order(
        intent=OrderIntent(
            intent_no=number,
            book=book,
            purpose=Purpose.ENTRY,
            symbol="BTCUSDT",
            side=side,
            order_type=kind,
            quantity=Decimal(quantity),
            price=None if price is None else Decimal(price),
            stop_price=None if stop is None else Decimal(stop),
            time_in_force=force,
            reduce_only=False,
            reference_price=Decimal(100),
            stop_loss=None,
            expires_after=0,
            signal_id="s",
            rule_id="r",
            ts_ns=0,
        ),
        client_id="c",
        status=status,
        filled=Decimal(filled),
        spent=Decimal(0),
        cancel_requested=False,
        age=age,
        reason="",
    )


def fills(paper: PaperVenue, seen: Candle, *orders: Order) -> list[OrderFilled]:
    events = paper.on_candle(seen, orders, INSTRUMENT)
    assert all(isinstance(event, OrderFilled) for event in events)
    return events  # type: ignore[return-value]


def test_a_market_buy_pays_more_than_the_open_and_a_sell_gets_less() -> None:
    (bought,) = fills(venue(), candle(), order())
    (sold,) = fills(venue(), candle(), order(Side.SELL))
    assert sold.fill.price < Decimal(100) < bought.fill.price
    assert bought.fill.liquidity is sold.fill.liquidity is Liquidity.TAKER


def test_fees_are_binance_spot_vip_0_in_the_asset_received() -> None:
    (bought,) = fills(venue(), candle(), order())
    (sold,) = fills(venue(), candle(), order(Side.SELL))
    assert (bought.fill.fee, bought.fill.fee_asset) == (Decimal("0.00100000"), "BTC")
    assert sold.fill.fee_asset == "USDT"
    assert sold.fill.fee == (sold.fill.price * Decimal("0.001")).quantize(Decimal("1e-8"))


def test_with_the_discount_fees_are_taken_in_bnb_at_its_mark_and_whole_without_one() -> None:
    fees = FeeCalculator(binance_schedule(Market.SPOT), bnb_discount=True)
    marks = {"BNBUSDT": 600.0}
    paper = PaperVenue(PaperModel(), fees, marks.get)
    (sold,) = fills(paper, candle(), order(Side.SELL))
    due = (sold.fill.price * Decimal("0.00075") / 600).quantize(Decimal("1e-8"), ROUND_DOWN)
    assert (sold.fill.fee, sold.fill.fee_asset) == (due, "BNB")
    marks.clear()
    (whole,) = fills(paper, candle(), order(Side.SELL))
    due = (whole.fill.price * Decimal("0.001")).quantize(Decimal("1e-8"), ROUND_DOWN)
    assert (whole.fill.fee, whole.fill.fee_asset) == (due, "USDT")


def test_the_price_taken_is_the_stated_spread_and_impact() -> None:
    (bought,) = fills(
        venue(spread_bps=0.0, impact_bps=100.0, volume_share=1.0), candle(), order(quantity="10")
    )
    # 100 bps x sqrt(10 / 1000) = 10 bps of 100.
    assert bought.fill.price == Decimal("100.1")


def test_a_limit_fills_at_its_price_when_traded_through_and_makes() -> None:
    (made,) = fills(venue(), candle(low=98.0), order(kind=OrderType.LIMIT, price="99", age=1))
    assert (made.fill.price, made.fill.liquidity) == (Decimal(99), Liquidity.MAKER)


def test_a_limit_the_candle_does_not_reach_waits() -> None:
    assert fills(venue(), candle(), order(kind=OrderType.LIMIT, price="98.9")) == []


@pytest.mark.parametrize(("touch", "count"), [(0.0, 0), (1.0, 1)])
def test_a_touched_limit_fills_as_often_as_stated(touch: float, count: int) -> None:
    touched = order(kind=OrderType.LIMIT, price="99", age=1)
    assert len(fills(venue(touch_fill=touch), candle(low=99.0), touched)) == count


def test_a_limit_that_crosses_at_once_takes_but_never_beyond_its_price() -> None:
    crossing = order(kind=OrderType.LIMIT, price="100.005")
    (taken,) = fills(venue(spread_bps=50.0), candle(), crossing)
    assert taken.fill.liquidity is Liquidity.TAKER
    assert taken.fill.price == Decimal("100.005")


def test_a_sell_limit_mirrors_a_buy_limit() -> None:
    (made,) = fills(
        venue(), candle(high=102.0), order(Side.SELL, OrderType.LIMIT, price="101", age=2)
    )
    assert made.fill.price == Decimal(101)


def test_a_stop_waits_until_its_price_trades_and_fills_below_it() -> None:
    stop = order(Side.SELL, OrderType.STOP_MARKET, stop="98")
    assert fills(venue(), candle(low=98.5), stop) == []
    (stopped,) = fills(venue(), candle(low=97.0), stop)
    assert stopped.fill.price < Decimal(98)


def test_a_stop_the_market_opens_beyond_fills_at_the_open_not_at_the_stop() -> None:
    stop = order(Side.SELL, OrderType.STOP_MARKET, stop="98")
    (stopped,) = fills(venue(), candle(95.0, 96.0, 94.0, 95.5), stop)
    assert stopped.fill.price < Decimal(95)


def test_a_stop_that_began_to_fill_goes_on_without_its_price() -> None:
    rest = order(
        Side.SELL,
        OrderType.STOP_MARKET,
        stop="98",
        filled="0.5",
        status=OrderStatus.PARTIALLY_FILLED,
    )
    (more,) = fills(venue(), candle(), rest)
    assert more.fill.quantity == Decimal("0.5")


def test_the_volume_share_is_shared_by_a_books_orders_and_not_between_books() -> None:
    paper = venue(volume_share=0.001)  # one coin of the candle's thousand
    first = order(quantity="0.75", number=1)
    second = order(quantity="0.75", number=2)
    shadow = order(quantity="0.75", number=3, book=Book.SHADOW)
    quantities = [f.fill.quantity for f in fills(paper, candle(), first, second, shadow)]
    assert quantities == [Decimal("0.75"), Decimal("0.25"), Decimal("0.75")]


def test_nothing_fills_in_a_candle_without_volume() -> None:
    assert fills(venue(), candle(volume=0.0), order()) == []


def test_an_immediate_order_expires_with_what_it_did_not_get() -> None:
    paper = venue(volume_share=0.0005)
    taken, ended = paper.on_candle(candle(), [order(force=TimeInForce.IOC)], INSTRUMENT)
    assert isinstance(taken, OrderFilled)
    assert isinstance(ended, OrderClosed)
    assert ended.status == "expired"


@pytest.mark.parametrize(
    "status",
    [s for s in OrderStatus if s not in {OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED}],
)
def test_only_accepted_orders_are_matched(status: OrderStatus) -> None:
    assert fills(venue(), candle(), order(status=status)) == []


def test_buys_beyond_the_free_cash_are_rejected_and_sells_are_not() -> None:
    buy, sell = order().intent, order(Side.SELL).intent
    (rejected,) = venue().submit(buy, "c", cash_free=99.0)
    assert isinstance(rejected, OrderRejected)
    assert rejected.code == "-2010"
    assert isinstance(venue().submit(buy, "c", cash_free=100.0)[0], OrderAccepted)
    assert isinstance(venue().submit(sell, "c", cash_free=0.0)[0], OrderAccepted)
    assert isinstance(venue().submit(buy, "c", cash_free=float("nan"))[0], OrderRejected)


def test_a_cancel_ends_a_live_order_and_leaves_a_finished_one() -> None:
    (closed,) = venue().cancel(order(), 7)
    assert isinstance(closed, OrderClosed)
    assert (closed.status, closed.ts_event_ns) == ("canceled", 7)
    assert venue().cancel(order(status=OrderStatus.FILLED), 7) == []


def test_draws_depend_on_seed_intent_and_candle_alone() -> None:
    one, two = order(number=1), order(number=2)
    together = fills(venue(), candle(), one, two)
    alone = [*fills(venue(), candle(), one), *fills(venue(), candle(), two)]
    assert together == alone
    other_seed = fills(venue(seed=8), candle(), one, two)
    assert [f.fill.price for f in other_seed] != [f.fill.price for f in together]
    later = fills(venue(), candle(at=2 * HOUR), one)
    assert later[0].fill.price != alone[0].fill.price


@given(
    low=st.floats(90, 100),
    spread=st.floats(0, 5),
    body=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    side=st.sampled_from(Side),
    kind=st.sampled_from(OrderType),
    at=st.decimals(90, 110, places=2),
    quantity=st.decimals("0.001", "50", places=3),
    age=st.integers(0, 2),
)
def test_no_fill_is_better_than_the_candle_allows(
    low: float, spread: float, body: tuple[float, float], side: Side, kind: OrderType,
    at: Decimal, quantity: Decimal, age: int,
) -> None:  # fmt: skip
    high = low + spread
    seen = candle(low + body[0] * spread, high, low, low + body[1] * spread)
    placed = order(side, kind, str(quantity), age=age)
    field = {OrderType.LIMIT: "price", OrderType.STOP_MARKET: "stop_price"}.get(kind)
    if field is not None:
        placed = msgspec.structs.replace(
            placed, intent=msgspec.structs.replace(placed.intent, **{field: at})
        )
    for event in fills(venue(), seen, placed):
        fill = event.fill
        assert 0 < fill.quantity <= min(quantity, Decimal(50))
        assert fill.price % INSTRUMENT.tick_size == 0
        if kind is OrderType.LIMIT:
            assert side.sign * (at - fill.price) >= 0
        if fill.liquidity is Liquidity.TAKER and kind is not OrderType.LIMIT:
            edge = seen.low if side is Side.BUY else seen.high
            assert side.sign * (float(fill.price) - edge) >= -1e-9
