"""The command ``bot4-runtime fees``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def fees(
    account: Annotated[str | None, typer.Option(help="Name of the account's journal.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of a run's journal, such as a replay's report.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file (bot4.toml).")
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer reads it
) -> None:
    """Show the fees of an account, and exit 1 when they are not what the schedule says."""
    from bot4_runtime.fee_report import fee_report, print_fee_report
    from bot4_runtime.settings import load_settings
    from bot4_runtime.state.place import JOURNAL
    from bot4_runtime.state.reader import JournalReader

    settings = load_settings(config, overrides={"runtime": {"account": account}})
    name = settings.runtime.account
    if folder is None:
        own = settings.home / "state" / name
        opened = JournalReader.of_account(own, name, settings.state.journal)
    else:
        opened = JournalReader.open(folder / JOURNAL)
    with opened as journal:
        found = fee_report(journal, settings.fees)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        print_fee_report(found, Console())
    if not found["matches"]:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(fees)
