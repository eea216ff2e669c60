"""`start --mode testnet` as processes that want one account at a venue on this machine."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
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
PATIENCE_S = 60


@pytest.fixture
def start(tmp_path):
    """Start processes at one venue; each is ended at the end."""
    now_ms = time.time_ns() // 1_000_000
    rules = SymbolRules.of(Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0))
    first_ms = now_ms // MINUTE * MINUTE - 730 * MINUTE
    prints = (
        Print(first_ms + number * 30_000, "BTCUSDT", Decimal(40_000 + number % 7), Decimal("0.1"))
        for number in range(1_460)
    )
    venue = Loopback(LiveClock(), [(rules, Decimal(40_000))], prints=prints)
    for uid in (1, 2):
        venue.open_account(uid, f"key{uid}", f"secret{uid}", [("USDT", Decimal(200_000))])
    venue.advance(now_ms)
    with hosted(venue) as server:
        (tmp_path / "bot4.toml").write_text(
            f'home = "{tmp_path}/home"\n[runtime]\nmode = "testnet"\ninterval = "1m"\n'
            'strategy = "drill"\nsymbols = ["BTCUSDT"]\nsource = "binance"\n[binance]\n'
            f'rest_url = "http://127.0.0.1:{server.port}"\n'
            f'stream_url = "ws://127.0.0.1:{server.port}/ws-api/v3"\n'
        )
        (tmp_path / "tmp").mkdir()

        @contextmanager
        def process(account="one", uid=1):
            named = {
                "TMPDIR": str(tmp_path / "tmp"),
                "BOT4_BINANCE_API_KEY": f"key{uid}",
                "BOT4_BINANCE_SECRET": f"secret{uid}",
            }
            words = [sys.executable, "-m", "bot4_runtime", "start", "--account", account]
            with subprocess.Popen(
                words, cwd=tmp_path, env=os.environ | named, stderr=subprocess.PIPE, text=True
            ) as running:
                try:
                    yield running
                finally:
                    running.kill()

        yield process


def bound(home, account: str) -> str:
    """Wait until a journal is bound to an account number; return what it is bound to."""
    until = time.monotonic() + PATIENCE_S
    path = home / "state" / account / "journal.sqlite"
    told = ""
    while "account" not in told.partition('"account":')[2]:
        assert time.monotonic() < until, "it never was"
        time.sleep(0.1)
        if path.exists():
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
                rows = journal.execute("SELECT value FROM meta WHERE key = 'fact:account'")
                told = next((row[0] for row in rows), "")
    return told


def test_one_process_trades_an_account_and_a_journal_stays_with_it(start, tmp_path):
    home = tmp_path / "home"
    with start() as one:
        assert '"account":"account 1"' in bound(home, "one")
        with start("two") as two:
            _, told = two.communicate(timeout=PATIENCE_S)
            assert two.returncode == 2, told
            assert f"process {one.pid}" in told
            assert "the journal of 'one'" in told
        one.send_signal(signal.SIGKILL)
        one.wait()
    with start() as again:
        for line in again.stderr:
            if "continuing" in line:
                break
        again.send_signal(signal.SIGTERM)
        _, told = again.communicate(timeout=PATIENCE_S)
        assert again.returncode == 0, told
    log = (home / "logs" / "runtime.jsonl").read_text()
    assert "another machine" not in log, "its predecessor was killed on this one"
    with start(uid=2) as other:
        _, told = other.communicate(timeout=PATIENCE_S)
        assert other.returncode == 2, told
        assert "was begun at account 1" in told
        assert "this is account 2" in told
