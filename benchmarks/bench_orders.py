"""Orders to Binance: build and sign in 20 us, hold against the rules, and the way there and back.

The round trips go to the loopback venue in a process of its own, so that they say what our part
costs; the network comes on top. ccxt's are taken in the same run, on the same venue.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ccxt
import msgspec
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ed25519

from benchmarks.harness import EMPTY_CALL, Result, floors, measure, of_rounds
from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, OrderIntent, OrderType, Purpose, Side, TimeInForce
from bot4_runtime.exchange.binance.filters import Ask, Surroundings, SymbolFields, SymbolRules
from bot4_runtime.exchange.binance.limits import Lane, Limit, RequestBudget
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot, order_fields
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules as VenueRules

TITLE = "Orders: Binance spot, limit order"
SYMBOL = "BTCUSDT"
RULES = VenueRules.of(Instrument.assume(SYMBOL, Market.SPOT, 40_000.0))
KEY = ed25519.Ed25519PrivateKey.generate()
PRIVATE = KEY.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()).decode()
PUBLIC = (
    KEY.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo).decode()
)
ORDERS, ROUNDS = 100, 4
CCXT_BUILD = "ccxt: build and sign, HMAC"
CCXT_TRIP = "ccxt: order there and back, REST"
ROUND_TRIP_NS = 100e6


def run() -> list[Result]:
    with TemporaryDirectory() as folder, _venue() as port:
        return [*floors(), *_built(Path(folder)), *_trips(port)]


def _built(folder: Path) -> Iterator[Result]:
    intent, stamp = _intent(), {"recvWindow": 2_000, "timestamp": 1_800_000_000_000}
    hmac = Signer(Secret("key"), Secret("secret"))
    ours = {"HMAC": hmac, "Ed25519": Signer(Secret("key"), Secret(PRIVATE))}
    for name, signer in ours.items():
        goal = {"goal": 20_000.0, "peers": (CCXT_BUILD,)} if name == "HMAC" else {}
        yield measure(
            f"build and sign, REST, {name}",
            lambda signer=signer: signer.query({**order_fields(intent, "b4-1-1"), **stamp}),
            floor=EMPTY_CALL,
            **goal,
        )
    yield measure(
        "build, WebSocket API, logged on",
        lambda: msgspec.json.encode(
            {"id": "1", "method": "order.place", "params": order_fields(intent, "b4-1-1") | stamp}
        ),
        goal=20_000.0,
        floor=EMPTY_CALL,
    )
    client = ccxt.binance({"apiKey": "key", "secret": "secret"})
    market = {"id": SYMBOL, "symbol": "BTC/USDT"}
    yield measure(CCXT_BUILD, _ccxts_build(client, market), kind="peer")
    told = msgspec.json.encode(RULES.told())
    rules = SymbolRules(msgspec.json.decode(told, type=SymbolFields))
    ask = Ask(Side.BUY, "LIMIT", Decimal("0.01"), None, Decimal(39_000))
    around = Surroundings(Decimal(40_000), 3, 0, Decimal(1))
    yield measure("hold against all rules", lambda: list(rules.broken(ask, around)))
    budget = RequestBudget(folder / "rate.json")
    budget.weight = Limit(60_000, 10**9)
    budget.orders = (Limit(10_000, 10**9),)
    yield measure(
        "count in the shared file", lambda: budget.take(Lane.OPEN, 1, account="key", orders=1)
    )


def _ccxts_build(client: Any, market: dict[str, str]) -> Callable[[], object]:
    fields = {
        "symbol": market["id"], "side": "BUY", "type": "LIMIT", "timeInForce": "GTC",
        "quantity": "0.01", "price": "39000", "newClientOrderId": "b4-1-1",
        "newOrderRespType": "FULL",
    }  # fmt: skip
    return lambda: client.sign("order", ["private"], "POST", dict(fields))


def _trips(port: int) -> Iterator[Result]:
    names = count(1)
    for name, key, secret, by_line in (
        ("WebSocket API, logged on", "ed25519", PRIVATE, True),
        ("WebSocket API, signed with HMAC", "hmac", "secret", True),
        ("REST, signed with HMAC", "hmac", "secret", False),
    ):
        client = BinanceSpot(
            f"http://127.0.0.1:{port}",
            None,
            Signer(Secret(key), Secret(secret)),
            LiveClock(),
            budget=_endless(),
            order_url=f"ws://127.0.0.1:{port}/ws-api/v3" if by_line else None,
        )
        client.start()
        assert client.line_open(5.0) == by_line
        rounds = [
            _timed(client.submit, _intent(), f"b4-1-{next(names)}", 0.0)
            for _ in range(ROUNDS * ORDERS)
        ]
        client.close()
        yield of_rounds(
            f"order there and back, {name}",
            rounds,
            specified=ROUND_TRIP_NS,
            peers=(CCXT_TRIP,),
        )
    theirs = _ccxt(port)
    theirs.load_markets()
    rounds = [
        _timed(theirs.create_order, "BTC/USDT", "limit", "buy", 0.001, 39_000)
        for _ in range(ROUNDS * ORDERS // 4)
    ]
    theirs.session.close()
    yield of_rounds(CCXT_TRIP, rounds, kind="peer")


def _endless() -> RequestBudget:
    budget = RequestBudget(None)
    budget.weight = Limit(60_000, 10**9)
    budget.orders = (Limit(10_000, 10**9),)
    return budget


def _timed(call: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter_ns()
    call(*arguments)
    return float(time.perf_counter_ns() - start)


def _ccxt(port: int) -> Any:
    client = ccxt.binance(
        {
            "apiKey": "hmac",
            "secret": "secret",
            "enableRateLimit": False,
            "options": {
                "fetchCurrencies": False,
                "fetchMargins": False,
                "fetchMarkets": {"types": ["spot"]},
            },
        }
    )
    for name, url in client.urls["api"].items():
        if isinstance(url, str):
            path = url.split("://", 1)[1].partition("/")[2]
            client.urls["api"][name] = f"http://127.0.0.1:{port}/{path}"
    return client


def _intent() -> OrderIntent:
    return OrderIntent(
        intent_no=1,
        book=Book.VALIDATED,
        purpose=Purpose.ENTRY,
        symbol=SYMBOL,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        quantity=Decimal("0.001"),
        price=Decimal(39_000),
        stop_price=None,
        time_in_force=TimeInForce.GTC,
        reduce_only=False,
        reference_price=Decimal(40_000),
        stop_loss=None,
        expires_after=0,
        signal_id="s",
        rule_id="r",
        ts_ns=1,
    )


@contextmanager
def _venue() -> Iterator[int]:
    """Run the venue in a process of its own; yield its port."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there, PUBLIC), daemon=True)
    process.start()
    try:
        yield int(here.recv())
    finally:
        here.send(None)
        process.join()


def _serve(pipe: Connection, public: str) -> None:
    rules = msgspec.structs.replace(RULES, max_orders=10**6)
    venue = Loopback(LiveClock(), [(rules, Decimal(40_000))])
    for uid, (key, secret) in enumerate((("hmac", "secret"), ("ed25519", public)), start=1):
        venue.open_account(uid, key, secret, [("USDT", Decimal(10) ** 9)])
    with hosted(venue) as server:
        pipe.send(server.port)
        pipe.recv()
