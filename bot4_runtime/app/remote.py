"""A venue outside the process, as settings name it: keys, clocks, and the right to send.

Mode ``testnet`` trades at Binance's spot testnet or at a venue on loopback. There is no way to
the real market from here.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from bot4_runtime.app.options import RunOptions
from bot4_runtime.app.source import DEFAULT_BINANCE_SYMBOLS, TESTNET_REST
from bot4_runtime.clock import Clock, LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.exchange.binance.http_connection import LOOPBACK
from bot4_runtime.exchange.binance.limits import shared_budget
from bot4_runtime.exchange.binance.signing import signer_from_environment
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.exchange.lease import Lease
from bot4_runtime.settings import Settings
from bot4_runtime.sources import CandleSource
from bot4_runtime.strategy.protocol import Strategy

TESTNET_STREAM: Final = "wss://ws-api.testnet.binance.vision/ws-api/v3"
REAL_MONEY: Final = ("binance.com", "binance.us")
"""Domains whose spot hosts trade with real money, all but their testnets."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A venue and the clocks that go with it.

    Attributes:
        clock: UTC.
        timer: nanoseconds of a clock that never jumps.
        lease: the right to send, renewed by commits; the venue asks it.
        source: candles of the venue's market; None for the source that is named.
    """

    venue: BinanceSpot
    clock: Clock
    timer: Callable[[], int]
    lease: Lease
    source: CandleSource | None = None

    def start(self) -> None:
        """Learn the venue's time where it answers, and follow the user stream."""
        self.venue.start()

    def stop(self) -> None:
        """Let go of all connections."""
        self.venue.close()


def connect(settings: Settings, options: RunOptions, strategy: Strategy) -> Remote:
    """Return the venue of mode ``testnet``; nothing is sent yet.

    Raises:
        ConfigError: the source, the market or the strategy does not fit it, or the environment
            names no key.
    """
    named = settings.binance
    if bool(named.rest_url) != bool(named.stream_url):
        raise ConfigError(
            "of binance.rest_url and binance.stream_url one is named; they must be of the same "
            "venue: name both, or none for Binance's spot testnet"
        )
    rest_url, stream_url = named.rest_url or TESTNET_REST, named.stream_url or TESTNET_STREAM
    host = urlsplit(rest_url).hostname or ""
    if options.source != "binance":
        raise ConfigError(
            f"mode testnet trades on the venue's own candles, and the source is "
            f"{options.source!r}; set runtime.source or --source to binance"
        )
    if settings.runtime.market != Market.SPOT.value:
        raise ConfigError(
            f"mode testnet trades spot, and runtime.market is {settings.runtime.market!r}; set "
            "it to 'spot'"
        )
    if host.endswith(REAL_MONEY):
        raise ConfigError(
            f"binance.rest_url {rest_url!r} is a market of real money, and mode testnet "
            "trades at https://testnet.binance.vision or on 127.0.0.1"
        )
    if strategy.synthetic_rules and host not in LOOPBACK:
        raise ConfigError(
            f"the strategy {strategy.name} is an exercise judged by made-up evidence; it trades "
            f"on paper and on 127.0.0.1, not at {host}"
        )
    lease = Lease()
    clock = LiveClock()
    venue = BinanceSpot(
        rest_url,
        stream_url,
        signer_from_environment(os.environ),
        clock,
        may_send=lease.holds,
        budget=None if host in LOOPBACK else shared_budget(Market.SPOT),
        order_url=stream_url,
        proxy=named.proxy or None,
        symbols=settings.runtime.symbols or DEFAULT_BINANCE_SYMBOLS,
    )
    return Remote(venue, clock, time.monotonic_ns, lease)
