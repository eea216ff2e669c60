"""A story, watched from outside: what a running process makes of the models it is offered."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.models import promote_pair
from bot4_pipelines.training.hmm_export import golden_of, seal
from bot4_runtime.domain.errors import JournalError
from bot4_runtime.domain.events import CandleClosed, ModelPromoted, ModelTrial, RegimeNamed
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.regime.signature import ModelKeys, make_keys
from bot4_runtime.state.reader import JournalReader

PROGRAM = Path(sys.executable).with_name("bot4-runtime")
pytestmark = pytest.mark.slow


class Watched:
    """A paper session on the simulated market, some 60 hours a second, and its journal."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("BOT4_")
        } | {"BOT4_HOME": str(home), "BOT4_MODELS": str(home / "models"), **variables}
        self.journal = home / "state" / "story" / "journal.sqlite"
        self.process = subprocess.Popen(
            [str(PROGRAM), "start", "--source", "simulated:7", "--speed", "216000",
             "--account", "story", "--json"],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def events(self, *kinds: type) -> list[Any]:
        with suppress(JournalError), JournalReader.open(self.journal) as reader:
            return [event for _, event in reader.events(kinds=kinds)]
        return []

    def until(self, holds: Callable[[], Any], seconds: float = 90.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := holds()):
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, self.outcomes()
            time.sleep(0.1)
        return value

    def outcomes(self) -> list[str]:
        return [event.outcome for event in self.events(ModelTrial)]

    def trades_on(self) -> None:
        """Wait for some more candles with their regimes."""
        so_far = len(self.events(RegimeNamed))
        self.until(lambda: len(self.events(RegimeNamed)) > so_far + 10)

    def status(self, *words: str) -> str:
        done = subprocess.run(
            [str(PROGRAM), "status", "--account", "story", *words],
            env=self.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors


def twin_of(registry: ModelRegistry, sha256: str, later_ms: int = 1, graph: bytes = b"") -> str:
    """Archive a network once more under another manifest, so that it has another hash."""
    manifest = registry.manifest(sha256)
    changes: dict[str, Any] = {"created_ms": manifest.created_ms + later_ms}
    if graph:
        windows = np.zeros((1, 50, len(manifest.feature_names)), dtype=np.float32)
        changes["golden"] = (golden_of(graph, {"features": windows}),)
    later = msgspec.structs.replace(manifest, **changes)
    data = graph or (registry.root / "archive" / sha256 / "model.onnx").read_bytes()
    return registry.add(seal(data, later), later, "<p>twin</p>")


def contrary(registry: ModelRegistry, sha256: str) -> bytes:
    """Return the same network, naming always another state."""
    import onnx
    from onnx import helper, numpy_helper

    data = (registry.root / "archive" / sha256 / "model.onnx").read_bytes()
    model = onnx.load_model_from_string(data)
    del model.metadata_props[:]
    for node in model.graph.node:
        node.output[:] = ["named" if name == "probabilities" else name for name in node.output]
    turned = np.roll(np.eye(5, dtype=np.float32), 2, axis=1)
    model.graph.initializer.append(numpy_helper.from_array(turned, "turned"))
    model.graph.node.append(helper.make_node("MatMul", ["named", "turned"], ["probabilities"]))
    content: bytes = model.SerializeToString()
    return content


def test_a_running_process_refuses_a_corrupt_pair_and_a_contrary_one_and_takes_up_a_good_one(
    tmp_path: Path,
) -> None:
    promote_pair(tmp_path / "models", "1h")
    registry = ModelRegistry(tmp_path / "models")
    hmm, first = registry.current("1h").shas
    corrupt, good = twin_of(registry, first, 1), twin_of(registry, first, 2)
    other = twin_of(registry, first, 3, contrary(registry, first))
    onnx = registry.root / "archive" / corrupt / "model.onnx"
    damaged = bytearray(onnx.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    onnx.write_bytes(damaged)
    pointer = registry.root / "current.json"
    watched = Watched(tmp_path)
    try:
        watched.trades_on()
        pointer.write_text(pointer.read_text().replace(first, corrupt))
        (refused,) = watched.until(lambda: watched.events(ModelTrial))
        assert refused.outcome == "refused"
        assert refused.lstm_sha256 == corrupt
        print(f"the running process refuses: {refused.reason}")
        assert "sha256 is" in refused.reason
        watched.trades_on()
        assert json.loads(watched.status("--json"))["model_trials"]["1h"]["outcome"] == "refused"
        shown = " ".join(watched.status().split())
        assert f"Promoted 1h models {corrupt[:12]}: refused: model {corrupt[:12]} refused" in shown

        registry.activate("1h", hmm, other)
        watched.until(lambda: watched.outcomes() == ["refused", "begun", "refused"])
        assert "of the regimes as the other pair did" in watched.events(ModelTrial)[-1].reason
        watched.trades_on()
        assert {e.estimate.model_sha256 for e in watched.events(RegimeNamed)} == {first}

        registry.activate("1h", hmm, good)
        watched.until(lambda: watched.outcomes()[3:] == ["begun", "adopted", "kept"])
        watched.trades_on()
        adopted = watched.events(ModelTrial)[-2]
        assert adopted.agreement == 1.0
        assert adopted.candles == 24
        watched.stop()
    finally:
        watched.process.kill()
    begun, promoted = watched.events(ModelPromoted)
    assert (begun.lstm_sha256, promoted.lstm_sha256) == (first, good)
    everything = watched.events(ModelPromoted, RegimeNamed)
    turn = everything.index(promoted)
    assert {e.estimate.model_sha256 for e in everything[1:turn]} == {first}
    assert {e.estimate.model_sha256 for e in everything[turn + 1 :]} == {good}
    opens = [event.candle.open_time_ms for event in watched.events(CandleClosed)]
    assert np.diff(opens).tolist() == [3_600_000] * (len(opens) - 1), "no candle was lost"


def test_a_process_with_a_public_key_takes_up_signed_models_alone(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    promote_pair(tmp_path / "models", "1h")
    plain = ModelRegistry(tmp_path / "models", ModelKeys())
    signing = ModelRegistry(tmp_path / "models", ModelKeys(signing=keys.signing))
    hmm, first = plain.current("1h").shas
    signing.activate("1h", hmm, first)
    forged, good = twin_of(plain, first, 1), twin_of(plain, first, 2)
    watched = Watched(
        tmp_path, BOT4_MODEL_PUBLIC_KEY=str(keys.public), BOT4_PROMOTION__TRIAL_CANDLES="4"
    )
    try:
        watched.trades_on()
        plain.activate("1h", hmm, forged)
        (refused,) = watched.until(lambda: watched.events(ModelTrial))
        assert "it is not signed" in refused.reason
        signing.activate("1h", hmm, good)
        watched.until(lambda: watched.outcomes()[1:] == ["begun", "adopted", "kept"])
        watched.stop()
    finally:
        watched.process.kill()
    assert [event.lstm_sha256 for event in watched.events(ModelPromoted)] == [first, good]
