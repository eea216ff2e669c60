"""What two tellings of one account, the venue's and ours, can disagree about."""

from decimal import Decimal
from enum import StrEnum

import msgspec


class DifferenceKind(StrEnum):
    """What disagrees: an asset's balance, an order, a trade, or a funding."""

    BALANCE = "balance"
    ORDER = "order"
    TRADE = "trade"
    FUNDING = "funding"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One disagreement; entries wait until it is gone or the operator accepts it.

    Attributes:
        name: the asset, the order's client id, or ``SYMBOL:id`` of a trade or funding.
        ours: what the journal leads to; 0 for what it does not know.
        venue: what the venue says; 0 for what it does not know.
        reason: what it means, in words.
    """

    kind: DifferenceKind
    name: str
    ours: Decimal
    venue: Decimal
    reason: str

    @property
    def key(self) -> str:
        """What identifies it, whatever the amounts."""
        return f"{self.kind} {self.name}"

    @property
    def text(self) -> str:
        """The difference in words."""
        return f"{self.key}: ours {self.ours}, the venue's {self.venue} ({self.reason})"
