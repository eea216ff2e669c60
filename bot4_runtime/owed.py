"""What a position is still owed: an exit that ended without selling, a stop that was refused.

It follows from the state's orders alone, so that a restart comes to the same. Pure.
"""

from collections.abc import Iterator
from decimal import Decimal
from itertools import takewhile

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Order, OrderIntent, OrderStatus, Purpose
from bot4_runtime.domain.position import Position
from bot4_runtime.state.trading_state import TradingState


def sellable(state: TradingState, position: Position, instrument: Instrument) -> Decimal:
    """Return what of a position can be sold, in base.

    On spot, commissions of other symbols may have been taken out of the asset that is held: an
    order for more than the account has would be refused, and leave all of it bare.
    """
    account = state.account
    if account.opening is None or instrument.market is not Market.SPOT:
        return position.quantity
    return min(position.quantity, account.expected(instrument.base))


def exit_owed(
    state: TradingState, position: Position, last: Order | None, now_ns: int
) -> OrderIntent | None:
    """Return the last exit of what is held when it ended without selling and is due again.

    It had the stop cancelled and was not sent, say. The stop is put back first, so that what is
    held is not bare while exits fail, and the exit repeated at the next look; one that the venue
    refused, which it may do again, with the next candle. An exit in parts is owed when one of
    them ended so, and none may still sell. `last` is the last exit in the position's symbol.
    """
    if last is None:
        return None
    statuses = {order.status for order in _parts_of(state, last)}
    if statuses == {OrderStatus.FILLED} or not all(status.terminal for status in statuses):
        return None
    if OrderStatus.REJECTED in statuses and not last.intent.ts_ns < now_ns:
        return None
    symbol, book = position.symbol, position.book
    stopped = any(order.intent.reduce_only for order in state.live_orders(symbol, book))
    number, newest_first = last.intent.intent_no, reversed(state.orders.values())
    for order in takewhile(lambda order: order.intent.intent_no > number, newest_first):
        intent = order.intent
        if (intent.symbol, intent.book) == (symbol, book):
            if not intent.reduce_only:
                return None  # an exit of an earlier position
            stopped = True  # or tried to be
    return last.intent if stopped else None


def stop_refused(state: TradingState, position: Position) -> bool:
    """Tell whether the venue refused the last stop of what is held, or a part of it.

    It does when the stop's price has traded already. What cannot be stopped is sold.
    """
    for order in reversed(state.orders.values()):
        intent = order.intent
        if (intent.symbol, intent.book) != (position.symbol, position.book):
            continue
        if not intent.reduce_only:
            return False
        if order.status is not OrderStatus.NEVER_PLACED:
            return intent.purpose is Purpose.STOP and any(
                part.status is OrderStatus.REJECTED for part in _parts_of(state, order)
            )
    return False


def _parts_of(state: TradingState, last: Order) -> Iterator[Order]:
    """Yield an order and those decided together with it, the last first."""
    number, decision = last.intent.intent_no, last.intent.decision
    while (order := state.orders.get(number)) is not None and order.intent.decision == decision:
        yield order
        number -= 1
