"""Readers of files, archives, settings, journals and of candles by REST (through ccxt)."""

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import msgspec
import requests
from fuzz_target import Target

from bot4_pipelines.ingest.archive import _published_sha256
from bot4_pipelines.ingest.plan import Budget
from bot4_pipelines.ingest.rest import RestCandles
from bot4_runtime.candles.files import from_csv, from_zip
from bot4_runtime.candles.funding import funding_from_zip
from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Candle, Market, Origin
from bot4_runtime.domain.errors import (
    ConfigError,
    DataError,
    JournalCorrupt,
    ModelError,
    VenueError,
)
from bot4_runtime.domain.events import CandleClosed
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.exchange.binance.polling import BinanceSource
from bot4_runtime.protection.holdings import read_holdings, venue_holdings
from bot4_runtime.regime.evidence import _read as read_records
from bot4_runtime.regime.evidence import _seal
from bot4_runtime.regime.manifest import (
    Cuts,
    GateVerdict,
    HmmDefinition,
    Manifest,
    ModelKind,
    decode_manifest,
)
from bot4_runtime.rehearsal.schedules import scenario
from bot4_runtime.risk.brackets import venue_brackets
from bot4_runtime.settings import load_settings
from bot4_runtime.state.frames import _crc, decode_frame, encode_frames
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.rules import SymbolRules

MINUTE = 60_000
START = 1_700_000_040_000
ROOT = Path(__file__).parents[2]
HERE = Path(tempfile.mkdtemp(prefix="bot4-fuzz-"))


def laid_down(read, name: str):
    """Return what writes a message into a file and has it read."""

    def of_bytes(message: bytes) -> object:
        path = HERE / f"{os.getpid()}-{name}"
        path.write_bytes(message)
        try:
            return read(path)
        finally:
            path.unlink()

    return of_bytes


def rows(first: int = START, step: int = MINUTE) -> str:
    return "".join(
        f"{first + at * step},10.5,12,9.75,11,100,{first + at * step + step - 1},1100,9,50,550,0\n"
        for at in range(4)
    )


HEADER = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"
FUNDING = "calc_time,funding_interval_hours,last_funding_rate\n1700006400000,8,0.0001\n1700035200000,8,-0.0002\n"
CSVS = (
    rows().encode(),
    (HEADER + rows()).encode(),
    rows(START * 1_000, MINUTE * 1_000).encode(),
    b"date,open,high,low,close,volume\n2024-01-01 00:00:00,1,2,0.5,1.5,9\n2024-01-01 00:01:00,1,2,0.5,1.5,9\n",
)  # fmt: skip


def zipped(
    text: bytes, name: str = "BTCUSDT-1m-2024-01.csv", how: int = zipfile.ZIP_STORED
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr(zipfile.ZipInfo(name), text, how)
    return file.getvalue()


def mended(message: bytes) -> bytes:
    """Return a zip of a message that is none, so that what is damaged is the table within."""
    return message if message[:2] == b"PK" else zipped(message)


MANIFEST = Manifest(
    kind=ModelKind.HMM,
    schema_id="s",
    feature_names=("z",),
    interval="1h",
    origin=Origin.SIMULATED,
    market=Market.SPOT,
    symbols=("BTCUSDT",),
    cuts=Cuts(train_start_ms=0, validation_start_ms=1, test_start_ms=2, end_ms=3),
    data_sha256="0" * 64,
    metrics={"test": {"accuracy": 0.9}},
    golden=(),
    created_ms=1,
    expires_ms=2,
    code_version="0.1.0",
    gates=(GateVerdict(name="accuracy", passed=True, value=0.9, threshold=0.85),),
    definition=HmmDefinition(
        trend_window=24,
        means=(-1.3, -0.5, 0.0, 0.5, 1.3),
        variances=(0.1,) * 5,
        transitions=((0.2,) * 5,) * 5,
    ),
)


def _manifest(message: bytes) -> None:
    manifest = decode_manifest(message)
    if manifest.definition is not None:
        manifest.definition.parameters()
    assert decode_manifest(manifest.encode()) == manifest


def _evidence(path: Path) -> object:
    return read_records(path)


POSITIONS = {"cross_balance": 10, "free": "5.5", "positions": [{"symbol": "BTCUSDT", "side": "short", "size": "0.5", "entry_price": 40000, "isolated_wallet": "5000.25"}]}  # fmt: skip
RISK = {"positions": [{"symbol": "BTCUSDT", "positionAmt": "-0.01", "entryPrice": "40000", "isolatedWallet": "200.5", "isolated": True, "liquidationPrice": "82000", "marginType": "isolated"}], "account": {"totalCrossWalletBalance": "1000.5", "availableBalance": "-5"}}  # fmt: skip
BRACKETS = [{"symbol": "BTCUSDT", "notionalCoef": 1.5, "brackets": [{"bracket": 1, "notionalFloor": 0, "notionalCap": 50000, "maintMarginRatio": 0.004, "cum": 0.0}, {"bracket": 2, "notionalFloor": 50000, "notionalCap": 500000, "maintMarginRatio": 0.005, "cum": 50.0}]}]  # fmt: skip


def _parsed(message: bytes) -> object:
    """Parse what an HTTP client would have parsed before."""
    try:
        return json.loads(message)
    except (ValueError, RecursionError) as error:
        raise DataError("no JSON") from error


def _risk(message: bytes) -> object:
    told = _parsed(message)
    if not isinstance(told, dict):
        raise DataError("of another shape")
    return venue_holdings(told.get("positions"), told.get("account"), 7)


def _settings(path: Path) -> object:
    return load_settings(path, {})


SETTINGS = (
    (ROOT / "bot4.example.toml").read_bytes(),
    b'[runtime]\nsymbols = ["BTCUSDT"]\ninterval = "1h"\n[risk]\ncorrelation_half_life_hours = 240\n',
)
CANDLE = Candle(symbol="BTCUSDT", interval="1m", open_time_ms=START, open=10.0, high=12.0, low=9.0, close=11.0, volume=5.0)  # fmt: skip
[FRAME] = encode_frames(1, 1, [CandleClosed(ts_event_ns=1, candle=CANDLE)])


def _frame(message: bytes) -> object:
    """Read events whose checksum is right."""
    return decode_frame(
        FRAME._replace(body=message, crc=_crc(FRAME.first_seq, FRAME.last_seq, FRAME.epoch, FRAME.kinds, message))
    )  # fmt: skip


def _budget(path: Path) -> None:
    budget = RequestBudget(path, Market.SPOT)
    budget.stay_away(1.0)
    assert path.stat().st_size > 0


class Answering(requests.Session):
    """A session to which every request is answered alike."""

    def __init__(self, answers) -> None:
        super().__init__()
        self._answers = answers

    def request(self, method, url, **_rest):
        answer = requests.Response()
        answer.status_code, answer.url, answer.reason = 200, url, "OK"
        answer._content = self._answers(url)
        return answer


MARKETS = {
    Market.SPOT: {"symbols": [SymbolRules.of(Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0)).told()]},
    Market.USDM: {"symbols": [Contract.of(Instrument.assume("BTCUSDT", Market.USDM, 40_000.0)).told()]},
}  # fmt: skip
KLINES = [[START + at * MINUTE, "10.5", "12", "9.75", "11", "100", START + at * MINUTE + MINUTE - 1, "1100", 9, "50", "550", "0"] for at in range(4)]  # fmt: skip
END = START + 10 * MINUTE


def polled(market: Market, where: str):
    """Return what has the runtime read candles of a venue; the message answers one path."""
    source = BinanceSource(
        symbols=["BTCUSDT"],
        interval="1m",
        market=market,
        clock=ManualClock(END * 10**6),
        base_url="http://127.0.0.1:9",
    )
    source._log = _Silent()
    source._client.enableRateLimit = False

    def read(message: bytes) -> object:
        source._client.markets, source._refused = None, {}
        source._budget = RequestBudget(None)
        source._client.session = Answering(_answers(market, where, message))
        source.check()
        return list(source.history(START, END))

    return read


def fetched(market: Market, where: str):
    """Return what has the pipeline do so."""
    source = RestCandles(market, "http://127.0.0.1:9", budget=Budget(0.001))
    source._client.enableRateLimit = False

    def read(message: bytes) -> object:
        source._known = frozenset()
        source._client.session = Answering(_answers(market, where, message))
        return source.fetch("BTCUSDT", "1m", START, END, Budget(0.5))

    return read


def _answers(market: Market, where: str, message: bytes):
    told = {"exchangeInfo": MARKETS[market], "klines": KLINES, "time": {"serverTime": END}}

    def answer(url: str) -> bytes:
        name = url.partition("?")[0].rpartition("/")[2]
        return message if name == where else json.dumps(told.get(name, {})).encode()

    return answer


class _Silent:
    def error(self, *_told, **_more) -> None:
        """A candle that cannot be is told of; here nobody listens."""


def jsons(*told: object) -> tuple[bytes, ...]:
    return tuple(json.dumps(one).encode() for one in told)


EVIDENCE = msgspec.json.encode({"format": 3, "sha256": _seal([]), "records": []})
CHECKSUM = b"%s  BTCUSDT-1m-2024-01.zip\n" % (b"0" * 64)
FAULTS = [{"fault": "drop_request", "method": "POST", "path": "/api/v3/order", "seconds": 1.0}]
ASKED = (DataError, VenueError)
TARGETS = (
    Target("candles_csv", lambda m: from_csv(m, "BTCUSDT", "f"), (DataError,), CSVS),
    Target("candles_zip", lambda m: from_zip(mended(m), "BTCUSDT", "f"), (DataError,), (*map(zipped, CSVS), *CSVS, zipped(CSVS[0], how=zipfile.ZIP_DEFLATED))),
    Target("funding_zip", lambda m: funding_from_zip(mended(m), "BTCUSDT", "f"), (DataError,), (zipped(FUNDING.encode()), FUNDING.encode())),
    Target("archive_checksum", lambda m: _published_sha256(m, "u"), (DataError,), (CHECKSUM,)),
    Target("manifest", _manifest, (ModelError,), (MANIFEST.encode(),)),
    Target("evidence", laid_down(_evidence, "evidence.json"), (ModelError,), (EVIDENCE,)),
    Target("holdings_file", laid_down(read_holdings, "holdings.json"), (DataError,), jsons(POSITIONS)),
    Target("holdings_answer", _risk, (DataError,), jsons(RISK)),
    Target("brackets", lambda m: venue_brackets(_parsed(m)), (DataError,), jsons(BRACKETS, BRACKETS[0])),
    Target("settings", laid_down(_settings, "bot4.toml"), (ConfigError,), SETTINGS),
    Target("journal_frame", _frame, (JournalCorrupt,), (FRAME.body,)),
    Target("fault_schedule", laid_down(lambda path: scenario(str(path)), "faults.json"), (ConfigError,), jsons(FAULTS)),
    Target("budget_file", laid_down(_budget, "budget.json"), (), (b"{}", b'{"accounts": {"a": {"until_ms": 5}}}')),
    Target("polled_candles", polled(Market.SPOT, "klines"), ASKED, jsons(KLINES)),
    Target("polled_markets", polled(Market.USDM, "exchangeInfo"), ASKED, jsons(MARKETS[Market.USDM])),
    Target("fetched_candles", fetched(Market.SPOT, "klines"), ASKED, jsons(KLINES)),
    Target("fetched_markets", fetched(Market.SPOT, "exchangeInfo"), ASKED, jsons(MARKETS[Market.SPOT])),
)  # fmt: skip
