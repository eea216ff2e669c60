"""Binance's REST interface of the spot market, over the core.

`Rest.answer` takes a request as it came over the wire and returns what goes back. Parameters
may come in the query, in a form body, or in both; the signature covers both.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from bot4_runtime.domain.order import Side
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.venue import auth, messages, refusals
from bot4_runtime.venue.account import Account
from bot4_runtime.venue.door import WEIGHT_LIMIT
from bot4_runtime.venue.exchange import Exchange
from bot4_runtime.venue.journal import VenueJournal
from bot4_runtime.venue.limits import Limit, Limited
from bot4_runtime.venue.order_counts import OrderCounts
from bot4_runtime.venue.orders import Kind, OrderRequest, Tif
from bot4_runtime.venue.refusals import Refused, illegal, mandatory, not_required

Values = Mapping[str, str]
CLIENT_ID: Final = re.compile(r"[\.A-Z\:/a-z0-9_-]{1,36}")
_SYMBOLS: Final = r'^\["[\w]{1,20}"(,"[\w]{1,20}")*\]$'
MAX_PAGE: Final = 1_000
WEIGHT: Final = Limit("REQUEST_WEIGHT", "MINUTE", 1, WEIGHT_LIMIT)
_ENCODE: Final = msgspec.json.encode


class WireRequest(NamedTuple):
    """A request as it came: the query and the body still encoded."""

    method: str
    path: str
    query: str
    body: str
    api_key: str | None


class WireAnswer(NamedTuple):
    """What goes back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class Rest:
    """Answers requests.

    Args:
        journal: is told of every request and answer.
        public: further calls that need no key, by method and path.
        counts: of new orders.
    """

    def __init__(
        self,
        exchange: Exchange,
        journal: VenueJournal,
        public: Mapping[tuple[str, str], Callable[[Mapping[str, str]], Any]],
        counts: OrderCounts | None = None,
    ) -> None:
        self._exchange = exchange
        self.counts = counts or OrderCounts(journal)
        self._journal = journal
        self._public: dict[tuple[str, str], Callable[[Values], Any]] = {
            ("GET", "/api/v3/ping"): lambda _values: {},
            ("GET", "/api/v3/time"): lambda _values: {"serverTime": exchange.now_ms()},
            ("GET", "/api/v3/exchangeInfo"): self._exchange_info,
            **public,
        }
        self._signed: dict[tuple[str, str], Callable[[Account, Values], Any]] = {
            ("POST", "/api/v3/order"): self._place,
            ("GET", "/api/v3/order"): self._order,
            ("DELETE", "/api/v3/order"): self._cancel,
            ("POST", "/api/v3/order/cancelReplace"): self._replace,
            ("PUT", "/api/v3/order/amend/keepPriority"): self._amend,
            ("POST", "/api/v3/orderList/oco"): self._pair,
            ("GET", "/api/v3/openOrders"): self._open_orders,
            ("GET", "/api/v3/myTrades"): self._trades,
            ("GET", "/api/v3/account"): self._account,
            ("GET", "/sapi/v1/account/apiRestrictions"): _restrictions,
        }

    def answer(self, request: WireRequest) -> WireAnswer:
        """Do what a request asks and say how it went."""
        values = auth.parameters(request.query, request.body)
        account = self._exchange.account(request.api_key or "")
        uid = account.uid if account is not None else 0
        told = {name: value for name, value in values.items() if name != "signature"}
        self._note("request", uid, {"call": f"{request.method} {request.path}", "with": told})
        headers = {}
        try:
            status, answer = 200, self._dispatch(request, values)
            if request.method == "POST":
                headers = self.counts.headers(self._exchange.now_ms(), uid)
        except Refused as error:
            status = error.status
            answer = {"code": error.code, "msg": error.message} | error.more
            if isinstance(error, Limited):
                headers = {"Retry-After": str(error.retry_after_s)}
        self._note("answer", uid, {"status": status, "code": answer_code(answer)})
        return WireAnswer(status, _ENCODE(answer), headers)

    def _dispatch(self, request: WireRequest, values: Values) -> Any:
        call = (request.method, request.path)
        if call in self._public:
            return self._public[call](values)
        if call not in self._signed:
            raise Refused(-1020, "This operation is not supported.", status=404)
        account = auth.identify(self._exchange, request.api_key)
        payload = auth.signed_payload(request.query, request.body)
        auth.check_signed(self._exchange, account, values, payload)
        return self._signed[call](account, values)

    def perform(self, method: str, path: str, account: Account, values: Values) -> Any:
        """Do what an account asks that was identified already; raises Refused.

        The WebSocket API comes here: its methods are those of REST by other names.
        """
        self._note("request", account.uid, {"call": f"{method} {path}", "with": dict(values)})
        try:
            answer = self._signed[method, path](account, values)
        except Refused as error:
            self._note("answer", account.uid, {"status": error.status, "code": error.code})
            raise
        self._note("answer", account.uid, {"status": 200, "code": 0})
        return answer

    def _note(self, kind: str, uid: int, body: Mapping[str, Any]) -> None:
        self._journal.add(self._exchange.now_ms(), kind, uid, body)

    # ----------------------------------------------------------------------- public
    def _exchange_info(self, values: Values) -> Any:
        wanted = [values["symbol"]] if "symbol" in values else None
        if "symbols" in values:
            try:
                wanted = msgspec.json.decode(values["symbols"], type=list[str])
            except UNREADABLE:
                raise illegal("symbols", _SYMBOLS) from None
        for symbol in wanted or ():
            self._exchange.last_price(symbol)
        return {
            "timezone": "UTC",
            "serverTime": self._exchange.now_ms(),
            "rateLimits": [limit.told() for limit in (WEIGHT, *self.counts.limits)],
            "exchangeFilters": [],
            "symbols": [
                rules.told()
                for rules in self._exchange.symbols
                if wanted is None or rules.symbol in wanted
            ],
        }

    # ----------------------------------------------------------------------- signed
    def _place(self, account: Account, values: Values) -> Any:
        request = read_order(values)
        detail = values.get("newOrderRespType", "")
        if not detail:
            detail = "FULL" if request.stop_price is None else "ACK"
        if detail not in {"ACK", "RESULT", "FULL"}:
            raise mandatory("newOrderRespType")
        with self._counted(account):
            return messages.placed(self._exchange.place(account, request), detail)

    @contextmanager
    def _counted(self, account: Account, number: int = 1) -> Iterator[None]:
        """Count new orders that are taken; raises Limited when there are too many."""
        self.counts.take(self._exchange.now_ms(), account.uid, number)
        try:
            yield
        except Refused:
            self.counts.give_back(self._exchange.now_ms(), account.uid, number)
            raise

    def _order(self, account: Account, values: Values) -> Any:
        return messages.order_told(self._exchange.order(account, *_order_named(values)))

    def _cancel(self, account: Account, values: Values) -> Any:
        cancel_id = client_id(values, "newClientOrderId")
        symbol, order_id, name = _order_named(values)
        order = self._exchange.cancel(account, symbol, order_id, name, cancel_id)
        return messages.canceled(order, cancel_id or f"cancel-{order.order_id}")

    def _replace(self, account: Account, values: Values) -> Any:
        """Cancel one order and place another; each half is told for itself."""
        mode = text(values, "cancelReplaceMode")
        if values.get("orderRateLimitExceededMode", "DO_NOTHING") == "DO_NOTHING":
            self.counts.require(self._exchange.now_ms(), account.uid)
        named = {
            "symbol": text(values, "symbol"),
            "orderId": values.get("cancelOrderId", ""),
            "origClientOrderId": values.get("cancelOrigClientOrderId", ""),
            "newClientOrderId": values.get("cancelNewClientOrderId", ""),
        }
        halves: dict[str, Any] = {"newOrderResult": "NOT_ATTEMPTED", "newOrderResponse": None}
        try:
            halves |= {
                "cancelResult": "SUCCESS",
                "cancelResponse": self._cancel(account, named),
            }
        except Refused as error:
            halves |= {"cancelResult": "FAILURE", "cancelResponse": _told(error)}
        if halves["cancelResult"] == "SUCCESS" or mode == "ALLOW_FAILURE":
            try:
                halves |= {
                    "newOrderResult": "SUCCESS",
                    "newOrderResponse": self._place(account, values),
                }
            except Refused as error:
                halves |= {"newOrderResult": "FAILURE", "newOrderResponse": _told(error)}
        worked = [halves[name] == "SUCCESS" for name in ("cancelResult", "newOrderResult")]
        if all(worked):
            return halves
        if any(worked):
            raise Refused(-2021, "Order cancel-replace partially failed.", 409, {"data": halves})
        raise Refused(-2022, "Order cancel-replace failed.", 400, {"data": halves})

    def _amend(self, account: Account, values: Values) -> Any:
        quantity = amount(values, "newQty")
        if quantity is None:
            raise mandatory("newQty")
        name = client_id(values, "newClientOrderId")
        former = self._exchange.order(account, *_order_named(values)).client_id
        order, number = self._exchange.amend(account, _order_named(values), quantity, name)
        return messages.amended(order, former, number)

    def _pair(self, account: Account, values: Values) -> Any:
        legs = [
            read_order(
                {name: values[name] for name in ("symbol", "side", "quantity") if name in values}
                | {
                    word: values[f"{side}{word[0].upper()}{word[1:]}"]
                    for word in ("type", "price", "stopPrice", "timeInForce")
                    if f"{side}{word[0].upper()}{word[1:]}" in values
                }
                | {"newClientOrderId": values.get(f"{side}ClientOrderId", "")}
            )
            for side in ("above", "below")
        ]
        with self._counted(account, len(legs)):
            placed = self._exchange.place_pair(account, legs[0], legs[1])
        return messages.pair_told(placed, client_id(values, "listClientOrderId"))

    def _open_orders(self, account: Account, values: Values) -> Any:
        orders = self._exchange.open_orders(account, values.get("symbol"))
        return [messages.order_told(order) for order in orders]

    def _trades(self, account: Account, values: Values) -> Any:
        limit = whole(values, "limit", 500) or 0
        if not 0 < limit <= MAX_PAGE:
            raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
        return messages.trades_page(
            self._exchange.trades(account, text(values, "symbol")),
            order_id=whole(values, "orderId"),
            from_id=whole(values, "fromId"),
            times_ms=(whole(values, "startTime"), whole(values, "endTime")),
            limit=limit,
        )

    def _account(self, account: Account, values: Values) -> Any:
        told = messages.account_told(account, self._exchange.now_ms())
        if values.get("omitZeroBalances") == "true":
            told["balances"] = [
                row for row in told["balances"] if Decimal(row["free"]) + Decimal(row["locked"])
            ]
        return told


def read_order(values: Values) -> OrderRequest:
    """Read a new order's parameters.

    Raises:
        Refused: something is missing, unreadable, or not for this order type.
    """
    symbol = text(values, "symbol")
    side = {"BUY": Side.BUY, "SELL": Side.SELL}.get(text(values, "side"))
    if side is None:
        raise Refused(*refusals.INVALID_SIDE)
    try:
        kind = Kind(text(values, "type"))
    except ValueError:
        raise Refused(*refusals.INVALID_ORDER_TYPE) from None
    needed = {
        Kind.LIMIT: {"timeInForce", "quantity", "price"},
        Kind.LIMIT_MAKER: {"quantity", "price"},
        Kind.MARKET: {"quoteOrderQty" if values.get("quoteOrderQty") else "quantity"},
        Kind.STOP_LOSS: {"quantity", "stopPrice"},
        Kind.TAKE_PROFIT: {"quantity", "stopPrice"},
        Kind.STOP_LOSS_LIMIT: {"timeInForce", "quantity", "price", "stopPrice"},
        Kind.TAKE_PROFIT_LIMIT: {"timeInForce", "quantity", "price", "stopPrice"},
    }[kind]
    for name in ("timeInForce", "quantity", "quoteOrderQty", "price", "stopPrice"):
        if name in needed and not values.get(name):
            raise mandatory(name)
        if name not in needed and values.get(name):
            if name == "timeInForce":
                raise Refused(*refusals.TIF_NOT_REQUIRED)
            raise not_required(name)
    try:
        tif = Tif(values.get("timeInForce") or "GTC")
    except ValueError:
        raise Refused(*refusals.INVALID_TIF) from None
    return OrderRequest(
        symbol=symbol,
        side=side,
        kind=kind,
        tif=tif,
        quantity=amount(values, "quantity"),
        quote_quantity=amount(values, "quoteOrderQty"),
        price=amount(values, "price"),
        stop_price=amount(values, "stopPrice"),
        client_id=client_id(values, "newClientOrderId"),
    )


def text(values: Values, name: str) -> str:
    """Return a parameter that must be there; raises Refused -1102."""
    value = values.get(name)
    if not value:
        raise mandatory(name)
    return value


def whole(values: Values, name: str, default: int | None = None) -> int | None:
    """Return a whole number that may be missing; raises Refused -1100 for anything else."""
    value = values.get(name)
    if not value:
        return default
    if not re.fullmatch(r"[0-9]{1,20}", value):
        raise illegal(name, "^[0-9]{1,20}$")
    return int(value)


def amount(values: Values, name: str) -> Decimal | None:
    """Return an amount that may be missing: plain digits, no sign, no exponent."""
    value = values.get(name)
    if not value:
        return None
    legal = r"([0-9]{1,20})(\.[0-9]{1,20})?"
    if not re.fullmatch(legal, value):
        raise illegal(name, f"^{legal}$")
    return Decimal(value)


def client_id(values: Values, name: str) -> str:
    """Return a client id that may be missing; raises Refused -1100 for an impossible one."""
    value = values.get(name, "")
    if value and not CLIENT_ID.fullmatch(value):
        raise illegal(name, f"^{CLIENT_ID.pattern}$")
    return value


def answer_code(answer: object) -> int:
    """Return the error code of an answer, 0 for one that is none."""
    return int(answer.get("code", 0)) if isinstance(answer, dict) else 0


def _restrictions(account: Account, _values: Values) -> Any:
    """What the key may do, as the wallet's interface tells it."""
    return {
        "ipRestrict": account.ip_bound,
        "createTime": 0,
        "enableReading": True,
        "enableWithdrawals": account.withdraws,
        "enableInternalTransfer": account.withdraws,
        "enableMargin": False,
        "enableFutures": False,
        "permitsUniversalTransfer": False,
        "enableVanillaOptions": False,
        "enableFixApiTrade": False,
        "enableFixReadOnly": False,
        "enableSpotAndMarginTrading": True,
        "enablePortfolioMarginTrading": False,
    }


def _told(error: Refused) -> dict[str, Any]:
    return {"code": error.code, "msg": error.message}


def _order_named(values: Values) -> tuple[str, int | None, str]:
    return (
        text(values, "symbol"),
        whole(values, "orderId"),
        client_id(values, "origClientOrderId"),
    )
