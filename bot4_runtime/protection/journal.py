"""Protection's events in the session's own journal, folded with everything else.

After a restart, `ProtectionMonitor.resume` takes over what `TradingState.protection` says was
left open, and `TradingState.next_protection_no` is where the numbers go on.
"""

from bot4_runtime.domain.events import JournaledEvent
from bot4_runtime.session import Ledger


class JournalLedger:
    """Emits into a session's ledger; the plan's batch is closed and synced before its order.

    Args:
        ledger: the session's. Protection runs between two candles, never inside one, so that
            its batches hold nothing else.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def emit(self, event: JournaledEvent) -> None:
        """Fold and publish an event, and add it to the open batch."""
        self._ledger.emit(event)

    def make_durable(self) -> None:
        """Close the batch and wait until it is synced."""
        self._ledger.store.wait_durable(self._ledger.commit())
