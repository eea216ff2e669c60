"""What market streams send is read whole, or refused with one kind of error."""

import json
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import DataError
from bot4_runtime.exchange.binance import market_messages as messages
from bot4_runtime.exchange.binance.market_messages import MarketDecoder, Reply, Unreadable

MS = 1_723_161_255_343
TRADE = {"e": "trade", "E": MS, "s": "BTCUSDT", "t": 7, "p": "61837.63000000", "q": "0.02000000", "T": MS - 1, "m": True, "M": True}  # fmt: skip
AGGREGATE = {"e": "aggTrade", "E": MS, "s": "BTCUSDT", "a": 5, "p": "0.001", "q": "100", "f": 100, "l": 105, "T": MS, "m": False, "M": True}  # fmt: skip
CANDLE = {"t": MS, "T": MS + 59_999, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 9, "o": "10.5", "c": "11.25", "h": "12", "l": "9.75", "v": "1000", "n": 9, "x": True, "q": "1", "V": "5", "Q": "0.5", "B": "0"}  # fmt: skip
KLINE = {"e": "kline", "E": MS, "s": "BTCUSDT", "k": CANDLE}
TICKER = {"u": 400, "s": "BNBUSDT", "b": "25.35", "B": "31.21", "a": "25.36", "A": "40.66"}
DEPTH = {"e": "depthUpdate", "E": MS, "s": "BTCUSDT", "U": 157, "u": 160, "b": [["0.0024", "10"]], "a": [["0.0026", "0"]]}  # fmt: skip
MARK = {"e": "markPriceUpdate", "E": MS, "s": "BTCUSDT", "p": "11794.15", "i": "11784.62", "P": "11784.25", "r": "-0.00038167", "T": MS + 5}  # fmt: skip
FORCED = {"e": "forceOrder", "E": MS, "o": {"s": "BTCUSDT", "S": "SELL", "o": "LIMIT", "f": "IOC", "q": "0.014", "p": "9910", "ap": "9910", "X": "FILLED", "l": "0.014", "z": "0.014", "T": MS}}  # fmt: skip
EVENTS = {
    "btcusdt@trade": TRADE,
    "btcusdt@aggTrade": AGGREGATE,
    "btcusdt@kline_1m": KLINE,
    "bnbusdt@bookTicker": TICKER,
    "btcusdt@depth@100ms": DEPTH,
    "btcusdt@markPrice@1s": MARK,
    "!forceOrder@arr": FORCED,
}


def decode(message):
    return MarketDecoder().decode(json.dumps(message, ensure_ascii=False))


def wrapped(stream, data):
    return {"stream": stream, "data": data}


@pytest.mark.parametrize("stream", EVENTS)
def test_an_event_reads_the_same_with_the_wrapper_and_without(stream):
    alone = decode(EVENTS[stream])
    assert type(alone) in messages.KINDS.values()
    assert decode(wrapped(stream, EVENTS[stream])) == alone
    assert decode(wrapped("what@ever", EVENTS[stream])) == alone
    assert decode(wrapped("btcusdt@trade", EVENTS[stream])) == alone, "the event says what it is"


def test_what_the_fields_mean():
    trade = decode(TRADE)
    assert (trade.symbol, trade.trade_id, trade.price, trade.quantity) == ("BTCUSDT", 7, Decimal("61837.63"), Decimal("0.02"))  # fmt: skip
    assert (trade.ts_event_ns, trade.buyer_is_maker) == ((MS - 1) * 1_000_000, True)
    aggregate = decode(AGGREGATE)
    assert (aggregate.aggregate_id, aggregate.first_id, aggregate.last_id) == (5, 100, 105)
    assert aggregate.ts_event_ns == MS * 1_000_000
    kline = decode(KLINE)
    assert kline.closed
    assert (kline.candle(), kline.ts_event_ns) == (
        Candle(symbol="BTCUSDT", interval="1m", open_time_ms=MS, open=10.5, high=12.0, low=9.75, close=11.25, volume=1000.0),
        MS * 1_000_000,
    )  # fmt: skip
    ticker = decode(TICKER)
    assert (ticker.bid, ticker.ask_quantity, ticker.time) == (Decimal("25.35"), Decimal("40.66"), None)  # fmt: skip
    depth = decode(DEPTH)
    assert (depth.first_id, depth.last_id, depth.before_id) == (157, 160, None)
    assert (depth.bids, depth.asks, depth.ts_event_ns) == ([(Decimal("0.0024"), 10)], [(Decimal("0.0026"), 0)], MS * 1_000_000)  # fmt: skip
    assert decode(DEPTH | {"pu": 156}).before_id == 156
    mark = decode(MARK)
    assert (mark.price, mark.funding_rate, mark.ts_event_ns) == (Decimal("11794.15"), Decimal("-0.00038167"), MS * 1_000_000)  # fmt: skip
    assert decode(MARK | {"r": "", "T": 0}).funding_rate is None
    forced = decode(FORCED)
    assert (forced.symbol, forced.order.side, forced.ts_event_ns) == ("BTCUSDT", "SELL", MS * 1_000_000)  # fmt: skip


@pytest.mark.parametrize("event", [TRADE, AGGREGATE, KLINE, DEPTH, MARK, FORCED])
def test_microseconds_are_told_from_milliseconds(event):
    def fine(value):
        if isinstance(value, dict):
            return {name: fine(inner) for name, inner in value.items()}
        return value * 1000 + 7 if isinstance(value, int) and value > 10**12 else value

    exact, coarse = decode(fine(event)), decode(event)
    assert exact.ts_event_ns == coarse.ts_event_ns + 7_000
    assert decode(fine(KLINE)).candle() == decode(KLINE).candle()


@pytest.mark.parametrize("symbol", ["币安人生USDT", "ÅÄÖUSDT", "1000PEPEUSDT"])
def test_symbols_may_be_of_any_script(symbol):
    told = decode(wrapped(f"{symbol.lower()}@trade", TRADE | {"s": symbol}))
    assert (told.symbol, told.trade_id) == (symbol, 7)


NONSENSE = ["NaN", "-NaN", "sNaN", "Infinity", "-Infinity", "-0.01", "1e400", "1e-400", "", "x", None, [], True]  # fmt: skip


@pytest.mark.parametrize("value", NONSENSE)
@pytest.mark.parametrize(
    ("event", "path"),
    [(TRADE, "p"), (TRADE, "q"), (AGGREGATE, "p"), (TICKER, "b"), (TICKER, "A"), (MARK, "p"), (MARK, "i"),
     (KLINE, "k.o"), (KLINE, "k.v"), (FORCED, "o.q"), (FORCED, "o.ap"), (DEPTH, "b.0.0"), (DEPTH, "a.0.1")],
)  # fmt: skip
def test_what_is_no_price_or_quantity_is_refused(event, path, value):
    torn = json.loads(json.dumps(event))
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = torn
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises(Unreadable, match="cannot be read"):
        decode(torn)


@pytest.mark.parametrize(
    "event",
    [
        TRADE | {"p": "0"},
        AGGREGATE | {"f": 106},
        DEPTH | {"U": 161},
        DEPTH | {"b": [["0", "1"]]},
        MARK | {"r": "NaN"},
        MARK | {"r": "2"},
        TRADE | {"T": -1},
        TRADE | {"T": 10**18},
        TRADE | {"t": 2**70},
        TRADE | {"s": ""},
        {"e": "trade"},
        {"neither": "event nor answer"},
    ],
)
def test_what_cannot_be_is_refused(event):
    with pytest.raises(Unreadable):
        decode(event)


def test_a_torn_candle_reads_and_is_refused_as_a_candle():
    torn = decode(KLINE | {"k": CANDLE | {"h": "1"}})
    with pytest.raises(DataError, match="impossible candle"):
        torn.candle()


def test_empty_sides_of_a_ticker_and_trades_that_are_none_are_let_through():
    assert decode(TICKER | {"b": "0.00000000", "B": "0"}).bid == 0
    odd = decode(TRADE | {"X": "NA", "p": "0", "q": "0"})
    assert (odd.kind, odd.price) == ("NA", 0)


def test_unknown_events_words_and_fields_are_counted_and_never_an_error():
    decoder = MarketDecoder()

    def read(message):
        return decoder.decode(json.dumps(message))

    assert read({"e": "novelty", "E": MS}) is None
    assert read(wrapped("btcusdt@novelty", {"e": "novelty"})) is None
    assert read(wrapped("!markPrice@arr", [MARK])) is None
    assert read(TRADE | {"zz": {"deep": [1, 2]}}) == decode(TRADE)
    assert read(FORCED | {"o": FORCED["o"] | {"X": "VANISHED", "S": "NEITHER"}}).order.status == "VANISHED"  # fmt: skip
    assert read(KLINE | {"k": CANDLE | {"i": "7m"}}).fields.interval == "7m"
    assert read(TRADE | {"X": "GIFT"}).kind == "GIFT"
    assert decoder.counts == Counter(
        {"event novelty": 2, "event !markPrice@arr": 1, "word VANISHED": 1, "word NEITHER": 1,
         "word 7m": 1, "word GIFT": 1}
    )  # fmt: skip


def test_names_nobody_knows_cannot_fill_the_memory():
    decoder = MarketDecoder()
    for number in range(1_000):
        assert decoder.decode(json.dumps({"e": f"novelty{number}" + "x" * 500})) is None
    for number in range(5_000):
        decoder.decode(json.dumps(wrapped(f"s{number}@trade", TRADE)))
    assert sum(decoder.counts.values()) == 1_000
    assert len(decoder.counts) == messages.NAMES_COUNTED + 1
    assert max(map(len, decoder.counts)) <= 80
    assert len(decoder._decoders) == messages.STREAMS_REMEMBERED


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        ({"result": None, "id": 3}, Reply(3)),
        ({"result": ["btcusdt@trade"], "id": 3}, Reply(3)),
        ({"error": {"code": 2, "msg": "Invalid request: unknown"}, "id": 3}, Reply(3, 2, "Invalid request: unknown")),
        ({"code": 2, "msg": "Invalid request", "id": "text"}, Reply(None, 2, "Invalid request")),
        ({"error": {"code": 3, "msg": "Invalid JSON"}}, Reply(None, 3, "Invalid JSON")),
    ],
)  # fmt: skip
def test_answers_to_subscriptions(answer, meaning):
    assert decode(answer) == meaning


@pytest.mark.parametrize("shutdown", [{"e": "serverShutdown", "E": MS}, wrapped("x", {"e": "serverShutdown"})])  # fmt: skip
def test_the_venue_says_that_it_will_end_the_connection(shutdown):
    assert decode(shutdown) == messages.Shutdown()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def damaged(draw):
    """A real message with fields replaced, missing or bytes changed."""
    stream = draw(st.sampled_from(sorted(EVENTS)))
    event = json.loads(json.dumps(EVENTS[stream]))
    inner = next((value for value in event.values() if isinstance(value, dict)), event)
    for place in (event, inner):
        for name in draw(st.lists(st.sampled_from(sorted(place)), max_size=3)):
            place[name] = draw(JSON)
    if draw(st.booleans()):
        event.pop(draw(st.sampled_from(sorted(event))), None)
    message = wrapped(stream, event) if draw(st.booleans()) else event
    text = bytearray(json.dumps(message, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass"))  # fmt: skip
    for _ in range(draw(st.integers(0, 2))):
        text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
    return bytes(text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text)


@given(
    st.one_of(damaged(), st.binary(max_size=200), JSON.map(json.dumps), st.text(max_size=100)),
)
@example(b"[" * 100_000)
@example(b'{"z":' + b"[" * 100_000)
@example(b'{"stream":"a@trade","data":' + b'{"a":' * 100_000)
@example(b'{"e":"depthUpdate","E":1,"s":"A","U":1,"u":1,"b":[["1' + b"0" * 100_000 + b'","1"]],"a":[]}')  # fmt: skip
@example(b'\xff{"e":"trade"}')
@example('{"e":"\ud800"}')
def test_the_decoder_raises_its_own_error_and_no_other(text):
    decoder = MarketDecoder()
    for read in (decoder.decode, messages.decode_snapshot):
        try:
            event = read(text)
        except Unreadable:
            continue
        for value in (getattr(event, "price", None), getattr(event, "quantity", None)):
            assert value is None or (value.is_finite() and value >= 0)


def test_a_snapshot_is_read_and_checked():
    book = messages.decode_snapshot(b'{"lastUpdateId":9,"bids":[["4.0","431"]],"asks":[["4.1","12"]],"E":1}')  # fmt: skip
    assert (book.last_id, book.bids, book.asks) == (9, [(4, 431)], [(Decimal("4.1"), 12)])
    for wrong in (b'{"lastUpdateId":9,"bids":[["NaN","1"]],"asks":[]}', b"<html>", b'{"code":-1}'):
        with pytest.raises(Unreadable, match="depth snapshot"):
            messages.decode_snapshot(wrong)
