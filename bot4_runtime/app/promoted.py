"""The promoted models of a running session: loaded, tried, swapped, rolled back, described."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from bot4_runtime.clock import Clock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import Bot4Error, ModelError
from bot4_runtime.domain.events import ModelPromoted, ModelTrial
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.regime import HmmMode
from bot4_runtime.engine import Engine
from bot4_runtime.regime.evidence import evidence_path, read_evidence
from bot4_runtime.regime.manifest import ModelKind
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.regime.trial import TrialBounds, WatchedDetector
from bot4_runtime.sources import utc, wall_ms
from bot4_runtime.state.trading_state import TradingState

Shas = tuple[str, str]
Happened = Sequence[ModelPromoted | ModelTrial]

POLL_SECONDS: Final = 1.0
"""How often the pointer of promoted models is looked at."""


class PromotedModels:
    """The promoted pair and its evidence, watched for a newer promotion.

    A newer pair is tried beside the one that trades, takes its place, and is itself watched: the
    former one is kept, beside it at first, and comes back when the new one's answers are none,
    slow, or too different. A pair that is refused is told of once, and the last good one kept.
    Evidence is gathered after a promotion, so its file is watched too.

    Args:
        symbols: what is traded: a pair that may not be used on them is refused.
        mode: how the HMM names regimes: a pair that cannot is refused.
        market: where; a pair of another market is refused.
        bounds: what a new pair must keep to.
        notice: set when somebody says that a pair was promoted; the pointer is looked at once a
            second without it.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        interval: str,
        clock: Clock,
        symbols: Sequence[str] = (),
        *,
        mode: HmmMode = HmmMode.FILTER,
        market: Market | None = None,
        bounds: TrialBounds | None = None,
        notice: threading.Event | None = None,
    ) -> None:
        self._registry = registry
        self._symbols = tuple(symbols)
        self._mode = mode
        self._market = market
        self._interval = interval
        self._clock = clock
        self._notice = notice or threading.Event()
        self._stamp = self._look()
        self._next_look = time.monotonic() + POLL_SECONDS
        self._log = structlog.get_logger("models")
        self.pair = self._load()
        self.detector: Final = WatchedDetector(self.pair, bounds, mode=mode)
        self._evidence = self._evidence_of(self.pair)
        self._candidate: ModelPair | None = None
        self._former: tuple[ModelPair, Mapping[str, EvidenceRecord]] | None = None
        self._taken = registry.current(interval)

    def evidence(self) -> Mapping[str, EvidenceRecord]:
        """Return the records made with the pair, by rule id."""
        return self._evidence

    def go_on(self, state: TradingState) -> None:
        """Go on with the pair that named regimes last: a newer one is tried, as while running.

        Where that pair does not hold any more, or none traded yet, the promoted one trades.
        """
        named = [e for e in state.regimes.values() if e.interval == self._interval]
        last = max(named, key=lambda estimate: estimate.open_time_ms, default=None)
        if last is None or last.model_sha256 == (self.pair.lstm or self.pair.hmm).sha256:
            return
        try:
            manifest = self._registry.manifest(last.model_sha256)
            shas = (manifest.hmm_sha256, last.model_sha256)
            if manifest.kind is ModelKind.HMM:
                shas = (last.model_sha256, "")
            before = self._suited(self._registry.open(self._interval, *shas, wall_ms()))
        except ModelError as error:
            self._log.warning("the pair that traded last is gone", why=str(error))
            return
        self._candidate, self.pair = self.pair, before
        self._evidence = self._evidence_of(before)
        self.detector.swap(before)

    # ------------------------------------------------------------------ watching
    def poll(self, engine: Engine) -> Happened:
        """Try, adopt or leave a pair as it deserves; return what happened."""
        happened = self._guarded(self._judge, engine)
        if not self._notice.is_set() and time.monotonic() < self._next_look:
            return happened
        self._notice.clear()
        self._next_look = time.monotonic() + POLL_SECONDS
        stamp = self._look()
        if stamp == self._stamp:
            return happened
        self._stamp = stamp
        return [*happened, *self._guarded(self._take_up, engine)]

    def _guarded(self, step: Callable[[Engine], Happened], engine: Engine) -> Happened:
        """Take a step; whatever fails in it is a refusal, told of once."""
        try:
            return step(engine)
        except Exception as error:  # noqa: BLE001 - trading goes on whatever lies in the folder
            ours = isinstance(error, Bot4Error)
            why = str(error) if ours else f"{type(error).__name__}: {error}"
            self._log.error("promoted models refused, keeping the last good pair", why=why)
            if self._candidate is not None:
                self._drop_candidate()
            return [self._told(self._pointed(), "refused", why)]

    def _take_up(self, engine: Engine) -> Happened:
        """Look at what is promoted now; each promotion is taken up once.

        Raises:
            ModelError: it is refused.
        """
        current = self._registry.current(self._interval)
        if current is not None and current.shas == _shas(self.pair):
            self._taken = current
            self._evidence = self._evidence_of(self.pair)
            engine.believe(self._evidence)
            self._log.info("evidence read again", rules=sorted(self._evidence))
            dropped = self._candidate
            if dropped is None:
                return []
            told = self._told(_shas(dropped), "refused", "it is not promoted any more")
            self._drop_candidate()
            return [told]
        if current is not None and current == self._taken:
            return []
        self._taken = current
        pair = self._load()
        self._drop_candidate()
        self._candidate = pair
        return self._judge(engine)

    def _judge(self, engine: Engine) -> Happened:
        """Decide what the counts of the detector ask for."""
        if self._former is not None:
            wrong = self.detector.complaint() or (
                self.detector.disagreement() if self._candidate is None else ""
            )
            if wrong:
                return self._roll_back(engine, wrong)
        if self._candidate is not None:
            return self._judge_candidate(engine, self._candidate)
        if self.detector.beside is not None and self.detector.candles >= self._length:
            kept = self._told(_shas(self.pair), "kept", "")
            self.detector.run_beside(None)
            return [kept]
        return []

    def _judge_candidate(self, engine: Engine, pair: ModelPair) -> Happened:
        if not self._length:
            return self._adopt(engine, pair)
        if self.detector.beside is not pair:
            self.detector.run_beside(pair)
            self._log.info("models tried beside the old ones", hmm=pair.hmm_sha256[:12],
                           lstm=pair.lstm_sha256[:12], candles=self._length)  # fmt: skip
            return [self._told(_shas(pair), "begun", "")]
        wrong = self.detector.complaint_beside() or self.detector.disagreement()
        if wrong:
            told = self._told(_shas(pair), "refused", wrong)
            self._drop_candidate()
            self._log.error("promoted models refused, keeping the last good pair", why=wrong)
            return [told]
        return self._adopt(engine, pair) if self.detector.candles >= self._length else []

    def _adopt(self, engine: Engine, pair: ModelPair) -> Happened:
        told = self._told(_shas(pair), "adopted", "")
        evidence = self._evidence_of(pair)
        self._former = self.pair, self._evidence
        self._candidate = None
        self._swap(engine, pair, evidence)
        self.detector.guard(on=True)
        if self._length:
            self.detector.run_beside(self._former[0])
        return [told, self._promoted(pair)]

    def _roll_back(self, engine: Engine, why: str) -> Happened:
        """Go back to the former pair; without one this is not asked for."""
        assert self._former is not None  # noqa: S101 - see above
        told = self._told(_shas(self.pair), "rolled back", why)
        self._log.error("models rolled back to the former pair", why=why)
        pair, evidence = self._former
        self._former = None
        self._swap(engine, pair, evidence)
        self.detector.guard(on=False)
        return [told, self._promoted(pair)]

    def _swap(
        self, engine: Engine, pair: ModelPair, evidence: Mapping[str, EvidenceRecord]
    ) -> None:
        self.pair, self._evidence = pair, evidence
        engine.swap(pair, evidence)
        self._log.info("models swapped", hmm=pair.hmm_sha256[:12], lstm=pair.lstm_sha256[:12])

    def _drop_candidate(self) -> None:
        self._candidate = None
        self.detector.run_beside(None)

    @property
    def _length(self) -> int:
        return self.detector.bounds.candles

    # ------------------------------------------------------------------- reading
    def _evidence_of(self, pair: ModelPair) -> Mapping[str, EvidenceRecord]:
        return read_evidence(self._evidence_path, pair.hmm_sha256, pair.lstm_sha256)

    @property
    def _evidence_path(self) -> Path:
        return evidence_path(self._registry.root, self._interval)

    def _look(self) -> tuple[object, int]:
        """Return what changes when a pair is promoted or evidence is written."""
        try:
            written_ns = self._evidence_path.stat().st_mtime_ns
        except OSError:
            written_ns = 0
        return self._registry.pointer_stamp(), written_ns

    def _load(self) -> ModelPair:
        return self._suited(self._registry.load(self._interval, wall_ms()))

    def _suited(self, pair: ModelPair) -> ModelPair:
        """Return a pair that may be used here.

        Raises:
            ModelError: it is of another market, or may not be used on a symbol.
        """
        market = pair.deciding.market
        if self._market is not None and market is not self._market:
            raise ModelError(
                f"the {self._interval} models were trained on the {market.value} market; expected "
                f"{self._market.value}: promote models of that market, or set runtime.market"
            )
        for symbol in self._symbols:
            pair.require(symbol)
        if self._mode is HmmMode.LOOKAHEAD:
            pair.look_ahead()
        return pair

    def _pointed(self) -> Shas:
        """Return which pair the pointer names; empty where it is unreadable."""
        try:
            current = self._registry.current(self._interval)
        except ModelError:
            return "", ""
        return current.shas if current is not None else ("", "")

    # ------------------------------------------------------------------- telling
    def _told(self, shas: Shas, outcome: str, reason: str) -> ModelTrial:
        compared = self.detector.beside is not None and outcome != "begun"
        return ModelTrial(
            ts_event_ns=self._clock.now_ns(),
            interval=self._interval,
            hmm_sha256=shas[0],
            lstm_sha256=shas[1],
            outcome=outcome,
            candles=self.detector.candles if compared else 0,
            agreement=self.detector.agreement if compared else None,
            latency_ms=self.detector.latency_ms if compared else None,
            reason=reason,
        )

    def _promoted(self, pair: ModelPair) -> ModelPromoted:
        return ModelPromoted(
            ts_event_ns=self._clock.now_ns(),
            interval=self._interval,
            hmm_sha256=pair.hmm_sha256,
            lstm_sha256=pair.lstm_sha256,
            schema_id=pair.schema_id,
        )


def _shas(pair: ModelPair) -> Shas:
    return pair.hmm_sha256, pair.lstm_sha256


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
