"""What the engine needs of a venue. Adapters implement it; only `app` names them."""

from collections.abc import Sequence
from typing import Protocol

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.events import OrderEvent
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Order, OrderIntent


class Venue(Protocol):
    """An exchange, in-process or remote. Every answer comes back as order events."""

    name: str

    @property
    def in_process(self) -> bool:
        """Whether the venue is part of the fold, so that an unanswered intent is replayed.

        False for a real exchange, where an unanswered intent is queried and never resent.
        """
        ...

    def submit(self, intent: OrderIntent, client_id: str, cash_free: float) -> list[OrderEvent]:
        """Hand over an order once. Raises OutcomeUnknown when the result is not known."""
        ...

    def cancel(self, order: Order, now_ns: int) -> list[OrderEvent]:
        """Cancel an order; may be repeated."""
        ...

    def on_candle(
        self, candle: Candle, orders: Sequence[Order], instrument: Instrument
    ) -> list[OrderEvent]:
        """Match resting orders against a closed candle; remote venues return nothing."""
        ...
