"""A venue whose market is the built-in, invented one; it moves with the machine's clock."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Final

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Candle, Market, interval_ms
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.sources import SIMULATED_BLOCK, SIMULATED_START_MS, SimulatedSource
from bot4_runtime.venue.hosting import serve
from bot4_runtime.venue.journal import FileSink, no_sink
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.server import VenueServer
from bot4_runtime.venue.tape import candle_prints

API_KEY: Final = "loopback"
SECRET: Final = "loopback"  # noqa: S105 - it opens nothing but this machine's invented exchange
TICK_S: Final = 0.25


def simulated_venue(
    *,
    seed: int,
    symbols: Sequence[str],
    interval: str,
    cash: Decimal,
    journal: Path | None = None,
) -> Loopback:
    """Build a venue with one account, `API_KEY`.

    Args:
        seed: names the market.
        symbols: all built-in ones when empty.
        interval: of the candles the tape is drawn from.
        cash: what the account holds of each quote asset.
        journal: file that the venue's journal is appended to; None keeps none.

    Raises:
        DataError: a symbol or the interval is none.
    """
    source = SimulatedSource(seed=seed, interval=interval, symbols=symbols, speed=None)
    candles = _endless(source)
    firsts = [next(candles) for _ in source.symbols]
    rules = {
        candle.symbol: SymbolRules.of(Instrument.assume(candle.symbol, Market.SPOT, candle.open))
        for candle in firsts
    }
    listed = [
        (made, Decimal(repr(candle.open)) // made.tick_size * made.tick_size)
        for candle, made in zip(firsts, rules.values(), strict=True)
    ]
    venue = Loopback(
        LiveClock(),
        listed,
        prints=candle_prints(_endless(source), rules),
        sink=FileSink(journal) if journal is not None else no_sink,
    )
    quotes = sorted({made.quote for made in rules.values()})
    venue.open_account(1, API_KEY, SECRET, [(quote, cash) for quote in quotes])
    return venue


def _endless(source: SimulatedSource) -> Iterator[Candle]:
    """Yield the market's candles from its session on, without end."""
    block_ms = SIMULATED_BLOCK * interval_ms(source.interval)
    for number in count():
        start_ms = SIMULATED_START_MS + number * block_ms
        yield from source.history(start_ms, start_ms + block_ms)


def run_venue(
    venue: Loopback,
    *,
    port: int,
    admin_port: int | None,
    speed: float,
    ready: Callable[[VenueServer], None],
) -> None:
    """Serve a venue until SIGINT or SIGTERM.

    Args:
        venue: on the machine's clock.
        port: of the exchange; 0 lets the system choose.
        admin_port: of the operator's door; None for no such door.
        speed: time of the market over the machine's time.
        ready: told the ports.
    """

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        began = time.monotonic()

        def tick() -> None:
            elapsed_ms = (time.monotonic() - began) * 1000.0 * speed
            venue.advance(SIMULATED_START_MS + int(elapsed_ms))

        server = VenueServer(venue, port, admin_port)
        await serve(server, stop, ready=ready, tick=tick, tick_s=TICK_S)

    asyncio.run(run())
