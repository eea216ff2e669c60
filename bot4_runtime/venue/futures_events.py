"""What the USD-M core tells of, as it happens: orders, accounts, settings, and the market.

Whoever listens reads at once what an event points to: it goes on changing.
"""

from decimal import Decimal
from typing import NamedTuple

from bot4_runtime.venue.futures_account import FuturesAccount, Position
from bot4_runtime.venue.futures_margin import Margin
from bot4_runtime.venue.futures_orders import AlgoOrder, FuturesOrder, FuturesReport
from bot4_runtime.venue.market_history import MarketTrade


class AccountChanged(NamedTuple):
    """A wallet or a position changed.

    Attributes:
        reason: ``ORDER``, ``FUNDING_FEE``, ``MARGIN_TRANSFER``, ``MARGIN_TYPE_CHANGE``,
            ``DEPOSIT`` or ``INSURANCE_CLEAR``.
        change: of the wallet in `asset`, other than by trading.
    """

    account: FuturesAccount
    reason: str
    asset: str
    change: Decimal
    positions: tuple[Position, ...]
    time_ms: int


class AlgoChanged(NamedTuple):
    """A conditional order changed."""

    algo: AlgoOrder
    time_ms: int


class SettingsChanged(NamedTuple):
    """A symbol's leverage changed."""

    account: FuturesAccount
    symbol: str
    leverage: int
    time_ms: int


class MarginCalled(NamedTuple):
    """A wallet is near its liquidation."""

    account: FuturesAccount
    margin: Margin
    time_ms: int


class Forced(NamedTuple):
    """The venue closed somebody's position: a liquidation or ADL order that ended."""

    order: FuturesOrder
    time_ms: int


class Traded(NamedTuple):
    """A trade, whoever made it."""

    symbol: str
    trade: MarketTrade


class Marked(NamedTuple):
    """A mark was set."""

    symbol: str
    time_ms: int


FuturesEvent = (
    FuturesReport
    | AccountChanged
    | AlgoChanged
    | SettingsChanged
    | MarginCalled
    | Forced
    | Traded
    | Marked
)
