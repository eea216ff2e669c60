"""ccxt.pro follows spot streams of the venue unchanged, and trades over its WebSocket API."""

import asyncio
import time
from decimal import Decimal
from itertools import count

import ccxt.pro
import pytest

from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.tape import Print

BTC = "BTC/USDT"


def connected(port):
    client = ccxt.pro.binance(
        {
            "apiKey": "key1",
            "secret": "secret1",
            "options": {
                "fetchCurrencies": False,
                "fetchMargins": False,
                "fetchMarkets": {"types": ["spot"]},
            },
        }
    )
    api = client.urls["api"]
    for name, url in api.items():
        if isinstance(url, str):
            api[name] = f"http://127.0.0.1:{port}/" + url.split("://", 1)[1].partition("/")[2]
    api["ws"] = {
        "spot": f"ws://127.0.0.1:{port}/stream.spot/ws",
        "ws-api": {"spot": f"ws://127.0.0.1:{port}/ws-api/v3"},
    }
    return client


def tape():
    """Trades from now on, ten a second, by turns at two prices."""
    start_ms = int(time.time() * 1000)
    for n in count():
        price = Decimal(40_000) + n % 2
        yield Print(start_ms + 100 * n, "BTCUSDT", price, Decimal(1))


def followed(make, watched):
    """Buy over the socket until each of the watches has told something; return what they told."""
    venue = make(live=True, prints=tape())

    async def run(server):
        client = connected(server.port)
        try:
            await client.load_markets()
            tasks = {name: asyncio.ensure_future(one) for name, one in watched(client).items()}
            for _ in range(100):  # until the subscriptions are known to be there
                server.do(lambda: venue.advance(int(time.time() * 1000)))
                placed = await client.create_order_ws(BTC, "market", "buy", 0.01)
                done, _ = await asyncio.wait(tasks.values(), timeout=0.2)
                if len(done) == len(tasks):
                    break
            return placed, {name: task.result() for name, task in tasks.items()}
        finally:
            await client.close()

    with hosted(venue) as server:
        return asyncio.run(run(server))


def test_own_orders_trades_and_balances_are_followed(make):
    placed, told = followed(
        make,
        lambda client: {
            "orders": client.watch_orders(BTC),
            "trades": client.watch_my_trades(BTC),
            "balance": client.watch_balance(),
        },
    )
    assert placed["info"]["symbol"] == "BTCUSDT"
    assert told["orders"][0]["symbol"] == BTC
    assert told["trades"][0]["fee"] == {"currency": "BTC", "cost": 0.00001}
    assert told["balance"]["BTC"]["total"] > 2


def test_the_market_is_followed(make):
    _, told = followed(
        make,
        lambda client: {
            "trades": client.watch_trades(BTC),
            "candles": client.watch_ohlcv(BTC, "1m"),
            "book": client.watch_order_book(BTC),
            "best": client.watch_bids_asks([BTC]),
        },
    )
    bid, ask = told["book"]["bids"][0][0], told["book"]["asks"][0][0]
    assert bid < ask
    assert told["trades"][0]["price"] in {40_000, 40_001}
    assert told["candles"][0][4] in {40_000, 40_001}
    assert told["best"][BTC]["bid"] == pytest.approx(bid, rel=1e-3)


def test_one_order_cancels_the_other(make):
    async def run(port):
        client = connected(port)
        try:
            await client.load_markets()
            await client.create_order(BTC, "market", "buy", 0.01)
            pair = await client.private_post_orderlist_oco(
                {
                    "symbol": "BTCUSDT",
                    "side": "SELL",
                    "quantity": "0.01",
                    "aboveType": "LIMIT_MAKER",
                    "abovePrice": "42000",
                    "belowType": "STOP_LOSS",
                    "belowStopPrice": "38000",
                }
            )
            both = await client.fetch_open_orders(BTC)
            await client.cancel_order(both[0]["id"], BTC)
            return pair, both, await client.fetch_open_orders(BTC)
        finally:
            await client.close()

    with hosted(make(live=True)) as server:
        pair, both, left = asyncio.run(run(server.port))
    assert {order["id"] for order in both} == {str(row["orderId"]) for row in pair["orders"]}
    assert left == []
