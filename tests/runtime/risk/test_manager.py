import ast
import inspect
import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bot4_runtime
from bot4_runtime.domain.errors import InvariantViolated
from bot4_runtime.domain.order import OrderType, Side, payload_hash
from bot4_runtime.domain.portfolio import BreakerPhase, BreakerState
from bot4_runtime.risk import verdict
from bot4_runtime.risk.correlation import FixedCorrelations
from bot4_runtime.risk.exposure import worst_cases
from bot4_runtime.risk.limits import RiskLimits, RiskOverride
from bot4_runtime.risk.manager import (
    HeldPosition,
    OpenOrder,
    RiskApproved,
    RiskManager,
    RiskRefused,
    RiskView,
)

MANAGER = RiskManager(RiskLimits())
OPEN = BreakerState(phase=BreakerPhase.OPEN, reason="LOSS_STREAK", cooldown_s=86_400)
PROBING = BreakerState(phase=BreakerPhase.HALF_OPEN, reason="LOSS_STREAK", cooldown_s=86_400)
HALTED = BreakerState(halted=True, halt_reason="news")
ETH = HeldPosition("ETHUSDT", 1.0, 50.0)
SHORT_ETH = HeldPosition("ETHUSDT", -1.0, 50.0)


def _pair(value):
    return FixedCorrelations({("BTCUSDT", "ETHUSDT"): value})


def _code(answer):
    return answer.code if isinstance(answer, RiskRefused) else "APPROVED"


# ------------------------------------------------------------- entries, one limit each
def test_an_entry_within_every_limit_is_approved_as_it_is(intent, view):
    wanted = intent()
    answer = MANAGER.validate(wanted, view())
    assert isinstance(answer, RiskApproved)
    assert answer.intent is wanted
    assert answer.size == wanted.quantity
    assert answer.stop_loss == wanted.stop_loss
    assert answer.payload_hash == payload_hash(wanted)
    assert answer.risk_score == pytest.approx(0.5)


REFUSALS = [
    # what is special, the view, the code, its limit, its value, what would pass
    ({"quantity": "2.5"}, {}, "POSITION_SIZE", 0.02, 0.025, "2"),
    (
        {},
        {"positions": [HeldPosition("BTCUSDT", 1.5, 100.0)]},
        "POSITION_SIZE",
        0.02,
        0.025,
        "0.5",
    ),
    (
        {},
        {"open_orders": [OpenOrder("BTCUSDT", 1, 1.2, 100.0)]},
        "POSITION_SIZE",
        0.02,
        0.022,
        "0.8",
    ),
    ({}, {"positions": [ETH], "correlations": _pair(0.7)}, "CORRELATION", 0.7, 0.7, "0"),
    ({}, {"positions": [SHORT_ETH], "correlations": _pair(-0.9)}, "CORRELATION", 0.7, 0.9, "0"),
    (
        {},
        {"open_orders": [OpenOrder("ETHUSDT", 1, 1.0, 50.0)], "correlations": _pair(0.8)},
        "CORRELATION",
        0.7,
        0.8,
        "0",
    ),
    ({}, {"positions": [ETH]}, "CORRELATION_UNKNOWN", 0, 1, "0"),
    ({}, {"positions": [ETH], "correlations": _pair(math.nan)}, "CORRELATION_UNKNOWN", 0, 1, "0"),
    ({}, {"positions": [ETH], "correlations": _pair(-1.1)}, "CORRELATION_UNKNOWN", 0, 1, "0"),
    ({"stop_loss": None}, {}, "STOP_LOSS_MISSING", 1, 0, "0"),
    ({"stop_loss": "100"}, {}, "STOP_LOSS_SIDE", 100, 100, "0"),
    ({"stop_loss": "105"}, {}, "STOP_LOSS_SIDE", 100, 105, "0"),
    ({"stop_loss": "97"}, {"mark": 96.0}, "STOP_LOSS_SIDE", 96, 97, "0"),
    ({"stop_loss": "0"}, {}, "STOP_LOSS_SIDE", 100, 0, "0"),
    ({"stop_loss": "-1"}, {}, "STOP_LOSS_SIDE", 100, -1, "0"),
    ({"side": Side.SELL, "stop_loss": "95"}, {}, "STOP_LOSS_SIDE", 100, 95, "0"),
    (
        {},
        {"positions": [HeldPosition("ETHUSDT", 299.5, 100.0)], "correlations": _pair(0.1)},
        "LEVERAGE",
        3.0,
        3.005,
        "0.5",
    ),
    ({}, {"drawdown": 0.1501}, "DRAWDOWN", 0.15, 0.1501, "0"),
    ({}, {"equity": 8_000.0}, "DRAWDOWN", 0.15, 0.2, "0"),
    ({}, {"depth_quote": 100.0}, "LIQUIDITY", 1.5, 1.0, "0.666666666666"),
    ({}, {"depth_quote": 0.0}, "LIQUIDITY", 1.5, 0.0, "0"),
    ({}, {"depth_quote": -5.0}, "LIQUIDITY", 1.5, -0.05, "0"),
    ({}, {"cash_free": 109.0}, "MARGIN", 1.1, 1.09, "0.990909090908"),
    ({}, {"cash_free": 0.0}, "MARGIN", 1.1, 0.0, "0"),
    ({}, {"cash_free": -7.0}, "MARGIN", 1.1, -0.07, "0"),
    ({}, {"breaker": HALTED}, "HALTED", 0, 1, "0"),
    ({}, {"breaker": OPEN}, "BREAKER_OPEN", 0, 1, "0"),
    ({}, {"breaker": PROBING}, "POSITION_SIZE", 0.005, 0.01, "0.5"),
]


@pytest.mark.parametrize(("order", "book", "code", "limit", "value", "passes"), REFUSALS)
def test_a_broken_limit_is_named_with_its_numbers_and_what_would_pass(
    intent, view, metrics, order, book, code, limit, value, passes
):
    order = {k: Decimal(v) if isinstance(v, str) and k != "side" else v for k, v in order.items()}
    if "drawdown" in book:
        book = {"metrics": metrics(drawdown=book["drawdown"])}
    wanted, seen = intent(**order), view(**book)
    answer = MANAGER.validate(wanted, seen)
    assert isinstance(answer, RiskRefused)
    assert answer.code == code
    assert answer.limit == pytest.approx(limit)
    assert answer.value == pytest.approx(value)
    assert float(answer.would_pass_size) == pytest.approx(float(passes), rel=1e-9)
    assert ("would pass" in answer.text) == (Decimal(passes) > 0)
    if answer.would_pass_size > 0:
        again = MANAGER.validate(intent(**order | {"quantity": answer.would_pass_size}), seen)
        assert isinstance(again, RiskApproved)


AT_THE_LIMIT = [
    {"positions": [ETH], "correlations": _pair(0.6999)},
    {"positions": [SHORT_ETH], "correlations": _pair(0.99)},  # a hedge
    {"positions": [HeldPosition("ETHUSDT", 0.0, 50.0)]},  # nothing is held
    {"positions": [HeldPosition("ETHUSDT", 299.0, 100.0)], "correlations": _pair(0.0)},
    {"positions": [HeldPosition("BTCUSDT", 1.0, 100.0)]},
    {"open_orders": [OpenOrder("BTCUSDT", -1, 2.0, 100.0, reduce_only=True)]},
    {"open_orders": [OpenOrder("BTCUSDT", -1, 2.0, 100.0)]},
    {"depth_quote": 150.0},
    {"cash_free": 110.00000000000001},
    {"cash_free": 22.000000000000004, "margin_rate": 0.2},
]


@pytest.mark.parametrize("book", AT_THE_LIMIT)
def test_an_entry_at_a_limit_passes(intent, view, book):
    assert _code(MANAGER.validate(intent(), view(**book))) == "APPROVED"


def test_a_drawdown_at_the_limit_passes_and_uses_it_up(intent, view, metrics):
    answer = MANAGER.validate(intent(), view(metrics=metrics(drawdown=0.15)))
    assert answer.risk_score == 1.0


def test_the_first_broken_limit_in_order_is_the_one_that_is_named(intent, view, metrics):
    """Everything is wrong; repairing one thing after the other walks through the codes."""
    order = {"quantity": Decimal(1000), "stop_loss": None}
    far = HeldPosition("ETHUSDT", 500.0, 100.0)
    strange = HeldPosition("XRPUSDT", 1.0, 1.0)
    book = {
        "breaker": BreakerState(phase=BreakerPhase.OPEN, halted=True),
        "positions": [far, strange],
        "correlations": _pair(0.9),
        "metrics": metrics(drawdown=0.5),
        "depth_quote": 1.0,
        "cash_free": 1.0,
        "mark": math.nan,
    }
    seen = []
    repairs = [
        (book, {"mark": 100.0}),
        (book, {"breaker": BreakerState(phase=BreakerPhase.OPEN)}),
        (book, {"breaker": BreakerState()}),
        (order, {"quantity": Decimal(1)}),
        (book, {"correlations": _pair(0.1)}),
        (book, {"positions": [far]}),
        (order, {"stop_loss": Decimal(105)}),
        (order, {"stop_loss": Decimal(95)}),
        (book, {"positions": []}),
        (book, {"metrics": metrics()}),
        (book, {"depth_quote": 1e6}),
        (book, {"cash_free": 1e4}),
    ]
    for part, repair in repairs:
        seen.append(_code(MANAGER.validate(intent(**order), view(**book))))
        part.update(repair)
    assert seen == [code for code in verdict.CODES if code not in {"STALE", "REDUCE_ONLY"}]
    assert _code(MANAGER.validate(intent(**order), view(**book))) == "APPROVED"


def test_at_a_correlation_limit_of_one_every_known_correlation_passes(intent, view):
    manager = RiskManager(RiskLimits(max_correlation=1.0))
    held = {"positions": [ETH]}
    assert _code(manager.validate(intent(), view(**held, correlations=_pair(1.0)))) == "APPROVED"
    assert _code(manager.validate(intent(), view(**held))) == "CORRELATION_UNKNOWN"


def test_every_use_of_a_limit_can_be_the_score(intent, view, metrics):
    books = [
        ({"positions": [ETH], "correlations": _pair(0.63)}, 0.9),
        ({"metrics": metrics(drawdown=0.12)}, 0.8),
        ({"depth_quote": 200.0}, 0.75),
        ({"cash_free": 157.142857}, 0.7),
        ({"cash_free": 27.5, "margin_rate": 0.2}, 0.8),
        ({"positions": [ETH], "correlations": _pair(0.0)}, 0.5),
        ({"positions": [HeldPosition("ETHUSDT", 179.0, 100.0)], "correlations": _pair(0.1)}, 0.6),
    ]
    for book, score in books:
        answer = MANAGER.validate(intent(), view(**book))
        assert answer.risk_score == pytest.approx(score, rel=1e-6)


# --------------------------------------------------------- prices, stops, worst cases
def test_a_sell_limit_far_below_the_market_counts_at_the_market(intent, view):
    wanted = intent(
        side=Side.SELL,
        order_type=OrderType.LIMIT,
        price=Decimal(1),
        stop_loss=Decimal(105),
        quantity=Decimal(3),
    )
    answer = MANAGER.validate(wanted, view())
    assert (answer.code, answer.value) == ("POSITION_SIZE", pytest.approx(0.03))


def test_an_entry_counts_at_the_dearest_of_its_prices_and_the_mark(intent, view):
    limit = {"order_type": OrderType.LIMIT, "quantity": Decimal(1)}
    for change, value in [
        (limit | {"price": Decimal(250)}, 0.025),
        ({"reference_price": Decimal(260)}, 0.026),
        ({"order_type": OrderType.STOP_MARKET, "stop_price": Decimal(270)}, 0.027),
        (limit | {"price": Decimal(90), "stop_price": Decimal(270)}, 0.027),
    ]:
        answer = MANAGER.validate(intent(**change), view())
        assert (answer.code, answer.value) == ("POSITION_SIZE", pytest.approx(value))
    assert MANAGER.validate(intent(), view(mark=280.0)).value == pytest.approx(0.028)


def test_the_stop_of_a_stop_entry_lies_beyond_its_trigger_not_the_market(intent, view):
    entry = intent(
        order_type=OrderType.STOP_MARKET, stop_price=Decimal(110), stop_loss=Decimal(105)
    )
    assert _code(MANAGER.validate(entry, view())) == "APPROVED"


def test_a_marketable_limit_needs_its_stop_below_the_market(intent, view):
    entry = intent(order_type=OrderType.LIMIT, price=Decimal(110), stop_loss=Decimal(105))
    assert _code(MANAGER.validate(entry, view())) == "STOP_LOSS_SIDE"


def test_a_short_entry_needs_its_stop_above(intent, view):
    entry = intent(side=Side.SELL, stop_loss=Decimal(105))
    assert _code(MANAGER.validate(entry, view())) == "APPROVED"


def test_worst_cases_are_what_brute_force_over_all_fills_finds(view):
    orders = [
        OpenOrder("A", 1, 2.0, 10.0),
        OpenOrder("A", -1, 7.0, 9.0),
        OpenOrder("B", -1, 1.0, 30.0),
        OpenOrder("B", 1, 4.0, 20.0),
        OpenOrder("B", 1, 9.0, 20.0, reduce_only=True),
    ]
    seen = view(positions=[HeldPosition("A", 3.0, 10.0)], open_orders=orders, mark=10.0)
    cases = worst_cases(seen, "A")
    for symbol, held in (("A", 30.0), ("B", 0.0)):
        flows = [
            o.sign * o.quantity * max(o.price, 10.0)
            for o in orders
            if o.symbol == symbol and not o.reduce_only
        ]
        outcomes = [
            start + sum(chosen)
            for start in (held, 0.0)  # an exit may close it first
            for size in range(len(flows) + 1)
            for chosen in itertools.combinations(flows, size)
        ]
        assert cases[symbol].long == max(outcomes)
        assert cases[symbol].short == -min(outcomes)
        assert cases[symbol].most() == max(abs(o) for o in outcomes)


# ------------------------------------------------------------------------- exits
@pytest.mark.parametrize("breaker", [OPEN, HALTED, PROBING, BreakerState()])
@pytest.mark.parametrize("bad", [math.nan, -1e9, 0.0])
def test_an_exit_passes_whatever_else_is_wrong(intent, view, metrics, breaker, bad):
    seen = view(
        positions=[HeldPosition("BTCUSDT", 5.0, bad), HeldPosition("XRPUSDT", bad, bad)],
        breaker=breaker,
        equity=bad,
        cash_free=bad,
        mark=bad,
        depth_quote=bad,
        metrics=metrics(drawdown=math.nan),
        overrides=[RiskOverride(reason="news", expires_ts_ns=10**18, halt=True)],
    )
    leave = intent(side=Side.SELL, quantity=Decimal(5), reduce_only=True, stop_loss=None)
    answer = MANAGER.validate(leave, seen)
    assert isinstance(answer, RiskApproved)
    assert answer.risk_score == 0.0
    assert answer.stop_loss is None


@pytest.mark.parametrize(
    ("held", "side", "quantity", "most"),
    [
        (5.0, Side.SELL, "5.1", "5"),
        (5.0, Side.BUY, "1", "0"),
        (-5.0, Side.BUY, "6", "5"),
        (-5.0, Side.SELL, "1", "0"),
        (0.0, Side.SELL, "1", "0"),
        (0.1 + 0.2, Side.SELL, "1", "0.30000000000000004"),
    ],
)
def test_an_exit_that_would_not_only_reduce_is_refused(intent, view, held, side, quantity, most):
    leave = intent(side=side, quantity=Decimal(quantity), reduce_only=True)
    seen = view(positions=[HeldPosition("BTCUSDT", held, 100.0)])
    answer = MANAGER.validate(leave, seen)
    assert answer.code == "REDUCE_ONLY"
    assert answer.would_pass_size == Decimal(most)
    if answer.would_pass_size:
        again = intent(side=side, quantity=answer.would_pass_size, reduce_only=True)
        assert isinstance(MANAGER.validate(again, seen), RiskApproved)


def test_a_short_is_closed_by_a_reduce_only_buy(intent, view):
    seen = view(positions=[HeldPosition("BTCUSDT", -5.0, 100.0)], breaker=OPEN)
    leave = intent(side=Side.BUY, quantity=Decimal(5), reduce_only=True)
    assert isinstance(MANAGER.validate(leave, seen), RiskApproved)


@pytest.mark.parametrize("held", [math.nan, math.inf, -math.inf])
def test_an_exit_of_a_position_that_is_no_number_cannot_be_judged(intent, view, held):
    seen = view(positions=[HeldPosition("BTCUSDT", held, 100.0)])
    for side in Side:
        answer = MANAGER.validate(intent(side=side, reduce_only=True), seen)
        assert answer.code == "NOT_FINITE"


# ------------------------------------------------------------------- bad numbers
NO_NUMBERS = [math.nan, math.inf, -math.inf, 5e-324, -5e-324]
UNUSABLE = [*NO_NUMBERS, 0.0, -0.0, -1.0]
HUGE = [1e308, -1e308]


@pytest.mark.parametrize("bad", [*NO_NUMBERS, -1.0])
def test_a_number_that_is_none_is_refused_wherever_it_enters(intent, view, metrics, bad):
    books = [
        {"equity": bad},
        {"mark": bad},
        {"margin_rate": bad},
        {"positions": [HeldPosition("BTCUSDT", 1.0, bad)]},
        {"open_orders": [OpenOrder("BTCUSDT", 1, 1.0, bad)]},
        {"open_orders": [OpenOrder("BTCUSDT", 1, bad, 1.0)]},
        {"metrics": metrics(drawdown=bad)},
    ]
    if bad != -1.0:
        books += [
            {"depth_quote": bad},
            {"positions": [HeldPosition("BTCUSDT", bad, 1.0)]},
            {"metrics": metrics(leverage=bad)},
        ]
    for book in books:
        answer = MANAGER.validate(intent(), view(**book))
        assert answer.code == "NOT_FINITE"
        assert answer.would_pass_size == 0
        assert repr(bad) in answer.text
    if not math.isfinite(bad):
        assert MANAGER.validate(intent(), view(cash_free=bad)).code == "NOT_FINITE"
    else:
        assert MANAGER.validate(intent(), view(cash_free=bad)).code == "MARGIN"


def test_what_has_exposure_needs_a_mark(intent, view):
    resting = [OpenOrder("XRPUSDT", 1, 1.0, 50.0)]
    assert _code(MANAGER.validate(intent(symbol="XRPUSDT"), view())) == "NOT_FINITE"
    answer = MANAGER.validate(intent(), view(open_orders=resting))
    assert (answer.code, answer.text) == (
        "NOT_FINITE",
        "cannot be judged: open order XRPUSDT has no mark",
    )
    marked = view(open_orders=resting, marks={"BTCUSDT": 100.0, "XRPUSDT": 50.0})
    assert _code(MANAGER.validate(intent(), marked)) == "CORRELATION_UNKNOWN"


def test_the_dearer_of_two_marks_counts(intent, view):
    seen = view(positions=[HeldPosition("BTCUSDT", 1.0, 150.0)])
    answer = MANAGER.validate(intent(), seen)
    assert (answer.code, answer.value) == ("POSITION_SIZE", pytest.approx(0.03))
    assert seen.mark("BTCUSDT") == 150.0


@pytest.mark.parametrize("key", ["equity", "mark", "margin_rate"])
@pytest.mark.parametrize("bad", [0.0, -0.0])
def test_zero_is_refused_where_nothing_can_be_zero(intent, view, key, bad):
    assert MANAGER.validate(intent(), view(**{key: bad})).code == "NOT_FINITE"


def test_other_impossible_inputs_cannot_be_judged(intent, view, metrics):
    for book in (
        {"margin_rate": 1.01},
        {"open_orders": [OpenOrder("BTCUSDT", 0, 1.0, 1.0)]},
        {"open_orders": [OpenOrder("BTCUSDT", 2, 1.0, 1.0)]},
        {"metrics": metrics(peak="NaN")},
        {"metrics": metrics(peak="sNaN")},
        {"metrics": metrics(peak="Infinity")},
        {"metrics": metrics(peak="0")},
    ):
        assert MANAGER.validate(intent(), view(**book)).code == "NOT_FINITE"


@pytest.mark.parametrize(
    "bad", ["NaN", "sNaN", "Infinity", "-Infinity", "1e-320", "0", "-1", "1e400"]
)
@pytest.mark.parametrize("key", ["quantity", "price", "stop_price", "reference_price"])
def test_a_decimal_that_is_no_usable_number_is_refused(intent, view, key, bad):
    answer = MANAGER.validate(intent(**{key: Decimal(bad)}), view())
    assert answer.code == "NOT_FINITE"
    assert answer.would_pass_size == 0
    room = MANAGER.position_room(intent(**{key: Decimal(bad)}), view())
    assert float(room) == pytest.approx(2.0 if key == "quantity" else 0.0)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("NaN", "STOP_LOSS_MISSING"),
        ("sNaN", "STOP_LOSS_MISSING"),
        ("Infinity", "STOP_LOSS_SIDE"),
        ("-Infinity", "STOP_LOSS_SIDE"),
        ("1e-320", "STOP_LOSS_SIDE"),
    ],
)
def test_a_stop_that_is_no_number_protects_nothing(intent, view, bad, code):
    for side in Side:
        answer = MANAGER.validate(intent(side=side, stop_loss=Decimal(bad)), view())
        assert answer.code == code


def test_a_value_too_small_for_a_float_cannot_be_judged(intent, view):
    tiny = intent(
        quantity=Decimal("1e-200"), reference_price=Decimal("1e-200"), stop_loss=Decimal("1e-201")
    )
    assert MANAGER.validate(tiny, view(mark=1e-200)).code == "NOT_FINITE"
    small = intent(quantity=Decimal("1e-300"))
    assert MANAGER.validate(small, view(margin_rate=1e-200)).code == "NOT_FINITE"


def test_a_size_too_small_for_a_float_is_not_offered(intent, view):
    wanted = intent(
        quantity=Decimal(1000), reference_price=Decimal("1e-5"), stop_loss=Decimal("1e-6")
    )
    answer = MANAGER.validate(wanted, view(mark=1e-5, depth_quote=3e-308))
    assert (answer.code, answer.would_pass_size) == ("LIQUIDITY", 0)


WILD = st.sampled_from([*NO_NUMBERS, *UNUSABLE, *HUGE, 1.0, 100.0, 2.3e-308]) | st.floats()


def _fixed(function):
    return settings(
        max_examples=400,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )(function)


@_fixed
@given(
    numbers=st.lists(WILD, min_size=13, max_size=13),
    quantity=st.decimals(),
    stop=st.none() | st.decimals(),
    reduce_only=st.booleans(),
    side=st.sampled_from(Side),
)
def test_whatever_numbers_come_the_answer_is_finite_and_nothing_raises(
    intent, view, metrics, numbers, quantity, stop, reduce_only, side
):
    n = numbers
    seen = view(
        equity=n[0],
        cash_free=n[1],
        mark=n[2],
        depth_quote=n[3],
        margin_rate=n[4],
        positions=[HeldPosition("BTCUSDT", n[5], n[6]), HeldPosition("ETHUSDT", n[7], n[8])],
        open_orders=[OpenOrder("ETHUSDT", -1, n[9], n[10])],
        correlations=_pair(n[11]),
        metrics=metrics(drawdown=n[12]),
    )
    wanted = intent(quantity=quantity, stop_loss=stop, reduce_only=reduce_only, side=side)
    answer = MANAGER.validate(wanted, seen)
    if isinstance(answer, RiskApproved):
        assert 0.0 <= answer.risk_score <= 1.0
        if not reduce_only:
            assert all(math.isfinite(x) for x in n if x is not n[11])
        return
    json.dumps([answer.limit, answer.value], allow_nan=False)
    assert answer.code in verdict.CODES
    assert answer.text
    assert answer.would_pass_size.is_finite()
    if answer.would_pass_size > 0:
        again = msgspec.structs.replace(wanted, quantity=answer.would_pass_size)
        assert isinstance(MANAGER.validate(again, seen), RiskApproved)


@_fixed
@given(
    quantity=st.decimals("0.0001", "1000", places=4),
    price=st.floats(0.5, 2.0),
    held=st.floats(-3, 3),
    pending=st.floats(0, 3),
    sign=st.sampled_from([1, -1]),
    other=st.floats(-400, 400),
    correlation=st.floats(-1, 1),
    cash=st.floats(0, 2000),
    depth=st.floats(0, 2000),
    margin_rate=st.floats(0.1, 1),
    side=st.sampled_from(Side),
    probing=st.booleans(),
    step=st.floats(0.01, 1),
)
def test_the_offered_size_passes_as_does_any_smaller_one_and_none_much_larger(
    intent,
    view,
    quantity,
    price,
    held,
    pending,
    sign,
    other,
    correlation,
    cash,
    depth,
    margin_rate,
    side,
    probing,
    step,
):
    stop = Decimal("0.01") if side is Side.BUY else Decimal(10_000)
    wanted = intent(quantity=quantity, side=side, stop_loss=stop)
    seen = view(
        mark=100.0 * price, cash_free=cash, depth_quote=depth, margin_rate=margin_rate,
        positions=[HeldPosition("BTCUSDT", held, 100.0), HeldPosition("ETHUSDT", other, 90.0)],
        open_orders=[OpenOrder("BTCUSDT", sign, pending, 101.0)],
        correlations=_pair(correlation), breaker=PROBING if probing else BreakerState(),
    )  # fmt: skip
    answer = MANAGER.validate(wanted, seen)
    if isinstance(answer, RiskApproved):
        assert answer.size == quantity
        return
    size = answer.would_pass_size
    assert 0 <= size <= quantity
    if size > 0:
        for smaller in (size, size * Decimal(step)):
            again = msgspec.structs.replace(wanted, quantity=smaller)
            assert isinstance(MANAGER.validate(again, seen), RiskApproved)
    larger = max(size * Decimal("1.00001"), size + Decimal("1e-6"))
    if larger < quantity:
        again = msgspec.structs.replace(wanted, quantity=larger)
        assert isinstance(MANAGER.validate(again, seen), RiskRefused)


# ------------------------------------------------------------------ overrides, sizing
def test_an_override_tightens_until_it_expires(intent, view):
    strict = RiskOverride(reason="news", expires_ts_ns=50, max_position_pct=0.005)
    answer = MANAGER.validate(intent(), view(overrides=[strict], now_ns=49))
    assert (answer.code, answer.limit) == ("POSITION_SIZE", 0.005)
    assert _code(MANAGER.validate(intent(), view(overrides=[strict], now_ns=50))) == "APPROVED"


def test_an_override_cannot_loosen(intent, view):
    loose = RiskOverride(reason="greed", expires_ts_ns=50, max_position_pct=0.1)
    answer = MANAGER.validate(intent(quantity=Decimal(3)), view(overrides=[loose], now_ns=1))
    assert (answer.code, answer.limit) == ("POSITION_SIZE", 0.02)


def test_an_override_can_halt(intent, view):
    halt = RiskOverride(reason="news", expires_ts_ns=50, halt=True)
    assert _code(MANAGER.validate(intent(), view(overrides=[halt], now_ns=49))) == "HALTED"


@pytest.mark.parametrize(
    ("book", "room"),
    [
        ({}, 2.0),
        ({"breaker": PROBING}, 0.5),
        ({"positions": [HeldPosition("BTCUSDT", 0.5, 100.0)]}, 1.5),
        ({"positions": [HeldPosition("BTCUSDT", 5.0, 100.0)]}, 0.0),
        ({"equity": math.nan}, 0.0),
        ({"cash_free": math.nan}, 0.0),
        ({"mark": math.nan}, 0.0),
    ],
)
def test_the_room_for_a_position_is_what_the_limit_leaves(intent, view, book, room):
    found = MANAGER.position_room(intent(), view(**book))
    assert float(found) == pytest.approx(room)
    assert not found or found < Decimal(repr(room))
    if found:
        sized = intent(quantity=found)
        assert _code(MANAGER.validate(sized, view(**book))) == "APPROVED"


def test_the_manager_shows_its_limits():
    assert MANAGER.limits == RiskLimits()


# ------------------------------------------------------------------------- witness
def test_nobody_else_can_make_an_approval(intent):
    for forged in (None, object(), True):
        with pytest.raises(InvariantViolated, match="outside the risk manager"):
            RiskApproved(intent(), 0.0, forged)


def test_only_the_manager_names_the_witness():
    root = Path(bot4_runtime.__file__).parent
    users = [
        source.relative_to(root).as_posix()
        for source in sorted(root.rglob("*.py"))
        if any(
            (isinstance(node, ast.Name) and node.id == "WITNESS")
            or (isinstance(node, ast.Attribute) and node.attr == "WITNESS")
            or (isinstance(node, ast.alias) and node.name == "WITNESS")
            for node in ast.walk(ast.parse(source.read_text()))
        )
    ]
    assert users == ["risk/manager.py", "risk/verdict.py"]


def test_verdicts_cannot_be_changed(intent, view):
    approved = MANAGER.validate(intent(), view())
    refused = MANAGER.validate(intent(quantity=Decimal(9)), view())
    for answer, name in ((approved, "intent"), (approved, "size"), (refused, "code")):
        with pytest.raises(AttributeError):
            setattr(answer, name, None)


def test_many_threads_get_the_answers_of_one(intent, view):
    intents = [intent(intent_no=n, quantity=Decimal(n) / 8) for n in range(1, 65)]
    seen = view(positions=[HeldPosition("BTCUSDT", 0.5, 100.0)])
    alone = [_code(MANAGER.validate(one, seen)) for one in intents]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            assert list(pool.map(lambda o: _code(MANAGER.validate(o, seen)), intents)) == alone


# ----------------------------------------------------------- exits that come before entries
def test_an_exit_that_fills_first_is_part_of_an_entry_s_worst_case(intent, view):
    """Short 3, an exit of 3 waits, 18 bought: the exit first, and the book is 18 long."""
    book = {
        "positions": [HeldPosition("BTCUSDT", -3.0, 10.0)],
        "open_orders": [OpenOrder("BTCUSDT", 1, 3.0, 10.0, reduce_only=True)],
        "mark": 10.0,
    }
    wanted = {"reference_price": Decimal(10), "stop_loss": Decimal(9)}
    answer = MANAGER.validate(intent(quantity=Decimal(21), **wanted), view(**book))
    assert (answer.code, answer.value) == ("POSITION_SIZE", pytest.approx(0.021))
    assert float(answer.would_pass_size) == pytest.approx(20.0)
    assert _code(MANAGER.validate(intent(quantity=Decimal(20), **wanted), view(**book))) == (
        "APPROVED"
    )


@pytest.mark.parametrize(
    ("held", "orders", "long", "short"),
    [
        (-3.0, [(1, 3.0, True)], 0.0, 3.0),
        (-3.0, [(1, 9.0, True)], 0.0, 3.0),  # it cannot flip
        (-3.0, [(1, 1.0, True), (1, 1.0, True)], 0.0, 3.0),
        (-3.0, [(1, 2.0, True), (1, 5.0, False)], 5.0, 3.0),  # another exit may come first
        (3.0, [(1, 2.0, True), (1, 5.0, False)], 8.0, 0.0),
        (3.0, [(-1, 2.0, True), (-1, 5.0, False)], 3.0, 5.0),
        (3.0, [(-1, 9.0, True)], 3.0, 0.0),
        (0.0, [(1, 2.0, True), (-1, 2.0, True)], 0.0, 0.0),
    ],
)
def test_the_ends_of_a_symbol_with_exits_waiting(view, held, orders, long, short):
    seen = view(
        mark=1.0,
        positions=[HeldPosition("BTCUSDT", held, 1.0)] if held else [],
        open_orders=[
            OpenOrder("BTCUSDT", sign, quantity, 1.0, reduce_only=reduce_only)
            for sign, quantity, reduce_only in orders
        ],
    )
    case = worst_cases(seen, "BTCUSDT")["BTCUSDT"]
    assert (case.long, case.short) == (long, short)
    assert case.most() == max(long, short, 0.0)


def test_a_symbol_held_twice_cannot_be_judged(intent, view):
    """Two legs would hide each other: 5 long and 5 short are not nothing."""
    legs = [HeldPosition("ETHUSDT", 5.0, 50.0), HeldPosition("ETHUSDT", -5.0, 50.0)]
    answer = MANAGER.validate(intent(), view(positions=legs))
    assert answer.code == "NOT_FINITE"
    assert answer.text == (
        "cannot be judged: a symbol is held twice, and its two positions would hide each other"
    )


# ------------------------------------------------- every number there is, found by itself
BAD_NUMBERS = (math.nan, math.inf, -math.inf, -0.0, 1e308, -1e308, 5e-324, -5e-324)
MONEY = ("quantity", "price", "stop_price", "reference_price", "stop_loss")


def test_the_numbers_of_an_intent_are_those_that_are_tested(intent):
    money = {
        field.name
        for field in msgspec.structs.fields(type(intent()))
        if field.type in (Decimal, Decimal | None)
    }
    assert money == set(MONEY)


@pytest.mark.parametrize("field", MONEY)
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("kind", OrderType)
@pytest.mark.parametrize("bad", [*map(repr, BAD_NUMBERS), "sNaN", "0", "-1"])
def test_a_bad_number_anywhere_in_an_intent_is_refused_or_changes_nothing(
    intent, view, field, side, kind, bad
):
    stop = Decimal(95) if side is Side.BUY else Decimal(105)
    sane = intent(side=side, order_type=kind, stop_loss=stop)
    wanted = msgspec.structs.replace(sane, **{field: Decimal(bad)})
    answer = MANAGER.validate(wanted, view())
    usable = math.isfinite(float(bad if bad != "sNaN" else "nan")) and float(bad) > 1e-300
    if isinstance(answer, RiskApproved):
        assert usable
        assert field == "stop_loss"  # 1e308, far above a short
        assert side is Side.SELL
    elif field != "stop_loss" and not usable:
        assert answer.code == "NOT_FINITE"
        assert bad.lower().strip("s") in answer.text.lower()


def _leaves(value, path=()):
    """Return the path to every float or Decimal a view is made of, lists and structs inside."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, (float, Decimal)):
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for at, item in enumerate(value):
            yield from _leaves(item, (*path, at))
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _leaves(getattr(value, name), (*path, name))
    elif isinstance(value, (HeldPosition, OpenOrder)):
        for name in ("quantity", "mark", "price"):
            if hasattr(value, name):
                yield from _leaves(getattr(value, name), (*path, name))


def _put(value, path, bad):
    """Return the value with another number at the end of the path."""
    if not path:
        return Decimal(repr(bad)) if isinstance(value, Decimal) else bad
    step, rest = path[0], path[1:]
    if isinstance(value, dict):
        return value | {step: _put(value[step], rest, bad)}
    if isinstance(value, list):
        return [_put(item, rest, bad) if at == step else item for at, item in enumerate(value)]
    inner = _put(getattr(value, step), rest, bad)
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(value, **{step: inner})
    if isinstance(value, HeldPosition):
        numbers = {"quantity": value.quantity, "mark": value.mark} | {step: inner}
        return HeldPosition(value.symbol, **numbers)
    numbers = {"quantity": value.quantity, "price": value.price} | {step: inner}
    return OpenOrder(value.symbol, value.sign, reduce_only=value.reduce_only, **numbers)


def test_a_bad_number_anywhere_in_a_view_is_refused_or_judged_safely(intent, view, metrics):
    sane = {
        "equity": 10_000.0,
        "cash_free": 10_000.0,
        "marks": {"BTCUSDT": 100.0, "ETHUSDT": 50.0},
        "positions": [HeldPosition("ETHUSDT", 1.0, 50.0)],
        "open_orders": [OpenOrder("ETHUSDT", 1, 1.0, 50.0)],
        "correlations": _pair(0.1),
        "depth_quote": 1e6,
        "breaker": BreakerState(),
        "metrics": metrics(),
        "now_ns": 1_000,
        "margin_rate": 1.0,
        "overrides": [],
    }
    parameters = set(inspect.signature(RiskView).parameters)
    assert parameters == set(sane), "a new field of the view has to be tested here"
    assert _code(MANAGER.validate(intent(), view(**sane))) == "APPROVED"
    paths = [(name, *path) for name, value in sane.items() for path in _leaves(value)]
    assert len(paths) == 16
    for path in paths:
        for bad in BAD_NUMBERS:
            seen = view(**sane | {path[0]: _put(sane[path[0]], path[1:], bad)})
            answer = MANAGER.validate(intent(), seen)
            where = f"{path} = {bad!r}: {_code(answer)}"
            if isinstance(answer, RiskApproved):
                assert math.isfinite(bad), where
                assert abs(bad) == 1e308 or path[0] == "metrics" or path[-1] == "quantity", where
                assert 0.0 <= answer.risk_score <= 1.0, where
            else:
                assert math.isfinite(answer.limit), where
                assert math.isfinite(answer.value), where
                assert answer.would_pass_size.is_finite(), where


# ------------------------------------------------------------------------- in words
WORDS = [
    ({"quantity": "2.5"}, {}, "position would be 2.5000% of equity, at most 2.0000% is allowed; "
     "1.99999999999 would pass"),
    ({}, {"positions": [ETH], "correlations": _pair(0.75)},
     "correlation 0.750 with an open position, less than 0.700 is needed"),
    ({}, {"positions": [ETH]}, "correlation with 1 open positions is not known yet"),
    ({"stop_loss": None}, {}, "an entry needs a stop loss and has none"),
    ({"stop_loss": "105"}, {}, "stop loss 105 is not on the losing side of 100"),
    ({}, {"positions": [HeldPosition("ETHUSDT", 300.0, 100.0)], "correlations": _pair(0.1)},
     "leverage would be 3.010, at most 3.000 is allowed"),
    ({}, {"equity": 8_000.0}, "drawdown is 20.00%, at most 15.00% is allowed"),
    ({}, {"depth_quote": 60.0},
     "exit-side depth is 0.600 times the order, 1.500 is needed; 0.399999999999 would pass"),
    ({}, {"cash_free": 55.0},
     "free cash is 0.550 times the margin, 1.100 is needed; 0.499999999999 would pass"),
    ({}, {"breaker": HALTED}, "the operator halted entries; resume lifts it"),
    ({}, {"breaker": OPEN}, "the circuit breaker is open; it probes again after its cool-down"),
    ({"quantity": "-1"}, {}, "cannot be judged: quantity is -1"),
    ({}, {"equity": -5.0}, "cannot be judged: equity is -5.0"),
    ({}, {"cash_free": math.inf}, "cannot be judged: free cash is inf"),
    ({}, {"depth_quote": math.inf}, "cannot be judged: depth is inf"),
    ({}, {"margin_rate": 1.5}, "cannot be judged: margin rate is 1.5"),
    ({}, {"positions": [HeldPosition("ETHUSDT", math.inf, 5.0)]},
     "cannot be judged: position ETHUSDT is inf at 5.0"),
    ({}, {"open_orders": [OpenOrder("ETHUSDT", 2, 1.0, 5.0)]},
     "cannot be judged: open order ETHUSDT is 2 x 1.0 at 5.0"),
    ({}, {"open_orders": [OpenOrder("ETHUSDT", 1, -1.0, 5.0)]},
     "cannot be judged: open order ETHUSDT is 1 x -1.0 at 5.0"),
    ({"symbol": "XRPUSDT"}, {}, "cannot be judged: one of price None, stop price None, reference "
     "price 100 and mark nan is no usable price"),
    ({"quantity": "1e307", "reference_price": "1e307"}, {},
     "cannot be judged: 1E+307 at 1e+307 has no usable value"),
]  # fmt: skip


@pytest.mark.parametrize(("order", "book", "words"), WORDS)
def test_a_refusal_says_in_words_what_was_wrong_and_what_would_pass(
    intent, view, order, book, words
):
    texts = {"symbol"}
    order = {
        key: Decimal(value) if isinstance(value, str) and key not in texts else value
        for key, value in order.items()
    }
    assert MANAGER.validate(intent(**order), view(**book)).text == words


def test_an_exit_s_refusal_is_in_words_too(intent, view):
    leave = intent(side=Side.SELL, quantity=Decimal(6), reduce_only=True)
    held = view(positions=[HeldPosition("BTCUSDT", 5.0, 100.0)])
    assert MANAGER.validate(leave, held).text == (
        "reduces 6 but may reduce 5 of the position at most; 5.0 would pass"
    )
    nan = view(positions=[HeldPosition("BTCUSDT", math.nan, 100.0)])
    assert MANAGER.validate(leave, nan).text == "cannot be judged: position BTCUSDT is nan"


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ({"leverage": math.nan}, "leverage is nan"),
        ({"drawdown": math.nan}, "drawdown is nan of a peak of 10000"),
        ({"drawdown": -0.1}, "drawdown is -0.1 of a peak of 10000"),
        ({"peak": "0"}, "drawdown is 0.0 of a peak of 0"),
        ({"peak": "NaN"}, "drawdown is 0.0 of a peak of NaN"),
        ({"equity": "NaN"}, "one of the book's amounts is NaN"),
        ({"day_start": "Infinity"}, "one of the book's amounts is Infinity"),
    ],
)
def test_metrics_that_are_no_numbers_are_named(intent, view, metrics, metric, words):
    answer = MANAGER.validate(intent(), view(metrics=metrics(**metric)))
    assert answer.text == f"cannot be judged: {words}"


def test_an_approval_made_elsewhere_is_refused_in_words(intent):
    with pytest.raises(InvariantViolated) as refused:
        RiskApproved(intent(), 0.0, None)
    assert str(refused.value) == (
        "an approval was made outside the risk manager; only RiskManager.validate approves intents"
    )


def test_what_is_held_of_a_symbol_is_all_of_its_positions(view):
    legs = [HeldPosition("BTCUSDT", 2.0, 100.0), HeldPosition("BTCUSDT", -0.5, 100.0)]
    assert view(positions=legs).held("BTCUSDT") == 1.5
    assert view(positions=legs).held("ETHUSDT") == 0.0


def test_an_entry_against_a_position_gets_no_credit_for_it(intent, view):
    """Found by the property test: an exit approved after the entry may close the short first."""
    short = view(positions=[HeldPosition("BTCUSDT", -0.5, 100.0)])
    manager = RiskManager(RiskLimits())
    answer = manager.validate(intent(quantity=Decimal("2.1")), short)
    assert isinstance(answer, RiskRefused)
    assert (answer.code, answer.value) == ("POSITION_SIZE", pytest.approx(0.021))
    assert answer.would_pass_size <= 2
    assert isinstance(
        manager.validate(intent(quantity=answer.would_pass_size), short), RiskApproved
    )
