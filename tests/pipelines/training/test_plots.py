"""Plots are whole PNGs whatever they are given."""

import struct

import numpy as np
import pytest

from bot4_pipelines.training import plots

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HOUR = 3_600_000
TIMES = np.arange(3_000) * HOUR + 1_577_836_800_000
CLOSE = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 3_000)))
STICKY = np.full((5, 5), 0.02) + np.eye(5) * 0.9
LOOK = {"iteration": 1.0, "train_loss": 1.0, "validation_loss": 1.1, "validation_accuracy": 0.5}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.price_history({"BTC": (TIMES, CLOSE)}, {"test": int(TIMES[2_000])}),
        lambda: plots.price_history({"BTC": (TIMES[:1], CLOSE[:1])}),
        lambda: plots.regime_bands(TIMES, CLOSE, (np.arange(3_000) // 40) % 6 - 1, "BTC"),
        lambda: plots.hmm_states(
            np.array([-1.3, -0.6, 0, 0.6, 1.3]), np.full(5, 0.1), STICKY, np.array([0.0, np.nan])
        ),
        lambda: plots.training_history([LOOK]),
        lambda: plots.likelihood([-3.0, -2.0]),
        lambda: plots.distributions({"a": np.zeros(9)}, {"a": np.ones(4)}, ("then", "now")),
        lambda: plots.accuracy_bars({"LSTM": (0.94, 0.93, 0.95)}, 0.9, "test"),
        lambda: plots.accuracy_bars({"LSTM": (0.94, 0.93, 0.95)}, None, "test"),
        lambda: plots.rule_evidence({"a": (0.01, 0.03), "b": (-0.01, None)}),
    ],
)
def test_a_plot_is_a_png_of_readable_size(draw):
    png = draw()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    assert width == 720
    assert height > 80
    assert len(png) < 120_000


def test_markdown_carries_the_picture_itself():
    assert plots.as_markdown(b"png", "price") == "![price](data:image/png;base64,cG5n)"
