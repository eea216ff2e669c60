"""The look-ahead estimate: one candle as the detector asks for it, and many at once.

Windows and scores are of a simulated market's last candles, so that Viterbi has doubts where it
has them in life; the futures are those of a drawn pool of 170 blocks, as an HMM file carries. The
whole detector is timed in both modes, without an LSTM: the difference is what looking ahead costs
a candle.
"""

from types import SimpleNamespace

import numpy as np

from benchmarks.harness import EMPTY_CALL, Result, floors, measure
from bot4_pipelines.training.dataset import CANDLE_FEATURES, symbol_rows
from bot4_pipelines.training.definition_gate import reference_hmm
from bot4_pipelines.training.hmm_export import hmm_graph
from bot4_pipelines.training.lstm_export import open_session
from bot4_pipelines.training.soft_labels import trend_returns
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.regime import HmmMode
from bot4_runtime.features.incremental import FeatureRow, FeatureState
from bot4_runtime.regime.detector import RegimeDetector
from bot4_runtime.regime.loader import LoadedModel
from bot4_runtime.regime.pair import ModelPair

TITLE = "Look-ahead: 64 futures of 24 candles"
HOUR = 3_600_000
BATCH = 128
GOAL_NS = 20e6


def run() -> list[Result]:
    series = SimulatedMarket(3).series("BTCUSDT", "1h", 450_000 * HOUR, 451_500 * HOUR)
    pair = _pair()
    look = pair.look_ahead()
    rows = symbol_rows(series, look.params)
    at = np.flatnonzero(rows.table.valid)[-BATCH:]
    returns = trend_returns(rows.table.log_return, at)
    gaps = np.expm1(rows.inputs[at, CANDLE_FEATURES:])
    assert np.isfinite(look.posterior(returns, gaps)).all()
    return [
        *floors(),
        measure(
            "look-ahead estimate, one candle", look.posterior, returns[-1:], gaps[-1:],
            goal=GOAL_NS, floor=EMPTY_CALL,
        ),
        measure(
            f"look-ahead estimate, a candle of {BATCH}", look.posterior, returns, gaps,
            per_call=BATCH, floor=EMPTY_CALL,
        ),
        _detector("detector, HMM filter", series, pair, HmmMode.FILTER),
        _detector("detector, HMM look-ahead", series, pair, HmmMode.LOOKAHEAD),
    ]  # fmt: skip


def _pair() -> ModelPair:
    """An HMM file with the reference's parameters, trusted without being verified."""
    params = reference_hmm()
    blocks = np.random.default_rng(2).standard_t(5, size=(170, 24)) / 11.0
    manifest = SimpleNamespace(
        schema_id="", symbols=(), admits=lambda _: True,
        definition=SimpleNamespace(parameters=lambda: params),
    )  # fmt: skip
    hmm = LoadedModel("0" * 64, manifest, open_session(hmm_graph(params, blocks)))
    return ModelPair("1h", hmm, None)


def _detector(name: str, series: CandleSeries, pair: ModelPair, mode: HmmMode) -> Result:
    """Time the detector over the last candles again and again, as if they went on."""
    state, detector = FeatureState("BTCUSDT", "1h"), RegimeDetector(pair, mode)
    steps: list[tuple[Candle, FeatureRow]] = [(one, state.update(one)) for one in series]
    for step in steps:
        detector.warm(*step)

    def again() -> None:
        for step in steps[-10:]:
            assert detector.update(*step) is not None

    goal = GOAL_NS if mode is HmmMode.LOOKAHEAD else None
    return measure(name, again, per_call=10, goal=goal, floor=EMPTY_CALL)
