"""The operator's words: halt, resume, flatten, override, accept, and why.

Orders go into the account's box (`commands`); the runtime obeys them, now or at its next start.
"""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from bot4_runtime.domain.errors import ConfigError

LONGEST_HOURS: Final = 720.0
"""30 days: an override that holds for longer is a setting (`risk.overrides`)."""

AccountOption = Annotated[str | None, typer.Option(help="Name of the account's journal.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it is journaled.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file (bot4.toml).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
WaitOption = Annotated[float, typer.Option(help="Seconds to wait for the runtime's answer.")]


def halt(
    reason: ReasonOption,
    account: AccountOption = None,
    wait: WaitOption = 5.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop entries until `resume`; stops and exits go on."""
    _give("halt", reason, {}, account=account, wait=wait, config=config, as_json=as_json)


def resume(
    reason: ReasonOption,
    account: AccountOption = None,
    reset_peak: Annotated[
        bool, typer.Option("--reset-peak", help="Measure drawdown anew from the present equity.")
    ] = False,
    wait: WaitOption = 5.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lift a halt. A tripped circuit breaker stays tripped until its cool-down is over."""
    arguments = {"reset_peak": True} if reset_peak else {}
    _give("resume", reason, arguments, account=account, wait=wait, config=config, as_json=as_json)


def flatten(
    reason: ReasonOption,
    account: AccountOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")] = False,
    wait: WaitOption = 5.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel entries, sell everything at the market, and halt until `resume`."""
    if not yes:
        name = _account(account, config)[1]
        if not sys.stdin.isatty():
            raise ConfigError("flatten sells everything; where nobody can be asked, add --yes")
        typed = typer.prompt(
            f"Everything of {name} will be sold. Type the account's name", err=True
        )
        if typed.strip() != name:
            raise ConfigError(f"{typed.strip()!r} is not {name!r}: nothing was ordered")
    _give("flatten", reason, {}, account=account, wait=wait, config=config, as_json=as_json)


def override(
    reason: ReasonOption,
    hours: Annotated[
        str, typer.Option("--for", help="How long it holds, in the market's time: 30m, 24h, 7d.")
    ],
    account: AccountOption = None,
    stop_entries: Annotated[bool, typer.Option("--halt", help="No entries at all.")] = False,
    max_position_pct: Annotated[float | None, typer.Option(help="Share of equity.")] = None,
    max_leverage: Annotated[float | None, typer.Option(help="Exposure over equity.")] = None,
    max_correlation: Annotated[float | None, typer.Option(help="With any position.")] = None,
    max_drawdown: Annotated[float | None, typer.Option(help="Share of the peak.")] = None,
    wait: WaitOption = 5.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tighten limits of risk, or halt entries, for a while; it can never loosen one."""
    limits = {
        "max_position_pct": max_position_pct,
        "max_leverage": max_leverage,
        "max_correlation": max_correlation,
        "max_drawdown": max_drawdown,
        "halt": True if stop_entries else None,
    }
    arguments = {name: value for name, value in limits.items() if value is not None}
    arguments["hours"] = _hours(hours)
    wrong = {name: value for name, value in arguments.items() if not math.isfinite(value)}
    if wrong or len(arguments) == 1:
        raise ConfigError(
            "an override tightens a limit to a number or halts entries; received "
            f"{wrong or 'neither'}, expected one of --halt, --max-position-pct, --max-leverage, "
            "--max-correlation, --max-drawdown"
        )
    _give(
        "override", reason, arguments, account=account, wait=wait, config=config, as_json=as_json
    )


def accept(
    reason: ReasonOption,
    account: AccountOption = None,
    wait: WaitOption = 5.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the venue's word for the differences that reconciliation found."""
    _give("accept", reason, {}, account=account, wait=wait, config=config, as_json=as_json)


def why(
    signal: Annotated[
        str | None, typer.Argument(help="A signal's id, the beginning of one, or `last`.")
    ] = None,
    account: AccountOption = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of a run's journal, such as a replay's report.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell why a signal was acted on or not; without one, list the last decisions."""
    from bot4_runtime.state.place import JOURNAL
    from bot4_runtime.state.reader import JournalReader
    from bot4_runtime.why import print_recent, print_story, recent, tell

    if folder is None:
        place, name, configured = _account(account, config)
        opened = JournalReader.of_account(place, name, configured)
    else:
        place, opened = folder, JournalReader.open(folder / JOURNAL)
    with opened as journal:
        if signal is None:
            found = recent(journal)
            _print({"decisions": found}) if as_json else print_recent(found, Console())
            return
        story = tell(journal, place / "snapshots", signal)
    _print(story) if as_json else print_story(story, Console())


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    for command in (halt, resume, flatten, override, accept, why):
        app.command()(command)


def _account(account: str | None, config: Path | None) -> tuple[Path, str, str]:
    """Return an account's folder, its name, and where a journal would be begun."""
    from bot4_runtime.settings import load_settings

    settings = load_settings(config, overrides={"runtime": {"account": account}})
    name = settings.runtime.account
    return settings.home / "state" / name, name, settings.state.journal


def _give(
    verb: str,
    reason: str,
    arguments: Mapping[str, float | bool],
    *,
    account: str | None,
    wait: float,
    config: Path | None,
    as_json: bool,
) -> None:
    from bot4_runtime.commands import CommandBox, JournaledOrders, Order
    from bot4_runtime.state.place import Elsewhere, has_journal, write_note
    from bot4_runtime.state.reader import JournalReader
    from bot4_runtime.status import holder_of

    folder, name, configured = _account(account, config)
    with JournalReader.of_account(folder, name, configured):  # a mistyped account has none
        if not has_journal(folder):
            write_note(folder, Elsewhere(url=configured, account=name))
        box = CommandBox(folder)
    command_id = box.put(Order(verb=verb, reason=reason, arguments=arguments))
    running = holder_of(folder.parent.parent / "locks" / f"{name}.lock")
    journaled = JournaledOrders(lambda: JournalReader.of_account(folder, name))
    answer = box.wait(command_id, journaled, wait if running else 0.0)
    if answer is not None and answer.refusal is not None:
        raise ConfigError(f"the runtime refused to {verb}: {answer.refusal}")
    seq = None if answer is None else answer.seq
    if as_json:
        _print({"command_id": command_id, "verb": verb, "seq": seq, "running_pid": running})
    elif seq is not None:
        typer.echo(f"{verb}: done, at sequence number {seq} of the journal.")
    elif running:
        typer.echo(
            f"{verb}: given; process {running} has not obeyed it yet. It will: look at status."
        )
    else:
        typer.echo(f"{verb}: queued; no runtime is running, it will be obeyed at the next start.")


def _hours(text: str) -> float:
    lengths = {"m": 1 / 60, "h": 1.0, "d": 24.0}
    try:
        hours = float(text[:-1]) * lengths[text[-1:]]
    except (KeyError, ValueError):
        hours = math.nan
    if not 0.0 < hours <= LONGEST_HOURS:
        raise ConfigError(
            f"--for {text!r} is no length of time above 0 and up to 30 days; expected 30m, 24h or "
            "7d"
        )
    return hours


def _print(document: Any) -> None:
    import json

    sys.stdout.write(json.dumps(document, indent=1, sort_keys=True) + "\n")
