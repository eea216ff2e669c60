"""What a rehearsal stands on, by market: a venue with an account, its client, and its judge."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import ClassVar, Final

import msgspec

from bot4_runtime.clock import NS_PER_MS, Clock
from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.events import JournaledEvent
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.exchange.binance.futures import BinanceFutures, Holding
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.exchange.lease import Lease
from bot4_runtime.rehearsal.oracles import Findings, judge, judge_contracts
from bot4_runtime.state.trading_state import TradingState
from bot4_runtime.venue.account import BNB
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.journal import Entry
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.order_counts import SPOT_ORDERS
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.server import VenueServer
from bot4_runtime.venue.tape import candle_prints

KEY: Final = "rehearsal"
REPLY_S: Final = 0.25
"""How long an answer may take, by the machine's clock; faults delay beyond it."""
SILENCE_S: Final = 1.5
"""How long the user stream may say nothing, pings included."""
REPORT_S: Final = 0.15
"""How long the report of an answered order may take, by the machine's clock."""
BNB_PRICE: Final = Decimal(320)
INSURANCE: Final = Decimal(1_000_000)
COARSER: Final = 5
"""Steps of prices and quantities than those that are assumed of a symbol."""
AS_USUAL: Final = Holding()
FOREVER_MS: Final = 10 * 365 * 86_400_000
Sink = Callable[[Entry], None]
Venue = Loopback | FuturesLoopback
Client = BinanceSpot | BinanceFutures
MakesClient = Callable[[VenueServer, Clock, Lease, Sequence[str]], Client]


def _budget(clock: Clock, market: Market) -> RequestBudget:
    return RequestBudget(None, market, lambda: clock.now_ns() // NS_PER_MS)


class SpotClient(BinanceSpot):
    """The connector of spot with shorter waits, orders by REST."""

    by_line = False

    def __init__(
        self, server: VenueServer, clock: Clock, lease: Lease, symbols: Sequence[str] = ()
    ) -> None:
        at = f"127.0.0.1:{server.port}"
        super().__init__(
            f"http://{at}",
            f"ws://{at}/ws-api/v3",
            Signer(Secret(KEY), Secret(KEY)),
            clock,
            reply_s=REPLY_S,
            may_send=lease.holds,
            silence_s=SILENCE_S,
            report_s=REPORT_S,
            budget=_budget(clock, Market.SPOT),
            order_url=f"ws://{at}/ws-api/v3" if self.by_line else None,
            symbols=symbols,
        )


class SpotLineClient(SpotClient):
    """The same with orders over the WebSocket API, as ``start --mode testnet`` sends them."""

    by_line = True


class ContractClient(BinanceFutures):
    """The connector of USD-M with shorter waits, orders by REST."""

    by_line = False

    def __init__(
        self,
        server: VenueServer,
        clock: Clock,
        lease: Lease,
        symbols: Sequence[str] = (),
        *,
        holding: Holding = AS_USUAL,
    ) -> None:
        at = f"127.0.0.1:{server.port}"
        super().__init__(
            f"http://{at}",
            f"ws://{at}/private",
            Signer(Secret(KEY), Secret(KEY)),
            clock,
            holding=holding,
            reply_s=REPLY_S,
            may_send=lease.holds,
            silence_s=SILENCE_S,
            report_s=REPORT_S,
            budget=_budget(clock, Market.USDM),
            order_url=f"ws://{at}/ws-fapi/v1" if self.by_line else None,
            symbols=symbols,
        )


class ContractLineClient(ContractClient):
    """The same with orders over the WebSocket API, as ``start --mode testnet`` sends them."""

    by_line = True


class Stage(ABC):
    """A market's part of a rehearsal.

    Args:
        firsts: each symbol's first candle.
        deposits: what the account begins with, by asset.

    Attributes:
        spot_rules: rules of prints, by symbol.
        prices: first prices, by symbol.
    """

    market: ClassVar[Market]
    venue: Venue

    def __init__(self, firsts: Iterable[Candle], deposits: Mapping[str, Decimal]) -> None:
        self.deposits = {asset: amount for asset, amount in deposits.items() if amount}
        self.prices: dict[str, Decimal] = {}
        self.spot_rules: dict[str, SymbolRules] = {}
        for candle in firsts:
            assumed = Instrument.assume(candle.symbol, self.market, candle.close)
            made = _coarser(assumed)
            self.spot_rules[candle.symbol] = SymbolRules.of(made)
            price = Decimal(repr(candle.open)) // made.tick_size * made.tick_size
            self.prices[candle.symbol] = price
            self._list(made)

    @abstractmethod
    def _list(self, instrument: Instrument) -> None:
        """Take a symbol's rules over."""

    @property
    @abstractmethod
    def instruments(self) -> Mapping[str, tuple[SymbolRules | Contract, Decimal]]:
        """Rules and first price of each symbol."""

    @abstractmethod
    def open(self, clock: Clock, candles: Iterable[Candle], depth: Depth, sink: Sink) -> Venue:
        """Open the venue with the account, whose tape these candles are."""

    @abstractmethod
    def least(self) -> dict[str, Decimal]:
        """Return by symbol the quantity below which nothing can be sold."""

    @abstractmethod
    def judge(
        self, entries: Sequence[Entry], events: Iterable[JournaledEvent], state: TradingState
    ) -> Findings:
        """Hold Bot4's journal against the venue."""

    def move(self, to_ms: int) -> None:
        """Let the market, and the venue's time, go on."""
        self.venue.advance(to_ms)


def _coarser(assumed: Instrument) -> Instrument:
    """Return rules other than those that the engine assumes until it learns them."""
    return msgspec.structs.replace(
        assumed,
        tick_size=assumed.tick_size * COARSER,
        step_size=assumed.step_size * COARSER,
        min_quantity=assumed.min_quantity * COARSER,
        min_notional=assumed.min_notional * COARSER,
    )


class SpotStage(Stage):
    """Spot: what is held are balances; commissions may be paid in BNB while there is any."""

    market = Market.SPOT
    venue: Loopback

    def _list(self, instrument: Instrument) -> None:
        """Nothing beside the rules of its prints, which are its own."""

    @property
    def instruments(self) -> dict[str, tuple[SymbolRules, Decimal]]:
        """Rules and first price of each symbol."""
        return {symbol: (rules, self.prices[symbol]) for symbol, rules in self.spot_rules.items()}

    def open(self, clock: Clock, candles: Iterable[Candle], depth: Depth, sink: Sink) -> Venue:
        """Open the venue with the account, whose tape these candles are."""
        self.venue = Loopback(
            clock,
            [*self.instruments.values(), *self._bnb_market()],
            prints=candle_prints(candles, self.spot_rules),
            depth=depth,
            sink=sink,
            order_limits=SPOT_ORDERS,
        )
        account = self.venue.open_account(1, KEY, KEY, self.deposits.items())
        account.pays_in_bnb = BNB in self.deposits
        return self.venue

    def _bnb_market(self) -> list[tuple[SymbolRules, Decimal]]:
        """A market of BNB where none is traded: it says what commissions cost."""
        if BNB not in self.deposits:
            return []
        quote = next(asset for asset in self.deposits if asset != BNB)
        name = BNB + quote
        if name in self.spot_rules:
            return []
        return [
            (SymbolRules.of(Instrument.assume(name, Market.SPOT, float(BNB_PRICE))), BNB_PRICE)
        ]

    def least(self) -> dict[str, Decimal]:
        """Return by symbol the quantity below which nothing can be sold."""
        return {
            symbol: max(rules.step_size, rules.min_notional / price)
            for symbol, (rules, price) in self.instruments.items()
        }

    def judge(
        self, entries: Sequence[Entry], events: Iterable[JournaledEvent], state: TradingState
    ) -> Findings:
        """Hold Bot4's journal against the venue."""
        exchange = self.venue.exchange
        account = exchange.account(KEY)
        assert account is not None  # noqa: S101 - opened above
        orders = exchange.orders(account)
        return judge(entries, account, orders, events, state, self.deposits)


class ContractStage(Stage):
    """USD-M: what is held are positions; what only reduces has no least notional.

    Args:
        countdown_takes_algos: whether the venue's countdowns end conditional orders as well.
    """

    market = Market.USDM
    venue: FuturesLoopback

    def __init__(
        self,
        firsts: Iterable[Candle],
        deposits: Mapping[str, Decimal],
        *,
        countdown_takes_algos: bool = False,
    ) -> None:
        self._contracts: dict[str, Contract] = {}
        self._takes_algos = countdown_takes_algos
        super().__init__(firsts, deposits)

    def _list(self, instrument: Instrument) -> None:
        """Take a symbol's rules over."""
        self._contracts[instrument.symbol] = Contract.of(instrument)

    @property
    def instruments(self) -> dict[str, tuple[Contract, Decimal]]:
        """Rules and first price of each symbol."""
        return {symbol: (made, self.prices[symbol]) for symbol, made in self._contracts.items()}

    def open(self, clock: Clock, candles: Iterable[Candle], depth: Depth, sink: Sink) -> Venue:
        """Open the venue with the account, whose tape these candles are."""
        self.venue = FuturesLoopback(
            clock,
            self.instruments.values(),
            prints=candle_prints(candles, self.spot_rules),
            depth=depth,
            insurance=[(asset, INSURANCE) for asset in self.deposits],
            sink=sink,
            countdown_takes_algos=self._takes_algos,
        )
        self.venue.open_account(1, KEY, KEY, self.deposits.items())
        return self.venue

    def least(self) -> dict[str, Decimal]:
        """Return by symbol the quantity below which nothing can be sold."""
        return {symbol: made.min_quantity for symbol, made in self._contracts.items()}

    def judge(
        self, entries: Sequence[Entry], events: Iterable[JournaledEvent], state: TradingState
    ) -> Findings:
        """Hold Bot4's journal against the venue."""
        exchange = self.venue.exchange
        account = exchange.account(KEY)
        assert account is not None  # noqa: S101 - opened above
        orders, algos = exchange.orders(account), self.venue.algos.all(account)
        return judge_contracts(entries, account, orders, algos, events, state, self.deposits)

    def move(self, to_ms: int) -> None:
        """Let the market, and the venue's time, go on.

        A listen key lives on: its client keeps it by the machine's minutes, and an hour of the
        market is less than a second of them.
        """
        account = self.venue.exchange.account(KEY)
        if account is not None:
            self.venue.keys.keep(account, to_ms + FOREVER_MS)
        self.venue.advance(to_ms)
