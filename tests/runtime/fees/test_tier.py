"""The tier is a fold of journaled candles and fills, and nothing else moves it."""

from collections import defaultdict
from decimal import Decimal as D

from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.events import CandleClosed, OrderFilled
from bot4_runtime.domain.order import Book, Fill, Liquidity, Side
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.schedules import binance_schedule
from bot4_runtime.fees.tier import TierFold

SPOT, USDM = binance_schedule(Market.SPOT), binance_schedule(Market.USDM)
DAY = 86_400_000
NS = 1_000_000


def closed(at_ms, symbol="BTCUSDT", close=50_000.0):
    candle = Candle(symbol=symbol, interval="1h", open_time_ms=at_ms - 3_600_000, open=close,
                    high=close, low=close, close=close, volume=1.0)  # fmt: skip
    return CandleClosed(ts_event_ns=at_ms * NS, candle=candle)


def filled(at_ms, notional, symbol="ETHUSDT", book=Book.VALIDATED):
    fill = Fill(
        trade_id=str(at_ms), intent_no=1, book=book, symbol=symbol, side=Side.BUY,
        price=D(1000), quantity=D(notional) / 1000, fee=D(0), fee_asset="USDT",
        liquidity=Liquidity.TAKER, ts_event_ns=at_ms * NS,
    )  # fmt: skip
    return OrderFilled(ts_event_ns=at_ms * NS, fill=fill)


def folded(schedule, events, *, tier=0, bnb="0", quote="USDT"):
    fees = FeeCalculator(schedule, tier)
    fold = TierFold(fees, quote, D(bnb))
    for event in events:
        fold.apply(event)
    return fees


def test_a_spot_tier_follows_volume_and_the_bnb_that_is_held():
    events = [filled(0, 5_000_000), closed(DAY - 1)]
    assert folded(SPOT, events, bnb="100").tier == 0, "not before midnight"
    events.append(closed(DAY))
    assert [folded(SPOT, events, bnb=bnb).tier for bnb in ("0", "25", "100")] == [0, 1, 2]
    assert folded(SPOT, events, tier=3, bnb="100").tier == 3


def test_usdm_volume_counts_in_btc_at_the_close_before_the_fill():
    events = [
        closed(DAY - 2, close=20_000.0), filled(DAY - 1, 5_000_000), closed(DAY, close=1.0),
    ]  # fmt: skip
    assert folded(USDM, events).tier == 1  # 250 BTC
    assert folded(USDM, events[1:]).tier == 0, "a price nobody saw is not guessed"
    assert folded(USDM, [filled(0, 250_000, "BTCUSDT"), closed(DAY)]).tier == 1


def test_only_the_validated_book_and_dollars_count():
    shadow = [filled(0, 5_000_000, book=Book.SHADOW), closed(DAY)]
    assert folded(SPOT, shadow, bnb="100").tier == 0
    euros = [filled(0, 5_000_000), closed(DAY)]
    assert folded(SPOT, euros, bnb="100", quote="EUR").tier == 0


@given(st.lists(st.tuples(st.integers(0, 50 * 24), st.integers(0, 9_000_000)), max_size=60))
def test_the_tier_is_that_of_a_sum_over_the_thirty_days_before(trades):
    by_day, steps = defaultdict(int), []
    for hour, notional in sorted(trades):
        steps += [filled(hour * 3_600_000, notional), closed(hour * 3_600_000 + 1)]
        by_day[hour // 24] += notional
    fees = folded(SPOT, steps, bnb="99999")
    if not trades:
        assert fees.tier == 0
        return
    today = max(trades)[0] // 24
    total = sum(v for day, v in by_day.items() if today - 30 <= day < today)
    assert fees.tier == SPOT.tier_for(D(total), D(99999))
