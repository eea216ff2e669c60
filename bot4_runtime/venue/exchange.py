"""The core of the venue: judges orders, matches them by price and time, and keeps accounts.

Pure: time comes from the clock that was handed in. The same requests and prints give the same
orders, trades and reports.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from itertools import count

from bot4_runtime.clock import NS_PER_MS, Clock
from bot4_runtime.domain.order import Side
from bot4_runtime.venue import refusals
from bot4_runtime.venue.account import BNB, BNB_SHARE, QUANTUM, ZERO, Account
from bot4_runtime.venue.book import Book, Depth, Offer
from bot4_runtime.venue.judgement import SpotBook, base_quantity, judge, reserve, triggered
from bot4_runtime.venue.orders import (
    Kind,
    OrderRequest,
    Report,
    Status,
    Tif,
    VenueOrder,
    VenueTrade,
)
from bot4_runtime.venue.refusals import Refused
from bot4_runtime.venue.rules import SymbolRules

_STOPS_AT_MARKET = frozenset({Kind.STOP_LOSS, Kind.TAKE_PROFIT})
Listener = Callable[[Account, Report], None]


@dataclass(slots=True)
class _Customer:
    """An account's orders and trades."""

    account: Account
    orders: dict[int, VenueOrder] = field(default_factory=dict)
    open: dict[int, VenueOrder] = field(default_factory=dict)
    latest: dict[tuple[str, str], VenueOrder] = field(default_factory=dict)
    trades: dict[str, list[VenueTrade]] = field(default_factory=dict)


class Exchange:
    """A spot exchange.

    Args:
        clock: tells the exchange's time.
        listener: told of every report, in order, with the account it concerns.
    """

    def __init__(self, clock: Clock, listener: Listener | None = None) -> None:
        self._clock = clock
        self._listen = listener or (lambda _account, _report: None)
        self._books: dict[str, SpotBook] = {}
        self._customers: dict[str, _Customer] = {}
        self._order_ids = count(1)
        self._trade_ids: dict[str, count[int]] = {}
        self._reports = count(1)
        self._halted: dict[str, int] = {}
        self._reported = 0
        self._list_ids = count(1)

    # ----------------------------------------------------------------- who and what
    def list_symbol(self, rules: SymbolRules, last: Decimal, depth: Depth | None = None) -> None:
        """Open a market at a first price."""
        self._books[rules.symbol] = Book(rules, last, depth or Depth())
        self._trade_ids[rules.symbol] = count(1)

    def relist(self, rules: SymbolRules) -> None:
        """Change a market's rules, or halt it; what rests stays."""
        self._book(rules.symbol).rules = rules

    def open_account(self, account: Account) -> None:
        """Let somebody in by an API key."""
        self._customers[account.api_key] = _Customer(account)

    def account(self, api_key: str) -> Account | None:
        """Return who an API key belongs to."""
        customer = self._customers.get(api_key)
        return None if customer is None else customer.account

    @property
    def symbols(self) -> Sequence[SymbolRules]:
        """The rules of all markets."""
        return [book.rules for book in self._books.values()]

    def last_price(self, symbol: str) -> Decimal:
        """Return the last price of a symbol; raises Refused -1121 for one not listed."""
        return self._book(symbol).last

    def offers(self, symbol: str, taking: Side) -> Iterator[Offer[VenueOrder]]:
        """Yield what an order of side `taking` may take, best price first."""
        return self._book(symbol).offers(taking)

    def now_ms(self) -> int:
        """Return the exchange's time."""
        return self._clock.now_ns() // NS_PER_MS

    # ---------------------------------------------------------------------- orders
    def place(self, account: Account, request: OrderRequest) -> VenueOrder:
        """Accept an order, or refuse it and change nothing.

        Raises:
            Refused: a filter, the funds, or the book are against it.
        """
        self._judge(account, request)
        order = self._enter(account, request)
        self._begin(order)
        return order

    def place_pair(
        self, account: Account, above: OrderRequest, below: OrderRequest
    ) -> tuple[VenueOrder, VenueOrder]:
        """Accept an OCO list of two orders, or refuse both and change nothing.

        The order that rests in the book holds the funds back; a stop takes them over.

        Raises:
            Refused: as `place`, or the prices do not lie on both sides of the last one.
        """
        last = self.last_price(above.symbol)
        nearest = [(leg.stop_price or leg.price or ZERO) - last for leg in (above, below)]
        if not nearest[0] > 0 > nearest[1]:
            raise Refused(*refusals.PAIR_OF_PRICES)
        for request in (above, below):
            self._judge(account, request)
        pair = sorted((above, below), key=lambda request: request.stop_price is not None)
        first = self._enter(account, pair[0])
        second = self._enter(account, pair[1], reserving=False)
        first.list_id = second.list_id = next(self._list_ids)
        first.sibling, second.sibling = second, first
        for order in (first, second):
            self._begin(order)
        return (first, second) if pair[0] is above else (second, first)

    def amend(
        self, account: Account, named: tuple[str, int | None, str], quantity: Decimal, name: str
    ) -> tuple[VenueOrder, int]:
        """Lower an open order's quantity where it stands; return it and the report's number.

        Args:
            account: whose order.
            named: symbol, and either id.
            quantity: the new one, in base.
            name: its client id from now on.

        Raises:
            Refused: -2013 for no open order, else -2038 or a filter.
        """
        order = self._find(account, *named)
        if order is None or not order.status.open:
            raise Refused(*refusals.NO_SUCH_ORDER)
        if not order.filled < quantity < order.quantity:
            raise Refused(*refusals.AMEND_INCREASES)
        book = self._books[order.symbol]
        book.rules.check_quantity(quantity)
        book.rules.check_notional(quantity * (order.price or order.request.stop_price or ZERO))
        spare = order.locked * (order.quantity - quantity) / order.left
        account.unlock(order.locked_asset, spare)
        order.locked -= spare
        order.quantity, former = quantity, order.client_id
        order.client_id = name or f"venue-{order.order_id}-amended"
        self._customers[account.api_key].latest[order.symbol, order.client_id] = order
        order.updated_ms = self.now_ms()
        self._report(order, "REPLACED", cancel_id=former)
        return order, self._reported

    def _judge(self, account: Account, request: OrderRequest) -> None:
        book, customer = self._book(request.symbol), self._customers[account.api_key]
        if self.now_ms() < self._halted.get(request.symbol, 0):
            raise Refused(*refusals.MARKET_CLOSED)
        known = customer.latest.get((request.symbol, request.client_id))
        if known is not None and known.status.open:
            raise Refused(*refusals.DUPLICATE_ORDER)
        judge(book, customer.open.values(), request, account.balance(book.rules.base).total)

    def _enter(
        self, account: Account, request: OrderRequest, *, reserving: bool = True
    ) -> VenueOrder:
        """Take an order that was judged into the account's; raises Refused for want of funds."""
        book, customer = self._book(request.symbol), self._customers[account.api_key]
        now_ms = self.now_ms()
        quantity = base_quantity(book, request)
        order = VenueOrder(
            order_id=next(self._order_ids),
            client_id=request.client_id,
            account=account,
            request=request,
            quantity=quantity,
            created_ms=now_ms,
            updated_ms=now_ms,
            working=request.stop_price is None,
        )
        order.client_id = order.client_id or f"venue-{order.order_id}"
        if reserving:
            reserve(book, order)
        else:
            order.locked_asset = book.rules.base if order.side is Side.SELL else book.rules.quote
        customer.orders[order.order_id] = customer.open[order.order_id] = order
        customer.latest[request.symbol, order.client_id] = order
        return order

    def _begin(self, order: VenueOrder) -> None:
        book = self._books[order.symbol]
        self._report(order, "NEW")
        if order.working:
            self._execute(book, order)
        else:
            book.add(order)

    def cancel(
        self, account: Account, symbol: str, order_id: int | None, client_id: str, cancel_id: str
    ) -> VenueOrder:
        """Cancel an open order by either id; raises Refused -2011 when there is none."""
        self._book(symbol)
        if order_id is None and not client_id:
            raise Refused(*refusals.CANCEL_NAMES_NONE)
        order = self._find(account, symbol, order_id, client_id)
        if order is None or not order.status.open:
            raise Refused(*refusals.UNKNOWN_ORDER)
        cancel_id = cancel_id or f"cancel-{order.order_id}"
        self._end_sibling(order, Status.CANCELED, "CANCELED", cancel_id)
        self._close(order, Status.CANCELED, "CANCELED", cancel_id)
        return order

    def end(self, account: Account, symbol: str, client_id: str, *, expired: bool) -> None:
        """End an order of the exchange's own accord; one that is not open is left alone."""
        order = self._find(account, symbol, None, client_id)
        if order is not None and order.status.open:
            ended = (Status.EXPIRED, "EXPIRED") if expired else (Status.CANCELED, "CANCELED")
            self._close(order, *ended)

    def halt(self, symbol: str, until_ms: int) -> None:
        """Take no order of a symbol until then; cancels are taken."""
        self._halted[symbol] = until_ms

    def order(
        self, account: Account, symbol: str, order_id: int | None, client_id: str
    ) -> VenueOrder:
        """Return an order by either id, the latest of that client id; Refused -2013 if none."""
        self._book(symbol)
        if order_id is None and not client_id:
            raise Refused(
                -1102,
                "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!",
            )
        order = self._find(account, symbol, order_id, client_id)
        if order is None:
            raise Refused(*refusals.NO_SUCH_ORDER)
        return order

    def open_orders(self, account: Account, symbol: str | None) -> Sequence[VenueOrder]:
        """Return open orders, oldest first, of one symbol or of all."""
        if symbol is not None:
            self._book(symbol)
        orders = self._customers[account.api_key].open.values()
        return [order for order in orders if symbol in {None, order.symbol}]

    def orders(self, account: Account) -> Sequence[VenueOrder]:
        """Return all orders an account ever placed, oldest first."""
        return list(self._customers[account.api_key].orders.values())

    def trades(self, account: Account, symbol: str) -> Sequence[VenueTrade]:
        """Return an account's trades in a symbol, oldest first."""
        self._book(symbol)
        return self._customers[account.api_key].trades.get(symbol, [])

    # ------------------------------------------------------------------------ tape
    def print(self, symbol: str, price: Decimal, quantity: Decimal) -> None:
        """Let somebody else trade: cross what rests, then trigger stops.

        Resting orders beyond the price fill first, at their own price; those at the price
        fill after the queue ahead of them. All together get at most `quantity`.
        """
        book = self._book(symbol)
        book.print(price)
        left = quantity
        for side in Side:
            for order in book.resting(side):
                distance = (order.price - price) * side.sign
                if not left > 0 or distance < 0:
                    break
                if distance == 0:
                    left = _pass_queue(book.resting(side), order, left)
                amount = min(order.left, left)
                if amount > 0:
                    left -= amount
                    number = next(self._trade_ids[symbol])
                    self._fill(book, order, number, order.price, amount, maker=True)
        for order in book.stops():
            if order.status.open and triggered(order.request, price):
                book.remove(order)
                order.working = True
                if self._end_sibling(order, Status.EXPIRED, "EXPIRED") and not order.locked:
                    try:
                        reserve(book, order)
                    except Refused:
                        self._close(order, Status.EXPIRED, "EXPIRED")
                        continue
                self._execute(book, order)

    # --------------------------------------------------------------------- matching
    def _execute(self, book: SpotBook, order: VenueOrder) -> None:
        """Take what the order may take; the rest stays, or ends."""
        request = order.request
        limit = request.price
        wanted = [
            offer
            for offer in book.offers(order.side)
            if limit is None or (limit - offer.price) * order.side.sign >= 0
        ]
        foreign = [
            o for o in wanted if o.resting is None or o.resting.account is not order.account
        ]
        if request.tif is Tif.FOK and sum((o.quantity for o in foreign), ZERO) < order.quantity:
            self._close(order, Status.EXPIRED, "EXPIRED")
            return
        for offer in wanted:
            resting = offer.resting
            if not order.left > 0:
                return
            if resting is not None and resting.account is order.account:
                self._close(resting, Status.EXPIRED_IN_MATCH, "TRADE_PREVENTION")
                continue
            amount = min(order.left, offer.quantity, self._affordable(book, order, offer.price))
            if not amount > 0:
                break
            number = next(self._trade_ids[order.symbol])
            if resting is None:
                book.take(order.side, amount)
            else:
                self._fill(book, resting, number, offer.price, amount, maker=True)
            self._fill(book, order, number, offer.price, amount, maker=False)
        if not order.left > 0:
            return
        if limit is not None and request.tif is Tif.GTC:
            book.add(order)
        else:
            self._close(order, Status.EXPIRED, "EXPIRED")

    @staticmethod
    def _affordable(book: SpotBook, order: VenueOrder, price: Decimal) -> Decimal:
        """Return the base that a stop's buy can pay for; others have reserved enough."""
        if order.side is Side.SELL or order.request.kind not in _STOPS_AT_MARKET:
            return order.left
        short = order.left * price - order.locked
        if short > 0:
            extra = min(short, order.account.balance(order.locked_asset).free)
            order.account.lock(order.locked_asset, extra)
            order.locked += extra
        step = book.rules.step_size
        return (order.locked / price / step).to_integral_value(ROUND_DOWN) * step

    def _fill(
        self,
        book: SpotBook,
        order: VenueOrder,
        number: int,
        price: Decimal,
        quantity: Decimal,
        *,
        maker: bool,
    ) -> None:
        """Book one side of match `number`."""
        self._end_sibling(order, Status.EXPIRED, "EXPIRED")
        account, rules = order.account, book.rules
        cost = price * quantity
        buying = order.side is Side.BUY
        given, got = (cost, quantity) if buying else (quantity, cost)
        received = rules.base if buying else rules.quote
        account.pay(order.locked_asset, given)
        order.locked -= given
        rate = account.maker if maker else account.taker
        commission, commission_asset = self._commission(rules, account, cost * rate)
        if commission_asset:
            account.receive(received, got, ZERO)
        else:
            commission, commission_asset = account.receive(received, got, rate), received
        order.filled += quantity
        order.spent += cost
        order.status = Status.PARTIALLY_FILLED if order.left > 0 else Status.FILLED
        order.updated_ms = self.now_ms()
        trade = VenueTrade(
            trade_id=number,
            order_id=order.order_id,
            symbol=order.symbol,
            side=order.side,
            price=price,
            quantity=quantity,
            commission=commission,
            commission_asset=commission_asset,
            maker=maker,
            time_ms=order.updated_ms,
        )
        order.trades.append(trade)
        self._customers[account.api_key].trades.setdefault(order.symbol, []).append(trade)
        if not order.status.open:
            self._release(order)
        elif buying and order.request.price is not None:
            spare = order.locked - order.left * order.request.price
            account.unlock(order.locked_asset, spare)
            order.locked -= spare
        self._report(order, "TRADE", trade)

    def _commission(
        self, rules: SymbolRules, account: Account, worth: Decimal
    ) -> tuple[Decimal, str]:
        """Take a commission of this worth (quote) in BNB; nothing where that cannot be."""
        market = self._books.get(BNB + rules.quote)
        if not account.pays_in_bnb or market is None:
            return ZERO, ""
        amount = (worth * BNB_SHARE / market.last).quantize(QUANTUM, ROUND_DOWN)
        return (amount, BNB) if account.pay_commission(BNB, amount) else (ZERO, "")

    def _close(
        self, order: VenueOrder, status: Status, execution: str, cancel_id: str = ""
    ) -> None:
        order.status = status
        order.updated_ms = self.now_ms()
        self._release(order)
        self._report(order, execution, cancel_id=cancel_id)

    def _end_sibling(
        self, order: VenueOrder, status: Status, execution: str, cancel_id: str = ""
    ) -> bool:
        """End the other order of a list; tell whether there was one."""
        other, order.sibling = order.sibling, None
        if other is None:
            return False
        other.sibling = None
        self._close(other, status, execution, cancel_id)
        return True

    def _release(self, order: VenueOrder) -> None:
        """Give back what an ended order held, and take it off the book."""
        order.account.unlock(order.locked_asset, order.locked)
        order.locked = ZERO
        self._books[order.symbol].remove(order)
        self._customers[order.account.api_key].open.pop(order.order_id, None)

    # ---------------------------------------------------------------------- looking
    def _book(self, symbol: str) -> SpotBook:
        book = self._books.get(symbol)
        if book is None:
            raise Refused(*refusals.BAD_SYMBOL)
        return book

    def _find(
        self, account: Account, symbol: str, order_id: int | None, client_id: str
    ) -> VenueOrder | None:
        customer = self._customers[account.api_key]
        if order_id is None:
            return customer.latest.get((symbol, client_id))
        order = customer.orders.get(order_id)
        return order if order is not None and order.symbol == symbol else None

    def _report(
        self,
        order: VenueOrder,
        execution: str,
        trade: VenueTrade | None = None,
        cancel_id: str = "",
    ) -> None:
        self._reported = next(self._reports)
        report = Report(
            self._reported,
            execution,
            order,
            order.status,
            order.filled,
            order.spent,
            trade,
            cancel_id,
            order.updated_ms,
        )
        self._listen(order.account, report)


def _pass_queue(level: Sequence[VenueOrder], first: VenueOrder, quantity: Decimal) -> Decimal:
    """Let a print consume the queue ahead at a price; return what is left of it."""
    ahead = first.queue_ahead
    passed = min(ahead, quantity)
    for order in level:
        if order.price == first.price:
            order.queue_ahead = max(order.queue_ahead - passed, ZERO)
    return quantity - passed
