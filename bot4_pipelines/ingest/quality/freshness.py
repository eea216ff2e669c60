"""OUTDATED: a series that ends long before now. A WARN, since old archives are ingested too.

No row is masked for it: the candles that are there are as good as they were.
"""

from typing import Final

from bot4_pipelines.ingest.quality.finding import Finding, Severity, around
from bot4_pipelines.ingest.quality_codes import Code
from bot4_runtime.candles.files import RawCandles

HOUR_MS: Final = 3_600_000
PUBLISHED_WITHIN_MS: Final = 48 * HOUR_MS
"""The public archive has a day's candles within two days after its end."""
LATE_CANDLES: Final = 3
"""... and that many candles more may be missing: three weeks for 1w, three minutes for 1m."""


def freshness_findings(raw: RawCandles, interval_ms: int, now_ms: int) -> list[Finding]:
    """Compare the end of the last candle with now."""
    worst = int(raw.open_time_ms.argmax())
    last = int(raw.open_time_ms[worst])
    late_ms = now_ms - (last + interval_ms)
    if late_ms <= PUBLISHED_WITHIN_MS + LATE_CANDLES * interval_ms:
        return []
    message = f"ends {late_ms / (24 * HOUR_MS):.1f} days before now; download the rest"
    return [
        Finding(
            code=Code.OUTDATED,
            severity=Severity.WARN,
            message=f"{raw.symbol} ({raw.source}): {message}",
            count=late_ms // interval_ms,
            first_ms=last,
            last_ms=last,
            shown=around(raw, worst),
            worst=worst,
        )
    ]
