"""The program as a process: told to stop, it stops in order, and goes on later."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from bot4_runtime.domain.events import SessionEnded
from bot4_runtime.state.reader import JournalReader

PROGRAM = str(Path(sys.executable).with_name("bot4-runtime"))
WORDS = ["start", "--strategy", "drill", "--source", "simulated:5", "--symbols", "BTCUSDT,ETHUSDT"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "BOT4_HOME": str(tmp_path / "home"),
        "BOT4_MODELS": str(tmp_path / "models"),
        "BOT4_RISK__MAX_CORRELATION": "1.0",
        "OMP_NUM_THREADS": "1",
    }


def call(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words], env=environment, capture_output=True, text=True, timeout=60
    )


def wait_for_candles(journal: Path, least: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if journal.is_file():
            try:
                with JournalReader.open(journal) as reader:
                    if reader.last_seq() >= least:
                        return
            except Exception:  # noqa: BLE001 - the writer is just making it
                pass
        time.sleep(0.05)
    pytest.fail("no candles within a minute")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_process_stops_in_order_and_the_same_command_continues(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "home" / "state" / "paper"
    words = [*WORDS, "--speed", "72000", "--json"]
    hashes, candles = [], 0
    for turn in (1, 2):
        process = subprocess.Popen(
            [PROGRAM, *words],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for_candles(folder / "journal.sqlite", 40 + candles * 2)
        if turn == 1:
            running = json.loads(call(environment, "status", "--json").stdout)
            assert running["running_pid"] == process.pid
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        document = json.loads(out)
        assert document["run"]["stopped"] is True
        assert document["run"]["candles_this_process"] > 0
        candles = document["candles"]
        hashes.append(document["state_hash"])
    assert hashes[0] != hashes[1]
    assert list((folder / "snapshots").glob("*.snapshot"))
    found = json.loads(call(environment, "status", "--json").stdout)
    assert found["running_pid"] is None
    assert (found["candles"], found["state_hash"]) == (candles, hashes[1])
    with JournalReader.open(folder / "journal.sqlite") as journal:
        ends = [event.reason for _, event in journal.events(kinds=(SessionEnded,))]
    assert ends == ["stopped", "stopped"]
    last_ms = found["last_candle_open_ms"]
    whole = call(
        environment, *WORDS, "--speed", "max", "--account", "whole", "--json",
        "--to", time.strftime("%Y-%m-%dT%H:%M", time.gmtime(last_ms / 1000 + 3600)),
    )  # fmt: skip
    if json.loads(whole.stdout)["candles"] == candles:  # stopped between two times
        assert json.loads(whole.stdout)["state_hash"] == hashes[1]


def test_metrics_are_served_while_it_runs(environment: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [PROGRAM, *WORDS, "--metrics-port", str(port)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for_candles(tmp_path / "home" / "state" / "paper" / "journal.sqlite", 5)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert 'bot4_events_total{type="CandleClosed"}' in answer.read().decode()
    finally:
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def test_wrong_words_end_with_2_and_no_traceback(environment: dict[str, str]) -> None:
    ended = call(environment, "start", "--source", "moon", "--strategy", "drill")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "unknown source" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_closed_pipe_is_no_traceback(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [PROGRAM, "doctor", "--json"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(30)
    assert "Traceback" not in err
