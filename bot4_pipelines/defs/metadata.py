"""From a step's numbers to what Dagster's UI shows: values, tables, plots, column schemas."""

from typing import Any

import dagster as dg

from bot4_pipelines.steps import Outcome

OWNERS = ["team:bot4"]

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "near", "far", "delay", "ece")
_DRAWN = {"excerpts"}
"""Numbers that are shown as plots alone."""

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

STATE_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("obs", "float32", "the trend z of a candle"),
        dg.TableColumn("log_prior", "float32", "ln of each state's probability before it, 5"),
        dg.TableColumn("filtered", "float32", "probability of each state after it, 5; sums to 1"),
        dg.TableColumn("next_log_prior", "float32", "log_prior of the candle after it, 5"),
        dg.TableColumn("loglik", "float32", "ln of the trend's density given those before it"),
    ]
)

PAIR_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("interval", "string", "of the candles that the pair names"),
        dg.TableColumn("hmm_sha256", "string", "of the HMM's file in models/archive"),
        dg.TableColumn("lstm_sha256", "string", "of the LSTM's file; empty for an HMM alone"),
        dg.TableColumn("schema_id", "string", "of the features both read"),
        dg.TableColumn("activated_ms", "int64", "when, UTC, milliseconds"),
    ]
)

LIMIT_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("feature", "string", "column of the feature table"),
        dg.TableColumn("psi_limit", "float64", "population stability index it may reach"),
        dg.TableColumn("ks_limit", "float64", "Kolmogorov-Smirnov distance it may reach"),
    ]
)

FIGURE_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("range", "string", "validation, test or unseen"),
        dg.TableColumn("model", "string", "model or baseline"),
        dg.TableColumn("symbol", "string", "or pooled"),
        *(
            dg.TableColumn(name, "float64", "with its interval, name_low and name_high")
            for name in (
                "accuracy",
                "balanced_accuracy",
                "macro_f1",
                "near",
                "far",
                "delay",
                "ece",
            )
        ),
    ]
)

EVIDENCE_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("rule", "string", "built-in rule that was followed"),
        dg.TableColumn("trades", "int64", "round trips, out of sample"),
        dg.TableColumn("weeks", "int64", "weeks with trades: what the bootstrap draws"),
        dg.TableColumn("mean_net", "float64", "mean net return of a trade, as a share"),
        dg.TableColumn("win_rate", "float64", "share of trades with a net gain"),
        dg.TableColumn("p_value", "float64", "of no gain, by bootstrap over weeks"),
        dg.TableColumn("p_value_bh", "float64", "adjusted for all rules, Benjamini-Hochberg"),
        dg.TableColumn("sharpe", "float64", "a year"),
        dg.TableColumn("sharpe_low", "float64", "lower end of its 95 % interval"),
        dg.TableColumn("sharpe_high", "float64", "upper end"),
        dg.TableColumn("significant", "bool", "adjusted p below 0.05 and a gain"),
    ]
)

TRIAL_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("trial", "int64", "number of the trial"),
        dg.TableColumn("state", "string", "COMPLETE, PRUNED or FAIL"),
        dg.TableColumn("validation_accuracy", "float64", "best look, share of windows"),
        dg.TableColumn("iterations", "int64", "steps until it ended"),
        dg.TableColumn("cpu_seconds", "float64", "processor time of the trial"),
        dg.TableColumn("learning_rate", "float64", "highest of the one-cycle schedule"),
        dg.TableColumn("dropout", "float64", "share of units left out"),
        dg.TableColumn("weight_decay", "float64", "of AdamW"),
        dg.TableColumn("rise", "float64", "share of steps in which the rate rises"),
        dg.TableColumn("averaging", "float64", "decay of the weights' average"),
        dg.TableColumn("soft_share", "float64", "weight of simulated label shares"),
    ]
)


def input_schema() -> dg.TableSchema:
    """Return what the LSTM reads of a candle, and what it answers."""
    from bot4_runtime.domain.regime import REGIME_LABELS
    from bot4_runtime.features.schema import FEATURE_NAMES
    from bot4_runtime.regime.hmm import SCORE_NAMES

    inputs = [dg.TableColumn(name, "float32", "candle feature") for name in FEATURE_NAMES]
    inputs += [dg.TableColumn(name, "float32", "causal Viterbi score") for name in SCORE_NAMES]
    answers = [
        dg.TableColumn(f"p_{label}", "float32", "calibrated probability")
        for label in REGIME_LABELS
    ]
    return dg.TableSchema(columns=[*inputs, *answers])


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
    values |= {
        name: _value(value) for name, value in outcome.record.numbers.items() if name not in _DRAWN
    }
    if "card" in outcome.record.numbers:
        values["card"] = dg.MetadataValue.md(outcome.record.numbers["card"])
    return values


def rows_table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """Return rows as a table."""
    return dg.MetadataValue.table([dg.TableRecord(_flat(row)) for row in rows])


def _value(value: Any) -> dg.MetadataValue[Any]:
    """Wrap a JSON value; rows become a table."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return rows_table(value)
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
