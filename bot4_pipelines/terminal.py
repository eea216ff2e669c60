"""What the command line shows people: progress bars while it works, tables when it is done.

Every number printed here is in the JSON document too. A missing number is a dash.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

TITLES = {
    "candles": "Candles",
    "features": "Features",
    "hmm_candidate": "HMM",
    "hindsight_labels": "Labels",
    "lstm_candidate": "LSTM",
    "leak_audit": "Leak audit",
    "promoted_models": "Promotion",
    "training_reference": "Reference",
    "evaluation": "Figures",
    "evidence_records": "Evidence",
    "lstm_search": "Search",
    "seeds": "Seeds",
}


class StepBars:
    """One progress bar a step, in the order in which the steps start.

    Where there is no terminal, one plain line when a step starts and one when it ends. The bars
    have a descriptor of their own: Dagster turns stderr into a file while a step runs.
    """

    def __init__(self, console: Console) -> None:
        self._is_terminal = console.is_terminal
        self._given = console
        self._console = _apart(console) if self._is_terminal else console
        self._bars: dict[str, TaskID] = {}
        self._done: set[str] = set()
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.fields[title]:<14}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._console is not self._given:
            self._console.file.close()

    def update(self, step: str, message: str, share: float) -> None:
        """Show how far a step is; `share` runs from 0 to 1."""
        title = TITLES.get(step, step)
        if step not in self._bars:
            self._bars[step] = self._progress.add_task("", total=1.0, title=title)
            self._plain(f"{title}: {message}")
        self._progress.update(self._bars[step], completed=share, description=escape(message))
        if share >= 1.0 and step not in self._done:
            self._done.add(step)
            self._plain(f"{title}: done, {message}")

    def _plain(self, line: str) -> None:
        if not self._is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _apart(console: Console) -> Console:
    """Return a console on the same terminal that keeps it when stderr is redirected."""
    try:
        descriptor = os.dup(console.file.fileno())
    except OSError:
        return console  # no descriptor to keep
    file = os.fdopen(descriptor, "w", encoding=console.encoding)
    return Console(file=file, force_terminal=True, width=console.width)


def print_demo(document: Mapping[str, Any], console: Console) -> None:
    """Print the demo's one screen."""
    print_models(document, console)
    replayed = document["replay"]
    if replayed is None:
        return
    _print_signals(replayed, console)
    _print_books(replayed, console)
    same = replayed["recovered_state_hash"] == replayed["state_hash"]
    verdict = "[green]the same[/]" if same else "[red]ANOTHER[/]"
    console.print(
        f"Recovery  state {replayed['state_hash'][:16]}; snapshot and journal lead to {verdict}",
        highlight=False,
    )
    for name in ("report_html", "summary_json"):
        console.print(f"{name:<13} {replayed[name]}", markup=False, soft_wrap=True)
    for what, command in document["next"].items():
        console.print(f"Next: {command}", f"  ({what})", markup=False, soft_wrap=True)
    seconds = f"{document['seconds']:.0f} s"
    console.print(f"Done in {seconds}. No promise of profit: regimes name the present only.")


def print_seeds(document: Mapping[str, Any], console: Console) -> None:
    """Print what trainings from several seeds gave: mean, deviation, least and largest."""
    runs = document["runs"]
    table = Table(
        title=f"LSTM, {document['schedule']} schedule, {len(runs)} seeds from {runs[0]['seed']}",
        box=SIMPLE_HEAD,
    )
    for column in ("", "mean", "deviation", "least", "largest"):
        table.add_column(column, justify="left" if not column else "right")
    for name, numbers in document["numbers"].items():
        digits = 1 if name.endswith("seconds") else 4
        cells = [
            "-" if (value := numbers[column]) is None else f"{value:.{digits}f}"
            for column in ("mean", "deviation", "least", "largest")
        ]
        table.add_row(name.replace("_", " "), *cells)
    console.print(table)


def print_models(document: Mapping[str, Any], console: Console) -> None:
    """Print what the candles were, how the models did, and what the evidence says."""
    candles, cuts = document["candles"], document["cuts"]
    if candles is None:
        return
    if candles["origin"] == "simulated":
        console.print("[bold yellow]SIMULATED market: prices are made up.[/]")
        console.print(candles["why"], markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"Candles   {candles['candles']:,} {candles['interval']} {candles['origin']} "
        f"{candles['market']}, {', '.join(candles['symbols'])}, {_day(candles['from_ms'])} to "
        f"{_day(candles['to_ms'])}; {candles['gaps']} gaps",
        highlight=False,
    )
    if cuts is not None:
        console.print(
            f"Splits    train from {_day(cuts['train_start_ms'])}, validation from "
            f"{_day(cuts['validation_start_ms'])}, test from {_day(cuts['test_start_ms'])}",
            highlight=False,
        )
    if document["models"] is None:
        return
    _print_accuracy(document["models"], console)
    for kind, model in document["models"].items():
        for gate in model["gates"]:
            if not gate["passed"]:
                console.print(f"[red]{kind} refused:[/] {escape(gate['says'])}", highlight=False)
    note = (document.get("promoted") or {}).get("note")
    if note:
        console.print(f"[yellow]Promotion:[/] {escape(note)}", highlight=False, soft_wrap=True)


def _print_accuracy(models: Mapping[str, Any], console: Console) -> None:
    title = "Naming the present regime, against hindsight"
    console.print(title, style="bold")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = ("", "validation", "test", "95 % CI", "balanced", "F1", "ECE")
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in accuracy_rows(models):
        table.add_row(*row)
    console.print(table)


def accuracy_rows(models: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the accuracy table: models first, then what they are compared with."""
    rows = []
    for kind, title in (("lstm", "LSTM"), ("hmm", "HMM filter")):
        metrics = models.get(kind, {}).get("metrics", {})
        if metrics:
            validation, test = metrics.get("validation", {}), metrics.get("test", {})
            rows.append(
                (
                    title,
                    _number(validation.get("accuracy")),
                    _number(test.get("accuracy")),
                    _interval(test),
                    *(
                        _number(test.get(name))
                        for name in ("balanced_accuracy", "macro_f1", "ece")
                    ),
                )
            )
    metrics = (models.get("lstm") or models.get("hmm") or {}).get("metrics", {})
    before, after = (metrics.get(f"baselines_{split}", {}) for split in ("validation", "test"))
    rows += [
        (name.replace("_", " "), _number(before.get(name)), _number(after.get(name)), *[""] * 4)
        for name in sorted({*before, *after} - {"hmm_filter"})
    ]
    return rows


def print_evaluation(document: Mapping[str, Any], console: Console) -> None:
    """Print an evaluation's pooled numbers."""
    console.print("Promoted models on these candles", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    columns = ("balanced_accuracy", "macro_f1", "near", "far", "delay", "ece")
    heads = ("", "acc", "95 % CI", "bal", "F1", "near", "far", "delay", "ECE")
    for column in heads:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for model in ("lstm", "hmm", "hmm_lookahead"):
        scored = document.get(model) or {}
        for name, row in {"pooled": scored.get("pooled", {}), **scored.get("symbols", {})}.items():
            label = f"{model.removeprefix('hmm_look')} {name}"
            table.add_row(label, *_measured(row, columns))
    for name, value in document["baselines"].items():
        row = value.get("pooled", value) if isinstance(value, Mapping) else {"accuracy": value}
        table.add_row(name.replace("_", " "), *_measured(row, columns))
    console.print(table)
    for finding in document.get("findings", []):
        if finding["severity"] != "INFO":
            words = f"{finding['severity']} {finding['code']}: {finding['says']}"
            console.print(words, markup=False, highlight=False)
    console.print(
        "Accuracy is agreement with hindsight about the present; it predicts nothing: random "
        "walks, which have no regimes, are named as well (random walk hmm)."
    )


def _measured(row: Mapping[str, Any], columns: tuple[str, ...]) -> list[str]:
    """Return accuracy, its interval and other numbers; blank where there is no such number."""
    low, high = row.get("accuracy_ci") or (None, None)
    interval = _interval({"accuracy_low": low, "accuracy_high": high})
    numbers = [_number(row[column]) if column in row else "" for column in columns]
    return [_number(row.get("accuracy")), interval, *numbers]


def _print_signals(replayed: Mapping[str, Any], console: Console) -> None:
    named = ", ".join(f"{name} {count:,}" for name, count in replayed["regimes"].items())
    signals = replayed["signals"]
    refused = ", ".join(f"{code} {count}" for code, count in signals["rejected"].items())
    console.print(f"Regimes   {named}", highlight=False)
    console.print(
        f"Signals   {signals['entries']} entries: {signals['approved']} approved, rejected by "
        f"reason: {refused or 'none'}",
        highlight=False,
    )


def _print_books(replayed: Mapping[str, Any], console: Console) -> None:
    title = "Paper trading over the test period (shadow: what the validator refused)"
    console.print(title, style="bold")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    names = ("validated", "shadow")
    books = {name: replayed["books"][name] for name in names if name in replayed["books"]}
    for column in ("", *books, "buy and hold"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    hold = replayed["buy_and_hold"]
    rows = {
        "orders": ("orders", ""),
        "orders filled": ("orders_filled", ""),
        "round trips": ("trades", ""),
        "fees, quote": ("fees_quote", ""),
        "profit and loss, quote": ("pnl_quote", _money(hold.get("pnl_quote"))),
        "return": ("return", _percent(hold.get("return"))),
        "largest drawdown": ("max_drawdown", ""),
    }
    for title, (key, held) in rows.items():
        table.add_row(title, *(_cell(key, book.get(key)) for book in books.values()), held)
    console.print(table)


def _cell(key: str, value: object) -> str:
    if key == "fees_quote":
        return _money(value).lstrip("+")
    if key == "pnl_quote":
        return _money(value)
    if key == "max_drawdown":
        return _percent(value).lstrip("+")
    if key == "return":
        return _percent(value)
    return "-" if value is None else f"{value:,}"


def _money(value: Any) -> str:
    return "-" if value is None else f"{float(value):+,.2f}"


def _percent(value: Any) -> str:
    return "-" if value is None else f"{float(value):+.2%}"


def _number(value: Any) -> str:
    return "-" if value is None else f"{float(value):.4f}"


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row.get("accuracy_low"), row.get("accuracy_high")
    return "-" if low is None or high is None else f"{low:.3f}-{high:.3f}"


def _day(time_ms: int | None) -> str:
    return "-" if time_ms is None else f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"
