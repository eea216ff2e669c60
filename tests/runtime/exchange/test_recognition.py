"""A key is recognised by an order that the venue shows: by its name, under the number it gave it."""

from contextlib import closing
from decimal import Decimal

import msgspec
import pytest
from test_binance_futures import SYMBOL, intent, made_venue, stop
from test_keeper import Desk

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.errors import VenueRefused, VenueUnreachable
from bot4_runtime.domain.events import OrderClosed, OrderIntended
from bot4_runtime.domain.order import OrderStatus, payload_hash
from bot4_runtime.exchange.binance.futures import BinanceFutures
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.recognition import ASKED, shown_order
from bot4_runtime.venue.hosting import hosted


@pytest.fixture
def desk():
    return Desk()


def test_an_order_that_the_venue_knows_by_name_and_number_is_the_proof(desk):
    name = desk.intend()
    desk.venue.orders[name] = desk.told(name)
    assert shown_order(desk.state, desk.venue.query).client_id == name


@pytest.mark.parametrize(
    "changed",
    [
        {"venue_order_id": "900"},
        {"client_id": "b4-2-9"},
        {"symbol": "ETHUSDT"},
    ],
)
def test_an_order_of_another_number_name_or_symbol_proves_nothing(desk, changed):
    name = desk.intend()
    desk.venue.orders[name] = msgspec.structs.replace(desk.told(name), **changed)
    assert shown_order(desk.state, desk.venue.query) is None


def test_an_order_whose_number_was_never_told_proves_nothing_and_is_not_asked_for(desk):
    name = desk.intend(answered=False)
    desk.venue.orders[name] = desk.told(name)
    assert shown_order(desk.state, pytest.fail) is None


def test_those_that_may_be_open_are_asked_for_first_then_the_newest_and_not_without_end(desk):
    for number in range(1, ASKED + 6):
        desk.intend()
        if number > 1:
            desk.emit(
                OrderClosed(
                    ts_event_ns=0, intent_no=number, status=OrderStatus.CANCELED.value, reason=""
                )
            )
    assert desk.order(2).status is OrderStatus.CANCELED
    asked = []
    assert shown_order(desk.state, lambda _, name: asked.append(name)) is None
    numbers = [int(name.rpartition("-")[2], 32) for name in asked]
    assert numbers == [1, *range(ASKED + 5, 6, -1)]


def test_a_venue_that_is_away_is_told(desk):
    desk.intend()

    def away(symbol, name):
        raise VenueUnreachable("no route")

    with pytest.raises(VenueUnreachable):
        shown_order(desk.state, away)


def order_of(state_of, client, asked):
    """Have an order sent and journaled."""
    name = f"b4-2-{asked.intent_no}"
    state_of.emit(
        OrderIntended(
            ts_event_ns=0, intent=asked, client_id=name, payload_hash=payload_hash(asked)
        )
    )
    for event in client.submit(asked, name, 0.0):
        state_of.emit(event)
    return name


def replace_key(venue, former, new):
    """Let the account of a key be opened by another one instead, as its owner may have it."""
    venue.exchange.account(former).api_key = new
    for kept in (venue.exchange._customers, venue.algos._orders):
        if former in kept:
            kept[new] = kept.pop(former)


@pytest.mark.parametrize("open_stop", [False, True])
def test_at_the_usdm_venue_a_new_key_of_the_account_is_recognised_and_no_others(desk, open_stop):
    venue = made_venue()
    venue.open_account(2, "another", "secret", [("USDT", Decimal(10_000))])
    with hosted(venue) as server:

        def client_of(key):
            url = f"http://127.0.0.1:{server.port}"
            signer = Signer(Secret(key), Secret("secret"))
            return closing(BinanceFutures(url, None, signer, LiveClock(), symbols=(SYMBOL,)))

        def shown(key):
            with client_of(key) as client:
                return shown_order(desk.state, client.query)

        with client_of("key") as client:
            client.start()
            last = order_of(desk, client, intent(1))
            if open_stop:
                last = order_of(desk, client, stop(2))
        with client_of("another") as client:
            client.start()
            client.submit(intent(1), "b4-2-1", 0.0)  # the same name, by chance
        assert shown("another") is None
        server.do(lambda: replace_key(venue, "key", "new"))
        assert shown("new").client_id == last
        with pytest.raises(VenueRefused, match="-2015"):
            shown("key")
