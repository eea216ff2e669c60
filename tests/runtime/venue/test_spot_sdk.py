"""Binance's own SDK trades spot on the venue unchanged: every answer fits its models."""

import importlib.util

import pytest

from bot4_runtime.venue.hosting import hosted

pytestmark = pytest.mark.sdk

if importlib.util.find_spec("binance_sdk_spot") is not None:
    from binance_common.configuration import ConfigurationRestAPI
    from binance_common.errors import BadRequestError
    from binance_sdk_spot.spot import Spot


@pytest.fixture
def rest(make):
    with hosted(make(live=True)) as server:
        yield Spot(
            config_rest_api=ConfigurationRestAPI(
                api_key="key1",
                api_secret="secret1",
                base_path=f"http://127.0.0.1:{server.port}",
                timeout=10_000,
            )
        ).rest_api


def test_orders_are_placed_found_and_cancelled(rest):
    placed = rest.new_order(
        symbol="BTCUSDT",
        side="BUY",
        type="LIMIT",
        time_in_force="GTC",
        quantity=0.01,
        price=39_000,
    ).data()
    assert (placed.status, placed.orig_qty) == ("NEW", "0.01000000")
    assert rest.get_order("BTCUSDT", order_id=placed.order_id).data().price == "39000.00000000"
    assert [row.order_id for row in rest.get_open_orders().data()] == [placed.order_id]
    gone = rest.delete_order("BTCUSDT", order_id=placed.order_id).data()
    assert gone.status == "CANCELED"
    with pytest.raises(BadRequestError):
        rest.delete_order("BTCUSDT", order_id=placed.order_id)


def test_fills_and_balances_are_read(rest):
    filled = rest.new_order(symbol="BTCUSDT", side="BUY", type="MARKET", quantity=0.01).data()
    assert filled.fills[0].price == "40000.10000000"
    (trade,) = rest.my_trades("BTCUSDT").data()
    assert (trade.commission, trade.commission_asset) == ("0.00001000", "BTC")
    free = {row.asset: row.free for row in rest.get_account().data().balances}
    assert free["BTC"] == "2.00999000"
