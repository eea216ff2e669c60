"""`bot4-runtime venue` serves an invented exchange that moves and that the client trades on."""

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from urllib.request import urlopen

import pytest

from bot4_runtime.clock import LiveClock
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot

PROGRAM = Path(sys.executable).with_name("bot4-runtime")


@contextmanager
def served(*options):
    process = subprocess.Popen(
        [PROGRAM, "venue", "--symbols", "BTCUSDT", "--speed", "1000", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_it_tells_its_address_moves_and_stops_when_told(tmp_path):
    journal = tmp_path / "venue.jsonl"
    with served("--json", "--journal", str(journal)) as process:
        told = json.loads(process.stdout.readline())
        client = BinanceSpot(
            told["rest"],
            None,
            Signer(Secret(told["api_key"]), Secret(told["secret"])),
            LiveClock(),
        )
        client.start()
        assert client.balances() == {"USDT": Decimal(100_000)}
        assert client.open_orders() == []
        client.close()
        while '"kind":"print"' not in journal.read_text():
            pass
    kinds = {json.loads(row)["kind"] for row in journal.read_text().splitlines()}
    assert kinds == {"request", "answer", "print"}


def test_it_serves_perpetuals_that_move():
    with served("--json", "--market", "usdm") as process:
        told = json.loads(process.stdout.readline())
        assert told["stream"].endswith("/ws-fapi/v1")
        trades = []
        while not trades:
            with urlopen(f"{told['rest']}/fapi/v1/trades?symbol=BTCUSDT") as answer:
                trades = json.load(answer)
        with urlopen(f"{told['rest']}/fapi/v1/premiumIndex?symbol=BTCUSDT") as answer:
            assert float(json.load(answer)["markPrice"]) > 0


def test_it_prints_where_to_connect_in_words():
    with served() as process:
        rows = [process.stdout.readline().split() for _ in range(5)]
    assert rows[0][0] == "rest"
    assert rows[0][1].startswith("http://127.0.0.1:")
    assert rows[2] == ["admin", "none"]


@pytest.mark.parametrize(
    "options", [["--speed", "0"], ["--speed", "nan"], ["--cash", "-1"], ["--interval", "7m"]]
)
def test_wrong_options_are_told(options):
    ended = subprocess.run(
        [PROGRAM, "venue", *options], capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 2
    assert ended.stderr
