"""The card's plots draw what was counted."""

import numpy as np
import pytest

from bot4_pipelines.training import model_card as m
from bot4_pipelines.training.candidates import return_blocks
from bot4_pipelines.training.card import card_markdown, model_card
from bot4_pipelines.training.dataset import INPUT_NAMES
from bot4_pipelines.training.estimates import lookahead_estimates
from bot4_pipelines.training.hmm_figures import hmm_images, hmm_metrics, judge_hmm
from bot4_pipelines.training.judged import HMM, LOOKAHEAD, LSTM, Judged, judge
from bot4_pipelines.training.scoring import Estimate
from bot4_runtime.regime.lookahead import LookAhead
from bot4_runtime.regime.manifest import GateVerdict, Manifest, ModelKind

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def judged(small_market) -> list[Judged]:
    rng = np.random.default_rng(1)
    found = []
    for rows in small_market.rows:
        one = judge(rows, small_market.params, slice(4_800, 5_997), interval_ms=3_600_000)
        shares = rng.dirichlet(np.ones(5), len(rows.table))
        named = one.scored & (rng.random(len(rows.table)) < 0.9)
        estimates = {**one.estimates, LSTM: Estimate.of(shares)}
        found.append(Judged(one.symbol, one.labels, one.scored, named, one.blocks, estimates))
    return found


def test_confusion_counts_each_scored_row_once(judged) -> None:
    table = m.confusion(judged, HMM)
    assert table.sum() == sum(one.named.sum() for one in judged)
    right = sum((one.labels == one.estimates[HMM].named)[one.named].sum() for one in judged)
    assert np.trace(table) == right
    one = judged[0]
    alone = m.confusion([one], HMM)
    pairs = zip(one.labels[one.named], one.estimates[HMM].named[one.named], strict=True)
    assert alone[2, 3] == sum(pair == (2, 3) for pair in pairs)


def test_calibration_bins_hold_all_rows(judged) -> None:
    bins = m.calibration(judged)
    assert bins[:, 2].sum() == pytest.approx(1.0)
    known = bins[:, 2] > 0
    edges = np.arange(10) / 10
    assert (bins[known, 0] >= edges[known]).all()
    assert (bins[known, 0] <= edges[known] + 0.1).all()


def test_every_image_is_a_png(judged, small_market) -> None:
    look = {"train_loss": 1.0, "validation_loss": 1.0, "validation_accuracy": 0.5}
    history = [{"iteration": float(i), **look} for i in (1, 2)]
    drift = m.drift_samples(small_market.rows, small_market.cuts, most=500)
    images = m.lstm_images({"test": judged}, history, small_market.series[0], drift)
    assert len(images) == 5
    assert all(png.startswith(PNG) for png in images.values())
    assert len(m.lstm_images({"test": judged}, history)) == 3


def test_drift_is_shown_of_training_and_test_rows_alone(small_market) -> None:
    rows, cuts = small_market.rows, small_market.cuts
    found = m.drift_samples(rows, cuts, most=10**9)
    assert tuple(found) == INPUT_NAMES
    learnt, recent = found["trend_0"]
    column = INPUT_NAMES.index("trend_0")
    wanted = []
    for one in rows:
        times, usable = one.table.open_time_ms, one.learnable
        in_training = usable & (times < cuts.validation_start_ms)
        in_test = usable & (times >= cuts.test_start_ms) & (times < cuts.end_ms)
        wanted.append([one.inputs[which, column] for which in (in_training, in_test)])
    np.testing.assert_array_equal(learnt, np.concatenate([pair[0] for pair in wanted]))
    np.testing.assert_array_equal(recent, np.concatenate([pair[1] for pair in wanted]))
    thin, _ = m.drift_samples(rows, cuts, most=500)["trend_0"]
    assert 250 < len(thin) <= 500
    assert set(thin) <= set(learnt)


# ------------------------------------------------------------------------ the HMM's card
@pytest.fixture(scope="module")
def both_modes(small_market):
    tables = {rows.symbol: rows.table for rows in small_market.rows}
    train = {rows.symbol: slice(0, 3_600) for rows in small_market.rows}
    look = LookAhead(small_market.params, return_blocks(tables, train))
    return judge_hmm(tables, look, small_market.cuts, 3_600_000), look


def test_both_modes_are_judged_on_the_same_rows(both_modes, small_market) -> None:
    judged, look = both_modes
    assert list(judged) == ["validation", "test"]
    whole = small_market.rows[0]
    for split, part in (("validation", slice(3_600, 4_800)), ("test", slice(4_800, 6_000))):
        one = judged[split][0]
        rows = np.flatnonzero(one.named)
        assert part.start + 200 <= rows[0]
        assert rows[-1] < part.stop - 24
        wanted = lookahead_estimates(look, whole, one.named)
        found = one.estimates[LOOKAHEAD].probabilities
        # Scores restarted some time before the split, so one future of 64 may tip over.
        np.testing.assert_allclose(found, wanted, atol=1 / 64)
        filtered = one.estimates[HMM].named
        alone = judge(whole, small_market.params, part, interval_ms=3_600_000)
        np.testing.assert_array_equal(filtered, alone.estimates[HMM].named)


def test_the_hmm_card_tells_both_modes_and_the_limit(both_modes, small_market) -> None:
    judged, _ = both_modes
    metrics = hmm_metrics(judged)
    for split in ("validation", "test"):
        ahead = metrics[f"hmm_lookahead_{split}"]
        assert ahead["accuracy_low"] < ahead["accuracy"] < ahead["accuracy_high"]
        assert ahead["rows"] == sum(one.named.sum() for one in judged[split])
        beside = metrics[f"baselines_{split}"]
        assert beside["hmm_lookahead"] == ahead["accuracy"]
        assert beside["limit"] == pytest.approx(ahead["accuracy"], abs=0.05)
    tables = {rows.symbol: rows.table for rows in small_market.rows}
    images = hmm_images(
        judged, [-3.0, -2.0, -1.9], small_market.series[0], tables, small_market.cuts
    )
    assert len(images) == 7
    assert all(png.startswith(PNG) for png in images.values())


def manifest(small_market, **changes):
    one = small_market.series[0].id
    splits = {"accuracy": 0.941, "accuracy_low": 0.93, "accuracy_high": 0.95, "rows": 12_345.0}
    fields = {
        "kind": ModelKind.HMM, "schema_id": "s" * 64, "feature_names": ("z",), "interval": "1h",
        "origin": one.origin, "market": one.market, "symbols": ("BTCUSDT", "ETHUSDT"),
        "cuts": small_market.cuts, "data_sha256": "d" * 64, "golden": (), "created_ms": 0,
        "expires_ms": 2**40, "code_version": "test",
        "metrics": {
            "validation": splits,
            "test": splits | {"accuracy": 0.9, "delay": None},
            "baselines_test": {"hmm_lookahead": 0.95},
            "random_walk": {"accuracy": 0.9055, "accuracy_low": 0.897, "accuracy_high": 0.914},
        },
        "gates": (GateVerdict(name="accuracy", passed=False, value=0.8, threshold=0.85),),
    } | changes  # fmt: skip
    return Manifest(**fields)


def test_the_card_says_where_each_number_comes_from(small_market) -> None:
    page = model_card(manifest(small_market), {"a <plot>": PNG})
    text = card_markdown(manifest(small_market))
    for cell in (
        "simulated spot 1h, BTCUSDT, ETHUSDT", "1970-01-01 to 1970-05-31",
        "1970-05-31 to 1970-07-20", "1970-07-20 to 1970-09-08", "12,345",
        "0.9410 (0.9300–0.9500)", "0.9500", "0.9055 (0.8970–0.9140)",
    ):  # fmt: skip
        assert f"<td>{cell}" in page
        assert f"| {cell} |" in text
    for said in ("predicts nothing", "random walk", "resampling weeks"):
        assert said in page
        assert said in text
    assert "Simulated market" in page
    assert "REFUSED" in page
    assert "a &lt;plot&gt;" in page
    bare = model_card(manifest(small_market, metrics={}, gates=()), {})
    assert "Compared with" not in bare
    assert "Compared with" not in card_markdown(manifest(small_market, metrics={}))
