"""The command line, from `run` to `dev`; ``bot4-pipelines --help`` lists what there is.

Exit codes: 0 done, 1 something failed or a gate refused, 2 wrong input, 130 interrupted. With
``--json`` exactly one JSON document goes to stdout; progress and messages go to stderr. Dagster
and torch are imported when a command needs them, not before.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.table import Table

from bot4_pipelines.ingest.wanted import wanted
from bot4_pipelines.orchestrate import require_packages, run_pipeline, serve_ui
from bot4_pipelines.records import Folders
from bot4_pipelines.terminal import StepBars
from bot4_pipelines.training.schedule import Schedule, wanted_window
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import Bot4Error, ConfigError

app = typer.Typer(
    name="bot4-pipelines",
    help="Learns Bot4's market regimes: candles to checked, promoted models. It never trades.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
stderr = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
IntervalOption = Annotated[str, typer.Option(help="Candle interval of the models.")]
IterationsOption = Annotated[
    int, typer.Option(min=0, help="Training steps of the LSTM; 0 takes the schedule's.")
]
ScheduleOption = Annotated[
    Schedule, typer.Option(help="How long the LSTM learns: full to trade, quick to look.")
]
SymbolsOption = Annotated[
    str | None, typer.Option(help="Comma-separated symbols; BOT4_SYMBOLS else.")
]
OwnIntervalOption = Annotated[
    str | None, typer.Option("--interval", help="Any of Binance's; BOT4_INTERVAL else.")
]
LookbackOption = Annotated[
    str | None, typer.Option(help="Candles the LSTM reads, 50 if left out; BOT4_LOOKBACK else.")
]
YearsOption = Annotated[
    float | None, typer.Option(help="Years of history to download; BOT4_YEARS else.")
]
SecondsOption = Annotated[
    float | None,
    typer.Option(help="Seconds a download may take; BOT4_DOWNLOAD_SECONDS else."),
]
MaxAgeOption = Annotated[
    float | None,
    typer.Option(min=0.0, help="Ask Binance again when its candles are older, in hours."),
]


@app.command()
def run(
    schedule: ScheduleOption = Schedule.FULL,
    iterations: IterationsOption = 0,
    from_model: Annotated[
        str, typer.Option(help="sha256 (or its start) of an archived LSTM to go on from.")
    ] = "",
    max_age_hours: MaxAgeOption = None,
    symbols: SymbolsOption = None,
    interval: OwnIntervalOption = None,
    years: YearsOption = None,
    download_seconds: SecondsOption = None,
    lookback: LookbackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Materialise the whole asset graph: candles, features, models, promotion, evidence."""
    require_packages()
    _want(symbols, interval, years, download_seconds, lookback)
    folders = Folders.from_environment()
    with StepBars(stderr) as bars:
        done = run_pipeline(
            folders,
            bars.update,
            schedule=schedule,
            iterations=iterations,
            from_model=from_model,
            max_age_hours=max_age_hours,
        )
    from bot4_pipelines.summary import summary

    document = {"run_id": done.run_id, "assets": list(done.assets), **summary(folders)}
    if as_json:
        _print_json(document)
        return
    from bot4_pipelines.terminal import print_models

    print_models(document, Console())


@app.command()
def seeds(
    schedule: ScheduleOption = Schedule.FULL,
    iterations: IterationsOption = 0,
    count: Annotated[int, typer.Option("--seeds", min=2, help="Trainings.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Train the LSTM from several seeds: mean and spread of its numbers. Archives nothing."""
    require_packages()
    from bot4_pipelines.workflow import Workflow

    with StepBars(stderr) as bars:
        flow = Workflow(
            Folders.from_environment(), lambda words, share: bars.update("seeds", words, share)
        )
        document = flow.seed_spread(schedule, iterations=iterations, seeds=count)
    if as_json:
        _print_json(document)
        return
    from bot4_pipelines.terminal import print_seeds

    print_seeds(document, Console())


@app.command()
def evaluate(
    candles: Annotated[
        Path,
        typer.Option(envvar="BOT4_CANDLES_DIR", help="Folder of candle files, one interval."),
    ],
    symbols: Annotated[str | None, typer.Option(help="Comma-separated; all if left out.")] = None,
    since: Annotated[
        str | None, typer.Option(help="ISO time, UTC: candles before it are warm-up only.")
    ] = None,
    market: Annotated[Market, typer.Option(help="Market of the files.")] = Market.SPOT,
    as_json: JsonOption = False,
) -> None:
    """Score the promoted models on any candles, by the definitions of the model card."""
    from bot4_pipelines.models import evaluate_folder

    names = _names(symbols)
    document = evaluate_folder(
        Folders.from_environment(), candles, market, names, _time(since, "--since")
    )
    if as_json:
        _print_json(document)
        return
    from bot4_pipelines.terminal import print_evaluation

    print_evaluation(document, Console())


@app.command()
def promote(
    hmm: Annotated[str | None, typer.Argument(help="sha256 (or its start) of an HMM.")] = None,
    lstm: Annotated[str | None, typer.Argument(help="sha256 (or its start) of an LSTM.")] = None,
    interval: IntervalOption = "1h",
    despite_champion: Annotated[
        str,
        typer.Option(
            help="Reason to promote it though it is worse than the champion; is recorded."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Judge a pair of models again and, when every gate passes, make it the one that trades.

    It must not look ahead, nor be worse than the pair it replaces; both are tried on the stored
    candles. Without arguments: the candidates that were trained last.
    """
    from bot4_pipelines.models import promote_pair

    if (hmm is None) != (lstm is None):
        raise ConfigError("give the sha256 of both models, HMM first, or of none")
    pair = None if hmm is None or lstm is None else (hmm, lstm)
    made = promote_pair(Folders.from_environment(), interval, pair, despite_champion.strip())
    _tell_pair(made, "promoted", as_json)


@app.command()
def rollback(interval: IntervalOption = "1h", as_json: JsonOption = False) -> None:
    """Go back to the pair that was promoted before the present one."""
    from bot4_pipelines.models import rollback_pair

    _tell_pair(rollback_pair(Folders.from_environment(), interval), "rolled back to", as_json)


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List every model in the archive: what it is, how it did, which pair trades."""
    from bot4_pipelines.models import list_models

    rows = list_models(Folders.from_environment())
    if as_json:
        _print_json({"models": rows})
        return
    if not rows:
        stderr.print("No models yet: run `bot4-pipelines run` or `make demo`.", markup=False)
        return
    table = Table(title="Models")
    for column in (
        "",
        "sha256",
        "kind",
        "interval",
        "trained on",
        "made",
        "test accuracy",
        "gates",
    ):
        table.add_column(column)
    for row in rows:
        accuracy = row["test_accuracy"]
        table.add_row(
            "▶" if row["current"] else "",
            row["sha256"][:12],
            row["kind"],
            row["interval"],
            f"{row['origin']} {','.join(row['symbols'])}",
            f"{datetime.fromtimestamp(row['created_ms'] / 1000, UTC):%Y-%m-%d %H:%M}",
            "-" if accuracy is None else f"{accuracy:.4f}",
            "passed" if row["gates_passed"] else "REFUSED",
        )
    Console().print(table)


@app.command()
def keygen(
    folder: Annotated[Path, typer.Argument(help="Where the two files go; outside the models.")],
    as_json: JsonOption = False,
) -> None:
    """Make the keys that promoted models are signed and checked with."""
    from bot4_runtime.regime.signature import PUBLIC_KEY, SIGNING_KEY, make_keys

    made = make_keys(folder)
    if as_json:
        _print_json({"signing_key": str(made.signing), "public_key": str(made.public)})
        return
    stderr.print(
        f"Where models are promoted: {SIGNING_KEY}={made.signing}\n"
        f"Where models trade:        {PUBLIC_KEY}={made.public}\n"
        "Keep the signing key off the machine that trades.",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


@app.command()
def demo(
    schedule: ScheduleOption = Schedule.QUICK,
    iterations: IterationsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """The main job, end to end: candles to models to a paper-traded, reported half-year."""
    require_packages()
    from bot4_pipelines.demo import run_demo
    from bot4_pipelines.terminal import print_demo

    document = run_demo(
        Folders.from_environment(), stderr, schedule=schedule, iterations=iterations
    )
    if as_json:
        _print_json(document)
    else:
        print_demo(document, Console())
    if not document["ok"]:
        for reason in document["failures"]:
            stderr.print(f"The demo failed: {reason}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI.")] = 3000,
) -> None:
    """Dagster's UI and daemon, on loopback only, until Ctrl-C."""
    require_packages(("dagster", "dagster_webserver"))
    stderr.print(f"Dagster's UI: http://127.0.0.1:{port} (Ctrl-C stops it)", highlight=False)
    raise typer.Exit(serve_ui(Folders.from_environment(), port=port))


def _tell_pair(pair: dict[str, Any], verb: str, as_json: bool) -> None:
    if as_json:
        _print_json(pair)
    else:
        hmm, lstm = pair["hmm_sha256"][:12], pair["lstm_sha256"][:12]
        stderr.print(f"{pair['interval']}: {verb} HMM {hmm} and LSTM {lstm}", markup=False)


def _want(
    symbols: str | None,
    interval: str | None,
    years: float | None,
    seconds: float | None,
    lookback: str | None,
) -> None:
    """Let options win over the environment, where the steps of this process read them.

    Raises:
        ConfigError: one of them is impossible.
    """
    options = {
        "BOT4_SYMBOLS": symbols,
        "BOT4_INTERVAL": interval,
        "BOT4_YEARS": years,
        "BOT4_DOWNLOAD_SECONDS": seconds,
        "BOT4_LOOKBACK": lookback,
    }
    os.environ.update({name: str(value) for name, value in options.items() if value is not None})
    wanted()
    wanted_window()


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--symbols {text!r} names no symbol; expected BTCUSDT,ETHUSDT")
    return names


def _time(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} {text!r} is no ISO time; expected 2025-01-31T00:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Run the command line; errors of ours become one message and an exit code."""
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Bot4Error as error:
        stderr.print(f"[red]bot4-pipelines: {type(error).__name__}:[/] ", end="", highlight=False)
        stderr.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        stderr.print("Stopped. What was finished is kept; the same command goes on from there.")
        sys.exit(130)
