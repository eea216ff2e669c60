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
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.hosting import serve
from bot4_runtime.venue.journal import FileSink, no_sink
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.order_counts import SPOT_ORDERS
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.server import Hosted, VenueServer
from bot4_runtime.venue.tape import candle_prints

API_KEY: Final = "loopback"
SECRET: Final = "loopback"  # noqa: S105 - it opens nothing but this machine's invented exchange
TICK_S: Final = 0.25
INSURANCE: Final = Decimal(1_000_000)


def simulated_venue(
    *,
    market: Market = Market.SPOT,
    seed: int,
    symbols: Sequence[str],
    interval: str,
    cash: Decimal,
    journal: Path | None = None,
) -> Loopback | FuturesLoopback:
    """Build a venue with one account, `API_KEY`.

    Args:
        market: spot, or perpetuals on the same prices.
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
    instruments = [Instrument.assume(candle.symbol, market, candle.open) for candle in firsts]
    rules = {instrument.symbol: SymbolRules.of(instrument) for instrument in instruments}
    prices = [
        Decimal(repr(candle.open)) // instrument.tick_size * instrument.tick_size
        for candle, instrument in zip(firsts, instruments, strict=True)
    ]
    prints = candle_prints(_endless(source), rules)
    sink = FileSink(journal) if journal is not None else no_sink
    quotes = sorted({instrument.quote for instrument in instruments})
    venue: Loopback | FuturesLoopback
    if market is Market.SPOT:
        listed = list(zip(rules.values(), prices, strict=True))
        venue = Loopback(LiveClock(), listed, prints=prints, sink=sink, order_limits=SPOT_ORDERS)
    else:
        contracts = [Contract.of(instrument) for instrument in instruments]
        perpetuals = list(zip(contracts, prices, strict=True))
        fund = [(quote, INSURANCE) for quote in quotes]
        venue = FuturesLoopback(LiveClock(), perpetuals, prints=prints, insurance=fund, sink=sink)
    venue.open_account(1, API_KEY, SECRET, [(quote, cash) for quote in quotes])
    return venue


def _endless(source: SimulatedSource) -> Iterator[Candle]:
    """Yield the market's candles from its session on, without end."""
    block_ms = SIMULATED_BLOCK * interval_ms(source.interval)
    for number in count():
        start_ms = SIMULATED_START_MS + number * block_ms
        yield from source.history(start_ms, start_ms + block_ms)


def run_venue(
    venue: Hosted,
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
