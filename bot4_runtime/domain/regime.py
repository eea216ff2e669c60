"""The five regimes: the state of the market's volatility-normalised 72-candle trend.

They name the present. They do not predict.
"""

from enum import IntEnum, StrEnum

import msgspec


class Regime(IntEnum):
    """Ordered by trend; the numbers are the models' class indices."""

    STRONG_BEAR = 0
    BEAR = 1
    NEUTRAL = 2
    BULL = 3
    STRONG_BULL = 4

    @property
    def label(self) -> str:
        """``StrongBear`` … ``StrongBull``."""
        return "".join(part.capitalize() for part in self.name.split("_"))


REGIME_LABELS: tuple[str, ...] = tuple(regime.label for regime in Regime)


class EstimateSource(StrEnum):
    """Which model named the regime."""

    LSTM = "lstm"
    HMM_FILTER = "hmm_filter"
    HMM_LOOKAHEAD = "hmm_lookahead"


class HmmMode(StrEnum):
    """How the HMM names a candle's regime; both ways see candles up to it alone."""

    FILTER = "filter"
    LOOKAHEAD = "lookahead"


class RegimeEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """A causal estimate made from candles up to and including `open_time_ms`.

    Attributes:
        probabilities: calibrated posterior over `Regime`, length 5, sums to 1.
        confidence: its largest entry.
        hmm_regime: the HMM's naming of the same candle, shown beside it.
        volatility: standard deviation of one candle's log return over the last 72, > 0.
        model_sha256: of the ONNX file that made the estimate.
        schema_id: of the features it was made from.
        unseen_symbol: the symbol was not among the model's training symbols.
    """

    symbol: str
    interval: str
    open_time_ms: int
    regime: Regime
    probabilities: tuple[float, float, float, float, float]
    confidence: float
    source: EstimateSource
    hmm_regime: Regime
    hmm_confidence: float
    volatility: float
    model_sha256: str
    schema_id: str
    unseen_symbol: bool = False
