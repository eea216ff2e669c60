"""ccxt.pro follows USD-M streams of the venue unchanged: its own orders, positions, and the market."""

import asyncio

import ccxt.pro
from futures_venue import venue

from bot4_runtime.venue.hosting import hosted

BTC = "BTC/USDT:USDT"


def connected(port):
    client = ccxt.pro.binance(
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
    api = client.urls["api"]
    for name, url in api.items():
        if isinstance(url, str):
            api[name] = f"http://127.0.0.1:{port}/" + url.split("://", 1)[1].partition("/")[2]
    api["ws"] = {
        "future": f"ws://127.0.0.1:{port}/ws",
        "linear": f"ws://127.0.0.1:{port}/ws",
        "ws-api": {"linear": f"ws://127.0.0.1:{port}/ws-fapi/v1"},
    }
    return client


def test_an_order_placed_over_the_socket_is_followed_to_its_position():
    async def run(port):
        client = connected(port)
        try:
            await client.load_markets()
            orders = asyncio.ensure_future(client.watch_orders(BTC))
            trades = asyncio.ensure_future(client.watch_trades(BTC))
            for _ in range(100):  # until the subscriptions are known to be there
                placed = await client.create_order_ws(BTC, "market", "buy", 0.01)
                done, _ = await asyncio.wait({orders, trades}, timeout=0.2)
                if len(done) == 2:
                    break
            positions = await client.fetch_positions([BTC])
            return orders.result(), trades.result(), placed, positions
        finally:
            await client.close()

    with hosted(venue(live=True)) as server:
        orders, trades, placed, positions = asyncio.run(run(server.port))
    assert placed["info"]["symbol"] == "BTCUSDT"
    assert orders[0]["symbol"] == BTC
    assert trades[0]["price"] == 40_000.1
    assert positions[0]["side"] == "long"
