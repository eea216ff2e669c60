"""Gates are judged from numbers, never from what a manifest says of itself."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from gate_numbers import hmm_metrics, lstm_metrics

from bot4_pipelines.records import Folders, Record
from bot4_pipelines.training.definition_gate import reference_hmm
from bot4_pipelines.training.hmm_export import hmm_golden, hmm_graph, seal
from bot4_pipelines.training.leak_audit import AFTER, BEFORE
from bot4_pipelines.training.promotion import judge, promote, rollback, taken_back
from bot4_pipelines.workflow import Workflow
from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.features.batch import compute
from bot4_runtime.features.schema import feature_schema_id
from bot4_runtime.regime.manifest import Cuts, GateVerdict, HmmDefinition, Manifest, ModelKind
from bot4_runtime.regime.registry import Activation, ModelRegistry

NOW = 1_000


def manifest(kind=ModelKind.HMM, metrics=None, **changes):
    base = Manifest(
        kind=kind, schema_id=feature_schema_id(), feature_names=("z",), interval="1h",
        origin=Origin.REAL, market=Market.SPOT, symbols=("BTCUSDT",),
        cuts=Cuts(train_start_ms=0, validation_start_ms=1, test_start_ms=2, end_ms=3),
        data_sha256="", metrics=metrics or {}, golden=(), created_ms=0, expires_ms=10_000,
        code_version="",
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def failed(kind, metrics):
    return {gate.name for gate in judge(manifest(kind, metrics)) if not gate.passed}


def leaves(metrics):
    return [(section, key) for section, numbers in metrics.items() for key in numbers]


def test_good_numbers_pass():
    assert not failed(ModelKind.HMM, hmm_metrics())
    assert not failed(ModelKind.LSTM, lstm_metrics())


@pytest.mark.parametrize("bad", ["absent", None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("kind", "make", "place"),
    [(ModelKind.HMM, hmm_metrics, place) for place in leaves(hmm_metrics())]
    + [(ModelKind.LSTM, lstm_metrics, place) for place in leaves(lstm_metrics())],
)
def test_a_missing_or_impossible_number_fails(kind, make, place, bad):
    metrics = make()
    section, key = place
    if bad == "absent":
        del metrics[section][key]
    else:
        metrics[section][key] = bad
    assert failed(kind, metrics)


def test_nothing_recorded_passes_nothing():
    for kind in ModelKind:
        verdicts = judge(manifest(kind))
        assert len(verdicts) >= 12
        assert not any(verdict.passed for verdict in verdicts if "window" not in verdict.name)


@pytest.mark.parametrize(
    ("kind", "section", "key", "value", "gate"),
    [
        (ModelKind.HMM, "validation", "accuracy", 0.849, "validation accuracy"),
        (ModelKind.HMM, "definition", "trend_window", 168.0, "trend window"),
        (ModelKind.HMM, "definition", "trend_window", 24.0, "trend window"),
        (ModelKind.HMM, "definition", "share_4_train", 0.119, "least share in train"),
        (ModelKind.HMM, "definition", "share_2_train", 0.301, "largest share in train"),
        (ModelKind.HMM, "definition", "share_2_test", 0.41, "largest share in test"),
        (ModelKind.HMM, "definition", "share_0_validation", 0.04, "least share in validation"),
        (ModelKind.HMM, "definition", "least_mean_gap", 0.39, "definition least_mean_gap"),
        (ModelKind.HMM, "definition", "mirror_error", 2e-9, "definition mirror_error"),
        (ModelKind.HMM, "definition", "median_dwell", 7.0, "median dwell"),
        (ModelKind.HMM, "definition", "median_dwell", 17.0, "median dwell"),
        (ModelKind.HMM, "definition", "reference_agreement", 0.84, "definition reference_agreement"),
        (ModelKind.LSTM, "test", "accuracy", 0.899, "test accuracy"),
        (ModelKind.LSTM, "test", "accuracy_ci_low", 0.905, "test accuracy_ci_low over hmm_filter"),
        (ModelKind.LSTM, "baselines_validation", "static_cuts", 0.941,
         "validation accuracy_ci_low over static_cuts"),
        (ModelKind.LSTM, "test", "balanced_accuracy", 0.87, "test balanced_accuracy"),
        (ModelKind.LSTM, "validation", "macro_f1", 0.87, "validation macro_f1"),
        (ModelKind.LSTM, "validation", "ece", 0.031, "validation ece"),
    ],
)  # fmt: skip
def test_each_gate_refuses_what_it_is_for(kind, section, key, value, gate):
    metrics = hmm_metrics() if kind is ModelKind.HMM else lstm_metrics()
    metrics.setdefault(section, {})[key] = value
    assert gate in failed(kind, metrics)


def test_bounds_themselves_pass():
    metrics = hmm_metrics()
    metrics["validation"]["accuracy"] = 0.85
    metrics["definition"] |= {"share_0_train": 0.12, "share_1_train": 0.30, "median_dwell": 16.0}
    assert not failed(ModelKind.HMM, metrics)


@pytest.fixture
def registry(tmp_path):
    return ModelRegistry(tmp_path)


def archived(registry, number=0, metrics=None, gates=None):
    params = reference_hmm()
    graph = hmm_graph(params)
    made = manifest(
        metrics=metrics or hmm_metrics(),
        definition=HmmDefinition.of(params, 72),
        golden=hmm_golden(graph, params),
        code_version=f"version {number}",
    )
    made = msgspec.structs.replace(made, gates=tuple(judge(made)) if gates is None else gates)
    return registry.add(seal(graph, made), made, "")


@pytest.fixture
def candles(make_walk):
    return lambda _: [make_walk(BEFORE + AFTER, 1, "BTCUSDT")]


def test_what_passes_is_promoted(registry, candles):
    sha = archived(registry)
    assert promote(registry, "1h", sha, now_ms=NOW, candles=candles).hmm_sha256 == sha
    assert registry.load("1h", NOW).hmm_sha256 == sha


def test_what_looks_ahead_is_not_promoted_for_any_reason(registry, candles):
    def of_tomorrow(series):
        table = compute(series)
        return replace(table, z=np.append(table.z[1:], np.nan))

    sha = archived(registry)
    for despite in ("", "a drill"):
        with pytest.raises(ModelError, match=f"{sha[:12]} is not promoted: .* columns look ahead, "
                           "BTCUSDT .* among them; see the check 'nothing_looks_ahead'"):  # fmt: skip
            promote(registry, "1h", sha, now_ms=NOW, candles=candles, despite=despite,
                    features=of_tomorrow)  # fmt: skip
    assert registry.current("1h") is None


def test_what_cannot_be_audited_is_not_promoted(registry, candles):
    sha = archived(registry)
    short = [one.rows(slice(0, 999)) for one in candles(None)]
    for series, says in (([], "there are no candles"), (short, "BTCUSDT has 999 candles")):
        with pytest.raises(ModelError, match=f"is not promoted: the leak audit compared .*{says}"):
            promote(registry, "1h", sha, now_ms=NOW, candles=lambda _, s=series: s, despite="x")
    assert registry.current("1h") is None


def test_a_flag_that_says_passed_is_not_believed(registry, candles):
    good = archived(registry)
    promote(registry, "1h", good, now_ms=NOW, candles=candles)
    metrics = hmm_metrics()
    metrics["test"]["accuracy"] = 0.5
    lie = (GateVerdict(name="test accuracy", passed=True, value=0.99, threshold=0.85),)
    sha = archived(registry, metrics=metrics, gates=lie)
    with pytest.raises(ModelError, match=r"not promoted: test accuracy 0\.5, needs >= 0\.85"):
        promote(registry, "1h", sha, now_ms=NOW, candles=candles)
    assert registry.current("1h").hmm_sha256 == good


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dagsters_promotion_launched_alone_after_a_failed_check_promotes_nothing(
    tmp_path, registry, monkeypatch
):
    """A blocking check ends its own run alone; whoever launches the next asset passes it by."""
    import dagster as dg

    from bot4_pipelines.defs.assets import promoted_models

    good = archived(registry)
    registry.activate("1h", good, now_ms=NOW)
    before = (registry.root / "current.json").read_bytes()
    metrics = hmm_metrics()
    metrics["test"]["accuracy"] = 0.5
    passed = (GateVerdict(name="test accuracy", passed=True, value=0.99, threshold=0.85),)
    bad = archived(registry, 1, metrics, passed)
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_MODELS", str(registry.root))
    flow = Workflow(Folders.from_environment(), lambda *_: None)
    for step, content in (("candles", "c"), ("hmm_candidate", bad), ("lstm_candidate", bad)):
        numbers = {"interval": "1h", "gates": [{"passed": False, "says": "test accuracy 0.5"}]}
        flow.records.write(Record(step=step, stamp="", content=content, finished_ms=1,
                                  seconds=0.1, numbers=numbers))  # fmt: skip
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([promoted_models], instance=instance, raise_on_error=False)
        assert not result.success
        (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "test accuracy 0.5, needs >= 0.85" in failure.step_failure_data.error.to_string()
    assert (registry.root / "current.json").read_bytes() == before
    assert flow.records.find("promoted_models") is None


def test_rollback_goes_back_along_promotions_and_not_to_what_was_left(registry):
    first, second, third = (archived(registry, number) for number in range(3))
    with pytest.raises(ModelError, match="nothing is promoted"):
        rollback(registry, "1h", NOW)
    registry.activate("1h", first, now_ms=NOW)
    with pytest.raises(ModelError, match="no pair was promoted for 1h before"):
        rollback(registry, "1h", NOW)
    registry.activate("1h", second, now_ms=NOW)
    registry.activate("1h", second, now_ms=NOW)
    assert rollback(registry, "1h", NOW).hmm_sha256 == first
    registry.activate("1h", third, now_ms=NOW)
    assert rollback(registry, "1h", NOW).hmm_sha256 == first
    assert [entry.action for entry in registry.activations("1h")] == [
        "promote", "promote", "promote", "rollback", "promote", "rollback",
    ]  # fmt: skip


def test_a_run_leaves_what_an_operator_went_back_from_until_it_is_promoted(tmp_path, registry):
    flow = Workflow(Folders(tmp_path / "home", registry.root), lambda *_: None)
    first, second, third = (archived(registry, number) for number in range(3))
    for pair in (first, second):
        registry.activate("1h", pair, now_ms=NOW)

    def run(hmm):
        for step, content in (("candles", "c"), ("hmm_candidate", hmm), ("lstm_candidate", "")):
            numbers = {"interval": "1h"}
            flow.records.write(Record(step=step, stamp="", content=content, finished_ms=1,
                                      seconds=0.1, numbers=numbers))  # fmt: skip
        return flow.promoted_models()

    rollback(registry, "1h", NOW + 1)
    for reused in (False, True):
        outcome = run(second)
        assert outcome.reused is reused
        told = outcome.record.numbers
        assert told["hmm_sha256"] == first
        assert told["note"].startswith(f"an operator went back from {second[:12]} to {first[:12]}")
        assert registry.current("1h").hmm_sha256 == first
    with pytest.raises(ModelError, match="archived models begin with ''"):
        run(third)  # what was never promoted is judged: here it has no LSTM
    registry.activate("1h", second, now_ms=NOW + 2)
    assert taken_back(registry, "1h", (first, "")) == "", "a promotion is no rollback"
    rollback(registry, "1h", NOW + 3)
    never = msgspec.structs.replace(registry.current("1h"), hmm_sha256=third)
    line = msgspec.json.encode(Activation(action="promote", interval="1h", pair=never))
    with (registry.root / "activations.jsonl").open("ab") as stream:
        stream.write(line + b"\n")
    assert taken_back(registry, "1h", (second, "")), "a crash cut that promotion short"
    assert taken_back(registry, "1h", (first, "")) == "", "it is promoted"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("simulated/spot", "simulated/spot/ETHUSDT/1h are not real spot"),
        ("real/usdm", "real/usdm/ETHUSDT/1h are not real spot"),
        ("real/spot", "parquet is missing"),  # it is gone on with
    ],
)
def test_evidence_is_of_candles_like_those_the_promoted_pair_was_trained_on(
    tmp_path, registry, kind, told
):
    flow = Workflow(Folders(tmp_path / "home", registry.root), lambda *_: None)
    registry.activate("1h", archived(registry), now_ms=NOW)
    numbers = {"interval": "1h", "series": ["real/spot/BTCUSDT/1h", f"{kind}/ETHUSDT/1h"]}
    flow.records.write(
        Record(step="candles", stamp="", content="c", finished_ms=1, seconds=0.1, numbers=numbers)
    )
    with pytest.raises(DataError, match=told):
        flow.evidence_records()


def test_what_was_promoted_while_a_rollback_was_decided_stays(registry):
    first, second, third = (archived(registry, number) for number in range(3))
    registry.activate("1h", first, now_ms=NOW)
    registry.activate("1h", second, now_ms=NOW)

    class Busy(ModelRegistry):
        def activations(self, interval):
            history = super().activations(interval)
            self.activate(interval, third, now_ms=NOW)
            return history

    with pytest.raises(ModelError, match=f"{third[:12]} is promoted for 1h; expected"):
        rollback(Busy(registry.root), "1h", NOW)
    assert registry.current("1h").hmm_sha256 == third


def test_rollback_ignores_an_activation_that_a_crash_cut_short(registry):
    first, second, third = (archived(registry, number) for number in range(3))
    registry.activate("1h", first, now_ms=NOW)
    registry.activate("1h", second, now_ms=NOW)
    never = msgspec.structs.replace(registry.current("1h"), hmm_sha256=third)
    for action, pair in (("promote", never), ("rollback", registry.activations("1h")[0].pair)):
        line = msgspec.json.encode(Activation(action=action, interval="1h", pair=pair))
        with (registry.root / "activations.jsonl").open("ab") as stream:
            stream.write(line + b"\n")
        assert registry.current("1h").hmm_sha256 == second
    assert rollback(registry, "1h", NOW).hmm_sha256 == first


def test_an_expired_pair_is_not_rolled_back_to(registry):
    first, second = (archived(registry, number) for number in range(2))
    registry.activate("1h", first, now_ms=NOW)
    registry.activate("1h", second, now_ms=NOW)
    with pytest.raises(ModelError, match="expiry"):
        rollback(registry, "1h", 10_000)
    assert registry.current("1h").hmm_sha256 == second
