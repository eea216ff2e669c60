"""Evaluation against a second implementation that knows candles and the definition alone."""

import json
import math
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as sk

from bot4_pipelines.models import evaluate_folder
from bot4_pipelines.records import Folders
from bot4_pipelines.training import evaluation as e
from bot4_pipelines.training import evaluation_report as evaluation_report_module
from bot4_pipelines.training import judged as j
from bot4_pipelines.training import scoring
from bot4_pipelines.training.baselines import FittedBaselines, fit_baselines
from bot4_pipelines.training.candidates import return_blocks
from bot4_pipelines.training.dataset import CLIP, INPUT_NAMES, symbol_rows
from bot4_pipelines.training.evaluation_report import Goal, evaluation_report
from bot4_pipelines.training.hmm_export import golden_of, hmm_golden, hmm_graph, seal
from bot4_pipelines.training.lstm import LstmFit, train_lstm
from bot4_pipelines.training.lstm_export import lstm_graph
from bot4_pipelines.training.schedule import LstmSettings
from bot4_runtime.candles.series import COLUMNS
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.features.schema import feature_schema_id
from bot4_runtime.regime.manifest import (
    GateVerdict,
    HmmDefinition,
    Manifest,
    ModelKind,
    Scaler,
)
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import ModelRegistry

HOUR = 3_600_000


# ------------------------------------------- the second implementation, plain and slow
def plain_trend(close, start, stop):
    """z of the rows of one run; None until 72 returns are there."""
    r = [math.log(close[i] / close[i - 1]) for i in range(start + 1, stop)]
    found = [None] * (stop - start)
    for i in range(72, stop - start):
        window = r[i - 72 : i]
        found[i] = sum(window) / math.sqrt(sum(x * x for x in window))
    return found


def density(z, k, d):
    return math.exp(-((z - d["means"][k]) ** 2) / (2 * d["variances"][k])) / math.sqrt(
        d["variances"][k]
    )


def plain_prior(d):
    power = np.linalg.matrix_power(np.array(d["transitions"]), 100_000)
    return power[0]


def plain_viterbi(z, d):
    prior, moves = plain_prior(d), np.array(d["transitions"])
    best = [math.log(prior[k]) + math.log(density(z[0], k, d)) for k in range(5)]
    back = []
    for x in z[1:]:
        step = [
            max(range(5), key=lambda i, k=k: best[i] + math.log(moves[i, k])) for k in range(5)
        ]
        best = [
            best[i] + math.log(moves[i, k]) + math.log(density(x, k, d))
            for k, i in enumerate(step)
        ]
        back.append(step)
    path = [max(range(5), key=lambda k: best[k])]
    for step in reversed(back):
        path.append(step[path[-1]])
    return path[::-1]


def plain_filter(z, d):
    belief, moves, found = plain_prior(d), np.array(d["transitions"]), []
    for number, x in enumerate(z):
        if number:
            belief = belief @ moves
        belief = belief * [density(x, k, d) for k in range(5)]
        belief = belief / belief.sum()
        found.append(belief)
    return found


def plain_evaluation(series, since_ms, d):
    """Labels, filtered beliefs and scored rows of a series from the report's definition."""
    n, times = len(series), series.open_time_ms
    first = next(i for i in range(n) if times[i] >= since_ms)
    edges = [0, *[i for i in range(1, n) if times[i] != times[i - 1] + HOUR], n]
    labels, beliefs = [None] * n, [None] * n
    for start, stop in pairwise(edges):
        z = plain_trend(series.close, start, stop)
        rows = [start + i for i, x in enumerate(z) if x is not None and start + i >= first]
        if rows:
            part = [z[i - start] for i in rows]
            for row, label, belief in zip(
                rows, plain_viterbi(part, d), plain_filter(part, d), strict=True
            ):
                labels[row], beliefs[row] = label, belief
    scored = [i for i in range(first + 200, n - 24) if labels[i] is not None]
    return labels, beliefs, scored


# ---------------------------------------------------------------------------- models
@pytest.fixture(scope="session")
def small_fit(small_market) -> LstmFit:
    settings = LstmSettings(
        iterations=40, batch=8, segment=80, hidden=12, learning_rate=1e-2, check_every=40,
        check_windows=200, soft_paths=0,
    )  # fmt: skip
    return train_lstm(small_market.rows, small_market.params, small_market.cuts, settings)


@pytest.fixture(scope="session")
def baselines(small_market) -> FittedBaselines:
    return fit_baselines(small_market.rows, small_market.params, small_market.cuts)


@pytest.fixture(scope="session")
def registry(small_market, small_fit, baselines, tmp_path_factory) -> ModelRegistry:
    registry = ModelRegistry(tmp_path_factory.mktemp("models"))
    one = small_market.series[0].id
    common = {
        "schema_id": feature_schema_id(), "interval": "1h", "origin": one.origin,
        "market": one.market, "symbols": ("BTCUSDT", "ETHUSDT"), "cuts": small_market.cuts,
        "data_sha256": "0" * 64, "created_ms": 0, "expires_ms": 2**60, "code_version": "test",
        "gates": (GateVerdict(name="test", passed=True, value=1.0, threshold=0.0),),
    }  # fmt: skip
    train = {rows.symbol: slice(0, 3_600) for rows in small_market.rows}
    tables = {rows.symbol: rows.table for rows in small_market.rows}
    graph = hmm_graph(small_market.params, return_blocks(tables, train))
    manifest = Manifest(
        kind=ModelKind.HMM, feature_names=("z",), metrics={},
        golden=hmm_golden(graph, small_market.params),
        definition=HmmDefinition.of(small_market.params, 72), **common,
    )  # fmt: skip
    hmm = registry.add(seal(graph, manifest), manifest, "")
    graph = lstm_graph(small_fit, 50)
    windows = small_market.rows[0].inputs[None, 600:650].astype(np.float32)
    manifest = Manifest(
        kind=ModelKind.LSTM, feature_names=INPUT_NAMES, hmm_sha256=hmm,
        metrics={e.BASELINES_SECTION: baselines.numbers()},
        golden=(golden_of(graph, {"features": windows}),),
        scaler=Scaler(mean=tuple(small_fit.scaler.mean.tolist()),
                      scale=tuple(small_fit.scaler.deviation.tolist()), clip=CLIP),
        temperature=small_fit.temperature, **common,
    )  # fmt: skip
    lstm = registry.add(seal(graph, manifest), manifest, "")
    registry.activate("1h", hmm, lstm)
    return registry


SINCE = 4_000 * HOUR


@pytest.fixture(scope="session")
def market_with_a_gap(small_market):
    btc, eth = small_market.series
    keep = np.ones(len(btc), dtype=bool)
    keep[4_900:4_905] = False
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    return [type(btc)(btc.id, *(getattr(btc, name)[keep] for name in names)), eth]


@pytest.fixture(scope="session")
def report(registry, market_with_a_gap):
    return e.evaluate_candles(registry, market_with_a_gap, SINCE)


def test_the_labels_can_be_recomputed_from_candles_and_the_definition_alone(
    report, market_with_a_gap
) -> None:
    accuracies, shares = [], []
    for series in market_with_a_gap:
        labels, beliefs, scored = plain_evaluation(series, SINCE, report["definition"])
        truth = [labels[i] for i in scored]
        named = [int(np.argmax(beliefs[i])) for i in scored]
        found = report["hmm"]["symbols"][series.id.symbol]
        assert report["rows"]["hmm"]["symbols"][series.id.symbol] == len(scored)
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, named), abs=1e-12)
        assert found["balanced_accuracy"] == pytest.approx(
            sk.balanced_accuracy_score(truth, named), abs=1e-12
        )
        assert found["macro_f1"] == pytest.approx(
            sk.f1_score(truth, named, average="macro"), abs=1e-12
        )
        accuracies.append(found["accuracy"])
        shares += truth
    assert report["hmm"]["pooled"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert report["rows"]["hmm"]["total"] == len(shares)
    np.testing.assert_allclose(
        report["definition"]["state_shares"], np.bincount(shares, minlength=5) / len(shares)
    )
    assert report["definition"]["W"] == 72


def test_the_lstm_and_its_comparisons_share_their_rows(
    report, registry, market_with_a_gap, small_market
) -> None:
    pair = registry.load("1h")
    for series in market_with_a_gap:
        labels, beliefs, scored = plain_evaluation(series, SINCE, report["definition"])
        rows = symbol_rows(series, small_market.params)
        valid = rows.table.valid
        reached = [i for i in scored if valid[i - 49 : i + 1].all()]
        symbol = series.id.symbol
        assert report["rows"]["lstm"]["symbols"][symbol] == len(reached)
        (shares,) = pair.lstm.session.run(
            None,
            {"features": np.stack([rows.inputs[i - 49 : i + 1] for i in reached]).astype("f4")},
        )
        truth = np.array([labels[i] for i in reached])
        found = report["lstm"]["symbols"][symbol]
        assert found["accuracy"] == pytest.approx((shares.argmax(axis=1) == truth).mean())
        hmm = np.array([int(np.argmax(beliefs[i])) for i in reached])
        same = report["hmm_same_rows"]["symbols"][symbol]["accuracy"]
        assert same == pytest.approx((hmm == truth).mean())
        late = np.array([-1 if labels[i - 6] is None else labels[i - 6] for i in reached])
        lagged = report["baselines"]["persistence_lag6"]["symbols"][symbol]["accuracy"]
        assert lagged == pytest.approx((late == truth).mean())
    assert report["lstm"]["pooled"]["accuracy"] > 0.3


def test_the_report_has_the_promised_form(report, registry, market_with_a_gap) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(report) == {
        "hmm", "lstm", "hmm_same_rows", "hmm_lookahead", "limit", "baselines", "definition",
        "rows", "models",
    }  # fmt: skip
    assert set(report["baselines"]) == {
        "majority", "persistence_lag6", "static_cuts", "logistic", "hmm_filter", "random_walk_hmm",
        "limit",
    }  # fmt: skip
    assert report["baselines"]["limit"] == report["limit"]
    numbers = {"accuracy", "balanced_accuracy", "macro_f1", "ece", "near", "far", "delay"}
    for model in ("hmm", "lstm", "hmm_lookahead"):
        assert set(report[model]["symbols"]) == {"BTCUSDT", "ETHUSDT"}
        for row in (report[model]["pooled"], *report[model]["symbols"].values()):
            assert numbers <= set(row)
            for name in numbers:
                low, high = row[f"{name}_ci"]
                assert low < row[name] < high
    for name, baseline in report["baselines"].items():
        low, high = baseline["pooled"]["accuracy_ci"]
        assert low < baseline["pooled"]["accuracy"] < high, name
    walk = report["baselines"]["random_walk_hmm"]["pooled"]
    assert 0.88 < walk["accuracy"] < 0.93
    for name in numbers:
        low, high = walk[f"{name}_ci"]
        assert low < walk[name] < high
    again = e.evaluate_candles(registry, market_with_a_gap, SINCE)
    assert again == report


def test_looking_ahead_beats_the_filter_and_knows_how_good_it_is(report) -> None:
    found = report["hmm_lookahead"]["pooled"]["accuracy"]
    assert found > report["hmm_same_rows"]["pooled"]["accuracy"] + 0.02
    assert report["limit"]["pooled"]["accuracy"] == pytest.approx(found, abs=0.02)
    assert report["rows"]["hmm_lookahead"] == report["rows"]["lstm"] | {"stride": 1}
    assert "calibrated" in report["limit"]["definition"]


def test_eleven_months_of_ten_symbols_and_a_year_of_five_leave_no_candle_out() -> None:
    """Delays need every candle: these are what later, unseen candles and validation hold."""
    assert e.LOOKAHEAD_ROWS >= 10 * 335 * 24
    assert evaluation_report_module.LSTM_WINDOWS >= 5 * 366 * 24


def test_many_candles_are_looked_ahead_from_here_and_there(
    registry, small_market, monkeypatch
) -> None:
    monkeypatch.setattr(e, "LOOKAHEAD_ROWS", 1_000)
    thin = e.evaluate_candles(registry, small_market.series, SINCE)
    assert thin["rows"]["hmm_lookahead"]["stride"] == 4
    for symbol, rows in thin["rows"]["lstm"]["symbols"].items():
        assert thin["rows"]["hmm_lookahead"]["symbols"][symbol] == -(-rows // 4)
    pooled = thin["hmm_lookahead"]["pooled"]
    assert pooled["delay"] is pooled["delay_ci"] is pooled["missed"] is None
    assert pooled["accuracy"] is not None
    assert thin["lstm"]["pooled"]["delay"] is not None


def test_a_range_ends_where_it_is_told_to(registry, small_market) -> None:
    pair = registry.load("1h")
    fitted = FittedBaselines.from_numbers(pair.lstm.manifest.metrics[e.BASELINES_SECTION])
    args = (small_market.params, pair.lstm.session, fitted)
    cut = 5_200 * HOUR
    some = e.judge_series(*args, small_market.series, since_ms=SINCE, until_ms=cut)
    short = [one.between(None, cut) for one in small_market.series]
    for found, wanted in zip(some, e.judge_series(*args, short, since_ms=SINCE), strict=True):
        np.testing.assert_array_equal(found.scored, wanted.scored)
        np.testing.assert_array_equal(
            found.estimates[j.LSTM].named, wanted.estimates[j.LSTM].named
        )


def test_symbols_can_be_chosen_and_what_is_not_there_is_said(
    registry, small_market, tmp_path
) -> None:
    chosen = e.evaluate_candles(registry, small_market.series, SINCE, ["ETHUSDT"])
    assert set(chosen["hmm"]["symbols"]) == {"ETHUSDT"}
    btc, eth = small_market.series
    partly = e.evaluate_candles(registry, [btc, eth.between(None, SINCE)], SINCE)
    assert partly["rows"]["hmm"]["symbols"]["ETHUSDT"] == 0
    assert set(partly["hmm"]["symbols"]) == {"BTCUSDT"}
    with pytest.raises(DataError, match="no candles of XRPUSDT; there are candles of BTCUSDT"):
        e.evaluate_candles(registry, small_market.series, SINCE, ["XRPUSDT"])
    with pytest.raises(DataError, match="no candles to evaluate"):
        e.evaluate_candles(registry, [])
    with pytest.raises(DataError, match="one series a symbol"):
        e.evaluate_candles(registry, [small_market.series[0]] * 2)
    with pytest.raises(DataError, match="can be scored"):
        e.evaluate_candles(registry, small_market.series, 5_900 * HOUR)
    with pytest.raises(ModelError, match="no models are promoted"):
        e.evaluate_candles(ModelRegistry(tmp_path), small_market.series)


def test_a_folder_is_scored_whole_and_what_is_wrong_with_its_candles_is_told(
    registry, small_market, tmp_path
) -> None:
    given, later = [], 400_000 * HOUR  # files of the 1970s are nobody's
    for series, factor in zip(small_market.series, (1.0, 3.0), strict=True):
        columns = {name: getattr(series, name).copy() for name in COLUMNS}
        for name in ("open", "high", "low", "close"):
            columns[name][5_000] *= factor
        moved = series.open_time_ms + later
        given.append(type(series)(series.id, moved, *columns.values()))
        times = pl.Series(moved).cast(pl.Datetime("ms", "UTC"))
        frame = pl.DataFrame({"timestamp": times, **columns})
        frame.write_parquet(tmp_path / f"{series.id.symbol}.parquet")
    folders = Folders(tmp_path / "home", registry.root)
    document = evaluate_folder(folders, tmp_path, Market.SPOT, None, SINCE + later)
    told = document.pop("findings")
    assert document == e.evaluate_candles(registry, given, SINCE + later)
    spikes = [one for one in told if one["code"] == "SPIKE"]
    assert [(one["symbol"], one["severity"], one["rows"]) for one in spikes] == [
        (given[1].id.symbol, "ERROR", 1)
    ]
    assert "BTCUSDT" not in spikes[0]["says"]


def test_an_hmm_without_its_lstm_is_not_evaluated(registry, small_market, tmp_path) -> None:
    alone = ModelRegistry(tmp_path)
    current = registry.current("1h")
    assert current is not None
    source = registry.root / "archive" / current.hmm_sha256
    manifest = registry.manifest(current.hmm_sha256)
    alone.add((source / "model.onnx").read_bytes(), manifest, "")
    alone.activate("1h", current.hmm_sha256, "")
    with pytest.raises(ModelError, match="no LSTM is promoted"):
        e.evaluate_candles(alone, small_market.series)


def test_what_happens_later_changes_no_estimate(registry, small_market) -> None:
    pair, series = registry.load("1h"), small_market.series[0]
    t = 5_000
    columns = {n: getattr(series, n).copy() for n in ("open", "high", "low", "close", "volume")}
    for column in columns.values():
        column[t + 1 :] *= 1.5
    altered = type(series)(series.id, series.open_time_ms, *columns.values())
    found = []
    for one in (series, altered):
        rows = symbol_rows(one, small_market.params)
        judged = j.judge(
            rows, small_market.params, slice(4_000, 6_000), pair.lstm.session, interval_ms=HOUR
        )
        found.append([judged.estimates[name].probabilities[: t + 1] for name in (j.HMM, j.LSTM)])
    for before, after in zip(*found, strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_manifest_metrics_cover_every_split_and_agree_with_the_report(
    registry, small_market, baselines
) -> None:
    session = registry.load("1h").lstm.session
    args = (small_market.rows, small_market.params, small_market.cuts, session, baselines)
    metrics, judged = e.training_metrics(*args, interval_ms=HOUR)
    for split in ("train", "validation", "test"):
        accuracy = metrics[split]["accuracy"]
        assert metrics[split]["accuracy_low"] < accuracy < metrics[split]["accuracy_high"]
        beside = metrics[f"baselines_{split}"]
        assert set(beside) == {
            "hmm_filter", "majority", "persistence_lag6", "static_cuts", "logistic",
        }  # fmt: skip
        lead = metrics[f"lead_{split}"]
        for name, value in beside.items():
            assert lead[name] == pytest.approx(accuracy - value, abs=1e-9)
            assert lead[f"{name}_low"] <= lead[name]
        assert metrics[f"hmm_{split}"]["accuracy"] == beside["hmm_filter"]
    assert metrics["train"]["delay"] is None
    assert metrics["test"]["delay"] is not None
    assert len(judged["test"]) == 2
    report = e.evaluate_candles(registry, small_market.series, small_market.cuts.test_start_ms)
    assert metrics["test"]["accuracy"] == report["lstm"]["pooled"]["accuracy"]
    assert metrics["test"]["rows"] == report["rows"]["lstm"]["total"]
    assert FittedBaselines.from_numbers(metrics[e.BASELINES_SECTION]).majority in range(5)


def test_the_manifest_tells_the_look_ahead_and_its_limit_beside_the_model(
    registry, small_market, baselines
) -> None:
    pair = registry.load("1h")
    args = (
        small_market.rows,
        small_market.params,
        small_market.cuts,
        pair.lstm.session,
        baselines,
    )
    metrics, judged = e.training_metrics(*args, interval_ms=HOUR, look=pair.look_ahead())
    assert "hmm_lookahead" not in metrics["baselines_train"]
    for split, stride in (("validation", 6), ("test", 3)):
        assert {one.look_stride for one in judged[split]} == {stride}
        beside, lead = metrics[f"baselines_{split}"], metrics[f"lead_{split}"]
        assert beside["limit"] == pytest.approx(beside["hmm_lookahead"], abs=0.05)
        mine = [
            (one.labels == one.estimates[j.LSTM].named)[one.looked].mean() for one in judged[split]
        ]
        assert lead["hmm_lookahead"] == pytest.approx(np.mean(mine) - beside["hmm_lookahead"])


def test_the_lead_over_nothing_is_unknown() -> None:
    assert j.lead([], j.LSTM, j.HMM) == {"difference": None, "low": None, "high": None}
    assert j.summarise([], j.HMM, same=True)["pooled"] == {"accuracy": None, "accuracy_ci": None}


# ---------------------------------------------------------------------------- the asset
@pytest.fixture(scope="module")
def figures(registry, small_market, make_walk):
    heard = []
    series = [*small_market.series, make_walk(6_000, 3, "XRPUSDT")]
    numbers, images = evaluation_report(
        registry.load("1h"), series, lambda what, share: heard.append((what, share))
    )
    assert [share for _, share in heard] == sorted(share for _, share in heard)
    return numbers, images


def test_figures_are_told_for_validation_later_candles_and_unseen_symbols(
    figures, registry, small_market
) -> None:
    numbers, images = figures
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    ranges = {row["range"]: row for row in numbers["ranges"]}
    assert {name: row["symbols"] for name, row in ranges.items()} == {
        "validation": "BTCUSDT, ETHUSDT", "test": "BTCUSDT, ETHUSDT", "unseen": "XRPUSDT",
    }  # fmt: skip
    cuts = small_market.cuts
    assert ranges["validation"]["to_ms"] == ranges["test"]["from_ms"] == cuts.test_start_ms
    assert ranges["unseen"]["to_ms"] == cuts.end_ms
    wanted = e.evaluate_candles(registry, small_market.series, cuts.test_start_ms)
    for model in ("lstm", "hmm", "hmm_lookahead"):
        assert numbers["documents"]["test"][model] == wanted[model]
    rows = [row for row in numbers["figures"] if row["range"] == "test"]
    told = {(row["model"], row["symbol"]): row for row in rows}
    assert told["lstm", "ETHUSDT"]["accuracy"] == wanted["lstm"]["symbols"]["ETHUSDT"]["accuracy"]
    assert told["lstm", "all"]["ece_low"] == wanted["lstm"]["pooled"]["ece_ci"][0]
    assert told["limit", "all"]["near"] is None
    assert len(told) == 3 * 3 + 7
    assert len(images) == 3 * 2 + 2 * 4
    assert all(png.startswith(b"\x89PNG") for png in images.values())


def test_every_goal_is_judged_and_the_missed_ones_are_named(figures) -> None:
    numbers, _ = figures
    goals = {(goal["range"], goal["goal"]): goal for goal in numbers["goals"]}
    assert len(goals) == len(numbers["goals"]) == 3 * 8 + 3
    looked = goals["test", "HMM look-ahead accuracy"]
    assert looked["met"] == (looked["value"] >= 0.95)
    lstm = goals["validation", "LSTM accuracy"]
    assert not lstm["met"]
    assert f"validation LSTM accuracy {lstm['value']:.4f}, goal >= 0.945" in numbers["missed"]
    overfit = goals["validation", "LSTM training accuracy above validation"]
    assert overfit["value"] is None
    assert not overfit["met"]
    assert goals["validation", "HMM mean refit agreement"]["needs"] == 0.95
    assert len(numbers["missed"]) == sum(not goal["met"] for goal in goals.values())


def test_a_goal_is_met_on_its_own_side_only() -> None:
    assert Goal("test", "a", 0.945, ">=", 0.945).met
    assert not Goal("test", "a", 0.9449, ">=", 0.945).met
    assert Goal("test", "ece", 0.01, "<=", 0.01).met
    assert not Goal("test", "ece", 0.0101, "<=", 0.01).met
    assert str(Goal("test", "a", None, ">=", 0.9)) == "test a unknown, goal >= 0.9"


def test_without_unseen_symbols_and_with_many_windows_less_is_asked(
    registry, small_market, monkeypatch
) -> None:
    monkeypatch.setattr(evaluation_report_module, "LSTM_WINDOWS", 500)
    numbers, _ = evaluation_report(registry.load("1h"), small_market.series, lambda *_: None)
    ranges = {row["range"]: row for row in numbers["ranges"]}
    assert list(ranges) == ["validation", "test"]
    assert ranges["test"]["lstm_every"] == 5
    assert ranges["test"]["lookahead_rows"] == ranges["test"]["lstm_rows"]
    assert numbers["documents"]["test"]["lstm"]["pooled"]["delay"] is None
    hmm_alone = ModelPair("1h", registry.load("1h").hmm, None)
    with pytest.raises(ModelError, match="no LSTM is promoted"):
        evaluation_report(hmm_alone, small_market.series, lambda *_: None)


# ---------------------------------------------------------------------------- scoring
def scored(labels, estimate, rows, blocks=None):
    blocks = np.arange(len(labels)) // 50 if blocks is None else blocks
    return scoring.score(scoring.count(np.asarray(labels), estimate, rows, blocks))


def test_near_delay_and_misses_are_counted_as_described() -> None:
    labels = np.array([-1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 0, 3, 3, 3, 3])
    named = np.array([0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 0, 2, 2, 2, 2, 3, 3, 3])
    rows = labels >= 0
    found = scored(labels, scoring.Estimate(named), rows)
    assert found["accuracy"] == pytest.approx(12 / 17)
    # switches lie before rows 5, 13 and 14: near are 2..7 and 10..16
    assert found["near"] == pytest.approx(8 / 13)
    assert found["far"] == pytest.approx(1.0)
    # onset 5 is named at 7, onset 13 never, onset 14 at 15; the first segment's onset is unseen
    assert found["delay"] == pytest.approx(1.5)
    assert found["missed"] == pytest.approx(1 / 3)
    assert found["ece"] is None


def test_calibration_error_is_the_textbook_sum() -> None:
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(5), 2_000)
    labels = rng.integers(0, 5, 2_000)
    found = scored(labels, scoring.Estimate.of(shares), np.ones(2_000, dtype=bool))
    top, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (top > low) & (top <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(top[inside].mean() - right[inside].mean())
    assert found["ece"] == pytest.approx(expected)


def test_a_missing_estimate_is_wrong_and_nothing_scored_is_none() -> None:
    shares = np.full((3, 5), np.nan)
    shares[0] = [1, 0, 0, 0, 0]
    estimate = scoring.Estimate.of(shares)
    assert estimate.named.tolist() == [0, -1, -1]
    everything = np.ones(3, dtype=bool)
    plain = scoring.Estimate(estimate.named)
    assert scored(np.zeros(3, dtype=int), plain, everything)["accuracy"] == 1 / 3
    nothing = scored(np.zeros(3, dtype=int), estimate, ~everything)
    assert set(nothing.values()) == {None}
    assert scoring.block_interval([]) is None
    assert scoring.intervals([]) == {}
    assert scoring.pool([]) == {}
    assert scoring.pool([{"a": 1.0}, {"a": None}]) == {"a": None}


def test_the_block_interval_covers_the_truth_for_dependent_candles() -> None:
    rng = np.random.default_rng(3)
    covered, widths = 0, []
    for draw in range(120):
        blocks = np.repeat(np.arange(40), 50)
        rate = np.clip(0.8 + 0.15 * rng.normal(size=40), 0, 1)[blocks]
        symbols = [(blocks, (rng.random(2_000) < rate).astype(float)) for _ in range(2)]
        low, high = scoring.block_interval(symbols, seed=draw)
        truth = 0.8 - 0.0075  # clipping at 1 lowers the mean a little
        covered += low <= truth <= high
        widths.append(high - low)
    assert covered / 120 > 0.86
    assert np.mean(widths) > 3 * 2 * 1.96 * (0.16 / 4_000) ** 0.5 / 2


def test_each_interval_is_that_of_scoring_the_drawn_candles_again(monkeypatch) -> None:
    """The sums by block give what a plain bootstrap of the candles' own rows gives."""
    monkeypatch.setattr(scoring, "DRAWS", 60)
    rng = np.random.default_rng(4)
    n, size = 1_200, 40
    labels = np.repeat(rng.integers(0, 5, n // 12), 12)
    shares = rng.dirichlet(np.ones(5), n)
    shares[np.arange(n), labels] += 1.0
    shares /= shares.sum(axis=1, keepdims=True)
    rows, blocks = np.ones(n, dtype=bool), np.arange(n) // size
    counts = scoring.count(labels, scoring.Estimate.of(shares), rows, blocks)
    found = scoring.intervals([counts])
    named = shares.argmax(axis=1)
    drawn = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=scoring.DRAWS)
    plain = []
    for times in drawn:
        at = np.repeat(np.arange(n), times[blocks])
        plain.append(
            (
                sk.accuracy_score(labels[at], named[at]),
                sk.balanced_accuracy_score(labels[at], named[at]),
                sk.f1_score(labels[at], named[at], average="macro"),
            )
        )
    low, high = np.percentile(plain, [2.5, 97.5], axis=0)
    for name, one, other in zip(
        ("accuracy", "balanced_accuracy", "macro_f1"), low, high, strict=True
    ):
        assert found[name] == pytest.approx((one, other), abs=1e-12)
    right = (named == labels).astype(float)
    assert found["accuracy"] == scoring.block_interval([(blocks, right)])
    exact = scoring.score(counts)
    for name, value in exact.items():
        assert found[name][0] <= value <= found[name][1], name


def test_an_interval_of_two_symbols_draws_the_same_weeks_for_both() -> None:
    rng = np.random.default_rng(6)
    labels, blocks = rng.integers(0, 5, 2_000), np.arange(2_000) // 50
    noisy = np.where(rng.random(2_000) < 0.5 + 0.4 * (blocks % 2), labels, (labels + 1) % 5)
    rows = np.ones(2_000, dtype=bool)
    one = scoring.count(labels, scoring.Estimate(noisy), rows, blocks)
    alone, twice = scoring.intervals([one]), scoring.intervals([one, one])
    assert twice["accuracy"] == pytest.approx(alone["accuracy"])
    assert alone["ece"] is None
    later = scoring.count(labels, scoring.Estimate(noisy), rows, blocks + 40)
    low, high = scoring.intervals([one, later])["accuracy"]
    assert high - low < alone["accuracy"][1] - alone["accuracy"][0]


def test_the_interval_of_the_calibration_error_holds_what_was_measured() -> None:
    rng = np.random.default_rng(8)
    shares = rng.dirichlet(np.ones(5), 3_000)
    labels = np.array([rng.choice(5, p=row) for row in shares])
    counts = scoring.count(
        labels, scoring.Estimate.of(shares), np.ones(3_000, dtype=bool), np.arange(3_000) // 100
    )
    measured = scoring.score(counts)["ece"]
    low, high = scoring.intervals([counts])["ece"]
    assert 0.0 <= low < measured < high < 2.5 * measured
