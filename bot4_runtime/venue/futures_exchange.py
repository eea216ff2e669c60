"""The core of the USD-M venue: judges orders and matches them. Pure.

Time comes from the clock that was handed in. The same requests and prints give the same orders,
trades and reports.
"""

from dataclasses import replace
from decimal import Decimal

from bot4_runtime.domain.order import Side
from bot4_runtime.venue import futures_judgement
from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.book import Offer
from bot4_runtime.venue.futures_account import FuturesAccount
from bot4_runtime.venue.futures_events import (
    Marked,
)
from bot4_runtime.venue.futures_judgement import closes_only
from bot4_runtime.venue.futures_ledger import FuturesLedger, FuturesMarket
from bot4_runtime.venue.futures_orders import (
    AlgoOrder,
    FuturesOrder,
    FuturesRequest,
    Prevention,
)
from bot4_runtime.venue.orders import Status
from bot4_runtime.venue.refusals import Refused


class FuturesExchange(FuturesLedger):
    """A USD-M exchange in single-asset mode."""

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
        if order.request.price is None:
            raise Refused(*no.ONLY_LIMIT)
        if not order.status.open:
            raise Refused(*no.UNKNOWN_ORDER)
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

    def cancel(self, order: FuturesOrder) -> None:
        """Cancel an open order; raises Refused -2011 for one that ended."""
        if not order.status.open:
            raise Refused(*no.UNKNOWN_ORDER)
        self.close(order, Status.CANCELED, "CANCELED")

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
            self.publish(market, next(market.trade_ids), price, quantity, buyer_maker=falling)
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
                amount = min(order.left, left, self.room(market, order))
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
            room = min(order.left, offer.quantity, self.room(market, order))
            if resting is not None:
                room = min(room, self.room(market, resting)) if resting.status.open else ZERO
            if room > 0:
                self._match(market, order, offer, room)

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
        if rests and self.room(market, order) > 0:
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
        self.publish(market, number, offer.price, quantity, buyer_maker=selling)
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
