"""Orders changed in one request: replaced, amended in place, or one of which cancels the other.

Each is sent once, as a plain order is. Of a replacement both halves are told: the cancel may have
worked and the new order not (HTTP 409), and the other way round. Source: binance-spot-api-docs,
rest-api.md, "Cancel an Existing Order and Send a New Order", "Order Amend Keep Priority", "New
Order List - OCO", at a5e0bc3 (2026-07-17).
"""

from decimal import Decimal
from typing import Final, Literal, NamedTuple

import msgspec

from bot4_runtime.domain.errors import InvariantViolated, OutcomeUnknown
from bot4_runtime.domain.order import Side
from bot4_runtime.exchange.binance.failures import NO_PROOF, HalfDone, Refusal
from bot4_runtime.exchange.binance.limits import Lane
from bot4_runtime.exchange.binance.messages import Id, Name, is_amount, read_answer
from bot4_runtime.exchange.binance.order_entry import OrderEntry, Parameters

BOTH_FAILED: Final = "-2022"
_PRICED: Final = frozenset({"LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})
_TRIGGERED: Final = frozenset({"STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"})


class _Said(msgspec.Struct, rename="camel"):
    """What either half answered: an order's name, or an error."""

    code: int | None = None
    msg: str = ""
    client_order_id: str = ""
    orig_client_order_id: str = ""


class _Halves(msgspec.Struct, rename="camel"):
    cancel_result: Literal["SUCCESS", "FAILURE"]
    new_order_result: Literal["SUCCESS", "FAILURE", "NOT_ATTEMPTED"]
    cancel_response: _Said | None
    new_order_response: msgspec.Raw


class Replaced(NamedTuple):
    """What became of a replacement.

    Attributes:
        canceled: whether the former order has ended by it.
        placed: the answer to the new order, JSON; empty when it was not placed.
        refusal: why a half was not carried out; the new order's wins.
    """

    canceled: bool
    placed: bytes
    refusal: Refusal | None


class _Amended(msgspec.Struct, rename="camel"):
    client_order_id: Name
    qty: Decimal
    executed_qty: Decimal


class _Amendment(msgspec.Struct, rename="camel"):
    amended_order: _Amended


class Leg(NamedTuple):
    """One order of a pair.

    Attributes:
        kind: Binance's word: LIMIT_MAKER, STOP_LOSS, STOP_LOSS_LIMIT, TAKE_PROFIT or
            TAKE_PROFIT_LIMIT.
        client_id: never used before.
        price: limit, in quote, of those that have one.
        stop_price: trigger, in quote, of those that have one.
    """

    kind: str
    client_id: str
    price: Decimal | None = None
    stop_price: Decimal | None = None


class _ListedOrder(msgspec.Struct, rename="camel"):
    client_order_id: Name
    order_id: Id


class _Listed(msgspec.Struct, rename="camel"):
    order_list_id: Id
    orders: list[_ListedOrder]


class OrderChanges:
    """Sends what changes orders."""

    def __init__(self, entry: OrderEntry) -> None:
        self._entry = entry

    def replace(
        self, former: str, fields: Parameters, lane: Lane, *, although_filled: bool = False
    ) -> Replaced:
        """Cancel an order and place another in one request, once.

        Args:
            former: client id of the order that is to end.
            fields: the new order in Binance's words, of the same symbol.
            lane: of the new order.
            although_filled: place the new one also when the former cannot be cancelled.

        Raises:
            VenueUnreachable: it surely was not sent.
            VenueRefused: the venue would not look at it.
            OutcomeUnknown: either half may have been carried out: ask for both orders.
        """
        mode = "ALLOW_FAILURE" if although_filled else "STOP_ON_FAILURE"
        named = {**fields, "cancelReplaceMode": mode, "cancelOrigClientOrderId": former}
        try:
            body = self._entry.send("order.cancelReplace", named, lane)
        except HalfDone as error:
            body = error.data
        except Refusal as error:
            if error.code != BOTH_FAILED or not error.data:
                raise
            body = error.data
        halves = read_answer(body, _Halves, f"the replacement of {former}")
        answered = bytes(halves.new_order_response)
        new = None if answered == b"null" else read_answer(answered, _Said, "the new order")
        refusal = None
        for worked, said in (
            (halves.new_order_result != "FAILURE", new),
            (halves.cancel_result != "FAILURE", halves.cancel_response),
        ):
            if not worked and refusal is None:
                if said is None or said.code is None or said.code in NO_PROOF:
                    raise OutcomeUnknown(
                        f"a half of the replacement of {former} failed without proof; ask for "
                        "both orders"
                    )
                refusal = Refusal(str(said.code), said.msg)
        placed = halves.new_order_result == "SUCCESS"
        return Replaced(
            halves.cancel_result == "SUCCESS",
            answered if placed else b"",
            refusal,
        )

    def amend(self, symbol: str, client_id: str, quantity: Decimal) -> Decimal:
        """Lower an order's quantity; it keeps its place in the book, and its name.

        Args:
            symbol: of the order.
            client_id: its name.
            quantity: the new one, in base, above what is filled and below the former.

        Returns:
            What is filled of it, in base.

        Raises:
            VenueUnreachable, VenueRefused, OutcomeUnknown: as for a plain order.
        """
        named = {
            "symbol": symbol,
            "origClientOrderId": client_id,
            "newClientOrderId": client_id,
            "newQty": f"{quantity:f}",
        }
        body = self._entry.send("order.amend.keepPriority", named, Lane.REDUCE)
        told = read_answer(body, _Amendment, f"the amendment of {client_id}").amended_order
        if not (
            is_amount(told.executed_qty)
            and is_amount(told.qty)
            and (told.client_order_id, told.qty) == (client_id, quantity)
        ):
            raise OutcomeUnknown(
                f"asked for {quantity:f} of {client_id}, the venue told of {str(told.qty)[:40]} "
                f"of {told.client_order_id}; ask for the order"
            )
        return told.executed_qty

    def place_pair(
        self, symbol: str, side: Side, quantity: Decimal, above: Leg, below: Leg, lane: Lane
    ) -> dict[str, str]:
        """Place two orders of which the first to trade or trigger ends the other.

        Args:
            symbol: of both.
            side: of both.
            quantity: of each, in base.
            above: the one above the last price.
            below: the one below it.
            lane: what for.

        Returns:
            The venue's order ids by client id.

        Raises:
            InvariantViolated: a leg lacks its price or has one it must not have.
            VenueUnreachable, VenueRefused, OutcomeUnknown: as for a plain order, of both.
        """
        fields: dict[str, str | int] = {
            "symbol": symbol,
            "side": side.name,
            "quantity": f"{quantity:f}",
            **_leg("above", above),
            **_leg("below", below),
        }
        body = self._entry.send("orderList.place.oco", fields, lane)
        told = read_answer(body, _Listed, f"the pair {above.client_id} {below.client_id}")
        placed = {order.client_order_id: str(order.order_id) for order in told.orders}
        if set(placed) != {above.client_id, below.client_id}:
            raise OutcomeUnknown(
                f"asked for {above.client_id} and {below.client_id}, the venue told of "
                f"{', '.join(sorted(placed))}; ask for both"
            )
        return placed


def _leg(where: str, leg: Leg) -> dict[str, str]:
    priced, triggered = leg.kind in _PRICED, leg.kind in _TRIGGERED
    if (priced, triggered) != (leg.price is not None, leg.stop_price is not None) or not (
        priced or triggered
    ):
        raise InvariantViolated(
            f"leg {leg.client_id} of type {leg.kind} has price {leg.price} and stop price "
            f"{leg.stop_price}; expected those its type takes"
        )
    fields = {f"{where}Type": leg.kind, f"{where}ClientOrderId": leg.client_id}
    if leg.price is not None:
        fields[f"{where}Price"] = f"{leg.price:f}"
    if leg.stop_price is not None:
        fields[f"{where}StopPrice"] = f"{leg.stop_price:f}"
    if priced and triggered:
        fields[f"{where}TimeInForce"] = "GTC"
    return fields
