"""What the USD-M venue says no with: Binance's futures error codes and texts.

Source: "Error Codes" of Binance's USD-M documentation, as of 2026-05-28. Some codes mean other
things than on spot: -2021 and -2022 are results of cancelReplace there.
"""

from decimal import Decimal
from typing import Final

from bot4_runtime.venue.refusals import Refused

TOO_PRECISE: Final = (-1111, "Precision is over the maximum defined for this asset.")
BAD_INTERVAL: Final = (-1120, "Invalid interval.")
NO_LISTEN_KEY: Final = (
    -1125,
    "This listenKey does not exist. Please use `POST /fapi/v1/listenKey` to recreate `listenKey`",
)
BAD_COMBINATION: Final = (-1128, "Combination of optional parameters invalid.")
BAD_DETAIL: Final = (-1136, "Invalid newOrderRespType.")
UNKNOWN_ORDER: Final = (-2011, "Unknown order sent.")
NO_SUCH_ORDER: Final = (-2013, "Order does not exist.")
NO_MARGIN: Final = (-2019, "Margin is insufficient.")
WOULD_TRIGGER: Final = (-2021, "Order would immediately trigger.")
REDUCE_ONLY: Final = (-2022, "ReduceOnly Order is rejected.")
TOO_MANY_ORDERS: Final = (-2025, "Reach max open order limit.")
BEYOND_LEVERAGE: Final = (-2027, "Exceeded the maximum allowable position at current leverage.")
LEVERAGE_NEEDS_MARGIN: Final = (
    -2028,
    "Leverage is smaller than permitted: insufficient margin balance.",
)
PRICE_BELOW_ZERO: Final = (-4001, "Price less than 0.")
PRICE_ABOVE_MAX: Final = (-4002, "Price greater than max price.")
QUANTITY_BELOW_ZERO: Final = (-4003, "Quantity less than zero.")
QUANTITY_BELOW_MIN: Final = (-4004, "Quantity less than min quantity.")
QUANTITY_ABOVE_MAX: Final = (-4005, "Quantity greater than max quantity.")
PRICE_BELOW_MIN: Final = (-4013, "Price less than min price.")
PRICE_OFF_TICK: Final = (-4014, "Price not increased by tick size.")
BAD_CLIENT_ID: Final = (-4015, "Client order id is not valid.")
PRICE_ABOVE_BAND: Final = (-4016, "Price is higher than mark price multiplier cap.")
BAD_DEPTH_LIMIT: Final = (-4021, "Invalid depth limit.")
QUANTITY_OFF_STEP: Final = (-4023, "Qty not increased by step size.")
PRICE_BELOW_BAND: Final = (-4024, "Price is lower than mark price multiplier floor.")
BAD_WORKING_TYPE: Final = (-4031, "Invalid parameter working type")
TOO_MANY_STOPS: Final = (-4045, "Reach max stop order limit.")
SAME_MARGIN_TYPE: Final = (-4046, "No need to change margin type.")
MARGIN_TYPE_HAS_ORDERS: Final = (
    -4047,
    "Margin type cannot be changed if there exists open orders.",
)
MARGIN_TYPE_HAS_POSITION: Final = (
    -4048,
    "Margin type cannot be changed if there exists position.",
)
NOT_ISOLATED: Final = (-4049, "Add margin only support for isolated position.")
CROSS_TOO_SMALL: Final = (-4050, "Cross balance insufficient.")
ISOLATED_TOO_SMALL: Final = (-4051, "Isolated balance insufficient.")
NO_POSITION: Final = (-4054, "Cannot add position margin: position is 0.")
AMOUNT_NOT_POSITIVE: Final = (-4055, "Amount must be positive.")
SAME_POSITION_MODE: Final = (-4059, "No need to change position side.")
BAD_POSITION_SIDE: Final = (-4060, "Invalid position side.")
OTHER_POSITION_MODE: Final = (-4061, "Order's position side does not match user's setting.")
MODE_HAS_ORDERS: Final = (-4067, "Position side cannot be changed if there exists open orders.")
MODE_HAS_POSITION: Final = (-4068, "Position side cannot be changed if there exists position.")
BAD_BATCH: Final = (-4082, "Invalid number of batch place orders.")
DUPLICATE_ID: Final = (-4116, "clientOrderId is duplicated")
USE_ALGO: Final = (
    -4120,
    "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead.",
)
CLOSE_ALL_HAS_QUANTITY: Final = (-4137, "Quantity must be zero with closePosition equals true")
LEVERAGE_DOWN_ISOLATED: Final = (
    -4161,
    "Leverage reduction is not supported in Isolated Margin Mode with open positions",
)
NOT_FILLED_AT_ONCE: Final = (
    -5021,
    "Due to the order could not be filled immediately, the FOK order has been rejected.",
)
NOT_MAKER: Final = (
    -5022,
    "Due to the order could not be executed as maker, the Post Only order will be rejected.",
)
ONLY_LIMIT: Final = (-5025, "Only limit order is supported.")
NOTHING_TO_MODIFY: Final = (-5027, "No need to modify the order.")
NO_PRICE_MATCH: Final = (-5037, "Invalid price match")
BAD_STP: Final = (-5039, "Invalid self trade prevention mode")
BAD_GOOD_TILL: Final = (
    -5040,
    "The goodTillDate timestamp must be greater than the current time plus 600 seconds and "
    "smaller than 253402300799000 (UTC 9999-12-31 23:59:59)",
)


def notional_too_small(least: Decimal) -> Refused:
    """An order that may open is worth too little."""
    text = f"Order's notional must be no smaller than {least:f} (unless you choose reduce only)"
    return Refused(-4164, text)


def bad_leverage(leverage: int) -> Refused:
    """A leverage that the symbol does not take."""
    return Refused(-4028, f"Leverage {leverage} is not valid")
