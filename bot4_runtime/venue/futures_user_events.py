"""What a USD-M user stream says, in Binance's words."""

from typing import Any, Final

from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.futures_account import FuturesAccount, Position
from bot4_runtime.venue.futures_events import (
    AccountChanged,
    AlgoChanged,
    MarginCalled,
    SettingsChanged,
)
from bot4_runtime.venue.futures_margin import MarginBook
from bot4_runtime.venue.futures_messages import FORCED_KINDS
from bot4_runtime.venue.futures_orders import FuturesReport
from bot4_runtime.venue.rules import plain

Message = dict[str, Any]
REASONS: Final = {"EXPIRED": "3"}


def order_update(report: FuturesReport) -> Message:
    """ORDER_TRADE_UPDATE."""
    order, trade, algo = report.order, report.trade, report.order.algo
    request = order.request
    kind = FORCED_KINDS.get(order.venue_kind, request.kind)
    told: Message = {
        "s": order.symbol,
        "c": order.client_id,
        "S": order.side.name,
        "o": kind,
        "f": request.tif.value,
        "q": plain(order.quantity),
        "p": plain(order.price),
        "ap": plain(report.average),
        "sp": plain(ZERO),
        "x": report.execution,
        "X": report.status.value,
        "i": order.order_id,
        "l": plain(trade.quantity if trade is not None else ZERO),
        "z": plain(report.filled),
        "L": plain(trade.price if trade is not None else ZERO),
        "n": plain(trade.commission if trade is not None else ZERO),
        "N": trade.asset if trade is not None else "USDT",
        "T": report.time_ms,
        "t": trade.trade_id if trade is not None else 0,
        "b": plain(ZERO),
        "a": plain(ZERO),
        "m": trade is not None and trade.maker,
        "R": request.reduce_only,
        "wt": "CONTRACT_PRICE",
        "ot": kind if algo is None else algo.request.kind.value,
        "ps": request.position_side.value,
        "cp": algo is not None and algo.request.close_all,
        "rp": plain(trade.realised if trade is not None else ZERO),
        "pP": False,
        "si": 0,
        "ss": 0,
        "V": request.prevention.value,
        "pm": "NONE",
        "gtd": request.good_till_ms,
        "er": REASONS.get(report.execution, "0"),
    }
    return {"e": "ORDER_TRADE_UPDATE", "E": report.time_ms, "T": report.time_ms, "o": told}


def trade_lite(report: FuturesReport) -> Message | None:
    """TRADE_LITE, which a fill is told by as well."""
    order, trade = report.order, report.trade
    if trade is None:
        return None
    return {
        "e": "TRADE_LITE",
        "E": report.time_ms,
        "T": report.time_ms,
        "s": order.symbol,
        "q": plain(order.quantity),
        "p": plain(order.price),
        "m": trade.maker,
        "c": order.client_id,
        "S": order.side.name,
        "L": plain(trade.price),
        "l": plain(trade.quantity),
        "t": trade.trade_id,
        "i": order.order_id,
    }


def account_update(margins: MarginBook, event: AccountChanged) -> Message:
    """ACCOUNT_UPDATE: what changed, never the whole account."""
    account, asset = event.account, event.asset
    return {
        "e": "ACCOUNT_UPDATE",
        "E": event.time_ms,
        "T": event.time_ms,
        "a": {
            "m": event.reason,
            "B": [
                {
                    "a": asset,
                    "wb": plain(account.wallet(asset)),
                    "cw": plain(account.cross.get(asset, ZERO)),
                    "bc": plain(event.change),
                }
            ],
            "P": [_position(margins, account, position) for position in event.positions],
        },
    }


def algo_update(event: AlgoChanged) -> Message:
    """ALGO_UPDATE."""
    algo, request, order = event.algo, event.algo.request, event.algo.request.order
    actual = algo.actual
    trailing = request.callback is not None
    told: Message = {
        "caid": algo.client_id,
        "aid": algo.algo_id,
        "at": "CONDITIONAL",
        "o": request.kind.value,
        "s": algo.symbol,
        "S": algo.side.name,
        "ps": order.position_side.value,
        "f": order.tif.value,
        "q": plain(order.quantity),
        "X": algo.status.value,
        "ai": "" if actual is None else str(actual.order_id),
        "ap": plain(ZERO if actual is None else actual.average),
        "aq": plain(ZERO if actual is None else actual.filled),
        "act": "" if actual is None else actual.request.kind,
        "tp": plain(ZERO if trailing else request.trigger or ZERO),
        "p": plain(order.price or ZERO),
        "V": order.prevention.value,
        "wt": "MARK_PRICE" if request.by_mark else "CONTRACT_PRICE",
        "pm": "NONE",
        "cp": request.close_all,
        "pP": request.price_protect,
        "R": order.reduce_only,
        "tt": algo.triggered_ms,
        "gtd": order.good_till_ms,
        "rm": algo.reason,
    }
    return {"e": "ALGO_UPDATE", "E": event.time_ms, "T": event.time_ms, "o": told}


def margin_call(margins: MarginBook, event: MarginCalled) -> Message:
    """MARGIN_CALL."""
    account = event.account
    return {
        "e": "MARGIN_CALL",
        "E": event.time_ms,
        "cw": plain(event.margin.wallet),
        "p": [
            {
                "s": leg.symbol,
                "ps": leg.side.value,
                "pa": plain(leg.quantity),
                "mt": "ISOLATED" if account.settings(leg.symbol).isolated else "CROSSED",
                "iw": plain(leg.isolated),
                "mp": plain(margins.notional(leg) / leg.quantity),
                "up": plain(margins.unrealised(leg)),
                "mm": plain(margins.maintenance(leg)),
            }
            for leg in event.margin.legs
        ],
    }


def config_update(event: SettingsChanged) -> Message:
    """ACCOUNT_CONFIG_UPDATE."""
    return {
        "e": "ACCOUNT_CONFIG_UPDATE",
        "E": event.time_ms,
        "T": event.time_ms,
        "ac": {"s": event.symbol, "l": event.leverage},
    }


def key_expired(key: str, time_ms: int) -> Message:
    """The last event of a stream whose listen key ran out."""
    return {"e": "listenKeyExpired", "E": time_ms, "listenKey": key}


def _position(margins: MarginBook, account: FuturesAccount, position: Position) -> Message:
    settings = account.settings(position.symbol)
    return {
        "s": position.symbol,
        "pa": plain(position.quantity),
        "ep": plain(position.entry),
        "bep": plain(position.break_even),
        "cr": plain(position.realised),
        "up": plain(margins.unrealised(position)),
        "mt": settings.margin_type,
        "iw": plain(position.isolated),
        "ps": position.side.value,
        "ma": position.asset,
    }
