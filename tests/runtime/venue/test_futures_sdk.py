"""Binance's own SDK trades USD-M perpetuals on the venue unchanged: every answer fits its models."""

import asyncio
import importlib.util
import time

import pytest
from futures_venue import venue

from bot4_runtime.venue.hosting import hosted

pytestmark = pytest.mark.sdk

if importlib.util.find_spec("binance_sdk_derivatives_trading_usds_futures") is not None:
    from binance_common.configuration import (
        ConfigurationRestAPI,
        ConfigurationWebSocketAPI,
        ConfigurationWebSocketStreams,
    )
    from binance_common.errors import BadRequestError
    from binance_sdk_derivatives_trading_usds_futures import (
        derivatives_trading_usds_futures as sdk,
    )


@pytest.fixture
def served():
    made = venue(live=True)
    with hosted(made) as server:
        yield made, server.port


@pytest.fixture
def client(served):
    _, port = served
    return sdk.DerivativesTradingUsdsFutures(
        config_rest_api=ConfigurationRestAPI(
            api_key="key1",
            api_secret="secret1",
            base_path=f"http://127.0.0.1:{port}",
            timeout=10_000,
        ),
        config_ws_api=ConfigurationWebSocketAPI(
            api_key="key1", api_secret="secret1", stream_url=f"ws://127.0.0.1:{port}/ws-fapi/v1"
        ),
        config_ws_streams=ConfigurationWebSocketStreams(
            stream_url=f"ws://127.0.0.1:{port}/stream"
        ),
    )


ORDER = {
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "time_in_force": "GTC",
    "quantity": 0.01,
    "price": 39_000,
}


def test_orders_and_stops_are_placed_found_and_cancelled(client):
    rest = client.rest_api
    placed = rest.new_order(**ORDER).data()
    assert (placed.status, placed.orig_qty) == ("NEW", "0.01000000")
    (waiting,) = rest.current_all_open_orders().data()
    assert waiting.order_id == placed.order_id
    found = rest.query_order("BTCUSDT", order_id=placed.order_id).data()
    assert found.price == "39000.00000000"
    gone = rest.cancel_order("BTCUSDT", order_id=placed.order_id).data()
    assert gone.status == "CANCELED"
    stop = rest.new_algo_order(
        algo_type="CONDITIONAL",
        symbol="BTCUSDT",
        side="SELL",
        type="STOP_MARKET",
        trigger_price=39_000,
        quantity=0.01,
    ).data()
    (waiting,) = rest.current_all_algo_open_orders().data()
    assert (waiting.algo_id, waiting.algo_status) == (stop.algo_id, "NEW")
    assert rest.cancel_algo_order(algo_id=stop.algo_id).data().msg == "success"


def test_an_account_is_read(client):
    rest = client.rest_api
    assert rest.change_initial_leverage("BTCUSDT", 10).data().leverage == 10
    rest.new_order(symbol="BTCUSDT", side="SELL", type="MARKET", quantity=0.1)
    (position,) = rest.position_information_v3().data()
    assert (position.position_amt, position.entry_price) == ("-0.10000000", "39999.90000000")
    account = rest.account_information_v3().data()
    assert account.positions[0].symbol == "BTCUSDT"
    assert account.total_position_initial_margin == "400.00000000"
    assert rest.futures_account_balance_v3().data()[0].asset == "USDT"
    (trade,) = rest.account_trade_list("BTCUSDT").data()
    assert trade.commission == "1.99999500"
    assert [row.income_type for row in rest.get_income_history().data()] == [
        "TRANSFER",
        "COMMISSION",
    ]
    assert rest.user_commission_rate("BTCUSDT").data().taker_commission_rate == "0.00050000"
    assert rest.get_current_position_mode().data().dual_side_position is False
    with pytest.raises(BadRequestError):
        rest.change_margin_type("BTCUSDT", "ISOLATED")


def test_fundings_are_read_page_by_page(client, served):
    """The venue lives by the clock here, so that a time is brought forward instead."""
    made, _ = served
    rest = client.rest_api
    rest.new_order(symbol="BTCUSDT", side="BUY", type="MARKET", quantity=0.1)
    market = made.exchange.market("BTCUSDT")
    now_ms = made.exchange.now_ms()
    for hours in (3, 2, 1):
        market.next_funding_ms = now_ms - hours * 3_600_000
        made.calendar._fund(market)
    pages, start = [], now_ms - 4 * 3_600_000
    for _ in range(2):
        page = rest.get_income_history(income_type="FUNDING_FEE", start_time=start, limit=2).data()
        pages.append([(row.symbol, row.asset, row.income, row.time) for row in page])
        assert all(row.info == row.income_type == "FUNDING_FEE" for row in page)
        assert all(int(row.tran_id) > 0 and not row.trade_id for row in page)
        start = page[-1].time
    paid = ("BTCUSDT", "USDT", "-0.40000000")
    assert pages == [
        [(*paid, now_ms - hours * 3_600_000) for hours in told] for told in ((3, 2), (2, 1))
    ]


def test_market_data_is_read(client, served):
    made, _ = served
    made.trade("BTCUSDT", made.exchange.market("BTCUSDT").book.last, 1)
    rest = client.rest_api
    symbols = {symbol.symbol for symbol in rest.exchange_information().data().symbols}
    assert symbols == {"BTCUSDT", "ETHUSDT"}
    assert rest.order_book("BTCUSDT", limit=5).data().asks[0][0] == "40000.10000000"
    assert rest.recent_trades_list("BTCUSDT").data()[0].price == "40000.00000000"
    assert len(rest.kline_candlestick_data("BTCUSDT", "1h").data()) == 1
    assert rest.get_funding_rate_info().data()[0].funding_interval_hours == 8


@pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")
def test_the_websocket_api_and_the_user_stream_agree(client):
    async def run():
        key = client.rest_api.start_user_data_stream().data().listen_key
        streams = await client.websocket_streams.create_connection()
        told, marks = [], []
        handle = await streams.user_data(key)
        handle.on("message", told.append)
        mark = await streams.mark_price_stream("btcusdt", update_speed="1s")
        mark.on("message", marks.append)
        await asyncio.sleep(0)
        api = await client.websocket_api.create_connection()
        placed = await api.new_order(symbol="BTCUSDT", side="BUY", type="MARKET", quantity=0.1)
        status = await api.query_order("BTCUSDT", order_id=placed.data().result.order_id)
        deadline = time.monotonic() + 20
        while (len(told) < 4 or not marks) and time.monotonic() < deadline:
            client.rest_api.test_connectivity()  # the venue tells of marks when it is asked
            await asyncio.sleep(0.05)
        await api.close_connection(close_session=True)
        await streams.close_connection(close_session=True)
        return status.data().result, told, marks

    status, told, marks = asyncio.run(run())
    assert (status.status, status.avg_price) == ("FILLED", "40000.10000000")
    kinds = [type(event.actual_instance).__name__ for event in told]
    assert kinds == ["OrderTradeUpdate", "AccountUpdate", "OrderTradeUpdate", "TradeLite"]
    assert marks[0].p == "40000.00000000"


def test_nothing_that_the_documentation_shows_is_missing(client, served):
    made, _ = served
    made.trade("BTCUSDT", made.exchange.market("BTCUSDT").book.last, 1)
    rest = client.rest_api
    rest.new_order(symbol="BTCUSDT", side="SELL", type="MARKET", quantity=0.1)
    placed = rest.new_order(**ORDER).data()
    account = rest.account_information_v3().data()
    (brackets, _) = rest.notional_and_leverage_brackets().data().actual_instance
    answers = [
        placed,
        rest.query_order("BTCUSDT", order_id=placed.order_id).data(),
        account,
        *account.assets,
        *account.positions,
        *rest.position_information_v3().data(),
        *rest.account_trade_list("BTCUSDT").data(),
        *rest.get_income_history().data(),
        *rest.symbol_configuration().data(),
        rest.futures_account_configuration().data(),
        rest.user_commission_rate("BTCUSDT").data(),
        rest.change_initial_leverage("BTCUSDT", 20).data(),
        *rest.get_funding_rate_info().data(),
        *rest.recent_trades_list("BTCUSDT").data(),
        *rest.compressed_aggregate_trades_list("BTCUSDT").data(),
        rest.order_book("BTCUSDT").data(),
        brackets,
        *brackets.brackets,
        *rest.exchange_information().data().symbols,
    ]
    missing = {
        (type(answer).__name__, name)
        for answer in answers
        for name, value in answer.model_dump().items()
        if value is None
    }
    assert missing == {
        ("AccountTradeListResponse", "base_qty"),  # of contracts in coins
        ("AccountTradeListResponse", "pair"),
        ("AccountTradeListResponse", "margin_asset"),
        ("QueryOrderResponse", "activate_price"),  # of trailing stops
        ("QueryOrderResponse", "price_rate"),
    }
