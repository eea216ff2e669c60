"""The names our orders carry at a venue: ``b4-<epoch>-<intent number>-<journal>``, in base 32.

An epoch belongs to one process and an intent number to one order, so that a name is unique for
ever, follows from the journal, and tells who sent the order. The journal's tag, five digits drawn
from its first session, tells two journals apart that trade one account from two machines; names
of releases before it, and those inside the process, have none. Digits are those of base32hex
(RFC 4648), which Python's `int` reads. Two numbers of 64 bits and a tag fit into 36 characters,
which is what Binance takes.
"""

import hashlib
from typing import Final

_MARK: Final = "b4"
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"
_TAG: Final = 5


def client_id(epoch: int, intent_no: int, tag: str = "") -> str:
    """Return the name of an order.

    Args:
        epoch: of the process.
        intent_no: of the order.
        tag: of the journal; empty for none.

    Example:
        >>> client_id(3, 1000, "0f3qk")
        'b4-3-v8-0f3qk'
    """
    name = f"{_MARK}-{_base32(epoch)}-{_base32(intent_no)}"
    return f"{name}-{tag}" if tag else name


def parse_client_id(name: str) -> tuple[int, int] | None:
    """Return (epoch, intent number) of one of our names; None when it is not ours."""
    mark, *digits = name.split("-")
    if mark != _MARK or len(digits) not in {2, 3}:
        return None
    if len(digits) == 3 and not (len(digits[2]) == _TAG and set(digits[2]) <= set(_DIGITS)):
        return None
    try:
        epoch, intent_no = int(digits[0], 32), int(digits[1], 32)
    except ValueError:
        return None
    return (epoch, intent_no) if name == client_id(epoch, intent_no, *digits[2:]) else None


def tag_of(name: str) -> str:
    """Return the journal's tag in one of our names; empty when it has none."""
    return name.split("-")[3] if name.count("-") == 3 else ""


def journal_tag(*facts: object) -> str:
    """Return the tag of the journal that these facts, and no others, began."""
    digest = hashlib.sha256("|".join(map(str, facts)).encode()).digest()
    number = int.from_bytes(digest[:8], "big")
    return _base32(number).rjust(_TAG, "0")[-_TAG:]


def _base32(number: int) -> str:
    digits = ""
    while number > 0:
        number, digit = divmod(number, 32)
        digits = _DIGITS[digit] + digits
    return digits or "0"
