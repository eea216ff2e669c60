"""The paper venue: simulated fills on closed candles, a pure function of orders and candle.

It keeps no state of its own: what it holds is `TradingState.orders`, so that it is
journaled, snapshotted and recovered with everything else. Its randomness is keyed by
intent number and candle time, never by call order.

The model, stated in every report:

- Latency: an order decided at a close can trade from the next candle's open on.
- Spread: takers pay half of `spread_bps`, scaled by a draw in [0.5, 1.5].
- Impact: takers pay `impact_bps` x sqrt(order quantity / candle volume) on top.
- Queue: a resting limit fills when the candle trades through it; when the candle only
  touches it, it fills with probability `touch_fill`, else the queue ahead took the volume.
- Partial fills: all orders of a book in a symbol share `volume_share` of the candle's volume.
- Stops trigger on the candle's range and fill at the stop, or at the open beyond it.
- Fees: by how the fill happened, in the asset the venue charges. With the BNB discount they are
  taken in BNB at its last close; where it has none, the full rate in the asset received.
- A stop placed after an entry's fill protects from the next candle on.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from decimal import Decimal

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.events import (
    OrderAccepted,
    OrderClosed,
    OrderEvent,
    OrderFilled,
    OrderRejected,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    Fill,
    Liquidity,
    Order,
    OrderIntent,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)
from bot4_runtime.exchange.paper_model import PaperModel
from bot4_runtime.fees.calculator import BNB, FeeCalculator, bnb_price

NS_PER_MS = 1_000_000


class PaperVenue:
    """Fills orders against candles.

    Args:
        model: the assumptions.
        fees: what fills cost.
        mark: tells the last close of a symbol as the state has it, None where it has none; it
            prices BNB. None where fees are never taken in BNB.
    """

    name = "paper"
    in_process = True

    def __init__(
        self,
        model: PaperModel,
        fees: FeeCalculator,
        mark: Callable[[str], float | None] | None = None,
    ) -> None:
        self._model = model
        self._fees = fees
        self._mark = mark
        self._seed = model.seed.to_bytes(8, "little", signed=True)

    def submit(self, intent: OrderIntent, client_id: str, cash_free: float) -> list[OrderEvent]:
        """Accept an order, or reject it for want of funds (spot buys)."""
        if intent.side is Side.BUY:
            cost = float(intent.quantity * intent.worst_price)
            if not cost <= cash_free:
                return [
                    OrderRejected(
                        ts_event_ns=intent.ts_ns,
                        intent_no=intent.intent_no,
                        code="-2010",
                        reason=f"insufficient balance: needs {cost:.2f}, free {cash_free:.2f}",
                    )
                ]
        return [
            OrderAccepted(
                ts_event_ns=intent.ts_ns,
                intent_no=intent.intent_no,
                venue_order_id=f"paper-{intent.intent_no}",
            )
        ]

    def cancel(self, order: Order, now_ns: int) -> list[OrderEvent]:
        """Cancel a live order; a terminal one is left alone."""
        if order.status.terminal:
            return []
        return [
            OrderClosed(
                ts_event_ns=now_ns,
                intent_no=order.intent.intent_no,
                status=OrderStatus.CANCELED.value,
                reason="canceled by us",
            )
        ]

    def on_candle(
        self, candle: Candle, orders: Sequence[Order], instrument: Instrument
    ) -> list[OrderEvent]:
        """Match live orders of the candle's symbol: what reduces first, then oldest intent first.

        An entry must not take the volume that a stop of the same candle needs.
        """
        events: list[OrderEvent] = []
        whole = self._model.volume_share * candle.volume
        left: dict[Book, float] = {}
        if len(orders) > 1:
            orders = sorted(orders, key=lambda order: not order.intent.reduce_only)
        for order in orders:
            status = order.status
            if status is not OrderStatus.ACCEPTED and status is not OrderStatus.PARTIALLY_FILLED:
                continue
            intent = order.intent
            execution = self._execution(order, candle, instrument)
            if execution is not None:
                price, liquidity = execution
                rest = left.get(intent.book, whole)
                quantity = min(order.open_quantity, instrument.floor_quantity(_decimal(rest)))
                if quantity > 0:
                    left[intent.book] = rest - float(quantity)
                    events.append(
                        self._fill(order, candle, instrument, price, quantity, liquidity)
                    )
                    if quantity == order.open_quantity:
                        continue
            if intent.time_in_force is TimeInForce.IOC or intent.time_in_force is TimeInForce.FOK:
                events.append(
                    OrderClosed(
                        ts_event_ns=candle.close_time_ms * NS_PER_MS,
                        intent_no=intent.intent_no,
                        status=OrderStatus.EXPIRED.value,
                        reason="not filled at once",
                    )
                )
        return events

    def _execution(
        self, order: Order, candle: Candle, instrument: Instrument
    ) -> tuple[Decimal, Liquidity] | None:
        """Price and liquidity at which the candle would trade the order, if it does."""
        intent = order.intent
        sign = intent.side.sign
        if intent.order_type is OrderType.MARKET:
            return self._taken(order, candle, instrument, candle.open), Liquidity.TAKER
        if intent.order_type is OrderType.STOP_MARKET:
            stop = float(intent.stop_price or 0)
            started = order.filled > 0 or sign * (candle.open - stop) >= 0
            worst = candle.high if sign > 0 else candle.low
            if not started and not sign * (worst - stop) >= 0:
                return None
            base = candle.open if started else stop
            return self._taken(order, candle, instrument, base), Liquidity.TAKER
        limit = intent.price or Decimal(0)
        edge = float(limit)
        if sign * (edge - candle.open) > 0 and order.age == 0:
            taken = self._taken(order, candle, instrument, candle.open)
            return (min(taken, limit) if sign > 0 else max(taken, limit)), Liquidity.TAKER
        reach = candle.low if sign > 0 else candle.high
        through = sign * (edge - reach)
        touched = through == 0 and self._draw(intent, candle, b"touch") < self._model.touch_fill
        if through > 0 or touched:
            return limit, Liquidity.MAKER
        return None

    def _taken(self, order: Order, candle: Candle, instrument: Instrument, base: float) -> Decimal:
        """Price a taker pays: base, half the spread and the impact, on the tick grid."""
        model = self._model
        share = float(order.open_quantity) / candle.volume if candle.volume > 0 else 1.0
        half_spread = model.spread_bps / 2 * (0.5 + self._draw(order.intent, candle, b"spread"))
        cost_bps = half_spread + model.impact_bps * math.sqrt(min(share, 1.0))
        sign = order.intent.side.sign
        price = _decimal(base * (1 + sign * cost_bps / 10_000))
        rounded = instrument.ceil_price(price) if sign > 0 else instrument.floor_price(price)
        return max(rounded, instrument.tick_size)

    def _fill(
        self,
        order: Order,
        candle: Candle,
        instrument: Instrument,
        price: Decimal,
        quantity: Decimal,
        liquidity: Liquidity,
    ) -> OrderFilled:
        intent, base, quote = order.intent, instrument.base, instrument.quote
        in_bnb = None
        if self._mark is not None:
            in_bnb = bnb_price(price, base, quote, self._mark(BNB + quote))
        fee, asset = self._fees.exact(
            price, quantity, liquidity, intent.side, base, quote, in_bnb, intent.symbol
        )
        when_ns = candle.close_time_ms * NS_PER_MS
        return OrderFilled(
            ts_event_ns=when_ns,
            fill=Fill(
                trade_id=f"{intent.intent_no}-{candle.open_time_ms}",
                intent_no=intent.intent_no,
                book=intent.book,
                symbol=intent.symbol,
                side=intent.side,
                price=price,
                quantity=quantity,
                fee=fee,
                fee_asset=asset,
                liquidity=liquidity,
                ts_event_ns=when_ns,
            ),
        )

    def _draw(self, intent: OrderIntent, candle: Candle, what: bytes) -> float:
        """Uniform in [0, 1), the same for the same seed, intent and candle."""
        key = intent.intent_no.to_bytes(8, "little") + candle.open_time_ms.to_bytes(8, "little")
        digest = hashlib.blake2b(key + what, digest_size=8, key=self._seed).digest()
        return int.from_bytes(digest, "little") / 2**64


def _decimal(value: float) -> Decimal:
    return Decimal(repr(value))
