"""USD-M leverage brackets: what maintenance margin a notional needs, step by step.

Maintenance margin = notional x rate - cum, of the bracket that holds the notional;
``cum_n = floor_n x (rate_n - rate_(n-1)) + cum_(n-1)`` joins the steps, so that the margin is
continuous and convex in the notional. Source: Binance, "How to Calculate Liquidation Price of
USD-M Futures Contracts" and "Leverage and Margin of USD-M Futures".

The tables here are of 2024-10-24 and serve offline: Binance changes them by announcement, so a
venue's own answer (``GET /fapi/v1/leverageBracket``) replaces them wherever there is one.
"""

import math
from bisect import bisect_right
from typing import Any, Final

from bot4_runtime.domain.errors import ConfigError, DataError

PUBLISHED_DATE: Final = "2024-10-24"
"""Day of `_PUBLISHED`."""

UNKNOWN_RATE: Final = 0.025
"""Least maintenance margin rate assumed of a symbol that may be of any kind: that of brackets
with 20x leverage. The published tables are of the most liquid symbols, and begin with a fifth of
it or less."""

_Steps = tuple[tuple[float, float], ...]

_PUBLISHED: Final[dict[str, _Steps]] = {
    # symbol: (floor of the notional in quote, maintenance margin rate)
    "BTCUSDT": (
        (0.0, 0.004),
        (50e3, 0.005),
        (600e3, 0.0065),
        (3e6, 0.01),
        (12e6, 0.02),
        (70e6, 0.025),
        (100e6, 0.05),
        (230e6, 0.1),
        (480e6, 0.125),
        (600e6, 0.15),
        (800e6, 0.25),
        (1200e6, 0.5),
    ),
    "ETHUSDT": (
        (0.0, 0.004),
        (50e3, 0.005),
        (600e3, 0.0065),
        (3e6, 0.01),
        (12e6, 0.02),
        (50e6, 0.025),
        (65e6, 0.05),
        (150e6, 0.1),
        (320e6, 0.125),
        (400e6, 0.15),
        (530e6, 0.25),
        (800e6, 0.5),
    ),
    "SOLUSDT": (
        (0.0, 0.005),
        (20e3, 0.0065),
        (100e3, 0.01),
        (800e3, 0.02),
        (4e6, 0.025),
        (8e6, 0.05),
        (40e6, 0.1),
        (80e6, 0.125),
        (100e6, 0.25),
        (200e6, 0.5),
    ),
    "LTCUSDT": (
        (0.0, 0.005),
        (10e3, 0.01),
        (50e3, 0.015),
        (100e3, 0.02),
        (750e3, 0.025),
        (1e6, 0.05),
        (5e6, 0.1),
        (10e6, 0.125),
        (20e6, 0.25),
        (30e6, 0.5),
    ),
    "BNBUSDT": (
        (0.0, 0.005),
        (10e3, 0.006),
        (50e3, 0.01),
        (200e3, 0.02),
        (1.5e6, 0.025),
        (3e6, 0.05),
        (15e6, 0.1),
        (30e6, 0.125),
        (37.5e6, 0.25),
        (75e6, 0.5),
    ),
}


class Brackets:
    """One symbol's ladder of notional floors and maintenance margin rates.

    Args:
        symbol: whose.
        floors: least notional of each bracket, in quote; the first is 0, each larger than the
            last.
        rates: maintenance margin rate of each, in (0, 1), none smaller than the last.

    Raises:
        DataError: the ladder is empty, not ascending, or holds a number that is none.

    Example:
        >>> ladder = Brackets("BTCUSDT", [0.0, 50_000.0, 250_000.0], [0.004, 0.005, 0.01])
        >>> ladder.maintenance(500_000.0)
        3700.0
    """

    def __init__(self, symbol: str, floors: list[float], rates: list[float]) -> None:
        if not floors or len(floors) != len(rates) or floors[0] != 0.0:
            raise DataError(
                f"leverage brackets of {symbol} have floors {floors} and rates {rates}; expected "
                "as many of one as of the other, and the first floor to be 0"
            )
        cums: list[float] = []
        floor = -1.0
        rate = cum = 0.0
        for index in range(len(floors)):
            if not (floor < floors[index] < math.inf and 0.0 < rates[index] < 1.0):
                raise DataError(
                    f"bracket {index + 1} of {symbol} has floor {floors[index]} and rate "
                    f"{rates[index]}; expected rising floors and a rate between 0 and 1"
                )
            if rates[index] < rate:
                raise DataError(
                    f"bracket {index + 1} of {symbol} has rate {rates[index]}, less than the "
                    f"{rate} before it; a larger position never needs a smaller rate"
                )
            cum += floors[index] * (rates[index] - rate) if index else 0.0
            floor, rate = floors[index], rates[index]
            cums.append(cum)
        self.symbol: Final = symbol
        self.floors: Final = floors
        self.rates: Final = rates
        self.cums: Final = cums

    def index(self, notional: float) -> int:
        """Return which bracket holds a notional (quote); the last holds all above it."""
        floors = self.floors
        at = 0
        while at + 1 < len(floors) and notional > floors[at + 1]:
            at += 1
        return at

    def maintenance(self, notional: float) -> float:
        """Return the maintenance margin of a notional, both in quote; NaN for NaN."""
        at = self.index(notional)
        return notional * self.rates[at] - self.cums[at]


def published_symbols() -> list[str]:
    """Return the symbols with a published table here, sorted."""
    return sorted(_PUBLISHED)


def published_brackets(symbol: str) -> Brackets:
    """Return the dated table of a symbol.

    Raises:
        ConfigError: there is none; ask the venue.
    """
    steps = _PUBLISHED.get(symbol)
    if steps is None:
        raise ConfigError(
            f"no leverage brackets of {symbol} are known; expected one of "
            f"{', '.join(published_symbols())}, or the venue's answer to leverageBracket"
        )
    return Brackets(symbol, [floor for floor, _ in steps], [rate for _, rate in steps])


def assumed_brackets(symbol: str, least_rate: float = 0.0) -> Brackets:
    """Return a ladder for a symbol of which none is known, in rehearsals and in need.

    At every notional it asks for the highest rate that any published table asks for there, or
    `least_rate`, so that it errs towards liquidation. Protection asks the venue; it assumes, with
    `UNKNOWN_RATE`, an alarm and no entries, only where that gave nothing.
    """
    tables = [published_brackets(known) for known in published_symbols()]
    floors = sorted({floor for table in tables for floor in table.floors})
    found: list[tuple[float, float]] = []
    for floor in floors:
        rates = [table.rates[bisect_right(table.floors, floor) - 1] for table in tables]
        rate = max(least_rate, *rates)
        if not found or rate > found[-1][1]:
            found.append((floor, rate))
    return Brackets(symbol, [floor for floor, _ in found], [rate for _, rate in found])


def venue_brackets(answer: object) -> dict[str, Brackets]:
    """Read the decoded answer of ``GET /fapi/v1/leverageBracket``: one symbol's, or a list.

    ``notionalCoef`` scales an account's ladder. Whether the floors of the answer are scaled
    already is not documented, so the reading that needs more margin is taken: a coefficient
    below 1 shrinks the floors, a larger one is left aside.

    Raises:
        DataError: a field is missing or of another kind, or its ``cum`` contradicts the ladder.
    """
    found: dict[str, Brackets] = {}
    entries: list[Any] = answer if isinstance(answer, list) else [answer]
    for entry in entries:
        try:
            symbol = str(entry["symbol"])
            scale = min(_number(entry.get("notionalCoef", 1.0)), 1.0)
            rows = sorted(entry["brackets"], key=_floor)
            floors = [_floor(row) for row in rows]
            rates = [_number(row["maintMarginRatio"]) for row in rows]
            told = [_number(row["cum"]) for row in rows]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f"cannot read leverage brackets {str(entry)[:200]!r}: {type(error).__name__} "
                f"{error}; expected symbol and brackets of notionalFloor, maintMarginRatio, cum"
            ) from None
        if not scale > 0.0:
            raise DataError(f"notionalCoef of {symbol} is {scale}; expected a positive number")
        whole = Brackets(symbol, floors, rates)
        for at in range(len(told)):
            if not abs(told[at] - whole.cums[at]) <= 0.01 + 1e-6 * abs(told[at]):
                raise DataError(
                    f"bracket {at + 1} of {symbol} says cum {told[at]}, and its floors and rates "
                    f"give {whole.cums[at]}; the answer contradicts itself, ask again"
                )
        found[symbol] = Brackets(symbol, [floor * scale for floor in floors], rates)
    return found


def _floor(row: Any) -> float:
    return _number(row["notionalFloor"])


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{value!r} is no number")
    return float(value)
