"""Reads USD-M requests: parameters of orders, plain and conditional."""

import re
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

from bot4_runtime.domain.order import Side
from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue import refusals
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.futures_account import PositionSide
from bot4_runtime.venue.futures_orders import (
    AlgoKind,
    AlgoRequest,
    FuturesRequest,
    FuturesTif,
    Prevention,
)
from bot4_runtime.venue.refusals import Refused, illegal, mandatory, not_required
from bot4_runtime.venue.rest import Values, amount, text, whole

CLIENT_ID: Final = re.compile(r"[\.A-Z\:/a-z0-9_-]{1,36}")
PERCENT: Final = Decimal(100)
MIN_CALLBACK: Final = Decimal("0.1")
MAX_CALLBACK: Final = Decimal(10)
E = TypeVar("E", bound=StrEnum)


def client_id(values: Values, name: str) -> str:
    """Return a client id that may be missing; raises Refused -4015 for an impossible one."""
    value = values.get(name, "")
    if value and not CLIENT_ID.fullmatch(value):
        raise Refused(*no.BAD_CLIENT_ID)
    return value


def flag(values: Values, name: str) -> bool:
    """Return a truth value that may be missing; raises Refused -1100 for anything else."""
    value = values.get(name, "").lower() or "false"
    if value not in {"true", "false"}:
        raise illegal(name, "^(true|false)$")
    return value == "true"


def named(kind: type[E], value: str, error: tuple[int, str]) -> E:
    """Return a member of a closed set; raises Refused with `error` for none."""
    try:
        return kind(value)
    except ValueError:
        raise Refused(*error) from None


def position_side(values: Values) -> PositionSide:
    """Return which position is meant; raises Refused -4060."""
    return named(PositionSide, values.get("positionSide") or "BOTH", no.BAD_POSITION_SIDE)


def order_named(values: Values) -> tuple[str, int | None, str]:
    """Return symbol and either id of an order; raises Refused -1102 when there is none."""
    order_id, name = whole(values, "orderId"), client_id(values, "origClientOrderId")
    if order_id is None and not name:
        raise Refused(
            -1102,
            "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!",
        )
    return text(values, "symbol"), order_id, name


def detail(values: Values) -> str:
    """Return how much a new order's answer tells; raises Refused -1136."""
    wanted = values.get("newOrderRespType") or "ACK"
    if wanted not in {"ACK", "RESULT"}:
        raise Refused(*no.BAD_DETAIL)
    return wanted


def read_order(values: Values) -> FuturesRequest:
    """Read a new plain order.

    Raises:
        Refused: something is missing, unreadable, or not for this order type; -4120 for a
            conditional one.
    """
    kind = text(values, "type")
    if kind in AlgoKind.__members__:
        raise Refused(*no.USE_ALGO)
    if kind not in {"LIMIT", "MARKET"}:
        raise Refused(*refusals.INVALID_ORDER_TYPE)
    for name in ("stopPrice", "activationPrice", "callbackRate", "closePosition"):
        if values.get(name) not in {None, "", "false"}:
            raise not_required(name)
    if amount(values, "quantity") is None:
        raise mandatory("quantity")
    return _order(values, limited=kind == "LIMIT", name="newClientOrderId")


def read_algo(values: Values) -> AlgoRequest:
    """Read a new conditional order.

    Raises:
        Refused: something is missing, unreadable, or does not go together.
    """
    if text(values, "algoType") != "CONDITIONAL":
        raise Refused(*refusals.INVALID_ORDER_TYPE)
    kind = named(AlgoKind, text(values, "type"), refusals.INVALID_ORDER_TYPE)
    trailing = kind is AlgoKind.TRAILING_STOP_MARKET
    close_all = flag(values, "closePosition")
    trigger = amount(values, "activatePrice" if trailing else "triggerPrice")
    if trigger is None and not trailing:
        raise mandatory("triggerPrice")
    quantity = amount(values, "quantity")
    if close_all and (kind.limited or trailing):
        raise not_required("closePosition")
    if close_all and quantity:
        raise Refused(*no.CLOSE_ALL_HAS_QUANTITY)
    if not close_all and quantity is None:
        raise mandatory("quantity")
    callback = None
    if trailing:
        rate = amount(values, "callbackRate")
        if rate is None:
            raise mandatory("callbackRate")
        if not MIN_CALLBACK <= rate <= MAX_CALLBACK:
            raise Refused(-1130, "Data sent for parameter 'callbackRate' is not valid.")
        callback = rate / PERCENT
    working = values.get("workingType") or "CONTRACT_PRICE"
    if working not in {"CONTRACT_PRICE", "MARK_PRICE"}:
        raise Refused(*no.BAD_WORKING_TYPE)
    return AlgoRequest(
        kind=kind,
        order=_order(values, limited=kind.limited, name=""),
        trigger=trigger,
        callback=callback,
        by_mark=working == "MARK_PRICE",
        close_all=close_all,
        price_protect=flag(values, "priceProtect"),
        client_id=client_id(values, "clientAlgoId"),
    )


def _order(values: Values, *, limited: bool, name: str) -> FuturesRequest:
    side = {"BUY": Side.BUY, "SELL": Side.SELL}.get(text(values, "side"))
    if side is None:
        raise Refused(*refusals.INVALID_SIDE)
    if values.get("priceMatch") not in {None, "", "NONE"}:  # not offered here
        raise Refused(*no.NO_PRICE_MATCH)
    price = amount(values, "price")
    if limited and price is None:
        raise mandatory("price")
    if limited and not values.get("timeInForce") and name:
        raise mandatory("timeInForce")
    if not limited and price:
        raise not_required("price")
    tif = named(FuturesTif, values.get("timeInForce") or "GTC", refusals.INVALID_TIF)
    mode = values.get("selfTradePreventionMode") or "EXPIRE_MAKER"
    return FuturesRequest(
        symbol=text(values, "symbol"),
        side=side,
        position_side=position_side(values),
        price=price if limited else None,
        quantity=amount(values, "quantity") or ZERO,
        tif=tif if limited else FuturesTif.GTC,
        reduce_only=flag(values, "reduceOnly"),
        good_till_ms=whole(values, "goodTillDate") or 0,
        prevention=named(Prevention, mode, no.BAD_STP),
        client_id=client_id(values, name) if name else "",
    )
