"""What is done against liquidation, step by step, one action in flight a symbol.

From `act` on: reduce by a fifth, then add half of what is free (isolated only), then, where the
measure is critical, close the two worst positions; then from the top again, while it stays there.
Every step waits until the orders of the one before are terminal: an order that is partly filled
or whose outcome is unknown is not. So cuts never overlap, and their sum never passes the plan.

Quantities are exact and only ever reduce: at most what a leg holds, against its side. Where both
sides of a symbol share a wallet, the larger one is cut, and the smaller only by as much as the
larger one falls below it, so that the symbol's net exposure never grows or turns. Blind legs
are left as they are: `bot4_runtime.risk.liquidation` says why. So are legs of somebody else.
"""

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from bot4_runtime.risk.liquidation import ADD_MARGIN, CLOSE, REDUCE, STEPS, LiquidationLimits
from bot4_runtime.risk.margin import Leg, Wallet

REDUCE_SHARE: Final = Decimal("0.2")
"""Share of a position that one reduction takes off."""

CLOSE_COUNT: Final = 2
"""How many of the worst positions are closed at once."""

_FREE_SHARE: Final = Decimal("0.5")
_CENT: Final = Decimal("0.01")
_NONE: Final = Decimal(0)


class LotRules:
    """What quantities a market order of a symbol may have, in base.

    Args:
        step: quantity step.
        least: least quantity.
        most: largest quantity of one market order.
        least_notional: least value, in quote; closing the whole position is always allowed.
    """

    def __init__(
        self, step: Decimal, least: Decimal, most: Decimal, least_notional: Decimal
    ) -> None:
        self.step: Final = step
        self.least: Final = least
        self.most: Final = most
        self.least_notional: Final = least_notional

    def cut(self, wanted: Decimal, held: Decimal, price: Decimal) -> Decimal:
        """Return the quantity nearest to a wanted one that may be sold of what is held.

        It is cut down to the step, lifted to what the venue takes at least, and never more than
        is held or one order may have.
        """
        least = max(self.least, self._whole(self.least_notional / price, ROUND_CEILING))
        quantity = max(self._whole(wanted, ROUND_FLOOR), least)
        if held - quantity < self.least:  # what is left could not be sold
            quantity = held
        return min(quantity, self.most)

    def _whole(self, quantity: Decimal, rounding: str) -> Decimal:
        return (quantity / self.step).to_integral_value(rounding=rounding) * self.step


class Plan:
    """One action, decided and not yet known to be over.

    Attributes:
        number: counts up over the account's life.
        action: ``reduce``, ``add_margin`` or ``close``.
        side: of the leg, +1 long, -1 short; its order goes the other way.
        quantity: base to take off; 0 for margin.
        amount: quote to add; 0 for orders.
        price: the leg's, in quote, at the decision.
        reason: why, in words.
    """

    def __init__(
        self,
        number: int,
        action: str,
        wallet: Wallet,
        leg: Leg,
        quantity: Decimal,
        amount: Decimal,
        reason: str,
        ts_ns: int,
    ) -> None:
        self.number: Final = number
        self.action: Final = action
        self.wallet: Final = wallet.name
        self.symbol: Final = leg.symbol
        self.side: Final = leg.side
        self.quantity: Final = quantity
        self.amount: Final = amount
        self.price: Final = leg.price
        self.worst: Final = wallet.worst
        self.ratio: Final = wallet.ratio
        self.consumed: Final = wallet.consumed
        self.liquidation_price: Final = wallet.liquidation_price(leg)
        self.reason: Final = reason
        self.ts_ns: Final = ts_ns


class ActionLadder:
    """Decides the next action of every wallet that needs one.

    Args:
        limits: thresholds and allowed steps.
        rules: by symbol, as they are when a step is taken; without rules only whole positions
            can be sold.
        first_number: number of the first plan.

    Attributes:
        stuck: names of wallets that need an action and have none left.
    """

    def __init__(
        self, limits: LiquidationLimits, rules: Mapping[str, LotRules], first_number: int = 1
    ) -> None:
        self._limits: Final = limits
        self._rules: Final = rules
        self._next_number = first_number
        self._next_step: dict[str, int] = {}
        self._busy: dict[str, list[int]] = {}
        self._reserved: dict[int, Decimal] = {}
        self.stuck: set[str] = set()

    def in_flight(self, symbol: str) -> bool:
        """Whether an action on a symbol is not over."""
        return symbol in self._busy

    def resume(self, number: int, symbol: str, wallet: str, action: str) -> None:
        """Go on, after a restart, from a plan that the journal left open.

        What is no step of the ladder, such as a stop, takes its number and blocks nothing.
        """
        if action in STEPS:
            self.begin(number, symbol)
            self._next_step[wallet] = (STEPS.index(action) + 1) % len(STEPS)
        self._next_number = max(self._next_number, number + 1)

    def begin(self, number: int, symbol: str) -> None:
        """Count a plan as in flight."""
        self._busy.setdefault(symbol, []).append(number)
        self._next_number = max(self._next_number, number + 1)

    def take_number(self) -> int:
        """Return the number of an action that is not the ladder's, such as a stop's."""
        self._next_number += 1
        return self._next_number - 1

    def settle(self, number: int) -> None:
        """Take note that a plan is over: its order is terminal, or its margin was answered."""
        self._reserved.pop(number, None)
        for symbol, numbers in list(self._busy.items()):
            if number in numbers:
                numbers.remove(number)
            if not numbers:
                del self._busy[symbol]

    def plan(self, wallets: list[Wallet], free: Decimal, now_ns: int) -> list[Plan]:
        """Return the actions due now; each is in flight from here on.

        Args:
            wallets: as measured last.
            free: quote that can be moved to an isolated position.
            now_ns: UTC.
        """
        plans: list[Plan] = []
        for wallet in wallets:
            if wallet.worst < self._limits.act:
                self._next_step.pop(wallet.name, None)
                self.stuck.discard(wallet.name)
            elif wallet.worst >= self._limits.act and self._armed(wallet):
                plans += self._act(wallet, free, now_ns)
        return plans

    def close(self, wallet: Wallet, leg: Leg, reason: str, now_ns: int) -> Plan | None:
        """Return the plan to close one leg, for reasons of its own; None while another runs."""
        if self.in_flight(leg.symbol):
            return None
        return self._order(CLOSE, wallet, leg, leg.size, reason, now_ns)

    def _armed(self, wallet: Wallet) -> bool:
        return not any(self.in_flight(leg.symbol) for leg in wallet.legs)

    def _act(self, wallet: Wallet, free: Decimal, now_ns: int) -> list[Plan]:
        """Take the first step, from the one that is next, that is allowed and possible."""
        start = self._next_step.get(wallet.name, 0)
        for turn in range(len(STEPS)):
            at = (start + turn) % len(STEPS)
            plans = self._step(STEPS[at], wallet, free, now_ns)
            if plans:
                self._next_step[wallet.name] = (at + 1) % len(STEPS)
                self.stuck.discard(wallet.name)
                return plans
        self.stuck.add(wallet.name)
        return []

    def _step(self, step: str, wallet: Wallet, free: Decimal, now_ns: int) -> list[Plan]:
        if step not in self._limits.actions:
            return []
        why = f"{_cause(wallet)} reached {self._limits.act:.0%}"
        if step == REDUCE:
            return [
                self._order(REDUCE, wallet, leg, quantity, why, now_ns)
                for leg, quantity in _to_reduce(wallet)
            ]
        if step == ADD_MARGIN:
            return self._margin(wallet, free, why, now_ns)
        if not wallet.worst >= self._limits.critical:
            return []
        why = f"{_cause(wallet)} reached {self._limits.critical:.0%} and the steps before are used"
        return [
            self._order(CLOSE, wallet, leg, leg.size, why, now_ns) for leg in _worst_legs(wallet)
        ]

    def _order(
        self, action: str, wallet: Wallet, leg: Leg, wanted: Decimal, why: str, now_ns: int
    ) -> Plan:
        rules = self._rules.get(leg.symbol)
        quantity = leg.size
        if rules is not None:
            quantity = rules.cut(wanted, leg.size, Decimal(repr(leg.known_price)))
        return self._begun(action, wallet, leg, quantity, _NONE, why, now_ns)

    def _margin(self, wallet: Wallet, free: Decimal, why: str, now_ns: int) -> list[Plan]:
        if wallet.legs[0].blind:
            return []
        unspoken = free - sum(self._reserved.values(), _NONE)
        amount = (unspoken * _FREE_SHARE).quantize(_CENT, rounding=ROUND_FLOOR)
        if not (wallet.isolated and amount >= _CENT):
            return []
        plan = self._begun(ADD_MARGIN, wallet, wallet.legs[0], _NONE, amount, why, now_ns)
        self._reserved[plan.number] = amount
        return [plan]

    def _begun(
        self,
        action: str,
        wallet: Wallet,
        leg: Leg,
        quantity: Decimal,
        amount: Decimal,
        why: str,
        now_ns: int,
    ) -> Plan:
        plan = Plan(self._next_number, action, wallet, leg, quantity, amount, why, now_ns)
        self.begin(plan.number, leg.symbol)
        return plan


def _cause(wallet: Wallet) -> str:
    return "margin ratio" if wallet.ratio >= wallet.consumed else "margin consumed"


def _to_reduce(wallet: Wallet) -> list[tuple[Leg, Decimal]]:
    """Return legs and the base to take off: of what loses, else of everything."""
    losing: list[tuple[Leg, Decimal]] = []
    others: list[tuple[Leg, Decimal]] = []
    for legs in _by_symbol(wallet):
        net = sum((leg.size * leg.side for leg in legs), _NONE)
        fifth = max(leg.size for leg in legs) * REDUCE_SHARE
        cuts = losing if sum(leg.unrealised for leg in legs) < 0.0 else others
        for leg in legs:
            cut = fifth if net * leg.side >= 0 else fifth - abs(net)
            if cut > 0:
                cuts.append((leg, cut))
    return losing or others


def _worst_legs(wallet: Wallet) -> list[Leg]:
    """Return the legs of the symbols with the lowest unrealised profit, the lowest first."""
    ranked = [(sum(leg.unrealised for leg in legs), legs) for legs in _by_symbol(wallet)]
    ranked.sort(key=_profit)
    return [leg for _, legs in ranked[:CLOSE_COUNT] for leg in legs]


def _profit(ranked: tuple[float, list[Leg]]) -> float:
    return ranked[0]


def _by_symbol(wallet: Wallet) -> list[list[Leg]]:
    found: dict[str, list[Leg]] = {}
    for leg in wallet.legs:
        if not (leg.blind or leg.foreign):  # both sides of a symbol are blind together
            found.setdefault(leg.symbol, []).append(leg)
    return list(found.values())
