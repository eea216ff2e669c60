"""What the venue's messages say in the engine's words, or that they cannot be right."""

from typing import Protocol, TypeVar

from bot4_runtime.domain.errors import DataError, OutcomeUnknown
from bot4_runtime.exchange.protocols import VenueOrder

Meaning_co = TypeVar("Meaning_co", covariant=True)


class _Meaningful(Protocol[Meaning_co]):
    """A message that can be checked and told in the engine's words."""

    def meaning(self) -> Meaning_co:
        """Return what it says; raises DataError for what cannot be."""
        ...


def meant(fields: _Meaningful[Meaning_co]) -> Meaning_co:
    """Return what a message says; raises OutcomeUnknown for what cannot be."""
    try:
        return fields.meaning()
    except DataError as error:
        raise OutcomeUnknown(f"the venue told something impossible: {error}") from error


def asked_for(order: VenueOrder, symbol: str, client_id: str) -> VenueOrder:
    """Return an order that was asked for; raises OutcomeUnknown when another one was told."""
    if (order.symbol, order.client_id) != (symbol, client_id):
        raise OutcomeUnknown(
            f"asked for order {client_id} of {symbol}, the venue told of {order.client_id} "
            f"of {order.symbol}"
        )
    return order
