"""A promoted pair is tried beside the one that trades, adopted, watched, and left if it must be."""

import functools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bot4_runtime import app
from bot4_runtime.app import promoted
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Candle, Market, Origin
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.domain.events import ModelPromoted, ModelTrial, RegimeNamed
from bot4_runtime.features.incremental import FeatureState
from bot4_runtime.regime.evidence import evidence_path, synthetic_evidence, write_evidence
from bot4_runtime.regime.loader import LoadedModel
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.regime.trial import TrialBounds, WatchedDetector
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.trading_state import TradingState

HOUR = 3_600_000
START = 1_735_689_600_000
EXPIRY = 2**45
"""When the pairs that expire here do so: some time in the year 3084."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the pointer of promoted models with every candle."""
    monkeypatch.setattr(promoted, "POLL_SECONDS", 0.0)


class Sick:
    """A session of ONNX Runtime that behaves as told from some answer on."""

    def __init__(self, session, ill: "Illness") -> None:
        self._session, self._ill = session, ill

    def run(self, outputs, inputs):
        return self._ill(self._session.run(outputs, inputs), "features" in inputs)


class Illness:
    """What befalls the LSTM of a pair, or its HMM, after so many of its answers."""

    def __init__(self, kind: str, after: int) -> None:
        self.kind, self.after, self.answers, self.now_ns = kind, after, 0, 0

    def timer(self) -> int:
        return self.now_ns

    def __call__(self, answer, lstm: bool):
        if lstm is (self.kind == "hmm raises"):
            return answer
        self.answers += 1
        if self.answers <= self.after:
            return answer
        if self.kind == "not finite":
            return [np.full_like(answer[0], np.nan)]
        if self.kind.endswith("raises"):
            raise RuntimeError("the library gave up")
        if self.kind == "different":
            return [answer[0][:, ::-1].copy() * 0 + np.array([[0.0, 0.0, 0.0, 0.0, 1.0]])]
        self.now_ns += 500_000_000
        return answer


class Clinic(ModelRegistry):
    """A registry that opens one pair with an illness, and whose time a test sets."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ill: dict[str, Illness] = {}
        self.now_ms = EXPIRY - 1
        self.opened: list[str] = []
        self.while_opening: Callable[[], object] | None = None

    def open(self, interval, hmm_sha256, lstm_sha256="", now_ms=None, **more) -> ModelPair:
        self.opened.append(lstm_sha256)
        pair = super().open(interval, hmm_sha256, lstm_sha256, now_ms, **more)
        meanwhile, self.while_opening = self.while_opening, None
        if meanwhile is not None:
            meanwhile()
        ill = self.ill.get(lstm_sha256)
        if ill is None or pair.lstm is None:
            return pair
        hmm, lstm = (
            LoadedModel(model.sha256, model.manifest, Sick(model.session, ill))
            for model in (pair.hmm, pair.lstm)
        )
        return ModelPair(interval, hmm, lstm)


@functools.cache
def market() -> list[Candle]:
    """Return candles of two symbols by time, 700 hours before the first decision and 200 after."""
    series = [
        SimulatedMarket(7).series(symbol, "1h", START - 700 * HOUR, START + 200 * HOUR)
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    candles = [candle for one in series for candle in one]
    return sorted(candles, key=lambda candle: candle.open_time_ms)


class Desk:
    """Candles through a detector, polled between them and journaled, as a session does it."""

    def __init__(self, models: promoted.PromotedModels, state: TradingState, at: int = 0) -> None:
        self.models, self.state, self.told = models, state, []
        self.believed: list[int] = []
        self.evidence = None
        self.features = {s: FeatureState(s, "1h") for s in ("BTCUSDT", "ETHUSDT")}
        self.candles = market()
        self.at, self.named = 0, []
        while self.at < at or (not at and self.candles[self.at].open_time_ms < START):
            candle = self._next()
            models.detector.warm(candle, self.features[candle.symbol].update(candle))

    def _next(self):
        self.at += 1
        return self.candles[self.at - 1]

    def swap(self, pair, evidence) -> None:
        self.models.detector.swap(pair)
        self.evidence = evidence

    def believe(self, evidence) -> None:
        self.believed.append(self.at)
        self.evidence = evidence

    def look(self) -> None:
        for event in self.models.poll(self):
            self.state.apply(event)
            self.told.append(event)

    def candle(self) -> None:
        candle = self._next()
        estimate = self.models.detector.update(candle, self.features[candle.symbol].update(candle))
        if estimate is not None:
            self.state.apply(RegimeNamed(ts_event_ns=0, estimate=estimate))
        self.named.append(None if estimate is None else estimate.model_sha256)

    def hours(self, count: int) -> None:
        for _ in range(2 * count):
            self.look()
            self.candle()

    def until(self, outcome: str) -> None:
        """Go on until a poll tells that; no candle comes after it."""
        self.look()
        while outcome not in self.outcomes():
            self.candle()
            self.look()

    def outcomes(self) -> list[str]:
        return [e.outcome if isinstance(e, ModelTrial) else "swap" for e in self.told]

    def trading(self) -> tuple[str, str]:
        """Return what the journal says trades."""
        return self.state.models["1h"].shas


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path / "models")


@pytest.fixture
def desk(clinic, promote) -> Callable[..., Desk]:
    def make(
        candles: int = 24,
        timer: Callable[[], int] | None = None,
        least: float = 0.6,
        after: Desk | None = None,
        ill: Illness | None = None,
        **first: object,
    ) -> Desk:
        """Begin a session with a pair, or the next one `after` a session that was killed."""
        state = TradingState()
        if after is None:
            lstm = promote(**first)[1]
            clinic.ill |= {lstm: ill} if ill is not None else {}
        else:
            state = TradingState.from_snapshot(after.state.to_snapshot())
        models = promoted.PromotedModels(
            clinic, "1h", ManualClock(START * 1_000_000), ("BTCUSDT", "ETHUSDT"),
            market=Market.SPOT, bounds=TrialBounds(candles, least), now_ms=lambda: clinic.now_ms,
        )  # fmt: skip
        if timer is not None:
            models.detector._timer = timer
        models.go_on(state)
        made = Desk(models, state, 0 if after is None else after.at)
        if after is None:
            made.look()
            assert made.told.pop(0).shas == made.trading() == promoted.shas(models.pair)
        return made

    return make


def test_a_good_pair_is_tried_adopted_and_kept(desk, promote) -> None:
    at = desk()
    at.hours(3)
    second = promote(1.1)
    at.hours(23)
    assert at.outcomes() == ["begun"]
    assert second[1] not in at.named
    at.hours(1)
    assert at.outcomes() == ["begun", "adopted", "swap"]
    _, adopted, swapped = at.told
    assert (swapped.hmm_sha256, swapped.lstm_sha256) == second
    assert adopted.candles == 24
    assert 0.6 <= adopted.agreement <= 1.0
    assert adopted.latency_ms > 0.0
    assert at.models.detector.beside is not None
    assert at.named[-1] == second[1]
    at.hours(24)
    assert at.outcomes()[3:] == ["kept"]
    assert at.models.detector.beside is None
    at.hours(5)
    assert len(at.told) == 4


@pytest.mark.parametrize(("before", "after"), [(50, 20), (20, 80), (80, 180), (180, 10)])
def test_a_pair_of_another_window_is_tried_adopted_and_gone_back_from(
    desk, promote, clinic, before, after
) -> None:
    """No candle goes unnamed: more rows are kept than the pair that trades has use for."""
    ill = Illness("not finite", 70)
    at = desk(window=before)
    at.hours(1)
    first, second = at.models.pair, promote(1.1, window=after)
    clinic.ill[second[1]] = ill
    at.hours(26)
    assert at.outcomes() == ["begun", "adopted", "swap"]
    assert at.told[1].agreement >= 0.6
    assert [p.lstm.manifest.window for p in (first, at.models.pair)] == [before, after]
    at.hours(12)
    assert at.outcomes()[3:] == ["rolled back", "swap"]
    assert at.models.pair.lstm_sha256 == first.lstm_sha256
    assert at.named.count(None) == 1, "the answer for which it was left"
    assert set(at.named) == {first.lstm_sha256, second[1], None}


def test_without_a_trial_a_pair_is_taken_up_at_once(desk, promote) -> None:
    at = desk(0)
    at.hours(1)
    second = promote(1.1)
    at.hours(1)
    assert at.outcomes() == ["adopted", "swap"]
    assert set(at.named[-2:]) == {second[1]}
    at.hours(30)
    assert len(at.told) == 2


@pytest.mark.parametrize(
    ("kind", "why", "candles"),
    [
        ("not finite", "1 of its answers are no distribution (BTCUSDT at", 5),
        ("raises", "(RuntimeError: the library gave up)", 5),
        ("slow", "its answers take 500 ms in the median; expected at most 100", 8),
        ("different", "of the regimes as the other pair did; expected at least 60%", 24),
    ],
)
def test_a_bad_pair_is_refused_while_it_only_looks_on(
    desk, promote, clinic, kind, why, candles
) -> None:
    ill = Illness(kind, after=10 if kind != "different" else 0)
    at = desk(timer=ill.timer)
    at.hours(1)
    first, second = at.models.pair.lstm_sha256, promote(1.1)
    clinic.ill[second[1]] = ill
    at.hours(40)
    assert at.outcomes() == ["begun", "refused"]
    assert why in at.told[1].reason
    assert at.told[1].candles == pytest.approx(candles, abs=1)
    assert set(at.named) == {first}
    assert at.models.detector.beside is None
    evidence = evidence_path(clinic.root, "1h")
    evidence.parent.mkdir(parents=True)
    evidence.write_text("")
    at.hours(30)
    assert len(at.told) == 2, "a refused promotion is taken up once"
    promote(1.1)
    at.hours(1)
    assert at.outcomes()[2] == "begun"


def test_a_trial_counts_closing_times_on_which_both_answered_alone(desk, promote) -> None:
    """The pair that trades names nothing for a while: there is nothing to compare with."""
    ill = Illness("not finite", 10)
    at = desk(ill=ill)
    at.hours(1)
    promote(1.1)
    at.hours(40)
    assert at.outcomes() == ["begun"]
    assert at.models.detector.candles <= 5
    ill.after = 10**9
    at.until("adopted")
    adopted = at.told[1]
    assert adopted.candles == 24
    assert adopted.agreement >= 0.6
    assert at.named.count(None) == 72


@pytest.mark.parametrize(
    ("kind", "why", "lost"),
    [
        ("not finite", "are no distribution (", 1),
        ("raises", "(RuntimeError: the library gave up)", 1),
        ("slow", "its answers take 500 ms in the median", 0),
        ("different", "of the regimes as the other pair did", 0),
    ],
)
@pytest.mark.parametrize("after", [60, 200])
def test_an_adopted_pair_that_turns_bad_is_rolled_back_by_itself(
    desk, promote, clinic, kind, why, lost, after
) -> None:
    ill = Illness(kind, after)
    at = desk(timer=ill.timer)
    at.hours(1)
    first, second = at.models.pair, promote(1.1)
    clinic.ill[second[1]] = ill
    at.hours(75 if after == 60 else 130)
    if kind == "different" and after == 200:
        assert at.outcomes() == ["begun", "adopted", "swap", "kept"], "nobody looks on any more"
        return
    kept = ["kept"] * (after == 200)
    assert at.outcomes() == ["begun", "adopted", "swap", *kept, "rolled back", "swap"]
    assert why in at.told[-2].reason
    assert at.told[-2].lstm_sha256 == second[1]
    assert at.told[-1].lstm_sha256 == first.lstm_sha256
    assert at.named.count(None) == lost
    assert set(at.named[-20:]) == {first.lstm_sha256}
    assert at.models.pair.lstm_sha256 == first.lstm_sha256


def test_a_pair_with_no_way_back_raises_what_it_raises(desk, promote, clinic) -> None:
    ill = Illness("raises", 0)
    at = desk()
    clinic.ill[at.models.pair.lstm_sha256] = ill
    at.models.detector.swap(clinic.open("1h", *clinic.current("1h").shas))
    with pytest.raises(RuntimeError, match="gave up"):
        at.hours(1)


def test_a_promotion_taken_back_ends_its_trial(desk, promote, clinic) -> None:
    at = desk()
    first = clinic.current("1h").shas
    at.hours(1)
    promote(1.1)
    at.hours(2)
    clinic.activate("1h", *first)
    at.hours(1)
    assert at.outcomes() == ["begun", "refused"]
    assert at.told[-1].reason == "it is not promoted any more"
    assert at.models.detector.beside is None


def test_a_newer_promotion_begins_a_trial_of_its_own(desk, promote) -> None:
    at = desk()
    at.hours(1)
    second = promote(1.1)
    at.hours(5)
    third = promote(0.95)
    at.hours(26)
    assert at.outcomes() == ["begun", "refused", "begun", "adopted", "swap"]
    tried = [second[1], second[1], third[1], third[1], third[1]]
    assert [e.lstm_sha256 for e in at.told] == tried
    assert (at.told[1].reason, at.told[1].candles) == ("a newer pair was promoted", 5)


def test_a_pair_that_turns_bad_is_left_while_the_next_is_tried(desk, promote, clinic) -> None:
    at = desk()
    at.hours(1)
    ill = Illness("not finite", 70)
    first, second = at.models.pair, promote(1.1)
    clinic.ill[second[1]] = ill
    at.hours(26)
    third = promote(0.95)
    at.hours(45)
    names = {first.lstm_sha256: 1, second[1]: 2, third[1]: 3}
    assert [(o, names[e.lstm_sha256]) for o, e in zip(at.outcomes(), at.told, strict=True)] == [
        ("begun", 2), ("adopted", 2), ("swap", 2), ("begun", 3),
        ("rolled back", 2), ("swap", 1), ("begun", 3), ("adopted", 3), ("swap", 3),
    ]  # fmt: skip


def test_word_of_a_promotion_is_a_reason_to_look_at_once(
    clinic, promote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promoted, "POLL_SECONDS", 1e9)
    promote()
    heard = threading.Event()
    models = promoted.PromotedModels(clinic, "1h", ManualClock(START * 1_000_000), notice=heard)
    at = Desk(models, TradingState())
    promote(1.1)
    at.hours(2)
    assert at.outcomes() == []
    heard.set()
    at.hours(1)
    assert at.outcomes() == ["begun"]
    assert not heard.is_set()


def test_an_unreadable_pointer_is_told_and_trading_goes_on(desk, clinic) -> None:
    at = desk()
    at.hours(1)
    (clinic.root / "current.json").write_text("{")
    at.hours(2)
    assert at.outcomes() == ["refused"]
    assert at.told[0].hmm_sha256 == ""
    assert "unreadable" in at.told[0].reason
    (clinic.root / "current.json").unlink()
    at.hours(1)
    assert "no models are promoted" in at.told[1].reason


def test_evidence_that_cannot_be_read_refuses_the_pair_it_is_of(desk, promote, clinic) -> None:
    at = desk(4)
    at.hours(1)
    first, _ = at.models.pair.lstm_sha256, promote(1.1)
    at.hours(2)
    evidence = evidence_path(clinic.root, "1h")
    evidence.parent.mkdir(parents=True)
    evidence.write_text("torn")
    at.hours(5)
    assert at.outcomes() == ["begun", "refused"]
    assert set(at.named) == {first}
    assert at.models.detector.beside is None


def test_evidence_that_cannot_be_read_is_no_fault_of_the_pair_that_trades(
    desk, promote, clinic
) -> None:
    at = desk()
    first = at.trading()
    record = synthetic_evidence("rule", now_ms=START, interval="1h")
    hmm, lstm = first
    path = evidence_path(clinic.root, "1h")
    path.parent.mkdir(parents=True)
    write_evidence(path, [msgspec.structs.replace(record, hmm_sha256=hmm, lstm_sha256=lstm)])
    at.hours(1)
    assert list(at.evidence) == list(at.models.evidence()) == ["rule"]
    good = path.read_bytes()
    path.write_text("torn")
    at.hours(1)
    assert at.told == []
    assert list(at.evidence) == list(at.models.evidence()) == ["rule"]
    path.write_bytes(good)
    again = desk(after=at)
    again.hours(1)
    assert again.trading() == first
    assert None not in again.named


def test_a_pair_of_another_market_is_refused(promote, clinic, desk) -> None:
    at = desk()
    at.hours(1)
    promote(market=Market.USDM)
    at.hours(1)
    assert "trained on the usdm market; expected spot" in at.told[0].reason
    with pytest.raises(ModelError, match="usdm market"):
        promoted.PromotedModels(clinic, "1h", ManualClock(0), (), market=Market.SPOT)


def test_a_pair_that_may_not_trade_a_symbol_is_refused_while_running(desk, promote) -> None:
    at = desk()
    first = at.trading()
    promote(1.1, symbols=("BTCUSDT",))
    at.hours(1)
    assert at.outcomes() == ["refused"]
    assert "were not trained on ETHUSDT" in at.told[0].reason
    assert set(at.named) == {first[1]}


def test_a_pair_of_simulated_candles_is_refused_where_something_is_at_stake(
    promote, clinic
) -> None:
    def begun() -> promoted.PromotedModels:
        clock = ManualClock(START * 1_000_000)
        return promoted.PromotedModels(clinic, "1h", clock, simulated=False)

    promote()
    with pytest.raises(ModelError, match="trained on simulated candles; expected real ones"):
        begun()
    real = promote(1.1, origin=Origin.REAL)
    at = Desk(begun(), TradingState())
    promote()
    at.hours(1)
    assert at.outcomes() == ["refused"]
    assert "trained on simulated candles" in at.told[0].reason
    assert set(at.named) == {real[1]}


def test_a_fork_answers_as_if_it_had_seen_every_candle(promote, clinic) -> None:
    """The HMM's filter forgets: after 500 candles nobody can tell when it began."""
    promote()
    one = promoted.PromotedModels(clinic, "1h", ManualClock(START * 1_000_000))
    at = Desk(one, TradingState())
    pair = clinic.open("1h", *promote(1.1))
    other = WatchedDetector(pair)
    features = {s: FeatureState(s, "1h") for s in at.features}
    for candle in at.candles[: at.at]:
        other.warm(candle, features[candle.symbol].update(candle))
    fork = one.detector.fork(pair)
    for candle in at.candles[at.at : at.at + 200]:
        row = features[candle.symbol].update(candle)
        expected, found = other.update(candle, row), fork.update(candle, row)
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert found.hmm_confidence == pytest.approx(expected.hmm_confidence, abs=1e-6)


def test_an_unreadable_pointer_does_not_end_a_trial(desk, promote, clinic) -> None:
    at = desk()
    at.hours(1)
    second = promote(1.1)
    at.hours(2)
    pointer = clinic.root / "current.json"
    good = pointer.read_bytes()
    pointer.write_text("{")
    at.hours(2)
    pointer.write_bytes(good)
    at.hours(22)
    assert at.outcomes() == ["begun", "refused", "adopted", "swap"]
    assert at.told[1].hmm_sha256 == ""
    assert at.trading() == second


def test_a_pair_that_expires_while_it_is_tried_is_refused(desk, promote, clinic) -> None:
    at = desk()
    first = at.trading()
    at.hours(1)
    promote(1.1, expires_ms=EXPIRY)
    at.hours(5)
    clinic.now_ms = EXPIRY
    at.hours(30)
    assert at.outcomes() == ["begun", "refused"]
    assert at.told[1].reason == "it expired at 3084-12-12T12:41Z"
    assert at.trading() == first


def test_a_pair_that_expires_while_it_trades_is_left(desk, promote, clinic) -> None:
    at = desk(expires_ms=EXPIRY)
    first = at.trading()
    at.hours(2)
    assert at.told == []
    clinic.now_ms = EXPIRY
    before = len(at.named)
    at.hours(3)
    assert [(e.outcome, e.shas, e.reason) for e in at.told[:1]] == [
        ("left", first, "it expired at 3084-12-12T12:41Z")
    ]
    assert at.outcomes() == ["left", "swap"], "it is told once"
    assert at.trading() == ("", "")
    assert at.evidence == at.models.evidence() == {}
    assert set(at.named[before:]) == {None}
    assert "nothing is entered until one is promoted: it expired" in at.models.warnings[0]
    second = promote(1.1)
    at.hours(1)
    assert at.outcomes()[2:] == ["adopted", "swap"]
    assert at.trading() == second


def test_a_pair_that_expires_after_it_was_adopted_gives_way_to_the_former(
    desk, promote, clinic
) -> None:
    at = desk()
    first = at.trading()
    at.hours(1)
    promote(1.1, expires_ms=EXPIRY)
    at.until("kept")
    at.told.clear()
    clinic.now_ms = EXPIRY
    at.hours(3)
    assert at.outcomes() == ["rolled back", "swap"]
    assert at.told[0].reason == "it expired at 3084-12-12T12:41Z"
    assert at.trading() == first
    assert set(at.named[-6:]) == {first[1]}


@pytest.mark.parametrize("both", [False, True])
def test_what_is_tried_when_the_trading_pair_expires_takes_its_place_unless_it_expired_too(
    desk, promote, clinic, both
) -> None:
    at = desk(expires_ms=EXPIRY)
    at.hours(1)
    second = promote(1.1, **{"expires_ms": EXPIRY} if both else {})
    at.until("begun")
    at.told.clear()
    clinic.now_ms = EXPIRY
    at.hours(2)
    assert at.outcomes() == ["left", "swap", *(["refused"] if both else ["adopted", "swap"])]
    assert at.trading() == (("", "") if both else second)


def test_a_promotion_while_the_session_comes_up_is_tried(desk, promote, clinic) -> None:
    clinic.while_opening = lambda: promote(1.1)
    at = desk()
    at.hours(1)
    assert at.outcomes() == ["begun"]


@pytest.mark.parametrize("after", [0, 1], ids=["at once", "amid the symbols"])
def test_a_swap_that_fails_leaves_the_old_pair_whole(desk, promote, clinic, after) -> None:
    """The oracle is a session that was never promoted anything."""
    at = desk(0)
    at.hours(1)
    first = at.models.pair
    plain = WatchedDetector(first)
    features = {s: FeatureState(s, "1h") for s in at.features}
    for candle in at.candles[: at.at]:
        plain.warm(candle, features[candle.symbol].update(candle))
    clinic.ill[promote(1.1)[1]] = Illness("hmm raises", after)
    at.look()
    assert at.outcomes() == ["refused"]
    assert at.told[0].reason == "RuntimeError: the library gave up"
    assert at.models.pair is at.models.detector.pair is first
    for candle in at.candles[at.at : at.at + 10]:
        row = features[candle.symbol].update(candle)
        expected = plain.update(candle, row)
        at.candle()
        named = at.state.regimes[candle.symbol]
        assert named.probabilities == expected.probabilities
        assert named.hmm_confidence == expected.hmm_confidence
    at.hours(30)
    assert len(at.told) == 1


# ------------------------------------------------------------------------ restarts
def fallen_ill(
    desk, promote, clinic, kind: str = "not finite", after: int = 60, **first_pair: object
) -> tuple[Desk, tuple[str, str], tuple[str, str]]:
    """Return a session whose second pair is sick after so many answers, and both pairs."""
    at = desk(**first_pair)
    first = at.trading()
    at.hours(1)
    second = promote(1.1)
    clinic.ill[second[1]] = Illness(kind, after)
    return at, first, second


def test_a_pair_that_was_rolled_back_stays_so_after_a_restart(desk, promote, clinic) -> None:
    at, first, second = fallen_ill(desk, promote, clinic)
    at.until("rolled back")
    assert {e.model_sha256 for e in at.state.regimes.values()} == {second[1]}
    again = desk(after=at)
    assert again.trading() == first
    again.hours(40)
    assert again.told == []
    assert set(again.named) == {first[1]}
    clinic.ill.clear()
    promote(1.1)
    again.hours(1)
    assert again.outcomes() == ["begun"], "promoted again it is tried again"


def test_a_pair_that_was_refused_is_not_tried_again_by_a_restart(desk, promote, clinic) -> None:
    at, first, _ = fallen_ill(desk, promote, clinic, after=10)
    at.until("refused")
    again = desk(after=at)
    again.hours(40)
    assert again.told == []
    assert again.trading() == first
    assert set(again.named) == {first[1]}
    third = promote(0.95)
    again.hours(1)
    assert [(e.outcome, e.shas) for e in again.told] == [("begun", third)]


def test_a_trial_goes_on_after_a_restart_from_its_beginning(desk, promote) -> None:
    at = desk()
    at.hours(1)
    second = promote(1.1)
    at.hours(20)
    again = desk(after=at)
    again.hours(23)
    assert again.outcomes() == ["begun"]
    again.hours(1)
    assert again.outcomes() == ["begun", "adopted", "swap"]
    assert again.trading() == second


@pytest.mark.parametrize(
    ("kind", "after", "ended"), [("different", 60, "adopted"), ("not finite", 200, "kept")]
)
def test_the_way_back_survives_a_restart(desk, promote, clinic, kind, after, ended) -> None:
    """Before `kept` the former pair is beside again, and differences count."""
    at, first, second = fallen_ill(desk, promote, clinic, kind, after)
    at.until(ended)
    assert at.trading() == second
    again = desk(after=at)
    assert again.models.warnings == []
    beside = again.models.detector.beside
    assert (beside is not None and promoted.shas(beside)) == (ended == "adopted" and first)
    again.hours(150)
    assert again.outcomes() == ["rolled back", "swap"]
    assert again.trading() == first
    assert set(again.named[-20:]) == {first[1]}


def test_a_way_back_that_is_gone_is_told_to_the_operator(desk, promote, clinic) -> None:
    at, first, second = fallen_ill(desk, promote, clinic, after=200)
    at.until("kept")
    (clinic.root / "archive" / first[1] / "model.onnx").unlink()
    again = desk(after=at)
    (warning,) = again.models.warnings
    assert warning.startswith("There is no way back from the models that trade: model ")
    again.hours(1)
    assert again.trading() == second


@pytest.fixture
def left(desk, promote, clinic) -> Callable[..., Desk]:
    """Return a session whose pair fell ill when the former one could not trade any more."""

    def make(hindrance: str = "expired") -> Desk:
        ill = Illness("hmm raises", 10**9)
        at, _, second = fallen_ill(desk, promote, clinic, ill=ill, expires_ms=EXPIRY)
        at.until("adopted")
        if hindrance == "expired":
            clinic.now_ms = EXPIRY
        else:
            ill.after = 0
        at.until("left")
        assert at.told[-2].shas == second
        return at

    return make


@pytest.mark.parametrize(
    ("hindrance", "why"),
    [
        ("expired", "it expired at 3084-12-12T12:41Z"),
        ("fails", "RuntimeError: the library gave up"),
    ],
)
def test_where_the_former_pair_cannot_trade_no_pair_does(left, hindrance, why) -> None:
    at = left(hindrance)
    assert at.outcomes() == ["begun", "adopted", "swap", "left", "swap"]
    reason = at.told[-2].reason
    assert "of its answers are no distribution" in reason
    assert reason.endswith(f"; no way back to the former pair: {why}")
    assert at.trading() == ("", "")
    assert at.evidence == at.models.evidence() == {}
    before = len(at.named)
    at.hours(30)
    assert set(at.named[before:]) == {None}
    assert at.outcomes() == ["begun", "adopted", "swap", "left", "swap"], "it is told once"


def test_where_no_pair_trades_a_restart_changes_nothing(left, desk) -> None:
    again = desk(after=left())
    assert "No pair of 1h models trades" in again.models.warnings[0]
    assert again.models.evidence() == {}
    again.hours(30)
    assert set(again.named) == {None}
    assert again.told == []


@pytest.mark.parametrize("when", ["while running", "while down"])
def test_where_no_pair_trades_the_next_promotion_does_at_once(left, desk, promote, when) -> None:
    at = left()
    if when == "while down":
        third = promote(0.95)
        at = desk(after=at)
        at.hours(1)
        assert at.outcomes() == ["swap"]
    else:
        at.told.clear()
        third = promote(0.95)
        at.hours(1)
        assert at.outcomes() == ["adopted", "swap"]
    assert at.trading() == third
    assert set(at.named[-2:]) == {third[1]}
    assert at.state.models["1h"].former_shas == ("", ""), "what was left is no way back"


def test_a_refused_promotion_does_not_trade_though_the_good_pair_is_gone(
    desk, promote, clinic
) -> None:
    at, first, _ = fallen_ill(desk, promote, clinic, after=10)
    at.until("refused")
    (clinic.root / "archive" / first[1] / "model.onnx").unlink()
    again = desk(after=at)
    gone, silent = again.models.warnings
    assert gone.startswith("The pair of models that traded last is gone: model ")
    assert "was refused or left before" in silent
    again.hours(3)
    assert set(again.named) == {None}
    assert again.trading() == ("", "")


def test_a_journal_that_does_not_say_what_trades_goes_on_with_what_named_last(
    desk, promote, clinic
) -> None:
    """Journals of earlier versions tell of swaps alone."""
    at = desk()
    first = at.trading()
    at.hours(2)
    del at.state.models["1h"]
    promote(1.1)
    again = desk(after=at)
    again.hours(1)
    assert again.outcomes() == ["swap", "begun"]
    assert again.trading() == first
    assert again.models.warnings == []
    shutil.rmtree(clinic.root / "archive" / first[1])
    again = desk(after=at)
    again.hours(1)
    assert again.outcomes() == ["swap"]
    assert again.trading() == clinic.current("1h").shas != first
    (warning,) = again.models.warnings
    assert warning.startswith("The pair of models that traded last is gone: ")


# ------------------------------------------------------------------ whole sessions
def events_of(folder: Path) -> list[object]:
    with JournalReader.open(folder / "journal.sqlite") as journal:
        return [event for _, event in journal.events()]


def test_a_restart_goes_on_with_the_pair_that_traded_and_tries_the_new_one(
    promote, make_settings, tmp_path: Path
) -> None:
    first = promote()
    settings = make_settings(BOT4_PROMOTION__TRIAL_CANDLES="6")

    def run(hours: int) -> app.Run:
        options = app.RunOptions(source="simulated:7", to_ms=START + hours * HOUR)
        return app.build(settings, options, mode="paper", folder=tmp_path / "run")

    run(10).execute(threading.Event())
    second = promote(1.1)
    restarted = run(30)
    assert restarted.models["lstm_sha256"] == first[1]
    restarted.execute(threading.Event())
    events = events_of(tmp_path / "run")
    told = [e for e in events if isinstance(e, ModelTrial | ModelPromoted)]
    outcomes = [getattr(e, "outcome", "swap") for e in told]
    assert outcomes == ["swap", "begun", "adopted", "swap", "kept"]
    assert [told[0].shas, told[3].shas, told[3].former_shas] == [first, second, first]
    named = [e.estimate.model_sha256 for e in events if isinstance(e, RegimeNamed)]
    assert named == [first[1]] * 31 + [second[1]] * 29


def test_what_traded_last_and_does_not_hold_any_more_gives_way(
    promote, make_settings, tmp_path: Path
) -> None:
    first = promote(alone=True)
    options = app.RunOptions(source="simulated:7", to_ms=START + 5 * HOUR)
    app.build(make_settings(), options, mode="paper", folder=tmp_path / "run").execute(
        threading.Event()
    )
    second = promote(1.1)
    again = app.build(make_settings(), options, mode="paper", folder=tmp_path / "run")
    assert again.models["hmm_sha256"] == first[0]
    again.store.close()
    (tmp_path / "models" / "archive" / first[0] / "model.onnx").write_bytes(b"torn")
    again = app.build(make_settings(), options, mode="paper", folder=tmp_path / "run")
    assert again.models["lstm_sha256"] == second[1]
    again.store.close()
