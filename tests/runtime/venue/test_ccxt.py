"""An independent client, ccxt, trades on the venue unchanged: shapes, signing and codes are Binance's."""

import ccxt
import pytest

from bot4_runtime.venue.hosting import hosted


@pytest.fixture
def connect(make):
    """Serve a venue and point ccxt at it."""
    clients = []
    with hosted(make(live=True)) as server:

        def connected(**keys):
            client = ccxt.binance(
                {
                    "apiKey": "key1",
                    "secret": "secret1",
                    "options": {
                        "fetchCurrencies": False,
                        "fetchMargins": False,
                        "fetchMarkets": {"types": ["spot"]},
                    },
                }
                | keys
            )
            api = client.urls["api"]
            for name, url in api.items():
                if isinstance(url, str):
                    path = url.split("://", 1)[1].partition("/")[2]
                    api[name] = f"http://127.0.0.1:{server.port}/{path}"
            clients.append(client)
            return client

        yield connected
        for client in clients:
            client.session.close()


def test_an_order_is_placed_found_and_cancelled(connect):
    client = connect()
    placed = client.create_order("BTC/USDT", "limit", "buy", 0.01, 39_000)
    assert placed["status"] == "open"
    assert [order["id"] for order in client.fetch_open_orders("BTC/USDT")] == [placed["id"]]
    assert client.fetch_balance()["used"]["USDT"] == 390
    assert client.cancel_order(placed["id"], "BTC/USDT")["status"] == "canceled"
    assert client.fetch_order(placed["id"], "BTC/USDT")["status"] == "canceled"
    assert client.fetch_open_orders("BTC/USDT") == []
    assert client.fetch_balance()["used"]["USDT"] == 0


def test_a_market_order_fills_and_its_trade_is_told(connect):
    client = connect()
    placed = client.create_order("BTC/USDT", "market", "buy", 0.01)
    assert (placed["status"], placed["filled"], placed["average"]) == ("closed", 0.01, 40_000.1)
    (trade,) = client.fetch_my_trades("BTC/USDT")
    assert (trade["order"], trade["takerOrMaker"], trade["side"]) == (placed["id"], "taker", "buy")
    assert trade["fee"] == {"currency": "BTC", "cost": 0.00001}
    assert client.fetch_balance()["total"]["BTC"] == pytest.approx(2.00999)


def test_stops_post_only_and_quote_orders_are_taken(connect):
    client = connect()
    stop = client.create_order(
        "BTC/USDT", "STOP_LOSS", "sell", 0.01, None, {"stopPrice": 38_000, "newClientOrderId": "s"}
    )
    assert stop["clientOrderId"] == "s"
    assert client.fetch_order(stop["id"], "BTC/USDT")["triggerPrice"] == 38_000
    resting = client.create_order("BTC/USDT", "limit", "buy", 0.01, 39_000, {"postOnly": True})
    assert resting["postOnly"]
    spent = client.create_market_buy_order_with_cost("BTC/USDT", 500)
    assert 495 < spent["cost"] <= 500


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda c: c.create_order("BTC/USDT", "limit", "buy", 3, 39_000), ccxt.InsufficientFunds),
        (lambda c: c.create_order("BTC/USDT", "limit", "buy", 0.0001, 39_000), ccxt.BadRequest),
        (lambda c: c.fetch_order("77", "BTC/USDT"), ccxt.OrderNotFound),
        (lambda c: c.cancel_order("77", "BTC/USDT"), ccxt.OrderNotFound),
        (
            lambda c: c.create_order("BTC/USDT", "limit", "buy", 1, 40_100, {"postOnly": True}),
            ccxt.OrderImmediatelyFillable,
        ),
    ],
)
def test_refusals_are_what_ccxt_knows_them_for(connect, ask, error):
    client = connect()
    client.get_exceptions_by_url = lambda url, kind: client.exceptions["spot"].get(kind, {})
    with pytest.raises(error):
        ask(client)


def test_a_wrong_secret_key_or_clock_is_refused(connect):
    with pytest.raises(ccxt.AuthenticationError, match="-1022"):
        connect(secret="wrong").fetch_balance()
    with pytest.raises(ccxt.AuthenticationError, match="-2015"):
        connect(apiKey="nobody").fetch_balance()
    late = connect()
    late.nonce = lambda: late.milliseconds() - 60_000
    with pytest.raises(ccxt.InvalidNonce, match="-1021"):
        late.fetch_balance()
    early = connect()
    early.nonce = lambda: early.milliseconds() + 2_000
    with pytest.raises(ccxt.InvalidNonce, match="-1021"):
        early.fetch_balance()
