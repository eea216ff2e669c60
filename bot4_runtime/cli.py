"""The command line: bot4-runtime start | replay | stress | status | venue | rehearse | doctor.

Exit codes: 0 done, 1 something is wrong, 2 wrong input or settings, 3 a rehearsal that says
nothing, 130 interrupted.
With ``--json`` exactly one JSON document goes to stdout; everything else goes to stderr.
"""

import dataclasses
import errno
import json
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import click
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bot4_runtime import cli_fees, cli_operator, cli_rehearse, cli_watch
from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.errors import Bot4Error, ConfigError, JournalError, JournalMissing
from bot4_runtime.interrupt import INTERRUPTED, Loading

if TYPE_CHECKING:
    from bot4_runtime.venue.server import VenueServer

app = typer.Typer(
    name="bot4-runtime",
    help="Bot4's trading process. Paper is the default; mode live is real money.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
stderr = Console(stderr=True)
WRONG_PATH = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""Errors of the system that mean a folder was named wrongly, not that a disk fails."""

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file (bot4.toml).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
AccountOption = Annotated[str | None, typer.Option(help="Name of the account's journal.")]
StrategyOption = Annotated[
    str | None, typer.Option(help="regime_follower, drill, or module:Class.")
]
SymbolsOption = Annotated[str | None, typer.Option(help="Comma-separated; all when left out.")]
IntervalOption = Annotated[str | None, typer.Option(help="Candle interval, 1h by default.")]
FromOption = Annotated[
    str | None, typer.Option("--from", help="First candle to decide on, ISO time, UTC.")
]
ToOption = Annotated[str | None, typer.Option("--to", help="End, exclusive, ISO time, UTC.")]


@app.command()
def start(
    mode: Annotated[
        str | None, typer.Option(help="paper (default), testnet, or live (real money).")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="simulated[:SEED] (default), recorded:DIR, store, or binance."),
    ] = None,
    speed: Annotated[str | None, typer.Option(help="Candle time over wall time, or max.")] = None,
    strategy: StrategyOption = None,
    symbols: SymbolsOption = None,
    interval: IntervalOption = None,
    account: AccountOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on 127.0.0.1; 0 serves none.")
    ] = None,
    accept: Annotated[
        str, typer.Option(help="Hash of changed settings, to go on with them on this account.")
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trade until stopped (SIGINT, SIGTERM). After a kill the same command continues."""
    with Loading():
        from bot4_runtime import app as wiring
        from bot4_runtime.settings import load_settings
        from bot4_runtime.telemetry import configure_logging

    settings = load_settings(
        config,
        overrides={
            "runtime": {
                "mode": mode,
                "strategy": strategy,
                "symbols": _names(symbols),
                "interval": interval,
                "account": account,
                "source": source,
            },
            "telemetry": {"metrics_port": metrics_port},
        },
    )
    folder = settings.home / "state" / settings.runtime.account
    options = wiring.RunOptions(
        source=settings.runtime.source,
        from_ms=_time(from_, "--from"),
        to_ms=_time(to, "--to"),
        speed=_speed(speed, settings.runtime.source),
        accept=accept,
    )
    configure_logging(settings.telemetry.log_level, settings.home / "logs" / "runtime.jsonl")
    mode = settings.runtime.mode
    if mode == "live":
        options = dataclasses.replace(options, held=_before_live(settings, folder))
    _execute(wiring, settings, options, mode=mode, folder=folder, as_json=as_json)


def _before_live(settings: Any, folder: Path) -> str:
    """Refuse what is not meant or not healthy, and say what is about to be risked.

    Returns:
        Why no entry may be sent, where something is open and not all is well; else empty.
    """
    from bot4_runtime.app.live import at_risk, at_stake, require_healthy, require_meant
    from bot4_runtime.doctor import examine

    require_meant(settings, os.environ)
    held = require_healthy(examine(settings, network=True), lambda: at_stake(settings, folder))
    for line in at_risk(settings):
        stderr.print(line, highlight=False, markup=False, soft_wrap=True)
    return held


@app.command()
def replay(
    source: Annotated[
        str, typer.Option(help="store (default), recorded:DIR, or simulated[:SEED] with --to.")
    ] = "store",
    from_: FromOption = None,
    to: ToOption = None,
    strategy: StrategyOption = None,
    symbols: SymbolsOption = None,
    interval: IntervalOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the engine over past candles and write a report. Same inputs, same bytes."""
    with Loading():
        from bot4_runtime import app as wiring
        from bot4_runtime.settings import load_settings
        from bot4_runtime.telemetry import configure_logging

    if source.startswith("binance"):
        raise ConfigError("replay needs recorded candles: --source store or recorded:DIR")
    if source.startswith("simulated") and to is None:
        raise ConfigError("the simulated market has no end: replay needs --to")
    settings = load_settings(
        config,
        overrides={
            "runtime": {
                "account": "replay",
                "strategy": strategy,
                "symbols": _names(symbols),
                "interval": interval,
            }
        },
    )
    run_id = f"replay-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    folder = out or settings.home / "reports" / run_id
    if (folder / "journal.sqlite").exists():
        raise ConfigError(f"{folder} already holds a run; choose another --out")
    options = wiring.RunOptions(
        source=source, from_ms=_time(from_, "--from"), to_ms=_time(to, "--to")
    )
    configure_logging(settings.telemetry.log_level, settings.home / "logs" / "runtime.jsonl")
    _execute(wiring, settings, options, mode="replay", folder=folder, as_json=as_json)


@app.command()
def stress(
    candles: Annotated[Path, typer.Option(help="Folder of candles that stand in for marks.")],
    from_: FromOption = None,
    to: ToOption = None,
    positions: Annotated[
        Path | None, typer.Option(help="JSON file of an account; 3x long and short without it.")
    ] = None,
    brackets: Annotated[
        Path | None, typer.Option(help="JSON file: the venue's answer to leverageBracket.")
    ] = None,
    leverage: Annotated[float, typer.Option(help="Of the built-in positions.")] = 3.0,
    latency_ms: Annotated[int, typer.Option(help="Until an action takes effect.")] = 300,
    symbols: SymbolsOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay a crash against margin positions, with and without liquidation prevention.

    Exit code 1 when a liquidation happened that could have been avoided.
    """
    from bot4_runtime.protection.rehearsal import StressRequest, rehearse_crash
    from bot4_runtime.report.stress import outcome
    from bot4_runtime.settings import load_settings

    settings = load_settings(config)
    run_id = f"stress-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    document = rehearse_crash(
        settings,
        StressRequest(
            candles=candles,
            symbols=_names(symbols),
            from_ms=_time(from_, "--from"),
            to_ms=_time(to, "--to"),
            positions=positions,
            brackets=brackets,
            leverage=leverage,
            latency_ms=latency_ms,
            out=out or settings.home / "reports" / run_id,
        ),
    )
    if as_json:
        _print_json(document)
    else:
        for account in document["accounts"]:
            stderr.print(outcome(account), highlight=False)
        stderr.print(f"Report: {document['report_html']}", highlight=False, soft_wrap=True)
    if document["avoidable_liquidations"]:
        raise typer.Exit(1)


@app.command()
def status(
    account: AccountOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show what an account's journal says: books, positions, orders, breaker, state hash."""
    from bot4_runtime.settings import load_settings
    from bot4_runtime.status import account_status, print_status

    settings = load_settings(config, overrides={"runtime": {"account": account}})
    found = account_status(settings.home, settings.runtime.account, settings.state.journal)
    if as_json:
        _print_json(found)
    else:
        print_status(found, Console())


@app.command()
def verify(
    account: AccountOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Check an account's journal, unique keys and snapshots offline; exit 1 when one fails."""
    from bot4_runtime.settings import load_settings
    from bot4_runtime.state.verify import verify_account
    from bot4_runtime.status import holder_of

    settings = load_settings(config, overrides={"runtime": {"account": account}})
    name = settings.runtime.account
    folder = settings.home / "state" / name
    running = holder_of(settings.home / "locks" / f"{name}.lock") is not None
    checked = verify_account(folder, name, running=running, configured=settings.state.journal)
    found = {"account": name, **checked}
    problems = found["problems"]
    if as_json:
        _print_json({"ok": not problems, **found})
    elif problems:
        for problem in problems:
            _complain("damage", problem)
    else:
        print(
            f"{found['journal']}: {found['events']:,} events, every checksum and key holds; "
            f"{len(found['snapshots'])} snapshots agree with it. State hash {found['state_hash']}"
        )
    if problems:
        raise typer.Exit(1)


@app.command()
def migrate(
    account: AccountOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Bring an account's journal of an older release up to this one's layout."""
    from bot4_runtime.settings import load_settings
    from bot4_runtime.state import migrate as migration
    from bot4_runtime.state.migrations import HEAD
    from bot4_runtime.state.place import JOURNAL, has_journal, read_note
    from bot4_runtime.state.reader import JournalReader

    settings = load_settings(config, overrides={"runtime": {"account": account}})
    name = settings.runtime.account
    folder = settings.home / "state" / name
    elsewhere = read_note(folder)
    where = folder / JOURNAL if elsewhere is None else elsewhere.url
    if not has_journal(folder):
        try:
            JournalReader.of_account(folder, name, settings.state.journal).close()
        except JournalMissing:
            raise
        except JournalError:  # it is there, in a layout of an older release
            pass
        where = settings.state.journal
    found = migration.migrate(where, name, settings.home / "locks")
    if as_json:
        _print_json({"journal": str(where), "layout_found": found, "layout": HEAD})
        return
    print(f"{where}: layout {found} is now {HEAD}" if found != HEAD else f"{where}: nothing to do")


@app.command()
def venue(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 lets the system choose.")
    ] = 0,
    admin_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the operator's door; none when left out."),
    ] = None,
    market: Annotated[Market, typer.Option(help="Spot, or perpetuals in USDT.")] = Market.SPOT,
    seed: Annotated[int, typer.Option(help="Names the invented market.")] = 4,
    symbols: SymbolsOption = None,
    interval: Annotated[str, typer.Option(help="Candles the prices are drawn from.")] = "1m",
    speed: Annotated[float, typer.Option(help="Time of the market over wall time.")] = 1.0,
    cash: Annotated[float, typer.Option(help="What the account holds of each quote.")] = 100_000,
    journal: Annotated[Path | None, typer.Option(help="File the journal is added to.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve an invented, Binance-compatible exchange on this machine until stopped."""
    from bot4_runtime.venue import simulated

    if not (0.0 < speed < float("inf") and 0.0 < cash < float("inf")):
        raise ConfigError(f"--speed {speed} and --cash {cash}; expected numbers above 0")
    made = simulated.simulated_venue(
        market=market,
        seed=seed,
        symbols=_names(symbols) or (),
        interval=interval,
        cash=Decimal(repr(cash)),
        journal=journal,
    )

    def ready(server: "VenueServer") -> None:
        told = {
            "rest": f"http://127.0.0.1:{server.port}",
            "stream": f"ws://127.0.0.1:{server.port}{made.sockets[0]}",
            **(
                {"private": f"ws://127.0.0.1:{server.port}/private"}
                if market is Market.USDM
                else {}
            ),
            "admin": server.admin_port and f"http://127.0.0.1:{server.admin_port}",
            "api_key": simulated.API_KEY,
            "secret": simulated.SECRET,
        }
        if as_json:
            print(json.dumps(told), flush=True)
        else:
            for name, value in told.items():
                print(f"{name:8} {value or 'none'}", flush=True)

    try:
        simulated.run_venue(made, port=port, admin_port=admin_port, speed=speed, ready=ready)
    except OSError as error:
        if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise
        raise ConfigError(
            f"cannot serve on 127.0.0.1: {error.strerror}; choose another --port and "
            "--admin-port, or 0"
        ) from None


@app.command()
def doctor(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    network: Annotated[bool, typer.Option(help="Also ask whether Binance answers.")] = False,
) -> None:
    """Check this machine, the settings, the models and the journal; exit 1 when one fails."""
    from bot4_runtime.doctor import examine, print_findings

    findings = examine(config, network=network)
    if as_json:
        _print_json({"ok": all(f.ok for f in findings), "checks": [f.told() for f in findings]})
    else:
        print_findings(findings, Console())
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _execute(
    wiring: Any, settings: Any, options: Any, *, mode: str, folder: Path, as_json: bool
) -> None:
    with Loading():
        from bot4_runtime.build import require_fresh
        from bot4_runtime.report.files import write_report
        from bot4_runtime.telemetry import Metrics

    state = require_fresh()
    if state.mode == "interpreted":
        stderr.print(state.notice, highlight=False)
    stop = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    started = datetime.now(UTC)
    metrics = Metrics()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    try:
        with (
            metrics.served(settings.telemetry.metrics_port),
            Progress(*columns, console=stderr, transient=True) as progress,
        ):
            task = progress.add_task("Preparing", total=None)

            def on_progress(done: int, candle: Candle) -> None:
                if done % 64 == 0 or options.speed is not None:
                    day = datetime.fromtimestamp(candle.open_time_ms / 1000, UTC)
                    progress.update(
                        task, completed=done, description=f"Trading {day:%Y-%m-%d %H:%M}"
                    )

            run = wiring.build(
                settings,
                options,
                mode=mode,
                folder=folder,
                on_progress=on_progress,
                on_wait=lambda why: stderr.print(why, markup=False, highlight=False),
                metrics=metrics,
            )
            progress.update(task, total=run.total)
            for notice in run.notices:
                stderr.print(f"[yellow]{notice}[/]", highlight=False)
            if run.recovery.last_seq:
                stderr.print(
                    f"Recovered {run.recovery.last_seq} events in {run.recovery.seconds:.2f} s; "
                    "continuing.",
                    highlight=False,
                )
            result = run.execute(stop)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    written = write_report(
        folder,
        models=run.models,
        paper=settings.paper.model(),
        result=result,
        started=started,
        account=settings.runtime.account,
    )
    if as_json:
        _print_json(written.document)
    else:
        stderr.print(written.told, highlight=False)


def _names(text: str | None) -> list[str] | None:
    return [name.strip().upper() for name in text.split(",") if name.strip()] if text else None


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


def _speed(text: str | None, source: str) -> float | None:
    from bot4_runtime.app.options import DEFAULT_SIMULATED_SPEED

    if text is None:
        return DEFAULT_SIMULATED_SPEED if source.startswith("simulated") else None
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.0 < speed <= 1e9:
        raise ConfigError(f"--speed {text!r}; expected a positive number, or max")
    return speed


def _print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=1, sort_keys=True) + "\n")


def _complain(kind: str, text: str) -> None:
    from bot4_runtime.telemetry import redact_text

    stderr.print(f"[red]bot4-runtime: {kind}:[/] ", end="", highlight=False)
    stderr.print(redact_text(text), markup=False, highlight=False, soft_wrap=True)


def _interrupted() -> NoReturn:
    stderr.print("bot4-runtime: interrupted", highlight=False)
    sys.exit(INTERRUPTED)


cli_operator.register(app)
cli_fees.register(app)
cli_rehearse.register(app)
cli_watch.register(app)


def main() -> None:
    """Run the command line; errors of ours become one message and an exit code."""
    try:
        sys.path.append(str(Path.cwd()))  # where --strategy module:Class is looked for last
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer's own reading of Ctrl-C
            _interrupted()
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _interrupted()
    except Bot4Error as error:
        told = ". ".join([str(error), *getattr(error, "__notes__", ())])
        _complain(type(error).__name__, told)
        sys.exit(error.exit_code)
    except OSError as error:
        wrong = isinstance(error, WRONG_PATH) or error.errno == errno.EROFS
        remedy = "; name folders that can be written: BOT4_HOME (home), --out" if wrong else ""
        what = f"{error.filename or 'input or output'}: {error.strerror or error}"
        _complain("OSError", what + remedy)
        sys.exit(2 if wrong else 1)
