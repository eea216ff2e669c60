"""Whether a key opens the account that a journal traded at, where the venue tells no number.

The proof is an order: the venue shows with this key an order by the journal's own name for it,
under the number that the venue gave it then. No other account has one. That nothing is shown
proves nothing: venues forget orders (USD-M those that ended unfilled after three days, filled ones
after 90).
"""

from collections.abc import Callable
from itertools import islice
from typing import Final

from bot4_runtime.domain.order import Order
from bot4_runtime.exchange.protocols import VenueOrder
from bot4_runtime.state.trading_state import TradingState

ASKED: Final = 20
"""How many orders are asked for at most, those that may still be open and the newest first."""


def shown_order(
    state: TradingState, query: Callable[[str, str], VenueOrder | None]
) -> Order | None:
    """Return an order of the journal that the venue shows; None when it shows none.

    Args:
        state: of the journal.
        query: asks the venue, with the key in doubt, for an order by symbol and client id.

    Raises:
        VenueError: the venue could not be asked.
    """
    taken = set(state.account.intents.values())
    newest = sorted(
        (order for number, order in state.orders.items() if number in taken),
        key=lambda order: (order.status.terminal, -order.intent.intent_no),
    )
    for order in islice(newest, ASKED):
        intent = order.intent
        told = query(intent.symbol, order.client_id)
        if (
            told is not None
            and told.client_id == order.client_id
            and state.account.intent_of(told.symbol, told.venue_order_id) == intent.intent_no
        ):
            return order
    return None
