"""What is kept with a view or an intent answers as what is worked out anew."""

import ast
import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bot4_runtime
from bot4_runtime.domain.order import OrderIntent, OrderType, Side, payload_hash
from bot4_runtime.domain.portfolio import BreakerPhase, BreakerState
from bot4_runtime.risk.correlation import CorrelationTable, FixedCorrelations
from bot4_runtime.risk.limits import RiskLimits, RiskOverride
from bot4_runtime.risk.manager import (
    HeldPosition,
    OpenOrder,
    RiskApproved,
    RiskManager,
)

MANAGER = RiskManager(RiskLimits())
STRICT = RiskManager(RiskLimits(max_position_pct=0.005, max_correlation=0.0))
SYMBOLS = ("BTCUSDT", "ETHUSDT", "XRPUSDT")
WILD = (math.nan, math.inf, -math.inf, -1.0, 0.0, 5e-324, 1e308)


def _told(answer):
    """Everything a verdict says."""
    if isinstance(answer, RiskApproved):
        return ("APPROVED", answer.risk_score, answer.size, answer.stop_loss)
    return (answer.code, answer.limit, answer.value, answer.would_pass_size, answer.text)


def _twin(wanted):
    """Return an equal intent that nobody has judged."""
    return msgspec.structs.replace(wanted)


@st.composite
def _books(draw):
    """Mostly sane books; in some, one number is not."""
    book = {
        "equity": draw(st.sampled_from([5_000.0, 10_000.0])),
        "cash_free": draw(st.sampled_from([50.0, 10_000.0])),
        "marks": dict.fromkeys(SYMBOLS, draw(st.sampled_from([50.0, 100.0]))),
        "positions": [
            HeldPosition(symbol, draw(st.sampled_from([-1.0, 0.0, 0.5, 1.0])), 100.0)
            for symbol in draw(st.sets(st.sampled_from(SYMBOLS)))
        ],
        "open_orders": [
            OpenOrder(
                draw(st.sampled_from(SYMBOLS)),
                draw(st.sampled_from([1, -1])),
                draw(st.sampled_from([0.1, 1.0])),
                draw(st.sampled_from([90.0, 120.0])),
                reduce_only=draw(st.booleans()),
            )
            for _ in range(draw(st.integers(0, 3)))
        ],
        "correlations": FixedCorrelations(
            {
                ("BTCUSDT", "ETHUSDT"): draw(st.sampled_from([-0.9, 0.1, 0.69, 0.9])),
                ("BTCUSDT", "XRPUSDT"): draw(st.sampled_from([0.0, 0.5])),
                ("ETHUSDT", "XRPUSDT"): 0.1,
            }
        ),
        "depth_quote": draw(st.sampled_from([100.0, 1e6])),
        "breaker": draw(
            st.sampled_from(
                [BreakerState(), BreakerState(), BreakerState(halted=True)]
                + [BreakerState(phase=phase) for phase in BreakerPhase]
            )
        ),
        "now_ns": draw(st.sampled_from([99, 100])),
        "overrides": draw(
            st.sampled_from(
                [
                    [],
                    [RiskOverride(reason="news", expires_ts_ns=100, halt=True)],
                    [RiskOverride(reason="news", expires_ts_ns=100, max_position_pct=0.01)],
                ]
            )
        ),
    }
    spoilt = draw(st.sampled_from(["", "", "equity", "cash_free", "depth_quote", "positions"]))
    if spoilt == "positions":
        book[spoilt] = [HeldPosition("ETHUSDT", draw(st.sampled_from(WILD)), 100.0)]
    elif spoilt:
        book[spoilt] = draw(st.sampled_from(WILD))
    return book


@st.composite
def _entries(draw):
    side = draw(st.sampled_from(Side))
    kind = draw(st.sampled_from(OrderType))
    prices = st.sampled_from(["90", "100", "110", "NaN", "sNaN", "0"])
    return {
        "symbol": draw(st.sampled_from(SYMBOLS)),
        "side": side,
        "order_type": kind,
        "quantity": Decimal(draw(st.sampled_from(["0.1", "0.5", "1", "5", "NaN", "-1"]))),
        "price": Decimal(draw(prices)) if kind is OrderType.LIMIT else None,
        "stop_price": Decimal(draw(prices)) if kind is OrderType.STOP_MARKET else None,
        "reference_price": Decimal(draw(st.sampled_from(["100", "100", "101", "Infinity"]))),
        "stop_loss": draw(st.sampled_from([None, Decimal(85), Decimal(130), Decimal("NaN")])),
        "reduce_only": draw(st.sampled_from([False, False, False, True])),
    }


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(book=_books(), entries=st.lists(_entries(), min_size=1, max_size=6))
def test_every_further_answer_of_a_view_is_that_of_a_view_made_anew(intent, view, book, entries):
    seen = view(**book)
    wanted = [intent(**entry) for entry in entries]
    for _ in range(2):
        for one in wanted:
            for manager in (MANAGER, STRICT):
                anew = manager.validate(_twin(one), view(**book))
                assert _told(manager.validate(one, seen)) == _told(anew)
                room = manager.position_room(_twin(one), view(**book))
                assert manager.position_room(one, seen) == room
    told = [_told(MANAGER.validate(one, seen)) for one in wanted]
    assert [_told(answer) for answer in MANAGER.validate_many(wanted, seen)] == told


def test_two_managers_of_one_view_hold_their_own_limits(intent, view):
    seen, wanted = view(), intent()
    for _ in range(3):
        assert isinstance(MANAGER.validate(wanted, seen), RiskApproved)
        refused = STRICT.validate(wanted, seen)
        assert (refused.code, refused.limit) == ("POSITION_SIZE", 0.005)
        assert float(refused.would_pass_size) == pytest.approx(0.5)
        assert float(STRICT.position_room(wanted, seen)) == pytest.approx(0.5)
        assert float(MANAGER.position_room(wanted, seen)) == pytest.approx(2.0)


def test_threads_of_two_managers_do_not_mix_on_one_view(intent, view):
    intents = [
        intent(intent_no=n, quantity=Decimal(n) / 16, side=side, stop_loss=Decimal(stop))
        for n in range(1, 40)
        for side, stop in ((Side.BUY, 95), (Side.SELL, 105))
    ]
    asked = [(manager, one) for one in intents for manager in (MANAGER, STRICT)]
    held = {"positions": [HeldPosition("BTCUSDT", 0.25, 100.0)]}
    alone = [_told(manager.validate(_twin(one), view(**held))) for manager, one in asked]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            seen = view(**held)
            fresh = [(manager, _twin(one)) for manager, one in asked]
            answers = pool.map(
                lambda pair, seen=seen: _told(pair[0].validate(pair[1], seen)), fresh
            )
            assert list(answers) == alone


def test_a_view_that_holds_an_override_takes_it_by_its_own_time(intent, view):
    tight = RiskOverride(reason="news", expires_ts_ns=50, max_position_pct=0.005)
    before, after = (view(overrides=[tight], now_ns=now_ns) for now_ns in (49, 50))
    wanted = intent()
    for _ in range(3):
        assert MANAGER.validate(wanted, before).limit == 0.005
        assert isinstance(MANAGER.validate(wanted, after), RiskApproved)


def test_what_correlations_have_learnt_since_counts(intent, view):
    table = CorrelationTable(min_observations=3)
    seen = view(positions=[HeldPosition("ETHUSDT", 1.0, 50.0)], correlations=table)
    wanted = intent()
    assert MANAGER.validate(wanted, seen).code == "CORRELATION_UNKNOWN"
    for hour, (btc, eth) in enumerate([(1, -1), (-1, 1), (2, -2)]):
        table.update("BTCUSDT", hour, btc / 100)
        table.update("ETHUSDT", hour, eth / 100)
    assert isinstance(MANAGER.validate(wanted, seen), RiskApproved)
    table.update("BTCUSDT", 3, 0.9)
    table.update("ETHUSDT", 3, 0.9)
    assert MANAGER.validate(wanted, seen).code == "CORRELATION"


def test_every_change_of_what_is_known_is_told():
    table = CorrelationTable(min_observations=3)
    told = [table.learnt]
    for hour, log_return in enumerate([0.1, 0.2, -0.1]):
        table.update("BTCUSDT", hour, log_return)
        told.append(table.learnt)
    assert len(set(told)) == len(told)
    table.update("BTCUSDT", 9, math.nan)
    assert table.learnt == told[-1]
    assert FixedCorrelations({}).learnt == 0


def test_containers_that_change_later_do_not_change_a_view(intent, view):
    kept = {
        "marks": {"BTCUSDT": 100.0, "ETHUSDT": 50.0},
        "positions": [HeldPosition("BTCUSDT", 0.5, 100.0)],
        "open_orders": [OpenOrder("BTCUSDT", 1, 0.5, 100.0)],
        "overrides": [RiskOverride(reason="news", expires_ts_ns=10**9, max_leverage=2.0)],
    }
    pairs = {("BTCUSDT", "ETHUSDT"): 0.1}
    seen = view(correlations=FixedCorrelations(pairs), **kept)
    wanted = intent(quantity=Decimal("1.5"))
    told = _told(MANAGER.validate(wanted, view(correlations=FixedCorrelations(pairs), **kept)))
    assert told[0] == "POSITION_SIZE"
    for container in (*kept.values(), pairs):
        container.clear()
    assert _told(MANAGER.validate(wanted, seen)) == told
    assert _told(MANAGER.validate(wanted, seen)) == told


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 5e-324])
@pytest.mark.parametrize("key", ["equity", "mark", "margin_rate"])
def test_a_bad_number_of_a_view_is_refused_however_often_it_is_asked(intent, view, key, bad):
    seen, wanted = view(**{key: bad}), intent()
    for _ in range(3):
        answer = MANAGER.validate(wanted, seen)
        assert (answer.code, answer.would_pass_size) == ("NOT_FINITE", 0)
        assert repr(bad) in answer.text
        assert MANAGER.position_room(wanted, seen) == 0


@pytest.mark.parametrize("bad", ["NaN", "sNaN", "Infinity", "-1", "0"])
@pytest.mark.parametrize("field", ["quantity", "reference_price", "price", "stop_price"])
def test_a_bad_number_of_an_intent_is_refused_beside_a_good_one(intent, view, field, bad):
    seen, good, wrong = view(), intent(), intent(**{field: Decimal(bad)})
    for _ in range(3):
        assert isinstance(MANAGER.validate(good, seen), RiskApproved)
        answer = MANAGER.validate(wrong, seen)
        assert (answer.code, answer.would_pass_size) == ("NOT_FINITE", 0)
        assert bad.lower() in answer.text.lower()
        if field != "quantity":
            assert MANAGER.position_room(wrong, seen) == 0


def test_a_judged_intent_is_worth_writes_and_hashes_what_it_did_before(intent, view):
    judged, fresh = intent(), intent()
    size, words = judged.__sizeof__(), repr(judged)
    assert isinstance(MANAGER.validate(judged, view()), RiskApproved)
    assert judged.judged is not None
    assert judged == fresh
    assert hash(judged) == hash(fresh)
    assert payload_hash(judged) == payload_hash(fresh)
    assert (judged.__sizeof__(), repr(judged)) == (size, words)
    assert "judged" not in OrderIntent.__struct_fields__
    assert msgspec.structs.asdict(judged) == msgspec.structs.asdict(fresh)
    assert msgspec.to_builtins(judged) == msgspec.to_builtins(fresh)
    for codec in (msgspec.json, msgspec.msgpack):
        written = codec.encode(judged)
        assert written == codec.encode(fresh)
        assert codec.decode(written, type=OrderIntent) == fresh


def test_copies_of_a_judged_intent_are_judged_by_their_own_numbers(intent, view):
    judged, seen = intent(), view()
    assert isinstance(MANAGER.validate(judged, seen), RiskApproved)
    larger = msgspec.structs.replace(judged, quantity=Decimal(3))
    assert MANAGER.validate(larger, seen).value == pytest.approx(0.03)
    copies = (
        copy.copy(judged),
        copy.deepcopy(judged),
        _twin(judged),
        pickle.loads(pickle.dumps(judged)),
        msgspec.json.decode(msgspec.json.encode(judged), type=OrderIntent),
    )
    for twin in copies:
        assert twin == judged
        assert twin.judged is None
        assert _told(MANAGER.validate(twin, seen)) == _told(MANAGER.validate(judged, seen))


def test_an_intent_cannot_be_given_other_numbers_by_assignment(intent, view):
    wanted = intent()
    MANAGER.validate(wanted, view())
    with pytest.raises(AttributeError):
        wanted.judged = None
    with pytest.raises(AttributeError):
        wanted.quantity = Decimal(9)


@pytest.mark.parametrize(
    ("names", "owners"),
    [
        ({"judged"}, ["domain/order.py", "risk/entry.py"]),
        ({"laid_buys", "laid_sells"}, ["risk/exposure.py", "risk/manager.py"]),
    ],
)
def test_nobody_else_touches_what_is_kept(names, owners):
    root = Path(bot4_runtime.__file__).parent
    users = [
        source.relative_to(root).as_posix()
        for source in sorted(root.rglob("*.py"))
        if any(
            (isinstance(node, ast.Attribute) and node.attr in names)
            or (isinstance(node, ast.Name) and node.id in names)
            or (isinstance(node, ast.Constant) and node.value in names)
            for node in ast.walk(ast.parse(source.read_text()))
        )
    ]
    assert users == owners


def test_each_of_many_is_judged_on_its_own(intent, view):
    """Two that pass alone would together hold 3 %: the second belongs before a newer view."""
    seen = view()
    wanted = [intent(intent_no=n, quantity=Decimal("1.5")) for n in (1, 2)]
    answers = MANAGER.validate_many(wanted, seen)
    assert [answer.intent for answer in answers] == wanted
    newer = view(open_orders=[OpenOrder("BTCUSDT", 1, 1.5, 100.0)])
    assert MANAGER.validate(wanted[1], newer).code == "POSITION_SIZE"
    assert MANAGER.validate_many([], seen) == []


def test_a_size_that_would_pass_is_the_same_however_often_it_is_read(intent, view):
    refused = MANAGER.validate(intent(quantity=Decimal(9)), view())
    first = refused.would_pass_size
    assert first is refused.would_pass_size
    assert float(first) == pytest.approx(2.0)
    assert refused.text.endswith(f"{first} would pass")
