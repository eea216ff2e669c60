"""Trades are handed out each once and in order; their candles are the market's."""

from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.errors import DataError
from bot4_runtime.exchange.binance import trade_tape
from bot4_runtime.exchange.binance.market_messages import MarketDecoder, Trade
from bot4_runtime.exchange.binance.trade_tape import TradeCandles, TradeTape

MINUTE = 60_000
BEFORE_MIDNIGHT = 1_723_161_600_000 - 5 * MINUTE


def trade(number, time=0, price=1, quantity=1, kind="MARKET"):
    return Trade(
        symbol="BTCUSDT", trade_id=number, price=Decimal(price), quantity=Decimal(quantity),
        time=time, buyer_is_maker=True, kind=kind,
    )  # fmt: skip


def ids(trades):
    return [made.trade_id for made in trades]


@given(st.lists(st.integers(0, 30)), st.randoms())
def test_however_they_come_they_leave_in_order_and_once(repeats, rng):
    tape = TradeTape(last_id=-1)
    coming = list(range(31)) + repeats
    rng.shuffle(coming)
    left = [made for number in coming for made in tape.take(trade(number))]
    assert ids(left) == list(range(31))
    assert (tape.missing, tape.repeated, tape.given_up) == (None, len(repeats), 0)


def test_what_is_missing_is_named_and_may_be_filled_in_or_given_up():
    tape = TradeTape()
    assert (tape.missing, tape.give_up()) == (None, [])
    assert ids(tape.take(trade(7))) == [7]
    for number in (10, 11, 14):
        assert tape.take(trade(number)) == []
    assert tape.missing == (8, 9)
    assert ids(tape.take(trade(8))) == [8]
    assert ids(tape.take(trade(9))) == [9, 10, 11]
    assert tape.missing == (12, 13)
    assert ids(tape.give_up()) == [14]
    assert (tape.missing, tape.given_up, tape.last_id) == (None, 2, 14)


def test_more_than_may_wait_is_an_error(monkeypatch):
    monkeypatch.setattr(trade_tape, "WAITING_MOST", 2)
    tape = TradeTape(last_id=0)
    tape.take(trade(5))
    tape.take(trade(6))
    with pytest.raises(DataError, match="wait for number 1"):
        tape.take(trade(7))


def test_a_candle_ends_with_the_first_trade_after_it():
    candles = TradeCandles("1m")
    told = [(0, "5", "1"), (59_999, "7", "0.1"), (59_999, "4", "0.2"), (180_000, "6", "3"), (240_000, "9", "1")]  # fmt: skip
    made = [candles.add(trade(n, time, p, q)) for n, (time, p, q) in enumerate(told)]
    assert made[:3] == [None, None, None]
    first, second = made[3:]
    assert (first.open_time_ms, first.open, first.high, first.low, first.close, first.volume) == (0, 5, 7, 4, 4, 1.3)  # fmt: skip
    assert (second.open_time_ms, second.close, second.volume) == (180_000, 6, 3)
    assert candles.add(trade(9, 900_000, "0", "0", "NA")) is None


@pytest.mark.data
@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_candles_of_the_recorded_trades_are_those_of_the_market(captured, test_data, market):
    """Whole minutes against polars; all of them against Binance's own hour, which ends there."""
    decoder, tape, candles = MarketDecoder(), TradeTape(), TradeCandles("1m")
    rows, made = [], []
    for _, message in captured(market):
        if b"@trade" not in message[:40]:
            continue
        event = decoder.decode(message)
        (only,) = tape.take(event)
        rows.append((only.time, float(only.price), only.quantity))
        made.append(candles.add(only))
    made.append(candles.add(trade(0, BEFORE_MIDNIGHT + 6 * MINUTE)))  # ends the last one
    assert (tape.repeated, tape.missing) == (0, None), "contiguous from the first to the last"
    made = [
        candle
        for candle in made
        if candle and 0 <= candle.open_time_ms - BEFORE_MIDNIGHT < 5 * MINUTE
    ]
    assert [candle.open_time_ms for candle in made] == [BEFORE_MIDNIGHT + n * MINUTE for n in range(5)]  # fmt: skip
    frame = pl.DataFrame(rows, schema=["time", "price", "quantity"], orient="row")
    grouped = frame.group_by(pl.col("time") // MINUTE * MINUTE, maintain_order=True).agg(
        pl.col("price").first().alias("open"), pl.col("price").max().alias("high"),
        pl.col("price").min().alias("low"), pl.col("price").last().alias("close"),
        pl.col("quantity").sum().alias("volume"),
    )  # fmt: skip
    whole = [row for row in grouped.rows() if BEFORE_MIDNIGHT <= row[0] < BEFORE_MIDNIGHT + 5 * MINUTE]  # fmt: skip
    assert [(c.open_time_ms, c.open, c.high, c.low, c.close, c.volume) for c in made] == [
        (*row[:5], float(row[5])) for row in whole
    ]
    hours = pl.read_parquet(test_data / market / "1h" / "BTCUSDT.parquet")
    hour = hours.filter(pl.col("timestamp").cast(pl.Int64) == BEFORE_MIDNIGHT - 55 * MINUTE)
    told = hour.row(0, named=True)
    assert made[-1].close == told["close"]
    assert told["low"] <= min(c.low for c in made) <= max(c.high for c in made) <= told["high"]
    assert sum(c.volume for c in made) < told["volume"]
