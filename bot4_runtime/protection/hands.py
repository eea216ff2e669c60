"""Hands of protection where no engine is: risk approves, a gate of its own sends."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Protocol

from bot4_runtime.domain.client_id import client_id
from bot4_runtime.domain.events import OrderEvent, OrderIntended
from bot4_runtime.domain.order import payload_hash
from bot4_runtime.exchange.gate import Gate
from bot4_runtime.protection.orders import exit_view, reducing
from bot4_runtime.risk.manager import RiskApproved, RiskManager
from bot4_runtime.risk.margin import Leg, Wallet


class MarginVenue(Protocol):
    """Where margin of an isolated position is changed; orders go through the gate."""

    def add_margin(self, number: int, symbol: str, side: int, amount: Decimal, now_ns: int) -> int:
        """Move quote to an isolated position; return the venue's time from which it counts.

        Raises VenueRefused, VenueUnreachable or OutcomeUnknown.
        """
        ...


class GateHands:
    """Carries out plans by a gate.

    Args:
        risk: approves every order.
        gate: sends it and nothing else; its venue is the account's.
        margin: moves margin.
        epoch: of this process, for the orders' names.
    """

    def __init__(self, *, risk: RiskManager, gate: Gate, margin: MarginVenue, epoch: int) -> None:
        self._risk = risk
        self._gate = gate
        self._epoch = epoch
        self._approved: dict[int, RiskApproved] = {}
        self.add_margin = margin.add_margin

    def busy(self, symbol: str) -> bool:
        """Return False: nobody else sells."""
        return False

    def make(
        self, number: int, action: str, wallet: Wallet, leg: Leg, quantity: Decimal, ts_ns: int
    ) -> OrderIntended | str:
        """Have an order approved; return risk's words where it refuses."""
        intent = reducing(number, leg, quantity, ts_ns, action)
        verdict = self._risk.validate(intent, exit_view(wallet, leg, ts_ns))
        if not isinstance(verdict, RiskApproved):
            return verdict.text
        self._approved[intent.intent_no] = verdict
        return OrderIntended(
            ts_event_ns=ts_ns,
            intent=intent,
            client_id=client_id(self._epoch, intent.intent_no),
            payload_hash=payload_hash(intent),
        )

    def send(self, intended: OrderIntended) -> Iterable[OrderEvent]:
        """Send an order that was approved."""
        approved = self._approved.pop(intended.intent.intent_no)
        return self._gate.send(approved, intended, durable=True, cash_free=0.0)
