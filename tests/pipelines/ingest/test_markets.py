"""The list of markets is asked for once an hour, whoever wants it, and never trusted blindly."""

import math
import threading
from pathlib import Path

import ccxt
import msgspec
import numpy as np
import pytest

from bot4_pipelines.fleet import Fleet, SeriesPart
from bot4_pipelines.ingest.markets import KEPT_MS, MOST_BYTES, MarketList
from bot4_pipelines.ingest.plan import Budget
from bot4_pipelines.ingest.rest import RestCandles
from bot4_pipelines.records import Folders
from bot4_runtime.candles.store import locked
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError, VenueUnreachable

HOUR = 3_600_000
START = 1_704_067_200_000
NOW = START + 75 * 24 * HOUR + HOUR // 2
THERE = ("BTCUSDT", "ETHUSDT")


class Asked:
    """A server that counts, on a clock that a test sets."""

    def __init__(self, *symbols: str) -> None:
        self.symbols, self.times, self.now_ms = symbols, 0, NOW

    def __call__(self) -> tuple[str, ...]:
        self.times += 1
        return self.symbols

    def list(self, root: Path, market: Market = Market.SPOT, server: str | None = None):
        return MarketList(root, market, server, clock_ms=lambda: self.now_ms)


def kept(root: Path, market: Market = Market.SPOT) -> Path:
    return root / ".markets" / f"{market.value}.json"


# ------------------------------------------------------------------------ the file
def test_a_list_is_asked_for_once_an_hour_by_whoever_wants_it(tmp_path: Path) -> None:
    server = Asked(*THERE)
    for _ in range(3):
        assert server.list(tmp_path).symbols(("BTCUSDT",), server) == set(THERE)
    assert server.times == 1
    server.now_ms += KEPT_MS - 1
    server.list(tmp_path).symbols(THERE, server)
    assert server.times == 1
    server.now_ms += 1
    server.list(tmp_path).symbols(THERE, server)
    assert server.times == 2
    server.now_ms -= 1
    server.list(tmp_path).symbols(THERE, server)
    assert server.times == 3, "a list of the future tells of a clock that is wrong"


def test_a_symbol_that_is_not_on_it_is_asked_for_anew_at_once(tmp_path: Path) -> None:
    server = Asked(*THERE)
    server.list(tmp_path).symbols((), server)
    server.symbols = (*THERE, "NEWUSDT")
    assert "NEWUSDT" in server.list(tmp_path).symbols(("NEWUSDT",), server)
    assert "NEWUSDT" in server.list(tmp_path).symbols(("NEWUSDT",), server)
    assert server.times == 2
    assert server.list(tmp_path).symbols(("NOUSDT",), server) == set(server.symbols)
    assert server.times == 3


def test_markets_and_servers_have_lists_of_their_own(tmp_path: Path) -> None:
    servers = [
        (Asked("A"), Market.SPOT, None),
        (Asked("B"), Market.USDM, None),
        (Asked("C"), Market.SPOT, "http://127.0.0.1:1"),
    ]
    for server, market, url in servers:
        assert server.list(tmp_path, market, url).symbols((), server) == set(server.symbols)
    assert [server.times for server, _, _ in servers] == [1, 1, 1]
    for server, market, url in servers:
        assert server.list(tmp_path, market, url).symbols((), server) == set(server.symbols)


def whole(**changed: object) -> bytes:
    told = {"format": 1, "market": "spot", "server": "", "asked_ms": NOW, "symbols": THERE}
    return msgspec.json.encode(told | changed)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        whole()[:-2],
        whole(format=2),
        whole(market="usdm"),
        whole(market="moon"),
        whole(server="http://elsewhere"),
        whole(asked_ms=NOW - KEPT_MS),
        whole(asked_ms=NOW + 1),
        whole(asked_ms="now"),
        whole(symbols=[]),
        whole(symbols=["BTCUSDT", ""]),
        whole(symbols=["BTCUSDT", 7]),
        whole(symbols="BTCUSDT"),
        whole(more=1),
        whole(symbols=["BTCUSDT", "X" * MOST_BYTES]),
    ],
)
def test_a_file_that_is_no_list_is_none(tmp_path: Path, content: bytes) -> None:
    path = kept(tmp_path)
    path.parent.mkdir()
    path.write_bytes(whole())
    server = Asked("SOLUSDT")
    assert server.list(tmp_path).symbols(("BTCUSDT",), server) == set(THERE)
    assert server.times == 0
    path.write_bytes(content)
    assert server.list(tmp_path).symbols(("BTCUSDT",), server) == {"SOLUSDT"}
    assert server.times == 1
    assert server.list(tmp_path).symbols(("SOLUSDT",), server) == {"SOLUSDT"}
    assert server.times == 1


def test_where_no_list_can_be_kept_it_is_asked_for_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    kept(tmp_path / "taken").mkdir(parents=True)
    server = Asked(*THERE)
    for root in (tmp_path / "file", tmp_path / "taken"):
        for _ in range(2):
            assert server.list(root).symbols((), server) == set(THERE)
    assert server.times == 4


def test_a_server_that_does_not_answer_leaves_what_is_kept(tmp_path: Path) -> None:
    server = Asked(*THERE)
    server.list(tmp_path).symbols((), server)
    before = kept(tmp_path).read_bytes()

    def mute() -> tuple[str, ...]:
        raise VenueUnreachable("no answer")

    with pytest.raises(VenueUnreachable, match="no answer"):
        server.list(tmp_path).symbols(("NEWUSDT",), mute)
    assert kept(tmp_path).read_bytes() == before
    assert server.list(tmp_path).symbols((), server) == set(THERE)
    assert server.times == 1


# ------------------------------------------------------------------------ many at a time
def test_whoever_comes_while_one_asks_takes_what_it_is_told(tmp_path: Path) -> None:
    server, entered, go = Asked(*THERE), threading.Event(), threading.Event()

    def slowly() -> tuple[str, ...]:
        entered.set()
        assert go.wait(30)
        return server()

    found: list[frozenset[str]] = []
    people = [
        threading.Thread(target=lambda: found.append(server.list(tmp_path).symbols((), slowly)))
        for _ in range(4)
    ]
    for person in people:
        person.start()
    assert entered.wait(30)
    go.set()
    for person in people:
        person.join(30)
    assert found == [frozenset(THERE)] * 4
    assert server.times == 1


def test_whoever_waited_long_enough_asks_beside(tmp_path: Path) -> None:
    server, folder = Asked(*THERE), kept(tmp_path).parent
    folder.mkdir()
    with locked(folder, 0.0):
        assert server.list(tmp_path).symbols((), server, wait_s=0.0) == set(THERE)
    assert server.times == 1
    assert server.list(tmp_path).symbols((), server) == set(THERE)
    assert server.times == 1


# ------------------------------------------------------------------------ what a run asks
class Counted:
    """A rate that lets everything pass, and remembers its weights."""

    def __init__(self) -> None:
        self.weights: list[int] = []

    def take(self, weight: int, _: Budget) -> None:
        self.weights.append(weight)


@pytest.mark.parametrize(
    ("market", "weights"), [(Market.SPOT, (20, 1, 2)), (Market.USDM, (1, 1, 5))]
)
def test_a_run_after_the_first_asks_for_time_and_candles_alone(
    binance, tmp_path: Path, market: Market, weights: tuple[int, ...]
) -> None:
    fake, url = binance
    told = []
    for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT"):
        rate = Counted()
        markets = MarketList(tmp_path, market, url)
        client = RestCandles(market, url, rate=rate, markets=markets)
        client.check((symbol,))
        assert (
            len(client.fetch(symbol, "1h", NOW - 100 * HOUR - HOUR // 2, NOW, Budget(20))) == 100
        )
        client.close()
        told.append(tuple(rate.weights))
    assert told == [weights, weights[1:], weights[1:]]
    assert sum(path.endswith("/exchangeInfo") for path in fake.asked) == 1


def test_an_unknown_symbol_is_refused_by_a_list_of_now(binance, tmp_path: Path) -> None:
    fake, url = binance
    client = RestCandles(Market.SPOT, url, markets=MarketList(tmp_path, Market.SPOT, url))
    client.check(("BTCUSDT",))
    with pytest.raises(DataError, match="no symbol BTCUSD; nearest: BTCUSDT"):
        client.check(("BTCUSD",))
    assert sum(path.endswith("/exchangeInfo") for path in fake.asked) == 2
    fake.rows["NEWUSDT"] = fake.rows["BTCUSDT"]
    client.check(("NEWUSDT",))
    client.close()
    other = RestCandles(Market.SPOT, url, markets=MarketList(tmp_path, Market.SPOT, url))
    other.check(("NEWUSDT", "ETHUSDT"))
    other.close()
    assert sum(path.endswith("/exchangeInfo") for path in fake.asked) == 3


def test_a_fleets_runs_share_the_list(
    binance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, url = binance
    monkeypatch.setenv("BOT4_ARCHIVE_URL", url)
    monkeypatch.setenv("BOT4_REST_URL", url)
    for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT"):
        fleet = Fleet(Folders(tmp_path / "home", tmp_path / "models"), lambda *_: None)
        fleet.candles(SeriesPart(symbol, "1h"), 2024)
    asked = [path for path in fake.asked if path.startswith("/api/v3")]
    assert [asked.count(f"/api/v3/{name}") for name in ("exchangeInfo", "ping", "time")] == [
        1,
        3,
        3,
    ]


# ------------------------------------------------------------------------ what an answer says
@pytest.mark.parametrize(
    ("market", "mark"), [(Market.SPOT, False), (Market.USDM, False), (Market.USDM, True)]
)
def test_candles_are_what_ccxt_makes_of_them(binance, market: Market, mark: bool) -> None:
    _, url = binance
    ours = RestCandles(market, url)
    raw = ours.fetch("ETHUSDT", "1h", START, START + 1_500 * HOUR, Budget(20), mark=mark)
    ours.close()
    kind = "spot" if market is Market.SPOT else "linear"
    peer = ccxt.binance({"options": {"defaultType": kind, "fetchMarkets": {"types": [kind]}}})
    peer.has["fetchCurrencies"] = False
    api, path = ("public", "/api/v3") if market is Market.SPOT else ("fapiPublic", "/fapi/v1")
    peer.urls["api"][api] = url + path
    name = "ETH/USDT" if market is Market.SPOT else "ETH/USDT:USDT"
    rows = []
    for start in (START, START + 1_000 * HOUR):
        rows += peer.fetch_ohlcv(name, "1h", start, 1_000, {"price": "mark"} if mark else {})
    peer.session.close()
    expected = np.array(rows[:1_500], dtype=np.float64)
    assert raw.open_time_ms.tolist() == expected[:, 0].tolist()
    columns = (raw.open, raw.high, raw.low, raw.close, raw.volume)
    for place, column in enumerate(columns[:4], start=1):
        np.testing.assert_array_equal(column, expected[:, place])
    np.testing.assert_array_equal(raw.volume, 0.0 if mark else expected[:, 5])


@pytest.mark.parametrize("opens", [math.inf, math.nan, 1e30, -1, "soon"])
def test_a_candle_of_no_time_is_no_answer(binance, monkeypatch, opens) -> None:
    client = RestCandles(Market.SPOT, binance[1])
    client.check(("BTCUSDT",))
    monkeypatch.setattr(client, "_call", lambda kind, **_: [[opens, "1", "2", "1", "2", "3"]])
    with pytest.raises(VenueUnreachable, match="answer to candles cannot be read"):
        client.fetch("BTCUSDT", "1h", START, NOW, Budget(20))
    client.close()


def test_an_answer_that_cannot_be_read_is_no_answer(binance) -> None:
    fake, url = binance
    client = RestCandles(Market.SPOT, url)
    client.check(("BTCUSDT",))
    fake.rows["BTCUSDT"][0][2] = "high"
    with pytest.raises(VenueUnreachable, match="answer to candles cannot be read"):
        client.fetch("BTCUSDT", "1h", START, NOW, Budget(20))
    fake.rows = {}
    with pytest.raises(VenueUnreachable, match="names no market"):
        client.check(("SOLUSDT",))
    client.close()
