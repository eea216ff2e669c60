"""The hash of what matters economically, the same after any number of crashes.

Covered: position in the input, marks, each book's accounts, metrics and breaker, orders by
intent number. Left out: epochs, client ids, sequence numbers, times of receipt, reasons in
words, counters, regimes and model versions, and everything a restart may change. What books
learnt to keep later is covered where it is not zero, so that older journals keep their hash.
"""

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from bot4_runtime.domain.order import Book, Order
from bot4_runtime.state.book import BookState

LATER: Final = frozenset({"funding_quote", "amended_total"})
"""Fields that the first journals had not."""


def fingerprint(
    *,
    inputs: int,
    cursor: Mapping[str, int],
    marks: Mapping[str, float],
    next_intent_no: int,
    books: Mapping[Book, BookState],
    orders: Mapping[int, Order],
) -> str:
    """Return the sha256 (hex) of the economic state.

    Decimals are written in plain shortest form, so that 1.0 and 1.00 are one number.
    """
    return hashlib.sha256(
        msgspec.json.encode(
            {
                "inputs": inputs,
                "cursor": cursor,
                "marks": marks,
                "next_intent_no": next_intent_no,
                "books": {book.value: _book(state) for book, state in books.items()},
                "orders": {str(number): _order(order) for number, order in orders.items()},
            },
            order="sorted",
        )
    ).hexdigest()


def _book(state: BookState) -> dict[str, Any]:
    return _fields(state)


def _fields(value: msgspec.Struct) -> dict[str, Any]:
    return {
        name: _plain(told)
        for name in value.__struct_fields__
        if (told := getattr(value, name)) or name not in LATER
    }


def _order(order: Order) -> dict[str, Any]:
    intent = {
        name: _plain(getattr(order.intent, name))
        for name in order.intent.__struct_fields__
        if name != "ts_ns"
    }
    return {
        "intent": intent,
        "status": order.status,
        "filled": _plain(order.filled),
        "spent": _plain(order.spent),
        "cancel_requested": order.cancel_requested,
        "age": order.age,
    }


def _plain(value: Any) -> Any:
    """Rewrite Decimals inside structs, dicts and lists in their shortest form."""
    if isinstance(value, Decimal):
        return format(value.normalize(), "f") if value else "0"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, msgspec.Struct):
        return _fields(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
