"""What a session is, and whether an account's journal may go on with it.

Source, mode, strategy, interval and what the books began with never change; settings that shape
trading only when the user agrees.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.candle import interval_ms
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import SessionStarted
from bot4_runtime.domain.order import Book
from bot4_runtime.sources import CandleSource
from bot4_runtime.state.trading_state import TradingState

WARM_CANDLES: Final = 700
"""Candles shown before the first decision: LOOKBACK 512, the longest LSTM window 180, and some."""
ACCEPTED_DIGITS: Final = 12
"""How much of a settings hash must be named to agree to it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a session is, journaled at its start.

    Attributes:
        config_hash: sha256 of the settings that shape trading.
        initial_cash: quote each book starts with.
        accepted: hash, or its beginning, of changed settings the user agrees to.
        changes: what differs from the settings of a hash, in words; empty when they are not kept.
    """

    mode: str
    strategy: str
    config_hash: str
    quote: str
    initial_cash: Decimal
    books: tuple[Book, ...]
    accepted: str = ""
    changes: Callable[[str], Sequence[str]] = lambda _: ()

    def check(self, state: TradingState, source: CandleSource) -> None:
        """Refuse to go on with a journal that was begun as something else.

        Raises:
            ConfigError: it belongs to another source, strategy, mode or interval, its books began
                with something else, settings changed that the user did not accept, or the source
                has no candles of what is held.
        """
        before = state.session
        if before is None:
            return
        first = state.first_session or before
        step_ms = interval_ms(source.interval)
        step_was_ms = (before.start_ms - before.warm_from_ms) // WARM_CANDLES
        now = (self.mode, source.label, self.strategy, step_ms)
        was = (before.mode, before.source, before.strategy, step_was_ms)
        if now != was:
            raise ConfigError(
                f"this account's journal was begun with {_told(*was)}, and now it would go on "
                f"with {_told(*now)}; name another account with --account, or start as before"
            )
        if (self.quote, self.initial_cash) != (first.quote, first.initial_cash):
            raise ConfigError(
                f"this account's books were opened with {first.initial_cash} {first.quote}, and "
                f"the settings say {self.initial_cash} {self.quote}; what they begin with "
                "is decided once: set paper.initial_cash and runtime.quote back, or name another "
                "account with --account"
            )
        self._check_settings(before)
        _check_watched(state, source)

    def _check_settings(self, before: SessionStarted) -> None:
        """Nothing that shapes trading changes by a restart unless the user says so."""
        now, accepted = self.config_hash, self.accepted
        agreed = len(accepted) >= ACCEPTED_DIGITS and now.startswith(accepted)
        if now != before.config_hash and not agreed:
            named = "; ".join(self.changes(before.config_hash)) or "no record of them is left"
            raise ConfigError(
                "the settings that shape trading (runtime, paper, risk, liquidation, fees, "
                f"promotion) are not those this account last ran with: {named}. Start as before, "
                "name another account with --account, or agree to the new ones with --accept "
                f"{now[:12]}"
            )


def _check_watched(state: TradingState, source: CandleSource) -> None:
    held = {symbol for book in state.books.values() for symbol in book.positions}
    open_in = {order.intent.symbol for order in state.all_live_orders()}
    left = sorted((held | open_in) - set(source.symbols))
    if left:
        raise ConfigError(
            f"the account holds positions or orders in {', '.join(left)}, and "
            f"{source.label} has no candles of them, so that nothing would watch their "
            f"stops; expected all of them among {', '.join(source.symbols)}"
        )


def _told(mode: str, source: str, strategy: str, step_ms: int) -> str:
    candles = f"candles of {step_ms // 60_000} minutes"
    return f"mode {mode}, source {source}, strategy {strategy}, {candles}"
