"""Orders, trades, accounts and reports in Binance's words.

Amounts are texts with eight decimals, times are milliseconds since 1970 UTC.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from bot4_runtime.domain.order import Side
from bot4_runtime.venue.account import ZERO, Account
from bot4_runtime.venue.orders import Report, VenueOrder, VenueTrade
from bot4_runtime.venue.rules import plain

Message = dict[str, Any]
STP = "EXPIRE_MAKER"


def order_told(order: VenueOrder) -> Message:
    """An order, as `GET /api/v3/order` and `openOrders` tell it."""
    return _order_core(order) | {
        "clientOrderId": order.client_id,
        "stopPrice": plain(order.request.stop_price or ZERO),
        "icebergQty": plain(ZERO),
        "time": order.created_ms,
        "updateTime": order.updated_ms,
        "isWorking": order.working,
        "workingTime": order.created_ms if order.working else -1,
    }


def placed(order: VenueOrder, detail: str) -> Message:
    """The answer to a new order: ``ACK``, ``RESULT`` or ``FULL``."""
    ack = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": order.client_id,
        "transactTime": order.updated_ms,
    }
    if detail == "ACK":
        return ack
    result = ack | _order_core(order)
    if order.working:
        result["workingTime"] = order.created_ms
    if order.request.stop_price is not None:
        result["stopPrice"] = plain(order.request.stop_price)
    if detail == "FULL":
        result["fills"] = [
            {
                "price": plain(trade.price),
                "qty": plain(trade.quantity),
                "commission": plain(trade.commission),
                "commissionAsset": trade.commission_asset,
                "tradeId": trade.trade_id,
            }
            for trade in order.trades
        ]
    return result


def canceled(order: VenueOrder, cancel_id: str) -> Message:
    """The answer to a cancel request."""
    return _order_core(order) | {
        "origClientOrderId": order.client_id,
        "clientOrderId": cancel_id,
        "transactTime": order.updated_ms,
    }


def pair_told(legs: Sequence[VenueOrder], list_name: str) -> Message:
    """The answer to a new OCO list."""
    first = legs[0]
    return {
        "orderListId": first.list_id,
        "contingencyType": "OCO",
        "listStatusType": "EXEC_STARTED",
        "listOrderStatus": "EXECUTING",
        "listClientOrderId": list_name or f"list-{first.list_id}",
        "transactionTime": first.created_ms,
        "symbol": first.symbol,
        "orders": [
            {"symbol": leg.symbol, "orderId": leg.order_id, "clientOrderId": leg.client_id}
            for leg in legs
        ],
        "orderReports": [placed(leg, "RESULT") for leg in legs],
    }


def amended(order: VenueOrder, former: str, number: int) -> Message:
    """The answer to an amendment."""
    return {
        "transactTime": order.updated_ms,
        "executionId": number,
        "amendedOrder": {
            "symbol": order.symbol,
            "orderId": order.order_id,
            "orderListId": order.list_id,
            "origClientOrderId": former,
            "clientOrderId": order.client_id,
            "price": plain(order.price),
            "qty": plain(order.quantity),
            "executedQty": plain(order.filled),
            "preventedQty": plain(ZERO),
            "quoteOrderQty": plain(ZERO),
            "cumulativeQuoteQty": plain(order.spent),
            "status": order.status.value,
            "timeInForce": order.request.tif.value,
            "type": order.request.kind.value,
            "side": order.side.name,
            "selfTradePreventionMode": STP,
        },
    }


def trade_told(trade: VenueTrade) -> Message:
    """A trade, as `myTrades` tells it."""
    return {
        "symbol": trade.symbol,
        "id": trade.trade_id,
        "orderId": trade.order_id,
        "orderListId": -1,
        "price": plain(trade.price),
        "qty": plain(trade.quantity),
        "quoteQty": plain(trade.price * trade.quantity),
        "commission": plain(trade.commission),
        "commissionAsset": trade.commission_asset,
        "time": trade.time_ms,
        "isBuyer": trade.side is Side.BUY,
        "isMaker": trade.maker,
        "isBestMatch": True,
    }


def account_told(account: Account, now_ms: int) -> Message:
    """An account, as `GET /api/v3/account` tells it."""
    return {
        "makerCommission": int(account.maker * 10_000),
        "takerCommission": int(account.taker * 10_000),
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {
            "maker": plain(account.maker),
            "taker": plain(account.taker),
            "buyer": plain(ZERO),
            "seller": plain(ZERO),
        },
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": now_ms,
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": plain(balance.free), "locked": plain(balance.locked)}
            for asset, balance in account.held()
        ],
        "permissions": ["SPOT"],
        "uid": account.uid,
    }


def execution_report(report: Report) -> Message:
    """A report, as the user stream tells it."""
    order, trade = report.order, report.trade
    canceling = bool(report.cancel_id)
    names = (report.cancel_id, order.client_id) if canceling else (order.client_id, "")
    if report.execution == "REPLACED":
        names = (order.client_id, report.cancel_id)
    last = (trade.price, trade.quantity) if trade is not None else (ZERO, ZERO)
    return {
        "e": "executionReport",
        "E": report.time_ms,
        "s": order.symbol,
        "c": names[0],
        "S": order.side.name,
        "o": order.request.kind.value,
        "f": order.request.tif.value,
        "q": plain(order.quantity),
        "p": plain(order.price),
        "P": plain(order.request.stop_price or ZERO),
        "F": plain(ZERO),
        "g": order.list_id,
        "C": names[1],
        "x": report.execution,
        "X": report.status.value,
        "r": "NONE",
        "i": order.order_id,
        "l": plain(last[1]),
        "z": plain(report.filled),
        "L": plain(last[0]),
        "n": plain(trade.commission) if trade is not None else "0",
        "N": trade.commission_asset if trade is not None else None,
        "T": report.time_ms,
        "t": trade.trade_id if trade is not None else -1,
        "v": 0,
        "I": report.number,
        "w": report.status.open and order.working,
        "m": trade is not None and trade.maker,
        "M": False,
        "O": order.created_ms,
        "Z": plain(report.spent),
        "Y": plain(last[0] * last[1]),
        "Q": plain(order.request.quote_quantity or ZERO),
        "W": order.created_ms,
        "V": STP,
    }


def account_position(account: Account, assets: Iterable[str], time_ms: int) -> Message:
    """What the user stream says of balances that may have changed."""
    return {
        "e": "outboundAccountPosition",
        "E": time_ms,
        "u": time_ms,
        "B": [
            {
                "a": asset,
                "f": plain(account.balance(asset).free),
                "l": plain(account.balance(asset).locked),
            }
            for asset in sorted(assets)
        ],
    }


def trades_page(
    trades: Sequence[VenueTrade],
    *,
    order_id: int | None,
    from_id: int | None,
    times_ms: tuple[int | None, int | None],
    limit: int,
) -> list[Message]:
    """Choose a page of trades: the oldest from `from_id` or a start time on, else the latest."""
    start, end = times_ms
    chosen = [
        trade
        for trade in trades
        if (order_id is None or trade.order_id == order_id)
        and (from_id is None or trade.trade_id >= from_id)
        and (start is None or trade.time_ms >= start)
        and (end is None or trade.time_ms <= end)
    ]
    forward = from_id is not None or start is not None
    return [trade_told(trade) for trade in (chosen[:limit] if forward else chosen[-limit:])]


def _order_core(order: VenueOrder) -> Message:
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": order.client_id,
        "price": plain(order.price),
        "origQty": plain(order.quantity),
        "executedQty": plain(order.filled),
        "origQuoteOrderQty": plain(order.request.quote_quantity or Decimal(0)),
        "cummulativeQuoteQty": plain(order.spent),
        "status": order.status.value,
        "timeInForce": order.request.tif.value,
        "type": order.request.kind.value,
        "side": order.side.name,
        "selfTradePreventionMode": STP,
    }
