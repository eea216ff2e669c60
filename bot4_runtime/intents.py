"""What we want from a venue, built from what was decided: entries, stops, exits. Pure."""

from decimal import ROUND_CEILING, Decimal
from typing import Final

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    OrderIntent,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from bot4_runtime.domain.position import Position
from bot4_runtime.domain.signal import TradingSignal

ENTRY_EXPIRES_AFTER: Final = 3
"""Candles after which what is left of an entry order is cancelled."""
RELIEF: Final = "protection:"
"""How the causes of orders against liquidation begin."""


def relieves(intent: OrderIntent) -> bool:
    """Whether an order is of liquidation prevention, which itself repeats what fails."""
    return intent.signal_id.startswith(RELIEF)


def entry_intent(
    number: int,
    book: Book,
    signal: TradingSignal,
    *,
    quantity: Decimal,
    reference: Decimal,
    stop_loss: Decimal,
    rests: bool,
) -> OrderIntent:
    """Return the intent to open what a signal proposes.

    Args:
        number: the account's next intent number.
        book: whose money.
        signal: an entry.
        quantity: in base.
        reference: price it was decided at, in quote; the limit of an order that rests.
        stop_loss: the protective stop it will carry, in quote.
        rests: whether it is a limit order, else a market order.
    """
    return OrderIntent(
        intent_no=number,
        book=book,
        purpose=Purpose.ENTRY,
        symbol=signal.symbol,
        side=signal.side,
        order_type=OrderType.LIMIT if rests else OrderType.MARKET,
        quantity=quantity,
        price=reference if rests else None,
        stop_price=None,
        time_in_force=TimeInForce.GTC,
        reduce_only=False,
        reference_price=reference,
        stop_loss=stop_loss,
        expires_after=ENTRY_EXPIRES_AFTER,
        signal_id=signal.signal_id,
        rule_id=signal.rule_id,
        ts_ns=signal.ts_ns,
    )


def reducing_intent(
    number: int,
    position: Position,
    purpose: Purpose,
    signal_id: str,
    *,
    quantity: Decimal,
    reference: Decimal,
    ts_ns: int,
) -> OrderIntent:
    """Return the intent to sell what is held: a resting stop, or a market exit.

    Args:
        number: the account's next intent number.
        position: what is held, long.
        purpose: STOP rests at the position's stop price; anything else leaves at once.
        signal_id: what caused it.
        quantity: in base, at most what is held.
        reference: price it was decided at, in quote.
        ts_ns: when it was decided, UTC.
    """
    stop = purpose is Purpose.STOP
    return OrderIntent(
        intent_no=number,
        book=position.book,
        purpose=purpose,
        symbol=position.symbol,
        side=Side.SELL,
        order_type=OrderType.STOP_MARKET if stop else OrderType.MARKET,
        quantity=quantity,
        price=None,
        stop_price=position.stop_price if stop else None,
        time_in_force=TimeInForce.GTC,
        reduce_only=True,
        reference_price=reference,
        stop_loss=None,
        expires_after=0,
        signal_id=signal_id,
        rule_id=position.rule_id,
        ts_ns=ts_ns,
    )


def in_parts(
    instrument: Instrument, quantity: Decimal, price: Decimal, *, at_market: bool
) -> list[Decimal]:
    """Cut what one order may not sell at once into as few parts as can be, alike in size.

    Parts alike leave no rest below the least quantity or notional where that can be avoided.
    Where it cannot, the largest parts go and the rest stays.

    Args:
        instrument: whose rules hold.
        quantity: in base, cut to the step.
        price: in quote; by it parts are valued.
        at_market: whether the parts are market orders, else stops that rest.

    Returns:
        Quantities that add up to at most `quantity`.
    """
    at_market |= instrument.market is Market.USDM  # a stop of contracts keeps to the same rule
    most, step = (
        instrument.in_one_order(quantity, price, at_market=at_market),
        instrument.step_size,
    )
    if not most < quantity:
        return [quantity]
    count = int((quantity / most).to_integral_value(ROUND_CEILING))
    steps, more = divmod(int(quantity / step), count)
    alike = [step * (steps + 1)] * more + [step * steps] * (count - more)
    if instrument.sellable(alike[-1], price):
        return alike
    return [most] * (count - 1)
