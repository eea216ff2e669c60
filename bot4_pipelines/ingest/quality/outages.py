"""GAP, FLAT_ZERO_VOLUME: missing and empty candles, told apart from known outages of the venue.

The table is derived, not quoted: hours in which no symbol of Binance's spot market has a candle,
in public 1h candles of BTC, ETH, LTC, ADA and BNB against USDT from 2018-01 to 2025-06 (BNB from
2020-09), each hour missing in every symbol that traded then; two with the minutes that 1m candles
tell. USD-M candles of the same years have no gap in common.
"""

from datetime import UTC, datetime
from typing import Final

import numpy as np

from bot4_pipelines.ingest.quality.finding import Finding, Severity, around, found
from bot4_pipelines.ingest.quality_codes import Code
from bot4_runtime.candles.files import RawCandles
from bot4_runtime.candles.gaps import Gap, find_gaps
from bot4_runtime.domain.candle import Market

HOUR_MS: Final = 3_600_000
SPOT_OUTAGES: Final = (
    ("2018-01-04T04:00", "2018-01-04T05:00"),
    ("2018-02-08T01:00", "2018-02-09T10:00"),
    ("2018-06-26T02:00", "2018-06-26T12:00"),
    ("2018-06-27T13:00", "2018-06-27T14:00"),
    ("2018-07-04T01:00", "2018-07-04T08:00"),
    ("2018-10-19T06:00", "2018-10-19T09:00"),
    ("2018-11-14T02:00", "2018-11-14T09:00"),
    ("2019-03-12T02:00", "2019-03-12T08:00"),
    ("2019-05-15T03:00", "2019-05-15T13:00"),
    ("2019-08-15T02:00", "2019-08-15T10:00"),
    ("2019-11-13T02:00", "2019-11-13T04:00"),
    ("2019-11-25T02:00", "2019-11-25T04:00"),
    ("2020-02-09T02:00", "2020-02-09T03:00"),
    ("2020-02-19T12:00", "2020-02-19T17:00"),
    ("2020-03-04T10:00", "2020-03-04T11:00"),
    ("2020-04-25T02:00", "2020-04-25T04:00"),
    ("2020-06-28T02:00", "2020-06-28T05:00"),
    ("2020-11-30T06:00", "2020-11-30T07:00"),
    ("2020-12-21T14:00", "2020-12-21T18:00"),
    ("2020-12-25T02:00", "2020-12-25T03:00"),
    ("2021-02-11T04:00", "2021-02-11T05:00"),
    ("2021-03-06T02:00", "2021-03-06T03:00"),
    ("2021-04-20T02:00", "2021-04-20T04:00"),
    ("2021-04-25T04:01", "2021-04-25T08:45"),
    ("2021-08-13T02:00", "2021-08-13T06:00"),
    ("2021-09-29T07:00", "2021-09-29T09:00"),
    ("2023-03-24T12:40", "2023-03-24T14:00"),
)
"""[from, to) UTC; whole hours but where minutes are known."""


def _utc_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


_SPOT_MS: Final = tuple((_utc_ms(start), _utc_ms(stop)) for start, stop in SPOT_OUTAGES)


def is_known(gap: Gap, market: Market | None) -> bool:
    """Whether a gap lies in an outage of the whole market; spot is assumed when not told.

    An outage reaches into the hours beside it, which have candles of what was traded in them, so
    an hour more on either side is allowed.
    """
    return market is not Market.USDM and any(
        start - HOUR_MS <= gap.from_ms and gap.to_ms <= stop + HOUR_MS for start, stop in _SPOT_MS
    )


def gap_findings(raw: RawCandles, interval_ms: int, market: Market | None) -> list[Finding]:
    """Count missing candles: those of known outages as INFO, others as WARN."""
    gaps = find_gaps(raw.open_time_ms, interval_ms)
    known = [gap for gap in gaps if is_known(gap, market)]
    other = [gap for gap in gaps if not is_known(gap, market)]
    return [
        _gaps(raw, interval_ms, some, severity, what)
        for some, severity, what in (
            (other, Severity.WARN, "kept as gaps"),
            (known, Severity.INFO, "all in known outages of the whole market"),
        )
        if some
    ]


def _gaps(
    raw: RawCandles, interval_ms: int, gaps: list[Gap], severity: Severity, what: str
) -> Finding:
    missing = sum(gap.missing for gap in gaps)
    longest = max(gaps, key=lambda gap: gap.missing)
    message = (
        f"{missing} candles missing in {len(gaps)} gaps, the longest {longest.missing}; {what}"
    )
    worst = int(np.searchsorted(raw.open_time_ms, longest.to_ms))
    return Finding(
        code=Code.GAP,
        severity=severity,
        message=f"{raw.symbol} ({raw.source}): {message}",
        count=missing,
        first_ms=gaps[0].from_ms,
        last_ms=gaps[-1].to_ms - interval_ms,
        shown=around(raw, worst),
        worst=worst,
    )


def empty_rows(raw: RawCandles) -> list[Finding]:
    """Find candles without a trade, in a file that has volumes."""
    flat = np.flatnonzero(raw.volume == 0)
    if not flat.size:
        return []
    message = "candles without a trade: an outage, or a download before it was filled in"
    return [found(raw, Code.FLAT_ZERO_VOLUME, Severity.WARN, message, flat)]
