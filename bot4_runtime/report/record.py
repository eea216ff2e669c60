"""What a run's journal says happened, gathered in one pass.

The journal is folded a second time, so a report is also a check of the fold; nothing is
taken from the process that traded.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from bot4_runtime.domain.events import (
    BreakerChanged,
    CandleClosed,
    FundingPaid,
    GapSeen,
    JournaledEvent,
    ModelPromoted,
    OrderFilled,
    OrderIntended,
    OrderRejected,
    RegimeNamed,
    RiskDecided,
    SessionStarted,
    SignalDecided,
)
from bot4_runtime.domain.order import Book, Fill, OrderIntent
from bot4_runtime.domain.portfolio import BreakerPhase
from bot4_runtime.domain.position import ClosedTrade
from bot4_runtime.engine import trades_since
from bot4_runtime.state.trading_state import TradingState


@dataclass(slots=True)
class BookRecord:
    """One book's run. Equity in quote at each distinct close time of `RunRecord.times_ms`.

    Attributes:
        verdicts: risk's codes by what was asked (signal, time), in order: the last is final.
        rejections: orders by the gate's or the venue's code.
    """

    equity: list[float] = field(default_factory=list)
    intents: list[OrderIntent] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    trades: list[ClosedTrade] = field(default_factory=list)
    verdicts: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    rejections: Counter[str] = field(default_factory=Counter)
    trips: list[BreakerChanged] = field(default_factory=list)


@dataclass(slots=True)
class RunRecord:
    """Everything a report tells.

    Attributes:
        times_ms: distinct candle close times, ascending.
        closes: symbol to (close time ms, close in quote), ascending.
        regimes: symbol to (close time ms, regime), ascending.
        state: the state at the end of the journal.
        book_of: of each intent, by its number.
    """

    state: TradingState = field(default_factory=TradingState)
    sessions: list[SessionStarted] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    candles: int = 0
    closes: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    regimes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    regime_counts: Counter[int] = field(default_factory=Counter)
    estimate_sources: Counter[str] = field(default_factory=Counter)
    decisions: list[SignalDecided] = field(default_factory=list)
    gaps: list[GapSeen] = field(default_factory=list)
    promotions: list[ModelPromoted] = field(default_factory=list)
    books: dict[Book, BookRecord] = field(default_factory=dict)
    book_of: dict[int, Book] = field(default_factory=dict)


def gather(events: Iterable[JournaledEvent]) -> RunRecord:
    """Fold a journal's events and keep what reports tell."""
    record = RunRecord()
    state = record.state
    for event in events:
        if isinstance(event, CandleClosed):
            _close_time(record, event.candle.close_time_ms)
        closed = {book: state.books[book].trades_total for book in record.books}
        state.apply(event)
        for book, before in closed.items():
            record.books[book].trades.extend(trades_since(state.books[book], before))
        _keep(record, event)
    _sample(record)
    return record


def _close_time(record: RunRecord, close_ms: int) -> None:
    """Sample equity once all candles of a time were folded."""
    if record.times_ms and record.times_ms[-1] == close_ms:
        return
    _sample(record)
    record.times_ms.append(close_ms)


def _sample(record: RunRecord) -> None:
    for book, kept in record.books.items():
        if len(kept.equity) < len(record.times_ms):
            kept.equity.append(float(record.state.books[book].metrics.equity))


def _keep(record: RunRecord, event: JournaledEvent) -> None:  # noqa: C901, PLR0912 - a closed set
    match event:
        case CandleClosed(candle=candle):
            record.candles += 1
            record.closes.setdefault(candle.symbol, []).append(
                (candle.close_time_ms, candle.close)
            )
        case RegimeNamed(estimate=estimate):
            record.regime_counts[estimate.regime] += 1
            record.estimate_sources[estimate.source.value] += 1
            seen = record.regimes.setdefault(estimate.symbol, [])
            seen.append((event.ts_event_ns // 1_000_000, int(estimate.regime)))
        case SignalDecided():
            record.decisions.append(event)
        case RiskDecided():
            asked = (event.signal_id, event.ts_event_ns)
            record.books[event.book].verdicts.setdefault(asked, []).append(event.code)
        case OrderIntended(intent=intent):
            record.books[intent.book].intents.append(intent)
            record.book_of[intent.intent_no] = intent.book
        case OrderRejected(intent_no=intent_no, code=code):
            record.books[record.book_of[intent_no]].rejections[code] += 1
        case OrderFilled(fill=fill):
            record.books[fill.book].fills.append(fill)
        case FundingPaid(ours=True):  # of a round trip that ended, perhaps
            closed = record.state.books[Book.VALIDATED].closed_trades
            trades = record.books[Book.VALIDATED].trades
            trades[len(trades) - len(closed) :] = closed
        case BreakerChanged(state=breaker):
            if breaker.phase is BreakerPhase.OPEN:
                record.books[event.book].trips.append(event)
        case GapSeen():
            record.gaps.append(event)
        case ModelPromoted():
            record.promotions.append(event)
        case SessionStarted():
            record.sessions.append(event)
            for book in event.books:
                record.books.setdefault(book, BookRecord())
        case _:
            pass
