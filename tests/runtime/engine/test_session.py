"""What a run leaves in its journal: intents before orders, stops behind positions, one story."""

from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.domain.events import (
    BreakerChanged,
    CandleClosed,
    GapSeen,
    OrderAccepted,
    OrderFilled,
    OrderIntended,
    RiskDecided,
    SessionEnded,
    SignalDecided,
)
from bot4_runtime.domain.order import Book, OrderType, Purpose, Side
from bot4_runtime.domain.portfolio import BreakerPhase
from bot4_runtime.engine import trades_since
from bot4_runtime.report.record import gather
from bot4_runtime.settings import Settings, load_settings
from bot4_runtime.state.trading_state import TradingState


def test_a_drill_trades_and_ends_where_its_journal_leads(
    tmp_path: Path, run_it, journal_of
) -> None:
    result = run_it(tmp_path / "run")
    record = gather(journal_of(tmp_path / "run"))
    assert result.candles == record.candles == 3 * (1500 - 700)
    assert not result.stopped
    assert record.state.state_hash() == result.state_hash
    book = record.books[Book.VALIDATED]
    assert len(book.fills) > 100
    assert {t.exit_reason for t in book.trades} == {"signal", "stop"}
    assert {i.order_type for i in book.intents} == set(OrderType)


def test_the_same_inputs_give_the_same_state_and_the_same_decisions(
    tmp_path: Path, run_it, journal_of, settings
) -> None:
    first = run_it(tmp_path / "one")
    elsewhere = settings.model_copy(update={"home": tmp_path / "another home"})
    second = run_it(tmp_path / "two", with_=elsewhere)
    assert first.state_hash == second.state_hash
    kinds = (SignalDecided, RiskDecided, OrderIntended, OrderFilled)
    one, two = (
        [e for e in journal_of(tmp_path / name) if isinstance(e, kinds)] for name in ("one", "two")
    )
    assert one == two


@pytest.mark.parametrize("stop_after", [1, 37, 500, 1777])
def test_a_stopped_run_continues_to_the_same_end(tmp_path: Path, run_it, stop_after: int) -> None:
    whole = run_it(tmp_path / "whole")
    part = run_it(tmp_path / "parts", stop_after=stop_after)
    assert part.stopped
    assert part.candles == stop_after
    rest = run_it(tmp_path / "parts")
    assert rest.candles == whole.candles - stop_after
    assert rest.state_hash == whole.state_hash


def test_every_intent_is_journaled_before_anything_happens_to_it(
    tmp_path: Path, run_it, journal_of
) -> None:
    run_it(tmp_path)
    known: set[int] = set()
    for event in journal_of(tmp_path):
        if isinstance(event, OrderIntended):
            assert event.intent.intent_no not in known
            known.add(event.intent.intent_no)
        elif isinstance(event, OrderAccepted):
            assert event.intent_no in known
        elif isinstance(event, OrderFilled):
            assert event.fill.intent_no in known


def test_every_entry_was_approved_by_validator_and_risk(
    tmp_path: Path, run_it, journal_of
) -> None:
    run_it(tmp_path)
    validated: set[str] = set()
    passed: set[str] = set()
    for event in journal_of(tmp_path):
        if isinstance(event, SignalDecided) and event.approved:
            validated.add(event.signal.signal_id)
        elif isinstance(event, RiskDecided) and event.approved:
            passed.add(event.signal_id)
        elif isinstance(event, OrderIntended) and event.intent.purpose is Purpose.ENTRY:
            assert event.intent.signal_id in passed
            assert event.intent.book is Book.SHADOW or event.intent.signal_id in validated
            assert event.intent.stop_loss is not None


def test_what_is_held_has_a_live_stop_or_is_being_sold_after_each_candle(
    tmp_path: Path, run_it, journal_of
) -> None:
    run_it(tmp_path)
    state = TradingState()
    checked = 0
    events = journal_of(tmp_path)
    for event, following in zip(events, [*events[1:], None], strict=True):
        state.apply(event)
        ended = isinstance(following, CandleClosed | GapSeen | SessionEnded)
        if not ended or isinstance(following, SessionEnded):
            continue
        for book in state.books.values():
            for held in book.positions.values():
                instrument = state.instruments[held.symbol]
                covered = sum(
                    (
                        o.open_quantity
                        for o in state.live_orders(held.symbol, book.book)
                        if o.intent.reduce_only
                    ),
                    Decimal(0),
                )
                bare = held.quantity - covered
                assert (
                    bare < instrument.step_size
                    or bare * held.stop_price < instrument.min_notional * 2
                )
                checked += 1
    assert checked > 200


def test_no_book_ever_exceeds_its_limits_and_cash_is_never_spent_twice(
    tmp_path: Path, run_it, journal_of, settings: Settings
) -> None:
    run_it(tmp_path)
    state = TradingState()
    limits = settings.risk.limits()
    for event in journal_of(tmp_path):
        state.apply(event)
        if isinstance(event, OrderIntended) and event.intent.purpose is Purpose.ENTRY:
            book = state.books[event.intent.book]
            worst = event.intent.quantity * event.intent.worst_price
            assert float(worst) <= limits.max_position_pct * float(book.metrics.equity) * 1.0001
        for book in state.books.values():
            assert state.cash_free(book.book) >= 0
            assert all(held.quantity > 0 for held in book.positions.values())


def test_money_is_conserved(tmp_path: Path, run_it, journal_of) -> None:
    run_it(tmp_path)
    record = gather(journal_of(tmp_path))
    for name, kept in record.books.items():
        cash = record.sessions[0].initial_cash
        base: dict[str, Decimal] = defaultdict(Decimal)
        for fill in kept.fills:
            sign = fill.side.sign
            cash -= sign * fill.price * fill.quantity
            base[fill.symbol] += sign * fill.quantity
            if fill.side is Side.BUY:
                assert fill.fee_asset == fill.symbol.removesuffix("USDT")
                base[fill.symbol] -= fill.fee
            else:
                cash -= fill.fee
        book = record.state.books[name]
        assert book.cash == cash
        for symbol, quantity in base.items():
            held = book.positions[symbol].quantity if symbol in book.positions else Decimal(0)
            assert held + book.dust.get(symbol.removesuffix("USDT"), Decimal(0)) == quantity


def test_without_evidence_every_entry_is_rejected_and_the_shadow_book_trades_it(
    tmp_path: Path, run_it, journal_of
) -> None:
    plain = load_settings(
        environment={
            "BOT4_HOME": str(tmp_path / "home"),
            "BOT4_RUNTIME__STRATEGY": f"{__name__}:Unproven",
            "BOT4_RISK__MAX_CORRELATION": "1.0",
        }
    )
    run_it(tmp_path / "run", with_=plain)
    record = gather(journal_of(tmp_path / "run"))
    assert {d.code for d in record.decisions} == {"NO_EVIDENCE"}
    assert record.books[Book.VALIDATED].fills == []
    assert len(record.books[Book.SHADOW].fills) > 50


def test_three_losses_in_a_row_open_the_breaker_and_entries_wait(
    tmp_path: Path, run_it, journal_of
) -> None:
    run_it(tmp_path)
    tripped_ns: dict[Book, int] = {}
    trips = 0
    for event in journal_of(tmp_path):
        if isinstance(event, BreakerChanged):
            if event.state.phase is BreakerPhase.OPEN:
                tripped_ns[event.book] = event.ts_event_ns + event.state.cooldown_s * 10**9
                trips += 1
            else:
                tripped_ns.pop(event.book, None)
        elif isinstance(event, OrderIntended) and event.intent.purpose is Purpose.ENTRY:
            assert event.intent.book not in tripped_ns
    assert trips > 0


def test_only_what_was_opened_since_the_cooldown_probes(
    tmp_path: Path, run_it, journal_of, settings: Settings
) -> None:
    risk = settings.risk.model_copy(update={"cooldown_s": 3_600})
    run_it(tmp_path, with_=settings.model_copy(update={"risk": risk}))
    state = TradingState()
    probed = older = 0
    for event in journal_of(tmp_path):
        book = state.books.get(event.book) if isinstance(event, BreakerChanged) else None
        if book is not None and book.breaker.phase is not BreakerPhase.CLOSED:
            before, after = book.breaker, event.state
            over_ns = before.tripped_ts_ns + before.cooldown_s * 10**9
            fresh = trades_since(book, before.trades_seen)
            probes = [trade for trade in fresh if trade.opened_ts_ns >= over_ns]
            lost = after.reason == "PROBE_LOST" and after.tripped_ts_ns > before.tripped_ts_ns
            if after.phase is BreakerPhase.CLOSED or lost:
                assert probes
                probed += 1
            elif before.phase is BreakerPhase.HALF_OPEN:
                older += len(fresh) > len(probes)
        state.apply(event)
    assert probed > 0
    assert older > 0


def test_a_gap_is_told_and_nothing_is_invented_for_it(
    tmp_path: Path, run_it, journal_of, make_market
) -> None:
    import polars as pl

    folder = make_market(tmp_path / "gappy", ("AAAUSDT",), 1000)
    path = folder / "AAAUSDT.parquet"
    whole = pl.read_parquet(path)
    pl.concat([whole[:800], whole[810:]]).write_parquet(path)
    result = run_it(tmp_path / "run", source=folder)
    assert result.candles == 290
    (gap,) = [e for e in journal_of(tmp_path / "run") if isinstance(e, GapSeen)]
    assert (gap.from_ms, gap.to_ms) == (whole["timestamp"][800], whole["timestamp"][810])


def test_another_strategy_on_the_same_account_is_refused(
    tmp_path: Path, run_it, settings: Settings
) -> None:
    run_it(tmp_path / "run", stop_after=5)
    other = settings.model_copy(
        update={
            "runtime": settings.runtime.model_copy(update={"strategy": f"{__name__}:Unproven"})
        }
    )
    with pytest.raises(ConfigError, match="--account"):
        run_it(tmp_path / "run", with_=other)


def test_an_account_is_held_by_one_runtime(tmp_path: Path, run_it, settings: Settings) -> None:
    from bot4_runtime.domain.errors import JournalLocked
    from bot4_runtime.state.sqlite import AccountLock

    lock = AccountLock(settings.home / "locks" / "paper.lock", "paper")
    try:
        with pytest.raises(JournalLocked, match="held by another runtime"):
            run_it(tmp_path / "run")
    finally:
        lock.close()


def test_an_empty_folder_and_a_missing_one_are_named(tmp_path: Path, run_it) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run_it(tmp_path / "run", source=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        run_it(tmp_path / "run", source=tmp_path / "empty")


class Unproven:
    """The drill's schedule under a rule nobody has evidence of."""

    name = "unproven"
    needs_models = False
    synthetic_rules: tuple[str, ...] = ()

    def __init__(self) -> None:
        from bot4_runtime.strategy.drill import Drill

        self._drill = Drill()

    def warm(self, candle) -> None:
        self._drill.warm(candle)

    def on_candle(self, candle):
        import msgspec

        return [
            msgspec.structs.replace(s, rule_id="unproven") for s in self._drill.on_candle(candle)
        ]

    def on_regime(self, estimate, previous, candle):
        return ()


@pytest.mark.parametrize("strategy", ["drill", "unproven"])
def test_the_breaker_counts_every_round_trip_once(
    tmp_path: Path, run_it, journal_of, settings: Settings, strategy: str
) -> None:
    named = "drill" if strategy == "drill" else f"{__name__}:Unproven"
    runtime = settings.runtime.model_copy(update={"strategy": named})
    run_it(tmp_path, with_=settings.model_copy(update={"runtime": runtime}))
    record = gather(journal_of(tmp_path))
    for name, kept in record.books.items():
        losses = 0
        for trade in kept.trades:
            losses = 0 if trade.pnl > 0 else losses + (trade.pnl < 0)
        assert record.state.books[name].breaker.loss_streak == losses
