"""What was paid in fees, and whether it is what the schedule says [compiled].

A pure fold over fills: totals by book, symbol, UTC day and liquidity, each asset apart, and for
every day what was predicted beside what was charged. The target of the difference is 0.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.order import Fill
from bot4_runtime.fees.volume import MS_PER_DAY

NS_PER_DAY: Final = MS_PER_DAY * 1_000_000
_ZERO: Final = Decimal(0)


@dataclass(frozen=True)
class Predicted:
    """What a fill should have cost.

    Attributes:
        band: by which share of the fee the charge may differ, where its price is known only
            nearly; 0 where it must be met to the last digit.
    """

    fee: Decimal
    asset: str
    band: Decimal = _ZERO

    def met_by(self, fill: Fill) -> bool:
        """Whether a fill cost this."""
        off = abs(fill.fee - self.fee)
        return fill.fee_asset == self.asset and off <= self.band * abs(self.fee)


Predict = Callable[[Fill], Predicted | None]
"""The fee a fill should have cost; None where that cannot be told."""


class FeeTotal:
    """Fees of some fills.

    Attributes:
        fills: how many.
        notional_quote: sum of price x quantity.
        charged: by asset; negative when rebated.
    """

    def __init__(self) -> None:
        self.fills = 0
        self.notional_quote = _ZERO
        self.charged: dict[str, Decimal] = {}

    def add(self, fill: Fill) -> None:
        """Count a fill."""
        self.fills += 1
        self.notional_quote += fill.price * fill.quantity
        self.charged[fill.fee_asset] = self.charged.get(fill.fee_asset, _ZERO) + fill.fee


@dataclass(frozen=True)
class Deviation:
    """A fill that cost something else than predicted."""

    trade_id: str
    symbol: str
    predicted: Decimal
    predicted_asset: str
    charged: Decimal
    charged_asset: str


class DayReconciled:
    """One UTC day's prediction beside what was charged.

    Attributes:
        checked: fills that could be predicted.
        near: those of them that had to be met only nearly.
        unchecked: fills that could not be predicted.
        predicted: by asset, of the checked ones.
        charged: by asset, of the checked ones.
        deviations: the fills that differ, one by one: differences must not cancel out.
    """

    def __init__(self) -> None:
        self.checked = 0
        self.near = 0
        self.unchecked = 0
        self.predicted: dict[str, Decimal] = {}
        self.charged: dict[str, Decimal] = {}
        self.deviations: list[Deviation] = []

    def add(self, fill: Fill, told: Predicted | None) -> None:
        """Compare a fill."""
        if told is None:
            self.unchecked += 1
            return
        fee, asset = told.fee, told.asset
        self.checked += 1
        if told.band > _ZERO:
            self.near += 1
        self.predicted[asset] = self.predicted.get(asset, _ZERO) + fee
        self.charged[fill.fee_asset] = self.charged.get(fill.fee_asset, _ZERO) + fill.fee
        if not told.met_by(fill):
            self.deviations.append(
                Deviation(fill.trade_id, fill.symbol, fee, asset, fill.fee, fill.fee_asset)
            )

    def difference(self) -> dict[str, Decimal]:
        """Return charged less predicted, by asset."""
        assets = sorted(self.predicted.keys() | self.charged.keys())
        return {
            asset: self.charged.get(asset, _ZERO) - self.predicted.get(asset, _ZERO)
            for asset in assets
        }


class FeeSummary:
    """Totals by name of book, symbol, day (days since 1970) and liquidity, and days reconciled."""

    def __init__(self) -> None:
        self.by_book: dict[str, FeeTotal] = {}
        self.by_symbol: dict[str, FeeTotal] = {}
        self.by_day: dict[int, FeeTotal] = {}
        self.by_liquidity: dict[str, FeeTotal] = {}
        self.days: dict[int, DayReconciled] = {}

    @property
    def matches(self) -> bool:
        """Whether every fill that could be predicted cost what was predicted."""
        return not any(day.deviations for day in self.days.values())


def summarise(fills: Iterable[Fill], predict: Predict) -> FeeSummary:
    """Fold fills into totals and reconcile each with its prediction."""
    summary = FeeSummary()
    for fill in fills:
        day = fill.ts_event_ns // NS_PER_DAY
        summary.by_book.setdefault(fill.book.value, FeeTotal()).add(fill)
        summary.by_symbol.setdefault(fill.symbol, FeeTotal()).add(fill)
        summary.by_day.setdefault(day, FeeTotal()).add(fill)
        summary.by_liquidity.setdefault(fill.liquidity.value, FeeTotal()).add(fill)
        summary.days.setdefault(day, DayReconciled()).add(fill, predict(fill))
    return summary
