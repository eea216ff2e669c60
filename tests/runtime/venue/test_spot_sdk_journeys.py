"""Further ways of Binance's own spot SDK at the venue: pairs, replacement, sockets and streams."""

import asyncio
import importlib.util
import time
from decimal import Decimal

import pytest

from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.tape import Print

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning"),
]

if importlib.util.find_spec("binance_sdk_spot") is not None:
    from binance_common.configuration import (
        ConfigurationRestAPI,
        ConfigurationWebSocketAPI,
        ConfigurationWebSocketStreams,
    )
    from binance_common.errors import BadRequestError
    from binance_sdk_spot.spot import Spot

LIMIT = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": 0.01}  # fmt: skip


NOW_MS = time.time_ns() // 1_000_000


@pytest.fixture
def served(make):
    """A venue where somebody else trades when `advance` is called."""
    venue = make(
        live=True, prints=[Print(NOW_MS + 86_400_000, "BTCUSDT", Decimal(40_000), Decimal("0.5"))]
    )
    with hosted(venue) as server:
        yield venue, server


@pytest.fixture
def client(served):
    _, server = served
    host = f"127.0.0.1:{server.port}"
    keys = {"api_key": "key1", "api_secret": "secret1"}
    return Spot(
        config_rest_api=ConfigurationRestAPI(**keys, base_path=f"http://{host}", timeout=10_000),
        config_ws_api=ConfigurationWebSocketAPI(**keys, stream_url=f"ws://{host}/ws-api/v3"),
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=f"ws://{host}/stream"),
    )


def test_of_a_pair_one_order_ends_the_other(client):
    rest = client.rest_api
    pair = rest.order_list_oco(
        symbol="BTCUSDT",
        side="SELL",
        quantity=0.01,
        above_type="LIMIT_MAKER",
        above_price=45_000,
        below_type="STOP_LOSS",
        below_stop_price=35_000,
    ).data()
    assert (pair.list_order_status, len(pair.orders)) == ("EXECUTING", 2)
    first, second = (row.order_id for row in pair.orders)
    assert {row.order_id for row in rest.get_open_orders().data()} == {first, second}
    rest.delete_order("BTCUSDT", order_id=first)
    assert rest.get_open_orders().data() == []
    assert rest.get_order("BTCUSDT", order_id=second).data().status in {"CANCELED", "EXPIRED"}


def test_an_order_is_replaced_in_one_request_or_stays(client):
    rest = client.rest_api
    former = rest.new_order(**LIMIT, price=39_000).data()
    told = rest.order_cancel_replace(
        **LIMIT,
        price=38_000,
        cancel_replace_mode="STOP_ON_FAILURE",
        cancel_order_id=former.order_id,
    ).data()
    assert (told.cancel_result, told.new_order_result) == ("SUCCESS", "SUCCESS")
    (row,) = rest.get_open_orders().data()
    assert row.price == "38000.00000000"
    with pytest.raises(BadRequestError):
        rest.order_cancel_replace(
            **LIMIT,
            price=37_000,
            cancel_replace_mode="STOP_ON_FAILURE",
            cancel_order_id=former.order_id,
        )
    assert [one.order_id for one in rest.get_open_orders().data()] == [row.order_id]


def test_orders_over_the_socket_are_told_by_user_stream_and_market_streams(client, served):
    venue, server = served

    async def run():
        streams = await client.websocket_streams.create_connection()
        api = await client.websocket_api.create_connection()
        told, trades, best, books = [], [], [], []
        for handle, kept in (
            (await streams.trade("btcusdt"), trades),
            (await streams.book_ticker("btcusdt"), best),
            (await streams.diff_book_depth("btcusdt"), books),
        ):
            handle.on("message", kept.append)
        subscribed = await api.user_data_stream_subscribe_signature()
        subscribed.stream.on("message", told.append)
        placed = await api.order_place(**LIMIT, price=39_000)
        found = await api.order_status("BTCUSDT", order_id=placed.data().result.order_id)
        await api.order_cancel("BTCUSDT", order_id=placed.data().result.order_id)
        filled = await api.order_place(symbol="BTCUSDT", side="BUY", type="MARKET", quantity=0.02)
        await asyncio.to_thread(server.do, lambda: venue.advance(NOW_MS + 86_400_001))
        end = time.monotonic() + 20
        while not (len(told) >= 6 and trades and best and books) and time.monotonic() < end:
            client.rest_api.ping()
            await asyncio.sleep(0.05)
        await api.close_connection(close_session=True)
        await streams.close_connection(close_session=True)
        return found.data().result, filled.data().result, told, trades, best, books

    found, filled, told, trades, best, books = asyncio.run(run())
    assert (found.status, found.price) == ("NEW", "39000.00000000")
    assert (filled.status, filled.executed_qty) == ("FILLED", "0.02000000")
    events = [event.actual_instance for event in told]
    states = [event.X for event in events if type(event).__name__ == "ExecutionReport"]
    assert states[:2] == ["NEW", "CANCELED"]
    assert states[-1] == "FILLED"
    assert (trades[0].s, trades[0].q) == ("BTCUSDT", "0.50000000")
    assert (best[0].s, books[0].s) == ("BTCUSDT", "BTCUSDT")
