"""Mode testnet: what fits it and what does not is said before anything is sent."""

import tempfile
import threading
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal

import pytest

from bot4_runtime import app
from bot4_runtime.app import remote as remote_module
from bot4_runtime.app.hosts import Place, place_of, venue_name
from bot4_runtime.app.remote import connect
from bot4_runtime.app.source import DEFAULT_BINANCE_SYMBOLS, build_source, polled_candles
from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.client_id import client_id
from bot4_runtime.domain.errors import (
    ConfigError,
    JournalLocked,
    ModelError,
    VenueUnreachable,
    WrongAccount,
)
from bot4_runtime.domain.events import OrderIntended, SessionEnded, SessionStarted
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    OrderIntent,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
    payload_hash,
)
from bot4_runtime.exchange.binance.futures import BinanceFutures, Holding
from bot4_runtime.exchange.binance.limits import Lane, shared_budget
from bot4_runtime.sources import SimulatedSource
from bot4_runtime.strategy.protocol import load_strategy
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

LOOPBACK = {
    "BOT4_RUNTIME__MODE": "testnet",
    "BOT4_RUNTIME__STRATEGY": "drill",
    "BOT4_BINANCE__REST_URL": "http://127.0.0.1:9",
    "BOT4_BINANCE__STREAM_URL": "ws://127.0.0.1:9/ws-api/v3",
}


USDM = {
    "BOT4_RUNTIME__MARKET": "usdm",
    "BOT4_BINANCE__STREAM_URL": "ws://127.0.0.1:9/ws-fapi/v1",
    "BOT4_BINANCE__PRIVATE_URL": "ws://127.0.0.1:9/private",
}


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT4_BINANCE_API_KEY", "key")
    monkeypatch.setenv("BOT4_BINANCE_SECRET", "canary")


@pytest.mark.parametrize(
    ("changed", "source", "told"),
    [
        ({}, "simulated", "trades on the venue's own candles"),
        ({"BOT4_RUNTIME__MARKET": "usdm"}, "binance", "binance.private_url one is named"),
        (USDM | {"BOT4_BINANCE__PRIVATE_URL": "wss://fstream.binance.com/private"}, "binance", "private_url .* of real money"),
        (USDM | {"BOT4_BINANCE__PRIVATE_URL": "wss://fstream.binancefuture.com/private"}, "binance", "three of one venue"),
        (USDM | {"BOT4_SOURCE__USDM_MARKET_STREAM": "wss://fstream.binancefuture.com/market"}, "binance", "usdm_market_stream .* prices of another market"),
        (USDM | {"BOT4_BINANCE__REST_URL": "", "BOT4_BINANCE__STREAM_URL": "", "BOT4_BINANCE__PRIVATE_URL": ""}, "binance", "made-up evidence"),
        (USDM | {"BOT4_RUNTIME__MODE": "live"}, "binance", "mode live trades spot"),
        (USDM | {"BOT4_BINANCE__DEAD_MAN_S": "10"}, "binance", "dead_man_s is 10"),
        ({"BOT4_BINANCE__DEAD_MAN_S": "60"}, "binance", "spot has no such switch"),
        ({"BOT4_BINANCE__REST_URL": "https://api.binance.com"}, "binance", "rest_url .* of real money"),
        ({"BOT4_BINANCE__STREAM_URL": "wss://ws-api.binance.com:443/ws-api/v3"}, "binance", "stream_url .* of real money"),
        ({"BOT4_BINANCE__STREAM_URL": "wss://ws-api.testnet.binance.vision/ws-api/v3"}, "binance", "two of one venue"),
        ({"BOT4_BINANCE__REST_URL": "https://testnet.binance.vision"}, "binance", "two of one venue"),
        ({"BOT4_BINANCE__REST_URL": "https://testnet.binance.vision", "BOT4_BINANCE__STREAM_URL": "ws://ws-api.testnet.binance.vision/ws-api/v3"}, "binance", "stream_url .* in the clear"),
        ({"BOT4_BINANCE__REST_URL": "https://[::1"}, "binance", "no host that is known"),
        ({"BOT4_SOURCE__REST_URL": "https://data-api.binance.vision"}, "binance", "source.rest_url .* prices of another market"),
        ({"BOT4_SOURCE__SPOT_STREAM": "wss://stream.binance.com:9443"}, "binance", "source.spot_stream .* prices of another market"),
        ({"BOT4_BINANCE__REST_URL": "", "BOT4_BINANCE__STREAM_URL": ""}, "binance", "made-up evidence"),
        ({"BOT4_BINANCE__STREAM_URL": ""}, "binance", "name both"),
    ],
)  # fmt: skip
def test_what_does_not_fit_mode_testnet_is_refused(make_settings, key, changed, source, told):
    settings = make_settings(**(LOOPBACK | changed))
    with pytest.raises(ConfigError, match=told):
        connect(settings, app.RunOptions(source=source), load_strategy("drill"))


def test_the_testnet_and_its_prices_go_together(make_settings, key):
    named = LOOPBACK | {
        "BOT4_BINANCE__REST_URL": "",
        "BOT4_BINANCE__STREAM_URL": "",
        "BOT4_SOURCE__REST_URL": "https://testnet.binance.vision",
        "BOT4_SOURCE__SPOT_STREAM": "wss://stream.testnet.binance.vision",
    }
    remote = connect(
        make_settings(**named), app.RunOptions(source="binance"), load_strategy("regime_follower")
    )
    remote.stop()


def test_mode_testnet_needs_a_key(make_settings, monkeypatch):
    monkeypatch.delenv("BOT4_BINANCE_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="BOT4_BINANCE_API_KEY"):
        connect(
            make_settings(**LOOPBACK), app.RunOptions(source="binance"), load_strategy("drill")
        )


@pytest.mark.parametrize("local", [False, True])
def test_models_of_simulated_candles_trade_on_this_machine_alone(
    promote, make_settings, key, tmp_path, local
):
    promote()
    changed = {
        "BOT4_RUNTIME__STRATEGY": "regime_follower",
        "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT", "ETHUSDT"]',
    }
    if not local:
        changed |= {"BOT4_BINANCE__REST_URL": "", "BOT4_BINANCE__STREAM_URL": ""}
    settings = make_settings(**(LOOPBACK | changed))
    options = app.RunOptions(source="binance")
    remote = connect(settings, options, load_strategy("regime_follower"))
    assert remote.local is local
    course = build_source(settings, app.RunOptions(source="simulated:7"), None)
    with nullcontext() if local else pytest.raises(ModelError, match="simulated candles"):
        run = app.build(
            settings, options, mode="testnet", folder=tmp_path / "run",
            remote=replace(remote, source=course),
        )  # fmt: skip
        run.store.close()


def test_a_venue_that_is_away_is_no_error_of_its_client(make_settings, key):
    remote = connect(
        make_settings(**LOOPBACK), app.RunOptions(source="binance"), load_strategy("drill")
    )
    remote.start()
    assert not remote.venue.following
    with pytest.raises(VenueUnreachable):
        remote.venue.server_time_ms()
    remote.stop()


def test_its_candles_are_those_of_the_venue_it_trades_at(make_settings, key):
    settings = make_settings(**LOOPBACK)
    source = build_source(settings, app.RunOptions(source="binance"), None)
    with pytest.raises(VenueUnreachable):  # and not those of binance.com
        source.history(0, 60_000)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.binance.com", "api.binance.com"),
        ("https://api3.binance.com", "api.binance.com"),
        ("https://api-gcp.binance.com:443", "api.binance.com"),
        ("https://api1.binance.us", "api.binance.us"),
        ("https://demo-api.binance.com", "demo-api.binance.com"),
        ("https://testnet.binance.vision", "testnet.binance.vision"),
        ("http://127.0.0.1:9", "127.0.0.1:9"),
        ("http://localhost:10", "127.0.0.1:10"),
    ],
)
def test_all_doors_of_a_venue_are_one(url, name):
    assert venue_name(url) == name


def test_two_accounts_of_this_machine_do_not_trade_with_one_key(
    make_settings, key, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote_module, "machine_folder", lambda: tmp_path / "machine")
    options = app.RunOptions(source="binance")
    runs = []
    for account in ("one", "two"):
        settings = make_settings(**(LOOPBACK | {"BOT4_RUNTIME__ACCOUNT": account}))
        remote = connect(settings, options, load_strategy("drill"))
        course = build_source(settings, app.RunOptions(source="simulated:7"), None)
        run = app.build(
            settings, options, mode="testnet", folder=tmp_path / account,
            remote=replace(remote, source=course),
        )  # fmt: skip
        runs.append(run)
    one, two = runs
    one.claim.start()
    with pytest.raises(JournalLocked, match=f"'one' in {tmp_path / 'one'} .process") as refused:
        two.execute(threading.Event())
    assert "127.0.0.1:9" in str(refused.value)
    one.claim.stop()
    with pytest.raises(VenueUnreachable):
        one.remote.venue.account_uid()
    one.store.close()


def test_a_usdm_journal_goes_on_with_a_new_key_of_its_account_and_with_no_other(
    make_settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote_module, "machine_folder", lambda: tmp_path / "machine")
    monkeypatch.setenv("BOT4_BINANCE_SECRET", "secret")
    contract = Contract.of(Instrument.assume("BTCUSDT", Market.USDM, 40_000.0))
    venue = FuturesLoopback(LiveClock(), [(contract, Decimal(40_000))])
    for uid, key in ((1, "key"), (2, "another")):
        venue.open_account(uid, key, "secret", [("USDT", Decimal(10_000))])
    with hosted(venue) as server:
        at = f"127.0.0.1:{server.port}"
        named = {
            "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT"]',
            "BOT4_BINANCE__REST_URL": f"http://{at}",
            "BOT4_BINANCE__STREAM_URL": f"ws://{at}/ws-fapi/v1",
            "BOT4_BINANCE__PRIVATE_URL": f"ws://{at}/private",
        }
        settings = make_settings(**(LOOPBACK | USDM | named))

        def claim_by(key, do=lambda _run: None):
            monkeypatch.setenv("BOT4_BINANCE_API_KEY", key)
            remote = connect(settings, app.RunOptions(source="binance"), load_strategy("drill"))
            course = SimulatedSource(seed=7, interval="1h", symbols=("BTCUSDT",), speed=None)
            run = app.build(
                settings, app.RunOptions(source="binance"), mode="testnet", folder=tmp_path / "run",
                remote=replace(remote, source=course),
            )  # fmt: skip
            with run.store:
                run.claim.start()
                try:
                    run.claim.confirm()
                    do(run)
                finally:
                    run.claim.stop()
                    run.remote.venue.close()

        def trades(run):
            events = [started(), *ordered(run.remote.venue), SessionEnded(ts_event_ns=0, epoch=1, reason="")]  # fmt: skip
            for event in events:
                run.store.stage(event)
            run.store.wait_durable(run.store.commit())

        claim_by("key", trades)
        with pytest.raises(WrongAccount, match="shows no order of this journal"):
            claim_by("another")
        customer = venue.exchange._customers.pop("key")
        customer.account.api_key = "new"
        venue.exchange._customers["new"] = customer
        claim_by("new")
        claim_by("new")
        with pytest.raises(WrongAccount):
            claim_by("another")


def started():
    return SessionStarted(
        ts_event_ns=0, epoch=1, mode="testnet", source="s", origin="real", strategy="drill",
        config_hash="c", schema_version=1, warm_from_ms=0, start_ms=0, quote="USDT",
        initial_cash=Decimal(1_000), books=(Book.VALIDATED,),
    )  # fmt: skip


def ordered(venue):
    """Yield what the journal holds of an order that was sent and taken."""
    intent = OrderIntent(
        intent_no=1, book=Book.VALIDATED, purpose=Purpose.ENTRY, symbol="BTCUSDT", side=Side.BUY,
        order_type=OrderType.MARKET, quantity=Decimal("0.01"), price=None, stop_price=None,
        time_in_force=TimeInForce.GTC, reduce_only=False, reference_price=Decimal(40_000),
        stop_loss=Decimal(39_000), expires_after=0, signal_id="s", rule_id="r", ts_ns=0,
    )  # fmt: skip
    name = client_id(1, 1)
    yield OrderIntended(ts_event_ns=0, intent=intent, client_id=name, payload_hash=payload_hash(intent))  # fmt: skip
    venue._entry._may_send = None  # nobody renewed a lease
    yield from venue.submit(intent, name, 0.0)


def test_its_candles_keep_the_silence_that_the_venue_wants_of_the_account(
    make_settings, key, tmp_path
):
    instrument = Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0)
    venue = Loopback(LiveClock(), [(SymbolRules.of(instrument), Decimal(40_000))])
    with hosted(venue) as server:
        settings = make_settings(
            **LOOPBACK
            | {
                "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT"]',
                "BOT4_BINANCE__REST_URL": f"http://127.0.0.1:{server.port}",
                "BOT4_BINANCE__STREAM_URL": f"ws://127.0.0.1:{server.port}/ws-api/v3",
            }
        )
        options = app.RunOptions(source="binance")
        run = app.build(settings, options, mode="testnet", folder=tmp_path / "run")
        try:
            assert list(run.source.history(0, 60_000)) == []
            run.remote.budget.stay_away(60_000)
            with pytest.raises(VenueUnreachable, match="nothing was asked"):
                run.source.history(0, 60_000)
        finally:
            run.store.close()


@pytest.mark.parametrize("market", list(Market))
def test_what_a_testnet_bans_may_still_trade_with_real_money(make_settings, key, monkeypatch, tmp_path, market):  # fmt: skip
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = make_settings(
        BOT4_RUNTIME__MODE="testnet",
        BOT4_RUNTIME__STRATEGY="regime_follower",
        BOT4_RUNTIME__MARKET=market,
    )
    remote = connect(settings, app.RunOptions(source="binance"), load_strategy("regime_follower"))
    assert not remote.local
    remote.budget.stay_away(60_000)
    assert remote.budget.take(Lane.REDUCE) > 0
    assert polled_candles(settings, ("BTCUSDT",)).held_off, "of the testnet they are"
    assert shared_budget(market).take(Lane.REDUCE) == 0
    paper = make_settings(BOT4_RUNTIME__MARKET=market)
    assert not polled_candles(paper, ("BTCUSDT",)).held_off
    remote.stop()


def test_usdm_is_traded_as_the_settings_say_positions_are_held(make_settings, key):
    changed = USDM | {
        "BOT4_BINANCE__MARGIN": "cross",
        "BOT4_BINANCE__HEDGE": "true",
        "BOT4_RISK__MAX_LEVERAGE": "2.5",
    }
    settings = make_settings(**(LOOPBACK | changed))
    remote = connect(settings, app.RunOptions(source="binance"), load_strategy("drill"))
    assert isinstance(remote.venue, BinanceFutures)
    assert remote.local
    assert remote.venue._holding == Holding(leverage=3, isolated=False, hedge=True)
    assert remote.dead_man() is None, "off by default"
    assert replace(remote, dead_man_s=60).dead_man() is not None
    remote.stop()


@pytest.mark.parametrize(
    ("changed", "market"),
    [
        ({}, "wss://fstream.binancefuture.com/market"),
        ({"BOT4_RUNTIME__MODE": "paper"}, "wss://fstream.binance.com/market"),
        ({"BOT4_BINANCE__REST_URL": "http://127.0.0.1:9"}, None),
        (
            {"BOT4_SOURCE__USDM_MARKET_STREAM": "ws://127.0.0.1:9/market"},
            "ws://127.0.0.1:9/market",
        ),
        (
            {
                "BOT4_BINANCE__REST_URL": "http://127.0.0.1:9",
                "BOT4_SOURCE__USDM_MARKET_STREAM": "ws://127.0.0.1:9/market",
            },
            "ws://127.0.0.1:9/market",
        ),
    ],
)
def test_candles_of_usdm_come_from_the_market_that_is_traded(make_settings, changed, market):
    named = {"BOT4_RUNTIME__MODE": "testnet", "BOT4_RUNTIME__MARKET": "usdm"}
    hosts = make_settings(**(named | changed)).stream_hosts()
    assert (None if hosts is None else hosts.usdm_market) == market


@pytest.mark.parametrize(
    ("changed", "url"),
    [
        ({}, "wss://fstream.binancefuture.com/market/stream"),
        (LOOPBACK | USDM, "ws://127.0.0.1:9/market/stream"),
    ],
)
def test_marks_of_usdm_are_heard_beside_the_private_route(make_settings, key, changed, url):
    named = {"BOT4_RUNTIME__MODE": "testnet", "BOT4_RUNTIME__MARKET": "usdm"}
    settings = make_settings(**(named | changed))
    remote = connect(settings, app.RunOptions(source="binance"), load_strategy("regime_follower"))
    [route] = remote.marks._routes
    symbols = settings.runtime.symbols or DEFAULT_BINANCE_SYMBOLS
    assert route.url == url
    assert route.streams == tuple(f"{symbol.lower()}@markPrice@1s" for symbol in symbols)
    assert remote.venue._margin is remote.venue._stream._margin is remote.margin
    remote.start()
    assert remote.marks._thread.alive
    remote.stop()
    assert not remote.marks._thread.alive


def test_on_spot_nothing_is_liquidated(make_settings, key):
    settings = make_settings(**LOOPBACK)
    remote = connect(settings, app.RunOptions(source="binance"), load_strategy("drill"))
    assert remote.margin is remote.marks is None
    remote.stop()


def test_the_usdm_testnet_is_no_host_of_real_money(make_settings, key):
    named = {"BOT4_RUNTIME__MODE": "testnet", "BOT4_RUNTIME__MARKET": "usdm"}
    settings = make_settings(**named)
    remote = connect(settings, app.RunOptions(source="binance"), load_strategy("regime_follower"))
    assert not remote.local
    remote.stop()
    for url in ("https://demo-fapi.binance.com", "wss://testnet.binancefuture.com/ws-fapi/v1"):
        assert place_of(url) is Place.TESTNET
    assert place_of("https://fapi.binance.com") is Place.REAL
    assert place_of("https://binancefuture.com.example") is Place.UNKNOWN
