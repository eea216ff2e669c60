"""Binance's REST interface of the USD-M market, over the core.

`FuturesRest.answer` takes a request as it came over the wire and returns what goes back, with
the weight used in its headers.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from bot4_runtime.venue import auth, messages
from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue.futures_account import FuturesAccount
from bot4_runtime.venue.futures_accounting import Accounting
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_market_data import MarketData
from bot4_runtime.venue.futures_trading import Trading
from bot4_runtime.venue.journal import VenueJournal
from bot4_runtime.venue.limits import Limited, Limiter
from bot4_runtime.venue.listen_keys import ListenKeys
from bot4_runtime.venue.refusals import Refused
from bot4_runtime.venue.rest import Values, WireAnswer, WireRequest, answer_code, whole

Call = tuple[str, str]
WEIGHTS: Final[Mapping[Call, int]] = {
    ("POST", "/fapi/v1/order"): 0,
    ("POST", "/fapi/v1/algoOrder"): 0,
    ("POST", "/fapi/v1/batchOrders"): 5,
    ("PUT", "/fapi/v1/batchOrders"): 5,
    ("POST", "/fapi/v1/countdownCancelAll"): 10,
    ("GET", "/fapi/v1/allOrders"): 5,
    ("GET", "/fapi/v1/userTrades"): 5,
    ("GET", "/fapi/v1/allAlgoOrders"): 5,
    ("GET", "/fapi/v3/account"): 5,
    ("GET", "/fapi/v3/balance"): 5,
    ("GET", "/fapi/v3/positionRisk"): 5,
    ("GET", "/fapi/v1/accountConfig"): 5,
    ("GET", "/fapi/v1/symbolConfig"): 5,
    ("GET", "/fapi/v1/commissionRate"): 20,
    ("GET", "/fapi/v1/adlQuantile"): 5,
    ("GET", "/fapi/v1/income"): 30,
    ("GET", "/fapi/v1/positionSide/dual"): 30,
    ("GET", "/fapi/v1/multiAssetsMargin"): 30,
    ("GET", "/fapi/v1/trades"): 5,
    ("GET", "/fapi/v1/aggTrades"): 20,
    ("GET", "/fapi/v1/fundingInfo"): 0,
    ("GET", "/fapi/v1/ticker/bookTicker"): 2,
}
"""Of calls whose weight is not 1; those of depth, candles and openOrders depend on parameters."""
DEPTH_STEPS: Final = ((50, 2), (100, 5), (500, 10))
CANDLE_STEPS: Final = ((99, 1), (499, 2), (1_000, 5))
ALL_OPEN_ORDERS: Final = 40


def weight_of(call: Call, values: Values) -> int:
    """Return the request weight of a call."""
    _, path = call
    if path == "/fapi/v1/depth":
        return _step(DEPTH_STEPS, values, 20)
    if path in {"/fapi/v1/klines", "/fapi/v1/markPriceKlines"}:
        return _step(CANDLE_STEPS, values, 10)
    if call in {("GET", "/fapi/v1/openOrders"), ("GET", "/fapi/v1/openAlgoOrders")}:
        return 1 if values.get("symbol") else ALL_OPEN_ORDERS
    return WEIGHTS.get(call, 1)


class FuturesRest:
    """Answers requests.

    Args:
        journal: is told of every request and answer.

    Attributes:
        after: called when a request has had its effect.
    """

    def __init__(
        self,
        exchange: FuturesExchange,
        journal: VenueJournal,
        limiter: Limiter,
        market_data: MarketData,
        trading: Trading,
        accounting: Accounting,
        keys: ListenKeys,
    ) -> None:
        self._exchange = exchange
        self._journal = journal
        self._limiter = limiter
        self._keys = keys
        self.after: Callable[[], None] = lambda: None
        self._public = market_data.calls
        self._signed = trading.calls | accounting.calls
        self._keyed: dict[Call, Callable[[FuturesAccount], Any]] = {
            ("POST", "/fapi/v1/listenKey"): self._give_key,
            ("PUT", "/fapi/v1/listenKey"): self._keep_key,
            ("DELETE", "/fapi/v1/listenKey"): self._drop_key,
        }

    def answer(self, request: WireRequest) -> WireAnswer:
        """Do what a request asks and say how it went."""
        values = auth.parameters(request.query, request.body)
        account = self._exchange.account(request.api_key or "")
        uid = account.uid if account is not None else 0
        told = {name: value for name, value in values.items() if name != "signature"}
        self._note("request", uid, {"call": f"{request.method} {request.path}", "with": told})
        extra: dict[str, str] = {}
        try:
            status, answer = 200, self._dispatch(request, values)
        except Refused as error:
            status, answer = error.status, {"code": error.code, "msg": error.message}
            if isinstance(error, Limited):
                extra["Retry-After"] = str(error.retry_after_s)
        self.after()
        self._note("answer", uid, {"status": status, "code": answer_code(answer)})
        key = account.api_key if account is not None else None
        headers = self._limiter.headers(self._exchange.now_ms(), key) | extra
        return WireAnswer(status, msgspec.json.encode(answer), headers)

    def _dispatch(self, request: WireRequest, values: Values) -> Any:
        call = (request.method, request.path)
        self._limiter.spend(self._exchange.now_ms(), weight_of(call, values))
        if call in self._public:
            return self._public[call](values)
        if call not in self._signed and call not in self._keyed:
            raise Refused(-5000, f"Path {request.path}, Method {request.method} is invalid", 404)
        account = auth.identify(self._exchange, request.api_key)
        if call in self._keyed:
            return self._keyed[call](account)
        payload = auth.signed_payload(request.query, request.body)
        auth.check_signed(self._exchange, account, values, payload)
        return self._signed[call](account, values)

    def _note(self, kind: str, uid: int, body: messages.Message) -> None:
        self._journal.add(self._exchange.now_ms(), kind, uid, body)

    def _give_key(self, account: FuturesAccount) -> Any:
        return {"listenKey": self._keys.give(account, self._exchange.now_ms())}

    def _keep_key(self, account: FuturesAccount) -> Any:
        key = self._keys.keep(account, self._exchange.now_ms())
        if key is None:
            raise Refused(*no.NO_LISTEN_KEY)
        return {"listenKey": key}

    def _drop_key(self, account: FuturesAccount) -> Any:
        if self._keys.drop(account) is None:
            raise Refused(*no.NO_LISTEN_KEY)
        return {}


def _step(steps: tuple[tuple[int, int], ...], values: Values, most: int) -> int:
    limit = whole(values, "limit", 500) or 0
    return next((weight for up_to, weight in steps if limit <= up_to), most)
