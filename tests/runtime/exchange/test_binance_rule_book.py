"""The rule book: fresh for a while, never half read, and no stricter with exits than is certain."""

from decimal import Decimal

import msgspec
import pytest

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import OutcomeUnknown
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    OrderIntent,
    OrderStatus,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.exchange.binance.rule_book import FRESH_S, ExchangeInfo, RuleBook
from bot4_runtime.exchange.protocols import VenueOrder
from bot4_runtime.venue.rules import SymbolRules

D = Decimal
RULES = SymbolRules.of(Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0))
LIMITS = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 99}]


def info(*rules: SymbolRules, **changes) -> ExchangeInfo:
    told = {"rateLimits": LIMITS, "symbols": [rule.told() | changes for rule in rules]}
    return msgspec.json.decode(msgspec.json.encode(told), type=ExchangeInfo)


def intent(side=Side.BUY, quantity="0.01", price="39000", reduce=False):
    return OrderIntent(
        intent_no=1,
        book=Book.VALIDATED,
        purpose=Purpose.EXIT if reduce else Purpose.ENTRY,
        symbol="BTCUSDT",
        side=side,
        order_type=OrderType.LIMIT,
        quantity=D(quantity),
        price=D(price),
        stop_price=None,
        time_in_force=TimeInForce.GTC,
        reduce_only=reduce,
        reference_price=D(40_000),
        stop_loss=None,
        expires_after=0,
        signal_id="s",
        rule_id="r",
        ts_ns=1,
    )


def resting(quantity, filled, side=Side.BUY):
    return VenueOrder(client_id="x", venue_order_id="1", symbol="BTCUSDT", side=side, status=OrderStatus.ACCEPTED, quantity=D(quantity), filled=D(filled), spent=D(0), updated_ms=1)  # fmt: skip


@pytest.fixture
def made():
    now_s = [0.0]
    budget = RequestBudget(None)
    book = RuleBook(["BTCUSDT"], budget, "key", timer=lambda: now_s[0])
    book.take_over(info(RULES), 0)
    return book, now_s, budget


def test_rules_are_due_after_a_while_and_after_a_doubt(made):
    book, now_s, budget = made
    assert budget.weight.most == 99, "limits come with the rules"
    assert book.due_query() is None
    now_s[0] = FRESH_S
    assert book.due_query() == "symbols=%5B%22BTCUSDT%22%5D"
    book.take_over(info(RULES), 0)
    assert book.due_query() is None
    book.doubt()
    assert book.due_query() is not None
    assert RuleBook([], budget, "key").due_query() is None


def test_what_cannot_be_read_leaves_the_former_rules(made):
    book, _now, _budget = made
    former = book.of("BTCUSDT")
    torn = [{"filterType": "LOT_SIZE", "minQty": "NaN", "maxQty": "1", "stepSize": "1"}]
    for wrong in (info(), info(RULES, symbol="ETHUSDT"), info(RULES, filters=torn)):
        with pytest.raises(OutcomeUnknown):
            book.take_over(wrong, 0)
    assert book.of("BTCUSDT") is former
    assert book.of("ETHUSDT") is None
    assert RuleBook([], RequestBudget(None), "key").broken(intent(), "LIMIT") is None


def test_a_broken_rule_makes_the_rules_due_again(made):
    book, _now, _budget = made
    assert book.broken(intent(), "LIMIT") is None
    assert book.due_query() is None
    assert book.broken(intent(price="39000.05"), "LIMIT").rule == "PRICE_FILTER"
    assert book.due_query() is not None


@pytest.mark.parametrize(
    ("rules", "asked", "entry", "leaving"),
    [
        ({}, {"price": "39000.05"}, "PRICE_FILTER", "PRICE_FILTER"),
        ({}, {"quantity": "0.0100001"}, "LOT_SIZE", "LOT_SIZE"),
        ({"status": "HALT"}, {}, "MARKET_CLOSED", "MARKET_CLOSED"),
        ({}, {"quantity": "0.0001"}, "NOTIONAL", None),
        ({}, {"price": "300000"}, "PERCENT_PRICE_BY_SIDE", None),
        ({"max_orders": 2}, {}, "MAX_NUM_ORDERS", None),
        ({"max_position": D("1.5")}, {}, "MAX_POSITION", None),
    ],
)
def test_what_reduces_is_held_against_certain_rules_alone(made, rules, asked, entry, leaving):
    book, _now, _budget = made
    book.take_over(info(msgspec.structs.replace(RULES, **rules)), 0)
    book.open_orders([("BTCUSDT", "LIMIT"), ("BTCUSDT", "STOP_LOSS")], [resting("0.7", "0.2"), resting(1, 0, Side.SELL)])  # fmt: skip
    book.balances({"BTC": D(1)})
    assert book.broken(intent(**asked), "LIMIT").rule == entry
    reducing = book.broken(intent(reduce=True, **asked), "LIMIT")
    assert (reducing and reducing.rule) == leaving


def test_orders_count_from_when_they_were_taken(made):
    book, _now, _budget = made
    book.take_over(info(msgspec.structs.replace(RULES, max_orders=2, max_position=D(1))), 0)
    for _ in range(3):
        book.placed(intent())
    assert book.broken(intent(), "LIMIT") is None, "what is open was never read"
    book.open_orders([], [])
    book.balances({})
    book.placed(intent(quantity="0.995"))
    assert book.broken(intent(), "LIMIT").rule == "MAX_POSITION"
    book.placed(intent(Side.SELL))
    assert book.broken(intent(Side.SELL), "LIMIT").rule == "MAX_NUM_ORDERS"
