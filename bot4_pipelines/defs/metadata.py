"""From a step's numbers to what Dagster's UI shows: values, tables, plots, column schemas."""

from typing import Any

import dagster as dg

from bot4_pipelines.steps import Outcome

OWNERS = ["team:bot4"]

CANDLE_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn(
            "open_time_ms", "int64", "open time, UTC, milliseconds; strictly increasing"
        ),
        dg.TableColumn("open", "float64", "in quote"),
        dg.TableColumn("high", "float64", "in quote"),
        dg.TableColumn("low", "float64", "in quote"),
        dg.TableColumn("close", "float64", "in quote"),
        dg.TableColumn("volume", "float64", "in base"),
    ]
)

LABEL_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("open_time_ms", "int64", "open time, UTC, milliseconds"),
        dg.TableColumn("label", "int8", "0 = StrongBear … 4 = StrongBull; -1 = unknown"),
    ]
)


def feature_schema() -> dg.TableSchema:
    """Return the columns of a feature table."""
    from bot4_runtime.features.schema import FEATURE_NAMES, TREND_WINDOW

    plain = [
        dg.TableColumn("open_time_ms", "int64", "open time, UTC, milliseconds"),
        dg.TableColumn("valid", "bool", "enough contiguous candles end here"),
        dg.TableColumn("z", "float64", f"{TREND_WINDOW}-candle trend in units of its volatility"),
        dg.TableColumn("rv", "float64", f"root of the sum of {TREND_WINDOW} squared returns"),
        dg.TableColumn("log_return", "float64", "ln of close over previous close"),
        dg.TableColumn("starts_run", "bool", "a contiguous run starts here"),
    ]
    features = [dg.TableColumn(f"feature:{name}", "float64") for name in FEATURE_NAMES]
    return dg.TableSchema(columns=[*plain, *features])


def metadata_of(outcome: Outcome) -> dict[str, dg.MetadataValue[Any]]:
    """Return a step's numbers and plots as metadata values."""
    from bot4_pipelines.training.plots import as_markdown

    values: dict[str, dg.MetadataValue[Any]] = {
        f"plot: {name}": dg.MetadataValue.md(as_markdown(png, name))
        for name, png in outcome.plots().items()
    }
    values |= {
        "reused": dg.MetadataValue.bool(outcome.reused),
        "seconds": dg.MetadataValue.float(outcome.record.seconds),
        "content": dg.MetadataValue.text(outcome.record.content),
    }
    values |= {name: _value(value) for name, value in outcome.record.numbers.items()}
    return values


def _value(value: Any) -> dg.MetadataValue[Any]:
    """Wrap a JSON value; rows become a table."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return dg.MetadataValue.table([dg.TableRecord(_flat(row)) for row in value])
    if isinstance(value, list | dict):
        return dg.MetadataValue.json(value)
    if isinstance(value, str):
        return dg.MetadataValue.text(value)
    return _number(value)


def _number(value: bool | float | None) -> dg.MetadataValue[Any]:  # noqa: FBT001 - JSON has them
    if value is None:
        return dg.MetadataValue.null()
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    return dg.MetadataValue.float(value)


def _flat(row: dict[str, object]) -> dict[str, str | int | float | bool | None]:
    """Keep what a table cell can hold; the rest as text."""
    return {
        key: value if isinstance(value, str | int | float | bool | None) else str(value)
        for key, value in row.items()
    }
