"""From a candle's feature row to the regime it is in: the only door between models and trading.

The LSTM's estimate trades; with a pair that has no valid LSTM the HMM's does, by its filter or by
looking ahead; where neither can answer there is no estimate, and nothing is entered. A missing
candle restarts a symbol. Which files are promoted is `registry`'s business.
"""

import math
from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.regime import EstimateSource, HmmMode, Regime, RegimeEstimate
from bot4_runtime.features.incremental import FeatureRow
from bot4_runtime.features.schema import FEATURE_NAMES, LOOKBACK, ROOT_W, TREND_WINDOW
from bot4_runtime.regime.hmm import STATES, ViterbiScores, viterbi_scores
from bot4_runtime.regime.loader import LSTM_COLUMNS
from bot4_runtime.regime.lookahead import LookAhead
from bot4_runtime.regime.manifest import MOST_WINDOW
from bot4_runtime.regime.pair import ModelPair

SUM_TOLERANCE: Final = 1e-4
"""How far from 1 a posterior may sum."""
_KEPT_TRENDS: Final = LOOKBACK + MOST_WINDOW
_ROOM: Final = 1_024
_PLAIN: Final = len(FEATURE_NAMES)

_SOURCES: Final = {
    HmmMode.FILTER: EstimateSource.HMM_FILTER,
    HmmMode.LOOKAHEAD: EstimateSource.HMM_LOOKAHEAD,
}

Probabilities = tuple[float, float, float, float, float]


class _Memory:
    """What is remembered of one symbol's run: trends, returns, rows for the longest window.

    Of any pair: the next one's LSTM may read more candles than this one's.
    """

    __slots__ = ("end", "leading", "log_prior", "returns", "rows", "scores", "trends", "valid")

    def __init__(self, pair: ModelPair) -> None:
        self.rows = np.zeros((_ROOM, len(LSTM_COLUMNS)), dtype=np.float32)
        self.trends: deque[float] = deque(maxlen=_KEPT_TRENDS)
        self.returns: deque[float] = deque(maxlen=TREND_WINDOW)
        self.restart(pair)

    def restart(self, pair: ModelPair) -> None:
        """Forget everything before the next candle."""
        params = pair.hmm.parameters()
        self.end = 0
        self.valid = 0
        self.trends.clear()
        self.returns.clear()
        self.leading = np.full(STATES, np.nan)
        self.scores = ViterbiScores(params)
        self.log_prior: npt.NDArray[np.float64] = params.log_stationary[None]

    def _follow_again(self, pair: ModelPair) -> None:
        """Make the scores and the filter anew under a pair's HMM, along the trends."""
        if not self.trends:
            return
        params = pair.hmm.parameters()
        z = np.array(self.trends)
        again = viterbi_scores(z, params)
        self.leading = again[-1]
        count = min(self.valid, MOST_WINDOW, len(z))
        self.rows[self.end - count : self.end, _PLAIN:] = again[len(z) - count :]
        for emission in params.log_emissions(z):
            self.scores.follow(emission)
        self.log_prior = pair.hmm.run({"obs": z[None, :, None], "log_prior": self.log_prior})[1]

    def copy(self, pair: ModelPair) -> "_Memory":
        """Return a memory of the same candles under another pair."""
        other = _Memory(pair)
        other.rows[: self.end] = self.rows[: self.end]
        other.trends.extend(self.trends)
        other.returns.extend(self.returns)
        other.end, other.valid = self.end, self.valid
        other._follow_again(pair)
        return other

    def append(self, values: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> None:
        """Take a valid row into the window."""
        if self.end == _ROOM:
            self.rows[: MOST_WINDOW - 1] = self.rows[_ROOM - MOST_WINDOW + 1 :]
            self.end = MOST_WINDOW - 1
        row = self.rows[self.end]
        row[:_PLAIN] = values
        row[_PLAIN:] = scores
        self.end += 1
        self.valid += 1

    def look(self, ahead: LookAhead) -> Probabilities | None:
        """Ask the look-ahead about the last candle; None when its trend window is not whole."""
        if len(self.returns) < TREND_WINDOW:
            return None
        gaps = np.expm1(self.leading)[None]
        return _distribution(ahead.posterior(np.array([self.returns]), gaps))

    def window(self, length: int) -> npt.NDArray[np.float32]:
        """Return the last rows as one batch, float32[1, length, F + 5]; a view."""
        return self.rows[None, self.end - length : self.end]


class RegimeDetector:
    """Names the regime of each closed candle, any number of symbols side by side."""

    def __init__(self, pair: ModelPair, mode: HmmMode = HmmMode.FILTER) -> None:
        """Begin with no candle seen.

        Args:
            pair: the models.
            mode: how the HMM names regimes.

        Raises:
            ModelError: the HMM is to look ahead, and its file carries no blocks to do so.
        """
        self._mode = mode
        self._look = pair.look_ahead() if mode is HmmMode.LOOKAHEAD else None
        self._pair = pair
        self._memories: dict[str, _Memory] = {}
        self.faults = 0
        """Answers of the models that were no distribution."""

    @property
    def pair(self) -> ModelPair:
        """The models that are asked."""
        return self._pair

    def swap(self, pair: ModelPair) -> None:
        """Ask another pair from the next candle on; windows are kept.

        Whatever is raised, from within the new models too, the old pair is asked on.

        Raises:
            ModelError: the new HMM cannot look ahead.
        """
        look = pair.look_ahead() if self._look is not None else None
        memories = {symbol: memory.copy(pair) for symbol, memory in self._memories.items()}
        self._pair, self._look, self._memories = pair, look, memories

    def fork(self, pair: ModelPair) -> "RegimeDetector":
        """Return a detector of another pair that has seen the same candles."""
        other = RegimeDetector(pair, self._mode)
        other._memories = {symbol: memory.copy(pair) for symbol, memory in self._memories.items()}
        return other

    def warm(self, candle: Candle, row: FeatureRow) -> None:
        """Take a candle of the past into memory without naming it."""
        self._follow(candle, row)

    def update(self, candle: Candle, row: FeatureRow) -> RegimeEstimate | None:
        """Name the regime of a candle from candles up to it (filtered).

        Args:
            candle: of the pair's interval, each symbol's in order.
            row: its features.

        Returns:
            None where no model may or can answer: too few candles since the start or the last
            gap, a symbol the pair does not admit, or an answer that is no distribution.
        """
        memory, hmm = self._follow(candle, row)
        pair = self._pair
        if hmm is None or not row.valid or not pair.admits(candle.symbol):
            return None
        if self._look is not None:
            hmm = memory.look(self._look)
            if hmm is None:
                return None
        if pair.lstm is None:
            source, model, answer = _SOURCES[self._mode], pair.hmm, hmm
        else:
            source, model = EstimateSource.LSTM, pair.lstm
            length = model.manifest.window
            if memory.valid < length:
                return None
            named = _distribution(model.run({"features": memory.window(length)})[0])
            if named is None:
                self.faults += 1
                return None
            answer = named
        confidence = max(answer)
        hmm_confidence = max(hmm)
        return RegimeEstimate(
            symbol=candle.symbol,
            interval=candle.interval,
            open_time_ms=candle.open_time_ms,
            regime=Regime(answer.index(confidence)),
            probabilities=answer,
            confidence=confidence,
            source=source,
            hmm_regime=Regime(hmm.index(hmm_confidence)),
            hmm_confidence=hmm_confidence,
            volatility=row.rv / ROOT_W,
            model_sha256=model.sha256,
            schema_id=model.manifest.schema_id,
            unseen_symbol=candle.symbol not in model.manifest.symbols,
        )

    def _follow(self, candle: Candle, row: FeatureRow) -> tuple[_Memory, Probabilities | None]:
        """Carry a symbol's memory on; return it with the HMM filter's posterior."""
        memory = self._memories.get(candle.symbol)
        if memory is None:
            memory = self._memories[candle.symbol] = _Memory(self._pair)
        elif row.contiguous == 1:
            memory.restart(self._pair)
        memory.returns.append(row.log_return)
        if not math.isfinite(row.z):
            return memory, None
        memory.trends.append(row.z)
        filtered, log_prior, _ = self._pair.hmm.run(
            {"obs": np.full((1, 1, 1), row.z), "log_prior": memory.log_prior}
        )
        hmm = _distribution(filtered[0])
        if hmm is not None:
            memory.log_prior = log_prior
        else:
            self.faults += 1
        memory.leading = memory.scores.update(row.z)
        if row.valid:
            memory.append(row.values, memory.leading)
        return memory, hmm


def _distribution(answer: npt.NDArray[np.floating]) -> Probabilities | None:
    """Return the one row of a model's answer; None unless it is finite, >= 0 and sums to 1."""
    first, second, third, fourth, fifth = answer[0].tolist()
    values = (first, second, third, fourth, fifth)
    total = sum(values)
    if not (min(values) >= 0.0 and abs(total - 1.0) <= SUM_TOLERANCE):
        return None
    return values
