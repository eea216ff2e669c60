"""The card's plots draw what was counted."""

import numpy as np
import pytest

from bot4_pipelines.training import model_card as m
from bot4_pipelines.training.evaluation import HMM, LSTM, Judged, judge
from bot4_pipelines.training.scoring import Estimate

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
    images = m.lstm_images({"test": judged}, history, small_market.series[0])
    assert len(images) == 4
    assert all(png.startswith(PNG) for png in images.values())
    assert len(m.lstm_images({"test": judged}, history)) == 3
