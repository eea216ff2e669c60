"""An independent client, ccxt, trades USD-M perpetuals on the venue unchanged."""

import ccxt
import pytest
from futures_venue import venue

from bot4_runtime.venue.hosting import hosted


@pytest.fixture
def served():
    made = venue(live=True)
    with hosted(made) as server:
        yield made, server


@pytest.fixture
def client(served):
    made = ccxt.binance(
        {
            "apiKey": "key1",
            "secret": "secret1",
            "options": {
                "defaultType": "swap",
                "fetchCurrencies": False,
                "fetchMargins": False,
                "fetchMarkets": {"types": ["linear"]},
            },
        }
    )
    api = made.urls["api"]
    for name, url in api.items():
        if isinstance(url, str):
            path = url.split("://", 1)[1].partition("/")[2]
            api[name] = f"http://127.0.0.1:{served[1].port}/{path}"
    made.get_exceptions_by_url = lambda url, kind: made.exceptions["linear"].get(kind, {})
    yield made
    made.session.close()


BTC = "BTC/USDT:USDT"


def test_markets_have_the_venues_rules(client):
    market = client.load_markets()[BTC]
    assert market["linear"]
    assert market["swap"]
    assert market["precision"]["price"] == 0.1
    assert market["limits"]["cost"]["min"] == 5


def test_an_order_is_placed_found_modified_and_cancelled(client):
    placed = client.create_order(BTC, "limit", "buy", 0.01, 39_000)
    assert placed["status"] == "open"
    assert [order["id"] for order in client.fetch_open_orders(BTC)] == [placed["id"]]
    assert client.fetch_balance()["free"]["USDT"] == 10_000 - 390 / 20
    client.edit_order(placed["id"], BTC, "limit", "buy", 0.02, 39_100)
    found = client.fetch_order(placed["id"], BTC)
    assert (found["amount"], found["price"]) == (0.02, 39_100)
    assert client.cancel_order(placed["id"], BTC)["status"] == "canceled"
    assert client.fetch_open_orders(BTC) == []


def test_a_position_is_opened_read_and_closed(client, served):
    client.set_leverage(10, BTC)
    client.set_margin_mode("isolated", BTC)
    placed = client.create_order(BTC, "market", "sell", 0.1, None, {"newOrderRespType": "RESULT"})
    assert (placed["status"], placed["average"]) == ("closed", 39_999.9)
    (position,) = client.fetch_positions([BTC])
    assert (position["side"], position["contracts"]) == ("short", 0.1)
    assert position["entryPrice"] == 39_999.9
    assert position["collateral"] == pytest.approx(399.999 - 0.01)
    assert 43_000 < position["liquidationPrice"] < 44_000
    client.create_order(BTC, "market", "buy", 0.1, None, {"reduceOnly": True})
    assert client.fetch_positions([BTC]) == []
    trades = client.fetch_my_trades(BTC)
    assert [trade["fee"]["currency"] for trade in trades] == ["USDT", "USDT"]
    kinds = {
        row["info"]["incomeType"] for row in client.fetch_ledger("USDT", params={"type": "future"})
    }
    assert kinds == {"TRANSFER", "COMMISSION", "REALIZED_PNL"}


def test_stops_go_to_the_algo_endpoint(client):
    client.create_order(BTC, "market", "buy", 0.1)
    stop = client.create_order(
        BTC, "market", "sell", 0.1, None, {"stopLossPrice": 39_000, "reduceOnly": True}
    )
    (waiting,) = client.fetch_open_orders(BTC, params={"trigger": True})
    assert (waiting["id"], waiting["triggerPrice"]) == (stop["id"], 39_000)
    client.cancel_order(stop["id"], BTC, {"trigger": True})
    assert client.fetch_open_orders(BTC, params={"trigger": True}) == []


def test_market_data_is_read(client, served):
    made, _ = served
    for price in (40_010, 40_000, 40_020):
        made.trade("BTCUSDT", made.exchange.market("BTCUSDT").book.last * 0 + price, 1)
    assert client.fetch_trades(BTC)[-1]["price"] == 40_020
    candles = client.fetch_ohlcv(BTC, "1h")
    assert candles[-1][2:5] == [40_020, 40_000, 40_020]
    book = client.fetch_order_book(BTC, 5)
    assert (book["bids"][0][0], book["asks"][0][0]) == (40_019.9, 40_020.1)
    rate = client.fetch_funding_rate(BTC)
    assert (rate["markPrice"], rate["fundingRate"]) == (40_020, 0.0001)
    tiers = client.fetch_leverage_tiers([BTC])[BTC]
    assert (tiers[0]["maxLeverage"], tiers[-1]["maintenanceMarginRate"]) == (125, 0.5)
    assert client.fetch_trading_fee(BTC)["taker"] == 0.0005
    assert client.fetch_bids_asks([BTC])[BTC]["bid"] == 40_019.9


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda c: c.create_order(BTC, "limit", "buy", 9, 39_000), ccxt.InsufficientFunds),
        (lambda c: c.fetch_order("77", BTC), ccxt.OrderNotFound),
        (lambda c: c.cancel_order("77", BTC), ccxt.OrderNotFound),
        (
            lambda c: c.create_order(BTC, "market", "sell", 1, None, {"stopPrice": 40_001}),
            ccxt.OrderImmediatelyFillable,
        ),
        (
            lambda c: c.create_order(BTC, "market", "sell", 1, None, {"reduceOnly": True}),
            ccxt.InvalidOrder,
        ),
    ],
)
def test_refusals_are_what_ccxt_knows_them_for(client, ask, error):
    with pytest.raises(error):
        ask(client)
