"""Decoders of what Binance says to the runtime: streams, answers, errors, trading rules."""

import json
from concurrent.futures import Future
from decimal import Decimal
from typing import Any

import msgspec
import structlog
from fuzz_target import Target

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError, VenueError
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    OrderIntent,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from bot4_runtime.exchange.binance import order_line
from bot4_runtime.exchange.binance.failures import (
    failure,
    heed_silence,
    read_error,
    silence_ms,
    told_pause_ms,
)
from bot4_runtime.exchange.binance.followed_stream import StreamEnded
from bot4_runtime.exchange.binance.futures_stream import FuturesStream
from bot4_runtime.exchange.binance.key_rights import KeyTold
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.exchange.binance.market_messages import (
    Kline,
    MarketDecoder,
    MarkPrice,
    Unreadable,
    decode_snapshot,
)
from bot4_runtime.exchange.binance.order_changes import Leg
from bot4_runtime.exchange.binance.order_line import OrderLine
from bot4_runtime.exchange.binance.signing import Secret, Signer, VenueClock
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.exchange.binance.user_stream import UserStream
from bot4_runtime.protection.margin_book import MarginBook
from bot4_runtime.venue.rules import SymbolRules

D = Decimal
MS = 1_723_161_255_343
SYMBOL = {"symbol": "BTCUSDT"}
TRADE = {"e": "trade", "E": MS, "s": "BTCUSDT", "t": 7, "p": "61837.63", "q": "0.02", "T": MS, "m": True, "M": True}  # fmt: skip
AGGREGATE = {"e": "aggTrade", "E": MS, "s": "BTCUSDT", "a": 5, "p": "0.001", "q": "100", "f": 100, "l": 105, "T": MS, "m": False}  # fmt: skip
CANDLE = {"t": MS, "T": MS + 59_999, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 9, "o": "10.5", "c": "11.25", "h": "12", "l": "9.75", "v": "1000", "n": 9, "x": True, "q": "1"}  # fmt: skip
TICKER = {"u": 400, "s": "BNBUSDT", "b": "25.35", "B": "31.21", "a": "25.36", "A": "40.66"}
DEPTH = {"e": "depthUpdate", "E": MS, "s": "BTCUSDT", "U": 157, "u": 160, "pu": 156, "b": [["0.0024", "10"]], "a": [["0.0026", "0"]]}  # fmt: skip
MARK = {"e": "markPriceUpdate", "E": MS, "s": "BTCUSDT", "p": "11794.15", "i": "11784.62", "P": "11784.25", "r": "-0.00038167", "T": MS + 5}  # fmt: skip
FORCED = {"e": "forceOrder", "E": MS, "o": {"s": "BTCUSDT", "S": "SELL", "o": "LIMIT", "f": "IOC", "q": "0.014", "p": "9910", "ap": "9910", "X": "FILLED", "l": "0.014", "z": "0.014", "T": MS}}  # fmt: skip
MARKET = [
    TRADE,
    {"stream": "btcusdt@trade", "data": TRADE},
    {"stream": "btcusdt@aggTrade", "data": AGGREGATE},
    {"stream": "btcusdt@kline_1m", "data": {"e": "kline", "E": MS, "s": "BTCUSDT", "k": CANDLE}},
    {"stream": "bnbusdt@bookTicker", "data": TICKER},
    {"stream": "btcusdt@depth@100ms", "data": DEPTH},
    {"stream": "btcusdt@markPrice@1s", "data": MARK},
    {"stream": "!forceOrder@arr", "data": FORCED},
    {"result": None, "id": 3},
    {"error": {"code": 2, "msg": "Invalid request"}, "id": 4},
    {"e": "serverShutdown", "E": MS},
    {"stream": "!ticker@arr", "data": [{"e": "24hrTicker"}]},
]
REPORT = {"e": "executionReport", "E": MS, "s": "BTCUSDT", "c": "b4-1", "S": "BUY", "o": "LIMIT", "f": "GTC", "q": "1.0", "p": "100.5", "C": "", "x": "TRADE", "X": "FILLED", "r": "NONE", "i": 9, "l": "1.0", "z": "1.0", "L": "100.5", "n": "0.001", "N": "BTC", "T": MS, "t": 8, "m": True, "Z": "100.5", "Y": "100.5"}  # fmt: skip
LIMITS = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000, "count": 70}]  # fmt: skip
USER = [
    {"id": "subscribe", "status": 200, "result": {"subscriptionId": 0}, "rateLimits": LIMITS},
    {"subscriptionId": 0, "event": REPORT},
    REPORT,
    {"subscriptionId": 0, "event": REPORT | {"x": "NEW", "X": "NEW", "t": -1, "N": None}},
    {"subscriptionId": 0, "event": {"e": "outboundAccountPosition", "E": MS, "B": []}},
    {"subscriptionId": 0, "event": {"e": "serverShutdown", "E": MS}},
]
CHANGE = {"s": "BTCUSDT", "c": "b4-1", "S": "SELL", "x": "TRADE", "X": "PARTIALLY_FILLED", "i": 9, "q": "0.5", "z": "0.1", "ap": "40000", "T": MS, "l": "0.1", "L": "40000", "n": "0.2", "N": "USDT", "t": 4, "m": True}  # fmt: skip
ALGO = {"caid": "b4-2", "aid": 7, "at": "CONDITIONAL", "s": "BTCUSDT", "S": "SELL", "X": "TRIGGERED", "q": "0.5", "ai": "10", "rm": ""}  # fmt: skip
FUTURES_USER = [
    {"e": "ORDER_TRADE_UPDATE", "E": MS, "T": MS, "o": CHANGE},
    {"stream": "key", "data": {"e": "ORDER_TRADE_UPDATE", "E": MS, "T": MS, "o": CHANGE}},
    {"e": "ALGO_UPDATE", "E": MS, "T": MS, "o": ALGO},
    {"e": "ACCOUNT_UPDATE", "E": MS, "T": MS, "a": {"m": "FUNDING_FEE", "B": [{"a": "USDT", "wb": "9", "bc": "-0.1"}]}},
    {"e": "MARGIN_CALL", "E": MS, "p": [{"s": "BTCUSDT", "mm": "3"}]},
    {"e": "serverShutdown", "E": MS},
]  # fmt: skip
FAULT = {"code": -1003, "msg": "banned until 1723161300000.", "data": {"serverTime": MS, "retryAfter": MS + 50}}  # fmt: skip
PLACED = SYMBOL | {"orderId": 9, "orderListId": -1, "clientOrderId": "b4-1", "transactTime": MS, "status": "FILLED", "executedQty": "0.01", "fills": [{"price": "40000", "qty": "0.01", "commission": "0.1", "commissionAsset": "BNB", "tradeId": 4}]}  # fmt: skip
LINE = [
    {"id": "1", "status": 200, "result": PLACED, "rateLimits": LIMITS},
    {"id": "1", "status": 429, "error": FAULT, "rateLimits": LIMITS},
    {
        "id": "1",
        "status": 409,
        "error": {"code": -2021, "msg": "partly", "data": {"cancelResult": "SUCCESS"}},
    },
    {"id": "2", "status": 200, "result": {}},
    {"id": "log-on", "status": 200, "result": {"apiKey": "k"}},
    {"event": {"e": "serverShutdown"}},
]
ORDER = SYMBOL | {"orderId": 9, "clientOrderId": "b4-1", "price": "100", "origQty": "1.0", "executedQty": "0.5", "cummulativeQuoteQty": "50", "status": "PARTIALLY_FILLED", "timeInForce": "GTC", "type": "LIMIT", "side": "BUY", "stopPrice": "0", "time": MS, "updateTime": MS}  # fmt: skip
EXECUTION = SYMBOL | {"id": 5, "orderId": 9, "price": "100", "qty": "0.5", "quoteQty": "50", "commission": "0.05", "commissionAsset": "USDT", "time": MS, "isBuyer": True, "isMaker": False}  # fmt: skip
ACCOUNT = {"uid": 7, "canTrade": True, "balances": [{"asset": "BTC", "free": "1.5", "locked": "0.5"}, {"asset": "USDT", "free": "9", "locked": "0"}]}  # fmt: skip
RIGHTS = {"ipRestrict": True, "enableReading": True, "enableSpotAndMarginTrading": True, "enableWithdrawals": False, "enableMargin": False}  # fmt: skip
RULES = {
    "rateLimits": LIMITS,
    "symbols": [
        SymbolRules.of(Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0)).told()
        | {
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
                {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
                {"filterType": "MARKET_LOT_SIZE", "minQty": "0", "maxQty": "80", "stepSize": "0"},
                {"filterType": "PERCENT_PRICE_BY_SIDE", "bidMultiplierUp": "5", "bidMultiplierDown": "0.2", "askMultiplierUp": "5", "askMultiplierDown": "0.2", "avgPriceMins": 5},
                {"filterType": "PERCENT_PRICE", "multiplierUp": "5", "multiplierDown": "0.2", "avgPriceMins": 5},
                {"filterType": "MIN_NOTIONAL", "minNotional": "5", "applyToMarket": True},
                {"filterType": "NOTIONAL", "minNotional": "5", "applyMinToMarket": True, "maxNotional": "9000000", "applyMaxToMarket": False, "avgPriceMins": 5},
                {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
                {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
                {"filterType": "MAX_POSITION", "maxPosition": "100"},
                {"filterType": "TRAILING_DELTA", "minTrailingAboveDelta": 10},
            ]
        }
    ],
}  # fmt: skip
ANSWERS = {
    "/api/v3/time": {"serverTime": MS},
    "/api/v3/exchangeInfo": RULES,
    "/api/v3/order": ORDER,
    "/api/v3/openOrders": [ORDER],
    "/api/v3/myTrades": [EXECUTION],
    "/api/v3/account": ACCOUNT,
    "/sapi/v1/account/apiRestrictions": RIGHTS,
}
REPLACED = {"cancelResult": "SUCCESS", "newOrderResult": "SUCCESS", "cancelResponse": ORDER, "newOrderResponse": PLACED}  # fmt: skip
AMENDED = {"transactTime": MS, "amendedOrder": {"clientOrderId": "b4-1", "qty": "0.01", "executedQty": "0", "orderId": 9}}  # fmt: skip
PAIR = {"orderListId": 3, "orders": [{"symbol": "BTCUSDT", "orderId": 4, "clientOrderId": "a"}, {"symbol": "BTCUSDT", "orderId": 5, "clientOrderId": "b"}]}  # fmt: skip


def jsons(*told: object) -> tuple[bytes, ...]:
    return tuple(json.dumps(one).encode() for one in told)


def intent(side: Side = Side.BUY, kind: OrderType = OrderType.LIMIT) -> OrderIntent:
    return OrderIntent(
        intent_no=1,
        book=Book.VALIDATED,
        purpose=Purpose.ENTRY,
        symbol="BTCUSDT",
        side=side,
        order_type=kind,
        quantity=D("0.01"),
        price=D("39000") if kind is OrderType.LIMIT else None,
        stop_price=None,
        time_in_force=TimeInForce.GTC,
        reduce_only=False,
        reference_price=D(40_000),
        stop_loss=None,
        expires_after=0,
        signal_id="s",
        rule_id="r",
        ts_ns=1,
    )


def signer() -> Signer:
    return Signer(Secret("key"), Secret("secret"))


class Saying:
    """An HTTP connection that brings what is laid down for each path."""

    def __init__(self, path: str, body: bytes) -> None:
        self._path, self._body = path, body

    def get(self, path, *_rest) -> bytes:
        return self._body if path == self._path else json.dumps(ANSWERS[path]).encode()

    def send(self, *_asked) -> bytes:
        return self._body

    def close(self) -> None:
        """Nothing is open."""


def asking(path: str, question):
    """Return what puts a question to a venue that answers it with a message."""

    def read(message: bytes) -> object:
        client = BinanceSpot(
            "http://127.0.0.1:9", None, signer(), ManualClock(MS * 10**6), symbols=["BTCUSDT"]
        )
        client._http = client._entry.http = Saying(path, message)
        return question(client)

    return read


def _traded_by(client: BinanceSpot) -> None:
    """Learn the rules, and hold orders against them."""
    client.open_orders()
    client.balances()
    rules = client.rules("BTCUSDT")
    assert rules is not None
    for side in Side:
        for kind in (OrderType.LIMIT, OrderType.MARKET):
            client._rules.broken(intent(side, kind), kind.name)
    for market in (False, True):
        rules.floor_quantity(D("1.23456789"), at_market=market)
        rules.price(D("39000.123"), up=market)


def _open(client: BinanceSpot) -> None:
    client.open_orders()
    client._rules.placed(intent())
    client._rules.broken(intent(), "LIMIT")


def _held(client: BinanceSpot) -> None:
    client.open_orders()
    client.balances()
    client._rules.broken(intent(), "LIMIT")


def _pair(client: BinanceSpot) -> object:
    above, below = Leg("LIMIT_MAKER", "a", price=D(9)), Leg("STOP_LOSS", "b", stop_price=D(8))
    return client.changes.place_pair("BTCUSDT", Side.SELL, D(1), above, below, None)


def _market(message: bytes) -> None:
    decoder = MarketDecoder()
    event = decoder.decode(message)
    if isinstance(event, Kline):
        event.candle().check()
    if isinstance(event, MarkPrice):
        assert event.funding_rate is None or event.funding_rate.is_finite()
    assert event is None or getattr(event, "ts_event_ns", 0) >= 0
    assert len(decoder.counts) <= 65


def _user(message: bytes) -> None:
    stream = UserStream("ws://127.0.0.1:9", signer(), VenueClock(ManualClock(0)))
    stream._log = QUIET
    stream._take(message.decode("utf-8", "replace"))
    if stream.counts["unreadable"]:
        raise DataError("counted as unreadable")


def _futures_user(message: bytes) -> None:
    stream = FuturesStream(
        "ws://127.0.0.1:9",
        "http://127.0.0.1:9",
        signer(),
        VenueClock(ManualClock(0)),
        margin=(book := MarginBook("USDT")),
    )
    stream._log = book._log = QUIET
    stream._take(message.decode("utf-8", "replace"))
    book.settle()
    if stream.counts["unreadable"]:
        raise DataError("counted as unreadable")


def _margin(message: bytes) -> None:
    """Read on what positions rest, as a reading of the account brings it."""
    told = msgspec.json.decode(message, type=MarginTold)
    book = MarginBook("USDT")
    book._log = QUIET
    book.brackets(told.brackets)
    book.read(told.positions, told.account, 1)
    for leg in book.positions():
        leg.check()


def _line(message: bytes) -> None:
    line = OrderLine(
        "ws://127.0.0.1:9",
        signer(),
        VenueClock(ManualClock(0)),
        window_ms=2_000,
        budget=RequestBudget(None),
    )
    line._log = QUIET
    answer: Future[bytes] = Future()
    line._waiting["1"] = order_line._Waiting("order.place", MS, answer)
    line._take(message.decode("utf-8", "replace"))
    if line.counts["unreadable"]:
        raise DataError("counted as unreadable")
    fault = answer.exception() if answer.done() else None
    if fault is not None and not isinstance(fault, VenueError):
        raise fault


def _error(message: bytes) -> None:
    error = read_error(message)
    budget = RequestBudget(None)
    for status in (400, 401, 403, 409, 418, 429, 451, 500, 503):
        assert isinstance(failure("POST /api/v3/order", status, error), VenueError)
        asked = silence_ms(status, error, message[:8].decode("latin-1"), MS)
        for pause in (asked, told_pause_ms(error, MS)):
            if pause is not None:
                assert pause >= 0
                heed_silence(budget, "key", status, error, pause)
    if error is None:
        raise DataError("no error as Binance tells it")


class MarginTold(msgspec.Struct):
    """The answers of positionRisk, account and leverageBracket, side by side."""

    positions: list[dict[str, Any]]
    account: dict[str, Any]
    brackets: list[dict[str, Any]]


MARGIN = {
    "positions": [
        {"symbol": "BTCUSDT", "positionSide": "BOTH", "positionAmt": "0.01", "entryPrice": "40000.0", "isolatedWallet": "130.5", "isolatedMargin": "131.0", "liquidationPrice": "27000.0"},
        {"symbol": "ETHUSDT", "positionSide": "SHORT", "positionAmt": "-0.5", "entryPrice": "2500.0", "isolatedWallet": "0", "isolatedMargin": "0", "liquidationPrice": "0"},
    ],
    "account": {"assets": [{"asset": "USDT", "crossWalletBalance": "900.0", "availableBalance": "800.0"}]},
    "brackets": [{"symbol": "BTCUSDT", "notionalCoef": 1.5, "brackets": [{"bracket": 1, "notionalFloor": 0, "maintMarginRatio": 0.004, "cum": 0.0}]}],
}  # fmt: skip
QUIET = structlog.wrap_logger(structlog.testing.CapturingLogger(), processors=[])
REFUSED = (VenueError,)


def _key(client: BinanceSpot) -> object:
    told = client.key()
    assert isinstance(told, KeyTold)
    return told.faults(7)


TARGETS = (
    Target("market_stream", _market, (Unreadable, DataError), jsons(*MARKET)),
    Target("depth_snapshot", decode_snapshot, (Unreadable,), jsons({"lastUpdateId": 5, "bids": [["1.5", "2"]], "asks": [["1.6", "3"]]})),
    Target("user_stream", _user, (DataError, StreamEnded), jsons(*USER)),
    Target("futures_user_stream", _futures_user, (DataError, StreamEnded), jsons(*FUTURES_USER)),
    Target("futures_margin", _margin, (DataError, msgspec.DecodeError, UnicodeDecodeError, RecursionError), jsons(MARGIN)),
    Target("order_line", _line, (DataError, VenueError, order_line._LineEnded), jsons(*LINE)),
    Target("error", _error, (DataError,), jsons(FAULT, {"code": -1015, "msg": "Too many new orders."})),
    Target("answer_time", asking("/api/v3/time", lambda c: c.server_time_ms()), REFUSED, jsons(ANSWERS["/api/v3/time"])),
    Target("answer_placed", asking("", lambda c: c.submit(intent(), "b4-1", 1.0)), REFUSED, jsons(PLACED)),
    Target("answer_order", asking("/api/v3/order", lambda c: c.query("BTCUSDT", "b4-1")), REFUSED, jsons(ORDER)),
    Target("answer_open_orders", asking("/api/v3/openOrders", _open), REFUSED, jsons([ORDER], [ORDER, ORDER])),
    Target("answer_trades", asking("/api/v3/myTrades", lambda c: c.trades("BTCUSDT", 4)), REFUSED, jsons([EXECUTION])),
    Target("answer_account", asking("/api/v3/account", _held), REFUSED, jsons(ACCOUNT)),
    Target("answer_key_holder", asking("/api/v3/account", _key), REFUSED, jsons(ACCOUNT)),
    Target("answer_key_rights", asking("/sapi/v1/account/apiRestrictions", _key), REFUSED, jsons(RIGHTS)),
    Target("answer_rules", asking("/api/v3/exchangeInfo", _traded_by), REFUSED, jsons(RULES)),
    Target("answer_replaced", asking("", lambda c: c.changes.replace("b4-0", {}, None)), REFUSED, jsons(REPLACED)),
    Target("answer_amended", asking("", lambda c: c.changes.amend("BTCUSDT", "b4-1", D("0.01"))), REFUSED, jsons(AMENDED)),
    Target("answer_pair", asking("", _pair), REFUSED, jsons(PAIR)),
)  # fmt: skip
