"""Orders that have not filled yet are counted by account, and who has too many is refused."""

from contextlib import contextmanager
from decimal import Decimal

import pytest

from bot4_runtime.clock import NS_PER_MS, ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import VenueUnreachable
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.exchange.binance.failures import Refusal
from bot4_runtime.exchange.binance.limits import Lane, RequestBudget
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.journal import MemorySink, VenueJournal
from bot4_runtime.venue.limits import Limit, Limited
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.order_counts import MAKER_GETS, SPOT_ORDERS, TAKER_GETS, OrderCounts
from bot4_runtime.venue.rules import SymbolRules

NOW = 1_800_000_000_000 // 86_400_000 * 86_400_000
FEW = (Limit("ORDERS", "SECOND", 10, 10), Limit("ORDERS", "DAY", 1, 25))
SYMBOL = "BTCUSDT"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


# ------------------------------------------------------------------------- the counts
def test_a_window_that_is_used_up_has_no_room_until_it_ends(sink) -> None:
    counts = OrderCounts(VenueJournal(sink), FEW)
    for _ in range(10):
        counts.take(NOW, 1)
    with pytest.raises(Limited, match="current limit is 10 orders per 10 SECOND") as caught:
        counts.take(NOW + 3_000, 1)
    assert (caught.value.code, caught.value.status, caught.value.retry_after_s) == (-1015, 429, 7)
    assert [entry.kind for entry in sink.entries] == ["over_orders"]
    counts.take(NOW, 2)  # another account
    counts.take(NOW + 10_000, 1)
    assert counts.headers(NOW + 10_000, 1) == {
        "X-MBX-ORDER-COUNT-10S": "1",
        "X-MBX-ORDER-COUNT-1D": "11",
    }
    counts.take(NOW + 20_000, 1, 9)
    with pytest.raises(Limited, match="25 orders per 1 DAY") as caught:
        counts.take(NOW + 30_000, 1, 6)
    assert caught.value.retry_after_s == 86_400 - 30
    counts.take(NOW + 30_000, 1, 5)


def test_a_first_fill_gives_back_and_never_more_than_there_is(sink) -> None:
    counts = OrderCounts(VenueJournal(sink), FEW)
    counts.take(NOW, 1, 8)
    counts.filled(NOW, 1, maker=False)
    counts.filled(NOW, 1, maker=True)
    left = 8 - TAKER_GETS - MAKER_GETS
    assert [row["count"] for row in counts.told(NOW, 1)] == [left, left]
    counts.filled(NOW, 1, maker=True)
    assert [row["count"] for row in counts.told(NOW, 1)] == [0, 0]


def test_without_limits_nothing_is_counted(sink) -> None:
    counts = OrderCounts(VenueJournal(sink))
    counts.take(NOW, 1, 1_000_000)
    assert (counts.headers(NOW, 1), counts.told(NOW, 1)) == ({}, [])


# --------------------------------------------------------------------- with the client
class Uncounted(RequestBudget):
    """Lets everything pass but what the venue forbade."""

    def take(self, lane, weight=1, *, account="", orders=0):
        return super().take(lane, weight, account=account)


@contextmanager
def connected(sink, *, line=False, budget=RequestBudget, limits=FEW):
    clock = ManualClock(NOW * NS_PER_MS)
    rules = SymbolRules.of(Instrument.assume(SYMBOL, Market.SPOT, 40_000.0))
    venue = Loopback(clock, [(rules, Decimal(40_000))], sink=sink, order_limits=limits)
    venue.open_account(1, "key", "secret", [("USDT", Decimal(100_000)), ("BTC", Decimal(1))])
    with hosted(venue) as server:
        client = BinanceSpot(
            f"http://127.0.0.1:{server.port}",
            None,
            Signer(Secret("key"), Secret("secret")),
            clock,
            budget=budget(None, clock_ms=lambda: clock.now_ns() // NS_PER_MS),
            order_url=f"ws://127.0.0.1:{server.port}/ws-api/v3" if line else None,
            symbols=[SYMBOL],
        )
        client.start()
        try:
            assert client.line_open(5.0) is line
            yield client, clock
        finally:
            client.close()


def place(client, name, lane=Lane.REDUCE, **more):
    fields = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC",
              "price": "39000", "quantity": "0.001", "newClientOrderId": name}  # fmt: skip
    return client._entry.send("order.place", fields | more, lane)


def kinds(sink):
    return [entry.kind for entry in sink.entries]


@pytest.mark.parametrize("line", [False, True])
def test_n7_the_client_learns_the_limits_and_sends_no_order_over_them(sink, line) -> None:
    with connected(sink, line=line) as (client, clock):
        for number in range(8):
            place(client, f"entry-{number}", Lane.OPEN)
        with pytest.raises(VenueUnreachable, match="nothing was sent"):
            place(client, "entry-8", Lane.OPEN)
        place(client, "exit-8")  # reducing has a larger share
        with pytest.raises(VenueUnreachable, match="nothing was sent"):
            place(client, "exit-9")
        clock.advance_to((NOW + 10_000) * NS_PER_MS)
        place(client, "entry-9", Lane.OPEN)
    assert "over_orders" not in kinds(sink)
    assert kinds(sink).count("sent") == 10


@pytest.mark.parametrize("line", [False, True])
def test_n7_an_order_over_the_limit_is_refused_and_no_other_is_sent_before_its_end(
    sink, line
) -> None:
    with connected(sink, line=line, budget=Uncounted) as (client, clock):
        with pytest.raises(Refusal, match="LOT_SIZE"):
            place(client, "refused", quantity="0.00000001")  # counts for nothing
        for number in range(10):
            place(client, f"order-{number}")
        with pytest.raises(Refusal, match="-1015") as caught:
            place(client, "order-10")
        assert not caught.value.looked_at, "it is no verdict on the order"
        client._entry.send("order.cancel", {"symbol": SYMBOL, "origClientOrderId": "order-0"}, Lane.CANCEL)  # fmt: skip
        assert len(client.open_orders()) == 9
        client._http._budget.__class__ = RequestBudget
        with pytest.raises(VenueUnreachable, match="nothing was sent"):
            place(client, "order-11")
        clock.advance_to((NOW + 10_000) * NS_PER_MS)
        place(client, "order-12")
    assert kinds(sink).count("over_orders") == 1


@pytest.mark.parametrize("line", [False, True])
def test_n7_orders_that_fill_make_room(sink, line) -> None:
    with connected(sink, line=line) as (client, _):
        for number in range(20):
            place(client, f"taker-{number}", Lane.OPEN, price="41000")
    assert "over_orders" not in kinds(sink)


def test_n7_a_replacement_that_has_no_room_cancels_nothing(sink) -> None:
    with connected(sink, budget=Uncounted) as (client, _):
        for number in range(10):
            place(client, f"order-{number}")
        new = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC",
               "price": "38000", "quantity": "0.001", "newClientOrderId": "new"}  # fmt: skip
        with pytest.raises(Refusal, match="-1015"):
            client.changes.replace("order-0", new, Lane.OPEN)
        assert len(client.open_orders()) == 10


def test_the_limits_are_those_of_the_documentation() -> None:
    assert [(limit.name, limit.most) for limit in SPOT_ORDERS] == [("10S", 100), ("1D", 200_000)]
