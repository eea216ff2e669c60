"""The asset graph, its checks and what starts it."""

import ast
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import msgspec
import numpy as np
import pytest

import bot4_pipelines
from bot4_pipelines.definitions import defs
from bot4_pipelines.defs import audits, automation, checks, evaluation, sensors
from bot4_pipelines.defs.fleet_models import FLEET_ASSETS
from bot4_pipelines.defs.metadata import metadata_of
from bot4_pipelines.ingest.quality_codes import BLOCKING
from bot4_pipelines.progress import listening, reporter
from bot4_pipelines.records import Folders, Record, Records, digest, source_sha256
from bot4_pipelines.steps import Outcome
from bot4_pipelines.tables import read_features, read_labels, write_features, write_labels
from bot4_pipelines.training.schedule import Schedule
from bot4_pipelines.workbench import TRAINING
from bot4_pipelines.workflow import Workflow, lstm_stamp
from bot4_runtime.domain.errors import ConfigError, DataError

ORDER = [
    "candles",
    "features",
    "hmm_candidate",
    "hindsight_labels",
    "lstm_candidate",
    "promoted_models",
    "evaluation",
    "evidence_records",
    "training_reference",
]


def record(step="candles", stamp="s", content="c", **numbers):
    return Record(
        step=step, stamp=stamp, content=content, finished_ms=1, seconds=0.5, numbers=numbers
    )


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("BOT4_CANDLES_SOURCE", "simulated")
    return Folders.from_environment()


def silent(message, share):
    assert 0.0 <= share <= 1.0, message


def test_every_asset_is_described_owned_and_grouped():
    graph = defs.resolve_asset_graph()
    fleet = {asset.key for asset in FLEET_ASSETS}
    keys = [key for key in graph.toposorted_asset_keys if key not in fleet]
    names = [key.to_user_string() for key in keys]
    assert set(names) == {*ORDER, "lstm_search"}
    places = [names.index(name) for name in ORDER]
    assert places == sorted(places)
    for key in keys:
        node = graph.get(key)
        assert len(node.description) > 40
        assert node.owners == ["team:bot4"]
        assert node.kinds
    assert {graph.get(key).group_name for key in keys} == {
        "candles",
        "features",
        "regimes",
        "models",
        "evidence",
        "search",
    }


def test_every_asset_says_its_columns_when_it_is_stale_and_its_pool():
    graph = defs.resolve_asset_graph()
    fleet = {asset.key for asset in FLEET_ASSETS}
    for key in graph.toposorted_asset_keys:
        if key in fleet:
            continue
        node = graph.get(key)
        columns = node.metadata["dagster/column_schema"].columns
        assert columns
        assert all(column.type for column in columns)
        assert node.pools in ({"store"}, {"training"})
        stale = node.freshness_policy
        if key.to_user_string() == "lstm_search":
            assert stale is None  # made when somebody wants it
        else:
            assert stale.warn_window.to_timedelta() < stale.fail_window.to_timedelta()
            assert stale.fail_window.to_timedelta() < timedelta(days=90)  # models expire then


def test_one_training_makes_everything_but_the_search():
    job = defs.resolve_job_def("pipeline")
    made = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert made == set(ORDER)
    assert dg.AssetCheckKey(dg.AssetKey("lstm_candidate"), "nothing_looks_ahead") in (
        job.asset_layer.asset_graph.asset_check_keys
    )


def test_everything_that_starts_runs_is_described():
    for one in (*automation.JOBS, *automation.SCHEDULES, *sensors.SENSORS):
        assert len(one.description) > 40 or one.name == "refresh_candles"


def test_checks_block_where_a_model_would_be_promoted():
    blocking = {
        (spec.asset_key.to_user_string(), spec.name)
        for specs in (checks.CANDLE_CHECKS, checks.HMM_CHECKS, checks.LSTM_CHECKS)
        for spec in specs
        if spec.blocking
    } | {
        (spec.asset_key.to_user_string(), spec.name)
        for audit in audits.AUDITS
        for spec in audit.check_specs
        if spec.blocking
    }
    assert blocking == {
        *(("candles", code.value.lower()) for code in BLOCKING),
        ("hmm_candidate", "gates_passed"),
        ("lstm_candidate", "gates_passed"),
        ("lstm_candidate", "nothing_looks_ahead"),
    }


def test_the_full_schedule_is_the_default_and_another_is_chosen_by_name():
    from bot4_pipelines.defs.assets import LstmConfig

    assert LstmConfig().schedule is Schedule.FULL
    job = defs.resolve_job_def("pipeline")

    def asked(name):
        config = {"ops": {"lstm_candidate": {"config": {"schedule": name, "iterations": 3}}}}
        return dg.validate_run_config(job, config)["ops"]["lstm_candidate"]["config"]

    assert asked("QUICK") == {
        "schedule": "quick",
        "iterations": 3,
        "from_model": "",
        "lookback": 0,
    }
    with pytest.raises(dg.DagsterInvalidConfigError, match="LONG"):
        asked("LONG")


def test_the_code_location_loads_no_heavy_library():
    code = (
        "import sys, bot4_pipelines.definitions;"
        "print({'torch','hmmlearn','pandas','matplotlib','sklearn','onnx','optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_nothing_starts_by_itself():
    for one in (*automation.SCHEDULES, *sensors.SENSORS):
        assert one.default_status.value == "STOPPED"
    assert all(one.minimum_interval_seconds >= 60 for one in sensors.SENSORS)


def finding(severity, code, message=""):
    return {
        "severity": severity,
        "code": code,
        "symbol": "BTCUSDT",
        "count": 3,
        "times_ms": [0, 60_000],
        "message": message,
    }


def test_candle_findings_fail_the_check_of_their_rule(tmp_path):
    told = [
        finding("INFO", "GAP"),
        finding("WARN", "SPIKE"),
        finding("ERROR", "OHLC", "BTCUSDT: 3 candles are torn"),
    ]
    (tmp_path / "finding OHLC.png").write_bytes(b"png")
    results = {
        result.check_name: result
        for result in checks.candle_results(Outcome(record(findings=told), False, tmp_path))
    }
    assert len(results) == len(checks.CANDLE_CHECKS)
    assert {name for name, result in results.items() if not result.passed} == {"spike", "ohlc"}
    assert results["spike"].severity is dg.AssetCheckSeverity.WARN
    ohlc = results["ohlc"]
    assert ohlc.severity is dg.AssetCheckSeverity.ERROR
    assert ohlc.description == "BTCUSDT: 3 candles are torn"
    assert ohlc.metadata["rows"].value == 3
    assert ohlc.metadata["found"].records[0].data["times_ms"] == "[0, 60000]"
    assert "data:image/png;base64,cG5n" in ohlc.metadata["worst"].value
    assert results["duplicate"].description == "nothing found"


def test_a_rule_blocks_exactly_when_its_finding_is_an_error(tmp_path):
    blocking = {spec.name: spec.blocking for spec in checks.CANDLE_CHECKS}
    assert blocking["spike"]
    assert not blocking["gap"]
    assert not blocking["torn"]


def test_a_gate_that_failed_fails_the_check_and_no_gates_do_too(tmp_path):
    good = {"passed": True, "says": "fine"}
    bad = {"passed": False, "says": "accuracy 0.5, needs >= 0.9"}
    for gates, passed in (([good], True), ([good, bad], False), ([], False)):
        (result,) = checks.gate_results(Outcome(record(gates=gates), False, tmp_path))
        assert result.passed is passed
    assert (
        "needs >= 0.9"
        in checks.gate_results(Outcome(record(gates=[bad]), False, tmp_path))[0].description
    )


def test_a_missed_goal_warns_beside_the_gates_and_blocks_nothing(tmp_path):
    good = {"passed": True, "says": "fine"}
    bad = {"passed": False, "says": "test accuracy 0.94, needs >= 0.945"}
    for goals, passed in (([good], True), ([good, bad], False), ([], False)):
        gates, reached = checks.candidate_results(
            Outcome(record(gates=[good], goals=goals), False, tmp_path)
        )
        assert gates.passed
        assert reached.passed is passed
        assert reached.severity is dg.AssetCheckSeverity.WARN
    for specs in (checks.HMM_CHECKS, checks.LSTM_CHECKS):
        (spec,) = [one for one in specs if one.name == "goals_reached"]
        assert not spec.blocking


def test_evidence_check_lists_what_is_significant(tmp_path):
    rules = [{"rule": "a", "significant": True}, {"rule": "b", "significant": False}]
    (result,) = checks.evidence_results(Outcome(record(rules=rules), False, tmp_path))
    assert result.passed
    assert result.metadata["significant"].value == ["a"]


def test_missed_goals_are_told_and_block_nothing(tmp_path):
    goals = [{"goal": "LSTM accuracy", "met": True}, {"goal": "ece", "met": False}]
    for missed, passed in (([], True), (["test ece 0.02, goal <= 0.01"], False)):
        outcome = Outcome(record("evaluation", goals=goals, missed=missed), False, tmp_path)
        (result,) = evaluation.evaluation_results(outcome)
        assert result.passed is passed
        assert result.severity is dg.AssetCheckSeverity.WARN
        assert result.description == ("all 2 goals met" if passed else missed[0])
    assert not evaluation.EVALUATION_CHECKS[0].blocking


def test_numbers_become_values_tables_and_plots(tmp_path):
    (tmp_path / "price history.png").write_bytes(b"png")
    numbers = {"n": 3, "x": 0.5, "ok": True, "none": None, "t": "x", "d": {"a": 1}, "l": [1]}
    outcome = Outcome(record(rows=[{"a": 1, "b": [2]}], **numbers), True, tmp_path)
    found = metadata_of(outcome)
    assert "data:image/png;base64,cG5n" in found["plot: price history"].value
    assert isinstance(
        metadata_of(Outcome(record(card="# a"), True, tmp_path))["card"], dg.MarkdownMetadataValue
    )
    assert found["rows"].records[0].data == {"a": 1, "b": "[2]"}
    assert [found[name].value for name in ("n", "x", "ok", "none", "t")] == [
        3,
        0.5,
        True,
        None,
        "x",
    ]


def test_steps_run_in_a_fresh_home_offline_and_are_reused(folders):
    flow = Workflow(folders, silent)
    first = flow.candles()
    assert first.record.numbers["origin"] == "simulated"
    assert "SIMULATED" in first.record.numbers["label"]
    assert not first.reused
    assert flow.features().record.numbers["rows"] == first.record.numbers["candles"]
    again = Workflow(folders, silent)
    assert again.candles().record.content == first.record.content
    assert again.features().reused


def test_a_full_candidate_serves_who_asks_for_the_quick_schedule(folders):
    flow = Workflow(folders, silent)
    for step, content in (("hmm_candidate", "h" * 64), ("hindsight_labels", "labels")):
        flow.records.write(record(step, content=content))
    full = record("lstm_candidate", stamp=lstm_stamp("labels", Schedule.FULL), content="l" * 64)
    flow.records.write(full)
    (folders.models / "archive" / full.content).mkdir(parents=True)
    for schedule in Schedule:
        assert flow.lstm_candidate(schedule).record == full
    with pytest.raises(DataError, match="'candles'"):
        flow.lstm_candidate(Schedule.QUICK, iterations=3)


def test_a_candidate_of_another_lookback_serves_nobody(folders, monkeypatch):
    """Nor does a study; a lookback that cannot be is refused before anything is made."""
    flow = Workflow(folders, silent)
    for step, content in (("hmm_candidate", "h" * 64), ("hindsight_labels", "labels")):
        flow.records.write(record(step, content=content))
    short = lstm_stamp("labels", Schedule.FULL, window=20)
    made = record("lstm_candidate", stamp=short, content="l" * 64)
    flow.records.write(made)
    (folders.models / "archive" / made.content).mkdir(parents=True)
    with pytest.raises(DataError, match="'candles'"):
        flow.lstm_candidate()
    assert flow.lstm_candidate(lookback=20).record == made
    monkeypatch.setenv("BOT4_LOOKBACK", "20")
    for schedule in Schedule:
        assert flow.lstm_candidate(schedule).record == made
    with pytest.raises(DataError, match="'candles'"):
        flow.lstm_candidate(lookback=50)
    monkeypatch.setenv("BOT4_LOOKBACK", "500")
    for step in (flow.lstm_candidate, flow.seed_spread):
        with pytest.raises(ConfigError, match="BOT4_LOOKBACK"):
            step()
    with pytest.raises(ConfigError, match="BOT4_LOOKBACK"):
        flow.lstm_search(trials=0, workers=1, iterations=600, seed=1)
    monkeypatch.delenv("BOT4_LOOKBACK")
    study = flow.lstm_search(trials=0, workers=1, iterations=600, seed=1).record.stamp
    monkeypatch.setenv("BOT4_LOOKBACK", "20")
    short = flow.lstm_search(trials=0, workers=1, iterations=600, seed=1).record.stamp
    assert short != study
    monkeypatch.delenv("BOT4_LOOKBACK")
    again = flow.lstm_search(trials=0, workers=1, iterations=600, seed=1, lookback=20)
    assert again.record.stamp == short


def test_a_step_without_its_input_names_the_asset_to_materialise(folders):
    flow = Workflow(folders, silent)
    for step in ("features", "hmm_candidate", "hindsight_labels", "lstm_candidate"):
        with pytest.raises(DataError, match="materialise the asset"):
            getattr(flow, step)()
    with pytest.raises(DataError, match="materialise the asset"):
        flow.promoted_models()
    with pytest.raises(DataError, match="materialise the asset 'candles'"):
        flow.evaluation()


def test_feature_tables_and_labels_come_back_exactly(tmp_path):
    from bot4_pipelines.ingest.simulated import simulated_series
    from bot4_runtime.features.batch import compute

    series = simulated_series("BTCUSDT", "1h").rows(slice(0, 800))
    table = compute(series)
    write_features(tmp_path / "t.parquet", table)
    back = read_features(tmp_path / "t.parquet")
    for name in ("open_time_ms", "values", "valid", "z", "rv", "log_return", "starts"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name))
    labels = np.arange(-1, 4, dtype=np.int8)
    write_labels(tmp_path / "l.parquet", np.arange(5), labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "l.parquet")[1], labels)
    with pytest.raises(DataError, match="other features"):
        read_features(tmp_path / "l.parquet")
    (tmp_path / "l.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "l.parquet")
    with pytest.raises(DataError, match="is missing"):
        read_labels(tmp_path / "none.parquet")


def test_a_damaged_record_counts_as_none(tmp_path):
    records = Records(tmp_path)
    records.write(record())
    assert records.find("candles").content == "c"
    (tmp_path / "candles.json").write_text('{"step": 1')
    assert records.find("candles") is None


def test_stamps_follow_content_and_sources():
    assert digest("a", 1) == digest("a", 1) != digest(1, "a")
    assert source_sha256("bot4_pipelines.training.hmm") != source_sha256("bot4_pipelines.training")
    with pytest.raises(ConfigError, match="not installed"):
        source_sha256("no_such_module")


def test_all_code_that_models_are_made_by_counts():
    """Whatever of the pipeline that code imports, counts too; `progress` only tells."""
    root = Path(bot4_pipelines.__file__).parent

    def counts(module):
        return any(module == one or module.startswith(f"{one}.") for one in TRAINING)

    wanted = set()
    for path in root.rglob("*.py"):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        if not counts(name):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(root.name):
                wanted.add(node.module)
    assert "bot4_pipelines.ingest.quality_codes" in wanted
    assert {one for one in wanted if not counts(one)} == {"bot4_pipelines.progress"}


def test_progress_goes_to_the_listener_or_to_ten_lines_of_log():
    heard, logged = [], []
    with listening(lambda *told: heard.append(told)):
        reporter("features", logged.append)("half", 0.5)
    assert heard == [("features", "half", 0.5)]
    report = reporter("features", logged.append)
    for step in range(1_000):
        report(f"training: step {step}", step / 1_000)
    assert len(logged) == 10


def test_records_are_plain_json(tmp_path):
    Records(tmp_path).write(record(n=1))
    assert msgspec.json.decode((tmp_path / "candles.json").read_bytes())["numbers"] == {"n": 1}
