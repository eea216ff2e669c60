"""What stored candles of the same symbol say: NOT_THIS_MARKET, SHIFTED, VOLUME_UNIT, RESTATED.

Binance's archive, its API and every copy of them agree to the last digit; a few candles of years
are restated. So where half of the candles that are stored too differ, they are another market's:
USD-M instead of spot, another symbol, another scale, another time zone. Candles of another
interval are compared by opens at equal times.

Good candles: stored and read again, 100 % agree; hours against those made of minutes, 100 %.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_pipelines.ingest.quality.finding import Finding, Severity, found
from bot4_pipelines.ingest.quality.habits import not_this_market
from bot4_pipelines.ingest.quality_codes import Code
from bot4_runtime.candles.files import RawCandles
from bot4_runtime.candles.series import PRICE_COLUMNS, CandleSeries

AGREEING: Final = 0.5
"""Share of candles stored too that must agree; good data: 1, but for what is restated."""
ENOUGH: Final = 24
"""Candles stored too from which agreement is judged; below, only far prices are."""
OTHER_PRICE: Final = 0.02
"""Median distance of opens that no two copies of a symbol have."""
EQUAL: Final = 1e-9
"""Relative difference up to which two values are equal."""
SHIFTS: Final = 26
"""Hours and candles by which a series may be moved, either way."""
HOUR_MS: Final = 3_600_000


def reach_ms(interval_ms: int) -> int:
    """Return how far beyond its rows, either way, stored candles are compared with a series."""
    return SHIFTS * max(interval_ms, HOUR_MS)


def stored_findings(
    raw: RawCandles, interval_ms: int, stored: CandleSeries, *, traded: bool
) -> list[Finding]:
    """Compare rows with the stored series of the same symbol and market."""
    same = stored.interval_ms == interval_ms
    names = PRICE_COLUMNS if same else ("open",)
    mine, theirs = _common(raw.open_time_ms, stored.open_time_ms)
    agree = _agree(raw, stored, mine, theirs, names)
    if agree.size < ENOUGH or agree.mean() < AGREEING:
        moved = _shift(raw, stored, interval_ms, names)
        if moved:
            return [_shifted(raw, moved)]
        return _other_market(raw, stored, mine, theirs, agree)
    if not same:
        return []
    found_volume = _volumes(raw, stored, mine, theirs) if traded else []
    return found_volume or _restated(raw, stored, mine, theirs, agree, traded=traded)


def _common(
    times: NDArray[np.int64], others: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    _, mine, theirs = np.intersect1d(times, others, assume_unique=True, return_indices=True)
    return mine, theirs


def _agree(
    raw: RawCandles,
    stored: CandleSeries,
    mine: NDArray[np.intp],
    theirs: NDArray[np.intp],
    names: tuple[str, ...],
) -> NDArray[np.bool_]:
    agree = np.ones(mine.size, dtype=bool)
    for name in names:
        agree &= _equal(getattr(raw, name)[mine], getattr(stored, name)[theirs])
    return agree


def _equal(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.abs(one - other) <= EQUAL * np.abs(other))


def _shift(raw: RawCandles, stored: CandleSeries, interval_ms: int, names: tuple[str, ...]) -> int:
    """Return by how many ms the rows are the stored ones moved; 0 when they are not."""
    steps = {
        sign * k * unit
        for k in range(1, SHIFTS + 1)
        for unit in (interval_ms, HOUR_MS)
        for sign in (1, -1)
    }
    for by in sorted(steps, key=abs):
        mine, theirs = _common(raw.open_time_ms - by, stored.open_time_ms)
        if mine.size >= ENOUGH and _agree(raw, stored, mine, theirs, names).mean() >= AGREEING:
            return by
    return 0


def _shifted(raw: RawCandles, by_ms: int) -> Finding:
    message = (
        f"rows are the stored series moved by {by_ms / HOUR_MS:+g} h; expected open times in UTC"
    )
    return found(raw, Code.SHIFTED, Severity.ERROR, message, np.arange(len(raw)))


def _other_market(
    raw: RawCandles,
    stored: CandleSeries,
    mine: NDArray[np.intp],
    theirs: NDArray[np.intp],
    agree: NDArray[np.bool_],
) -> list[Finding]:
    if not mine.size:
        return []
    ratio = raw.open[mine] / stored.open[theirs]
    distance = float(np.median(np.abs(ratio - 1.0)))
    if distance > OTHER_PRICE:
        sign = f"opens are {distance:.1%} away from the stored series of the same symbol"
    elif agree.size >= ENOUGH:
        sign = (
            f"{1.0 - agree.mean():.0%} of the candles that are stored too differ, opens by a "
            f"factor of {np.median(ratio):.5g} in the median"
        )
    else:
        return []
    return [not_this_market(raw, [sign])]


def _volumes(
    raw: RawCandles, stored: CandleSeries, mine: NDArray[np.intp], theirs: NDArray[np.intp]
) -> list[Finding]:
    both = (raw.volume[mine] > 0) & (stored.volume[theirs] > 0)
    mine, theirs = mine[both], theirs[both]
    if mine.size < ENOUGH:
        return []
    if _equal(raw.volume[mine], stored.volume[theirs]).mean() >= AGREEING:
        return []
    ratio = raw.volume[mine] / stored.volume[theirs]
    factor = float(np.median(ratio))
    by_price = float(np.median(np.abs(ratio / raw.close[mine] - 1.0)))
    unit = (
        "the price: counted in quote, not in base" if by_price < OTHER_PRICE else f"{factor:.5g}"
    )
    message = f"volumes differ from the stored ones by a factor of {unit}"
    return [found(raw, Code.VOLUME_UNIT, Severity.ERROR, message, mine)]


def _restated(
    raw: RawCandles,
    stored: CandleSeries,
    mine: NDArray[np.intp],
    theirs: NDArray[np.intp],
    agree: NDArray[np.bool_],
    *,
    traded: bool,
) -> list[Finding]:
    if traded:
        agree = agree & _equal(raw.volume[mine], stored.volume[theirs])
    other = mine[~agree]
    if not other.size:
        return []
    message = f"candles of {agree.size} compared are stored with other values: restated"
    return [found(raw, Code.RESTATED, Severity.INFO, message, other)]
