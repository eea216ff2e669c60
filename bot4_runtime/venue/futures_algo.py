"""Conditional orders of the USD-M venue: they wait beside the book until a price triggers them.

Margin and position are looked at when they trigger, not before; what is refused then is
``REJECTED``. One that triggered is ``FINISHED`` when the order it became has ended.
"""

from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Final

from bot4_runtime.venue import futures_judgement
from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.futures_account import FuturesAccount
from bot4_runtime.venue.futures_events import AlgoChanged
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_judgement import closable
from bot4_runtime.venue.futures_ledger import FuturesMarket
from bot4_runtime.venue.futures_orders import (
    AlgoOrder,
    AlgoRequest,
    AlgoStatus,
    FuturesOrder,
    FuturesRequest,
)
from bot4_runtime.venue.refusals import Refused

MAX_OPEN: Final = 200
"""Conditional orders an account may have waiting, over all symbols."""
PROTECT: Final = Decimal("0.05")
"""With price protection, how far last price and mark may lie apart for an order to trigger."""


class AlgoDesk:
    """Keeps all conditional orders of an exchange."""

    def __init__(self, exchange: FuturesExchange) -> None:
        self._exchange = exchange
        self._orders: dict[str, dict[int, AlgoOrder]] = {}
        self._ids = count(1)

    def place(self, account: FuturesAccount, request: AlgoRequest) -> AlgoOrder:
        """Accept a conditional order, or refuse it and change nothing.

        Raises:
            Refused: a rule or the account's mode is against it, or it would trigger at once.
        """
        market = self._exchange.market(request.order.symbol)
        futures_judgement.check_mode(account, request.order)
        self._judge_form(market, request)
        waiting = self.open(account, None)
        if any(request.client_id == algo.client_id for algo in waiting):
            raise Refused(*no.DUPLICATE_ID)
        if not len(waiting) < MAX_OPEN:
            raise Refused(*no.TOO_MANY_STOPS)
        now_ms, number = self._exchange.now_ms(), next(self._ids)
        algo = AlgoOrder(
            algo_id=number,
            client_id=request.client_id or f"algo_{number}",
            account=account,
            request=request,
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        if algo.hit(self._price(market, request)) and request.callback is None:
            raise Refused(*no.WOULD_TRIGGER)
        self._orders.setdefault(account.api_key, {})[number] = algo
        self._exchange.tell(AlgoChanged(algo, now_ms))
        return algo

    def cancel(self, algo: AlgoOrder) -> None:
        """Cancel a waiting order; raises Refused -2011 for any other."""
        if algo.status is not AlgoStatus.NEW:
            raise Refused(*no.UNKNOWN_ORDER)
        self._set(algo, AlgoStatus.CANCELED)

    def end(self, algo: AlgoOrder, status: AlgoStatus) -> None:
        """Let a waiting order end by the venue's own will."""
        self._set(algo, status)

    def find(
        self, account: FuturesAccount, algo_id: int | None, client_id: str
    ) -> AlgoOrder | None:
        """Return a conditional order by either id, the latest of that client id."""
        found = [
            algo
            for algo in self.all(account)
            if (algo.algo_id == algo_id if algo_id is not None else algo.client_id == client_id)
        ]
        return found[-1] if found else None

    def all(self, account: FuturesAccount) -> list[AlgoOrder]:
        """Return all conditional orders an account ever placed, oldest first."""
        return list(self._orders.get(account.api_key, {}).values())

    def open(self, account: FuturesAccount, symbol: str | None) -> list[AlgoOrder]:
        """Return those that wait, of one symbol or of all."""
        return [
            algo
            for algo in self.all(account)
            if algo.status is AlgoStatus.NEW and symbol in {None, algo.symbol}
        ]

    def on_price(self, market: FuturesMarket) -> None:
        """Trigger what the market's last price or mark triggers."""
        for account in self._exchange.accounts:
            for algo in self.open(account, market.contract.symbol):
                hit = algo.hit(self._price(market, algo.request))
                if hit and not (algo.request.price_protect and self._apart(market)):
                    self._trigger(market, algo)

    def ended(self, order: FuturesOrder) -> None:
        """Be told that an order ended; the conditional one it came from is finished."""
        if order.algo is not None and order.algo.status is AlgoStatus.TRIGGERED:
            order.algo.actual = order
            self._set(order.algo, AlgoStatus.FINISHED)

    # --------------------------------------------------------------------- in detail
    @staticmethod
    def _judge_form(market: FuturesMarket, request: AlgoRequest) -> None:
        contract, order = market.contract, request.order
        if request.trigger is not None:
            contract.check_price(request.trigger)
        if order.price is not None:
            contract.check_price(order.price)
        if not request.close_all:
            contract.check_quantity(order.quantity, market=order.price is None)
            if not futures_judgement.closes_only(order):
                worth = order.price or request.trigger or market.mark
                contract.check_notional(order.quantity * worth)

    @staticmethod
    def _price(market: FuturesMarket, request: AlgoRequest) -> Decimal:
        return market.mark if request.by_mark else market.book.last

    @staticmethod
    def _apart(market: FuturesMarket) -> bool:
        return abs(market.book.last - market.mark) > PROTECT * market.mark

    def _trigger(self, market: FuturesMarket, algo: AlgoOrder) -> None:
        algo.triggered_ms = self._exchange.now_ms()
        self._set(algo, AlgoStatus.TRIGGERED)
        try:
            request = self._order_of(market, algo)
            order = self._exchange.place(algo.account, request, algo)
        except Refused as error:
            algo.reason = error.message
            self._set(algo, AlgoStatus.REJECTED)
            return
        algo.actual = order

    @staticmethod
    def _order_of(market: FuturesMarket, algo: AlgoOrder) -> FuturesRequest:
        """Return what is placed; -2022 when there is nothing to close, -2019 when doomed."""
        request = algo.request.order
        if algo.doomed:
            raise Refused(*no.NO_MARGIN)
        if not algo.request.close_all:
            return replace(request, client_id=algo.client_id)
        position = algo.account.position(market.contract, request.position_side)
        held = closable(position, request.side.sign)
        if not held > ZERO:
            raise Refused(*no.REDUCE_ONLY)
        return replace(
            request,
            quantity=held,
            reduce_only=not algo.account.hedge,
            client_id=algo.client_id,
        )

    def _set(self, algo: AlgoOrder, status: AlgoStatus) -> None:
        algo.status = status
        algo.updated_ms = self._exchange.now_ms()
        self._exchange.tell(AlgoChanged(algo, algo.updated_ms))
