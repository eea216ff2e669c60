"""Connector: a market message read in < 1 ms, and a decision < 10 ms after the event came.

The same messages go through ccxt.pro's own handlers (its parsing included) and through the bare
JSON readers, in the same run. Bursts and decisions come over a real WebSocket on loopback, from
a process of its own: the burst as fast as it is taken, every trade accounted for by its number;
the decision timed from the moment a closed candle is sent until the engine's batch for it is
written and carried out. It is a replay's journal, which waits for no disk: what a flush costs
comes on top (``bench_state``).
"""

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from benchmarks.harness import ROOT, Result, measure, of_rounds
from benchmarks.replay import MINUTE_MS, START_MS, random_walk, settings
from benchmarks.stream_server import shared_us
from bot4_runtime import app
from bot4_runtime.clock import NS_PER_MS, ManualClock
from bot4_runtime.domain.candle import Candle, Market, Origin
from bot4_runtime.exchange.binance.candle_feed import CandleFeed
from bot4_runtime.exchange.binance.line_watch import ConnectPace
from bot4_runtime.exchange.binance.market_line import AiohttpDialler, Route
from bot4_runtime.exchange.binance.market_messages import Event, Kline, MarketDecoder, Trade
from bot4_runtime.exchange.binance.market_stream import MarketStream
from bot4_runtime.exchange.binance.streamed import StreamedSource
from bot4_runtime.exchange.binance.trade_tape import TradeTape
from bot4_runtime.sources import CandleSource

TITLE = "Connector: market messages, a burst, event to decision"
MS = 1_000_000
BURSTS = 3
TRADES = 60_000
DECISIONS = 400
STAMP = 1_723_161_255_343


def messages() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return each kind of message with the stream it comes from."""
    rng = random.Random(7)
    levels = [[f"{61_800 + n / 100:.8f}", f"{rng.random():.8f}"] for n in range(20)]
    candle = {"t": STAMP, "T": STAMP + 59_999, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 9,
              "o": "61837.63", "c": "61840.00", "h": "61850.00", "l": "61800.00", "v": "12.5",
              "n": 9, "x": False, "q": "1", "V": "5", "Q": "0.5", "B": "0"}  # fmt: skip
    return {
        "trade": ("btcusdt@trade", {"e": "trade", "E": STAMP, "s": "BTCUSDT", "t": 3735683259,
                  "p": "61837.63000000", "q": "0.02000000", "T": STAMP, "m": True, "M": True}),
        "bookTicker": ("btcusdt@bookTicker", {"u": 50093239212, "s": "BTCUSDT",
                       "b": "61837.63000000", "B": "3.78826000", "a": "61837.64000000",
                       "A": "1.54698000"}),
        "kline": ("btcusdt@kline_1m", {"e": "kline", "E": STAMP, "s": "BTCUSDT", "k": candle}),
        "depth 20+20": ("btcusdt@depth@100ms", {"e": "depthUpdate", "E": STAMP, "s": "BTCUSDT",
                        "U": 157, "u": 160, "b": levels, "a": levels}),
    }  # fmt: skip


def wrapped(stream: str, event: dict[str, Any]) -> str:
    """Return a message as a combined stream brings it."""
    return json.dumps({"stream": stream, "data": event}, separators=(",", ":"))


def run() -> list[Result]:
    return [*reading(), *burst(), decision()]


def reading() -> list[Result]:
    """Time each kind of message through ours, the bare readers and ccxt.pro."""
    decoder, handle = MarketDecoder(), ccxts_own()
    rows = []
    for kind, (stream, event) in messages().items():
        text = wrapped(stream, event)
        bare, theirs = f"orjson.loads, {kind}", f"ccxt.pro, {kind}"
        plain = f"json.loads, {kind}"
        rows += [
            measure(f"read and check a {kind}", decoder.decode, text, specified=MS,
                    floor=bare, peers=(plain, theirs)),
            measure(bare, orjson.loads, text, kind="floor"),
            measure(plain, json.loads, text, kind="peer"),
        ]  # fmt: skip
        if kind.startswith("depth"):  # its handler keeps a book and needs a snapshot first
            why = "not measured: its handler keeps a book as well"
            rows.append(of_rounds(theirs, [], kind="peer", note=why))
        else:
            rows.append(measure(theirs, handle, text, kind="peer"))
    return rows


class _Client:
    """What ccxt.pro's handlers need of a connection."""

    url = "wss://stream.binance.com:9443/stream/ws"

    def __init__(self, told: Callable[[object], object]) -> None:
        self.futures: dict[str, object] = {}
        self.subscriptions: dict[str, object] = {}
        self._told = told

    def resolve(self, result: object, _name: str) -> object:
        self._told(result)
        return result


def ccxts_own(told: Callable[[object], object] = id) -> Callable[[str], None]:
    """Return ccxt.pro's way of a message: orjson, then its handler, as its client does it.

    Args:
        told: is given what the handler makes of it.
    """
    import ccxt
    import ccxt.pro

    exchange, client = ccxt.pro.binance(), _Client(told)
    market = ccxt.binance().safe_market_structure(
        {"id": "BTCUSDT", "symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "baseId": "BTC",
         "quoteId": "USDT", "type": "spot", "spot": True, "contract": False, "active": True}
    )  # fmt: skip
    exchange.set_markets([market], {})
    return lambda text: exchange.handle_message(client, orjson.loads(text))


@contextmanager
def _served() -> Iterator[int]:
    """Yield the port of a stream server that runs as a process."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.stream_server"], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.communicate("")


class _Counted:
    """Puts trades in order and knows when all are there."""

    def __init__(self) -> None:
        self.tape = TradeTape(last_id=0)
        self.all = asyncio.Event()
        self.began_ns = self.ended_ns = 0

    def event(self, event: Event) -> None:
        if not isinstance(event, Trade):
            return
        self.began_ns = self.began_ns or time.perf_counter_ns()
        self.tape.take(event)
        if self.tape.last_id == TRADES:
            self.ended_ns = time.perf_counter_ns()
            self.all.set()

    def lost(self, reason: str) -> None:
        """Count nothing: the numbers tell."""

    def restored(self) -> None:
        """Count nothing."""


def burst() -> list[Result]:
    """Take bursts of trades, and tell how many a second there were and how many were missed."""
    rates, missed = [], []
    with _served() as port:
        for _ in range(BURSTS):
            counted = asyncio.run(_take_burst(port))
            taken = counted.tape.last_id or 0
            missed.append(float(TRADES - taken + counted.tape.given_up))
            rates.append(taken * 1e9 / max(counted.ended_ns - counted.began_ns, 1))
    return [
        of_rounds("trades taken in a burst", rates, unit="/s", specified=20_000, better="higher",
                  note=f"{TRADES:,} trades over one WebSocket, sent as fast as they are taken"),
        of_rounds("trades missed in a burst", missed, unit="trades", specified=0),
    ]  # fmt: skip


async def _take_burst(port: int) -> _Counted:
    counted = _Counted()
    route = Route(f"ws://127.0.0.1:{port}/trades/stream?count={TRADES}", ("btcusdt@trade",), 5)
    async with aiohttp.ClientSession() as session:
        stream = MarketStream(route, AiohttpDialler(session), counted, ConnectPace())
        following = asyncio.create_task(stream.follow())
        try:
            async with asyncio.timeout(60):
                await counted.all.wait()
        except TimeoutError:
            counted.ended_ns = time.perf_counter_ns()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return counted


class _History:
    """REST's part: what came before, and nothing that the stream did not bring."""

    label, origin, market = "bench", Origin.REAL, Market.SPOT
    interval, symbols = "1m", ("BTCUSDT",)

    def __init__(self, recorded: CandleSource) -> None:
        self.history = recorded.history

    def closed(self, _symbol: str, _from_ms: int) -> list[Candle]:
        return []


class _Stamped(CandleFeed):
    """Remembers when each candle was sent."""

    def __init__(self, route: Route) -> None:
        super().__init__([route])
        self.sent_us: dict[int, int] = {}

    def event(self, event: Event) -> None:
        if isinstance(event, Kline):
            self.sent_us[event.fields.start] = event.time
        super().event(event)


def decision() -> Result:
    """Time from a candle's sending until it is decided on and carried out."""
    with tempfile.TemporaryDirectory() as name, _served() as port:
        home = Path(name)
        (home / "candles").mkdir()
        random_walk(2).write_parquet(home / "candles" / "BTCUSDT.parquet")
        taken: list[float] = []
        stop = threading.Event()

        def decided(_number: int, candle: Candle) -> None:
            taken.append((shared_us() - feed.sent_us[candle.open_time_ms]) / 1_000)
            if len(taken) == DECISIONS:
                stop.set()

        built = app.build(
            settings(home, "benchmarks.ema_cross:EmaCross"),
            app.RunOptions(source=f"recorded:{home / 'candles'}", from_ms=START_MS),
            mode="replay",
            folder=home / "account",
            on_progress=decided,
        )
        query = f"start_ms={START_MS}&count={DECISIONS}"
        route = Route(f"ws://127.0.0.1:{port}/candles/stream?{query}", ("btcusdt@kline_1m",), 5)
        feed = _Stamped(route)
        late = ManualClock((START_MS + DECISIONS * MINUTE_MS) * NS_PER_MS)
        built.session._source = StreamedSource(_History(built.source), feed, late)  # noqa: SLF001
        built.execute(stop)
    return of_rounds(
        "WebSocket event to decision", taken, unit="ms", specified=10,
        note="from the sending process over loopback to the end of the engine's turn; the journal "
        "is not flushed",
    )  # fmt: skip
