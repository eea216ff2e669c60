"""What the USD-M venue keeps: markets, customers, orders, trades, and how fills are booked.

Everybody else is the tape: `others` takes the other side of every fill that no customer takes,
so that all accounts, fees, the insurance fund and the others together hold what was paid in, at
any mark.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from itertools import count

from bot4_runtime.clock import NS_PER_MS, Clock
from bot4_runtime.venue import refusals
from bot4_runtime.venue.account import QUANTUM, ZERO
from bot4_runtime.venue.book import Book, Depth
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_account import FuturesAccount, Position
from bot4_runtime.venue.futures_events import (
    AccountChanged,
    FuturesEvent,
    Traded,
)
from bot4_runtime.venue.futures_judgement import FuturesBook, closable
from bot4_runtime.venue.futures_margin import MarginBook
from bot4_runtime.venue.futures_orders import (
    FuturesOrder,
    FuturesReport,
    FuturesTrade,
)
from bot4_runtime.venue.market_history import MarketHistory, MarketTrade
from bot4_runtime.venue.orders import Status
from bot4_runtime.venue.refusals import Refused

FuturesListener = Callable[[FuturesEvent], None]


@dataclass(slots=True)
class FuturesMarket:
    """One perpetual.

    Attributes:
        updates: of the book so far.
        mark: valued by, in quote: the last price and `basis`, or `scripted` while that is set.
        funding_rate: paid by longs to shorts at `next_funding_ms`, as a share of the notional.
    """

    contract: Contract
    book: FuturesBook
    mark: Decimal
    next_funding_ms: int
    basis: Decimal = ZERO
    scripted: Decimal | None = None
    funding_rate: Decimal = Decimal("0.0001")
    fundings: list[tuple[int, Decimal, Decimal]] = field(default_factory=list)
    history: MarketHistory = field(default_factory=MarketHistory)
    trade_ids: "count[int]" = field(default_factory=lambda: count(1))
    updates: int = 1

    @property
    def index(self) -> Decimal:
        """The index price: what the tape traded at last, in quote."""
        return self.book.last


@dataclass(slots=True)
class Customer:
    """An account with its orders and trades."""

    account: FuturesAccount
    orders: dict[int, FuturesOrder] = field(default_factory=dict)
    open: dict[int, FuturesOrder] = field(default_factory=dict)
    latest: dict[tuple[str, str], FuturesOrder] = field(default_factory=dict)
    trades: list[FuturesTrade] = field(default_factory=list)


@dataclass(slots=True)
class Others:
    """The rest of the market: what it paid and got in quote, and what it holds in base."""

    cash: dict[str, Decimal] = field(default_factory=dict)
    held: dict[str, Decimal] = field(default_factory=dict)

    def trade(self, contract: Contract, change: Decimal, price: Decimal) -> None:
        """Book a trade; `change` is negative for what it sold."""
        self.held[contract.symbol] = self.held.get(contract.symbol, ZERO) + change
        self.pay(contract.quote, change * price)

    def pay(self, asset: str, amount: Decimal) -> None:
        """Take money from it; give when negative."""
        self.cash[asset] = self.cash.get(asset, ZERO) - amount


class FuturesLedger:
    """Keeps everything; decides nothing.

    Args:
        clock: tells the exchange's time.
        listener: told of everything, in order.
        insurance: what the insurance fund holds at first, by margin asset.
    """

    def __init__(
        self,
        clock: Clock,
        listener: FuturesListener | None = None,
        insurance: Iterable[tuple[str, Decimal]] = (("USDT", Decimal(1_000_000)),),
    ) -> None:
        self._clock = clock
        self.tell: FuturesListener = listener or (lambda _event: None)
        self._markets: dict[str, FuturesMarket] = {}
        self._customers: dict[str, Customer] = {}
        self._order_ids = count(1)
        self.fees: dict[str, Decimal] = {}
        self.insurance: dict[str, Decimal] = dict(insurance)
        self.others = Others()
        self.margins = MarginBook(
            lambda symbol: self.market(symbol).contract,
            lambda symbol: self.market(symbol).mark,
            lambda account: self._customers[account.api_key].open.values(),
        )

    def list_symbol(self, contract: Contract, last: Decimal, depth: Depth | None = None) -> None:
        """Open a market at a first price, which is the mark at first."""
        book: FuturesBook = Book(contract, last, depth or Depth())
        funding_ms = contract.next_funding_ms(self.now_ms())
        self._markets[contract.symbol] = FuturesMarket(contract, book, last, funding_ms)

    def open_account(self, account: FuturesAccount) -> None:
        """Let somebody in by an API key."""
        self._customers[account.api_key] = Customer(account)

    def account(self, api_key: str) -> FuturesAccount | None:
        """Return who an API key belongs to."""
        customer = self._customers.get(api_key)
        return None if customer is None else customer.account

    @property
    def accounts(self) -> Sequence[FuturesAccount]:
        """All customers."""
        return [customer.account for customer in self._customers.values()]

    @property
    def markets(self) -> Sequence[FuturesMarket]:
        """All markets."""
        return list(self._markets.values())

    def market(self, symbol: str) -> FuturesMarket:
        """Return a market; raises Refused -1121 for one not listed."""
        market = self._markets.get(symbol)
        if market is None:
            raise Refused(*refusals.BAD_SYMBOL)
        return market

    def now_ms(self) -> int:
        """Return the exchange's time."""
        return self._clock.now_ns() // NS_PER_MS

    def take_in(self, order: FuturesOrder) -> None:
        """Number an order and tell of it; it is on no book yet."""
        customer = self._customers[order.account.api_key]
        order.order_id = next(self._order_ids)
        order.client_id = order.client_id or f"web_{order.order_id}"
        customer.orders[order.order_id] = customer.open[order.order_id] = order
        customer.latest[order.symbol, order.client_id] = order
        self.report(order, "NEW")

    def close(self, order: FuturesOrder, status: Status, execution: str) -> None:
        """End an order."""
        order.status = status
        order.updated_ms = self.now_ms()
        self._markets[order.symbol].book.remove(order)
        self._customers[order.account.api_key].open.pop(order.order_id, None)
        self.report(order, execution)

    def find(
        self, account: FuturesAccount, symbol: str, order_id: int | None, client_id: str
    ) -> FuturesOrder | None:
        """Return an order by either id, the latest of that client id."""
        self.market(symbol)
        customer = self._customers[account.api_key]
        if order_id is None:
            return customer.latest.get((symbol, client_id))
        order = customer.orders.get(order_id)
        return order if order is not None and order.symbol == symbol else None

    def open_orders(self, account: FuturesAccount, symbol: str | None) -> list[FuturesOrder]:
        """Return open orders, oldest first, of one symbol or of all."""
        orders = self._customers[account.api_key].open.values()
        return [order for order in orders if symbol in {None, order.symbol}]

    def orders(self, account: FuturesAccount) -> list[FuturesOrder]:
        """Return all orders an account ever had, oldest first."""
        return list(self._customers[account.api_key].orders.values())

    def trades(self, account: FuturesAccount, symbol: str | None) -> list[FuturesTrade]:
        """Return an account's trades, oldest first."""
        trades = self._customers[account.api_key].trades
        return [trade for trade in trades if symbol in {None, trade.symbol}]

    def fill(
        self,
        market: FuturesMarket,
        order: FuturesOrder,
        number: int,
        price: Decimal,
        quantity: Decimal,
        *,
        maker: bool = True,
        against_others: bool = True,
        free: bool = False,
    ) -> None:
        """Book one side of match `number`.

        `against_others`: no customer takes the other side. `free`: of commission.
        """
        account, contract, now_ms = order.account, market.contract, self.now_ms()
        position = account.position(contract, order.request.position_side)
        change = order.side.sign * quantity
        realised = account.trade(position, change, price, now_ms)
        rate = ZERO if free else (account.maker if maker else account.taker)
        commission = (price * quantity * rate).quantize(QUANTUM, ROUND_DOWN)
        account.charge(position, commission)
        asset = contract.quote
        self.fees[asset] = self.fees.get(asset, ZERO) + commission
        if against_others:
            self.others.trade(contract, -change, price)
        account.note("REALIZED_PNL", contract.symbol, asset, realised, now_ms, number)
        account.note("COMMISSION", contract.symbol, asset, -commission, now_ms, number)
        order.filled += quantity
        order.spent += price * quantity
        order.status = Status.PARTIALLY_FILLED if order.left > 0 else Status.FILLED
        order.updated_ms = now_ms
        trade = FuturesTrade(
            trade_id=number,
            order_id=order.order_id,
            symbol=contract.symbol,
            side=order.side,
            position_side=order.request.position_side,
            price=price,
            quantity=quantity,
            realised=realised,
            commission=commission,
            asset=asset,
            maker=maker,
            time_ms=now_ms,
        )
        order.trades.append(trade)
        customer = self._customers[account.api_key]
        customer.trades.append(trade)
        if not order.status.open:
            market.book.remove(order)
            customer.open.pop(order.order_id, None)
        self.tell(AccountChanged(account, "ORDER", asset, ZERO, (position,), now_ms))
        self.report(order, "CALCULATED" if order.venue_kind else "TRADE", trade)
        self._drop_idle(account, position)

    def report(
        self, order: FuturesOrder, execution: str, trade: FuturesTrade | None = None
    ) -> None:
        """Tell what happened to an order."""
        self._markets[order.symbol].updates += 1
        self.tell(
            FuturesReport(
                execution,
                order,
                order.status,
                order.filled,
                order.average,
                trade,
                order.updated_ms,
            )
        )

    def room(self, market: FuturesMarket, order: FuturesOrder) -> Decimal:
        """Return how much of an order may fill: one that only closes, not beyond the position."""
        if not order.closes_only:
            return order.left
        side = order.request.position_side
        position = order.account.position(market.contract, side)
        return min(order.left, closable(position, order.side.sign))

    def _drop_idle(self, account: FuturesAccount, position: Position) -> None:
        """End orders that only close, when nothing is left that they could close."""
        for order in self.open_orders(account, position.symbol):
            same = order.request.position_side is position.side and order.closes_only
            if same and not closable(position, order.side.sign) > 0:
                self.close(order, Status.EXPIRED, "EXPIRED")

    def publish(
        self,
        market: FuturesMarket,
        number: int,
        price: Decimal,
        quantity: Decimal,
        *,
        buyer_maker: bool,
    ) -> None:
        """Tell everybody of a trade."""
        trade = MarketTrade(number, price, quantity, self.now_ms(), buyer_maker)
        market.history.add(trade)
        self.tell(Traded(market.contract.symbol, trade))
