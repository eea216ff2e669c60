"""A venue outside the process, as settings name it: keys, clocks, and the right to send.

Mode ``testnet`` trades at Binance's testnets, of spot and of USD-M, or at a venue on loopback,
mode ``live`` spot alone, with real money or on loopback (`live` says what must hold). Neither
takes the other's hosts, nor reads another market's prices (`hosts`).
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from bot4_runtime.app.hosts import host_faults, request_budget, trades_on_loopback, venue_name
from bot4_runtime.app.live import require_meant
from bot4_runtime.app.options import RunOptions
from bot4_runtime.app.source import DEFAULT_BINANCE_SYMBOLS
from bot4_runtime.clock import Clock, LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.exchange.account_claim import AccountClaim
from bot4_runtime.exchange.binance.futures import BinanceFutures, Holding
from bot4_runtime.exchange.binance.limits import RequestBudget, machine_folder
from bot4_runtime.exchange.binance.mark_feed import MarkFeed, mark_streams
from bot4_runtime.exchange.binance.market_line import routes
from bot4_runtime.exchange.binance.route_reader import over_aiohttp
from bot4_runtime.exchange.binance.signing import signer_from_environment
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.exchange.dead_man import DeadMan
from bot4_runtime.exchange.funding import FundingDesk, Ledger
from bot4_runtime.exchange.lease import Lease
from bot4_runtime.exchange.recognition import shown_order
from bot4_runtime.exchange.stream_hosts import StreamHosts
from bot4_runtime.protection.margin_book import MarginBook
from bot4_runtime.settings import Settings
from bot4_runtime.sources import CandleSource
from bot4_runtime.state.store import StateStore
from bot4_runtime.strategy.protocol import Strategy

DEAD_MAN_LEAST_S: Final = 30


@dataclass(frozen=True, slots=True)
class Remote:
    """A venue and the clocks that go with it.

    Attributes:
        clock: UTC.
        timer: nanoseconds of a clock that never jumps.
        lease: the right to send, renewed by commits; the venue asks it.
        source: candles of the venue's market; None for the source that is named.
        local: whether the venue is on this machine, where nothing is at stake.
        wait: lets that many seconds pass.
        claim: makes a journal's claim to the account, from what it holds and its name in words;
            None where the account is nobody else's.
        budget: what may be asked of the venue, by the account and for candles together.
        dead_man_s: after how long without a word the venue ends entries; 0 for never.
        margin: on what positions rest, and `marks`, by which they are valued; None on spot, where
            nothing is liquidated.
    """

    venue: BinanceSpot | BinanceFutures
    clock: Clock
    timer: Callable[[], int]
    lease: Lease
    source: CandleSource | None = None
    local: bool = False
    wait: Callable[[float], object] = time.sleep
    claim: Callable[[StateStore, str], AccountClaim] | None = None
    budget: RequestBudget | None = None
    dead_man_s: int = 0
    margin: MarginBook | None = None
    marks: MarkFeed | None = None

    def told(self, symbol: str) -> Instrument | None:
        """Return a symbol's rules as the venue told them; None while it told none."""
        rules = self.venue.rules(symbol)
        return rules.instrument() if rules is not None else None

    def dead_man(self) -> DeadMan | None:
        """Return the switch that ends entries when nobody looks after them; None for none."""
        if not self.dead_man_s or not isinstance(self.venue, BinanceFutures):
            return None
        return DeadMan(self.venue.countdown, self.dead_man_s * 1_000, self.timer)

    def funding(self, ledger: Ledger, symbols: tuple[str, ...]) -> FundingDesk | None:
        """Return what books funding; None on a market that has none."""
        if not isinstance(self.venue, BinanceFutures):
            return None
        return FundingDesk(self.venue, ledger, symbols)

    def start(self) -> None:
        """Learn the venue's time where it answers, and follow the user stream and the marks."""
        self.venue.start()
        if self.marks is not None:
            self.marks.start()

    def stop(self) -> None:
        """Let go of all connections."""
        if self.marks is not None:
            self.marks.close()
        self.venue.close()


def connect(settings: Settings, options: RunOptions, strategy: Strategy) -> Remote:
    """Return the venue of mode ``testnet`` or ``live``; nothing is sent yet.

    Raises:
        ConfigError: the host, the source, the market or the strategy does not fit it, or the
            environment names no key.
    """
    named, mode = settings.binance, settings.runtime.mode
    rest_url, stream_url = named.hosts(mode, settings.runtime.market)
    if options.source != "binance":
        raise ConfigError(
            f"mode {mode} trades on the venue's own candles, and the source is "
            f"{options.source!r}; set runtime.source or --source to binance"
        )
    market = Market(settings.runtime.market)
    if mode == "live" and market is not Market.SPOT:
        raise ConfigError(
            f"mode {mode} trades spot, and runtime.market is {market.value!r}: this release takes "
            "it to mode testnet alone, since this market does not tell the number of a key's "
            "account, by which real money is confirmed; set runtime.market to 'spot', or "
            "runtime.mode to 'testnet'"
        )
    if mode == "live":
        require_meant(settings, os.environ)
    elif faults := host_faults(settings):
        raise ConfigError("; ".join(faults))
    if named.dead_man_s and (market is Market.SPOT or named.dead_man_s < DEAD_MAN_LEAST_S):
        raise ConfigError(
            f"binance.dead_man_s is {named.dead_man_s} and runtime.market {market.value!r}: "
            f"expected {DEAD_MAN_LEAST_S} or more on 'usdm', or 0; spot has no such switch, and a "
            "shorter one goes off while nothing is wrong"
        )
    local = trades_on_loopback(settings)
    if strategy.synthetic_rules and not local:
        raise ConfigError(
            f"the strategy {strategy.name} is an exercise judged by made-up evidence; it trades "
            f"on paper and on 127.0.0.1, not at {rest_url}"
        )
    lease = Lease()
    clock = LiveClock()
    signer = signer_from_environment(os.environ)
    budget = request_budget(rest_url, market)
    ways: dict[str, Any] = {
        "may_send": lease.holds,
        "budget": budget,
        "order_url": stream_url,
        "proxy": named.proxy or None,
        "symbols": settings.runtime.symbols or DEFAULT_BINANCE_SYMBOLS,
    }
    venue: BinanceSpot | BinanceFutures
    margin, marks = None, None
    if market is Market.SPOT:
        venue = BinanceSpot(rest_url, stream_url, signer, clock, **ways)
    else:
        margin, marks = MarginBook(settings.runtime.quote), mark_feed(settings, ways["symbols"])
        venue = BinanceFutures(
            rest_url,
            named.private_route(mode),
            signer,
            clock,
            holding=holding_of(settings),
            margin=margin,
            **ways,
        )

    def claim(store: StateStore, journal: str) -> AccountClaim:
        def shown() -> str:
            order = shown_order(store.state, venue.query)
            return "" if order is None else order.client_id

        return AccountClaim(
            venue_name(rest_url),
            signer.api_key,
            journal=journal,
            facts=store,
            folder=machine_folder(),
            ask=venue.account_uid,
            shown=shown,
            takeover_ms=lease.takeover_ms,
            wait=time.sleep,
        )

    return Remote(
        venue,
        clock,
        time.monotonic_ns,
        lease,
        local=local,
        claim=claim,
        budget=budget,
        dead_man_s=named.dead_man_s,
        margin=margin,
        marks=marks,
    )


def mark_feed(settings: Settings, symbols: Sequence[str]) -> MarkFeed:
    """Return what follows the marks of symbols where USD-M positions are held."""
    route = settings.binance.market_route(settings.runtime.mode)
    followed = routes(Market.USDM, StreamHosts(usdm_market=route), mark_streams(symbols))
    return MarkFeed(followed, dialler=partial(over_aiohttp, settings.binance.proxy or None))


def holding_of(settings: Settings) -> Holding:
    """Return how the settings want positions held; no leverage beyond risk's own limit."""
    return Holding(
        leverage=max(math.ceil(settings.risk.max_leverage), 1),
        isolated=settings.binance.margin == "isolated",
        hedge=settings.binance.hedge,
    )
