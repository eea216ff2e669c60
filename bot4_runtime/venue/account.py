"""Accounts: what is free, what open orders hold back, and what a fill moves."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Final

from bot4_runtime.domain.errors import InvariantViolated

ZERO: Final = Decimal(0)
BNB: Final = "BNB"
BNB_SHARE: Final = Decimal("0.75")
"""Of a commission, what it costs in BNB."""
QUANTUM: Final = Decimal("0.00000001")


@dataclass(slots=True)
class Balance:
    """An amount of one asset: what may be used, and what open orders hold back."""

    free: Decimal = ZERO
    locked: Decimal = ZERO

    @property
    def total(self) -> Decimal:
        """Free plus locked."""
        return self.free + self.locked


@dataclass(slots=True)
class Account:
    """One customer.

    Attributes:
        uid: the exchange's number of it.
        maker: commission of a resting order, as a share of what is received.
        taker: commission of an order that takes.
        pays_in_bnb: whether commissions are taken in BNB, a quarter cheaper, while there is any.
        withdraws: whether its key may take money out.
        ip_bound: whether its key is bound to addresses.
    """

    uid: int
    api_key: str
    secret: str = field(repr=False)
    maker: Decimal = Decimal("0.001")
    taker: Decimal = Decimal("0.001")
    pays_in_bnb: bool = False
    withdraws: bool = False
    ip_bound: bool = True
    balances: dict[str, Balance] = field(default_factory=dict)

    def balance(self, asset: str) -> Balance:
        """Return the balance of an asset, empty at first."""
        return self.balances.setdefault(asset, Balance())

    def deposit(self, asset: str, amount: Decimal) -> None:
        """Add money from outside; the only way any comes in."""
        if not amount > 0:
            raise InvariantViolated(f"deposit of {amount} {asset}; expected more than 0")
        self.balance(asset).free += amount

    def lock(self, asset: str, amount: Decimal) -> bool:
        """Hold an amount back for an order; False, and nothing held, when there is too little."""
        balance = self.balance(asset)
        if not balance.free >= amount:
            return False
        balance.free -= amount
        balance.locked += amount
        return True

    def unlock(self, asset: str, amount: Decimal) -> None:
        """Let go of what was held back."""
        balance = self.balance(asset)
        balance.locked -= amount
        balance.free += amount
        _check(asset, balance)

    def pay(self, asset: str, amount: Decimal) -> None:
        """Give away what was held back."""
        balance = self.balance(asset)
        balance.locked -= amount
        _check(asset, balance)

    def receive(self, asset: str, amount: Decimal, rate: Decimal) -> Decimal:
        """Credit what a fill brought, less commission in the same asset; return the commission."""
        commission = (amount * rate).quantize(QUANTUM, ROUND_DOWN)
        self.balance(asset).free += amount - commission
        return commission

    def pay_commission(self, asset: str, amount: Decimal) -> bool:
        """Take a commission out of what is free; False when that is too little."""
        balance = self.balance(asset)
        if not balance.free >= amount:
            return False
        balance.free -= amount
        return True

    def held(self) -> Iterator[tuple[str, Balance]]:
        """Yield all balances by asset name."""
        yield from sorted(self.balances.items())


def _check(asset: str, balance: Balance) -> None:
    if not (balance.free >= 0 and balance.locked >= 0):
        raise InvariantViolated(f"an account holds {balance} {asset}; no part may be negative")
