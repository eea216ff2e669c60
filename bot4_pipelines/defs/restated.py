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


def restated_result(*outcomes: Outcome) -> dg.AssetCheckResult:
    """Say how many stored candles were changed, the first of them with old and new values.

    Args:
        outcomes: of one ingestion, or of the parts of a run.
    """
    told = [outcome.record.numbers for outcome in outcomes]
    restated = sum(int(numbers["restated"]) for numbers in told)
    listed = [one for numbers in told for one in numbers.get("restatements", [])]
    source = ", ".join(dict.fromkeys(numbers.get("label", "") for numbers in told))
    metadata: dict[str, Any] = {"candles": restated, "source": source}
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
