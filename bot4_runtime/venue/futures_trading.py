"""Calls of a USD-M customer about orders: place, modify, cancel and look them up."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.venue import futures_messages as messages
from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue.futures_account import FuturesAccount
from bot4_runtime.venue.futures_algo import AlgoDesk
from bot4_runtime.venue.futures_calendar import Calendar
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_orders import AlgoOrder, FuturesOrder
from bot4_runtime.venue.futures_reading import (
    client_id,
    detail,
    order_named,
    read_algo,
    read_order,
)
from bot4_runtime.venue.limits import Limiter
from bot4_runtime.venue.refusals import Refused, mandatory
from bot4_runtime.venue.rest import Values, amount, text, whole

Signed = Callable[[FuturesAccount, Values], Any]
MAX_BATCH: Final = 5
MAX_CANCELS: Final = 10
MAX_PAGE: Final = 1_000
DONE: Final = {"code": 200, "msg": "The operation of cancel all open order is done."}


class Trading:
    """Answers calls about orders; `place` and its like serve both REST and WebSocket."""

    def __init__(
        self, exchange: FuturesExchange, algos: AlgoDesk, calendar: Calendar, limiter: Limiter
    ) -> None:
        self._exchange = exchange
        self._algos = algos
        self._calendar = calendar
        self._limiter = limiter
        self.calls: Final[dict[tuple[str, str], Signed]] = {
            ("POST", "/fapi/v1/order"): self.place,
            ("PUT", "/fapi/v1/order"): self.modify,
            ("GET", "/fapi/v1/order"): self.order,
            ("DELETE", "/fapi/v1/order"): self.cancel,
            ("POST", "/fapi/v1/batchOrders"): self._place_batch,
            ("PUT", "/fapi/v1/batchOrders"): self._modify_batch,
            ("DELETE", "/fapi/v1/batchOrders"): self._cancel_batch,
            ("GET", "/fapi/v1/openOrder"): self._open_order,
            ("GET", "/fapi/v1/openOrders"): self._open_orders,
            ("DELETE", "/fapi/v1/allOpenOrders"): self._cancel_all,
            ("GET", "/fapi/v1/allOrders"): self._all_orders,
            ("GET", "/fapi/v1/userTrades"): self._user_trades,
            ("POST", "/fapi/v1/countdownCancelAll"): self._countdown,
            ("POST", "/fapi/v1/algoOrder"): self.place_algo,
            ("GET", "/fapi/v1/algoOrder"): self._algo,
            ("DELETE", "/fapi/v1/algoOrder"): self.cancel_algo,
            ("GET", "/fapi/v1/openAlgoOrders"): self._open_algos,
            ("GET", "/fapi/v1/allAlgoOrders"): self._all_algos,
            ("DELETE", "/fapi/v1/algoOpenOrders"): self._cancel_all_algos,
        }

    # ------------------------------------------------------------------------ plain
    def place(self, account: FuturesAccount, values: Values) -> Any:
        """Place an order."""
        self._limiter.order(self._exchange.now_ms(), account.api_key)
        request, wanted = read_order(values), detail(values)
        return messages.placed(self._exchange.place(account, request), wanted)

    def modify(self, account: FuturesAccount, values: Values) -> Any:
        """Modify an order's quantity and price."""
        self._limiter.order(self._exchange.now_ms(), account.api_key)
        order = self._named(account, values, no.NO_SUCH_ORDER)
        text(values, "side")
        quantity, price = (_needed(values, name) for name in ("quantity", "price"))
        return messages.placed(self._exchange.modify(account, order, quantity, price), "RESULT")

    def order(self, account: FuturesAccount, values: Values) -> Any:
        """Look an order up."""
        return messages.order_told(self._named(account, values, no.NO_SUCH_ORDER))

    def cancel(self, account: FuturesAccount, values: Values) -> Any:
        """Cancel an order."""
        order = self._named(account, values, no.UNKNOWN_ORDER)
        self._exchange.cancel(order)
        return messages.placed(order, "RESULT")

    def _place_batch(self, account: FuturesAccount, values: Values) -> Any:
        batch = _listed(values, "batchOrders", MAX_BATCH)
        return [self._tried(account, one, self.place) for one in batch]

    def _modify_batch(self, account: FuturesAccount, values: Values) -> Any:
        batch = _listed(values, "batchOrders", MAX_BATCH)
        return [self._tried(account, one, self.modify) for one in batch]

    def _cancel_batch(self, account: FuturesAccount, values: Values) -> Any:
        symbol = text(values, "symbol")
        by_id = bool(values.get("orderIdList"))
        name = "orderIdList" if by_id else "origClientOrderIdList"
        wanted = "orderId" if by_id else "origClientOrderId"
        return [
            self._tried(account, {"symbol": symbol, wanted: one}, self.cancel)
            for one in _listed(values, name, MAX_CANCELS)
        ]

    def _tried(self, account: FuturesAccount, one: Any, call: Signed) -> Any:
        if not isinstance(one, dict):
            return {"code": no.BAD_BATCH[0], "msg": no.BAD_BATCH[1]}
        try:
            return call(account, {name: _plain(value) for name, value in one.items()})
        except Refused as error:
            return {"code": error.code, "msg": error.message}

    def _open_order(self, account: FuturesAccount, values: Values) -> Any:
        order = self._named(account, values, no.NO_SUCH_ORDER)
        if not order.status.open:
            raise Refused(*no.NO_SUCH_ORDER)
        return messages.order_told(order)

    def _open_orders(self, account: FuturesAccount, values: Values) -> Any:
        symbol = self._symbol(values)
        return [messages.order_told(o) for o in self._exchange.open_orders(account, symbol)]

    def _cancel_all(self, account: FuturesAccount, values: Values) -> Any:
        self._exchange.market(text(values, "symbol"))
        for order in self._exchange.open_orders(account, values["symbol"]):
            self._exchange.cancel(order)
        return DONE

    def _all_orders(self, account: FuturesAccount, values: Values) -> Any:
        self._exchange.market(text(values, "symbol"))
        after = whole(values, "orderId")
        rows = [
            messages.order_told(order)
            for order in self._exchange.orders(account)
            if order.symbol == values["symbol"]
            and (after is None or order.order_id >= after)
            and _within(values, order.created_ms)
        ]
        return _page(values, rows, forward=after is not None)

    def _user_trades(self, account: FuturesAccount, values: Values) -> Any:
        self._exchange.market(text(values, "symbol"))
        after, order_id = whole(values, "fromId"), whole(values, "orderId")
        rows = [
            messages.trade_told(trade)
            for trade in self._exchange.trades(account, values["symbol"])
            if (after is None or trade.trade_id >= after)
            and order_id in {None, trade.order_id}
            and _within(values, trade.time_ms)
        ]
        return _page(values, rows, forward=after is not None)

    def _countdown(self, account: FuturesAccount, values: Values) -> Any:
        symbol, wait_ms = text(values, "symbol"), whole(values, "countdownTime")
        if wait_ms is None:
            raise mandatory("countdownTime")
        self._calendar.start_countdown(account, symbol, wait_ms)
        return {"symbol": symbol, "countdownTime": str(wait_ms)}

    # ------------------------------------------------------------------ conditional
    def place_algo(self, account: FuturesAccount, values: Values) -> Any:
        """Place a conditional order."""
        self._limiter.order(self._exchange.now_ms(), account.api_key)
        return messages.algo_told(self._algos.place(account, read_algo(values)))

    def cancel_algo(self, account: FuturesAccount, values: Values) -> Any:
        """Cancel a conditional order."""
        algo = self._named_algo(account, values, no.UNKNOWN_ORDER)
        self._algos.cancel(algo)
        told = {"algoId": algo.algo_id, "clientAlgoId": algo.client_id}
        return told | {"code": "200", "msg": "success"}

    def _algo(self, account: FuturesAccount, values: Values) -> Any:
        return messages.algo_told(self._named_algo(account, values, no.NO_SUCH_ORDER))

    def _open_algos(self, account: FuturesAccount, values: Values) -> Any:
        symbol = self._symbol(values)
        return [messages.algo_told(algo) for algo in self._algos.open(account, symbol)]

    def _all_algos(self, account: FuturesAccount, values: Values) -> Any:
        self._exchange.market(text(values, "symbol"))
        rows = [
            messages.algo_told(algo)
            for algo in self._algos.all(account)
            if algo.symbol == values["symbol"] and _within(values, algo.created_ms)
        ]
        return _page(values, rows, forward=False)

    def _cancel_all_algos(self, account: FuturesAccount, values: Values) -> Any:
        self._exchange.market(text(values, "symbol"))
        for algo in self._algos.open(account, values["symbol"]):
            self._algos.cancel(algo)
        return DONE

    # --------------------------------------------------------------------- in detail
    def _symbol(self, values: Values) -> str | None:
        symbol = values.get("symbol") or None
        if symbol is not None:
            self._exchange.market(symbol)
        return symbol

    def _named(
        self, account: FuturesAccount, values: Values, missing: tuple[int, str]
    ) -> FuturesOrder:
        order = self._exchange.find(account, *order_named(values))
        if order is None:
            raise Refused(*missing)
        return order

    def _named_algo(
        self, account: FuturesAccount, values: Values, missing: tuple[int, str]
    ) -> AlgoOrder:
        number, name = whole(values, "algoId"), client_id(values, "clientAlgoId")
        if number is None and not name:
            raise Refused(
                -1102, "Param 'algoid' or 'clientalgoid' must be sent, but both were empty/null!"
            )
        algo = self._algos.find(account, number, name)
        if algo is None:
            raise Refused(*missing)
        return algo


def _listed(values: Values, name: str, most: int) -> list[Any]:
    try:
        rows = msgspec.json.decode(text(values, name), type=list[Any])
    except UNREADABLE:
        raise mandatory(name) from None
    if not 0 < len(rows) <= most:
        raise Refused(*no.BAD_BATCH)
    return rows


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _needed(values: Values, name: str) -> Decimal:
    value = amount(values, name)
    if value is None:
        raise mandatory(name)
    return value


def _within(values: Values, time_ms: int) -> bool:
    start, end = whole(values, "startTime"), whole(values, "endTime")
    return (start is None or time_ms >= start) and (end is None or time_ms <= end)


def _page(values: Mapping[str, str], rows: list[Any], *, forward: bool) -> list[Any]:
    limit = whole(values, "limit", 500) or 0
    if not 0 < limit <= MAX_PAGE:
        raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
    return rows[:limit] if forward or values.get("startTime") else rows[-limit:]
