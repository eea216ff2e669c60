"""The engine where its parts have nothing to say: models, risk, a symbol without candles."""

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from engine_bench import BEGIN, ENTER, EXIT, HOUR, Bench, entered

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import (
    CancelRequested,
    InstrumentDefined,
    OperatorCommand,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderRejected,
    OverrideSet,
    RegimeNamed,
    RiskDecided,
    SignalDecided,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, Fill, Liquidity, Purpose, Side
from bot4_runtime.domain.regime import EstimateSource, Regime, RegimeEstimate
from bot4_runtime.regime.evidence import synthetic_evidence
from bot4_runtime.risk.manager import RiskManager, RiskRefused
from bot4_runtime.state.book import KEPT


class Pair:
    """Models that may trade any symbol."""

    def admits(self, symbol: str) -> bool:
        return True


class Detector:
    """Names what the test wrote down for a candle's number, and nothing else."""

    def __init__(self, named: dict[int, Regime]) -> None:
        self.named = named
        self.pair = Pair()

    def swap(self, pair: Pair) -> None:
        self.pair = pair

    def update(self, candle, row) -> RegimeEstimate | None:
        regime = self.named.get((candle.open_time_ms - BEGIN) // HOUR)
        if regime is None:
            return None
        return RegimeEstimate(
            symbol=candle.symbol, interval="1h", open_time_ms=candle.open_time_ms, regime=regime,
            probabilities=(0.2, 0.2, 0.2, 0.2, 0.2), confidence=0.2, source=EstimateSource.LSTM,
            hmm_regime=regime, hmm_confidence=0.2, volatility=0.01, model_sha256="m",
            schema_id="s",
        )  # fmt: skip


class Judge:
    """Judges as the real risk manager does until a test has it refuse."""

    def __init__(self, real: RiskManager) -> None:
        self.real = real
        self.limits = real.limits
        self.offers: Decimal | None = None
        self.asked: list[Decimal] = []

    def validate(self, intent, view):
        self.asked.append(intent.quantity)
        if self.offers is None:
            return self.real.validate(intent, view)
        return RiskRefused("LIQUIDITY", 2.0, 1.0, intent.quantity * self.offers)


def intended(bench: Bench, purpose: Purpose) -> list:
    return [e.intent for e in bench.of(OrderIntended) if e.intent.purpose is purpose]


# ------------------------------------------------------------------------- models
def test_a_candle_that_the_models_cannot_name_decides_nothing_and_is_no_previous_one() -> None:
    bench = Bench(Detector({0: Regime.BULL, 1: Regime.BEAR, 3: Regime.NEUTRAL}))
    bench.calm(5)
    assert bench.strategy.regimes == [
        (0, Regime.BULL, None),
        (1, Regime.BEAR, Regime.BULL),
        (3, Regime.NEUTRAL, None),
    ]
    assert [e.estimate.regime for e in bench.of(RegimeNamed)] == [
        Regime.BULL,
        Regime.BEAR,
        Regime.NEUTRAL,
    ]


@pytest.mark.parametrize("detector", [Detector({}), None], ids=["models", "no models"])
def test_promoted_evidence_is_believed_from_the_next_candle_on(detector) -> None:
    bench = Bench(detector)
    bench.calm(80)
    bench.say(ENTER, rule="promoted")
    bench.calm(1)
    pair = Pair()
    record = synthetic_evidence("promoted", now_ms=BEGIN, interval="1h")
    bench.engine.swap(pair, {"promoted": record})
    bench.say(ENTER, rule="promoted")
    bench.calm(1)
    assert [e.code for e in bench.of(SignalDecided)] == ["NO_EVIDENCE", "APPROVED"]
    assert detector is None or detector.pair is pair


# --------------------------------------------------------------------------- risk
def test_an_entry_that_is_refused_twice_is_not_tried_a_third_time() -> None:
    bench = Bench(judge=Judge)
    bench.calm(80)
    bench.parts.risk.offers = Decimal("0.5")
    bench.say(ENTER)
    bench.calm(1)
    first, second = bench.of(RiskDecided)
    assert (first.approved, second.approved) == (False, False)
    assert second.quantity <= first.would_pass_size == first.quantity / 2
    assert len(bench.parts.risk.asked) == 2
    assert bench.of(OrderIntended) == []


def test_an_exit_that_risk_refuses_is_told_and_not_sent_and_the_stop_comes_back() -> None:
    bench = entered(Bench(judge=Judge))
    held = bench.state.books[Book.VALIDATED].positions["AAAUSDT"].quantity
    before = len(bench.of(OrderIntended))
    bench.parts.risk.offers = Decimal(0)
    bench.say(EXIT)
    bench.calm(1)
    told = bench.of(RiskDecided)[-1]
    assert (told.symbol, told.approved, told.code) == ("AAAUSDT", False, "LIQUIDITY")
    assert (told.limit, told.value) == (2.0, 1.0)
    assert len(bench.of(OrderIntended)) == before
    bench.parts.risk.offers = None
    bench.calm(1)
    (stop,) = bench.state.all_live_orders(Book.VALIDATED)
    assert stop.intent.purpose is Purpose.STOP
    assert abs(held - stop.intent.quantity) < bench.state.instruments["AAAUSDT"].step_size


# ----------------------------------------------------------------- the operator
def halting(*, halt: bool) -> OverrideSet:
    return OverrideSet(
        ts_event_ns=1, reason="why", command_id="1", expires_ts_ns=2**62, halt=halt,
        limits={} if halt else {"max_position_pct": 0.01},
    )  # fmt: skip


def test_an_override_that_halts_calls_back_what_waits_and_one_that_tightens_does_not() -> None:
    bench = Bench()
    bench.calm(80, "AAAUSDT", "BBBUSDT")
    bench.say(ENTER, "AAAUSDT", limit=98.5)
    bench.say(ENTER, "BBBUSDT", limit=98.5, rule="unproven")
    bench.calm(1, "AAAUSDT", "BBBUSDT")
    waiting = bench.state.all_live_orders()
    assert {order.intent.book for order in waiting} == {Book.VALIDATED, Book.SHADOW}
    assert bench.engine.obey(halting(halt=False)) == []
    commands = bench.engine.obey(halting(halt=True))
    assert {c.intent_no for c in commands} == {o.intent.intent_no for o in waiting}
    assert {e.reason for e in bench.of(CancelRequested)} == {"operator: why"}


def test_a_flatten_before_the_first_candle_since_a_restart_waits_for_it() -> None:
    bench = entered()
    bench.restart()
    flatten = OperatorCommand(ts_event_ns=1, verb="flatten", reason="out", command_id="1")
    assert bench.engine.obey(flatten) == []
    bench.calm(1)
    (sale,) = intended(bench, Purpose.EMERGENCY)
    assert sale.side is Side.SELL
    bench.calm(1)
    assert bench.state.books[Book.VALIDATED].positions == {}


# --------------------------------------------------------------- what is held
def test_what_filled_before_the_first_candle_since_a_restart_gets_its_stop_with_it() -> None:
    bench = entered()
    (stop,) = bench.state.all_live_orders(Book.VALIDATED)
    number = stop.intent.intent_no
    bench.emit(OrderClosed(ts_event_ns=0, intent_no=number, status="canceled", reason=""))
    bench.restart()
    assert bench.engine.protect("AAAUSDT") == []
    bench.calm(1)
    (again,) = bench.state.all_live_orders(Book.VALIDATED)
    assert (again.intent.purpose, again.intent.quantity) == (Purpose.STOP, stop.intent.quantity)


def test_a_stop_that_never_arrived_is_asked_for_again_however_long_ago_the_entry_was() -> None:
    bench = entered()
    (entry,) = intended(bench, Purpose.ENTRY)
    (stop,) = bench.state.all_live_orders(Book.VALIDATED)
    number = stop.intent.intent_no
    bench.emit(OrderClosed(ts_event_ns=0, intent_no=number, status="canceled", reason=""))
    (lost,) = bench.engine.protect("AAAUSDT")
    for number in range(bench.state.next_intent_no, bench.state.next_intent_no + KEPT + 1):
        other = msgspec.structs.replace(entry, intent_no=number, symbol="BBBUSDT")
        bench.emit(OrderIntended(ts_event_ns=0, intent=other, client_id="x", payload_hash="y"))
        bench.emit(OrderRejected(ts_event_ns=0, intent_no=number, code="no", reason=""))
    number = lost.intended.intent.intent_no
    known = {
        o.intent.intent_no for o in bench.state.orders.values() if o.intent.symbol != "BBBUSDT"
    }
    assert known == {number}
    bench.emit(OrderClosed(ts_event_ns=0, intent_no=number, status="never_placed", reason=""))
    (again,) = bench.engine.protect("AAAUSDT")
    intent = again.intended.intent
    assert (intent.purpose, intent.quantity) == (Purpose.STOP, stop.intent.quantity)


def test_a_rest_that_may_not_be_sold_is_left_and_its_stop_called_back_by_an_exit() -> None:
    bench = entered()
    (stop,) = bench.state.all_live_orders(Book.VALIDATED)
    instrument = bench.state.instruments["AAAUSDT"]
    least = instrument.floor_quantity(stop.intent.quantity / 2)
    coarse = msgspec.structs.replace(instrument, min_quantity=least)
    bench.emit(InstrumentDefined(ts_event_ns=0, instrument=coarse))
    sold = stop.intent.quantity - least + instrument.step_size
    bench.emit(
        OrderFilled(
            ts_event_ns=0,
            fill=Fill(
                trade_id="user stream", intent_no=stop.intent.intent_no, book=Book.VALIDATED,
                symbol="AAAUSDT", side=Side.SELL, price=stop.intent.stop_price, quantity=sold,
                fee=Decimal(0), fee_asset="USDT", liquidity=Liquidity.TAKER, ts_event_ns=0,
            ),
        )
    )  # fmt: skip
    book = bench.state.books[Book.VALIDATED]
    left = book.positions["AAAUSDT"].quantity
    assert 0 < left < least
    bench.say(EXIT)
    bench.candle("AAAUSDT", volume=0.0)
    assert bench.reasons() == {"exit signal": 1}
    assert intended(bench, Purpose.EXIT) == []
    assert book.positions == {}
    assert book.dust == {"AAA": left}
    assert [trade.exit_reason for trade in book.closed_trades] == ["stop"]


def test_rules_that_the_venue_tells_are_traded_by_and_others_assumed():
    first, later = (Instrument.assume("BTCUSDT", Market.SPOT, price) for price in (7.0, 70.0))
    told: dict[str, Instrument] = {}
    bench = Bench()
    bench.parts = replace(bench.parts, told=told.get)
    bench.restart()
    for rules in (None, first, first, later, None):
        told |= {"BTCUSDT": rules} if rules is not None else {}
        if rules is None:
            told.clear()
        bench.candle("BTCUSDT")
        bench.candle("ETHUSDT")
    defined = [e.instrument for e in bench.events if isinstance(e, InstrumentDefined)]
    assumed = Instrument.assume("BTCUSDT", Market.SPOT, 100.0)
    assert [i for i in defined if i.symbol == "BTCUSDT"] == [assumed, first, later]
    assert [i for i in defined if i.symbol == "ETHUSDT"] == [Instrument.assume("ETHUSDT", Market.SPOT, 100.0)]  # fmt: skip
    assert bench.state.instruments["BTCUSDT"] == later, "kept while the venue tells none"
