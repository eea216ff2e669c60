"""The command ``bot4-runtime watch``."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bot4_runtime.settings import Settings

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def watch(
    symbol: Annotated[str, typer.Argument(help="As Binance writes it: BTCUSDT.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file (bot4.toml).")
    ] = None,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds from one line to the next.")] = 1,
    lines: Annotated[int, typer.Option(min=0, help="End after so many; 0 for no end.")] = 0,
    as_json: JsonOption = False,  # noqa: FBT002 - typer reads it
) -> None:
    """Show a symbol's live book and trades: spread, what is near, what was missed. No keys."""
    from bot4_runtime.settings import load_settings

    asyncio.run(_watch(load_settings(config), symbol.upper(), every, lines, as_json=as_json))


async def _watch(
    settings: "Settings", symbol: str, every: float, lines: int, *, as_json: bool
) -> None:
    from bot4_runtime.app.watch import watched

    told = watched(settings, symbol, every)
    try:
        number = 0
        async for row in told:
            text = json.dumps(row) if as_json else _line(row)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            number += 1
            if number == lines:
                break
    finally:
        await told.aclose()


def _line(row: dict[str, object]) -> str:
    if row["bid"] is None:
        market = f"book {row['book']}"
    else:
        market = (
            f"{row['bid']} / {row['ask']}  spread {row['spread_bps']:.2f} bps  "
            f"near {row['bids_near']} / {row['asks_near']}"
        )
    return (
        f"{row['symbol']}  {market}  last {row['last'] or '-'}  trades {row['trades']} "
        f"({row['trades_missed']} missed)  lines lost {row['lines_lost']}"
    )


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(watch)
