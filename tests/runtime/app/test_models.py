"""A run with models: they are verified, they name regimes, and a promotion swaps them."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import structlog

from bot4_runtime import app
from bot4_runtime.app import promoted
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.domain.events import ModelPromoted, RegimeNamed, SignalDecided
from bot4_runtime.domain.order import Book
from bot4_runtime.domain.regime import EstimateSource
from bot4_runtime.regime.evidence import (
    Provenance,
    evidence_path,
    make_records,
    synthetic_history,
    write_evidence,
)
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.report.files import write_report
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.strategy.rules import REGIME_FOLLOWER

HOUR = 3_600_000
START = 1_735_689_600_000


@pytest.fixture(autouse=True)
def _plain_logs():
    yield
    structlog.reset_defaults()


def options(hours: int = 300, source: str = "simulated:7", **changed) -> app.RunOptions:
    return app.RunOptions(**({"source": source, "to_ms": START + hours * HOUR} | changed))


def events_of(folder: Path) -> list[object]:
    with JournalReader.open(folder / "journal.sqlite") as journal:
        return [event for _, event in journal.events()]


def test_models_name_every_candle_and_without_evidence_nothing_is_approved(
    promote, make_settings, tmp_path: Path
) -> None:
    hmm, lstm = promote()
    settings = make_settings()
    run = app.build(settings, options(), mode="paper", folder=tmp_path / "run")
    assert run.source.symbols == ("BTCUSDT", "ETHUSDT")
    assert any("NO_EVIDENCE" in notice for notice in run.notices)
    assert any("SIMULATED" in notice for notice in run.notices)
    result = run.execute(threading.Event())
    events = events_of(tmp_path / "run")
    named = [e.estimate for e in events if isinstance(e, RegimeNamed)]
    assert len(named) == result.candles == 600
    assert {e.source for e in named} == {EstimateSource.LSTM}
    assert {e.model_sha256 for e in named} == {lstm}
    decided = [e for e in events if isinstance(e, SignalDecided)]
    assert decided
    assert {e.code for e in decided} == {"NO_EVIDENCE"}
    assert run.models is not None
    assert run.models["hmm_sha256"] == hmm
    assert run.models["hmm_filter"].keys() == run.models["lstm"].keys() == {"validation", "test"}
    written = write_report(
        tmp_path / "run", models=run.models, paper=settings.paper.model(), result=result,
        started=datetime.now(UTC), account="paper",
    )  # fmt: skip
    assert sum(written.document["regimes"].values()) == 600
    assert written.document["books"]["validated"]["fills"] == 0
    by_regime = written.document["books"][Book.SHADOW.value]["by_regime"]
    assert set(by_regime) <= {"StrongBull"}


@pytest.mark.parametrize(("origin", "known"), [(Origin.REAL, False), (Origin.SIMULATED, True)])
def test_a_rule_is_judged_by_evidence_of_the_market_it_trades_alone(
    promote, make_settings, tmp_path: Path, origin: Origin, known: bool
) -> None:
    """The pool need not hold the symbol: the models were trained on it."""
    hmm, lstm = promote()
    history = synthetic_history(
        np.random.default_rng(1), rule_id=REGIME_FOLLOWER.rule_id, to_ms=START
    )
    provenance = Provenance(origin, "1h", ("XRPUSDT",), START, hmm, lstm, 1)
    write_evidence(
        evidence_path(tmp_path / "models", "1h"), make_records([history], provenance, draws=99)
    )
    run = app.build(make_settings(), options(), mode="paper", folder=tmp_path / "run")
    run.execute(threading.Event())
    decided = [e for e in events_of(tmp_path / "run") if isinstance(e, SignalDecided)]
    assert decided
    assert {e.code == "NO_EVIDENCE" for e in decided} == {not known}
    assert all("is of a real market" in e.text for e in decided) is not known


def test_a_run_with_models_continues_to_the_same_end(
    promote, make_settings, tmp_path: Path
) -> None:
    promote()
    settings = make_settings()
    whole = app.build(settings, options(120), mode="paper", folder=tmp_path / "whole")
    expected = whole.execute(threading.Event()).state_hash
    for hours in (41, 80, 120):
        part = app.build(settings, options(hours), mode="paper", folder=tmp_path / "parts")
        got = part.execute(threading.Event()).state_hash
    assert got == expected


def test_an_hmm_alone_trades_by_its_filter(promote, make_settings, tmp_path: Path) -> None:
    promote(alone=True)
    run = app.build(make_settings(), options(60), mode="replay", folder=tmp_path / "run")
    run.execute(threading.Event())
    named = [e.estimate for e in events_of(tmp_path / "run") if isinstance(e, RegimeNamed)]
    assert {e.source for e in named} == {EstimateSource.HMM_FILTER}
    assert run.models is not None
    assert run.models["lstm"] is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the pointer of promoted models with every candle."""
    monkeypatch.setattr(promoted, "POLL_SECONDS", 0.0)


def test_a_promotion_is_taken_up_between_two_candles(
    promote, make_settings, tmp_path: Path, impatient
) -> None:
    first = promote()
    second: list[tuple[str, str]] = []

    def progress(done: int, _candle: object) -> None:
        if done == 30:
            second.append(promote(1.1))

    run = app.build(
        make_settings(), options(60), mode="paper", folder=tmp_path / "run", on_progress=progress
    )
    run.execute(threading.Event())
    events = events_of(tmp_path / "run")
    begun, promoted = [e for e in events if isinstance(e, ModelPromoted)]
    assert (begun.shas, begun.former_shas) == (first, ("", ""))
    assert (promoted.hmm_sha256, promoted.lstm_sha256) == second[0]
    place = events.index(promoted)
    before = {e.estimate.model_sha256 for e in events[:place] if isinstance(e, RegimeNamed)}
    after = {e.estimate.model_sha256 for e in events[place:] if isinstance(e, RegimeNamed)}
    assert before == {first[1]}
    assert after == {second[0][1]}


def test_a_pair_that_is_refused_leaves_the_last_good_one(
    promote, make_settings, tmp_path: Path, impatient
) -> None:
    _, good = promote()
    heard: list[dict[str, object]] = []
    structlog.configure(processors=[lambda *a: (heard.append(a[2]), a[2])[1], _drop])

    def progress(done: int, _candle: object) -> None:
        if done == 30:
            hmm, _ = promote(1.2)
            model = tmp_path / "models" / "archive" / hmm / "model.onnx"
            model.chmod(0o644)
            model.write_bytes(b"torn")

    run = app.build(
        make_settings(), options(60), mode="paper", folder=tmp_path / "run", on_progress=progress
    )
    run.execute(threading.Event())
    events = events_of(tmp_path / "run")
    assert [e.lstm_sha256 for e in events if isinstance(e, ModelPromoted)] == [good]
    assert {e.estimate.model_sha256 for e in events if isinstance(e, RegimeNamed)} == {good}
    assert [e for e in heard if "keeping the last good pair" in str(e["event"])]


class Faulty(ModelRegistry):
    """A registry whose files, once promoted, fail in a way nobody foresaw."""

    loads = 0

    def open(self, *words: object, **named: object) -> ModelPair:
        self.loads += 1
        if self.loads == 1:
            return super().open(*words, **named)
        raise RuntimeError("a library gave up on the file")


def test_any_failure_of_a_promoted_file_is_told_once_and_the_last_good_pair_kept(
    promote, make_settings, impatient
) -> None:
    hmm, lstm = promote()
    heard: list[dict[str, object]] = []
    structlog.configure(processors=[lambda *a: (heard.append(a[2]), a[2])[1], _drop])
    registry = Faulty(make_settings().models)
    models = promoted.PromotedModels(registry, "1h", LiveClock())
    promote(1.3)
    (refused,) = models.poll(None)
    assert refused.outcome == "refused"
    for _ in range(3):
        assert not models.poll(None)
    assert registry.loads == 2
    (told,) = heard
    assert told["why"] == "RuntimeError: a library gave up on the file"
    assert (models.pair.hmm_sha256, models.pair.lstm_sha256) == (hmm, lstm)


def _drop(*_: object) -> None:
    raise structlog.DropEvent


def test_the_pointer_is_looked_at_once_a_second_only(promote, make_settings) -> None:
    promote()
    models = promoted.PromotedModels(ModelRegistry(make_settings().models), "1h", LiveClock())
    promote(1.3)
    assert models.poll(None) == []


def test_a_replay_keeps_the_models_it_began_with(
    promote, make_settings, tmp_path: Path, impatient
) -> None:
    _, first = promote()

    def progress(done: int, _candle: object) -> None:
        if done == 10:
            promote(1.1)

    run = app.build(
        make_settings(), options(20), mode="replay", folder=tmp_path / "run", on_progress=progress
    )
    run.execute(threading.Event())
    named = [e.estimate for e in events_of(tmp_path / "run") if isinstance(e, RegimeNamed)]
    assert {e.model_sha256 for e in named} == {first}


def test_a_symbol_the_models_never_saw_is_refused_before_a_journal_is_made(
    promote, make_settings, tmp_path: Path
) -> None:
    promote()
    settings = make_settings(BOT4_RUNTIME__SYMBOLS='["BTCUSDT", "LTCUSDT"]')
    with pytest.raises(ModelError, match="not trained on LTCUSDT"):
        app.build(settings, options(), mode="paper", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def stored(home: Path, first: int, count: int, symbols=("BTCUSDT",)) -> None:
    for symbol in symbols:
        begin = START + first * HOUR
        series = SimulatedMarket(7).series(symbol, "1h", begin, begin + count * HOUR)
        CandleStore(home / "candles").write(series)


def test_stored_candles_are_decided_on_from_where_training_and_validation_end(
    promote, make_settings, tmp_path: Path
) -> None:
    promote()
    stored(tmp_path / "home", -800, 900)
    run = app.build(
        make_settings(), app.RunOptions(source="store"), mode="replay", folder=tmp_path / "run"
    )
    assert run.source.start_ms == START
    assert run.total == 100
    run.store.close()
    early = app.RunOptions(source="store", from_ms=START - 5 * HOUR)
    run = app.build(make_settings(), early, mode="replay", folder=tmp_path / "early")
    assert any("in sample" in notice for notice in run.notices)
    assert run.total == 105
    run.store.close()


def test_candles_that_end_before_the_test_period_are_refused(
    promote, make_settings, tmp_path: Path
) -> None:
    promote()
    stored(tmp_path / "home", -800, 500)
    with pytest.raises(DataError, match=r"before the first candle to decide on.*--from"):
        app.build(
            make_settings(), app.RunOptions(source="store"), mode="replay", folder=tmp_path / "run"
        )


def test_models_of_another_market_are_said_to_be(promote, make_settings, tmp_path: Path) -> None:
    promote(origin=Origin.REAL)
    run = app.build(make_settings(), options(), mode="replay", folder=tmp_path / "run")
    assert any("trained on real candles, the source is simulated" in n for n in run.notices)
    run.store.close()
    stored(tmp_path / "home", -800, 900)
    run = app.build(
        make_settings(), app.RunOptions(source="store"), mode="replay", folder=tmp_path / "x"
    )
    assert run.source.origin is Origin.SIMULATED
    assert any("trained on real candles, the source is simulated" in n for n in run.notices)
    assert run.total == 200
    run.store.close()


def test_the_doctor_verifies_the_promoted_pair(
    promote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bot4_runtime.doctor import examine

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_MODELS", str(tmp_path / "models"))
    hmm, lstm = promote()
    found = {finding.check: finding for finding in examine(None, network=False)}
    assert found["models"].ok
    told = f"1h: hmm {hmm[:12]}, lstm {lstm[:12]} verified; 0 evidence records"
    assert found["models"].found == told
    model = tmp_path / "models" / "archive" / lstm / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1])
    (refused,) = [f for f in examine(None, network=False) if f.check == "models"]
    assert not refused.ok
    assert lstm[:12] in refused.found
