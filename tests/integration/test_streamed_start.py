"""`start --source binance` as a process, against a venue whose market goes on with the clock."""

import itertools
import json
import subprocess
import sys
import threading
import time
import urllib.request
from decimal import Decimal

import pytest

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.tape import Print

MINUTE = 60_000


def tape(from_ms):
    for number in itertools.count():
        price = Decimal(40_000 + (number * 37) % 101)
        yield Print(from_ms + number * 5_000, "BTCUSDT", price, Decimal("0.01"))


@pytest.mark.long
def test_a_session_decides_on_candles_the_moment_the_stream_closes_them(tmp_path):
    now_ms = time.time_ns() // 1_000_000
    rules = SymbolRules.of(Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0))
    from_ms = now_ms // MINUTE * MINUTE - 730 * MINUTE
    venue = Loopback(LiveClock(), [(rules, Decimal(40_000))], prints=tape(from_ms))
    venue.advance(now_ms)
    done = threading.Event()
    with hosted(venue, admin=True) as server:
        door = f"http://127.0.0.1:{server.admin_port}/_admin/advance?to_ms="

        def go_on():
            while not done.wait(0.05):
                call = urllib.request.Request(
                    f"{door}{time.time_ns() // 1_000_000}", method="POST"
                )
                urllib.request.urlopen(call, timeout=10).close()

        market = threading.Thread(target=go_on)
        market.start()
        (tmp_path / "bot4.toml").write_text(
            f'home = "{tmp_path}/home"\n[runtime]\ninterval = "1m"\nstrategy = "drill"\n'
            f'symbols = ["BTCUSDT"]\nsource = "binance"\n'
            f'[source]\nrest_url = "http://127.0.0.1:{server.port}"\n'
            f'spot_stream = "ws://127.0.0.1:{server.port}"\n'
        )
        words = [sys.executable, "-m", "bot4_runtime"]
        process = subprocess.Popen([*words, "start", "--json"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)  # fmt: skip
        try:
            told = {}
            end = time.monotonic() + 240
            while told.get("candles", 0) < 2:
                assert time.monotonic() < end
                time.sleep(1)
                status = subprocess.run([*words, "status", "--json"], cwd=tmp_path, capture_output=True, text=True)  # fmt: skip
                told = json.loads(status.stdout) if status.returncode == 0 else {}
            assert len(venue.market.followers) == 1
        finally:
            process.terminate()
            process.communicate(timeout=60)
            done.set()
            market.join()
    assert process.returncode == 0
