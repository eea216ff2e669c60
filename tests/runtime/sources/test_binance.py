"""Binance's candles, polled from a server on loopback that answers as Binance does."""

import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.clock import LiveClock, ManualClock
from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.errors import DataError, LocationRefused, VenueUnreachable
from bot4_runtime.exchange.binance.limits import DEFAULT_PAUSE_MS, RequestBudget
from bot4_runtime.exchange.binance.polling import PAGE, BinanceSource
from bot4_runtime.patience import patiently

HOUR = 3_600_000
FROM = 1_704_067_200_000  # 2024-01-01
COUNT = 2 * PAGE + 300
NOW = FROM + COUNT * HOUR + HOUR // 3
SYMBOLS = ("BNBUSDT", "BTCUSDT", "ETHUSDT")


class Venue:
    """What the server says; `faults` are answered first, one a request."""

    def __init__(self) -> None:
        simulated = SimulatedMarket(2)
        self.rows = {
            symbol: list(simulated.series(symbol, "1h", FROM, NOW + HOUR)) for symbol in SYMBOLS
        }
        self.faults: list[tuple[int, object]] = []
        self.torn = False
        self.asked: list[tuple[str, dict[str, str]]] = []

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, object]:
        self.asked.append((path, query))
        if self.faults:
            return self.faults.pop(0)
        if path.endswith("/exchangeInfo"):
            return 200, {"serverTime": NOW, "symbols": [self.market(s, path) for s in SYMBOLS]}
        if path.endswith("/klines"):
            start = int(query["startTime"])
            rows = [c for c in self.rows[query["symbol"]] if c.open_time_ms >= start]
            return 200, [self.wire(c) for c in rows[: int(query["limit"])]]
        return 404, {}

    def wire(self, c: Candle) -> list[object]:
        high = c.low / 2 if self.torn else c.high
        prices = [str(price) for price in (c.open, high, c.low, c.close, c.volume)]
        return [c.open_time_ms, *prices, c.close_time_ms - 1, "0", 1, "0", "0", "0"]

    @staticmethod
    def market(symbol: str, path: str) -> dict[str, object]:
        perpetual = {"marginAsset": "USDT", "pair": symbol, "contractType": "PERPETUAL"}
        return (perpetual if path.startswith("/fapi") else {}) | {
            "symbol": symbol, "status": "TRADING", "baseAsset": symbol[:-4], "quoteAsset": "USDT",
            "baseAssetPrecision": 8, "quotePrecision": 8, "quoteAssetPrecision": 8,
            "pricePrecision": 2, "quantityPrecision": 3, "orderTypes": ["LIMIT"],
            "isSpotTradingAllowed": True, "filters": [], "permissions": [],
            "permissionSets": [["SPOT"]],
        }  # fmt: skip


@pytest.fixture
def served() -> Iterator[tuple[Venue, str]]:
    venue = Venue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            status, document = venue.answer(url.path, query)
            body = (
                document.encode() if isinstance(document, str) else json.dumps(document).encode()
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield venue, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def source(base_url: str, *symbols: str, now_ms: int = NOW, market: Market = Market.SPOT):
    clock = ManualClock(now_ms * 1_000_000)
    polled = BinanceSource(
        symbols=symbols or SYMBOLS, interval="1h", market=market, clock=clock, base_url=base_url
    )
    return polled, clock


def test_history_is_complete_over_pages_and_never_holds_a_forming_candle(served) -> None:
    venue, url = served
    polled, _ = source(url, "BTCUSDT")
    got = list(polled.history(FROM, NOW + 10 * HOUR))
    assert got == venue.rows["BTCUSDT"][:COUNT]
    assert got[-1].close_time_ms <= NOW
    assert len([path for path, _ in venue.asked if path.endswith("/klines")]) == 3


@pytest.mark.parametrize(("late_ms", "closed"), [(-1, 9), (0, 10), (1, 10)])
def test_a_candle_is_taken_from_its_close_on(served, late_ms: int, closed: int) -> None:
    _, url = served
    polled, _ = source(url, "BTCUSDT", now_ms=FROM + 10 * HOUR + late_ms)
    assert len(list(polled.history(FROM, NOW))) == closed


def test_history_is_merged_and_keeps_to_its_range(served) -> None:
    _, url = served
    polled, _ = source(url, "ETHUSDT", "BTCUSDT")
    got = list(polled.history(FROM + 5 * HOUR - 1, FROM + 8 * HOUR))
    assert [(c.open_time_ms, c.symbol) for c in got] == [
        (FROM + n * HOUR, s) for n in (5, 6, 7) for s in ("BTCUSDT", "ETHUSDT")
    ]
    assert list(polled.history(FROM, FROM)) == []


def test_a_stream_continues_past_each_cursor_and_keeps_order(served) -> None:
    _, url = served
    polled, _ = source(url, "BTCUSDT", "ETHUSDT", now_ms=FROM + 20 * HOUR)
    cursor = {"BTCUSDT": FROM + 17 * HOUR, "ETHUSDT": FROM + 18 * HOUR}
    stop = threading.Event()
    got = []
    for candle in filter(None, polled.stream(FROM, cursor, stop)):
        got.append((candle.symbol, (candle.open_time_ms - FROM) // HOUR))
        if len(got) == 3:
            stop.set()
    assert got == [("BTCUSDT", 18), ("BTCUSDT", 19), ("ETHUSDT", 19)]


def test_a_reader_looks_around_between_the_answers_for_two_symbols(served) -> None:
    venue, url = served
    polled, _ = source(url, now_ms=FROM + 2 * HOUR)
    polled.check()
    venue.asked.clear()
    stop = threading.Event()
    stream = polled.stream(FROM, {}, stop)
    for number in range(1, len(SYMBOLS) + 1):
        assert next(stream) is None
        assert len(venue.asked) == number
    assert [next(stream) for _ in range(2)] == [venue.rows[s][0] for s in SYMBOLS[:2]]
    stop.set()


def test_a_stream_waits_for_the_next_close(served) -> None:
    _, url = served
    polled, clock = source(url, "BTCUSDT", now_ms=FROM + 3 * HOUR)
    stop = threading.Event()
    timer = threading.Timer(0.3, lambda: clock.advance_to((FROM + 4 * HOUR) * 1_000_000))
    timer.start()
    stream = polled.stream(FROM + 3 * HOUR, {}, stop)
    assert next(filter(None, stream)).open_time_ms == FROM + 3 * HOUR
    timer.join()
    stop.set()
    assert list(stream) == []


def test_a_lost_connection_is_retried_by_a_stream(served) -> None:
    venue, url = served
    polled, _ = source(url, "BTCUSDT", now_ms=FROM + 2 * HOUR)
    polled.check()
    venue.faults = [(502, "bad gateway")]
    stop = threading.Event()
    got = []
    for candle in filter(None, polled.stream(FROM, {}, stop)):
        got.append(candle)
        if len(got) == 2:
            stop.set()
    assert got == venue.rows["BTCUSDT"][:2]
    assert venue.faults == []


def test_nobody_listening_is_unreachable_and_a_stream_stops_when_told() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
    polled, _ = source(url, "BTCUSDT")
    with pytest.raises(VenueUnreachable, match="did not answer"):
        polled.check()
    with pytest.raises(VenueUnreachable):
        polled.history(FROM, NOW)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    assert list(polled.stream(FROM, {}, stop)) == []


REFUSED = {"code": 0, "msg": "Service unavailable from a restricted location"}


@pytest.mark.parametrize(("status", "body"), [(451, REFUSED), (451, "no")])
def test_a_refused_location_is_final(served, status: int, body: object) -> None:
    venue, url = served
    polled, _ = source(url, "BTCUSDT")
    venue.faults = [(status, body)] * 3
    with pytest.raises(LocationRefused, match="recorded or simulated"):
        polled.check()
    assert len(venue.asked) == 1


def test_a_refused_location_ends_a_stream_too(served) -> None:
    venue, url = served
    polled, _ = source(url, "BTCUSDT")
    polled.check()
    venue.faults = [(451, REFUSED)]
    with pytest.raises(LocationRefused):
        list(polled.stream(FROM, {}, threading.Event()))


@pytest.mark.parametrize("status", [418, 429, 500, 503, 504])
def test_a_venue_in_trouble_is_unreachable_not_wrong(served, status: int) -> None:
    venue, url = served
    polled, _ = source(url, "BTCUSDT")
    venue.faults = [(status, "{}")]
    with pytest.raises(VenueUnreachable):
        polled.check()


@pytest.mark.parametrize("status", [403, 418, 429])
@pytest.mark.parametrize("at_start", [False, True])
def test_who_wants_silence_is_not_asked_again_soon(served, status: int, at_start: bool) -> None:
    venue, url = served
    polled, _ = source(url, "BTCUSDT")
    if not at_start:
        polled.check()
    venue.faults = [(status, "<html>request blocked</html>")]
    with pytest.raises(VenueUnreachable):
        polled.check() if at_start else polled.history(FROM, NOW)
    venue.asked.clear()
    with pytest.raises(VenueUnreachable, match=r"another \d+ s; nothing was asked"):
        polled.check() if at_start else polled.history(FROM, NOW)
    assert venue.asked == []


class Passing(threading.Event):
    """Lets the time of a clock pass instead of waiting."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self.clock.advance_to(self.clock.now_ns() + round((timeout or 0.0) * 1_000_000_000))
        return self.is_set()


@pytest.mark.parametrize("body", ["<html>request blocked</html>", ""])
def test_a_firewall_is_waited_out_from_the_very_first_request_on(served, body: str) -> None:
    venue, url = served
    clock = ManualClock(NOW * 1_000_000)
    polled = BinanceSource(
        symbols=["BTCUSDT"],
        interval="1h",
        market=Market.SPOT,
        clock=clock,
        base_url=url,
        budget=RequestBudget(None, Market.SPOT, lambda: clock.now_ns() // 1_000_000),
    )
    venue.faults = [(403, body)] * 3
    told: list[str] = []
    got = patiently(lambda: list(polled.history(FROM, NOW)), Passing(clock), told.append)
    assert got == venue.rows["BTCUSDT"][:COUNT]
    assert [path for path, _ in venue.asked].count("/api/v3/exchangeInfo") == 4
    assert clock.now_ns() - NOW * 1_000_000 >= 3 * DEFAULT_PAUSE_MS * 1_000_000, "it kept asking"
    assert "HTTP 403" in told[0]
    assert "proxy" in told[0], "who is turned away for good is not told what to do"


def test_an_unknown_symbol_names_the_nearest(served) -> None:
    _, url = served
    polled, _ = source(url, "BTCUSDT", "ETHHUSDT")
    with pytest.raises(DataError, match="has no ETHHUSDT; nearest: ETHUSDT"):
        polled.check()
    far, _ = source(url, "QQQQQQQQQQUSDC")
    with pytest.raises(DataError, match="nearest: none"):
        far.check()
    with pytest.raises(DataError, match="has no ETHHUSDT"):
        polled.history(FROM, NOW)
    with pytest.raises(DataError, match="does not know the symbol"):
        polled.closed("ETHHUSDT", FROM)


def test_a_symbol_without_a_known_quote_is_refused_before_anyone_is_asked() -> None:
    with pytest.raises(DataError, match="BTCXYZ"):
        BinanceSource(symbols=["BTCXYZ"], interval="1h", market=Market.SPOT, clock=LiveClock())


def test_any_other_answer_is_told_in_its_own_words(served) -> None:
    venue, url = served
    polled, _ = source(url, "BTCUSDT")
    polled.check()
    venue.faults = [(400, {"code": -1100, "msg": "Illegal characters found in a parameter."})]
    with pytest.raises(DataError, match=r"BadRequest.*Illegal characters"):
        polled.history(FROM, NOW)


def test_an_impossible_candle_is_refused_where_it_enters(served) -> None:
    venue, url = served
    venue.torn = True
    polled, _ = source(url, "BTCUSDT")
    with pytest.raises(DataError, match="impossible candle BTCUSDT"):
        polled.history(FROM, NOW)


def test_futures_have_their_own_address_and_names(served) -> None:
    venue, url = served
    polled, _ = source(url, "BTCUSDT", market=Market.USDM)
    polled.check()
    got = list(polled.history(FROM, FROM + 4 * HOUR))
    assert got == venue.rows["BTCUSDT"][:4]
    assert {path for path, _ in venue.asked} == {"/fapi/v1/exchangeInfo", "/fapi/v1/klines"}


def test_without_a_base_url_it_is_binance_itself() -> None:
    polled = BinanceSource(
        symbols=["BTCUSDT"], interval="1h", market=Market.SPOT, clock=LiveClock()
    )
    assert polled.start_ms is None
    assert (polled.label, polled.symbols) == ("binance", ("BTCUSDT",))
