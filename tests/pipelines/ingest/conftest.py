"""A server on loopback that serves archive-layout zips and klines, with faults on demand."""

import hashlib
import io
import json
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket

HOUR = 3_600_000
START = 1_704_067_200_000  # 2024-01-01
NOW = START + 75 * 24 * HOUR + HOUR // 2  # 2024-03-16 00:30


def jagged(series: CandleSeries) -> list[list[float]]:
    return [[c.open_time_ms, c.open, c.high, c.low, c.close, c.volume] for c in series]


PERPETUAL = {
    "contractType": "PERPETUAL",
    "marginAsset": "USDT",
    "onboardDate": START,
    "deliveryDate": 4_133_404_800_000,
    "pricePrecision": 2,
    "quantityPrecision": 3,
}


def zipped(name: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name.replace(".zip", ".csv"), (2024, 1, 1, 0, 0, 0))
        archive.writestr(info, text)
    return buffer.getvalue()


class FakeBinance:
    """What the server says; tests change it."""

    def __init__(self) -> None:
        market = SimulatedMarket(5)
        self.rows = {
            symbol: jagged(market.series(symbol, "1h", START, NOW + HOUR))
            for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT")
        }
        self.funding = [(START + 8 * HOUR * k, round(1e-4 + 1e-6 * k, 8)) for k in range(226)]
        self.status: int | None = None
        self.stall = False
        self.short = False
        self.bad_checksum: set[str] = set()
        self.no_checksum = False
        self.rest_status: int | None = None
        self.serve_time = True
        self.asked: list[str] = []
        self.starts: list[int] = []
        self.answers: list[tuple[int, str | None]] = []

    def zip(self, name: str) -> bytes | None:
        symbol, _, *date = name.removesuffix(".zip").split("-")
        stamp = "-".join(date)
        now = datetime.fromtimestamp(NOW / 1000, UTC)
        # months are published when over, days when over
        if symbol not in self.rows or now.strftime("%Y-%m-%d").startswith(stamp):
            return None
        if "-fundingRate-" in name:
            text = "\n".join(
                ["calc_time,funding_interval_hours,last_funding_rate"]
                + [
                    f"{t + 4},8,{rate}"
                    for t, rate in self.funding
                    if self.day(t).startswith(stamp)
                ]
            )
            return zipped(name, text)
        lines = [
            ",".join(map(str, [int(r[0]), *r[1:], 0, 0, 0, 0, 0, 0]))
            for r in self.rows[symbol]
            if self.day(r[0]).startswith(stamp)
        ]
        if not lines:
            return None
        return zipped(name, "\n".join(lines))

    @staticmethod
    def day(time_ms: float) -> str:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d")

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        if path.startswith(("/api/v3", "/fapi/v1")):
            return self.rest(path, query)
        if self.status is not None:
            return self.status, b"no"
        name = path.rsplit("/", 1)[1]
        checksum = name.endswith(".CHECKSUM")
        name = name.removesuffix(".CHECKSUM")
        data = self.zip(name)
        if data is None or (checksum and self.no_checksum):
            return 404, b""
        if not checksum:
            return 200, data
        digest = "0" * 64 if name in self.bad_checksum else hashlib.sha256(data).hexdigest()
        return 200, f"{digest}  {name}\n".encode()

    def rest(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        if self.rest_status is not None:
            where = " from a restricted location" if self.rest_status == 451 else ""
            body = {
                "code": -1100 if self.rest_status == 400 else 0,
                "msg": f"Service unavailable{where}",
            }
            return self.rest_status, json.dumps(body).encode()
        if path.endswith("/time") and self.serve_time:
            return 200, json.dumps({"serverTime": NOW}).encode()
        if path.endswith("/exchangeInfo"):
            symbols = [
                {
                    "symbol": s,
                    "status": "TRADING",
                    "baseAsset": s[:-4],
                    "quoteAsset": "USDT",
                    "baseAssetPrecision": 8,
                    "quotePrecision": 8,
                    "quoteAssetPrecision": 8,
                    "orderTypes": ["LIMIT"],
                    "isSpotTradingAllowed": True,
                    "filters": [],
                    "permissions": [],
                    "permissionSets": [["SPOT"]],
                }
                | ({} if path.startswith("/api") else PERPETUAL | {"pair": s})
                for s in self.rows
            ]
            return 200, json.dumps({"serverTime": NOW, "symbols": symbols}).encode()
        if path.endswith("/fundingRate"):
            due = [row for row in self.funding if row[0] >= int(query["startTime"]) - 4]
            body = [
                {"symbol": query["symbol"], "fundingTime": t + 4, "fundingRate": str(rate)}
                for t, rate in due
            ]
            return 200, json.dumps(body).encode()
        if path.endswith(("/klines", "/markPriceKlines")):
            self.starts.append(int(query["startTime"]))
            start, limit = int(query["startTime"]), int(query.get("limit", 500))
            rows = [r for r in self.rows[query["symbol"]] if r[0] >= start][:limit]
            wire = [
                [int(r[0]), *map(str, r[1:]), int(r[0]) + HOUR - 1, "0", 1, "0", "0", "0"]
                for r in rows
            ]
            return 200, json.dumps(wire).encode()
        return 404, b"{}"


@pytest.fixture
def binance() -> Iterator[tuple[FakeBinance, str]]:
    fake = FakeBinance()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            fake.asked.append(url.path)
            if fake.stall:
                over.wait(5)
                return
            again = None
            if fake.answers:
                (status, again), body = fake.answers.pop(0), b"{}"
            else:
                status, body = fake.answer(url.path, dict(urllib.parse.parse_qsl(url.query)))
            self.send_response(status)
            if again is not None:
                self.send_header("Retry-After", again)
            self.send_header("Content-Length", str(len(body) + (7 if fake.short else 0)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield fake, f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()
    time.sleep(0)
