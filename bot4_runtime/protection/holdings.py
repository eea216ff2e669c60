"""Margin positions as an account or a file tells them, whoever opened them.

Numbers are refused where they enter: what is read here is finite and of the right sign.
Sources: Binance USD-M ``GET /fapi/v3/positionRisk`` and ``GET /fapi/v3/account``.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec

from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.unreadable import UNREADABLE

ZERO = Decimal(0)


class MarginPosition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One side of one symbol.

    Attributes:
        size: base quantity, positive.
        entry_price: average, in quote.
        isolated_wallet: its own margin without unrealised profit, in quote; None on cross.
            Not above 0 when costs took more than was put in: then its profit alone carries it.
        stop_price: trigger of its stop, in quote; None when it has none.
        stop_live: whether that stop rests at the venue.
        liquidation_price: the venue's own, in quote; 0 when there is none, None when untold.
        foreign: somebody else opened it: it is measured and never sold.
    """

    symbol: str
    side: Literal["long", "short"]
    size: Decimal
    entry_price: Decimal
    isolated_wallet: Decimal | None = None
    stop_price: Decimal | None = None
    stop_live: bool = False
    liquidation_price: Decimal | None = None
    foreign: bool = False

    @property
    def name(self) -> str:
        """``BTCUSDT long``: unique in an account."""
        return f"{self.symbol} {self.side}"

    def check(self) -> None:
        """Refuse what no venue holds.

        Raises:
            DataError: a number is not finite, or one that must be is not positive.
        """
        own = self.isolated_wallet
        if own is not None and not own.is_finite():
            raise DataError(f"{self.name}: isolated_wallet is {own}; expected a number")
        told = {
            "size": self.size,
            "entry_price": self.entry_price,
            "stop_price": self.stop_price,
        }
        for field, number in told.items():
            if number is not None and not (number.is_finite() and number > 0):
                raise DataError(f"{self.name}: {field} is {number}; expected a positive number")


class Holdings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account's margin at one moment.

    Attributes:
        cross_balance: wallet balance that cross positions share, in quote, without unrealised
            profit; isolated margin is not part of it.
        free: quote that can be moved to an isolated position.
        as_of_ns: when the account was like this, venue time, UTC.
    """

    cross_balance: Decimal
    free: Decimal
    positions: tuple[MarginPosition, ...]
    as_of_ns: int = 0

    def check(self) -> None:
        """Refuse what cannot be an account.

        Raises:
            DataError: a number is not finite, a leg is told twice, or a position is impossible.
        """
        if not (self.cross_balance.is_finite() and self.free.is_finite() and self.free >= 0):
            raise DataError(
                f"account has balance {self.cross_balance}, free {self.free}; expected numbers, "
                "the second not negative"
            )
        names = [position.name for position in self.positions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"{', '.join(twice)} is told twice; expected each side once")
        for position in self.positions:
            position.check()


def read_holdings(path: Path) -> Holdings:
    """Read positions from a JSON file of the form of `Holdings`.

    Raises:
        DataError: it cannot be read, holds unknown fields, or no possible account.
    """
    try:
        holdings = msgspec.json.decode(path.read_bytes(), type=Holdings, strict=False)
    except OSError as error:
        raise DataError(f"cannot read positions from {path}: {error.strerror}") from None
    except (*UNREADABLE, ArithmeticError) as error:
        raise DataError(
            f"{path} holds no positions: {error}; expected "
            '{"cross_balance": …, "free": …, "positions": [{"symbol": …, "side": "long", '
            '"size": …, "entry_price": …, "isolated_wallet": … or left out for cross}]}'
        ) from None
    holdings.check()
    return holdings


def venue_holdings(
    positions: Sequence[Mapping[str, Any]], account: Mapping[str, Any], as_of_ns: int
) -> Holdings:
    """Read the decoded answers of positionRisk and account; sizes of 0 are left out.

    Stops are orders of their own: they are unknown here. Which margin a position has is the
    venue's word (``isolated``, or ``marginType``, which not every version of the answer tells);
    without it a position is isolated when margin is told as its own.

    Raises:
        DataError: a field is missing, no number or no margin mode, or the account is impossible.
    """
    try:
        found = tuple(
            venue_position(row, row["liquidationPrice"])
            for row in positions
            if Decimal(row["positionAmt"]) != 0
        )
        holdings = Holdings(
            cross_balance=Decimal(account["totalCrossWalletBalance"]),
            free=max(Decimal(account["availableBalance"]), ZERO),
            positions=found,
            as_of_ns=as_of_ns,
        )
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise DataError(
            f"cannot read the account's positions: {type(error).__name__} {error}; ask again"
        ) from None
    holdings.check()
    return holdings


def venue_position(row: Mapping[str, Any], liquidation_price: str | None) -> MarginPosition:
    """Read one row of positionRisk whose size is not 0; raises what is wrong with it.

    Args:
        row: all else of it is as positionRisk tells it.
        liquidation_price: the venue's own, in quote; None where it is untold.
    """
    return MarginPosition(
        symbol=str(row["symbol"]),
        side="long" if Decimal(row["positionAmt"]) > 0 else "short",
        size=abs(Decimal(row["positionAmt"])),
        entry_price=Decimal(row["entryPrice"]),
        isolated_wallet=Decimal(row["isolatedWallet"]) if _isolated(row) else None,
        liquidation_price=None if liquidation_price is None else Decimal(liquidation_price),
    )


def _isolated(row: Mapping[str, Any]) -> bool:
    if "isolated" in row:
        if not isinstance(row["isolated"], bool):
            raise ValueError(f"isolated is {row['isolated']!r}; expected true or false")
        return row["isolated"]
    if "marginType" in row:
        mode = str(row["marginType"]).lower()
        if mode not in ("isolated", "cross", "crossed"):
            raise ValueError(f"marginType is {row['marginType']!r}; expected isolated or cross")
        return mode == "isolated"
    own = (Decimal(row["isolatedWallet"]), Decimal(row.get("isolatedMargin", ZERO)))
    return any(amount != 0 for amount in own)
