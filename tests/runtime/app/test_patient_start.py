"""A venue in trouble at a run's very first requests is waited for; what never heals ends the run."""

import threading
from contextlib import contextmanager
from decimal import Decimal

import pytest

from bot4_runtime import app
from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import LocationRefused, VenueRefused, VenueUnreachable
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, patiently
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

EXCHANGE_INFO = "/api/v3/exchangeInfo"


class Hurried(threading.Event):
    """Waits for nobody, and remembers for how long it was to."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        return self.is_set()


def test_it_asks_again_after_pauses_that_grow_to_a_minute() -> None:
    answers = iter([VenueUnreachable("away")] * 9 + [7])

    def ask():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    stop, told = Hurried(), []
    assert patiently(ask, stop, told.append) == 7
    assert len(stop.waits) == len(told) == 9
    pauses = [min(FIRST_PAUSE_S * 2**n, LONGEST_PAUSE_S) for n in range(9)]
    assert all(0.75 * p <= w <= 1.25 * p for p, w in zip(pauses, stop.waits, strict=True))
    assert "away. Asked again in" in told[0]
    assert "Ctrl-C ends it" in told[0]


def test_it_ends_when_it_is_told_to() -> None:
    stop = threading.Event()

    def ask():
        stop.set()
        raise VenueUnreachable("away")

    assert patiently(ask, stop, None) is None
    assert patiently(ask, stop, None) is None, "nothing is asked any more"


def test_nothing_else_is_waited_for() -> None:
    def ask():
        raise LocationRefused("451")

    with pytest.raises(LocationRefused):
        patiently(ask, threading.Event(), None)


@pytest.fixture
def started(make_settings, monkeypatch, tmp_path):
    """Build a run at a venue with faults that end when it waits; give it and what it told.

    It begins and is stopped, or is stopped when it waited `patience` times.
    """

    @contextmanager
    def start(
        *rules: FaultRule, key: str = "key", mode: str = "testnet", patience: int | None = None
    ):
        monkeypatch.setenv("BOT4_BINANCE_API_KEY", key)
        monkeypatch.setenv("BOT4_BINANCE_SECRET", "secret")
        stop, told = threading.Event(), []

        def sink(entry):
            if entry.kind == "request" and entry.body["call"] == "GET /api/v3/klines":
                stop.set()  # its first candles are asked for: it has begun

        instrument = Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0)
        venue = Loopback(
            LiveClock(),
            [(SymbolRules.of(instrument), Decimal(40_000))],
            faults=FaultSchedule(rules),
            sink=sink,
        )
        venue.open_account(1, "key", "secret", [("USDT", Decimal(100_000))])
        with hosted(venue) as server:

            def waits(why):
                told.append(why)
                if len(told) == patience:
                    stop.set()
                server.do(lambda: venue.schedule(FaultSchedule()))

            settings = make_settings(
                BOT4_RUNTIME__MODE=mode,
                BOT4_RUNTIME__STRATEGY="drill",
                BOT4_RUNTIME__SYMBOLS='["BTCUSDT"]',
                BOT4_BINANCE__REST_URL=f"http://127.0.0.1:{server.port}",
                BOT4_BINANCE__STREAM_URL=f"ws://127.0.0.1:{server.port}/ws-api/v3",
                BOT4_SOURCE__REST_URL=f"http://127.0.0.1:{server.port}",
            )
            run = app.build(
                settings,
                app.RunOptions(source="binance"),
                mode=mode,
                folder=tmp_path / "run",
                on_wait=waits,
            )
            with run.store:
                yield run, stop, told

    return start


@pytest.mark.parametrize(
    "fault",
    [
        Fault.RATE_LIMITED,
        Fault.BANNED,
        Fault.ERROR_BEFORE,
        Fault.TIMEOUT_AFTER,
        Fault.DROP_REQUEST,
        Fault.TRUNCATED,
    ],
)
def test_a_venue_in_trouble_is_waited_for_and_then_traded_at(started, fault) -> None:
    rule = FaultRule(fault=fault, method="GET", path=EXCHANGE_INFO, seconds=1)
    with started(rule) as (run, stop, told):
        assert run.execute(stop).stopped
    assert all("Asked again in" in why for why in told)
    assert told, "it did not wait"


@pytest.mark.parametrize("mode", ["testnet", "paper"])
def test_a_firewall_is_waited_for_too(started, mode) -> None:
    rule = FaultRule(fault=Fault.FORBIDDEN, method="GET", path=EXCHANGE_INFO)
    with started(rule, mode=mode, patience=1) as (run, stop, told):
        assert run.execute(stop).stopped
    assert told, "it did not wait"


def test_on_paper_it_is_waited_for_by_whom_the_venue_told_to(started) -> None:
    silence = FaultRule(
        fault=Fault.RATE_LIMITED, method="GET", path=EXCHANGE_INFO, times=1, seconds=1
    )
    with started(silence, mode="paper") as (run, stop, told):
        assert run.execute(stop).stopped
    assert "request limit" in told[0]


def test_on_paper_a_venue_that_does_not_answer_is_told_at_once(started) -> None:
    away = FaultRule(fault=Fault.DROP_REQUEST, method="GET", path=EXCHANGE_INFO)
    with pytest.raises(VenueUnreachable), started(away, mode="paper"):
        pass


def test_a_key_that_the_venue_refuses_ends_the_run(started) -> None:
    with started(key="another") as (run, stop, _), pytest.raises(VenueRefused, match="-2015"):
        run.execute(stop)


def test_a_refused_location_ends_the_run(started) -> None:
    rule = FaultRule(fault=Fault.RESTRICTED, method="GET", path="/api/v3/time")
    with started(rule) as (run, stop, _), pytest.raises(LocationRefused):
        run.execute(stop)
