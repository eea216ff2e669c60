"""Readers of what clients say to the venue: requests over HTTP, messages over WebSocket.

Whatever a client says is answered: never an exception, never a status from 500 up. Requests are
signed here, so that what is damaged reaches the readers behind the door.
"""

import hashlib
import hmac
import json
from decimal import Decimal
from urllib.parse import quote, urlencode

from fuzz_target import Target

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.market_data import Follower
from bot4_runtime.venue.rest import WireRequest
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.server import VenueServer
from bot4_runtime.venue.stream import Connection

NOW_MS = 1_800_000_000_000
D = Decimal


def spot() -> Loopback:
    rules = SymbolRules.of(Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0))
    venue = Loopback(ManualClock(NOW_MS * 10**6), [(rules, D(40_000))])
    venue.open_account(1, "key", "secret", [("USDT", D(100_000)), ("BTC", D(2))])
    return _opened(venue, "/api/v3/order")


def usdm() -> FuturesLoopback:
    rules = Contract.of(Instrument.assume("BTCUSDT", Market.USDM, 40_000.0))
    venue = FuturesLoopback(ManualClock(NOW_MS * 10**6), [(rules, D(40_000))])
    venue.open_account(1, "key", "secret", [("USDT", D(100_000))])
    [isolated] = calls(
        ("POST /fapi/v1/marginType", {"symbol": "BTCUSDT", "marginType": "ISOLATED"})
    )
    assert venue.answer(_wire(isolated)).status == 200
    return _opened(venue, "/fapi/v1/order")


def _opened(venue, path: str):
    """Let an order rest there and one trade."""
    for order in (LIMIT | {"newClientOrderId": "a-0"}, MARKET | {"side": "BUY"}):
        [call] = calls((f"POST {path}", order))
        assert venue.answer(_wire(call)).status == 200
    return venue


def signed(payload: str) -> str:
    return hmac.new(b"secret", payload.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _wire(message: bytes) -> WireRequest:
    """Read a request: ``METHOD PATH``, parameters as JSON or as text, signed."""
    head, _, rest = message.decode("utf-8", "replace").partition("\n")
    method, _, path = head.partition(" ")
    try:
        told = json.loads(rest)
        query = urlencode({name: _text(value) for name, value in told.items()}, errors="replace")
    except (ValueError, AttributeError, RecursionError):
        query = quote(rest, safe="=&%", errors="replace")
    query = f"{query}&timestamp={NOW_MS}" if query else f"timestamp={NOW_MS}"
    payload = "&".join(pair for pair in query.split("&") if not pair.startswith("signature="))
    return WireRequest(method, path, f"{payload}&signature={signed(payload)}", "", "key")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def rest(make):
    """Return what sends a request to a fresh venue over HTTP."""

    def read(message: bytes) -> None:
        answer = make().answer(_wire(message))
        assert answer.status < 500, answer
        json.loads(answer.body)
        if answer.status != 200:
            raise DataError("refused")

    return read


def api(make, path: str):
    """Return what sends a message to a fresh venue's WebSocket API, through its server."""

    def read(message: bytes) -> None:
        venue = make()
        connection = Connection(lambda: None)
        venue.hub.join(connection, path, "")
        VenueServer(venue)._asked(connection, _sealed(message))
        _looked_at(connection)

    return read


def _sealed(message: bytes) -> bytes:
    """Sign a message whose parameters can be signed."""
    try:
        told = json.loads(message)
        params = dict(told["params"])
        payload = "&".join(f"{name}={params[name]}" for name in sorted(params))
        told["params"] = params | {"signature": signed(payload)}
        return json.dumps(told).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return message


def _looked_at(connection: Connection) -> None:
    refused = False
    for parcel in connection.outbox:
        if isinstance(parcel, bytes):
            told = json.loads(parcel)
            refused |= "error" in told
            assert told.get("status", 200) < 500, told
    if refused:
        raise DataError("refused")


def _spot_streams(message: bytes) -> None:
    venue = spot()
    follower = Follower(lambda: None, "spot", wrapped=True)
    venue.market.answer(follower, message)
    _looked_at(follower)


def _usdm_streams(message: bytes) -> None:
    venue = usdm()
    connection = Connection(lambda: None)
    venue.hub.join(connection, "/market/stream", "")
    venue.hub.answer(connection, message)
    _looked_at(connection)


def calls(*told: tuple[str, dict[str, object]]) -> tuple[bytes, ...]:
    return tuple(f"{head}\n{json.dumps(values)}".encode() for head, values in told)


def asked(*told: tuple[str, dict[str, object]]) -> tuple[bytes, ...]:
    stamp = {"apiKey": "key", "timestamp": NOW_MS}
    return tuple(
        json.dumps({"id": "1", "method": method, "params": values | stamp}).encode()
        for method, values in told
    )


LIMIT = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "30000", "newClientOrderId": "a-1"}  # fmt: skip
MARKET = {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": "0.01"}
OCO = {"symbol": "BTCUSDT", "side": "SELL", "quantity": "0.01", "aboveType": "LIMIT_MAKER", "abovePrice": "50000", "belowType": "STOP_LOSS", "belowStopPrice": "30000"}  # fmt: skip
REPLACE = LIMIT | {"cancelReplaceMode": "ALLOW_FAILURE", "cancelOrigClientOrderId": "a-0"}
ALGO = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "triggerPrice": "30000", "quantity": "0.01", "clientAlgoId": "a-2"}  # fmt: skip
SPOT_CALLS = calls(
    ("GET /api/v3/ping", {}),
    ("GET /api/v3/exchangeInfo", {"symbols": '["BTCUSDT"]'}),
    ("GET /api/v3/depth", {"symbol": "BTCUSDT", "limit": "5"}),
    ("GET /api/v3/klines", {"symbol": "BTCUSDT", "interval": "1m", "startTime": NOW_MS - 60_000, "limit": 5}),
    ("POST /api/v3/order", LIMIT),
    ("POST /api/v3/order", MARKET),
    ("POST /api/v3/order", MARKET | {"quantity": "0.01", "type": "STOP_LOSS", "stopPrice": "39000"}),
    ("POST /api/v3/orderList/oco", OCO),
    ("POST /api/v3/order/cancelReplace", REPLACE),
    ("PUT /api/v3/order/amend/keepPriority", {"symbol": "BTCUSDT", "origClientOrderId": "a-0", "newQty": "0.005"}),
    ("GET /api/v3/order", {"symbol": "BTCUSDT", "origClientOrderId": "a-0"}),
    ("DELETE /api/v3/order", {"symbol": "BTCUSDT", "orderId": 1}),
    ("GET /api/v3/openOrders", {}),
    ("GET /api/v3/myTrades", {"symbol": "BTCUSDT", "fromId": 0, "limit": 5}),
    ("GET /api/v3/account", {}),
)  # fmt: skip
USDM_CALLS = calls(
    ("GET /fapi/v1/exchangeInfo", {}),
    ("GET /fapi/v1/depth", {"symbol": "BTCUSDT", "limit": "5"}),
    ("POST /fapi/v1/order", LIMIT),
    ("POST /fapi/v1/order", MARKET | {"reduceOnly": "true"}),
    ("POST /fapi/v1/algoOrder", ALGO),
    ("POST /fapi/v1/batchOrders", {"batchOrders": json.dumps([LIMIT, MARKET])}),
    ("DELETE /fapi/v1/batchOrders", {"symbol": "BTCUSDT", "orderIdList": "[1,2]"}),
    ("PUT /fapi/v1/order", {"symbol": "BTCUSDT", "orderId": 1, "side": "BUY", "quantity": "0.01", "price": "31000"}),
    ("POST /fapi/v1/leverage", {"symbol": "BTCUSDT", "leverage": 50}),
    ("POST /fapi/v1/positionMargin", {"symbol": "BTCUSDT", "amount": "5", "type": 1}),
    ("POST /fapi/v1/countdownCancelAll", {"symbol": "BTCUSDT", "countdownTime": 120000}),
    ("POST /fapi/v1/listenKey", {}),
    ("GET /fapi/v3/positionRisk", {"symbol": "BTCUSDT"}),
    ("GET /fapi/v1/income", {"symbol": "BTCUSDT", "limit": 5}),
    ("GET /fapi/v1/userTrades", {"symbol": "BTCUSDT", "startTime": 1}),
)  # fmt: skip
SPOT_MESSAGES = asked(
    ("ping", {}),
    ("userDataStream.subscribe.signature", {}),
    ("order.place", LIMIT),
    ("order.cancelReplace", REPLACE),
    ("orderList.place.oco", OCO),
    ("order.status", {"symbol": "BTCUSDT", "orderId": 1}),
    ("session.status", {}),
    ("account.status", {}),
)
USDM_MESSAGES = asked(
    ("ping", {}), ("order.place", LIMIT), ("algoOrder.place", ALGO), ("account.status", {}),
    ("order.status", {"symbol": "BTCUSDT", "orderId": 1}), ("userDataStream.start", {}),
)  # fmt: skip
SUBSCRIBE = tuple(
    json.dumps(told).encode()
    for told in (
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@kline_1m"], "id": 1},
        {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": "x"},
        {"method": "LIST_SUBSCRIPTIONS", "id": 3},
    )
)
REFUSED = (DataError,)
TARGETS = (
    Target("venue_spot_rest", rest(spot), REFUSED, SPOT_CALLS),
    Target("venue_spot_api", api(spot, "/ws-api/v3"), REFUSED, SPOT_MESSAGES),
    Target("venue_spot_streams", _spot_streams, REFUSED, SUBSCRIBE),
    Target("venue_usdm_rest", rest(usdm), REFUSED, USDM_CALLS),
    Target("venue_usdm_api", api(usdm, "/ws-fapi/v1"), REFUSED, USDM_MESSAGES),
    Target("venue_usdm_streams", _usdm_streams, REFUSED, SUBSCRIBE),
)
