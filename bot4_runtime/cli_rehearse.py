"""``bot4-runtime rehearse``: the user's engine at a venue on this machine, with faults."""

import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.errors import ConfigError

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
DEFAULT_HOURS = 1_500.0
MOST_HOURS = 20_000.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rehearse)


def rehearse(
    scenario: Annotated[
        str | None, typer.Option(help="Faults by name, or a .json file of rules.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the faults; draws them without --scenario.")] = 1,
    hours: Annotated[float, typer.Option(help="Of the invented market.")] = DEFAULT_HOURS,
    strategy: Annotated[
        str | None, typer.Option(help="The settings' own; the drill trades often.")
    ] = None,
    market: Annotated[
        str | None, typer.Option(help="spot or usdm; the settings' own (runtime.market).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file (bot4.toml).")
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer reads it
) -> None:
    """Run the engine at a faulty venue on this machine, and judge it by what the venue holds.

    No account's journal is touched. Exit code 0: passed; 1: something was violated; 3:
    inconclusive, too few orders or faults to say anything.
    """
    from bot4_runtime.rehearsal import schedules
    from bot4_runtime.rehearsal.performance import MARKET_SEEDS, Rehearsal
    from bot4_runtime.rehearsal.verdict import EXIT_CODES
    from bot4_runtime.settings import load_settings
    from bot4_runtime.telemetry import configure_logging

    if not 0.0 < hours <= MOST_HOURS:
        raise ConfigError(f"--hours {hours:g}; expected more than 0 and at most {MOST_HOURS:g}")
    overrides = {"runtime": {"strategy": strategy, "market": market}}
    settings = load_settings(config, overrides=overrides)
    traded = Market(settings.runtime.market)
    if scenario is not None:
        rules = schedules.scenario(scenario, traded)
    else:
        rules = schedules.drawn(seed, market=traded)
    stderr = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with (
        tempfile.TemporaryDirectory(prefix="bot4-rehearsal-") as folder,
        Progress(*columns, console=stderr, transient=True) as progress,
    ):
        configure_logging(settings.telemetry.log_level, Path(folder) / "runtime.jsonl")
        task = progress.add_task("Rehearsing", total=None)

        def on_progress(done: int, candle: Candle) -> None:
            day = datetime.fromtimestamp(candle.open_time_ms / 1000, UTC)
            progress.update(task, completed=done, description=f"Rehearsing {day:%Y-%m-%d %H:%M}")

        made = Rehearsal(
            settings,
            Path(folder),
            rules=schedules.on_both_ways(rules, traded),
            seed=seed,
            hours=hours,
            market_seed=MARKET_SEEDS[traded],
            on_progress=on_progress,
        )
        progress.update(task, total=made.total)
        verdict = made.perform()
    document = verdict.document() | {
        "scenario": scenario,
        "rules": json.loads(schedules.told(rules)),
    }
    if as_json:
        sys.stdout.write(json.dumps(document, indent=1, sort_keys=True) + "\n")
    else:
        stderr.print(
            f"The market is SIMULATED ({verdict.simulated}), the venue of {traded.value} is on "
            f"this machine; seed {seed}, {scenario or 'drawn faults'}.",
            highlight=False,
        )
        stderr.print(verdict.text, markup=False, highlight=False, soft_wrap=True)
        if verdict.findings.violations:
            stderr.print(
                f"Again: --market {traded.value} --seed {seed} --hours {hours:g} --scenario "
                "FILE.json with "
                f"{schedules.told(rules)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    code = EXIT_CODES[verdict.outcome]
    if code:
        raise typer.Exit(code)
