"""A venue refuses a stop whose price has traded already; what is held is then sold at once."""

import itertools

from bot4_runtime.domain.events import OrderIntended, OrderRejected
from bot4_runtime.domain.order import Book, OrderType, Purpose
from bot4_runtime.exchange.paper import PaperVenue


def test_what_cannot_be_stopped_is_sold(tmp_path, run_it, journal_of, monkeypatch):
    taken = PaperVenue.submit

    def crossed(self, intent, client_id, cash_free):
        if intent.purpose is Purpose.STOP:
            return [
                OrderRejected(
                    ts_event_ns=intent.ts_ns,
                    intent_no=intent.intent_no,
                    code="-2010",
                    reason="Order would trigger immediately.",
                )
            ]
        return taken(self, intent, client_id, cash_free)

    monkeypatch.setattr(PaperVenue, "submit", crossed)
    run_it(tmp_path, stop_after=900)
    reducing = [
        event.intent
        for event in journal_of(tmp_path)
        if isinstance(event, OrderIntended)
        and event.intent.reduce_only
        and event.intent.book is Book.VALIDATED
    ]
    stops = 0
    for symbol in {intent.symbol for intent in reducing}:
        of_symbol = [intent for intent in reducing if intent.symbol == symbol]
        for stop, following in itertools.pairwise(of_symbol):
            if stop.purpose is Purpose.STOP:
                stops += 1
                assert following.purpose is Purpose.EXIT
                assert following.order_type is OrderType.MARKET
                assert following.quantity == stop.quantity
    assert stops > 10
