"""`start --mode testnet` of perpetuals as a process, at a venue whose market goes on with the clock."""

import itertools
import json
import os
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
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.tape import Print

MINUTE = 60_000


def tape(from_ms):
    for number in itertools.count():
        price = Decimal(40_000 + (number * 37) % 101)
        yield Print(from_ms + number * 5_000, "BTCUSDT", price, Decimal("0.01"))


@pytest.mark.long
def test_a_session_reads_its_account_and_decides_on_streamed_candles(tmp_path):
    now_ms = time.time_ns() // 1_000_000
    contract = Contract.of(Instrument.assume("BTCUSDT", Market.USDM, 40_000.0))
    from_ms = now_ms // MINUTE * MINUTE - 730 * MINUTE
    venue = FuturesLoopback(LiveClock(), [(contract, Decimal(40_000))], prints=tape(from_ms))
    venue.open_account(1, "key", "secret", [("USDT", Decimal(200_000))])
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
        at = f"127.0.0.1:{server.port}"
        (tmp_path / "bot4.toml").write_text(
            f'home = "{tmp_path}/home"\n[runtime]\nmode = "testnet"\nmarket = "usdm"\n'
            'interval = "1m"\nstrategy = "drill"\nsymbols = ["BTCUSDT"]\nsource = "binance"\n'
            f'[source]\nusdm_market_stream = "ws://{at}/market"\n'
            f'[binance]\nrest_url = "http://{at}"\nstream_url = "ws://{at}/ws-fapi/v1"\n'
            f'private_url = "ws://{at}/private"\n'
        )
        environment = os.environ | {
            "BOT4_BINANCE_API_KEY": "key",
            "BOT4_BINANCE_SECRET": "secret",
        }
        words = [sys.executable, "-m", "bot4_runtime"]
        process = subprocess.Popen([*words, "start", "--json"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        try:
            checked = subprocess.run([*words, "doctor", "--network", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)  # fmt: skip
            findings = {row["check"]: row for row in json.loads(checked.stdout)["checks"]}
            assert findings["Binance key"]["ok"], findings["Binance key"]
            assert "trades USD-M" in findings["Binance key"]["found"]
            told = {}
            end = time.monotonic() + 240
            while told.get("candles", 0) < 2 and process.poll() is None:
                assert time.monotonic() < end
                time.sleep(1)
                status = subprocess.run([*words, "status", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)  # fmt: skip
                told = json.loads(status.stdout) if status.returncode == 0 else {}
        finally:
            process.terminate()
            _, log = process.communicate(timeout=60)
            done.set()
            market.join()
    assert process.returncode == 0, log[-3000:]
    assert told["candles"] >= 2
    held = venue.exchange.account("key").settings("BTCUSDT")
    assert (held.leverage, held.isolated) == (3, True)
    assert "secret" not in log
