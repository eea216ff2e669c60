"""A book kept from changes is the book there is, or is not traded on."""

import json
from bisect import bisect_left
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.domain.candle import Market
from bot4_runtime.exchange.binance import order_book
from bot4_runtime.exchange.binance.market_messages import (
    BookTicker,
    DepthSnapshot,
    DepthUpdate,
    MarketDecoder,
    decode_snapshot,
)
from bot4_runtime.exchange.binance.order_book import BookState, OrderBook


def levels(*pairs):
    return [(Decimal(price), Decimal(quantity)) for price, quantity in pairs]


def change(first, last, bids=(), asks=(), before=None):
    return DepthUpdate(
        symbol="BTCUSDT", time=1, first_id=first, last_id=last, before_id=before,
        bids=levels(*bids), asks=levels(*asks),
    )  # fmt: skip


def snapshot(last, bids=((10, 1),), asks=((11, 1),)):
    return DepthSnapshot(last_id=last, bids=levels(*bids), asks=levels(*asks))


def known(market=Market.SPOT, last=100):
    book = OrderBook(market)
    book.update(change(last - 1, last, before=last - 2))
    assert (book.state, book.wants_snapshot, book.best()) == (BookState.UNKNOWN, True, None)
    assert book.snapshot(snapshot(last)) is BookState.KNOWN
    return book


class Naive:
    """Every level in two dictionaries; the best found by looking at all."""

    def __init__(self, book):
        self.sides = {"b": {}, "a": {}}
        self.exact = {"b": {}, "a": {}}
        self.apply({"b": book["bids"], "a": book["asks"]})

    def apply(self, told):
        for side, held in self.sides.items():
            for price, quantity in told[side]:
                held[float(price)] = (price, quantity)
                self.exact[side][Decimal(price)] = Decimal(quantity)
                if float(quantity) == 0:
                    del held[float(price)]
                    del self.exact[side][Decimal(price)]

    def best(self):
        bids, asks = self.sides.values()
        rows = (*bids[max(bids)], *asks[min(asks)])
        return tuple(map(Decimal, rows))

    def ordered(self, side):
        rows = [(Decimal(p), Decimal(q)) for p, q in self.sides[side].values()]
        return sorted(rows, reverse=side == "b")


@pytest.mark.data
@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_the_recorded_books_are_rebuilt_at_every_change(captured, market):
    """Compared at every change: all levels and quantities of both sides, the order of their prices
    and that those which changed are or are not among them, the best prices, and Binance's own best
    prices of that change where they were recorded. Every 500 changes and at the end: what `levels`
    returns against a sort of all levels.
    """
    decoder, book = MarketDecoder(), OrderBook(Market(market))
    naive, waiting, compared, tickers = None, [], 0, {}
    for _, message in captured(market):
        if b"@trade" in message[:40]:
            continue
        if b"lastUpdateId" in message[:20]:
            told = json.loads(message)
            naive, book_id = Naive(told), told["lastUpdateId"]
            for late in waiting:
                if late["u"] > book_id or (market == "usdm" and late["u"] == book_id):
                    naive.apply(late)
            assert book.wants_snapshot
            book.snapshot(decode_snapshot(message))
            continue
        event = decoder.decode(message)
        if isinstance(event, BookTicker):
            tickers[event.update_id] = event
        if not isinstance(event, DepthUpdate):
            continue
        book.update(event)
        told = json.loads(message)
        if naive is None:
            waiting.append(told["data"])
            continue
        if event.last_id <= book_id:
            continue
        naive.apply(told["data"])
        compared += 1
        assert book.last_id == event.last_id
        for ours, side in ((book._bids, "b"), (book._asks, "a")):
            exact, prices = naive.exact[side], ours.prices
            assert ours.quantities == exact
            assert len(prices) == len(exact)
            assert all(map(Decimal.__lt__, prices, prices[1:]))
            for price in (Decimal(told_price) for told_price, _ in told["data"][side]):
                at = bisect_left(prices, price)
                assert (prices[at : at + 1] == [price]) == (price in exact)
        if compared % 500 == 1:
            assert book.levels(10**6) == (naive.ordered("b"), naive.ordered("a"))
        best = book.best()
        assert best == naive.best()
        assert best.bid < best.ask
        ticker = tickers.get(event.last_id)
        if ticker is not None:
            assert best == (ticker.bid, ticker.bid_quantity, ticker.ask, ticker.ask_quantity)
            tickers[None] = tickers.get(None, 0) + 1
    assert book.levels(10**6) == (naive.ordered("b"), naive.ordered("a"))
    assert compared > 3_000
    assert tickers[None] > 300, "Binance's own best prices were compared with"
    assert (book.state, book.counts) == (BookState.KNOWN, {})


IDS = st.integers(1, 4)


@st.composite
def histories(draw):
    """A book and the changes that follow it, each with the ids of both markets."""
    prices = st.integers(1, 60)
    quantities = st.integers(0, 3)
    sides = [draw(st.dictionaries(prices, st.integers(1, 3), max_size=8)) for _ in "ba"]
    last, changes = 100, []
    for _ in range(draw(st.integers(1, 12))):
        first, before = last + 1, last
        last = first + draw(IDS) - 1
        told = [draw(st.lists(st.tuples(prices, quantities), max_size=4)) for _ in "ba"]
        # bids below 100, asks above: a book of one side never meets the other here
        changes.append((first, last, before, told[0], [(p + 100, q) for p, q in told[1]]))
    return sides, changes


@settings(max_examples=150)
@given(histories(), st.sampled_from(Market), st.data())
def test_any_changes_give_the_book_that_brute_force_gives(history, market, data):
    (bids, asks), changes = history
    asks = {price + 100: quantity for price, quantity in asks.items()}
    begun = data.draw(st.integers(0, len(changes) - 1))  # changes before the snapshot
    kept_bids, kept_asks = dict(bids), dict(asks)
    book = OrderBook(market)
    taken_at = 0 if begun == 0 else data.draw(st.integers(0, begun - 1))
    for number, (first, last, before, on_bids, on_asks) in enumerate(changes):
        book.update(change(first, last, on_bids, on_asks, before))
        kept_bids.update(on_bids)
        kept_asks.update(on_asks)
        if number == taken_at:
            held = snapshot(last, dict(kept_bids).items(), dict(kept_asks).items())
        if number == begun:
            assert book.state is BookState.UNKNOWN
            book.snapshot(held)
        if number >= begun:
            expected = [
                sorted(((p, q) for p, q in side.items() if q), reverse=down)
                for side, down in ((kept_bids, True), (kept_asks, False))
            ]
            assert (book.state, book.last_id) == (BookState.KNOWN, last)
            assert [[(int(p), int(q)) for p, q in side] for side in book.levels(99)] == expected
            assert (book.best() is None) == (not all(expected))


@pytest.mark.parametrize("market", Market)
def test_a_gap_makes_the_book_unknown_until_the_next_snapshot(market):
    book = known(market)
    assert book.update(change(101, 103, bids=[(9, 2)], before=100)) is BookState.KNOWN
    assert book.update(change(105, 106, before=104)) is BookState.UNKNOWN
    assert (book.best(), book.levels(9), book.counts) == (None, ([], []), {"gaps": 1})
    assert book.wants_snapshot
    book.update(change(107, 108, bids=[("10.5", 3)], before=106))
    assert book.snapshot(snapshot(103)) is BookState.UNKNOWN, "older than what waits"
    assert book.counts["old snapshots"] == 1
    assert book.snapshot(snapshot(106)) is BookState.KNOWN
    assert book.best() == (Decimal("10.5"), 3, 11, 1)


def test_a_gap_among_what_waits_is_found_too():
    book = OrderBook(Market.SPOT)
    for first in (100, 101, 105, 106):
        book.update(change(first, first))
    assert book.snapshot(snapshot(100)) is BookState.UNKNOWN
    assert book.snapshot(snapshot(105)) is BookState.KNOWN
    assert book.last_id == 106


@pytest.mark.parametrize("market", Market)
def test_repeated_and_late_changes_change_nothing(market):
    book = known(market)
    first = change(101, 103, bids=[(10, 5)], before=100)
    second = change(104, 104, bids=[(10, 6)], before=103)
    for told in (first, second, second, first):
        assert book.update(told) is BookState.KNOWN
    assert (book.best().bid_quantity, book.last_id, book.counts) == (6, 104, {})


@pytest.mark.parametrize("market", Market)
def test_changes_out_of_order_are_a_gap_never_a_wrong_book(market):
    book = known(market)
    book.update(change(104, 104, bids=[(10, 6)], before=103))
    book.update(change(101, 103, bids=[(10, 5)], before=100))
    assert (book.state, book.best()) == (BookState.UNKNOWN, None)


@pytest.mark.parametrize("price", ["11", "12"])
def test_a_crossed_book_is_not_traded_on(price):
    book = known()
    assert book.update(change(101, 101, bids=[(price, 1)])) is BookState.UNKNOWN
    assert (book.best(), book.counts) == (None, {"crossed": 1})
    book.update(change(102, 102))
    book.snapshot(snapshot(101, bids=[("11.5", 1)]))
    assert (book.state, book.counts["crossed"], book.wants_snapshot) == (BookState.UNKNOWN, 2, True)  # fmt: skip


def test_a_book_that_lacks_a_side_is_not_traded_on():
    book = known()
    book.update(change(101, 101, asks=[(11, 0), (77, 0)]))
    assert (book.state, book.best(), book.levels(5)) == (BookState.KNOWN, None, ([(10, 1)], []))


def test_what_a_book_keeps_is_bounded(monkeypatch):
    monkeypatch.setattr(order_book, "WAITING_MOST", 3)
    monkeypatch.setattr(order_book, "LEVELS_MOST", 4)
    book = OrderBook(Market.SPOT)
    for number in range(100, 110):
        book.update(change(number, number))
    assert len(book._waiting) == 3
    assert book.snapshot(snapshot(105)) is BookState.UNKNOWN, "what joins it is gone"
    assert book.snapshot(snapshot(108)) is BookState.KNOWN
    assert book.update(change(110, 110, bids=[(n, 1) for n in range(1, 9)])) is BookState.UNKNOWN
    assert book.counts["overgrown"] == 1


def test_a_lost_line_makes_it_unknown():
    book = known()
    book.lost()
    assert (book.state, book.best(), book.wants_snapshot) == (BookState.UNKNOWN, None, False)
