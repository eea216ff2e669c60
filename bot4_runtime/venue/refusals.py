"""What the venue says no with: Binance's spot error codes and texts.

Source: errors.md of binance/binance-spot-api-docs at a5e0bc3 (2026-07-17).
"""

from collections.abc import Mapping
from typing import Any, Final


class Refused(Exception):
    """A request the exchange does not accept.

    Args:
        code: Binance's, negative.
        message: Binance's text; of -2010 and -2011 the text alone tells the reason.
        status: HTTP status it is answered with.
        more: beside code and message in the answer.
    """

    def __init__(
        self, code: int, message: str, status: int = 400, more: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.status = status
        self.more = dict(more or {})


OUTSIDE_RECV_WINDOW: Final = (-1021, "Timestamp for this request is outside of the recvWindow.")
AHEAD_OF_SERVER: Final = (
    -1021,
    "Timestamp for this request was 1000ms ahead of the server's time.",
)
INVALID_SIGNATURE: Final = (-1022, "Signature for this request is not valid.")
UNKNOWN_COMBINATION: Final = (-1014, "Unsupported order combination.")
TIF_NOT_REQUIRED: Final = (-1114, "TimeInForce parameter sent when not required.")
INVALID_TIF: Final = (-1115, "Invalid timeInForce.")
INVALID_ORDER_TYPE: Final = (-1116, "Invalid orderType.")
INVALID_SIDE: Final = (-1117, "Invalid side.")
BAD_SYMBOL: Final = (-1121, "Invalid symbol.")
DUPLICATE_ORDER: Final = (-2010, "Duplicate order sent.")
MARKET_CLOSED: Final = (-2010, "Market is closed.")
NO_FUNDS: Final = (-2010, "Account has insufficient balance for requested action.")
WOULD_TRIGGER: Final = (-2010, "Order would trigger immediately.")
WOULD_TAKE: Final = (-2010, "Order would immediately match and take.")
PAIR_OF_PRICES: Final = (-2010, "The relationship of the prices for the orders is not correct.")
AMEND_INCREASES: Final = (-2038, "Order amend (quantity increase) is not supported.")
NO_LIQUIDITY: Final = (
    -2010,
    "Order book liquidity is less than LOT_SIZE filter minimum quantity.",
)
UNKNOWN_ORDER: Final = (-2011, "Unknown order sent.")
CANCEL_NAMES_NONE: Final = (-2011, "Cancel order is invalid. Check origClOrdId and orderId.")
NO_SUCH_ORDER: Final = (-2013, "Order does not exist.")
BAD_KEY_FORMAT: Final = (-2014, "API-key format invalid.")
REJECTED_KEY: Final = (-2015, "Invalid API-key, IP, or permissions for action.")
SUBSCRIPTION_ACTIVE: Final = (-2035, "User Data Stream subscription already active.")
TOO_MANY_SUBSCRIPTIONS: Final = (
    -2042,
    "Maximum subscription ID reached for this connection.",
)
SUBSCRIPTION_INACTIVE: Final = (-2036, "User Data Stream subscription not active.")


def mandatory(name: str) -> Refused:
    """A parameter is missing, empty or unreadable."""
    return Refused(
        -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    )


def illegal(name: str, legal: str) -> Refused:
    """A parameter holds characters it must not hold."""
    return Refused(
        -1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."
    )


def too_precise(name: str) -> Refused:
    """A number has more digits than the asset."""
    return Refused(-1111, f"Parameter '{name}' has too much precision.")


def not_required(name: str) -> Refused:
    """A parameter was sent that this order type does not take."""
    return Refused(-1106, f"Parameter '{name}' sent when not required.")


def filter_failure(name: str) -> Refused:
    """A trading rule of the symbol is broken."""
    return Refused(-1013, f"Filter failure: {name}")
