"""What libraries raise for messages that are none; apart from `errors`, which imports nothing."""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no message of a shape: text that is no UTF-8 and what is
nested without end have errors of their own, and none of the three may end a program."""

UNSHAPED: Final = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What a library raises that was told JSON of another shape and did not look: ccxt does."""
