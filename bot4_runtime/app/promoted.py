"""The promoted models of a running session: loaded, watched, swapped and described."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from bot4_runtime.clock import Clock
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.domain.events import ModelPromoted
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.regime import HmmMode
from bot4_runtime.engine import Engine
from bot4_runtime.regime.evidence import evidence_path, read_evidence
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.sources import utc, wall_ms

POLL_SECONDS: Final = 1.0
"""How often the pointer of promoted models is looked at."""


class PromotedModels:
    """The promoted pair and its evidence, watched for a newer promotion.

    A pair that is refused is reported and the last good one kept. Evidence is gathered after
    a promotion, so its file is watched too.

    Args:
        symbols: what is traded: a pair that may not be used on them is refused.
        mode: how the HMM names regimes: a pair that cannot is refused.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        interval: str,
        clock: Clock,
        symbols: Sequence[str] = (),
        mode: HmmMode = HmmMode.FILTER,
    ) -> None:
        self._registry = registry
        self._symbols = tuple(symbols)
        self._mode = mode
        self._interval = interval
        self._clock = clock
        self._stamp = self._look()
        self._next_look = time.monotonic() + POLL_SECONDS
        self.pair = self._load()
        self._log = structlog.get_logger("models")

    def evidence(self) -> Mapping[str, EvidenceRecord]:
        """Return the records made with the pair, by rule id."""
        return self._evidence_of(self.pair)

    def _evidence_of(self, pair: ModelPair) -> Mapping[str, EvidenceRecord]:
        return read_evidence(self._evidence_path, pair.hmm_sha256, pair.lstm_sha256)

    @property
    def _evidence_path(self) -> Path:
        return evidence_path(self._registry.root, self._interval)

    def _look(self) -> tuple[object, int]:
        """Return what changes when a pair is promoted or evidence is written."""
        try:
            written_ns = self._evidence_path.stat().st_mtime_ns
        except FileNotFoundError:
            written_ns = 0
        return self._registry.pointer_stamp(), written_ns

    def _load(self) -> ModelPair:
        pair = self._registry.load(self._interval, wall_ms())
        for symbol in self._symbols:
            pair.require(symbol)
        if self._mode is HmmMode.LOOKAHEAD:
            pair.look_ahead()
        return pair

    def poll(self, engine: Engine) -> ModelPromoted | None:
        """Swap the engine's models when the pointer moved; return what was promoted."""
        if time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + POLL_SECONDS
        stamp = self._look()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        now_ns = self._clock.now_ns()
        try:
            pair = self._load()
            evidence = self._evidence_of(pair)
        except Exception as error:  # noqa: BLE001 - trading goes on whatever lies in the folder
            self._log.error("promoted models refused, keeping the last good pair", why=_why(error))
            return None
        before = (self.pair.hmm_sha256, self.pair.lstm_sha256)
        if before == (pair.hmm_sha256, pair.lstm_sha256):
            engine.believe(evidence)
            self._log.info("evidence read again", rules=sorted(evidence))
            return None
        self.pair = pair
        engine.swap(pair, evidence)
        self._log.info("models swapped", hmm=pair.hmm_sha256[:12], lstm=pair.lstm_sha256[:12])
        return ModelPromoted(
            ts_event_ns=now_ns,
            interval=self._interval,
            hmm_sha256=pair.hmm_sha256,
            lstm_sha256=pair.lstm_sha256,
            schema_id=pair.schema_id,
        )


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"


def describe(pair: ModelPair) -> dict[str, Any]:
    """What the manifests say of a pair: names, dates, accuracies and their baselines."""
    manifest = pair.deciding
    return {
        "hmm_sha256": pair.hmm_sha256,
        "lstm_sha256": pair.lstm_sha256,
        "schema_id": manifest.schema_id,
        "interval": manifest.interval,
        "origin": manifest.origin.value,
        "training_symbols": list(manifest.symbols),
        "test_start": utc(manifest.cuts.test_start_ms),
        "hmm_filter": _told(pair.hmm_manifest.metrics),
        "lstm": _told(pair.lstm_manifest.metrics) if pair.lstm_manifest is not None else None,
        "baselines_test": manifest.metrics.get("baselines_test", {}),
    }


def _told(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    return {split: metrics[split] for split in ("validation", "test") if split in metrics}
