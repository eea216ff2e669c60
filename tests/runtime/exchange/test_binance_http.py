"""Each way a call can end is exactly one of: answered, nothing sent, refused, outcome unknown.

The server here is a script of raw bytes, so that every way of failing is really on the wire.
"""

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import pytest

from bot4_runtime.domain.errors import (
    ConfigError,
    LocationRefused,
    OutcomeUnknown,
    VenueRefused,
    VenueUnreachable,
)
from bot4_runtime.exchange.binance import http_connection
from bot4_runtime.exchange.binance.http_connection import HttpConnection, Refusal
from bot4_runtime.exchange.binance.limits import (
    DEFAULT_PAUSE_MS,
    LONGEST_BAN_MS,
    Lane,
    Limit,
    RequestBudget,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
RESET = b"reset"
CLOSE = b"close"
SILENCE = b"silence"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{"


def answer(status, body=b"", **headers):
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def error(status, code, text="no", **headers):
    return answer(status, b'{"code":%d,"msg":"%s"}' % (code, text.encode()), **headers)


@dataclass
class Dripping:
    """An answer in pieces, each of which comes well in time."""

    reply: bytes
    step: int = 8
    pause_s: float = 0.1


class Scripted:
    """Answers the n-th request with the n-th entry; an entry in a list is sent and then closed."""

    def __init__(self, script):
        self.script = list(script)
        self.requests = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self):
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with line:
                while self.script and self._one(line):
                    pass

    def _one(self, line):
        request = b""
        while b"\r\n\r\n" not in request:
            chunk = line.recv(65_536)
            if not chunk:
                return False
            request += chunk
        head, _, body = request.partition(b"\r\n\r\n")
        for row in head.split(b"\r\n"):
            name, _, value = row.partition(b": ")
            if name.lower() == b"content-length":
                while len(body) < int(value):
                    body += line.recv(65_536)
        self.requests.append(head.split(b"\r\n")[0].decode())
        todo = self.script.pop(0)
        if todo == RESET:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            return False
        if todo == CLOSE:
            return False
        if todo == SILENCE:
            time.sleep(0.4)
            return False
        if isinstance(todo, Dripping):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(todo.reply), todo.step):
                with suppress(OSError):  # it hung up, as it should
                    line.sendall(todo.reply[at : at + todo.step])
                time.sleep(todo.pause_s)
            return True
        last = isinstance(todo, list)
        line.sendall(todo[0] if last else todo)
        return not last and todo != CUT


def post(server, **options):
    connection = HttpConnection(server.url, **options)
    try:
        return connection.post("/api/v3/order", "a=1", {"X-MBX-APIKEY": "k"})
    finally:
        connection.close()


UNKNOWN = {
    "reset after the request": RESET,
    "closed after the request": CLOSE,
    "no answer in time": SILENCE,
    "body cut": CUT,
    "head in drips": Dripping(OK),
    "body in drips": Dripping(answer(200, b"x" * 400), step=40),
    "chunks in drips": Dripping(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + 9 * b"1\r\nx\r\n" + b"0\r\n\r\n"
    ),
    "not HTTP": b"GARBAGE\r\n\r\n",
    "500": answer(500, b"oops"),
    "502 page": answer(502, b"<html>"),
    "503 -1007": error(503, -1007),
    "503 -1008": error(503, -1008),
    "504": answer(504),
    "409 partial": error(409, -2021),
    "400 -1006": error(400, -1006),
    "400 -1007": error(400, -1007),
    "400 -1000": error(400, -1000),
    "400 -1001": error(400, -1001),
    "400 unreadable": answer(400, b"<html>"),
    "400 of another shape": answer(400, b'{"code":"x"}'),
    "302": answer(302),
    "201": answer(201, b"{}"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_whatever_does_not_prove_the_outcome_of_a_post_is_unknown_and_sent_once(what):
    with Scripted([UNKNOWN[what], OK]) as server:
        with pytest.raises(OutcomeUnknown):
            post(server, reply_s=0.2)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (error(400, -1013), "-1013"),
        (error(400, -1021), "-1021"),
        (error(400, -2010), "-2010"),
        (error(401, -2015), "-2015"),
        (error(403, -1003), "-1003"),
        (answer(403, b"<html>WAF"), "HTTP 403"),
        (answer(418, b""), "HTTP 418"),
        (answer(429, b"slow down"), "HTTP 429"),
    ],
)
def test_a_clear_no_is_a_refusal_with_its_code(reply, code):
    with Scripted([reply]) as server, pytest.raises(Refusal) as refused:
        post(server)
    assert refused.value.code == code
    assert isinstance(refused.value, VenueRefused)


def test_a_refused_location_says_so():
    with Scripted([answer(451)]) as server, pytest.raises(LocationRefused):
        post(server)


def test_nothing_was_sent_when_nobody_listens():
    with Scripted([]) as server:
        url = server.url
    with pytest.raises(VenueUnreachable):
        HttpConnection(url).post("/api/v3/order", "", {})
    with pytest.raises(VenueUnreachable):
        HttpConnection(url).get("/api/v3/order", "", {})


def test_nothing_was_sent_to_a_name_nobody_has():
    with pytest.raises(VenueUnreachable, match="nothing was sent"):
        HttpConnection("https://venue.invalid").get("/api/v3/time", "", {})


def test_a_connection_is_kept_and_one_the_venue_closed_is_replaced_before_a_post_is_sent():
    with Scripted([OK, [OK], OK]) as server:
        connection = HttpConnection(server.url)
        assert connection.post("/a", "", {}) == b"{}"
        assert connection.post("/b", "", {}) == b"{}"
        assert server.connections == 1
        time.sleep(0.05)  # the venue's FIN arrives
        assert connection.post("/c", "", {}) == b"{}"
        connection.close()
        assert (server.connections, len(server.requests)) == (2, 3)


def test_a_question_is_asked_again_once_when_a_kept_connection_was_dead():
    with Scripted([OK, RESET, OK]) as server:
        connection = HttpConnection(server.url)
        assert connection.get("/a", "", {}) == b"{}"
        assert connection.get("/b", "x=1", {}) == b"{}"
        connection.close()
        assert server.requests == ["GET /a HTTP/1.1", "GET /b?x=1 HTTP/1.1", "GET /b?x=1 HTTP/1.1"]


@pytest.mark.parametrize("reply", [SILENCE, CUT, b"GARBAGE\r\n\r\n"])
def test_a_question_whose_answer_is_late_or_unreadable_is_not_asked_again_by_itself(reply):
    with Scripted([OK, reply, OK]) as server:
        connection = HttpConnection(server.url, reply_s=0.3)
        assert connection.get("/a", "", {}) == b"{}"
        with pytest.raises(OutcomeUnknown):
            connection.get("/b", "", {})
        connection.close()
        assert len(server.requests) == 2


@pytest.mark.parametrize(("most", "asked"), [(4, 3), (2, 2)])
def test_a_question_that_is_asked_again_is_counted_again(most, asked):
    budget = RequestBudget(None, clock_ms=lambda: 1_800_000_000_000)
    budget.weight = Limit(60_000, most)
    with Scripted([OK, RESET, OK]) as server:
        connection = HttpConnection(server.url, budget=budget)
        connection.get("/api/v3/time", "", {}, Lane.CANCEL)
        with suppress(VenueUnreachable):
            connection.get("/api/v3/time", "", {}, Lane.CANCEL)
        connection.close()
        assert len(server.requests) == asked


def test_a_question_on_a_new_connection_is_asked_once():
    with Scripted([RESET, OK]) as server:
        with pytest.raises(OutcomeUnknown):
            HttpConnection(server.url).get("/a", "", {})
        assert len(server.requests) == 1


def test_a_cancel_is_not_repeated_by_itself():
    with Scripted([OK, RESET, OK]) as server:
        connection = HttpConnection(server.url)
        assert connection.delete("/a", "x=1", {}) == b"{}"
        with pytest.raises(OutcomeUnknown):
            connection.delete("/a", "x=1", {})
        connection.close()
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "get_too"),
    [
        (error(429, -1003, Retry_After=30), True),
        (answer(418, b"", Retry_After=30), True),
        (answer(429, b""), True),
        (error(429, -1003, Retry_After="soon"), True),
        (error(429, -1015, Retry_After=30), False),
    ],
)
def test_the_venue_is_left_alone_for_as_long_as_it_says(reply, get_too):
    with Scripted([reply, OK]) as server:
        connection = HttpConnection(server.url)
        with pytest.raises(Refusal):
            connection.post("/api/v3/order", "", {})
        with pytest.raises(VenueUnreachable, match="let no POST pass"):
            connection.post("/api/v3/order", "", {})
        if get_too:
            with pytest.raises(VenueUnreachable, match="let no GET pass"):
                connection.get("/a", "", {})
            assert len(server.requests) == 1
        else:
            assert connection.get("/a", "", {}) == b"{}"
        connection.close()


@pytest.mark.parametrize(
    ("pause", "text", "silent_ms"),
    [
        ("nan", "", DEFAULT_PAUSE_MS),
        ("inf", "", LONGEST_BAN_MS),
        ("1e12", "", LONGEST_BAN_MS),
        ("-1", "", DEFAULT_PAUSE_MS),
        ("7200", "", 7_200_000),
        ("1", "IP banned until 1800000120000.", 120_000),
        ("60", "IP banned until 1700000000000.", 60_000),
    ],
)
def test_a_ban_holds_for_as_long_as_it_is_told_and_one_nobody_can_read_for_a_minute(
    pause, text, silent_ms
):
    now = [1_800_000_000_000]
    budget = RequestBudget(None, clock_ms=lambda: now[0])
    with Scripted([error(418, -1003, text, Retry_After=pause), OK]) as server:
        connection = HttpConnection(server.url, budget=budget)
        with pytest.raises(Refusal):
            connection.post("/a", "", {})
        now[0] += silent_ms - 1
        with pytest.raises(VenueUnreachable, match="let no POST pass"):
            connection.post("/a", "", {})
        now[0] += 1
        assert connection.post("/a", "", {}) == b"{}"
        connection.close()


def test_the_firewalls_page_costs_a_long_silence_and_a_refused_location_says_what_is_left():
    with Scripted([answer(403, b"<html>"), OK]) as server:
        connection = HttpConnection(server.url)
        with pytest.raises(Refusal, match="firewall"):
            connection.get("/a", "", {})
        with pytest.raises(VenueUnreachable, match="another 60 s"):
            connection.get("/a", "", {})
        connection.close()
    with Scripted([answer(451)]) as server:
        connection = HttpConnection(server.url)
        with pytest.raises(LocationRefused, match="public archive"):
            connection.get("/a", "", {})
        connection.close()


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, b"x" * 101),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + 11 * (b"a\r\n" + 10 * b"x" + b"\r\n")
        + b"0\r\n\r\n",
    ],
)
def test_an_endless_answer_is_not_kept(reply, monkeypatch):
    monkeypatch.setattr(http_connection, "MAX_BODY", 100)
    with Scripted([answer(200, b"x" * 100), reply]) as server:
        connection = HttpConnection(server.url)
        assert connection.post("/a", "", {}) == b"x" * 100
        with pytest.raises(OutcomeUnknown):
            connection.post("/a", "", {})
        connection.close()


def test_a_kept_connection_gives_every_answer_the_whole_time():
    slow = Dripping(answer(200, b"x" * 8), step=64, pause_s=0.2)
    with Scripted([slow] * 4) as server:
        connection = HttpConnection(server.url, reply_s=0.7)
        for _ in range(4):
            assert connection.post("/a", "", {}) == b"x" * 8
        connection.close()
        assert server.connections == 1


def test_silence_ends():
    with Scripted([error(429, -1003, Retry_After=0), OK]) as server:
        connection = HttpConnection(server.url)
        with pytest.raises(Refusal):
            connection.post("/a", "", {})
        assert connection.post("/a", "", {}) == b"{}"
        connection.close()


@pytest.mark.parametrize(
    "url", ["http://api.binance.com", "ftp://127.0.0.1", "127.0.0.1", "https://"]
)
def test_keys_never_travel_in_the_clear(url):
    with pytest.raises(ConfigError):
        HttpConnection(url)


def test_messages_hold_no_query():
    with Scripted([RESET]) as server:
        with pytest.raises(OutcomeUnknown) as unknown:
            HttpConnection(server.url).delete("/api", "signature=abc", {})
        assert "abc" not in str(unknown.value)
