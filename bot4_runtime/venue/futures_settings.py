"""What a USD-M customer sets: leverage, margin type, position mode, margin of a position."""

from decimal import Decimal

from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.futures_account import FuturesAccount, Position, PositionSide
from bot4_runtime.venue.futures_algo import AlgoDesk
from bot4_runtime.venue.futures_events import AccountChanged, SettingsChanged
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.refusals import Refused


class SettingsDesk:
    """Changes how accounts of an exchange trade."""

    def __init__(self, exchange: FuturesExchange, algos: AlgoDesk) -> None:
        self._exchange = exchange
        self._algos = algos

    def set_leverage(self, account: FuturesAccount, symbol: str, leverage: int) -> Decimal:
        """Set a symbol's leverage; return the largest notional it allows, in quote.

        Raises:
            Refused: -4028, -4161, -2027 or -2028.
        """
        contract = self._exchange.market(symbol).contract
        if not 1 <= leverage <= contract.ladder.max_leverage:
            raise no.bad_leverage(leverage)
        settings, margins = account.settings(symbol), self._exchange.margins
        held = [position for position in account.positions() if position.symbol == symbol]
        if settings.isolated and held and leverage < settings.leverage:
            raise Refused(*no.LEVERAGE_DOWN_ISOLATED)
        most = contract.ladder.max_notional(leverage)
        if not sum((abs(margins.notional(position)) for position in held), ZERO) <= most:
            raise Refused(*no.BEYOND_LEVERAGE)
        before, settings.leverage = settings.leverage, leverage
        if leverage < before and not self._carried(account, contract.quote):
            settings.leverage = before
            raise Refused(*no.LEVERAGE_NEEDS_MARGIN)
        self._exchange.tell(SettingsChanged(account, symbol, leverage, self._exchange.now_ms()))
        return most

    def set_margin_type(self, account: FuturesAccount, symbol: str, *, isolated: bool) -> None:
        """Set whether positions of a symbol have margin of their own.

        Raises:
            Refused: -4046, -4047 or -4048.
        """
        contract, settings = self._exchange.market(symbol).contract, account.settings(symbol)
        if settings.isolated == isolated:
            raise Refused(*no.SAME_MARGIN_TYPE)
        if self._waiting(account, symbol):
            raise Refused(*no.MARGIN_TYPE_HAS_ORDERS)
        if any(position.symbol == symbol for position in account.positions()):
            raise Refused(*no.MARGIN_TYPE_HAS_POSITION)
        settings.isolated = isolated
        empty = tuple(account.position(contract, side) for side in account.sides())
        self._tell(account, "MARGIN_TYPE_CHANGE", contract.quote, empty)

    def set_hedge(self, account: FuturesAccount, *, hedge: bool) -> None:
        """Set the position mode.

        Raises:
            Refused: -4059, -4067 or -4068.
        """
        if account.hedge == hedge:
            raise Refused(*no.SAME_POSITION_MODE)
        if self._waiting(account, None):
            raise Refused(*no.MODE_HAS_ORDERS)
        if any(account.positions()):
            raise Refused(*no.MODE_HAS_POSITION)
        account.hedge = hedge

    def move_margin(
        self, account: FuturesAccount, symbol: str, side: PositionSide, amount: Decimal
    ) -> None:
        """Add margin to an isolated position; take some away when negative.

        Raises:
            Refused: -4061, -4049, -4054, -4055, -4050 or -4051.
        """
        market, margins = self._exchange.market(symbol), self._exchange.margins
        if side not in account.sides():
            raise Refused(*no.OTHER_POSITION_MODE)
        if not account.settings(symbol).isolated:
            raise Refused(*no.NOT_ISOLATED)
        position = account.position(market.contract, side)
        if not position.quantity:
            raise Refused(*no.NO_POSITION)
        if not amount:
            raise Refused(*no.AMOUNT_NOT_POSITIVE)
        if amount > 0 and not amount <= margins.available(account, position.asset):
            raise Refused(*no.CROSS_TOO_SMALL)
        spare = margins.own(position).balance - margins.initial(account, position)
        if amount < 0 and not -amount <= min(spare, position.isolated):
            raise Refused(*no.ISOLATED_TOO_SMALL)
        account.move_margin(position, amount)
        self._tell(account, "MARGIN_TRANSFER", position.asset, (position,), -amount)

    def _waiting(self, account: FuturesAccount, symbol: str | None) -> bool:
        plain = self._exchange.open_orders(account, symbol)
        return bool(plain or self._algos.open(account, symbol))

    def _carried(self, account: FuturesAccount, asset: str) -> bool:
        cross = self._exchange.margins.cross(account, asset)
        initial = self._exchange.margins.initial
        needed = sum((initial(account, leg) for leg in cross.legs), ZERO)
        return needed <= cross.balance

    def _tell(
        self,
        account: FuturesAccount,
        reason: str,
        asset: str,
        positions: tuple[Position, ...],
        change: Decimal = ZERO,
    ) -> None:
        now_ms = self._exchange.now_ms()
        self._exchange.tell(AccountChanged(account, reason, asset, change, positions, now_ms))
