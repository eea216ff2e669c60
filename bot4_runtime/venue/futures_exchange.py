"""The core of the USD-M venue: judges orders, matches them, keeps positions. Pure.

Time comes from the clock that was handed in. Everybody else is the tape: `others` takes the
other side of every fill that no customer takes, so that all accounts, fees, the insurance fund
and the others together hold what was paid in, at any mark.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_DOWN, Decimal
from itertools import count

from bot4_runtime.clock import NS_PER_MS, Clock
from bot4_runtime.domain.order import Side
from bot4_runtime.venue import futures_judgement, refusals
from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue.account import QUANTUM, ZERO
from bot4_runtime.venue.book import Book, Depth, Offer
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_account import FuturesAccount, Position
from bot4_runtime.venue.futures_events import (
    AccountChanged,
    FuturesEvent,
    Marked,
    Traded,
)
from bot4_runtime.venue.futures_judgement import FuturesBook, closable, closes_only
from bot4_runtime.venue.futures_margin import MarginBook
from bot4_runtime.venue.futures_orders import (
    AlgoOrder,
    FuturesOrder,
    FuturesReport,
    FuturesRequest,
    FuturesTrade,
    Prevention,
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
class _Customer:
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


class FuturesExchange:
    """A USD-M exchange in single-asset mode.

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
        self._customers: dict[str, _Customer] = {}
        self._order_ids = count(1)
        self.fees: dict[str, Decimal] = {}
        self.insurance: dict[str, Decimal] = dict(insurance)
        self.others = Others()
        self.margins = MarginBook(
            lambda symbol: self.market(symbol).contract,
            lambda symbol: self.market(symbol).mark,
            lambda account: self._customers[account.api_key].open.values(),
        )

    # ----------------------------------------------------------------- who and what
    def list_symbol(self, contract: Contract, last: Decimal, depth: Depth | None = None) -> None:
        """Open a market at a first price, which is the mark at first."""
        book: FuturesBook = Book(contract, last, depth or Depth())
        funding_ms = contract.next_funding_ms(self.now_ms())
        self._markets[contract.symbol] = FuturesMarket(contract, book, last, funding_ms)

    def open_account(self, account: FuturesAccount) -> None:
        """Let somebody in by an API key."""
        self._customers[account.api_key] = _Customer(account)

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

    # ---------------------------------------------------------------------- orders
    def place(
        self, account: FuturesAccount, request: FuturesRequest, algo: AlgoOrder | None = None
    ) -> FuturesOrder:
        """Accept an order, or refuse it and change nothing.

        Raises:
            Refused: a rule, the account's mode, margin or the book are against it.
        """
        market, customer = self.market(request.symbol), self._customers[account.api_key]
        known = customer.latest.get((request.symbol, request.client_id))
        if known is not None and known.status.open:
            raise Refused(*no.DUPLICATE_ID)
        futures_judgement.check_mode(account, request)
        futures_judgement.judge_form(market.contract, market.mark, request, self.now_ms())
        here = [order for order in customer.open.values() if order.symbol == request.symbol]
        if not len(here) < market.contract.max_orders:
            raise Refused(*no.TOO_MANY_ORDERS)
        position = account.position(market.contract, request.position_side)
        futures_judgement.judge_position(account, position, request, here)
        order = self._made(account, request)
        order.algo = algo
        self._judge_taking(market, order)
        self.take_in(order)
        self._execute(market, order)
        return order

    def take_in(self, order: FuturesOrder) -> None:
        """Number an order and tell of it; it is on no book yet."""
        customer = self._customers[order.account.api_key]
        order.order_id = next(self._order_ids)
        order.client_id = order.client_id or f"web_{order.order_id}"
        customer.orders[order.order_id] = customer.open[order.order_id] = order
        customer.latest[order.symbol, order.client_id] = order
        self.report(order, "NEW")

    def modify(
        self, account: FuturesAccount, order: FuturesOrder, quantity: Decimal, price: Decimal
    ) -> FuturesOrder:
        """Give a LIMIT order another quantity and price; it loses its place in the queue.

        A quantity that is filled already, or a GTX price that would take, cancels the order.

        Raises:
            Refused: it is not an open LIMIT order, nothing would change, or the new one is
                not acceptable; the old one then stays as it was.
        """
        market, customer = self.market(order.symbol), self._customers[account.api_key]
        if not order.status.open:
            raise Refused(*no.UNKNOWN_ORDER)
        if order.request.price is None:
            raise Refused(*no.ONLY_LIMIT)
        if (quantity, price) == (order.quantity, order.price):
            raise Refused(*no.NOTHING_TO_MODIFY)
        wanted = replace(order.request, quantity=quantity, price=price)
        futures_judgement.judge_form(market.contract, market.mark, wanted, self.now_ms())
        probe = replace(order, quantity=quantity, price=price, request=wanted)
        if not probe.left > 0:
            self.close(order, Status.CANCELED, "CANCELED")
            return order
        del customer.open[order.order_id]
        try:
            self._judge_taking(market, probe)
        except Refused as error:
            if error.code != no.NOT_MAKER[0]:
                raise
            self.close(order, Status.CANCELED, "CANCELED")
            return order
        finally:
            if order.status.open:
                customer.open[order.order_id] = order
        market.book.remove(order)
        order.quantity, order.price, order.request = quantity, price, wanted
        order.updated_ms = self.now_ms()
        self.report(order, "AMENDMENT")
        self._execute(market, order)
        return order

    def close(self, order: FuturesOrder, status: Status, execution: str) -> None:
        """End an order."""
        order.status = status
        order.updated_ms = self.now_ms()
        self._markets[order.symbol].book.remove(order)
        self._customers[order.account.api_key].open.pop(order.order_id, None)
        self.report(order, execution)

    def cancel(self, order: FuturesOrder) -> None:
        """Cancel an open order; raises Refused -2011 for one that ended."""
        if not order.status.open:
            raise Refused(*no.UNKNOWN_ORDER)
        self.close(order, Status.CANCELED, "CANCELED")

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

    # ------------------------------------------------------------------------ tape
    def print(self, symbol: str, price: Decimal, quantity: Decimal) -> None:
        """Let somebody else trade: cross what rests, as far as `quantity` goes.

        Resting orders beyond the price fill first, at their own price; those at the price fill
        after the queue ahead of them.
        """
        market = self.market(symbol)
        falling = price < market.book.last
        market.book.print(price)
        market.updates += 1
        if quantity > 0:
            self._public(market, next(market.trade_ids), price, quantity, buyer_maker=falling)
        left = quantity
        for side in Side:
            for order in market.book.resting(side):
                distance = (order.price - price) * side.sign
                if not left > 0 or distance < 0:
                    break
                if distance == 0:
                    passed = min(order.queue_ahead, left)
                    order.queue_ahead -= passed
                    left -= passed
                amount = min(order.left, left, self._room(market, order))
                if order.status.open and amount > 0:
                    left -= amount
                    self.fill(market, order, next(market.trade_ids), order.price, amount)
        self.remark(market)

    def remark(self, market: FuturesMarket) -> None:
        """Set the mark anew."""
        market.mark = market.scripted or max(
            market.book.last + market.basis, market.contract.tick_size
        )
        market.history.marks.price(self.now_ms(), market.mark)
        self.tell(Marked(market.contract.symbol, self.now_ms()))

    # --------------------------------------------------------------------- matching
    def sweep(self, market: FuturesMarket, order: FuturesOrder) -> None:
        """Let an order take what the book offers within its limit; what is left stays open."""
        sign = order.side.sign
        for offer in list(market.book.offers(order.side)):
            if not order.status.open or (order.price and (order.price - offer.price) * sign < 0):
                return
            resting = offer.resting
            if resting is not None and resting.account is order.account:
                if self._prevented(order, resting):
                    continue
                return
            room = min(order.left, offer.quantity, self._room(market, order))
            if resting is not None:
                room = min(room, self._room(market, resting)) if resting.status.open else ZERO
            if room > 0:
                self._match(market, order, offer, room)

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

    def _made(self, account: FuturesAccount, request: FuturesRequest) -> FuturesOrder:
        now_ms = self.now_ms()
        return FuturesOrder(
            order_id=0,
            client_id=request.client_id,
            account=account,
            request=request,
            quantity=request.quantity,
            price=request.price or ZERO,
            closes_only=closes_only(request),
            created_ms=now_ms,
            updated_ms=now_ms,
        )

    def _judge_taking(self, market: FuturesMarket, order: FuturesOrder) -> None:
        best = market.book.best(order.side) or market.mark
        futures_judgement.judge_margin(self.margins, market.contract, market.mark, best, order)
        futures_judgement.judge_taking(market.book, order)

    def _execute(self, market: FuturesMarket, order: FuturesOrder) -> None:
        """Take what the order may take; the rest stays, or ends."""
        self.sweep(market, order)
        if not order.status.open:
            return
        rests = order.request.price is not None and order.request.tif.rests
        if rests and self._room(market, order) > 0:
            market.book.add(order)
        else:
            self.close(order, Status.EXPIRED, "EXPIRED")

    def _match(
        self,
        market: FuturesMarket,
        order: FuturesOrder,
        offer: Offer[FuturesOrder],
        quantity: Decimal,
    ) -> None:
        number, resting = next(market.trade_ids), offer.resting
        selling = order.side is Side.SELL
        self._public(market, number, offer.price, quantity, buyer_maker=selling)
        if resting is None:
            market.book.take(order.side, quantity)
        else:
            self.fill(market, resting, number, offer.price, quantity, against_others=False)
        self.fill(
            market,
            order,
            number,
            offer.price,
            quantity,
            maker=False,
            against_others=resting is None,
        )

    def _prevented(self, order: FuturesOrder, resting: FuturesOrder) -> bool:
        """Keep an account from trading with itself; tell whether the taker goes on."""
        mode = order.request.prevention
        if mode in {Prevention.EXPIRE_MAKER, Prevention.EXPIRE_BOTH, Prevention.NONE}:
            self.close(resting, Status.EXPIRED_IN_MATCH, "EXPIRED")
        if mode in {Prevention.EXPIRE_TAKER, Prevention.EXPIRE_BOTH}:
            self.close(order, Status.EXPIRED_IN_MATCH, "EXPIRED")
        return order.status.open

    def _room(self, market: FuturesMarket, order: FuturesOrder) -> Decimal:
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

    def _public(
        self,
        market: FuturesMarket,
        number: int,
        price: Decimal,
        quantity: Decimal,
        *,
        buyer_maker: bool,
    ) -> None:
        trade = MarketTrade(number, price, quantity, self.now_ms(), buyer_maker)
        market.history.add(trade)
        self.tell(Traded(market.contract.symbol, trade))
