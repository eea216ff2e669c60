"""The bridge between the programs: a promotion reaches a running process, a bad model does not."""

import json
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bot4_pipelines.training.hmm_export import seal
from bot4_runtime.domain.errors import JournalError
from bot4_runtime.domain.events import CandleClosed, GapSeen, ModelPromoted, RegimeNamed
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.state.reader import JournalReader

PROGRAM = Path(sys.executable).with_name("bot4-runtime")
HOUR_MS = 3_600_000
pytestmark = pytest.mark.slow


def until(holds: Callable[[], Any], seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
    return value


def events(journal: Path, *kinds: type) -> list[Any]:
    with suppress(JournalError), JournalReader.open(journal) as reader:
        return [event for _, event in reader.events(kinds=kinds)]
    return []


@contextmanager
def running(demo: Any, account: str) -> Iterator[subprocess.Popen[str]]:
    """A paper session over the stored candles, some 60 hours a second."""
    process = subprocess.Popen(
        [str(PROGRAM), "start", "--source", "store", "--speed", "216000", "--account", account, "--json"],
        env=demo.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def twin_of(registry: ModelRegistry, sha256: str) -> str:
    """Archive the same network once more under another manifest, so that it has another hash."""
    manifest = registry.manifest(sha256)
    later = msgspec.structs.replace(manifest, created_ms=manifest.created_ms + 1)
    data = (registry.root / "archive" / sha256 / "model.onnx").read_bytes()
    return registry.add(seal(data, later), later, "<p>twin</p>")


def test_a_promotion_swaps_the_models_between_two_candles_without_losing_one(demo) -> None:
    registry = ModelRegistry(demo.models)
    before = registry.current("1h")
    journal = demo.home / "state" / "swap" / "journal.sqlite"
    with running(demo, "swap") as process:
        until(lambda: len(events(journal, RegimeNamed)) > 50 or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()
        twin = twin_of(registry, before.lstm_sha256)
        registry.activate("1h", before.hmm_sha256, twin)
        try:
            (promoted,) = until(lambda: events(journal, ModelPromoted)[1:])
            named = len(events(journal, RegimeNamed))
            until(lambda: len(events(journal, RegimeNamed)) > named + 50)
            process.send_signal(signal.SIGTERM)
            said, errors = process.communicate(timeout=60)
        finally:
            registry.activate("1h", before.hmm_sha256, before.lstm_sha256)
    assert process.returncode == 0, errors
    assert json.loads(said)["run"]["stopped"]
    assert promoted.lstm_sha256 == twin
    everything = events(journal, CandleClosed, ModelPromoted, RegimeNamed)
    turn = everything.index(promoted)
    assert {e.estimate.model_sha256 for e in everything[:turn] if isinstance(e, RegimeNamed)} == {
        before.lstm_sha256
    }
    assert {e.estimate.model_sha256 for e in everything[turn:] if isinstance(e, RegimeNamed)} == {
        twin
    }
    times: dict[str, list[int]] = defaultdict(list)
    for event in everything:
        if isinstance(event, CandleClosed):
            times[event.candle.symbol].append(event.candle.open_time_ms)
    gaps = events(journal, GapSeen)
    for symbol, seen in times.items():
        steps = [b - a for a, b in pairwise(seen)]
        assert min(steps) == HOUR_MS, symbol
        told = sum(gap.symbol == symbol for gap in gaps)
        assert sum(step > HOUR_MS for step in steps) == told


@pytest.mark.parametrize("fault", ["bit", "truncated", "manifest", "missing"])
def test_a_damaged_model_is_refused_at_start_and_the_message_says_what_to_do(
    demo, tmp_path: Path, fault: str
) -> None:
    import shutil

    models = tmp_path / "models"
    shutil.copytree(demo.models, models)
    current = ModelRegistry(models).current("1h")
    folder = models / "archive" / current.lstm_sha256
    onnx = folder / "model.onnx"
    onnx.chmod(0o644)
    data = bytearray(onnx.read_bytes())
    if fault == "bit":
        data[len(data) // 2] ^= 1
        onnx.write_bytes(data)
    elif fault == "truncated":
        onnx.write_bytes(data[:-100])
    elif fault == "manifest":
        path = folder / "manifest.json"
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b'"StrongBear"', b'"StrongDear"'))
    else:
        (models / "current.json").unlink()
    done = demo.runtime(
        "start", "--source", "store", "--speed", "max", "--account", f"refused-{fault}",
        BOT4_MODELS=str(models),
    )  # fmt: skip
    assert done.returncode == 2
    assert "ModelError" in done.stderr
    assert "Traceback" not in done.stderr
    assert any(word in done.stderr for word in ("promote", "bot4-pipelines run", "restore"))
    assert not (demo.home / "state" / f"refused-{fault}" / "journal.sqlite").exists()


def test_a_running_process_keeps_the_last_good_pair_when_the_pointer_names_a_bad_one(demo) -> None:
    registry = ModelRegistry(demo.models)
    pointer = demo.models / "current.json"
    good = pointer.read_bytes()
    journal = demo.home / "state" / "lastgood" / "journal.sqlite"
    log = demo.home / "logs" / "runtime.jsonl"
    with running(demo, "lastgood") as process:
        until(lambda: len(events(journal, RegimeNamed)) > 20)
        sha256 = registry.current("1h").lstm_sha256
        try:
            pointer.write_bytes(good.replace(sha256.encode(), b"0" * 64))
            until(lambda: "refused" in log.read_text())
            named = len(events(journal, RegimeNamed))
            until(lambda: len(events(journal, RegimeNamed)) > named + 20)
        finally:
            pointer.write_bytes(good)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    used = {event.estimate.model_sha256 for event in events(journal, RegimeNamed)}
    assert used == {sha256}
