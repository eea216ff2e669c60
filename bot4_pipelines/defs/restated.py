"""Whether a source changed candles that were stored already: listed, and never in the way."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from bot4_pipelines.steps import Outcome

RESTATED = dg.AssetCheckSpec(
    "history_unchanged",
    asset="candles",
    description="No stored candle was changed by this run's data. What changed is kept in the "
    "store's restatements.jsonl: old and new value, when, and from which source.",
)


def restated_result(outcome: Outcome) -> dg.AssetCheckResult:
    """Say how many stored candles were changed, the first of them with old and new values."""
    numbers = outcome.record.numbers
    restated, listed = int(numbers["restated"]), numbers.get("restatements", [])
    metadata: dict[str, Any] = {"candles": restated, "source": numbers.get("label", "")}
    words = "no stored candle was changed"
    if listed:
        times = [one["open_time_ms"] for one in listed]
        metadata["first_values"] = dg.MetadataValue.table([dg.TableRecord(one) for one in listed])
        words = f"{restated} stored candles were changed, from {_day(min(times))} on"
    return dg.AssetCheckResult(
        check_name=RESTATED.name,
        passed=not restated,
        severity=dg.AssetCheckSeverity.WARN,
        description=words,
        metadata=metadata,
    )


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}"
