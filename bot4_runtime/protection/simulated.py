"""A simulated USD-M account: positions, margin, liquidation, and a venue that answers late.

What it assumes, stated in every report:

- Liquidation is by mark price, when maintenance margin / margin balance reaches 1. The whole
  wallet is then closed at that mark less slippage, taker fee and clearance fee; never below
  nothing, since the insurance fund pays the rest.
- A reduce-only market order fills after its latency, at the mark of that moment less slippage,
  for a taker fee, and at most for what the position holds.
- Cutting an isolated position releases the same share of its margin; the loss and the fee come
  out of that. So a cut alone moves no liquidation price: only added margin does.
- Funding is left out.

Answers can be late, lost or partial (`Faults`), drawn from a seed; the same seed gives the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from random import Random
from typing import Final

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import InvariantViolated, OutcomeUnknown
from bot4_runtime.domain.events import OrderAccepted, OrderClosed, OrderEvent, OrderFilled
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Fill, Liquidity, Order, OrderIntent, OrderType, Side
from bot4_runtime.protection.holdings import Holdings, MarginPosition
from bot4_runtime.risk.brackets import Brackets
from bot4_runtime.risk.ladder import LotRules
from bot4_runtime.risk.margin import Leg, Wallet

NS_PER_MS: Final = 1_000_000
CROSS: Final = "cross"
_ZERO: Final = Decimal(0)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What trading costs, as shares of the notional.

    Attributes:
        taker: fee of a market order.
        slippage: by which a market order fills worse than the mark.
        clearance: fee of a liquidation, on top.
    """

    taker: float = 0.0005
    slippage: float = 0.001
    clearance: float = 0.0125


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How the venue misbehaves.

    Attributes:
        latency_ms: least and largest time until an order or a transfer takes effect.
        ack_loss: chance that the answer to an order is lost; half of those never arrived.
        partial: chance that an order fills for a part only.
        found_after_ms: time after which a lost order's fate is known.
    """

    latency_ms: tuple[int, int] = (300, 300)
    ack_loss: float = 0.0
    partial: float = 0.0
    found_after_ms: int = 3_000


@dataclass(frozen=True, slots=True)
class Liquidated:
    """A wallet that the venue closed.

    Attributes:
        wallet: its name.
        margin_balance: what it held at that mark, in quote.
        left: what remains of it after costs, in quote.
    """

    wallet: str
    ts_ns: int
    margin_balance: float
    left: float


class _Held:
    """One leg of the account."""

    def __init__(self, position: MarginPosition) -> None:
        self.symbol = position.symbol
        self.side = 1 if position.side == "long" else -1
        self.size = position.size
        self.entry = float(position.entry_price)
        own = position.isolated_wallet
        self.isolated = None if own is None else float(own)
        self.stop_price = position.stop_price
        self.stop_live = position.stop_live

    @property
    def name(self) -> str:
        return f"{self.symbol} {'long' if self.side > 0 else 'short'}"


@dataclass(slots=True)
class _Pending:
    """Something that takes effect later: an order (intent), or margin (amount)."""

    due_ns: int
    intent: OrderIntent | None = None
    leg: str = ""
    amount: Decimal = _ZERO
    arrives: bool = True


class SimulatedUsdm:
    """The account and its venue in one; implements `exchange.protocols.Venue`.

    Args:
        holdings: what it begins with.
        brackets: by symbol.
        rules: lot rules by symbol, by which partial fills are cut.
        costs: of trading.
        faults: of the venue.
        seed: of the faults.
    """

    name = "simulated-usdm"
    in_process = False

    def __init__(
        self,
        holdings: Holdings,
        brackets: Mapping[str, Brackets],
        *,
        rules: Mapping[str, LotRules] | None = None,
        costs: Costs | None = None,
        faults: Faults | None = None,
        seed: int = 0,
    ) -> None:
        holdings.check()
        self._brackets = brackets
        self._rules = rules or {}
        self._costs = costs or Costs()
        self._faults = faults or Faults()
        self._random = Random(seed)  # noqa: S311 - simulation
        self._cross = float(holdings.cross_balance)
        self._held = {p.name: _Held(p) for p in holdings.positions}
        self._marks: dict[str, float] = {}
        self._pending: list[_Pending] = []
        self._wallets: list[Wallet] | None = None
        self._now_ns = 0
        self._trades = 0
        self.fees = 0.0

    # ------------------------------------------------------------------ the account
    @property
    def equity(self) -> float:
        """All margin balances together, in quote."""
        return self._cash_alone() + sum(wallet.margin_balance for wallet in self.wallets())

    def equity_at(self, marks: Mapping[str, float]) -> float:
        """Return the equity at other marks, before the first are set."""
        self._marks.update(marks)
        return self.equity

    def mark(self, symbol: str) -> float | None:
        """Return a symbol's mark, in quote."""
        return self._marks.get(symbol)

    @property
    def positions(self) -> dict[str, Decimal]:
        """Signed base quantity by leg."""
        return {name: held.size * held.side for name, held in self._held.items()}

    def wallets(self) -> list[Wallet]:
        """Return the account's wallets, measured at the present marks."""
        if self._wallets is None:
            self._wallets = self._build()
        for wallet in self._wallets:
            for leg in wallet.legs:
                leg.price = self._marks.get(leg.symbol, leg.entry_price)
            wallet.measure()
        return self._wallets

    def holdings(self, now_ns: int) -> Holdings:
        """Return the account as it is now."""
        cross = [wallet for wallet in self.wallets() if not wallet.isolated]
        spare = self._cross if not cross else 0.0  # what backs cross positions is not free
        return Holdings(
            cross_balance=_cents(self._cross),
            free=max(_cents(spare), _ZERO),
            positions=tuple(
                MarginPosition(
                    symbol=held.symbol,
                    side="long" if held.side > 0 else "short",
                    size=held.size,
                    entry_price=Decimal(repr(held.entry)),
                    isolated_wallet=None
                    if held.isolated is None
                    else max(_cents(held.isolated), Decimal("0.00000001")),
                    stop_price=held.stop_price,
                    stop_live=held.stop_live,
                )
                for held in self._held.values()
            ),
            as_of_ns=now_ns,
        )

    def set_marks(self, marks: Mapping[str, float], now_ns: int) -> list[Liquidated]:
        """Move marks; return the wallets that this liquidates."""
        self._now_ns = now_ns
        self._marks.update(marks)
        return self._liquidate()

    # -------------------------------------------------------------------- the venue
    def submit(self, intent: OrderIntent, client_id: str, cash_free: float) -> list[OrderEvent]:
        """Take an order; it fills when `poll` is called after its latency.

        Raises:
            OutcomeUnknown: the answer is lost; the order may be there all the same.
        """
        if not intent.reduce_only:
            raise InvariantViolated(f"intent {intent.intent_no} would open; expected reduce-only")
        if intent.order_type is OrderType.STOP_MARKET:
            self._rest(intent)
        else:
            lost = self._random.random() < self._faults.ack_loss
            arrives = not lost or self._random.random() < 0.5
            wait_ms = max(self._latency(), self._faults.found_after_ms if lost else 0)
            due_ns = intent.ts_ns + wait_ms * NS_PER_MS
            self._pending.append(_Pending(due_ns, intent=intent, arrives=arrives))
            if lost:
                raise OutcomeUnknown(f"the answer to {client_id} was lost")
        return [
            OrderAccepted(
                ts_event_ns=intent.ts_ns,
                intent_no=intent.intent_no,
                venue_order_id=f"sim-{intent.intent_no}",
            )
        ]

    def cancel(self, order: Order, now_ns: int) -> list[OrderEvent]:
        """Market orders cannot be cancelled in time."""
        return []

    def on_candle(
        self, candle: Candle, orders: Sequence[Order], instrument: Instrument
    ) -> list[OrderEvent]:
        """Nothing rests here that a candle could fill."""
        return []

    def add_margin(self, number: int, symbol: str, side: int, amount: Decimal, now_ns: int) -> int:
        """Move quote to an isolated position after the latency."""
        due_ns = now_ns + self._latency() * NS_PER_MS
        leg = f"{symbol} {'long' if side > 0 else 'short'}"
        self._pending.append(_Pending(due_ns, leg=leg, amount=amount))
        return due_ns

    def poll(self, now_ns: int) -> list[OrderEvent]:
        """Let everything that is due take effect; return what became of orders."""
        self._now_ns = now_ns
        due = sorted((p for p in self._pending if p.due_ns <= now_ns), key=lambda p: p.due_ns)
        if not due:
            return []
        self._pending = [p for p in self._pending if p.due_ns > now_ns]
        events: list[OrderEvent] = []
        for pending in due:
            if pending.intent is None:
                self._move(pending)
            elif pending.arrives:
                events += self._fill(pending.intent, now_ns)
            else:
                events.append(_closed(pending.intent, "never_placed", "it never arrived", now_ns))
        return events

    # --------------------------------------------------------------------- in detail
    def _latency(self) -> int:
        return self._random.randint(*self._faults.latency_ms)

    def _rest(self, intent: OrderIntent) -> None:
        held = self._held.get(_leg_of(intent))
        if held is not None:
            held.stop_price, held.stop_live = intent.stop_price, True
            self._wallets = None

    def _move(self, pending: _Pending) -> None:
        held = self._held.get(pending.leg)
        amount = min(float(pending.amount), self._cross)
        if held is not None and held.isolated is not None and amount > 0:
            self._cross -= amount
            held.isolated += amount
            self._wallets = None

    def _fill(self, intent: OrderIntent, now_ns: int) -> list[OrderEvent]:
        held = self._held.get(_leg_of(intent))
        if held is None:
            return [_closed(intent, "expired", "no position is left to reduce", now_ns)]
        quantity = min(intent.quantity, held.size)
        if self._random.random() < self._faults.partial:
            quantity = self._part(intent.symbol, quantity)
        mark = self._marks[held.symbol]
        price = mark * (1.0 - held.side * self._costs.slippage)
        self._reduce(held, quantity, price)
        self._trades += 1
        events: list[OrderEvent] = [
            OrderFilled(
                ts_event_ns=now_ns,
                fill=Fill(
                    trade_id=str(self._trades),
                    intent_no=intent.intent_no,
                    book=intent.book,
                    symbol=intent.symbol,
                    side=intent.side,
                    price=Decimal(repr(price)),
                    quantity=quantity,
                    fee=Decimal(repr(float(quantity) * price * self._costs.taker)),
                    fee_asset="USDT",
                    liquidity=Liquidity.TAKER,
                    ts_event_ns=now_ns,
                ),
            )
        ]
        if quantity < intent.quantity:
            events.append(_closed(intent, "expired", "the rest found no counterparty", now_ns))
        return events

    def _part(self, symbol: str, quantity: Decimal) -> Decimal:
        rules = self._rules.get(symbol)
        if rules is None:
            return quantity
        share = Decimal(repr(self._random.random()))
        lots = (quantity * share / rules.step).to_integral_value(rounding=ROUND_FLOOR)
        return max(lots * rules.step, rules.step)

    def _reduce(self, held: _Held, quantity: Decimal, price: float) -> None:
        share = float(quantity / held.size)
        fee = float(quantity) * price * self._costs.taker
        gained = float(quantity) * held.side * (price - held.entry) - fee
        self.fees += fee
        if held.isolated is None:
            self._cross += gained
        else:
            released = held.isolated * share + gained
            held.isolated *= 1.0 - share
            if released < 0.0:  # the rest of its margin pays first
                held.isolated += released
                released = 0.0
            self._cross += released
        held.size -= quantity
        if held.size == 0:
            if held.isolated is not None:
                self._cross += held.isolated
            del self._held[held.name]
        self._wallets = None

    def _liquidate(self) -> list[Liquidated]:
        found: list[Liquidated] = []
        for wallet in self.wallets():
            if wallet.ratio < 1.0:
                continue
            notional = sum(leg.quantity * leg.price for leg in wallet.legs)
            costs = notional * (self._costs.taker + self._costs.slippage + self._costs.clearance)
            left = max(wallet.margin_balance - costs, 0.0)
            for leg in wallet.legs:
                del self._held[leg.name]
            self._cross = self._cross + left if wallet.isolated else left
            found.append(Liquidated(wallet.name, self._now_ns, wallet.margin_balance, left))
        if found:
            self._wallets = None
        return found

    def _cash_alone(self) -> float:
        """Return what no wallet counts: the balance, while there is no cross position."""
        return 0.0 if any(h.isolated is None for h in self._held.values()) else self._cross

    def _build(self) -> list[Wallet]:
        wallets: list[Wallet] = []
        cross: list[Leg] = []
        for held in self._held.values():
            leg = Leg(held.symbol, held.side, held.size, held.entry, self._brackets[held.symbol])
            if held.isolated is None:
                cross.append(leg)
            else:
                wallets.append(Wallet(held.name, held.isolated, [leg], isolated=True))
        if cross:
            wallets.append(Wallet(CROSS, self._cross, cross, isolated=False))
        return wallets


def _leg_of(intent: OrderIntent) -> str:
    return f"{intent.symbol} {'long' if intent.side is Side.SELL else 'short'}"


def _closed(intent: OrderIntent, status: str, reason: str, now_ns: int) -> OrderClosed:
    return OrderClosed(
        ts_event_ns=now_ns, intent_no=intent.intent_no, status=status, reason=reason
    )


def _cents(amount: float) -> Decimal:
    return Decimal(repr(amount)).quantize(Decimal("0.00000001"), rounding=ROUND_FLOOR)
