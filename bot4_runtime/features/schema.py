"""What the candle features are called, how they are computed, and the id that pins both.

Every feature is causal and dimensionless. With r the log return of a candle, W = 72 and
rv = sqrt(sum of r^2 over the last W candles), floored at `RV_FLOOR` for dead markets:

    return             r / (rv / sqrt W)
    trend_k            sum of the last W - k returns / rv; trend_0 is z, the trend the HMM sees
    rsi                Wilder's RSI over 14, as a share, minus 1/2
    macd, macd_signal  MACD(12, 26, 9) of log price / (rv / sqrt W)
    bollinger          %b of log price over 20 candles and 2 deviations, minus 1/2
    wick               (ln high + ln low - 2 ln close) / (rv / sqrt W)
    volume_ratio       ln(volume / mean volume of the last 10)
    range              ln((ln high - ln low) / (rv / sqrt W))
    volatility_24      ln(rv over the last 24 candles / rv)
    volatility_level   ln rv minus the median of ln rv over the last 250

A row exists where `LOOKBACK` contiguous closed candles end; recursions are defined as started at
the first of them. `batch` and `incremental` start them at the beginning of the contiguous run
instead, which differs by less than 1e-9. The five Viterbi-score columns, which need a fitted HMM,
are appended in `regime`.
"""

import hashlib
import json
import math
from functools import lru_cache
from typing import Final

import numpy as np

LOOKBACK: Final = 512
"""Contiguous closed candles, the current one included, that a feature row needs."""
TREND_WINDOW: Final = 72
"""W: candles over which trend and volatility are measured."""
TREND_LAGS: Final = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 36, 48, 60)
"""k of trend_k: how many of the oldest returns have left the window."""
RSI_WINDOW: Final = 14
MACD_SPANS: Final = (12, 26, 9)
BOLLINGER_WINDOW: Final = 20
VOLUME_WINDOW: Final = 10
SHORT_WINDOW: Final = 24
LEVEL_WINDOW: Final = 250

RV_FLOOR: Final = 1e-6
"""Least volatility: below it a market is dead and its trend is 0, not noise."""
RSI_FLOOR: Final = 1e-9
RATIO_FLOOR: Final = 1e-3
"""Least ratio inside a logarithm: a candle without trades or range is rare, not infinite."""

_VERSIONS: Final[dict[str, int]] = {
    "return": 1,
    **{f"trend_{lag}": 1 for lag in TREND_LAGS},
    "rsi": 1,
    "macd": 1,
    "macd_signal": 1,
    "bollinger": 1,
    "wick": 1,
    "volume_ratio": 1,
    "range": 1,
    "volatility_24": 1,
    "volatility_level": 1,
}
"""Raise a feature's number when its meaning changes."""

FEATURE_NAMES: Final[tuple[str, ...]] = tuple(_VERSIONS)
"""Columns of a feature row, in order."""

_EVEN: Final = frozenset({"volume_ratio", "range", "volatility_24", "volatility_level"})
ODD: Final[tuple[bool, ...]] = tuple(name not in _EVEN for name in FEATURE_NAMES)
"""Which columns change sign when every price is replaced by its inverse."""

_PROBE_CANDLES: Final = 640
_PROBE_STEP: Final = 16


def probe_candles() -> dict[str, np.ndarray]:
    """Return the built-in candles whose feature rows are part of the schema id.

    They come from integer arithmetic alone, so that no library's generator can change them.

    Returns:
        Columns ``open high low close volume``, float64[640] each.
    """
    state = 20_180_101

    def draw() -> float:
        nonlocal state
        state = (1_103_515_245 * state + 12_345) % 2**31
        return state / 2**31 - 0.5

    rows = []
    price = 100.0
    for _ in range(_PROBE_CANDLES):
        opened, price = price, price * (1.0 + 0.02 * (draw() + draw() + draw()))
        high = max(opened, price) * (1.0 + 0.003 * (0.5 + draw()))
        low = min(opened, price) * (1.0 - 0.003 * (0.5 + draw()))
        rows.append((opened, high, low, price, 1_000.0 * (1.1 + draw() + draw())))
    columns = np.array(rows, dtype=np.float64).T
    return dict(zip(("open", "high", "low", "close", "volume"), columns, strict=True))


@lru_cache(maxsize=1)
def feature_schema_id() -> str:
    """Return the sha256 that pins names, order, parameters, versions and computed rows.

    The rows of `probe_candles`, rounded to 1e-9, are hashed too: code that computes another
    number has another id, whatever it says about itself.
    """
    from bot4_runtime.features.batch import compute_run

    probe = probe_candles()
    run = compute_run(probe["high"], probe["low"], probe["close"], probe["volume"])
    rows = run.values[LOOKBACK - 1 :: _PROBE_STEP]
    if not np.isfinite(rows).all():  # pragma: no cover - the probe is a constant
        raise AssertionError("the built-in candles must give finite rows")
    document = {
        "features": _VERSIONS,
        "odd": ODD,
        "lookback": LOOKBACK,
        "trend_window": TREND_WINDOW,
        "windows": [RSI_WINDOW, *MACD_SPANS, BOLLINGER_WINDOW, VOLUME_WINDOW],
        "long_windows": [SHORT_WINDOW, LEVEL_WINDOW],
        "floors": [RV_FLOOR, RSI_FLOOR, RATIO_FLOOR],
        "rows": [[f"{value + 0.0:.9f}" for value in np.round(row, 9)] for row in rows],
    }
    text = json.dumps(document, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


ROOT_W: Final = math.sqrt(TREND_WINDOW)
