"""Everything that can happen, in four families: market data, orders, risk, system.

Events are frozen, tagged msgspec structs: the same objects go over the bus, into the
journal and back. `ts_event_ns` is when it happened (venue or candle time), UTC.
Changing the meaning of a field needs a new `SCHEMA_VERSION` and a golden journal.
"""

from decimal import Decimal
from typing import Final

import msgspec

from bot4_runtime.domain.account import Difference
from bot4_runtime.domain.candle import Candle, Origin
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, Fill, OrderIntent
from bot4_runtime.domain.portfolio import BreakerState
from bot4_runtime.domain.regime import RegimeEstimate
from bot4_runtime.domain.signal import TradingSignal

SCHEMA_VERSION: Final = 1
"""Version of the journaled forms below."""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    """Base of all events."""

    ts_event_ns: int


# ------------------------------------------------------------------ market data
class CandleClosed(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """A candle closed. `ts_event_ns` is its close time."""

    candle: Candle


class GapSeen(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """Candles are missing between two that arrived; windows restart after it."""

    symbol: str
    interval: str
    from_ms: int
    to_ms: int


# ----------------------------------------------------------------------- orders
class OrderIntended(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """An approved intent; it must be durable before the order is sent."""

    intent: OrderIntent
    client_id: str
    payload_hash: str


class OrderAccepted(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """The venue holds the order."""

    intent_no: int
    venue_order_id: str


class OrderRejected(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """The venue refused the order."""

    intent_no: int
    code: str
    reason: str


class OrderFilled(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """An execution; exactly once per venue trade id."""

    fill: Fill


class OrderClosed(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """The order ended unfilled or partly filled: ``canceled``, ``expired``, ``never_placed``."""

    intent_no: int
    status: str
    reason: str


class OrderOutcomeUnknown(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """Sent, and the result is not known; its quantity stays reserved."""

    intent_no: int
    reason: str


class CancelRequested(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """We asked the venue to cancel; may be repeated."""

    intent_no: int
    reason: str


# ------------------------------------------------------------------------- risk
class SignalDecided(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """The validator's verdict on an entry signal, with its numbers.

    Attributes:
        code: ``APPROVED`` or the reason of the rejection (``NO_EVIDENCE``, …).
        numbers: what was compared, by name; a missing number is None, never 0.
    """

    signal: TradingSignal
    approved: bool
    code: str
    text: str
    suggestion: str
    numbers: dict[str, float | None]


class RiskDecided(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """The risk manager's verdict on an intent.

    Attributes:
        code: ``APPROVED`` or the limit that refused.
        would_pass_size: base quantity that would pass; 0 when none would.
    """

    book: Book
    signal_id: str
    symbol: str
    quantity: Decimal
    approved: bool
    code: str
    limit: float
    value: float
    would_pass_size: Decimal
    risk_score: float


class OverrideSet(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """The operator tightened limits of risk, or halted entries, until the order expires.

    Attributes:
        expires_ts_ns: UTC; from then on it has no effect. Nothing else lifts it.
        halt: no entries at all.
        limits: the tightened ones, by name.
        command_id: the operator's; the same order is obeyed once.
    """

    reason: str
    command_id: str
    expires_ts_ns: int
    halt: bool
    limits: dict[str, float]


class BreakerChanged(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """A book's circuit breaker moved."""

    book: Book
    state: BreakerState


class ProtectionAlarm(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """Liquidation prevention has something that people must know.

    Attributes:
        severity: ``info``, ``warning`` or ``critical``.
        code: what happened; `bot4_runtime.risk.alarm` has the codes.
        subject: the wallet, symbol or leg it is about.
        numbers: what was compared, by name; a number that is not known is None.
    """

    severity: str
    code: str
    subject: str
    text: str
    numbers: dict[str, float | None]


class ProtectionPlanned(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """An action against liquidation; it must be durable before it is performed.

    Attributes:
        number: counts up from 1 over the account's life; its intent has a number of its own.
        action: ``reduce``, ``add_margin``, ``close`` or ``place_stop``.
        wallet: the margin it protects: ``cross``, or an isolated leg.
        intent: the approved order; None for margin.
        client_id: the name the venue knows the order by; empty for margin.
        amount: quote moved to the position; 0 for orders.
        reason: why, in words.
        numbers: the measures it was decided by; one that is not known is None.
    """

    number: int
    action: str
    wallet: str
    symbol: str
    intent: OrderIntent | None
    client_id: str
    payload_hash: str
    amount: Decimal
    reason: str
    numbers: dict[str, float | None]


class ProtectionSettled(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """A planned action is over, and the account was read after it.

    Attributes:
        status: terminal `OrderStatus` of its order; ``filled`` or ``rejected`` for margin;
            ``accepted`` for a stop, which rests.
        filled: base taken off.
        spent: sum of price x quantity of its fills, in quote.
    """

    number: int
    status: str
    filled: Decimal
    spent: Decimal
    text: str


# ----------------------------------------------------------------------- system
class SessionStarted(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """A process began to write this journal.

    Attributes:
        origin: whether its candles come from a real market.
        config_hash: sha256 of the settings that shape trading; a restart must match.
        warm_from_ms: open time from which features are warmed; the same after a restart.
        start_ms: open time of the first candle decided on; the same after a restart.
        initial_cash: what each book starts with, in quote; only the first session's counts.
    """

    epoch: int
    mode: str
    source: str
    origin: Origin
    strategy: str
    config_hash: str
    schema_version: int
    warm_from_ms: int
    start_ms: int
    quote: str
    initial_cash: Decimal
    books: tuple[Book, ...]


class SessionEnded(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """A process stopped in order."""

    epoch: int
    reason: str


class InstrumentDefined(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """Trading rules a symbol is traded by from here on."""

    instrument: Instrument


class RegimeNamed(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """A causal regime estimate."""

    estimate: RegimeEstimate


class ModelPromoted(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """From here on this verified pair of models trades: at first, or swapped between two candles.

    Attributes:
        hmm_sha256: empty when no pair may name regimes any more: nothing is entered.
        former_hmm_sha256: of the pair that comes back should this one fail; empty without one.
    """

    interval: str
    hmm_sha256: str
    lstm_sha256: str
    schema_id: str
    former_hmm_sha256: str = ""
    former_lstm_sha256: str = ""

    @property
    def shas(self) -> tuple[str, str]:
        """The two files, HMM first."""
        return self.hmm_sha256, self.lstm_sha256

    @property
    def former_shas(self) -> tuple[str, str]:
        """The two files of the way back, HMM first."""
        return self.former_hmm_sha256, self.former_lstm_sha256


OF_WHAT_TRADES: Final = ("kept", "rolled back", "left")
"""Outcomes of a pair that trades; the others are of one that waits to."""


class ModelTrial(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """What became of a promoted pair of models: tried beside the one that trades, then judged.

    Attributes:
        outcome: ``refused`` before it was tried or after, ``begun``, ``adopted``, ``kept`` once
            the former pair is not needed beside it any more, ``rolled back`` to that one, or
            ``left`` where there was no way back, so that no pair trades.
        hmm_sha256: of the pair that is judged; empty when the pointer itself is unreadable.
        candles: closing times it was compared on.
        agreement: share of the last answers that named the same regime; None without any.
        latency_ms: median time of an answer; None before there were enough.
        reason: in words, empty when nothing was wrong.
        activated_ms: when the pair was promoted (UTC, of the pointer), which tells one promotion
            of it from the next; 0 when the pointer names another.
    """

    interval: str
    hmm_sha256: str
    lstm_sha256: str
    outcome: str
    candles: int = 0
    agreement: float | None = None
    latency_ms: float | None = None
    reason: str = ""
    activated_ms: int = 0

    @property
    def shas(self) -> tuple[str, str]:
        """The two files, HMM first."""
        return self.hmm_sha256, self.lstm_sha256


class Reconciled(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """The account at the venue was read whole, its trades booked, and the rest compared.

    Attributes:
        trades_through: trade id up to which all trades were read, by symbol.
        opening: amounts by asset the venue held before our first trade; None after the first.
        differences: what does not agree; entries wait while there are any.
    """

    trades_through: dict[str, int]
    opening: dict[str, Decimal] | None
    differences: tuple[Difference, ...]


class FundingPaid(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """Funding moved a wallet of USD-M; exactly once per symbol and transaction id.

    `ts_event_ns` is the time the venue names for it.

    Attributes:
        asset: of the wallet, and of the amount.
        amount: negative when it was paid.
        transaction_id: the venue's, unique among an account's fundings.
        ours: whether a position of this journal was behind it. What was not moves the amount
            expected at the venue, and no book.
    """

    symbol: str
    asset: str
    amount: Decimal
    transaction_id: int
    ours: bool

    @property
    def key(self) -> str:
        """What identifies it."""
        return f"{self.symbol}:{self.transaction_id}"


class OperatorCommand(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """An operator's order; it can only tighten, reduce, halt, or resume.

    Attributes:
        verb: ``halt``, ``resume``, ``flatten``, ``reset_peak``, or ``accept``: take the venue's
            word for all differences found.
    """

    verb: str
    reason: str
    command_id: str


class Heartbeat(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """The loop lives. Never journaled."""

    events_total: int


class HandlerFailed(Event, frozen=True, kw_only=True, gc=False, tag=True):
    """A bus subscriber raised. Never journaled."""

    event_type: str
    handler: str
    error: str


MarketEvent = CandleClosed | GapSeen
OrderEvent = (
    OrderIntended
    | OrderAccepted
    | OrderRejected
    | OrderFilled
    | OrderClosed
    | OrderOutcomeUnknown
    | CancelRequested
)
ProtectionEvent = ProtectionAlarm | ProtectionPlanned | ProtectionSettled
RiskEvent = SignalDecided | RiskDecided | OverrideSet | BreakerChanged | ProtectionEvent
SystemEvent = (
    SessionStarted
    | SessionEnded
    | InstrumentDefined
    | RegimeNamed
    | ModelPromoted
    | ModelTrial
    | Reconciled
    | FundingPaid
    | OperatorCommand
)
JournaledEvent = MarketEvent | OrderEvent | RiskEvent | SystemEvent
AnyEvent = JournaledEvent | Heartbeat | HandlerFailed
