"""All ways to Binance through a SOCKS5 proxy on loopback; its password is never repeated."""

import asyncio
import http.server
import ssl
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest
import requests
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError, VenueUnreachable
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.exchange.binance import proxy as proxies
from bot4_runtime.exchange.binance.candle_feed import CandleFeed
from bot4_runtime.exchange.binance.http_connection import HttpConnection
from bot4_runtime.exchange.binance.limits import Lane
from bot4_runtime.exchange.binance.market_line import Route
from bot4_runtime.exchange.binance.polling import BinanceSource
from bot4_runtime.exchange.binance.proxied_requests import go_through
from bot4_runtime.exchange.binance.proxy import checked_proxy
from bot4_runtime.exchange.binance.route_reader import over_aiohttp
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

WORD = b"hush hush"


def test_without_its_library_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(proxies, "find_spec", lambda _name: None)
    assert checked_proxy("http://p:1") == "http://p:1"
    with pytest.raises(ConfigError, match="bot4\\[socks\\]") as told:
        checked_proxy("socks5://user:hush@p:1")
    assert "hush" not in str(told.value)


@pytest.fixture(autouse=True)
def _library(request):
    if "without" not in request.node.name:
        pytest.importorskip("aiohttp_socks", reason="aiohttp-socks is not installed (bot4[socks])")


class Socks:
    """A SOCKS5 proxy with users (RFC 1928, 1929); counts what it let through by target."""

    def __init__(self):
        self.passed, self.refused, self.names = [], 0, []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"socks5://user:hush%20hush@127.0.0.1:{self.port}"

    def close(self):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self):
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                await self._tunnel(reader, writer)
            finally:
                writer.close()

    async def _tunnel(self, reader, writer):
        _version, methods = await reader.readexactly(2)
        if 2 not in await reader.readexactly(methods):
            self.refused += 1
            writer.write(b"\x05\xff")
            return
        writer.write(b"\x05\x02")
        user = await reader.readexactly((await reader.readexactly(2))[1])
        word = await reader.readexactly((await reader.readexactly(1))[0])
        if (user, word) != (b"user", WORD):
            self.refused += 1
            writer.write(b"\x01\x01")
            return
        writer.write(b"\x01\x00")
        _, _command, _, kind = await reader.readexactly(4)
        if kind == 1:
            host = ".".join(map(str, await reader.readexactly(4)))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            self.names.append(host)
        port = int.from_bytes(await reader.readexactly(2), "big")
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.write(b"\x05\x05\x00\x01" + bytes(6))
            return
        self.passed.append(f"{host}:{port}")
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


async def pump(reader, writer):
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
def proxied():
    with _proxied() as made:
        yield made


@contextmanager
def _proxied():
    rules = SymbolRules.of(Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0))
    venue = Loopback(LiveClock(), [(rules, Decimal(40_000))])
    venue.open_account(1, "key", "secret", [("USDT", Decimal(100_000))])
    proxy = Socks()
    try:
        with hosted(venue) as server:
            yield proxy, f"127.0.0.1:{server.port}", venue
    finally:
        proxy.close()


def until(wanted, seconds=10.0):
    ending = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if wanted():
            return True
        ending.wait(0.01)
    return wanted()


def client_through(host, address):
    ws = f"ws://{host}/ws-api/v3"
    return BinanceSpot(f"http://{host}", ws, Signer(Secret("key"), Secret("secret")), LiveClock(), order_url=ws, proxy=address)  # fmt: skip


def test_orders_and_both_streams_go_through_the_proxy_and_nothing_beside_it(proxied):
    proxy, host, venue = proxied
    client = client_through(host, proxy.url)
    client.start()
    assert client.line_open(10.0)
    fields = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    client._entry.send("order.place", fields | {"newClientOrderId": "a"}, Lane.OPEN)
    client._line._ready.clear()
    client._entry.send("order.place", fields | {"newClientOrderId": "b"}, Lane.OPEN)
    assert len(venue.exchange.orders(venue.exchange.account("key"))) == 2
    assert until(lambda: client.following)
    client.close()
    assert proxy.passed == [host] * 3, "REST keeps its connection; each stream has one"
    assert proxy.refused == 0


def test_candles_are_asked_for_and_streamed_through_the_proxy(proxied):
    proxy, host, _venue = proxied
    source = BinanceSource(symbols=["BTCUSDT"], interval="1h", market=Market.SPOT, clock=LiveClock(), base_url=f"http://{host}", proxy=proxy.url)  # fmt: skip
    source.check()
    source._client.session.close()
    assert proxy.passed == [host]
    route = Route(f"ws://{host}/stream", ("btcusdt@kline_1m",), 5)
    feed = CandleFeed([route], dialler=partial(over_aiohttp, proxy.url))
    feed.start()
    try:
        assert until(lambda: feed.connected == 1)
    finally:
        feed.close()
    assert proxy.passed == [host, host]


def test_names_are_resolved_by_the_proxy(proxied):
    proxy, host, _venue = proxied
    connection = HttpConnection(f"http://localhost:{host.rpartition(':')[2]}", proxy=proxy.url)
    assert b"serverTime" in connection.get("/api/v3/time", "", {})
    connection.close()
    assert proxy.names == ["localhost"]


@pytest.mark.parametrize("who", ["", "user:very%20wrong@"])
def test_a_proxy_that_refuses_means_that_nothing_was_sent_and_no_thread_dies(proxied, who):
    proxy, host, _venue = proxied
    address = f"socks5://{who}127.0.0.1:{proxy.port}"
    connection = HttpConnection(f"http://{host}", proxy=address)
    with pytest.raises(VenueUnreachable, match="Tunnel connection failed") as told:
        connection.post("/api/v3/order", "a=1", {})
    assert "wrong" not in repr(told.value) + str(told.value)
    source = BinanceSource(symbols=["BTCUSDT"], interval="1h", market=Market.SPOT, clock=LiveClock(), base_url=f"http://{host}", proxy=address)  # fmt: skip
    with pytest.raises(VenueUnreachable) as asked:
        source.check()
    assert "wrong" not in str(asked.value) + str(asked.value.__cause__)
    with structlog.testing.capture_logs() as logged:
        client = client_through(host, address)
        client.start()
        before = proxy.refused
        assert until(lambda: client.stream_counts["reconnects"] >= 2)
        assert until(lambda: proxy.refused >= before + 3), "both lines try again"
        threads = [client._stream._thread, client._line._thread]
        assert all(thread.alive for thread in threads)
        client.close()
    assert logged
    assert "wrong" not in str(logged)
    assert proxy.passed == []


def test_a_proxy_that_is_not_there_or_reaches_nothing_means_that_nothing_was_sent(proxied):
    proxy, host, _venue = proxied
    for address, target in ((f"socks5://user:{WORD.decode()[:4]}@127.0.0.1:9", host), (proxy.url, "127.0.0.1:9")):  # fmt: skip
        connection = HttpConnection(f"http://{target}", proxy=address)
        with pytest.raises(VenueUnreachable, match="nothing was sent") as told:
            connection.get("/api/v3/time", "", {})
        assert "hush" not in str(told.value)


@pytest.fixture
def secure(tmp_path):
    """A server of TLS that answers every request alike, and the certificate it is known by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, SHA256())
    )
    file = tmp_path / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"serverTime": 1}')

        def log_message(self, *_told):
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}", file
    server.shutdown()
    server.server_close()
    thread.join()


def test_tls_is_spoken_with_the_venue_through_the_tunnel_and_its_name_is_checked(
    proxied, secure, monkeypatch
):
    proxy, _host, _venue = proxied
    url, file = secure
    connection = HttpConnection(url, proxy=proxy.url)
    with pytest.raises(VenueUnreachable, match="SSLCertVerificationError"):
        connection.get("/api/v3/time", "", {})
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    connection = HttpConnection(url, proxy=proxy.url)
    assert connection.get("/api/v3/time", "", {}) == b'{"serverTime": 1}'
    connection.close()
    with requests.Session() as session:
        go_through(session, proxy.url)
        with pytest.raises(requests.exceptions.SSLError):
            session.get(url, timeout=5)
        assert session.get(url, timeout=5, verify=str(file)).json() == {"serverTime": 1}
    assert proxy.names == ["localhost"] * 4
