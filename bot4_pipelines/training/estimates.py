"""Asks open models what candles are: the LSTM by windows, the HMM's look-ahead by rows.

How right they are is `judged`'s business.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from bot4_pipelines.training.dataset import CANDLE_FEATURES, SymbolRows
from bot4_pipelines.training.soft_labels import trend_returns
from bot4_runtime.regime.hmm import STATES
from bot4_runtime.regime.lookahead import LookAhead

_BATCH: Final = 512


class Session(Protocol):
    """An open ONNX file, as ONNX Runtime gives it."""

    def run(self, outputs: Any, inputs: Mapping[str, Any]) -> Sequence[Any]:
        """Run the graph."""

    def get_inputs(self) -> Sequence[Any]:
        """Return what it asks for, each with its shape."""


def window_of(session: Session) -> int:
    """Return how many rows an open LSTM reads; the loader has held its manifest against it."""
    (features,) = session.get_inputs()
    return int(features.shape[1])


def lstm_estimates(session: Session, inputs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Ask the LSTM about windows of exactly as many rows as it reads.

    Args:
        session: the open file.
        inputs: float64[n, 28], unscaled.
        ends: int64[m], the rows at which the windows end.

    Returns:
        float64[n, 5], NaN where nothing was asked.
    """
    found = np.full((len(inputs), STATES), np.nan)
    rows = inputs.astype(np.float32)
    back = np.arange(1 - window_of(session), 1)
    for begin in range(0, len(ends), _BATCH):
        at = ends[begin : begin + _BATCH]
        found[at] = session.run(None, {"features": rows[at[:, None] + back]})[0]
    return found


def lookahead_estimates(look: LookAhead, rows: SymbolRows, wanted: np.ndarray) -> np.ndarray:
    """Look ahead from some rows of a symbol.

    Args:
        look: the look-ahead of the HMM that made the rows' Viterbi scores.
        rows: the symbol's candles.
        wanted: bool[n].

    Returns:
        float64[n, 5], NaN where nothing was asked.
    """
    found = np.full((len(rows.table), STATES), np.nan)
    at = np.flatnonzero(wanted)
    gaps = np.expm1(rows.inputs[at, CANDLE_FEATURES:])
    found[at] = look.posterior(trend_returns(rows.table.log_return, at), gaps)
    return found
