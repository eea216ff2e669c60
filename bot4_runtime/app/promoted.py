"""The pair of models that trades in a session: which it is, which is tried, which comes back.

What happens to pairs is journaled, and a restart goes on from there: with the pair that traded,
with its way back, and without a promotion that was refused or left before. The counts of a trial
are not kept: it begins anew. Which pairs may be used at all is `shelf`'s business, how two of
them are compared `regime.trial`'s.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import structlog

from bot4_runtime.app.shelf import ModelShelf, Shas, shas
from bot4_runtime.clock import Clock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import Bot4Error, ModelError
from bot4_runtime.domain.events import ModelPromoted, ModelTrial
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.regime import HmmMode
from bot4_runtime.engine import Engine
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import CurrentPair, ModelRegistry
from bot4_runtime.regime.trial import TrialBounds, WatchedDetector
from bot4_runtime.sources import utc, wall_ms
from bot4_runtime.state.trading_state import TradingState

Happened = Sequence[ModelPromoted | ModelTrial]

POLL_SECONDS: Final = 1.0
"""How often the pointer of promoted models is looked at."""
NOBODY: Final[Shas] = ("", "")
"""In the place of a pair's files: none trades, or none is named."""
_GIVEN_UP: Final = ("refused", "rolled back", "left")


class PromotedModels:
    """The promoted pair and its evidence, watched for a newer promotion.

    A newer pair is tried beside the one that trades, takes its place, and is itself watched: the
    former one is kept, beside it at first, and comes back when the new one's answers are none,
    slow, or too different, or when it expires. Where there is none, or it expired too, no pair
    trades until one is promoted.
    A pair that is refused is told of once, and the last good one kept. Evidence is gathered after
    a promotion, so its file is watched too.

    Args:
        symbols: what is traded: a pair that may not be used on them is refused.
        mode: how the HMM names regimes: a pair that cannot is refused.
        market: where; a pair of another market is refused.
        simulated: whether a pair that learnt from simulated candles may trade.
        bounds: what a new pair must keep to.
        notice: set when somebody says that a pair was promoted; the pointer is looked at once a
            second without it.
        now_ms: UTC; pairs expire by it.

    Raises:
        ModelError: no pair is promoted, or it may not be used here.
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
        simulated: bool = True,
        bounds: TrialBounds | None = None,
        notice: threading.Event | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._shelf = ModelShelf(
            registry, interval, symbols, mode=mode, market=market, simulated=simulated
        )
        self._interval = interval
        self._clock = clock
        self._notice = notice or threading.Event()
        self._now_ms = now_ms
        self._log = structlog.get_logger("models")
        self._stamp = self._shelf.stamp()
        self._next_look = time.monotonic() + POLL_SECONDS
        self._taken: CurrentPair = self._shelf.promoted()
        """The promotion that was looked at last; each is taken up once."""
        pair = self._shelf.open(self._taken.shas, now_ms())
        self.detector: Final = WatchedDetector(pair, bounds, mode=mode)
        self._evidence = self._shelf.evidence(self.pair)
        self._candidate: ModelPair | None = None
        self._former: tuple[ModelPair, Mapping[str, EvidenceRecord]] | None = None
        self._happened: list[ModelPromoted | ModelTrial] = []
        self.warnings: Final[list[str]] = []
        """What the operator should know of how a restart went on."""

    @property
    def pair(self) -> ModelPair:
        """The pair that trades; while none does, the one whose windows are carried on."""
        return self.detector.pair

    def evidence(self) -> Mapping[str, EvidenceRecord]:
        """Return the records made with the pair, by rule id; none while no pair trades."""
        return {} if self.detector.silent else self._evidence

    # ---------------------------------------------------------------- restarting
    def go_on(self, state: TradingState) -> None:
        """Go on as the journal says, with a newer promotion tried as while running.

        Where the pair that traded does not hold any more, or none traded yet, the promoted one
        trades; where that was refused or left before, none does.
        """
        trial = state.trials.get(self._interval)
        given_up = (
            trial is not None
            and trial.outcome in _GIVEN_UP
            and (trial.shas, trial.activated_ms) == (self._taken.shas, self._taken.activated_ms)
        )
        trades = state.models.get(self._interval)
        before = self._opened(trades.shas if trades is not None else self._named_last(state))
        if before is not None:
            if not given_up and shas(before) != shas(self.pair):
                self._candidate = self.pair
            if before is not self.pair:
                self._evidence = self._shelf.evidence(before)
                self.detector.swap(before)
            if trades is not None:
                self._keep_way_back(trades, trial)
        elif given_up:
            self._silence("the promoted pair was refused or left before, and no other trades")
        if trades is None or trades.shas != self._trading:
            self._tell_what_trades()

    def _named_last(self, state: TradingState) -> Shas:
        """Return the pair that named regimes last, in a journal that does not say what trades."""
        named = [e for e in state.regimes.values() if e.interval == self._interval]
        last = max(named, key=lambda estimate: estimate.open_time_ms, default=None)
        if last is None:
            return NOBODY
        try:
            return self._shelf.shas_of(last.model_sha256)
        except ModelError as error:
            self._warn(f"The pair of models that traded last is gone: {error}")
            return NOBODY

    def _opened(self, files: Shas) -> ModelPair | None:
        """Return a pair that traded before; None, with a warning, where it does not hold."""
        if files == NOBODY:
            return None
        if files == shas(self.pair):
            return self.pair
        try:
            return self._shelf.open(files, self._now_ms())
        except ModelError as error:
            self._warn(f"The pair of models that traded last is gone: {error}")
            return None

    def _keep_way_back(self, trades: ModelPromoted, trial: ModelTrial | None) -> None:
        """Keep the former pair again, beside the one that trades while it was not `kept` yet."""
        if trades.former_shas == NOBODY:
            return
        try:
            pair = self._shelf.open(trades.former_shas, self._now_ms())
            self._former = pair, self._shelf.evidence(pair)
        except Bot4Error as error:
            self._warn(f"There is no way back from the models that trade: {error}")
            return
        self.detector.guard(on=True)
        fresh = trial is not None and (trial.outcome, trial.shas) == ("adopted", trades.shas)
        if fresh and self._length:
            self.detector.run_beside(self.detector.fork(pair))

    def _warn(self, text: str) -> None:
        self._log.warning("models at a restart", why=text)
        self.warnings.append(text)

    # ------------------------------------------------------------------ watching
    def poll(self, engine: Engine) -> Happened:
        """Try, adopt or leave a pair as it deserves; return what happened."""
        if self._due():
            with self._refusing(self._refuse_pointed):
                self._take_up(engine)
        with self._refusing(self._refuse_candidate):
            self._judge(engine)
        happened, self._happened = self._happened, []
        return happened

    def _due(self) -> bool:
        """Tell whether a pair may have been promoted, or evidence written, since the last look."""
        if not self._notice.is_set() and time.monotonic() < self._next_look:
            return False
        self._notice.clear()
        self._next_look = time.monotonic() + POLL_SECONDS
        before, self._stamp = self._stamp, self._shelf.stamp()
        return self._stamp != before

    @contextmanager
    def _refusing(self, refuse: Callable[[str], None]) -> Iterator[None]:
        """Whatever fails within is a refusal, told of once."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - trading goes on whatever lies in the folder
            ours = isinstance(error, Bot4Error)
            why = str(error) if ours else f"{type(error).__name__}: {error}"
            self._log.error("promoted models refused, keeping the last good pair", why=why)
            refuse(why)

    def _take_up(self, engine: Engine) -> None:
        """Look at what is promoted now; each promotion is taken up once.

        Raises:
            Bot4Error: it is refused.
        """
        current = self._shelf.promoted()
        again, self._taken = current == self._taken, current
        if current.shas == self._trading:
            self._refuse_candidate("it is not promoted any more")
            self._evidence = self._shelf.evidence(self.pair)
            engine.believe(self._evidence)
            self._log.info("evidence read again", rules=sorted(self._evidence))
        elif not again:
            self._refuse_candidate("a newer pair was promoted")
            self._candidate = self._shelf.open(current.shas, self._now_ms())

    def _judge(self, engine: Engine) -> None:
        """Decide what the clock and the counts of the detector ask for."""
        aged = "" if self.detector.silent else self._aged(self.pair)
        if aged:
            if self._former is not None:
                self._roll_back(engine, *self._former, aged)
            else:
                self._leave(engine, aged, aged)
                self._tell_what_trades()
            return
        if self._former is not None:
            wrong = self.detector.complaint() or (
                self.detector.disagreement() if self._candidate is None else ""
            )
            if wrong:
                self._roll_back(engine, *self._former, wrong)
                return
        if self._candidate is not None:
            self._judge_candidate(engine, self._candidate)
        elif self.detector.beside is not None and self.detector.candles >= self._length:
            self._tell(shas(self.pair), "kept", "")
            self.detector.run_beside(None)

    def _judge_candidate(self, engine: Engine, pair: ModelPair) -> None:
        aged = self._aged(pair)
        if aged:
            raise ModelError(aged)
        if not self._length or self.detector.silent:
            self._adopt(engine, pair)
        elif self.detector.beside is not pair:
            self.detector.run_beside(self.detector.fork(pair))
            self._log.info("models tried beside the old ones", hmm=pair.hmm_sha256[:12],
                           lstm=pair.lstm_sha256[:12], candles=self._length)  # fmt: skip
            self._tell(shas(pair), "begun", "")
        else:
            wrong = self.detector.complaint_beside() or self.detector.disagreement()
            if wrong:
                raise ModelError(wrong)
            if self.detector.candles >= self._length:
                self._adopt(engine, pair)

    def _adopt(self, engine: Engine, pair: ModelPair) -> None:
        """Let a pair trade; whatever can fail does so before anything is changed."""
        evidence = self._shelf.evidence(pair)
        way_back = None if self.detector.silent else (self.pair, self._evidence)
        beside = self.detector.fork(self.pair) if way_back and self._length else None
        adopted = self._trial(shas(pair), "adopted", "")
        self._swap(engine, pair, evidence)
        self._candidate, self._former = None, way_back
        self.detector.guard(on=way_back is not None)
        self.detector.run_beside(beside)
        self._happened.append(adopted)
        self._tell_what_trades()

    def _roll_back(
        self, engine: Engine, pair: ModelPair, evidence: Mapping[str, EvidenceRecord], why: str
    ) -> None:
        """Go back to the former pair; where that cannot trade any more, no pair does."""
        back = self._trial(shas(self.pair), "rolled back", why)
        hindrance = self._aged(pair)
        if not hindrance:
            try:
                self._swap(engine, pair, evidence)
            except Exception as error:  # noqa: BLE001 - as in `_refusing`: what is left is told
                hindrance = f"{type(error).__name__}: {error}"
        self._former = None
        if hindrance:
            reason = f"{why}; no way back to the former pair: {hindrance}"
            self._leave(engine, reason, why)
        else:
            self._log.error("models rolled back to the former pair", why=why)
            self.detector.guard(on=False)
            self._happened.append(back)
        self._tell_what_trades()

    def _leave(self, engine: Engine, reason: str, why: str) -> None:
        """Let the pair that trades go, with nothing in its place."""
        self._tell(shas(self.pair), "left", reason)
        engine.believe({})
        self._silence(why)

    def _swap(
        self, engine: Engine, pair: ModelPair, evidence: Mapping[str, EvidenceRecord]
    ) -> None:
        """Let the engine decide by another pair; where that fails it decides by the old one."""
        engine.swap(pair, evidence)
        self._evidence = evidence
        self._log.info("models swapped", hmm=pair.hmm_sha256[:12], lstm=pair.lstm_sha256[:12])

    def _silence(self, why: str) -> None:
        """Name no regime: nothing is entered, and what is held keeps its stops."""
        self.detector.silence()
        self.warnings.append(
            f"No pair of {self._interval} models trades, and nothing is entered until one is "
            f"promoted: {why}."
        )
        self._log.error("no pair of models trades until one is promoted", why=why)

    def _refuse_candidate(self, why: str) -> None:
        """End the trial of the pair that waits to trade, where there is one."""
        if self._candidate is not None:
            self._tell(shas(self._candidate), "refused", why)
            self._candidate = None
            self.detector.run_beside(None)

    def _refuse_pointed(self, why: str) -> None:
        """Refuse what the pointer names; nobody where it is unreadable.

        A pair that trades is not refused for what lies beside it: evidence that cannot be read
        leaves what was read of it before.
        """
        pointed = self._shelf.pointed()
        if pointed is None or pointed.shas != self._trading:
            self._tell(pointed.shas if pointed is not None else NOBODY, "refused", why)

    def _aged(self, pair: ModelPair) -> str:
        """Say that a pair expired since it was opened; empty when it did not."""
        fresh = self._now_ms() < pair.expires_ms
        return "" if fresh else f"it expired at {utc(pair.expires_ms)}"

    @property
    def _length(self) -> int:
        return self.detector.bounds.candles

    @property
    def _trading(self) -> Shas:
        return NOBODY if self.detector.silent else shas(self.pair)

    # ------------------------------------------------------------------- telling
    def _tell(self, files: Shas, outcome: str, reason: str) -> None:
        self._happened.append(self._trial(files, outcome, reason))

    def _trial(self, files: Shas, outcome: str, reason: str) -> ModelTrial:
        compared = self.detector.beside is not None and outcome != "begun"
        return ModelTrial(
            ts_event_ns=self._clock.now_ns(),
            interval=self._interval,
            hmm_sha256=files[0],
            lstm_sha256=files[1],
            outcome=outcome,
            candles=self.detector.candles if compared else 0,
            agreement=self.detector.agreement if compared else None,
            latency_ms=self.detector.latency_ms if compared else None,
            reason=reason,
            activated_ms=self._taken.activated_ms if files == self._taken.shas else 0,
        )

    def _tell_what_trades(self) -> None:
        hmm, lstm = self._trading
        former = shas(self._former[0]) if self._former is not None else NOBODY
        self._happened.append(
            ModelPromoted(
                ts_event_ns=self._clock.now_ns(),
                interval=self._interval,
                hmm_sha256=hmm,
                lstm_sha256=lstm,
                schema_id=self.pair.schema_id if hmm else "",
                former_hmm_sha256=former[0],
                former_lstm_sha256=former[1],
            )
        )


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
