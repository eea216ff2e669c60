"""All ways to Binance through a proxy on loopback, and what a proxy's refusal means."""

import socket
import threading
import time
from base64 import b64encode
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import partial
from urllib.parse import urlsplit

import pytest

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError, VenueUnreachable
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.exchange.binance.candle_feed import CandleFeed
from bot4_runtime.exchange.binance.http_connection import HttpConnection
from bot4_runtime.exchange.binance.limits import Lane
from bot4_runtime.exchange.binance.market_line import Route
from bot4_runtime.exchange.binance.polling import BinanceSource
from bot4_runtime.exchange.binance.proxy import checked_proxy, proxy_headers
from bot4_runtime.exchange.binance.route_reader import over_aiohttp
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

USER = f"Proxy-Authorization: Basic {b64encode(b'user:pass word').decode()}".lower().encode()


class Proxy:
    """Relays what names its target, by CONNECT or by a whole URL; counts by target and kind."""

    def __init__(self):
        self.passed, self.refused = [], 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://user:pass%20word@127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._open:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _serve(self):
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._one, args=(line,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _one(self, line):
        self._open.append(line)
        with line, suppress(ConnectionError):  # who hangs up has had enough
            head = b""
            while b"\r\n\r\n" not in head:
                chunk = line.recv(65_536)
                if not chunk:
                    return
                head += chunk
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            if USER not in head.lower().replace(USER.lower(), USER):
                self.refused += 1
                line.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
            self.passed.append((method, f"{parts.hostname}:{parts.port}"))
            with socket.create_connection((parts.hostname, parts.port)) as far:
                self._open.append(far)
                if method == "CONNECT":
                    line.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = target.split(str(parts.port), 1)[1].encode()
                    far.sendall(head.replace(target.encode(), path, 1))
                back = threading.Thread(target=pump, args=(far, line), daemon=True)
                back.start()
                pump(line, far)
                back.join()


def pump(source, sink):
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def until(wanted, seconds=5.0):
    for _ in range(int(seconds / 0.01)):
        if wanted():
            return True
        time.sleep(0.01)
    return wanted()


@contextmanager
def proxied():
    rules = SymbolRules.of(Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0))
    venue = Loopback(LiveClock(), [(rules, Decimal(40_000))])
    venue.open_account(1, "key", "secret", [("USDT", Decimal(100_000))])
    proxy = Proxy()
    try:
        with hosted(venue) as server:
            yield proxy, f"127.0.0.1:{server.port}", venue
    finally:
        proxy.close()


def test_orders_and_both_streams_go_through_the_proxy_and_nothing_beside_it():
    with proxied() as (proxy, host, venue):
        ws = f"ws://{host}/ws-api/v3"
        client = BinanceSpot(f"http://{host}", ws, Signer(Secret("key"), Secret("secret")), LiveClock(), order_url=ws, proxy=proxy.url)  # fmt: skip
        client.start()
        assert client.line_open(5.0)
        fields = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
        client._entry.send("order.place", fields | {"newClientOrderId": "a"}, Lane.OPEN)
        client._line._ready.clear()
        client._entry.send("order.place", fields | {"newClientOrderId": "b"}, Lane.OPEN)
        assert len(venue.exchange.orders(venue.exchange.account("key"))) == 2
        assert until(lambda: client.following)
        client.close()
        assert proxy.passed.count(("CONNECT", host)) == 1, "REST keeps its connection"
        assert {target for _, target in proxy.passed} == {host}
        assert len(proxy.passed) == 3
        assert proxy.refused == 0


def test_candles_are_asked_for_through_the_proxy():
    with proxied() as (proxy, host, _venue):
        source = BinanceSource(symbols=["BTCUSDT"], interval="1h", market=Market.SPOT, clock=LiveClock(), base_url=f"http://{host}", proxy=proxy.url)  # fmt: skip
        source.check()
        source._client.session.close()
        assert {target for _, target in proxy.passed} == {host}


def test_candles_are_streamed_through_the_proxy():
    with proxied() as (proxy, host, _venue):
        route = Route(f"ws://{host}/stream", ("btcusdt@kline_1m",), 5)
        feed = CandleFeed([route], dialler=partial(over_aiohttp, proxy.url))
        feed.start()
        try:
            assert until(lambda: feed.connected == 1)
        finally:
            feed.close()
        assert [target for _, target in proxy.passed] == [host]


def test_a_proxy_that_refuses_means_that_nothing_was_sent():
    with proxied() as (proxy, host, _venue):
        for address in (f"http://127.0.0.1:{proxy.port}", f"http://user:wrong@127.0.0.1:{proxy.port}"):  # fmt: skip
            connection = HttpConnection(f"http://{host}", proxy=address)
            with pytest.raises(VenueUnreachable, match=rf"through 127.0.0.1:{proxy.port} \(Tunnel connection failed: 407") as told:  # fmt: skip
                connection.post("/api/v3/order", "a=1", {})
            assert "wrong" not in str(told.value)
            connection.close()
        assert (proxy.passed, proxy.refused) == ([], 2)


@pytest.mark.parametrize("reply", [b"SSH-2.0-none\r\n", b"\r\n", b"HTTP/1.1 what\r\n\r\n", b"x" * 70_000 + b"\n", b""])  # fmt: skip
def test_a_proxy_that_answers_with_nonsense_means_that_nothing_was_sent(reply):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            line, _ = listener.accept()
            with line, suppress(ConnectionError):  # who read enough hangs up
                line.recv(65_536)
                line.sendall(reply)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        connection = HttpConnection(
            "http://127.0.0.1:9", proxy=f"http://127.0.0.1:{listener.getsockname()[1]}"
        )
        with pytest.raises(VenueUnreachable, match="nothing was sent"):
            connection.post("/api/v3/order", "a=1", {})
        thread.join()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "proxy:8080",
        "socks4://127.0.0.1:1",
        "https://p:1",
        "http://p",
        "http://u:hush@p:x",
        "socks5://u:hush@p:x",
    ],
)
def test_what_is_no_proxy_is_refused_and_its_password_not_repeated(address):
    with pytest.raises(ConfigError, match="expected http://host:port") as told:
        checked_proxy(address)
    assert "hush" not in str(told.value)


def test_a_proxy_without_users_is_told_none():
    assert proxy_headers("http://p:1") == {}
