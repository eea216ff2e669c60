"""What protection sends: reduce-only orders, the plans that carry them, what risk sees of them.

Beside a session the engine makes the orders (`guard`). Where there is none, as in `stress`,
`hands` does: plans count from 1 and an engine's intents do too, so the intents of such plans are
numbered from `FIRST_INTENT` on, and neither numbers nor names can be taken for an engine's.
"""

import math
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.events import OrderIntended, ProtectionPlanned
from bot4_runtime.domain.order import (
    Book,
    OrderIntent,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from bot4_runtime.domain.portfolio import BreakerState, RiskMetrics
from bot4_runtime.intents import RELIEF
from bot4_runtime.protection.action import Action
from bot4_runtime.protection.holdings import Holdings
from bot4_runtime.risk.correlation import FixedCorrelations
from bot4_runtime.risk.ladder import Plan
from bot4_runtime.risk.manager import HeldPosition, RiskView
from bot4_runtime.risk.margin import Leg, Wallet

PLACE_STOP: Final = "place_stop"
FIRST_INTENT: Final = 1 << 48
"""Intent number of plan 0; an engine at a thousand orders a second takes 8,900 years to it."""

_ZERO: Final = Decimal(0)


def asked_stop(action: Action) -> tuple[str, Side, float] | None:
    """Return symbol, side and trigger of the stop an action asked for; None for other actions."""
    intent = action.planned.intent
    if action.planned.action != PLACE_STOP or intent is None or intent.stop_price is None:
        return None
    return intent.symbol, intent.side, float(intent.stop_price)


def protects(action: Action, leg: Leg) -> bool:
    """Whether an action asked for a stop of this leg."""
    asked = asked_stop(action)
    return asked is not None and asked[:2] == (leg.symbol, _against(leg.side))


def resting_stops(holdings: Holdings) -> set[tuple[str, Side, float]]:
    """Return the stops that a reading shows at the venue, in the form of `asked_stop`."""
    return {
        (held.symbol, _against(1 if held.side == "long" else -1), float(held.stop_price))
        for held in holdings.positions
        if held.stop_live and held.stop_price is not None
    }


def _against(side: int) -> Side:
    return Side.SELL if side > 0 else Side.BUY


def reducing(number: int, leg: Leg, quantity: Decimal, ts_ns: int, action: str) -> OrderIntent:
    """Return the reduce-only order: against the leg, never more than it holds."""
    stop = action == PLACE_STOP
    return OrderIntent(
        intent_no=FIRST_INTENT + number,
        book=Book.VALIDATED,
        purpose=Purpose.STOP if stop else Purpose.EMERGENCY,
        symbol=leg.symbol,
        side=_against(leg.side),
        order_type=OrderType.STOP_MARKET if stop else OrderType.MARKET,
        quantity=quantity,
        price=None,
        stop_price=Decimal(repr(leg.stop_price)) if stop else None,
        time_in_force=TimeInForce.GTC if stop else TimeInForce.IOC,
        reduce_only=True,
        reference_price=Decimal(repr(leg.known_price)),
        stop_loss=None,
        expires_after=0,
        signal_id=cause(leg.symbol, number),
        rule_id="protection",
        ts_ns=ts_ns,
    )


def cause(symbol: str, number: int) -> str:
    """Return what the order of a plan names as its signal."""
    return f"{RELIEF}{symbol}:{number}"


def planned_event(plan: Plan, made: OrderIntended | None) -> ProtectionPlanned:
    """Return the event of a plan; no order is made where it moves margin."""
    numbers = {
        "worst": plan.worst,
        "ratio": plan.ratio,
        "consumed": plan.consumed,
        "price": plan.price,
        "liquidation_price": math.nan
        if plan.liquidation_price is None
        else plan.liquidation_price,
    }
    return ProtectionPlanned(
        ts_event_ns=plan.ts_ns,
        number=plan.number,
        action=plan.action,
        wallet=plan.wallet,
        symbol=plan.symbol,
        intent=None if made is None else made.intent,
        client_id="" if made is None else made.client_id,
        payload_hash="" if made is None else made.payload_hash,
        amount=plan.amount,
        reason=plan.reason,
        numbers={name: known(number) for name, number in numbers.items()},
    )


def stop_event(number: int, wallet: Wallet, leg: Leg, made: OrderIntended) -> ProtectionPlanned:
    """Return the plan to place a stop that is missing."""
    return ProtectionPlanned(
        ts_event_ns=made.ts_event_ns,
        number=number,
        action=PLACE_STOP,
        wallet=wallet.name,
        symbol=leg.symbol,
        intent=made.intent,
        client_id=made.client_id,
        payload_hash=made.payload_hash,
        amount=_ZERO,
        reason=f"{leg.stop_name} does not rest at the venue",
        numbers={"price": known(leg.price), "stop_price": leg.stop_price},
    )


def exit_view(wallet: Wallet, leg: Leg, now_ns: int) -> RiskView:
    """Return the leg alone: an exit is judged by what it reduces, whatever else is true."""
    equity = wallet.margin_balance
    worth = Decimal(repr(equity)) if math.isfinite(equity) else _ZERO
    return RiskView(
        equity=equity,
        cash_free=0.0,
        marks={leg.symbol: leg.known_price},
        positions=[HeldPosition(leg.symbol, leg.signed, leg.known_price)],
        open_orders=[],
        correlations=FixedCorrelations({}),
        depth_quote=0.0,
        breaker=BreakerState(),
        metrics=RiskMetrics(
            equity=worth,
            peak_equity=worth,
            drawdown=0.0,
            day=0,
            day_start_equity=worth,
            exposure=_ZERO,
            leverage=0.0,
        ),
        now_ns=now_ns,
    )


def known(number: float) -> float | None:
    """Return a number as events tell it: None when it is not known."""
    return number if math.isfinite(number) else None
