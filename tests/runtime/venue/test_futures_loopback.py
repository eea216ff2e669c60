"""A USD-M venue on a tape: real trades fill what a brute count says, and minutes add up."""

import gzip
import json
from decimal import Decimal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
import pytest
from futures_venue import NOW_NS, dec, held_in_all, request, venue
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.clock import ManualClock
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.journal import MemorySink
from bot4_runtime.venue.market_history import Bars, MarketTrade
from bot4_runtime.venue.refusals import Refused
from bot4_runtime.venue.stream import Connection
from bot4_runtime.venue.tape import Print

NOW_MS = NOW_NS // 1_000_000


def test_the_tape_moves_clock_price_and_mark():
    prints = [
        Print(NOW_MS + 1_000 * number, "BTCUSDT", dec(40_000 + number), dec("0.1"))
        for number in range(5)
    ]
    made = venue(prints=prints)
    assert made.advance(NOW_MS + 3_000) == 3
    assert made.exchange.market("BTCUSDT").mark == 40_002
    assert made.exchange.now_ms() == NOW_MS + 3_000
    made.exchange.market("BTCUSDT").basis = dec(-5)
    assert made.advance(NOW_MS + 9_000) == 2
    assert made.exchange.market("BTCUSDT").mark == 39_999
    made.set_mark("BTCUSDT", dec(39_000))
    made.trade("BTCUSDT", dec(41_000), dec(0))
    assert made.exchange.market("BTCUSDT").mark == 39_000
    made.set_mark("BTCUSDT", None)
    assert made.exchange.market("BTCUSDT").mark == 40_995


def test_the_ledger_tells_what_the_venue_holds_to_be_true():
    made = venue()
    account = made.exchange.account("key1")
    assert made.open_account(1, "key1", "other", [("USDT", dec(5))]) is account
    first = made.exchange.place(account, request("0.1", 39_000))
    second = made.exchange.place(account, request("0.1"))
    told = made.ledger("key1", first.order_id)
    assert [order["orderId"] for order in told["orders"]] == [second.order_id]
    assert [trade["qty"] for trade in told["orders"][0]["trades"]] == ["0.10000000"]
    assert told["account"]["positions"][0]["positionAmt"] == "0.10000000"
    assert made.ledger("nobody", 0) is None


def test_the_same_requests_on_the_same_tape_leave_the_same_journal():
    def journal():
        sink = MemorySink()
        prints = [
            Print(NOW_MS + 7_000 * number, "BTCUSDT", dec(40_000 + 300 * (-1) ** number), dec(1))
            for number in range(1, 50)
        ]
        made = venue(prints=prints, sink=sink)
        made.hub.join(Connection(lambda: None), "/private/ws", f"listenKey={key(made)}")
        for step, account in enumerate(made.exchange.accounts * 5):
            made.exchange.place(account, request(dec("0.1") * (step % 3 + 1), 39_900))
            made.exchange.place(account, request("-0.05"))
            made.advance(NOW_MS + 40_000 * (step + 1))
        return [msgspec.json.encode(entry) for entry in sink.entries]

    def key(made):
        return made.keys.give(made.exchange.account("key1"), NOW_MS)

    first = journal()
    assert first == journal()
    kinds = {json.loads(row)["kind"] for row in first}
    assert kinds == {"print", "report", "event"}


def test_a_contract_of_coarse_steps_is_kept_to():
    rules = Contract(
        symbol="XUSDT",
        base="X",
        quote="USDT",
        tick_size=dec("0.5"),
        step_size=dec(2),
        min_quantity=dec(2),
    )
    for check, code in (
        (lambda: rules.check_price(dec("0.3")), -4013),
        (lambda: rules.check_price(dec("0.7")), -4014),
        (lambda: rules.check_quantity(dec(3), market=False), -4023),
        (lambda: rules.check_quantity(dec(100_002), market=True), -4005),
    ):
        with pytest.raises(Refused) as refused:
            check()
        assert refused.value.code == code
    rules.check_quantity(dec(100_002), market=False)
    assert rules.told()["pricePrecision"] == 1
    assert rules.told()["quantityPrecision"] == 0


TRADES = st.lists(
    st.tuples(st.integers(0, 40 * 60_000), st.integers(1, 99), st.integers(1, 9), st.booleans()),
    min_size=1,
    max_size=60,
)


@given(TRADES, st.sampled_from([1, 3, 5, 15]))
def test_candles_are_what_a_count_over_all_trades_says(rows, minutes):
    rows.sort(key=lambda row: row[0])
    bars, length_ms = Bars(), minutes * 60_000
    trades = [
        MarketTrade(number, dec(price), dec(quantity), time_ms, maker)
        for number, (time_ms, price, quantity, maker) in enumerate(rows, 1)
    ]
    for trade in trades:
        bars.trade(trade)
    made = list(bars.of(length_ms))
    assert [bar.open_ms for bar in made] == sorted(
        {trade.time_ms // length_ms * length_ms for trade in trades}
    )
    for bar in made:
        own = [t for t in trades if t.time_ms // length_ms * length_ms == bar.open_ms]
        prices = [trade.price for trade in own]
        assert (bar.open, bar.high, bar.low, bar.close) == (
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
        )
        assert bar.volume == sum(trade.quantity for trade in own)
        assert bar.turnover == sum(trade.quantity * trade.price for trade in own)
        assert bar.bought == sum(trade.quantity for trade in own if not trade.buyer_maker)
        assert (bar.trades, bar.first_id, bar.last_id) == (
            len(own),
            own[0].trade_id,
            own[-1].trade_id,
        )


@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_the_operators_door_moves_a_market(market, make):
    made = make(live=True) if market == "spot" else venue(live=True)
    with hosted(made, admin=True) as server:

        def post(path, **told):
            asked = Request(
                f"http://127.0.0.1:{server.admin_port}/_admin/{path}", json.dumps(told).encode()
            )
            with urlopen(asked) as answer:
                return json.load(answer)

        post("script", symbol="BTCUSDT", price="39000", quantity="1")
        if market == "usdm":
            post("script", symbol="BTCUSDT", mark="38000", funding="-0.001")
        query = f"http://127.0.0.1:{server.admin_port}/_admin/ledger?api_key="
        with urlopen(f"{query}key1") as answer:
            assert json.load(answer)["orders"] == []
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{query}nobody")
    if market == "spot":
        assert made.exchange.last_price("BTCUSDT") == 39_000
    else:
        found = made.exchange.market("BTCUSDT")
        assert (found.index, found.mark, found.funding_rate) == (39_000, 38_000, dec("-0.001"))
        made.script({"symbol": "BTCUSDT", "mark": ""})
        assert found.mark == 39_000


@pytest.mark.data
def test_recorded_trades_fill_what_they_pass_through(test_data):
    """Real BTCUSDT perpetual trades: a resting offer sells what traded above it, up to its size."""
    prints = []
    with gzip.open(test_data / "wire" / "usdm_btcusdt_20240808.gz", "rt") as rows:
        for row in rows:
            if '"btcusdt@trade"' in row:
                told = json.loads(row.partition(" ")[2])["data"]
                prints.append(Print(told["T"], "BTCUSDT", dec(told["p"]), dec(told["q"])))
            if len(prints) == 3_000:
                break
    prices = [made.price for made in prints]
    step = Decimal("0.001")
    rules = Contract(
        symbol="BTCUSDT",
        base="BTC",
        quote="USDT",
        tick_size=dec("0.1"),
        step_size=step,
        min_quantity=step,
        max_orders=1_000,
    )
    made = FuturesLoopback(
        ManualClock((prints[0].time_ms - 1) * 1_000_000), [(rules, prices[0])], prints=prints
    )
    account = made.open_account(1, "key1", "secret1", [("USDT", dec(1_000_000))])
    ask = sorted(prices)[len(prices) * 95 // 100]
    assert ask > prices[0]
    order = made.exchange.place(account, request(dec(-1), ask))
    assert made.advance(prints[-1].time_ms + 1) == len(prints)
    passed = sum((p.quantity for p in prints if p.price >= ask), Decimal(0))
    assert passed > 0
    assert order.filled == min(passed, dec(1))
    assert order.average == ask
    assert account.wallet("USDT") == 1_000_000 - sum(t.commission for t in order.trades)
    assert held_in_all(made) == 2_000_000
