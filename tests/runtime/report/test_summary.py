"""A run's numbers, counted again by hand from its journal."""

import json
from collections import Counter, defaultdict
from decimal import Decimal
from itertools import pairwise

import msgspec
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import (
    BreakerChanged,
    CandleClosed,
    FundingPaid,
    GapSeen,
    InstrumentDefined,
    OrderFilled,
    OrderIntended,
    OrderRejected,
    RiskDecided,
    SessionStarted,
    SignalDecided,
)
from bot4_runtime.domain.order import Book, Side
from bot4_runtime.domain.portfolio import BreakerPhase
from bot4_runtime.exchange.paper_model import PaperModel
from bot4_runtime.report.html import render
from bot4_runtime.report.record import gather
from bot4_runtime.report.summary import buy_and_hold, daily_equity, drawdowns, held, summarise
from bot4_runtime.signals.statistics import RISK_FREE
from bot4_runtime.state.trading_state import TradingState

CENT = Decimal("0.000001")
BOOKS = (Book.VALIDATED, Book.SHADOW)


@pytest.fixture(scope="module")
def summary(run):
    return summarise(gather(run.events), models=None, paper=PaperModel())


def of(run, kind):
    return [event for event in run.events if isinstance(event, kind)]


def equity_by_hand(run, book: Book) -> dict[int, Decimal]:
    """Cash and holdings at the last closes; what is too small to sell is no part of equity."""
    cash, held, marks = Decimal(100_000), defaultdict(Decimal), {}
    state = TradingState()
    curve: dict[int, Decimal] = {}
    for event in run.events:
        state.apply(event)
        if isinstance(event, CandleClosed):
            marks[event.candle.symbol] = Decimal(repr(event.candle.close))
            now = event.candle.close_time_ms
        elif isinstance(event, OrderFilled) and event.fill.book is book:
            fill, sign = event.fill, event.fill.side.sign
            cash -= sign * fill.price * fill.quantity
            held[fill.symbol] += sign * fill.quantity
            if fill.side is Side.BUY:
                held[fill.symbol] -= fill.fee
            else:
                cash -= fill.fee
        if marks:
            dust = state.books[book].dust
            curve[now] = cash + sum(
                (q - dust.get(s.removesuffix("USDT"), Decimal(0))) * marks[s]
                for s, q in held.items()
            )
    return curve


def test_counts_are_those_of_the_journal(run, summary) -> None:
    assert summary["candles"] == len(of(run, CandleClosed))
    assert summary["gaps"] == len(of(run, GapSeen)) == 2
    times = sorted({e.candle.close_time_ms for e in of(run, CandleClosed)})
    assert (summary["from_ms"], summary["to_ms"]) == (times[0], times[-1])
    assert summary["symbols"] == ["AAAUSDT", "BBBUSDT"]
    decided = of(run, SignalDecided)
    assert summary["signals"]["entries"] == len(decided)
    assert summary["signals"]["approved"] == sum(e.approved for e in decided)
    assert summary["signals"]["rejected"] == dict(
        Counter(e.code for e in decided if not e.approved)
    )
    for book in BOOKS:
        told = summary["books"][book.value]
        fills = [e.fill for e in of(run, OrderFilled) if e.fill.book is book]
        assert told["fills"] == len(fills)
        assert told["orders"] == sum(e.intent.book is book for e in of(run, OrderIntended))
        assert told["orders_filled"] == len({f.intent_no for f in fills})
        by_side = Counter(f.liquidity.value for f in fills)
        assert told["fills_by_liquidity"] == {"maker": by_side["maker"], "taker": by_side["taker"]}
        answers = defaultdict(list)
        for e in of(run, RiskDecided):
            if e.book is book:
                answers[e.signal_id, e.ts_event_ns].append(e)
        assert told["risk"] == dict(Counter(asked[-1].code for asked in answers.values()))
        smaller = [a for a in answers.values() if a[-1].approved and not a[0].approved]
        assert all(a[-1].quantity < a[0].quantity for a in smaller)
        assert told["made_smaller"] == len(smaller)
        trips = [e for e in of(run, BreakerChanged) if e.state.phase is BreakerPhase.OPEN]
        assert sum(told["breaker_trips"].values()) == sum(e.book is book for e in trips)


def test_an_order_that_risk_made_smaller_was_not_refused(run) -> None:
    (asked, *_) = [e for e in of(run, RiskDecided) if e.book is Book.VALIDATED and e.approved]
    too_large = msgspec.structs.replace(asked, approved=False, code="POSITION_SIZE")
    kept = [e for e in run.events if isinstance(e, SessionStarted)]
    told = summarise(gather([*kept, too_large, asked]), models=None, paper=PaperModel())
    book = told["books"]["validated"]
    assert (book["risk"], book["made_smaller"]) == ({"APPROVED": 1}, 1)


def test_rejected_orders_are_counted_by_the_code_of_gate_or_venue(run) -> None:
    events, expected = [], Counter()
    for event in run.events:
        events.append(event)
        if isinstance(event, OrderIntended) and event.intent.book is Book.VALIDATED:
            expected["ENTRIES_WAIT"] += 1
            events.append(
                OrderRejected(
                    ts_event_ns=event.ts_event_ns, intent_no=event.intent.intent_no,
                    code="ENTRIES_WAIT", reason="the disk is full",
                )
            )  # fmt: skip
            break
    told = summarise(gather(events), models=None, paper=PaperModel())
    assert told["books"]["validated"]["rejected"] == expected == {"ENTRIES_WAIT": 1}
    assert told["books"]["shadow"]["rejected"] == {}


def test_a_fee_without_a_price_is_shown_and_not_counted(run) -> None:
    events, fee = [], Decimal("0.125")
    for event in run.events:
        if isinstance(event, OrderFilled) and event.fill.book is Book.VALIDATED:
            paid = msgspec.structs.replace(event.fill, fee=fee, fee_asset="BNB")
            events.append(msgspec.structs.replace(event, fill=paid))
            break
        events.append(event)
    record = gather(events)
    told = summarise(record, models=None, paper=PaperModel())
    assert told["books"]["validated"]["unvalued_fees"] == {"BNB": "0.12500000"}
    assert told["books"]["validated"]["fees_quote"] == "0.00000000"
    assert "0.12500000 BNB" in render(record, told)


def test_synthetic_evidence_is_named_as_such(run) -> None:
    record = gather(run.events)
    told = summarise(record, models=None, paper=PaperModel())
    assert told["synthetic_rules"] == ["drill"]
    assert "rule drill is SYNTHETIC" in told["assumptions"][0]
    assert "SYNTHETIC EVIDENCE: drill" in render(record, told)
    honest = [
        msgspec.structs.replace(e, strategy="regime_follower")
        if isinstance(e, SessionStarted)
        else e
        for e in run.events
    ]
    record = gather(honest)
    told = summarise(record, models=None, paper=PaperModel())
    assert told["synthetic_rules"] == []
    assert "SYNTHETIC" not in render(record, told)


@pytest.mark.parametrize("book", BOOKS)
def test_money_is_what_the_fills_say(run, summary, book: Book) -> None:
    told, curve = summary["books"][book.value], equity_by_hand(run, book)
    end = list(curve.values())[-1]
    assert abs(Decimal(told["equity_quote"]) - end) < CENT
    assert abs(Decimal(told["pnl_quote"]) - (end - 100_000)) < CENT
    assert told["return"] == pytest.approx(float(end) / 100_000 - 1, abs=1e-10)
    fees = sum(
        (
            e.fill.fee * (e.fill.price if e.fill.side is Side.BUY else 1)
            for e in of(run, OrderFilled)
            if e.fill.book is book
        ),
        Decimal(0),
    )
    assert Decimal(told["fees_quote"]) == pytest.approx(fees, abs=Decimal("1e-6"))
    assert Decimal(told["initial_quote"]) == 100_000


@pytest.mark.parametrize("book", BOOKS)
def test_drawdown_and_sharpe_are_those_of_the_curve(run, summary, book: Book) -> None:
    told = summary["books"][book.value]
    curve = {t: float(v) for t, v in equity_by_hand(run, book).items()}
    values = np.array(list(curve.values()))
    worst = (1 - values / np.maximum.accumulate(values)).max()
    assert told["max_drawdown"] == pytest.approx(worst, rel=1e-9)
    days: dict[int, float] = {}
    for time_ms, value in curve.items():
        days[(time_ms - 1) // 86_400_000] = value
    every = pd.Series(days).reindex(range(min(days), max(days) + 1)).ffill()
    daily = np.array([b / a - 1 for a, b in pairwise([100_000.0, *every])])
    if daily.std() == 0:
        assert told["sharpe_daily_365"] is None
        assert told["probabilistic_sharpe"] is told["deflated_sharpe"] is None
    else:
        expected = (daily.mean() * 365 - RISK_FREE) / (daily.std(ddof=1) * np.sqrt(365))
        assert told["sharpe_daily_365"] == pytest.approx(expected, rel=1e-6)
        ratio, n = expected / np.sqrt(365), len(daily)
        spread = 1 - stats.skew(daily) * ratio + (stats.kurtosis(daily) + 2) / 4 * ratio**2
        above_zero = stats.norm.cdf(ratio * np.sqrt((n - 1) / spread))
        assert told["probabilistic_sharpe"] == pytest.approx(above_zero, rel=1e-6)
        assert summary["rules_tried"] == 1
        assert told["deflated_sharpe"] == told["probabilistic_sharpe"]


def test_the_deflated_sharpe_counts_the_rules_that_the_evidence_says_were_tried(run) -> None:
    def tried(event, rules):
        if not isinstance(event, SignalDecided):
            return event
        return msgspec.structs.replace(event, numbers=event.numbers | {"rules_tried": rules})

    events = [tried(event, 7.0) for event in run.events]
    told = summarise(gather(events), models=None, paper=PaperModel())
    assert told["rules_tried"] == 7
    book = told["books"]["shadow" if told["books"]["shadow"]["sharpe_daily_365"] else "validated"]
    days = len({(e.candle.close_time_ms - 1) // 86_400_000 for e in of(run, CandleClosed)})
    ratio = book["sharpe_daily_365"] / np.sqrt(365)
    best = np.sqrt(1 / (days - 1)) * (
        (1 - np.euler_gamma) * stats.norm.ppf(1 - 1 / 7)
        + np.euler_gamma * stats.norm.ppf(1 - 1 / (7 * np.e))
    )
    above_zero = stats.norm.ppf(book["probabilistic_sharpe"])
    assert stats.norm.ppf(book["deflated_sharpe"]) == pytest.approx(
        above_zero * (ratio - best) / ratio
    )


def test_the_first_day_and_days_without_candles_are_days_like_others() -> None:
    """Ten days of returns, the first of 1 %; then the same with thirty days missing."""
    rng = np.random.default_rng(0)
    returns = np.array([0.01, *rng.normal(0.0005, 0.001, 9)])
    equity = 100_000.0 * np.cumprod(1 + returns)
    days = np.arange(1, 11)
    for gap in (0, 30):
        times = (days + gap * (days > 5)) * 86_400_000
        full = np.array([*returns[:5], *[0.0] * gap, *returns[5:]])
        values = np.array([100_000.0, *daily_equity(times.tolist(), equity.tolist())])
        assert values[1:] / values[:-1] - 1 == pytest.approx(full, abs=1e-12)


def test_a_perpetual_says_that_no_funding_is_booked(run) -> None:
    def perpetual(event):
        if not isinstance(event, InstrumentDefined):
            return event
        changed = msgspec.structs.replace(event.instrument, market=Market.USDM)
        return msgspec.structs.replace(event, instrument=changed)

    for change, said in ((perpetual, True), (lambda event: event, False)):
        record = gather([change(event) for event in run.events])
        told = summarise(record, models=None, paper=PaperModel())
        assert any("Funding" in text for text in told["assumptions"]) is said


def test_what_the_venue_funded_is_told_and_is_in_the_results(run, summary) -> None:
    """Told late, after the round trip it was of had ended, as a process that was away tells it."""
    trade = gather(run.events).books[Book.VALIDATED].trades[0]
    paid = FundingPaid(
        ts_event_ns=trade.opened_ts_ns, symbol=trade.symbol, asset="USDT",
        amount=Decimal("-12.5"), transaction_id=1, ours=True,
    )  # fmt: skip
    others = msgspec.structs.replace(paid, transaction_id=2, ours=False)

    def at_testnet(event):
        if isinstance(event, SessionStarted):
            return msgspec.structs.replace(event, mode="testnet")
        if not isinstance(event, InstrumentDefined):
            return event
        changed = msgspec.structs.replace(event.instrument, market=Market.USDM)
        return msgspec.structs.replace(event, instrument=changed)

    record = gather([*run.events, paid, others])
    told = summarise(record, models=None, paper=PaperModel())
    book, before = told["books"]["validated"], summary["books"]["validated"]
    assert book["funding_quote"] == "-12.50000000"
    assert before["funding_quote"] == told["books"]["shadow"]["funding_quote"] == "0.00000000"
    for name in ("equity_quote", "pnl_quote", "realised_quote"):
        assert Decimal(book[name]) == Decimal(before[name]) - Decimal("12.5")
    row, old = book["by_symbol"][trade.symbol], before["by_symbol"][trade.symbol]
    assert row["funding_quote"] == "-12.50000000"
    assert Decimal(row["pnl_quote"]) == Decimal(old["pnl_quote"]) - Decimal("12.5")
    assert len(record.books[Book.VALIDATED].trades) == before["trades"]
    page = render(record, told)
    assert "Funding, quote; negative is paid" in page
    assert "<td>-12.50</td>" in page
    named = summarise(gather(map(at_testnet, run.events)), models=None, paper=PaperModel())
    assert any("booked as the venue paid it" in text for text in named["assumptions"])


def test_round_trips_add_up(run, summary) -> None:
    told = summary["books"]["validated"]
    assert told["trades"] > 10
    assert sum(told["exits"].values()) == told["trades"]
    assert told["win_rate"] == told["wins"] / told["trades"]
    for split in ("by_symbol", "by_regime"):
        assert sum(row["trades"] for row in told[split].values()) == told["trades"]
        total = sum(Decimal(row["pnl_quote"]) for row in told[split].values())
        assert abs(total - Decimal(told["realised_quote"])) < Decimal("1e-6")
    assert set(told["by_regime"]) == {"none"}


def test_buy_and_hold_is_the_mean_of_the_symbols_own_returns(run, summary) -> None:
    closes = defaultdict(list)
    for event in of(run, CandleClosed):
        closes[event.candle.symbol].append(event.candle.close)
    returns = [c[-1] / c[0] - 1 for c in closes.values()]
    assert summary["buy_and_hold"]["return"] == pytest.approx(np.mean(returns))
    assert summary["buy_and_hold"]["pnl_quote"] == pytest.approx(1e5 * np.mean(returns))


def test_a_run_without_candles_has_nulls_and_no_zeros(run) -> None:
    record = gather([event for event in run.events if isinstance(event, SessionStarted)])
    told = summarise(record, models=None, paper=PaperModel())
    assert told["from_ms"] is None
    assert told["buy_and_hold"] == {"return": None, "pnl_quote": None, "by_symbol": {}}
    book = told["books"]["validated"]
    assert book["win_rate"] is book["max_drawdown"] is book["sharpe_daily_365"] is None
    json.dumps(told, allow_nan=False)


def test_a_flat_curve_has_no_sharpe(run) -> None:
    kept = [e for e in run.events if isinstance(e, SessionStarted | CandleClosed)]
    told = summarise(gather(kept), models=None, paper=PaperModel())
    assert told["books"]["shadow"]["sharpe_daily_365"] is None
    assert told["books"]["shadow"]["max_drawdown"] == 0.0


def test_a_day_ends_with_the_candle_that_closes_at_midnight() -> None:
    day = 86_400_000
    assert daily_equity([day, day + 1, 2 * day, 2 * day + 1], [1.0, 2.0, 3.0, 4.0]) == [
        1.0,
        3.0,
        4.0,
    ]


def test_drawdowns_by_hand() -> None:
    assert drawdowns([100.0, 120.0, 90.0, 130.0]) == pytest.approx([0.0, 0.0, 0.25, 0.0])
    assert drawdowns([]) == []


def test_assumptions_name_the_numbers_of_the_venue(run) -> None:
    told = summarise(gather(run.events), models=None, paper=PaperModel(spread_bps=3.5))
    assert any("3.5 bps spread" in text for text in told["assumptions"])
    assert buy_and_hold(gather(run.events))["by_symbol"].keys() == {"AAAUSDT", "BBBUSDT"}


def test_holding_ends_where_buy_and_hold_says(run) -> None:
    record = gather(run.events)
    line = held(record, share=1.0)
    assert len(line) == len(record.times_ms)
    capital = float(record.sessions[0].initial_cash)
    assert line[-1] - capital == pytest.approx(buy_and_hold(record)["pnl_quote"])
    assert held(record, share=0.0) == pytest.approx([capital] * len(line))
    assert held(gather([]), share=1.0) == []
