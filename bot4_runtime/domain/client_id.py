"""The names our orders carry at a venue: ``b4-<epoch>-<intent number>``, both in base 32.

An epoch belongs to one process and an intent number to one order, so that a name is unique
for ever, follows from the journal, and tells who sent the order. Digits are those of base32hex
(RFC 4648), which Python's `int` reads. Two numbers of 64 bits fit into 30 characters; Binance
takes 36.
"""

from typing import Final

_MARK: Final = "b4"
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"


def client_id(epoch: int, intent_no: int) -> str:
    """Return the name of an order.

    Example:
        >>> client_id(3, 1000)
        'b4-3-v8'
    """
    return f"{_MARK}-{_base32(epoch)}-{_base32(intent_no)}"


def parse_client_id(name: str) -> tuple[int, int] | None:
    """Return (epoch, intent number) of one of our names; None when it is not ours."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0] != _MARK:
        return None
    try:
        epoch, intent_no = int(parts[1], 32), int(parts[2], 32)
    except ValueError:
        return None
    return (epoch, intent_no) if name == client_id(epoch, intent_no) else None


def _base32(number: int) -> str:
    digits = ""
    while number > 0:
        number, digit = divmod(number, 32)
        digits = _DIGITS[digit] + digits
    return digits or "0"
