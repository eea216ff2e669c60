"""USD-M accounts: wallets, positions in either mode, and what a fill, a fee or a funding moves.

Amounts of money are exact: a position keeps the sum of price x quantity that it cost, and what
is booked has eight decimals, so that all accounts together hold what was paid in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from enum import StrEnum
from typing import Final, NamedTuple

from bot4_runtime.domain.errors import InvariantViolated
from bot4_runtime.venue.account import QUANTUM, ZERO
from bot4_runtime.venue.contract import Contract

DEFAULT_LEVERAGE: Final = 20


class PositionSide(StrEnum):
    """Which of a symbol's positions: the one of one-way mode, or the two of hedge mode."""

    BOTH = "BOTH"
    LONG = "LONG"
    SHORT = "SHORT"


class Settings:
    """How an account trades a symbol: its leverage, and whether positions have own margin."""

    def __init__(self) -> None:
        self.leverage = DEFAULT_LEVERAGE
        self.isolated = False

    @property
    def margin_type(self) -> str:
        """``isolated`` or ``cross``, as streams tell it."""
        return "isolated" if self.isolated else "cross"


@dataclass(slots=True)
class Position:
    """What is held of a symbol.

    Attributes:
        asset: its margin is paid in.
        quantity: in base, negative for a short.
        cost: quantity x entry price, in quote, negative for a short.
        isolated: margin of its own, in quote; zero while the symbol is on cross.
        paid: fees less realised profit since it was opened, in quote.
        realised: profit of all that was ever closed, in quote.
    """

    symbol: str
    asset: str
    side: PositionSide
    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    isolated: Decimal = ZERO
    paid: Decimal = ZERO
    realised: Decimal = ZERO
    updated_ms: int = 0

    @property
    def entry(self) -> Decimal:
        """Average entry price, zero without a position."""
        return self.cost / self.quantity if self.quantity else ZERO

    @property
    def break_even(self) -> Decimal:
        """Price at which closing it would pay back its fees; zero without a position."""
        return (self.cost + self.paid) / self.quantity if self.quantity else ZERO

    def unrealised(self, mark: Decimal) -> Decimal:
        """Return the profit at a mark, in quote."""
        return self.quantity * mark - self.cost


class Income(NamedTuple):
    """Something that changed a wallet.

    Attributes:
        kind: ``TRANSFER``, ``REALIZED_PNL``, ``COMMISSION``, ``FUNDING_FEE`` or
            ``INSURANCE_CLEAR``.
        amount: in `asset`, negative when it was paid.
    """

    number: int
    kind: str
    symbol: str
    amount: Decimal
    asset: str
    time_ms: int
    trade_id: int | None


@dataclass(slots=True)
class FuturesAccount:
    """One customer.

    Attributes:
        uid: the exchange's number of it.
        maker: commission of a resting order, as a share of its notional.
        taker: commission of an order that takes.
        cross: wallet by margin asset, less the margin of isolated positions.
        hedge: positions of both directions side by side.
    """

    uid: int
    api_key: str
    secret: str = field(repr=False)
    maker: Decimal = Decimal("0.0002")
    taker: Decimal = Decimal("0.0005")
    hedge: bool = False
    cross: dict[str, Decimal] = field(default_factory=dict)
    incomes: list[Income] = field(default_factory=list)
    _settings: dict[str, Settings] = field(default_factory=dict)
    _positions: dict[tuple[str, PositionSide], Position] = field(default_factory=dict)

    def settings(self, symbol: str) -> Settings:
        """Return how a symbol is traded."""
        return self._settings.setdefault(symbol, Settings())

    def position(self, contract: Contract, side: PositionSide) -> Position:
        """Return a position, empty at first."""
        empty = Position(contract.symbol, contract.quote, side)
        return self._positions.setdefault((contract.symbol, side), empty)

    def positions(self) -> Iterator[Position]:
        """Yield what is held, by symbol and side."""
        for _, position in sorted(self._positions.items()):
            if position.quantity:
                yield position

    def sides(self) -> tuple[PositionSide, ...]:
        """Return the sides that an order may name in the account's mode."""
        if self.hedge:
            return (PositionSide.LONG, PositionSide.SHORT)
        return (PositionSide.BOTH,)

    def deposit(self, asset: str, amount: Decimal, now_ms: int = 0) -> None:
        """Add money from outside; the only way any comes in."""
        if not amount > 0:
            raise InvariantViolated(f"deposit of {amount} {asset}; expected more than 0")
        self.earn("TRANSFER", "", asset, amount, now_ms)

    def earn(
        self,
        kind: str,
        symbol: str,
        asset: str,
        amount: Decimal,
        now_ms: int,
        trade_id: int | None = None,
    ) -> None:
        """Book something into the cross wallet."""
        self.cross[asset] = self.cross.get(asset, ZERO) + amount
        self.note(kind, symbol, asset, amount, now_ms, trade_id)

    def note(
        self,
        kind: str,
        symbol: str,
        asset: str,
        amount: Decimal,
        now_ms: int,
        trade_id: int | None = None,
    ) -> None:
        """Remember what changed a wallet; it was booked already."""
        if amount:
            number = len(self.incomes) + 1
            self.incomes.append(Income(number, kind, symbol, amount, asset, now_ms, trade_id))

    def wallet(self, asset: str) -> Decimal:
        """Return the wallet balance of an asset that is told: cross and isolated together."""
        isolated = sum((p.isolated for p in self._positions.values() if p.asset == asset), ZERO)
        return self.cross.get(asset, ZERO) + isolated

    def trade(self, position: Position, change: Decimal, price: Decimal, now_ms: int) -> Decimal:
        """Book a fill at a price in quote into a position; return the realised profit in quote.

        The change of its quantity is negative for a sell; through zero the position turns.
        """
        closed = ZERO
        realised = ZERO
        if position.quantity * change < 0:
            closed = change if abs(change) <= abs(position.quantity) else -position.quantity
            realised = self._close(position, closed, price)
        if change != closed:
            self._open(position, change - closed, price)
        position.updated_ms = now_ms
        return realised

    def charge(self, position: Position, commission: Decimal) -> None:
        """Take a commission out of the cross wallet."""
        self.cross[position.asset] = self.cross.get(position.asset, ZERO) - commission
        if position.quantity:
            position.paid += commission

    def fund(self, position: Position, amount: Decimal, now_ms: int) -> None:
        """Book a funding: into a position's own margin, or into the cross wallet."""
        if self.settings(position.symbol).isolated:
            position.isolated += amount
            self.note("FUNDING_FEE", position.symbol, position.asset, amount, now_ms)
        else:
            self.earn("FUNDING_FEE", position.symbol, position.asset, amount, now_ms)
        position.updated_ms = now_ms

    def move_margin(self, position: Position, amount: Decimal) -> None:
        """Move margin from the cross wallet to a position; back when negative."""
        self.cross[position.asset] = self.cross.get(position.asset, ZERO) - amount
        position.isolated += amount

    def _open(self, position: Position, change: Decimal, price: Decimal) -> None:
        settings = self.settings(position.symbol)
        if not position.quantity:
            position.paid = ZERO
        position.quantity += change
        position.cost += change * price
        if settings.isolated:
            needed = (abs(change) * price / settings.leverage).quantize(QUANTUM, ROUND_UP)
            spare = max(self.cross.get(position.asset, ZERO), ZERO)
            self.move_margin(position, min(needed, spare))

    def _close(self, position: Position, change: Decimal, price: Decimal) -> Decimal:
        asset = position.asset
        whole = change == -position.quantity
        share = -change / position.quantity
        cost = position.cost if whole else (position.cost * share).quantize(QUANTUM, ROUND_DOWN)
        realised = -change * price - cost
        position.quantity += change
        position.cost -= cost
        position.paid -= realised
        position.realised += realised
        released = ZERO
        if position.isolated:
            released = position.isolated
            if not whole:
                released = (released * share).quantize(QUANTUM, ROUND_DOWN)
                # A loss beyond the part's own margin is the rest's before it is the wallet's.
                released += min(max(-released - realised, ZERO), position.isolated - released)
            position.isolated -= released
        self.cross[asset] = self.cross.get(asset, ZERO) + released + realised
        return realised
