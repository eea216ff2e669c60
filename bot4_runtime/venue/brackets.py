"""Leverage brackets of USD-M symbols: how much leverage and maintenance margin a notional takes.

Maintenance margin = notional x rate - cum of the bracket that holds the notional, with
``cum_n = floor_n x (rate_n - rate_(n-1)) + cum_(n-1)``. The tables are Binance's of 2024-10-24.
Source: Binance, "How to Calculate Liquidation Price of USD-M Futures Contracts".
"""

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, NamedTuple

from bot4_runtime.domain.errors import DataError


class Bracket(NamedTuple):
    """One step: notionals in (floor, cap], in quote."""

    floor: Decimal
    cap: Decimal
    rate: Decimal
    cum: Decimal
    leverage: int


class Ladder:
    """All brackets of a symbol.

    Args:
        steps: floor of the notional in quote, maintenance margin rate, most leverage.
        cap: of the last bracket, in quote.

    Raises:
        DataError: the steps do not begin at 0 and rise, or leverage does not fall.
    """

    def __init__(self, steps: Sequence[tuple[str, str, int]], cap: str) -> None:
        floors = [Decimal(floor) for floor, _, _ in steps] + [Decimal(cap)]
        rates = [Decimal(rate) for _, rate, _ in steps]
        ceilings = [leverage for _, _, leverage in steps]
        rising = all(low < high for low, high in pairwise(floors))
        if floors[0] != 0 or not rising or ceilings != sorted(ceilings, reverse=True):
            raise DataError(f"brackets {steps} up to {cap}; expected floors that rise from 0")
        brackets: list[Bracket] = []
        cum, before = Decimal(0), rates[0]
        for number, rate in enumerate(rates):
            cum += floors[number] * (rate - before)
            before = rate
            brackets.append(
                Bracket(floors[number], floors[number + 1], rate, cum, ceilings[number])
            )
        self.brackets: Final = tuple(brackets)

    def at(self, notional: Decimal) -> Bracket:
        """Return the bracket that holds a notional; the last one holds all above."""
        return next((b for b in self.brackets if notional <= b.cap), self.brackets[-1])

    def maintenance(self, notional: Decimal) -> Decimal:
        """Return the maintenance margin of a notional, in quote."""
        bracket = self.at(notional)
        return notional * bracket.rate - bracket.cum

    @property
    def max_leverage(self) -> int:
        """The most leverage the symbol takes."""
        return self.brackets[0].leverage

    def max_notional(self, leverage: int) -> Decimal:
        """Return the largest notional that may be held at a leverage, in quote."""
        return max(b.cap for b in self.brackets if b.leverage >= leverage)

    def told(self) -> list[dict[str, Any]]:
        """Return what `leverageBracket` tells."""
        return [
            {
                "bracket": number,
                "initialLeverage": bracket.leverage,
                "notionalCap": int(bracket.cap),
                "notionalFloor": int(bracket.floor),
                "maintMarginRatio": float(bracket.rate),
                "cum": float(bracket.cum),
            }
            for number, bracket in enumerate(self.brackets, 1)
        ]


LADDERS: Final = {
    "BTCUSDT": Ladder(
        [
            ("0", "0.004", 125),
            ("50000", "0.005", 100),
            ("600000", "0.0065", 75),
            ("3000000", "0.01", 50),
            ("12000000", "0.02", 25),
            ("70000000", "0.025", 20),
            ("100000000", "0.05", 10),
            ("230000000", "0.1", 5),
            ("480000000", "0.125", 4),
            ("600000000", "0.15", 3),
            ("800000000", "0.25", 2),
            ("1200000000", "0.5", 1),
        ],
        "1800000000",
    ),
    "ETHUSDT": Ladder(
        [
            ("0", "0.004", 125),
            ("50000", "0.005", 100),
            ("600000", "0.0065", 75),
            ("3000000", "0.01", 50),
            ("12000000", "0.02", 25),
            ("50000000", "0.025", 20),
            ("65000000", "0.05", 10),
            ("150000000", "0.1", 5),
            ("320000000", "0.125", 4),
            ("400000000", "0.15", 3),
            ("530000000", "0.25", 2),
            ("800000000", "0.5", 1),
        ],
        "1200000000",
    ),
}

SMALL: Final = Ladder(
    [
        ("0", "0.005", 75),
        ("10000", "0.01", 50),
        ("50000", "0.015", 40),
        ("100000", "0.02", 25),
        ("750000", "0.025", 20),
        ("1000000", "0.05", 10),
        ("5000000", "0.1", 5),
        ("10000000", "0.125", 4),
        ("20000000", "0.25", 2),
        ("30000000", "0.5", 1),
    ],
    "50000000",
)
"""LTCUSDT's, and of every symbol that is not in `LADDERS`."""
