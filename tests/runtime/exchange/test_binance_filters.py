"""An order passes our rules if and only if the venue's own judge lets it pass."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import Side
from bot4_runtime.exchange.binance.filters import Ask, Surroundings, SymbolFields, SymbolRules
from bot4_runtime.venue import rules as venue_rules
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.orders import Kind, OrderRequest, Tif
from bot4_runtime.venue.refusals import Refused

D = Decimal
LAST = D(100)
OF_RULES = {-1013, -1111}


def ours(told: venue_rules.SymbolRules, **changes) -> SymbolRules:
    data = msgspec.json.encode(told.told() | changes)
    return SymbolRules(msgspec.json.decode(data, type=SymbolFields))


def sizes(step: str, most: int):
    """Amounts on the step, off it, and far outside."""
    on = st.integers(0, most).map(lambda number: number * D(step))
    return on | st.decimals(0, most * D(step), places=9) | st.just(D(10) ** 8)


THEIR_RULES = st.builds(
    venue_rules.SymbolRules,
    symbol=st.just("BTCUSDT"),
    base=st.just("BTC"),
    quote=st.just("USDT"),
    tick_size=st.sampled_from([D("0.01"), D("0.5"), D(1)]),
    step_size=st.sampled_from([D("0.001"), D("0.1"), D("0.25")]),
    min_quantity=st.sampled_from([D("0.001"), D("0.1"), D(1)]),
    max_quantity=st.sampled_from([D(5), D(9_000)]),
    min_notional=st.sampled_from([D(5), D(50)]),
    max_notional=st.sampled_from([D(400), D(90_000_000)]),
    price_band=st.sampled_from([D("1.2"), D(3), D(5)]),
    max_orders=st.integers(1, 3),
    max_stops=st.integers(1, 2),
    market_min=st.sampled_from([D(0), D("0.5")]),
    market_max=st.sampled_from([D(0), D(2)]),
    market_step=st.sampled_from([D(0), D("0.1"), D("0.3")]),
    max_position=st.sampled_from([None, D(3), D(100)]),
    both_sides=st.booleans(),
    least_alone=st.booleans(),
    status=st.sampled_from(["TRADING"] * 8 + ["HALT", "CANCEL_ONLY"]),
)


@st.composite
def requests(draw):
    kind = draw(st.sampled_from(list(Kind)))
    by_quote = kind is Kind.MARKET and draw(st.booleans())
    has_price = kind.value.startswith("LIMIT") or kind.value.endswith("_LIMIT")
    has_stop = kind.value.startswith(("STOP", "TAKE"))
    near = st.integers(1, 700).map(D) | sizes("0.5", 300)
    return OrderRequest(
        symbol="BTCUSDT",
        side=draw(st.sampled_from(list(Side))),
        kind=kind,
        tif=draw(st.sampled_from(list(Tif))) if kind is Kind.LIMIT else Tif.GTC,
        quantity=None if by_quote else draw(sizes("0.1", 40) | sizes("0.001", 9)),
        quote_quantity=draw(sizes("0.1", 6_000)) if by_quote else None,
        price=draw(near) if has_price else None,
        stop_price=draw(near) if has_stop else None,
    )


@given(THEIR_RULES, st.lists(requests(), min_size=1, max_size=6))
@settings(max_examples=200)
def test_it_passes_here_if_and_only_if_it_passes_there(told, asked):
    trading = msgspec.structs.replace(told, status="TRADING")
    venue = Loopback(ManualClock(10**18), [(trading, LAST)])
    account = venue.open_account(1, "key", "s", [("USDT", D(10) ** 15), ("BTC", D(2))])
    exchange = venue.exchange
    for number, request in enumerate(asked):
        if number == len(asked) // 2:
            exchange.relist(told)
        rules = ours(exchange.symbols[0])
        resting = exchange.open_orders(account, "BTCUSDT")
        bids = sum((order.left for order in resting if order.side is Side.BUY), D(0))
        around = Surroundings(
            last=exchange.last_price("BTCUSDT"),
            orders=len(resting),
            stops=sum(order.request.stop_price is not None for order in resting),
            owned=account.balance("BTC").total + bids,
        )
        ask = Ask(request.side, request.kind.value, request.quantity, request.quote_quantity, request.price, request.stop_price)  # fmt: skip
        broken = {rule.rule for rule in rules.broken(ask, around)}
        try:
            exchange.place(account, request)
            refused = None
        except Refused as error:
            refused = error
        if refused is not None and refused.code in OF_RULES:
            name = refused.message.partition("Filter failure: ")[2] or "PRECISION"
            assert name in broken, (ask, refused, broken)
        elif refused is not None and refused.message == "Market is closed.":
            assert "MARKET_CLOSED" in broken
        else:
            assert not broken, (ask, refused, broken)


@given(THEIR_RULES, st.decimals(0, 6, places=4), st.booleans())
@settings(max_examples=60)
def test_what_was_rounded_passes_and_a_step_more_would_be_too_much(told, quantity, at_market):
    rules = ours(told)
    cut = rules.floor_quantity(quantity, at_market=at_market)
    kind = "MARKET" if at_market else "LIMIT"
    lots = {"LOT_SIZE", "MARKET_LOT_SIZE", "PRECISION"}

    def fits(amount):
        ask = Ask(Side.SELL, kind, amount)
        return not lots & {rule.rule for rule in rules.broken(ask, Surroundings())}

    assert cut <= quantity
    thousandths = range(int(quantity * 1_000), 0, -1)
    assert cut == next((n * D("0.001") for n in thousandths if fits(n * D("0.001"))), D(0))
    for price in (quantity, quantity + 1):
        below, above = rules.price(price, up=False), rules.price(price, up=True)
        assert below <= price <= above < below + told.tick_size * 2
        assert not below % told.tick_size
        assert not above % told.tick_size


@given(THEIR_RULES, st.decimals(0, 20_000, places=4), st.booleans())
@settings(max_examples=100)
def test_an_entry_cut_to_one_order_is_as_large_as_its_rules_let_pass(told, wanted, at_market):
    rules = ours(told)
    made = rules.instrument()
    quantity = made.floor_quantity(wanted)
    cut = made.in_one_order(quantity, LAST, at_market=at_market)

    def broken(amount):
        price = None if at_market else LAST
        ask = Ask(Side.BUY, "MARKET" if at_market else "LIMIT", amount, price=price)
        found = {rule.rule for rule in rules.broken(ask, Surroundings(last=LAST))}
        return found & {"LOT_SIZE", "MARKET_LOT_SIZE", "PRECISION", *(["NOTIONAL"] * at_market)}

    assert cut <= quantity
    if made.tradable(cut, LAST):
        assert not broken(cut)
    if cut < quantity and not at_market:
        assert broken(cut + made.step_size), "a step more would have passed"


def test_rules_nobody_knows_are_left_to_the_venue_and_unreadable_ones_refused():
    told = venue_rules.SymbolRules(symbol="BTCUSDT", base="BTC", quote="USDT", tick_size=D("0.01"), step_size=D("0.001"), min_quantity=D("0.001"))  # fmt: skip
    rules = ours(told, filters=[{"filterType": "MAX_FUN", "maxFun": 3}], news=1)
    assert rules.unknown == ["MAX_FUN"]
    ask = Ask(Side.BUY, "LIMIT", D("0.0001"), price=D("3.333"))
    assert list(rules.broken(ask, Surroundings(D(1), 9_999, 9, D(10) ** 9))) == []
    with pytest.raises(DataError, match="no tick"):
        rules.instrument()
    for wrong in (
        {"filterType": "LOT_SIZE", "minQty": "NaN", "maxQty": "1", "stepSize": "1"},
        {"filterType": "LOT_SIZE", "minQty": "-1", "maxQty": "1", "stepSize": "1"},
        {"filterType": "LOT_SIZE", "minQty": "1"},
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": -1},
        {"maxNumOrders": 1},
    ):
        with pytest.raises((DataError, msgspec.ValidationError)):
            ours(told, filters=[wrong])
    made = ours(told).instrument()
    assert (made.tick_size, made.step_size, made.min_notional, made.assumed) == (D("0.01"), D("0.001"), D(5), False)  # fmt: skip
    assert made.max_quantity == made.max_market_quantity == D(9_000_000)
    assert made.max_market_notional == D(90_000_000)


def test_what_is_bought_can_be_sold_at_market():
    told = venue_rules.SymbolRules(symbol="BTCUSDT", base="BTC", quote="USDT", tick_size=D("0.01"), step_size=D("0.002"), min_quantity=D("0.002"), market_min=D("0.01"), market_max=D("7.5"), market_step=D("0.005"))  # fmt: skip
    made = ours(told).instrument()
    assert (made.step_size, made.min_quantity) == (D("0.01"), D("0.01"))
    assert (made.max_quantity, made.max_market_quantity) == (D(9_000_000), D("7.5"))
    alone = [f for f in told.told()["filters"] if f["filterType"] not in {"MARKET_LOT_SIZE", "NOTIONAL"}]  # fmt: skip
    made = ours(told, filters=alone).instrument()
    assert (made.step_size, made.max_market_quantity) == (D("0.002"), D(9_000_000))
    assert made.max_market_notional is None


def test_nan_never_passes():
    rules = ours(venue_rules.SymbolRules(symbol="BTCUSDT", base="BTC", quote="USDT", tick_size=D("0.01"), step_size=D("0.001"), min_quantity=D("0.001")))  # fmt: skip
    for wrong in ("NaN", "sNaN", "Infinity", "-Infinity", "-1", "0", "1E+40", "1E-40"):
        for ask in (
            Ask(Side.BUY, "MARKET", D(wrong)),
            Ask(Side.BUY, "LIMIT", D(1), price=D(wrong)),
            Ask(Side.BUY, "STOP_LOSS", D(1), stop_price=D(wrong)),
        ):
            assert list(rules.broken(ask, Surroundings())), ask
