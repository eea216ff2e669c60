"""Mode live asks for everything by name, and says what it is about to risk."""

from pathlib import Path

import pytest

from bot4_runtime import app
from bot4_runtime.app import live
from bot4_runtime.app.hosts import host_faults
from bot4_runtime.app.live import (
    KEY_CHECK,
    UNRELEASED,
    at_risk,
    at_stake,
    require_healthy,
    require_meant,
)
from bot4_runtime.app.remote import connect
from bot4_runtime.doctor import Finding
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.strategy.protocol import load_strategy

MEANT = {
    "BOT4_RUNTIME__MODE": "live",
    "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT", "ETHUSDT"]',
    "BOT4_BINANCE__REST_URL": "http://127.0.0.1:9",
    "BOT4_BINANCE__STREAM_URL": "ws://127.0.0.1:9/ws-api/v3",
    "BOT4_BINANCE__REAL_MONEY": "true",
    "BOT4_BINANCE__ACCOUNT_UID": "77",
    "BOT4_PAPER__INITIAL_CASH": "2000.0",
}
REAL = MEANT | {
    "BOT4_BINANCE__REST_URL": "https://api.binance.com",
    "BOT4_BINANCE__STREAM_URL": "wss://ws-api.binance.com:443/ws-api/v3",
}
OWN = MEANT | {"BOT4_BINANCE__REST_URL": "", "BOT4_BINANCE__STREAM_URL": ""}
FILE = {"BOT4_BINANCE_SECRET_FILE": "key.pem"}


def test_what_says_everything_passes_on_loopback(make_settings):
    require_meant(make_settings(**MEANT), FILE)


@pytest.mark.parametrize("named", [OWN, REAL])
def test_what_says_everything_passes_at_hosts_of_real_money(make_settings, monkeypatch, named):
    monkeypatch.setattr(live, "UNRELEASED", ())
    assert host_faults(make_settings(**named)) == [], "they are the hosts of this mode"
    require_meant(make_settings(**named), FILE)


@pytest.mark.parametrize("named", [OWN, REAL])
def test_hosts_of_real_money_are_refused_while_there_is_a_reason(
    make_settings, monkeypatch, named
):
    reasons = ("two and two are five", "water runs uphill")
    monkeypatch.setattr(live, "UNRELEASED", reasons)
    with pytest.raises(ConfigError, match="use mode testnet") as refused:
        require_meant(make_settings(**named), FILE)
    assert all(reason in str(refused.value) for reason in reasons)
    require_meant(make_settings(**MEANT), FILE)


def test_the_readme_tells_each_reason_and_that_no_order_went_to_a_real_market():
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    assert all(reason in readme for reason in UNRELEASED)
    assert "No order of this release was ever sent to a real market" in readme
    assert "Begin on the testnet" in readme


@pytest.mark.parametrize(
    ("changed", "environment", "told"),
    [
        ({"BOT4_BINANCE__REST_URL": "https://testnet.binance.vision"}, FILE, "rest_url"),
        ({"BOT4_BINANCE__REST_URL": "https://evilbinance.com"}, FILE, "rest_url"),
        ({"BOT4_BINANCE__STREAM_URL": "wss://ws-api.testnet.binance.vision/ws-api/v3"}, FILE, "stream_url"),
        ({"BOT4_BINANCE__STREAM_URL": ""}, FILE, "one is named"),
        ({"BOT4_SOURCE__REST_URL": "https://api.binance.com"}, FILE, "source.rest_url"),
        ({"BOT4_BINANCE__REAL_MONEY": "false"}, FILE, "real_money"),
        ({"BOT4_BINANCE__ACCOUNT_UID": "0"}, FILE, "account_uid"),
        ({"BOT4_RUNTIME__SYMBOLS": "[]"}, FILE, "runtime.symbols"),
        ({}, {}, "BOT4_BINANCE_SECRET_FILE"),
    ],
)  # fmt: skip
def test_each_thing_that_is_missing_is_named(make_settings, changed, environment, told):
    with pytest.raises(ConfigError, match=told) as refused:
        require_meant(make_settings(**(MEANT | changed)), environment)
    assert str(refused.value).count("; ") == (told == "one is named"), "and nothing else"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"BOT4_BINANCE__STREAM_URL": "ws://127.0.0.1:9/ws-api/v3"}, "two of one venue"),
        ({"BOT4_BINANCE__REST_URL": "https://api.binance.com@evil.example"}, "no host that is known"),
        ({"BOT4_BINANCE__STREAM_URL": "ws://ws-api.binance.com/ws-api/v3"}, "in the clear"),
        ({"BOT4_SOURCE__REST_URL": "https://testnet.binance.vision"}, "source.rest_url .* another market"),
        ({"BOT4_SOURCE__REST_URL": "http://127.0.0.1:9"}, "source.rest_url .* another market"),
        ({"BOT4_SOURCE__SPOT_STREAM": "wss://stream.testnet.binance.vision"}, "source.spot_stream .* another market"),
        ({"BOT4_SOURCE__SPOT_STREAM": "ws://stream.binance.com:9443"}, "source.spot_stream .* in the clear"),
    ],
)  # fmt: skip
def test_addresses_of_two_markets_are_not_mixed(make_settings, changed, told):
    with pytest.raises(ConfigError, match=told):
        require_meant(make_settings(**(REAL | changed)), FILE)


def test_the_defaults_lack_everything_at_once(make_settings):
    with pytest.raises(ConfigError) as refused:
        require_meant(make_settings(BOT4_RUNTIME__MODE="live"), {})
    for name in ("real_money", "account_uid", "symbols", "SECRET_FILE"):
        assert name in str(refused.value)


def test_a_check_that_failed_or_a_key_nobody_looked_at_refuses():
    good = (Finding("models", ok=True, found="fine"), Finding(KEY_CHECK, ok=True, found="77"))
    torn = Finding("journal", ok=False, found="torn")
    withdraws = Finding(KEY_CHECK, ok=False, found="it may withdraw")
    away = Finding(KEY_CHECK, ok=False, found="nobody answers", asked=False)

    def asked(*findings: Finding, something_open: bool = False) -> str:
        return require_healthy(findings, lambda: something_open)

    assert asked(*good) == asked(*good, something_open=True) == ""
    with pytest.raises(ConfigError, match="journal: torn"):
        asked(*good, torn)
    with pytest.raises(ConfigError, match="nobody answers"):
        asked(good[0], away)
    for something_open in (False, True):
        with pytest.raises(ConfigError, match="Binance key: it was not looked at"):
            asked(good[0], something_open=something_open)
        with pytest.raises(ConfigError, match=r"journal: torn; .*it may withdraw"):
            asked(good[0], torn, withdraws, something_open=something_open)


def test_while_something_is_open_all_but_the_key_lets_no_entry_out_and_refuses_nothing():
    full = Finding("home folder", ok=False, found="full")
    expired = Finding("models", ok=False, found="expired")
    held = require_healthy([full, expired, Finding(KEY_CHECK, ok=True, found="77")], lambda: True)
    assert held.endswith("did not pass at the start: home folder: full; models: expired")
    away = Finding(KEY_CHECK, ok=False, found="nobody answers", asked=False)
    assert "nobody answers" in require_healthy([away], lambda: True)


def test_a_journal_that_cannot_be_read_has_nothing_that_could_be_looked_after(make_settings):
    settings = make_settings(BOT4_RUNTIME__ACCOUNT="torn")
    folder = settings.home / "state" / "torn"
    assert not at_stake(settings, folder)
    folder.mkdir(parents=True)
    (folder / "journal.sqlite").write_bytes(b"SQLite format 3\0" + b"torn" * 1000)
    assert not at_stake(settings, folder)


def test_what_is_at_risk_is_told_in_money(make_settings):
    told = "\n".join(at_risk(make_settings(**REAL)))
    for part in ("REAL MONEY at api.binance.com, account 77: 2000.0 USDT in BTCUSDT, ETHUSDT", "2.0% of equity", "leverage 3", "4,000 USDT of entries a minute", "100 USDT in a day", "300 USDT from", "No order of this release was ever sent"):  # fmt: skip
        assert part in told


def test_exercises_never_trade_real_money_and_hosts_are_not_mixed(
    make_settings, monkeypatch, tmp_path: Path
):
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_text("canary")
    monkeypatch.setenv("BOT4_BINANCE_API_KEY", "key")
    monkeypatch.setenv("BOT4_BINANCE_SECRET_FILE", str(file))
    options = app.RunOptions(source="binance")
    with pytest.raises(ConfigError, match="made-up evidence"):
        testnet = OWN | {"BOT4_RUNTIME__MODE": "testnet"}
        connect(make_settings(**testnet), options, load_strategy("drill"))
    with pytest.raises(ConfigError, match="this release does not trade"):
        connect(make_settings(**REAL), options, load_strategy("regime_follower"))
    monkeypatch.setattr(live, "UNRELEASED", ())
    with pytest.raises(ConfigError, match="made-up evidence"):
        connect(make_settings(**REAL), options, load_strategy("drill"))
    remote = connect(make_settings(**REAL), options, load_strategy("regime_follower"))
    assert not remote.local
    remote.stop()
    with pytest.raises(ConfigError, match="real_money is false"):
        changed = MEANT | {"BOT4_BINANCE__REAL_MONEY": "false"}
        connect(make_settings(**changed), options, load_strategy("regime_follower"))
    remote = connect(make_settings(**MEANT), options, load_strategy("regime_follower"))
    assert remote.told("BTCUSDT") is None, "nothing was asked yet"
    remote.stop()
    with pytest.raises(ConfigError, match="real money"):
        changed = REAL | {"BOT4_RUNTIME__MODE": "testnet"}
        connect(make_settings(**changed), options, load_strategy("regime_follower"))
