"""The flat check is the rule of the whole manager: same refusals, and none out of date."""

import dataclasses
import math
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import OrderType, Side
from bot4_runtime.domain.portfolio import BreakerPhase, BreakerState
from bot4_runtime.risk import entry_check, verdict
from bot4_runtime.risk.correlation import FixedCorrelations
from bot4_runtime.risk.limits import RiskLimits, RiskOverride
from bot4_runtime.risk.manager import (
    HeldPosition,
    OpenOrder,
    Revision,
    RiskApproved,
    RiskManager,
)

MANAGER = RiskManager(RiskLimits())
NOW = 1_000
EDGES = [
    math.nan,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    5e-324,
    2.2250738585072014e-308,
    1e-310,
    1e308,
    1.7976931348623157e308,
    -1.0,
]
ANY = st.sampled_from([*EDGES, 0.5, 1.0, 2.0, 95.0, 100.0, 105.0, 200.0]) | st.floats()
CALM = st.sampled_from([1.0, 2.0, 50.0, 100.0]) | st.floats(0.01, 1000)


def _named(number):
    return verdict.CODES[number - 1] if number else "APPROVED"


def _asked(answer):
    return "APPROVED" if isinstance(answer, RiskApproved) else answer.code


def _decimal(number):
    return None if math.isnan(number) else Decimal(repr(number))


def _book(draw):
    """Mostly sane books, in which one number may be anything: every code comes up."""
    numbers = [draw(CALM) for _ in range(14)]
    wild = draw(st.integers(0, 25))
    if wild < 14:
        numbers[wild] = draw(ANY)
    n = numbers
    return {
        "equity": n[0] * 100.0,
        "cash_free": n[1] * 10.0,
        "mark": draw(st.sampled_from([100.0, n[2]])),
        "depth_quote": n[3] * 20.0,
        "margin_rate": draw(st.sampled_from([1.0, 0.2, n[4] / 1000.0])),
        "positions": [
            HeldPosition("BTCUSDT", draw(st.sampled_from([0.0, 1.0, -1.0, n[5]])), n[6]),
            HeldPosition("ETHUSDT", draw(st.sampled_from([0.0, 1.0, -1.0, n[7]])), n[8]),
        ][: draw(st.integers(0, 2))],
        "open_orders": [
            OpenOrder(
                draw(st.sampled_from(["BTCUSDT", "ETHUSDT"])),
                draw(st.sampled_from([1, -1])),
                n[9] / 100.0,
                n[10],
                reduce_only=draw(st.booleans()),
            )
            for _ in range(draw(st.integers(0, 2)))
        ],
        "correlations": FixedCorrelations(
            draw(
                st.sampled_from(
                    [{}, {("BTCUSDT", "ETHUSDT"): draw(st.floats(-1, 1))}]
                    + [{("BTCUSDT", "ETHUSDT"): bad} for bad in (math.nan, 1.5)]
                )
            )
        ),
        "breaker": draw(
            st.sampled_from([BreakerState(phase=phase) for phase in BreakerPhase])
            | st.just(BreakerState(halted=True))
        ),
    }


@settings(
    max_examples=600,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_it_answers_as_the_whole_manager_does_on_every_book_and_entry(intent, view, metrics, data):
    draw = data.draw
    drawdown = draw(st.sampled_from([0.0, 0.1, 0.15, 0.16]) | ANY)
    seen = view(metrics=metrics(drawdown=drawdown), **_book(draw))
    quantity = draw(st.sampled_from([0.1, 1.0]) | ANY)
    price = draw(st.sampled_from([100.0]) | ANY)
    stop = draw(st.sampled_from([0.01, 95.0, 1e6]) | ANY)
    side = draw(st.sampled_from(Side))
    limit = draw(st.booleans())
    wanted = intent(
        side=side,
        order_type=OrderType.LIMIT if limit else OrderType.MARKET,
        quantity=Decimal(repr(quantity)),
        price=Decimal(repr(price)) if limit else None,
        reference_price=Decimal(repr(price)),
        stop_loss=_decimal(stop),
    )
    check = MANAGER.prepare("BTCUSDT", side, seen, Revision(), 1)
    flat = check.check(quantity, price, stop, NOW)
    assert _named(flat) == _asked(MANAGER.validate(wanted, seen))
    assert check.check_many([quantity, 1.0], [price, 100.0], [stop, 95.0], NOW) == [
        flat,
        check.check(1.0, 100.0, 95.0, NOW),
    ]


BTC = HeldPosition("BTCUSDT", 1.0, 100.0)
ETH = HeldPosition("ETHUSDT", 1.0, 50.0)
EVERY_CODE = [
    ({}, (1.0, 100.0, 95.0), "APPROVED"),
    ({}, (math.nan, 100.0, 95.0), "NOT_FINITE"),
    ({}, (1.0, math.inf, 95.0), "NOT_FINITE"),
    ({}, (1e300, 1e300, 95.0), "NOT_FINITE"),
    ({"mark": math.nan}, (1.0, 100.0, 95.0), "NOT_FINITE"),
    ({"positions": [BTC, BTC]}, (0.1, 100.0, 95.0), "NOT_FINITE"),
    ({"breaker": BreakerState(halted=True)}, (1.0, 100.0, 95.0), "HALTED"),
    ({"breaker": BreakerState(phase=BreakerPhase.OPEN)}, (1.0, 100.0, 95.0), "BREAKER_OPEN"),
    ({}, (2.0, 100.0, 95.0), "APPROVED"),
    ({}, (2.0000001, 100.0, 95.0), "POSITION_SIZE"),
    ({"breaker": BreakerState(phase=BreakerPhase.HALF_OPEN)}, (0.5, 100.0, 95.0), "APPROVED"),
    ({"breaker": BreakerState(phase=BreakerPhase.HALF_OPEN)}, (0.51, 100.0, 9.0), "POSITION_SIZE"),
    ({"positions": [ETH], "rho": 0.7}, (1.0, 100.0, 95.0), "CORRELATION"),
    ({"positions": [ETH]}, (1.0, 100.0, 95.0), "CORRELATION_UNKNOWN"),
    ({}, (1.0, 100.0, math.nan), "STOP_LOSS_MISSING"),
    ({}, (1.0, 100.0, 100.0), "STOP_LOSS_SIDE"),
    ({}, (1.0, 90.0, 95.0), "STOP_LOSS_SIDE"),
    ({}, (1.0, 110.0, 105.0), "STOP_LOSS_SIDE"),
    ({"positions": [HeldPosition("ETHUSDT", 599.0, 50.0)], "rho": 0.1}, (1, 100, 95), "LEVERAGE"),
    ({"drawdown": 0.1501}, (1.0, 100.0, 95.0), "DRAWDOWN"),
    ({"depth_quote": 149.0}, (1.0, 100.0, 95.0), "LIQUIDITY"),
    ({"cash_free": 109.0}, (1.0, 100.0, 95.0), "MARGIN"),
]


@pytest.mark.parametrize(("book", "entry", "code"), EVERY_CODE)
def test_each_code_is_the_manager_s(intent, view, metrics, book, entry, code):
    book = dict(book)
    if "rho" in book:
        book["correlations"] = FixedCorrelations({("BTCUSDT", "ETHUSDT"): book.pop("rho")})
    if "drawdown" in book:
        book["metrics"] = metrics(drawdown=book.pop("drawdown"))
    seen = view(**book)
    check = MANAGER.prepare("BTCUSDT", Side.BUY, seen, Revision(), 1)
    quantity, price, stop = map(float, entry)
    assert _named(check.check(quantity, price, stop, NOW)) == code
    wanted = intent(
        quantity=Decimal(repr(quantity)),
        reference_price=Decimal(repr(price)),
        stop_loss=_decimal(stop),
    )
    assert _asked(MANAGER.validate(wanted, seen)) == code


def test_the_numbers_of_the_codes_are_their_places():
    for code in verdict.CODES:
        if code != "REDUCE_ONLY":
            assert _named(getattr(entry_check, code)) == code


def _sell(check):
    return _named(check.check(1.0, 100.0, 105.0, NOW))


def test_a_short_needs_its_stop_above_the_dearer_of_price_and_mark(view):
    check = MANAGER.prepare("BTCUSDT", Side.SELL, view(), Revision(), 1)
    assert not check.buys
    assert _sell(check) == "APPROVED"
    assert _named(check.check(1.0, 110.0, 105.0, NOW)) == "STOP_LOSS_SIDE"
    assert _named(check.check(1.0, 90.0, 100.0, NOW)) == "STOP_LOSS_SIDE"
    assert _named(check.check(1.0, 90.0, 100.1, NOW)) == "APPROVED"


# ----------------------------------------------------------------------- staleness
def test_a_check_is_worth_nothing_once_the_book_has_changed(view):
    revision = Revision()
    check = MANAGER.prepare("BTCUSDT", Side.BUY, view(), revision, 10)
    entry = (1.0, 100.0, 95.0)
    assert check.check(*entry, NOW) == 0
    for number in (1, 2, 3):
        revision.advance()
        assert revision.number == number
        assert _named(check.check(*entry, NOW)) == "STALE"
    assert check.check_many([1.0], [100.0], [95.0], NOW) == [entry_check.STALE]
    again = MANAGER.prepare("BTCUSDT", Side.BUY, view(), revision, 10)
    assert again.check(*entry, NOW) == 0


@pytest.mark.parametrize(
    ("now_ns", "code"),
    [
        (NOW - 1, "STALE"),
        (NOW, "APPROVED"),
        (NOW + 9, "APPROVED"),
        (NOW + 10, "STALE"),
        (2**70, "STALE"),
        (-1, "STALE"),
    ],
)
def test_a_check_holds_from_its_book_s_time_for_as_long_as_was_asked(view, now_ns, code):
    check = MANAGER.prepare("BTCUSDT", Side.BUY, view(), Revision(), 10)
    assert _named(check.check(1.0, 100.0, 95.0, now_ns)) == code
    assert list(map(_named, check.check_many([1.0], [100.0], [95.0], now_ns))) == [code]


def test_without_a_time_to_live_it_holds_for_no_time(view):
    check = MANAGER.prepare("BTCUSDT", Side.BUY, view())
    assert _named(check.check(1.0, 100.0, 95.0, NOW)) == "STALE"


def test_an_override_that_ends_earlier_ends_it(view):
    def override(expires_ts_ns):
        return RiskOverride(reason="news", expires_ts_ns=expires_ts_ns, max_position_pct=0.015)

    seen = view(overrides=[override(NOW), override(NOW + 7), override(NOW + 3)])
    check = MANAGER.prepare("BTCUSDT", Side.BUY, seen, Revision(), 10)
    assert check.position_pct == 0.015
    assert check.check(1.0, 100.0, 95.0, NOW + 2) == 0
    assert _named(check.check(1.0, 100.0, 95.0, NOW + 3)) == "STALE"


def test_a_halting_override_halts_it(view):
    halt = RiskOverride(reason="news", expires_ts_ns=NOW + 5, halt=True)
    check = MANAGER.prepare("BTCUSDT", Side.BUY, view(overrides=[halt]), Revision(), 10)
    assert _named(check.check(1.0, 100.0, 95.0, NOW)) == "HALTED"


@pytest.mark.parametrize(
    "columns", [([1.0], [100.0], []), ([1.0], [], [95.0]), ([], [100.0], [95.0])]
)
def test_columns_are_of_one_length(view, columns):
    check = MANAGER.prepare("BTCUSDT", Side.BUY, view(), Revision(), 1)
    with pytest.raises(DataError, match="expected one of each an entry"):
        check.check_many(*columns, NOW)


def test_no_entries_have_no_codes(view):
    check = MANAGER.prepare("BTCUSDT", Side.BUY, view(), Revision(), 1)
    assert check.check_many([], [], [], NOW) == []


def test_exposure_that_overflows_is_over_every_limit(view):
    huge = HeldPosition("ETHUSDT", 1e200, 1e200)
    known = FixedCorrelations({("BTCUSDT", "ETHUSDT"): 0.1})
    seen = view(positions=[huge], correlations=known, equity=1.7e308, cash_free=1e4)
    check = MANAGER.prepare("BTCUSDT", Side.BUY, seen, Revision(), 1)
    assert _named(check.check(1.0, 100.0, 95.0, NOW)) == "LEVERAGE"
    own = view(positions=[HeldPosition("BTCUSDT", 1e200, 1e200)], equity=1.7e308)
    check = MANAGER.prepare("BTCUSDT", Side.BUY, own, Revision(), 1)
    assert _named(check.check(1.0, 100.0, 95.0, NOW)) == "POSITION_SIZE"


def test_the_limits_it_holds_are_those_it_was_given(view):
    limits = RiskLimits(max_position_pct=0.05, max_leverage=2.0)
    check = RiskManager(limits).prepare("BTCUSDT", Side.BUY, view(), Revision(), 1)
    assert check.max_position == 0.05 * 10_000.0
    assert check.max_exposure == 2.0 * 10_000.0
    assert dataclasses.asdict(limits)["max_drawdown"] == check.max_drawdown
