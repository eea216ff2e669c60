"""What makes the models train again, and what does not: each tick says which and why."""

import time
from decimal import Decimal

import dagster as dg
import numpy as np
import pytest
from dagster._core.test_utils import create_run_for_test

from bot4_pipelines.defs import sensors
from bot4_pipelines.ingest.quality import judge_series, training_mask
from bot4_pipelines.live import live_regimes
from bot4_pipelines.records import Folders, Record, Records
from bot4_pipelines.sources import series_id
from bot4_pipelines.training.cuts import split_slices
from bot4_pipelines.training.drift import make_reference, read_reference, write_reference
from bot4_pipelines.training.hmm_export import hmm_golden, hmm_graph, seal
from bot4_pipelines.training.labels import hindsight_labels
from bot4_pipelines.triggers import Triggers, Verdict, reference_path, trained_on
from bot4_pipelines.workflow import Workflow
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.candle import Market, Origin, SeriesId
from bot4_runtime.domain.errors import DataError, JournalError
from bot4_runtime.domain.events import RegimeNamed, SessionStarted
from bot4_runtime.domain.order import Book
from bot4_runtime.domain.regime import EstimateSource, Regime, RegimeEstimate
from bot4_runtime.features.batch import compute
from bot4_runtime.features.schema import feature_schema_id
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.manifest import Cuts, GateVerdict, HmmDefinition, Manifest, ModelKind
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore

HOUR = 3_600_000
DAY = 24 * HOUR
START = 450_000 * HOUR
ROWS = 9_000
PARAMS = HmmParameters(
    np.array([-1.35, -0.57, 0.0, 0.57, 1.35]),
    np.array([0.142, 0.043, 0.0355, 0.043, 0.142]),
    0.93 * np.eye(5) + 0.014 * np.ones((5, 5)),
)


def record(step, numbers, content="c", stamp="s", finished_ms=1):
    return Record(
        step=step, stamp=stamp, content=content, finished_ms=finished_ms, seconds=0.5,
        numbers=numbers,
    )  # fmt: skip


def walk(symbol: str, seed: int, rows: int = ROWS, drift: float = 0.0) -> CandleSeries:
    """Fat-tailed prices; with a drift, the last 31 days go one way."""
    rng = np.random.default_rng(seed)
    sigma = 0.01 * np.exp(0.3 * np.sin(np.arange(rows) / 200.0))
    step = rng.standard_t(5, rows) * sigma
    step[-31 * 24 :] += drift * sigma[-31 * 24 :]
    close = 100.0 * np.exp(np.cumsum(step))
    opened = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, 0.3, rows)) * sigma)
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, 0.3, rows)) * sigma)
    times = START + np.arange(rows, dtype=np.int64) * HOUR
    identity = SeriesId(Origin.SIMULATED, Market.SPOT, symbol, "1h")
    return CandleSeries(identity, times, opened, high, low, close, rng.lognormal(5, 1, rows))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_MODELS", str(tmp_path / "models"))
    return Folders.from_environment()


@pytest.fixture
def records(folders):
    return Records(folders.work)


def store_candles(folders, *series):
    store = CandleStore(folders.candles)
    for one in series:
        store.write(one)
    last = max(int(one.open_time_ms[-1]) for one in series) + HOUR
    numbers = {
        "candles": sum(len(one) for one in series),
        "series": [one.id.key for one in series],
        "to_ms": last,
        "interval": "1h",
    }
    return Records(folders.work).write(record("candles", numbers, content=f"c{last}"))


def train(folders, candles, at_ms=0):
    """Leave what a training leaves; nothing is learnt here."""
    store = CandleStore(folders.candles)
    series = [store.read(series_id(key)) for key in candles.numbers["series"]]
    numbers = {"trained_on": trained_on(series, candles.content, at_ms)}
    return Records(folders.work).write(record("lstm_candidate", numbers, stamp="trained"))


def archived(folders, cuts, params=PARAMS, symbols=("BTCUSDT", "ETHUSDT")):
    """Archive an HMM whose gates passed."""
    graph = hmm_graph(params)
    manifest = Manifest(
        kind=ModelKind.HMM, schema_id=feature_schema_id(), feature_names=("z",), interval="1h",
        origin=Origin.SIMULATED, market=Market.SPOT, symbols=symbols, cuts=cuts,
        data_sha256="0" * 64, metrics={}, golden=hmm_golden(graph, params), created_ms=0,
        expires_ms=2**60, code_version="test", definition=HmmDefinition.of(params, 72),
        gates=(GateVerdict(name="test", passed=True, value=1.0, threshold=0.0),),
    )  # fmt: skip
    return ModelRegistry(folders.models).add(seal(graph, manifest), manifest, "")


@pytest.fixture
def promoted(folders):
    """An HMM that trades, the training range it was fitted on, and two months of good candles."""
    series = [walk("BTCUSDT", 1), walk("ETHUSDT", 2)]
    end = START + (ROWS - 1_500) * HOUR
    cuts = Cuts(
        train_start_ms=START,
        validation_start_ms=end,
        test_start_ms=end + HOUR,
        end_ms=end + 2 * HOUR,
    )
    sha256 = archived(folders, cuts)
    ModelRegistry(folders.models).activate("1h", sha256)
    tables = {one.id.symbol: compute(one) for one in series}
    rows = {symbol: split_slices(t.open_time_ms, cuts)["train"] for symbol, t in tables.items()}
    reference = make_reference(tables, rows, PARAMS, 720)
    write_reference(reference_path(folders, sha256), reference)
    had = [one.rows(slice(0, ROWS - 1_500)) for one in series]
    train(folders, store_candles(folders, *had))
    return sha256, series


def asked(folders, question) -> Verdict:
    return question(Triggers(folders))


# ------------------------------------------------------------------- new candles
def test_new_candles_are_counted_against_the_last_training(folders, records):
    assert "no candles yet" in asked(folders, Triggers.new_candles).why
    candles = store_candles(folders, walk("BTCUSDT", 1, rows=1_000))
    first = asked(folders, Triggers.new_candles)
    assert first == Verdict(True, "1000 candles, and nothing was trained yet")
    # Features made anew are no training.
    records.write(record("features", {"rows": 1_000}))
    assert asked(folders, Triggers.new_candles).wanted
    train(folders, candles)
    assert asked(folders, Triggers.new_candles) == Verdict(
        False, "0 new candles since the last training on 1000; 10 are needed"
    )
    records.write(record("candles", {"candles": 1_010}))
    assert asked(folders, Triggers.new_candles) == Verdict(
        True, "10 new candles since the last training on 1000, at least the 10 that are needed"
    )


def test_a_training_that_did_not_write_down_its_candles_counts_as_none(folders, records):
    records.write(record("candles", {"candles": 10}))
    records.write(record("lstm_candidate", {"sha256": "a"}))
    assert asked(folders, Triggers.new_candles).wanted
    assert not asked(folders, Triggers.restated_history).wanted


# ------------------------------------------------------------- drift and likelihood
def test_before_a_promotion_there_is_nothing_to_compare_with(folders):
    for question in (Triggers.feature_drift, Triggers.likelihood, Triggers.live_accuracy):
        verdict = asked(folders, question)
        assert not verdict.wanted
        assert "nothing was promoted yet" in verdict.why


def test_good_candles_train_nothing_and_say_what_is_furthest(folders, promoted):
    _, series = promoted
    store_candles(folders, *series)
    drift = asked(folders, Triggers.feature_drift)
    assert not drift.wanted
    assert "the last 30 days are like training; furthest " in drift.why
    assert "PSI" in drift.why
    likelihood = asked(folders, Triggers.likelihood)
    assert not likelihood.wanted
    assert "; the limit is -" in likelihood.why


def test_one_drifted_series_trains_again_and_is_named(folders, promoted):
    _, series = promoted
    store_candles(folders, series[0], walk("ETHUSDT", 2, drift=1.5))
    drift = asked(folders, Triggers.feature_drift)
    assert drift.wanted
    assert "unlike training: ETHUSDT trend_" in drift.why
    assert "BTCUSDT" not in drift.why
    likelihood = asked(folders, Triggers.likelihood)
    assert likelihood.wanted
    assert "of ETHUSDT over 30 days" in likelihood.why


def test_what_the_last_training_had_already_is_not_trained_again(folders, promoted):
    _, series = promoted
    train(folders, store_candles(folders, series[0], walk("ETHUSDT", 2, drift=1.5)))
    drift = asked(folders, Triggers.feature_drift)
    assert not drift.wanted
    assert "unlike training" in drift.why
    assert "all but 0.0 days of these candles" in drift.why


def test_a_month_with_holes_gives_no_verdict(folders, promoted):
    _, series = promoted
    torn = []
    for one in series:
        keep = np.ones(len(one), dtype=bool)
        keep[-400] = keep[-100] = False
        columns = (getattr(one, n)[keep] for n in ("open", "high", "low", "close", "volume"))
        torn.append(CandleSeries(one.id, one.open_time_ms[keep], *columns))
    store_candles(folders, *torn)
    verdict = asked(folders, Triggers.feature_drift)
    assert not verdict.wanted
    assert verdict.why.endswith("say anything of BTCUSDT, ETHUSDT")


def test_a_lost_reference_is_said(folders, promoted):
    reference_path(folders, promoted[0]).unlink()
    assert (
        "materialise the asset 'training_reference'" in asked(folders, Triggers.feature_drift).why
    )


def test_the_pair_that_trades_now_is_watched_whoever_promoted_it(folders, promoted):
    """Another HMM, activated by hand, is measured against itself or not at all; then back."""
    first, series = promoted
    registry = ModelRegistry(folders.models)
    store_candles(folders, *series)
    by_first = asked(folders, Triggers.likelihood).why
    wider = HmmParameters(2.0 * PARAMS.means, 4.0 * PARAMS.variances, PARAMS.transitions)
    cuts = registry.manifest(first).cuts
    second = archived(folders, cuts, wider)
    registry.activate("1h", second)
    for question in (Triggers.feature_drift, Triggers.likelihood):
        verdict = asked(folders, question)
        assert not verdict.wanted
        assert f"{second}.npz is missing; materialise the asset 'train" in verdict.why
    named_live(folders, series[0], second, 0.2, 40)
    assert "named live agree with hindsight" in asked(folders, Triggers.live_accuracy).why
    Workflow(folders, lambda *_: None).features()
    Workflow(folders, lambda *_: None).training_reference()
    by_second = asked(folders, Triggers.likelihood).why
    registry.activate("1h", first, action="rollback")
    assert asked(folders, Triggers.likelihood).why == by_first != by_second


def test_the_reference_is_of_the_rows_that_were_trained_on_alone(folders):
    """Neither of held-out symbols nor of rows that were masked or dead: against brute force."""
    series = [walk("BTCUSDT", 1), walk("ETHUSDT", 2), walk("XRPUSDT", 3, drift=3.0)]
    columns = {n: getattr(series[0], n).copy() for n in COLUMNS}
    for name in ("open", "high", "low"):
        columns[name][3_000:3_004] = columns["close"][3_000:3_004]
    columns["volume"][3_000:3_004] = 0.0
    columns["high"][5_000] *= 10.0
    series[0] = CandleSeries(series[0].id, series[0].open_time_ms, *columns.values())
    end = START + 8_000 * HOUR
    cuts = Cuts(train_start_ms=START, validation_start_ms=end, test_start_ms=end + HOUR,
                end_ms=end + 2 * HOUR)  # fmt: skip
    store_candles(folders, *series)
    sha256 = archived(folders, cuts)
    ModelRegistry(folders.models).activate("1h", sha256)
    flow = Workflow(folders, lambda *_: None)
    flow.features()
    flow.training_reference()
    found = read_reference(reference_path(folders, sha256))
    masked = ~training_mask(judge_series(series[0]), ROWS, memory=72)
    assert masked[5_000:5_073].all()
    assert masked[3_000:3_004].all()
    values = []
    for one in series[:2]:
        table = compute(one)
        left_out = ~training_mask(judge_series(one), ROWS, memory=72)
        dead = (one.volume == 0.0) & (one.high == one.low)
        rows = [r for r in range(8_000) if table.valid[r] and not (left_out[r] or dead[r])]
        values.append(table.values[rows])
    pooled = np.concatenate(values)
    np.testing.assert_array_equal(
        found.quantiles, np.quantile(pooled, np.linspace(0.0, 1.0, 2_001), axis=0).T
    )
    numbers = Records(folders.work).find("candles").numbers
    Records(folders.work).write(
        record("candles", numbers | {"series": [series[0].id.key]}, content="fewer")
    )
    with pytest.raises(DataError, match="trained on ETHUSDT too"):
        flow._learnt(("BTCUSDT", "ETHUSDT"))


# ------------------------------------------------------------------- live accuracy
def named_live(folders, series, sha256, wrong: float, days: int, account="paper"):
    """Journal regimes as a runtime does, some of them wrong."""
    table = compute(series)
    labels = hindsight_labels(table.z, PARAMS, [slice(0, len(table))])
    rng = np.random.default_rng(5)
    events = []
    for row in range(len(series) - days * 24 - 30, len(series) - 30):
        label = int(labels[row])
        regime = (label + 1) % 5 if rng.random() < wrong else label
        estimate = RegimeEstimate(
            symbol=series.id.symbol, interval="1h", open_time_ms=int(series.open_time_ms[row]),
            regime=Regime(regime), probabilities=(0.2, 0.2, 0.2, 0.2, 0.2), confidence=0.2,
            source=EstimateSource.HMM_FILTER, hmm_regime=Regime(regime), hmm_confidence=0.2,
            volatility=0.01, model_sha256=sha256, schema_id="x",
        )  # fmt: skip
        events.append(RegimeNamed(ts_event_ns=row, estimate=estimate))
    folder = folders.home / "state" / account
    folder.mkdir(parents=True, exist_ok=True)
    start = SessionStarted(
        ts_event_ns=0, epoch=1, mode="paper", source="simulated", origin=Origin.SIMULATED,
        strategy="none", config_hash="x", schema_version=1, warm_from_ms=0, start_ms=0,
        quote="USDT", initial_cash=Decimal(1_000), books=(Book.SHADOW,),
    )  # fmt: skip
    store = StateStore(
        Journal(SqliteDisk.open(folder / "journal.sqlite", account)), folder / "snap"
    )
    store.recover()
    store.append([start, *events])
    store.wait_durable(store.state.seq)
    store.close()


@pytest.mark.parametrize(("wrong", "days", "wanted", "says"), [
    (0.04, 40, False, "at least 90% are asked"),
    (0.20, 40, True, "below 90%"),
    (0.20, 20, False, "on 21 days; 28 days are needed"),
])  # fmt: skip
def test_regimes_named_live_are_judged_by_hindsight(folders, promoted, wrong, days, wanted, says):
    sha256, series = promoted
    store_candles(folders, *series)
    named_live(folders, series[0], sha256, wrong, days)
    verdict = asked(folders, Triggers.live_accuracy)
    assert verdict.wanted is wanted, verdict.why
    assert says in verdict.why


def test_what_another_model_named_does_not_count(folders, promoted):
    _, series = promoted
    store_candles(folders, *series)
    named_live(folders, series[0], "f" * 64, 0.5, 40)
    assert "named 0 candles live" in asked(folders, Triggers.live_accuracy).why


def test_a_damaged_journal_beside_a_sound_one_is_passed_over(folders, promoted):
    sha256, series = promoted
    named_live(folders, series[0], sha256, 0.0, 2)
    other = folders.home / "state" / "aaa"
    other.mkdir()
    (other / "journal.sqlite").write_bytes(b"damaged")
    (times, regimes) = live_regimes(folders.home, "1h", sha256)["BTCUSDT"]
    assert len(times) == len(regimes) == 48
    assert live_regimes(folders.home, "4h", sha256) == {}
    (folders.home / "state" / "paper" / "journal.sqlite").unlink()
    with pytest.raises(JournalError):
        live_regimes(folders.home, "1h", sha256)


# -------------------------------------------------------------------------- restated
def test_restated_candles_of_the_last_training_train_again(folders, promoted):
    _, series = promoted
    assert asked(folders, Triggers.restated_history) == Verdict(
        False, "no candle of the last training's 15000 was restated since"
    )
    columns = {n: getattr(series[0], n).copy() for n in ("open", "high", "low", "close", "volume")}
    columns["volume"][100:102] *= 2.0
    CandleStore(folders.candles).write(
        CandleSeries(series[0].id, series[0].open_time_ms, *columns.values())
    )
    verdict = asked(folders, Triggers.restated_history)
    assert verdict.wanted
    assert "2 of simulated/spot/BTCUSDT/1h, 2021-05-07 to 2021-05-07" in verdict.why
    (first, _) = CandleStore(folders.candles).restatements(series[0].id)
    # A training that took its candles before then has not seen it; one after has.
    for at_ms, wanted in ((first.at_ms, True), (first.at_ms + 1, False)):
        train(folders, Records(folders.work).find("candles"), at_ms)
        assert asked(folders, Triggers.restated_history).wanted is wanted


def test_a_damaged_history_is_an_error_that_the_tick_says(folders, promoted):
    _, series = promoted
    path = folders.candles / series[0].id.key / "restatements.jsonl"
    path.write_text("{}\n")
    with pytest.raises(DataError, match="line 1 of the history"):
        asked(folders, Triggers.restated_history)


def test_restated_candles_that_no_training_had_are_no_reason(folders, promoted):
    _, series = promoted
    store = CandleStore(folders.candles)
    store.write(series[0])
    columns = {n: getattr(series[0], n).copy() for n in ("open", "high", "low", "close", "volume")}
    columns["volume"][-1] *= 2.0
    store.write(CandleSeries(series[0].id, series[0].open_time_ms, *columns.values()))
    with (folders.candles / series[0].id.key / "restatements.jsonl").open("a") as file:
        file.write('{"open_time_ms": 4500')  # a write that was cut short
    assert not asked(folders, Triggers.restated_history).wanted


# -------------------------------------------------------------------------- sensors
@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def tick(instance, now=1_000_000.0, verdict=None):
    context = dg.build_sensor_context(instance=instance)
    wanted = verdict or Verdict(True, "because")
    return sensors.answer(context, "new_candles", lambda _: wanted, lambda: now)


def test_each_sensor_asks_its_own_question(folders):
    says = {}
    with dg.DagsterInstance.ephemeral() as instance:
        for sensor in sensors.SENSORS[:5]:
            says[sensor.name] = sensor(dg.build_sensor_context(instance=instance)).skip_message
    assert "no candles yet" in says["retrain_on_new_candles"]
    assert "restated" in says["retrain_on_restated_history"]
    assert len(says) == 5


def test_a_wanted_training_is_requested_with_its_reason(folders, instance):
    request = tick(instance)
    assert request.tags["bot4/why"] == "because"
    assert request.tags["bot4/writes"] == "store"
    assert request.run_key.endswith("-19700112-0")
    assert tick(instance).run_key == request.run_key  # Dagster starts one run a key
    assert tick(instance, verdict=Verdict(False, "not yet")).skip_message == "not yet"


def test_a_question_that_cannot_be_answered_is_a_skip_that_says_so(folders, instance):
    def fails(_):
        raise DataError("the file is gone")

    context = dg.build_sensor_context(instance=instance)
    said = sensors.answer(context, "drift", fails)
    assert said.skip_message == "cannot tell: the file is gone"


def ended(instance, request, status):
    return create_run_for_test(
        instance, job_name="pipeline", status=status, tags={**request.tags}
    ).run_id


def test_a_failed_run_is_tried_again_later_and_three_times_a_day(folders, instance):
    def held(minutes):
        return sensors.held_back(instance, "cause", time.time() + 60 * minutes)

    def fail():
        tags = {"bot4/cause": "cause"}
        failure = dg.DagsterRunStatus.FAILURE
        create_run_for_test(instance, job_name="pipeline", status=failure, tags=tags)

    assert held(0) == 0
    for failures, minutes in ((1, 15), (2, 30)):
        fail()
        assert f"the next try is in {minutes} min" in held(0)
        assert held(minutes + 1) == failures
    fail()
    assert "3 runs failed for this today" in held(10_000)


def test_the_next_day_and_the_next_training_are_tried_anew(folders, records, instance):
    first = tick(instance, now=1_000_000.0).run_key
    assert tick(instance, now=1_086_400.0).run_key != first
    records.write(record("lstm_candidate", {}, finished_ms=2))
    assert tick(instance, now=1_000_000.0).run_key != first


def test_one_training_at_a_time_and_none_for_an_answered_reason(folders, instance):
    request = tick(instance)
    run = create_run_for_test(instance, job_name="pipeline", status=dg.DagsterRunStatus.STARTED)
    assert f"run {run.run_id[:8]} is training already" in tick(instance).skip_message
    instance.delete_run(run.run_id)
    ended(instance, request, dg.DagsterRunStatus.SUCCESS)
    assert "answered this already" in tick(instance).skip_message
