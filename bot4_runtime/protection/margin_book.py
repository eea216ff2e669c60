"""What an account's positions rest on, from whole readings of it and from changes in between.

A reading replaces what is not newer than the moment it was asked at; a change tells whole what it
is about (`ACCOUNT_UPDATE`), so that nothing is added up. One that cannot be read leaves the book
in doubt until the next reading. Changes and calls come in on the user stream's thread and wait
for `settle`; all else belongs to the session's thread.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from bot4_runtime.domain.errors import DataError
from bot4_runtime.protection.holdings import ZERO, MarginPosition, venue_position
from bot4_runtime.protection.monitor import Price
from bot4_runtime.risk.brackets import Brackets, venue_brackets

NS_PER_MS: Final = 1_000_000


class _Side(NamedTuple):
    """One side of a symbol, as told; without a position where it is flat."""

    position: MarginPosition | None
    ts_ns: int


class MarginBook:
    """Keeps one account's margin.

    Args:
        quote: the margin asset.

    Attributes:
        free: quote that no position and no order needs, as read last.
        as_of_ns: when the account was like this, venue time, UTC; -1 before the first reading.
        version: rises with whatever is taken in.
        ladders: leverage brackets by symbol, as told last.
        asked: marks of all symbols as asked for last.
        doubt: why what is known may be wrong; empty when it is not.
    """

    def __init__(self, quote: str) -> None:
        self._quote = quote
        self._sides: dict[tuple[str, str], _Side] = {}
        self._cross = ZERO
        self._cross_ns = -1
        self._told: deque[Mapping[str, Any]] = deque()
        self._called: deque[list[str]] = deque()
        self._log = structlog.get_logger("margin_book")
        self.free = ZERO
        self.as_of_ns = -1
        self.version = 0
        self.ladders: dict[str, Brackets] = {}
        self.asked: dict[str, Price] = {}
        self.doubt = "the account's margin was not read yet"

    # --------------------------------------------------------------- what is asked for
    def read(
        self, positions: Sequence[Mapping[str, Any]], account: Mapping[str, Any], as_of_ns: int
    ) -> None:
        """Take the decoded answers of positionRisk and account, asked for at a time.

        Raises:
            DataError: a field is missing or no number; what was known stays.
        """
        try:
            sides = {
                (str(row["symbol"]), str(row["positionSide"])): _Side(_held(row), as_of_ns)
                for row in positions
            }
            wallet = next((w for w in account["assets"] if w["asset"] == self._quote), None)
            cross = ZERO if wallet is None else _finite(wallet["crossWalletBalance"])
            free = ZERO if wallet is None else max(_finite(wallet["availableBalance"]), ZERO)
        except _UNFIT as error:
            raise DataError(
                f"cannot read the account's margin: {_said(error)}; ask again"
            ) from None
        newer = {key: side for key, side in self._sides.items() if side.ts_ns > as_of_ns}
        self._sides = {**sides, **newer}
        if self._cross_ns <= as_of_ns:
            self._cross, self._cross_ns = cross, as_of_ns
        self.free, self.as_of_ns = free, max(self.as_of_ns, as_of_ns)
        self.doubt = ""
        self.version += 1

    def brackets(self, answer: Sequence[Mapping[str, Any]]) -> None:
        """Take the decoded answer of leverageBracket; of what cannot be read nothing is known."""
        found: dict[str, Brackets] = {}
        for row in answer:
            try:
                found |= venue_brackets([row])
            except DataError as error:
                self._log.error("brackets refused", why=str(error))
        self.ladders = found
        self.version += 1

    def marks(self, told: Mapping[str, Price]) -> None:
        """Take the marks of all symbols, as they are told when they are asked for."""
        self.asked = dict(told)

    # ----------------------------------------------------- what the user stream brings
    def changed(self, update: Mapping[str, Any]) -> None:
        """Keep a decoded ACCOUNT_UPDATE; may be called on any thread."""
        self._told.append(update)

    def called(self, symbols: list[str]) -> None:
        """Keep a margin call; may be called on any thread."""
        self._called.append(symbols)

    def settle(self) -> list[list[str]]:
        """Take in what the user stream brought since the last time; return the margin calls."""
        for _ in range(len(self._told)):
            update = self._told.popleft()
            try:
                self._change(update)
            except _UNFIT as error:
                self.doubt = f"a change of the account cannot be read: {_said(error)}"
                self._log.error("change of the account refused", why=_said(error))
            self.version += 1
        return [self._called.popleft() for _ in range(len(self._called))]

    def _change(self, update: Mapping[str, Any]) -> None:
        ts_ns, told = int(update["T"]) * NS_PER_MS, update["a"]
        sides = {
            (str(row["s"]), str(row["ps"])): _Side(
                _held(
                    {
                        "symbol": row["s"],
                        "positionAmt": row["pa"],
                        "entryPrice": row["ep"],
                        "marginType": row["mt"],
                        "isolatedWallet": row["iw"],
                    }
                ),
                ts_ns,
            )
            for row in told.get("P", ())
        }
        wallets = [row["cw"] for row in told.get("B", ()) if row["a"] == self._quote]
        cross = [_finite(amount) for amount in wallets]
        for key, side in sides.items():
            known = self._sides.get(key)
            if known is None or known.ts_ns <= ts_ns:
                self._sides[key] = side
        if cross and self._cross_ns <= ts_ns:
            self._cross, self._cross_ns = cross[-1], ts_ns
        self.as_of_ns = max(self.as_of_ns, ts_ns)

    # ------------------------------------------------------------------------ reading
    @property
    def cross(self) -> Decimal:
        """Wallet balance that cross positions share, in quote."""
        return self._cross

    def positions(self) -> list[MarginPosition]:
        """Return what is held; stops are not known here.

        The venue's own liquidation price of a cross position moves with the wallet and with the
        marks of all others on it: it is told of one that is alone, as long as the wallet stays.
        """
        sides = [side for side in self._sides.values() if side.position is not None]
        alone = sum(_shares(side) for side in sides) == 1
        return [
            side.position
            if not _shares(side) or (alone and self._cross_ns <= side.ts_ns)
            else msgspec.structs.replace(side.position, liquidation_price=None)
            for side in sides
            if side.position is not None
        ]


_UNFIT: Final = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, DataError)


def _shares(side: _Side) -> bool:
    """Whether a side rests on the cross wallet."""
    return side.position is not None and side.position.isolated_wallet is None


def _said(error: Exception) -> str:
    return f"{type(error).__name__} {error}"


def _finite(told: object) -> Decimal:
    amount = Decimal(str(told))
    if not amount.is_finite():
        raise ValueError(f"amount {told!r}; expected a number")
    return amount


def _held(row: Mapping[str, Any]) -> MarginPosition | None:
    """Return a side's position, checked; None for a flat one."""
    if not _finite(row["positionAmt"]):
        return None
    position = venue_position(row, row.get("liquidationPrice"))
    position.check()
    return position
