"""The codes of what can be wrong with candles. No numpy: the code location reads it."""

from enum import StrEnum
from typing import Final


class Code(StrEnum):
    """What can be wrong; `RULES` says it in a sentence."""

    DUPLICATE = "DUPLICATE"
    TIME_ORDER = "TIME_ORDER"
    OHLC = "OHLC"
    FORMING_PERSISTED = "FORMING_PERSISTED"
    NOT_THIS_MARKET = "NOT_THIS_MARKET"
    GAP = "GAP"
    FLAT_ZERO_VOLUME = "FLAT_ZERO_VOLUME"
    UNCONFIRMED_LAST = "UNCONFIRMED_LAST"
    SPIKE = "SPIKE"
    UNIT_CHANGE = "UNIT_CHANGE"
    STALE = "STALE"
    INTERPOLATED = "INTERPOLATED"
    VOLUME_UNIT = "VOLUME_UNIT"
    SHIFTED = "SHIFTED"
    SAME_SERIES = "SAME_SERIES"
    CROSS_INTERVAL = "CROSS_INTERVAL"
    TORN = "TORN"
    OUTDATED = "OUTDATED"
    RESTATED = "RESTATED"


RULES: Final[dict[Code, str]] = {
    Code.DUPLICATE: "An open time is there twice in one file.",
    Code.TIME_ORDER: "A row is earlier than the row before, or off the interval's UTC grid.",
    Code.OHLC: "A row that no market can print.",
    Code.FORMING_PERSISTED: "Candles stored while they were still open.",
    Code.NOT_THIS_MARKET: "Prices that are not this Binance market's.",
    Code.GAP: "Candles are missing; told apart from outages of the whole venue that are known.",
    Code.FLAT_ZERO_VOLUME: "Candles without a trade.",
    Code.UNCONFIRMED_LAST: "The last candle may be open still.",
    Code.SPIKE: "A price that is far from its neighbours and comes back at once.",
    Code.UNIT_CHANGE: "From one row on, prices are on another scale.",
    Code.STALE: "Rows, prices or volumes that repeat those before.",
    Code.INTERPOLATED: "Prices on a line drawn between two candles.",
    Code.VOLUME_UNIT: "Volume that is not in the base asset, or changes its unit.",
    Code.SHIFTED: "The stored series at other times: a time zone, or close times as open times.",
    Code.SAME_SERIES: "Two symbols with one and the same market's candles.",
    Code.CROSS_INTERVAL: "Candles that differ from the shorter ones they are made of.",
    Code.TORN: "Single candles whose close is far from the next open, with little volume.",
    Code.OUTDATED: "The series ends long before now.",
    Code.RESTATED: "Candles that are stored already, with other values.",
}
"""Each rule in a sentence."""
BLOCKING: Final = frozenset(Code) - {
    Code.GAP,
    Code.FLAT_ZERO_VOLUME,
    Code.UNCONFIRMED_LAST,
    Code.TORN,
    Code.OUTDATED,
    Code.RESTATED,
}
"""Codes whose findings can be an ERROR."""
WRONG_PRICES: Final = frozenset(
    {Code.SPIKE, Code.UNIT_CHANGE, Code.STALE, Code.INTERPOLATED, Code.CROSS_INTERVAL}
)
"""Codes of rows whose prices are in doubt, and with them what is computed from them later."""
