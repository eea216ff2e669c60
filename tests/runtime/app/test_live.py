"""Mode live asks for everything by name, and says what it is about to risk."""

from pathlib import Path

import pytest

from bot4_runtime import app
from bot4_runtime.app.live import KEY_CHECK, at_risk, require_healthy, require_meant
from bot4_runtime.app.remote import connect
from bot4_runtime.doctor import Finding
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.strategy.protocol import load_strategy

MEANT = {
    "BOT4_RUNTIME__MODE": "live",
    "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT", "ETHUSDT"]',
    "BOT4_BINANCE__REST_URL": "https://api.binance.com",
    "BOT4_BINANCE__STREAM_URL": "wss://ws-api.binance.com:443/ws-api/v3",
    "BOT4_BINANCE__REAL_MONEY": "true",
    "BOT4_BINANCE__ACCOUNT_UID": "77",
    "BOT4_PAPER__INITIAL_CASH": "2000.0",
}
FILE = {"BOT4_BINANCE_SECRET_FILE": "key.pem"}


def test_what_says_everything_passes(make_settings):
    require_meant(make_settings(**MEANT), FILE)
    own = MEANT | {"BOT4_BINANCE__REST_URL": "", "BOT4_BINANCE__STREAM_URL": ""}
    require_meant(make_settings(**own), FILE)
    local = MEANT | {"BOT4_BINANCE__REST_URL": "http://127.0.0.1:9", "BOT4_BINANCE__STREAM_URL": "ws://127.0.0.1:9/ws-api/v3"}  # fmt: skip
    require_meant(make_settings(**local), FILE)


@pytest.mark.parametrize(
    ("changed", "environment", "told"),
    [
        ({"BOT4_BINANCE__REST_URL": "https://testnet.binance.vision"}, FILE, "rest_url"),
        ({"BOT4_BINANCE__REST_URL": "https://evilbinance.com"}, FILE, "rest_url"),
        ({"BOT4_BINANCE__STREAM_URL": "wss://ws-api.testnet.binance.vision/ws-api/v3"}, FILE, "stream_url"),
        ({"BOT4_BINANCE__STREAM_URL": ""}, FILE, "one is named"),
        ({"BOT4_BINANCE__STREAM_URL": "ws://127.0.0.1:9/ws-api/v3"}, FILE, "two of one venue"),
        ({"BOT4_BINANCE__REST_URL": "https://api.binance.com@evil.example"}, FILE, "no host that is known"),
        ({"BOT4_BINANCE__STREAM_URL": "ws://ws-api.binance.com/ws-api/v3"}, FILE, "in the clear"),
        ({"BOT4_SOURCE__REST_URL": "https://testnet.binance.vision"}, FILE, "source.rest_url .* prices of another market"),
        ({"BOT4_SOURCE__REST_URL": "http://127.0.0.1:9"}, FILE, "source.rest_url .* prices of another market"),
        ({"BOT4_SOURCE__SPOT_STREAM": "wss://stream.testnet.binance.vision"}, FILE, "source.spot_stream .* prices of another market"),
        ({"BOT4_SOURCE__SPOT_STREAM": "ws://stream.binance.com:9443"}, FILE, "source.spot_stream .* in the clear"),
        ({"BOT4_BINANCE__REAL_MONEY": "false"}, FILE, "real_money"),
        ({"BOT4_BINANCE__ACCOUNT_UID": "0"}, FILE, "account_uid"),
        ({"BOT4_RUNTIME__SYMBOLS": "[]"}, FILE, "runtime.symbols"),
        ({}, {}, "BOT4_BINANCE_SECRET_FILE"),
    ],
)  # fmt: skip
def test_each_thing_that_is_missing_is_named(make_settings, changed, environment, told):
    with pytest.raises(ConfigError, match=told) as refused:
        require_meant(make_settings(**(MEANT | changed)), environment)
    assert str(refused.value).count("; ") <= 1, "and nothing else"


def test_the_defaults_lack_everything_at_once(make_settings):
    with pytest.raises(ConfigError) as refused:
        require_meant(make_settings(BOT4_RUNTIME__MODE="live"), {})
    for name in ("real_money", "account_uid", "symbols", "SECRET_FILE"):
        assert name in str(refused.value)


def test_a_check_that_failed_or_a_key_nobody_looked_at_refuses():
    good = [Finding("models", ok=True, found="fine"), Finding(KEY_CHECK, ok=True, found="77")]
    require_healthy(good)
    with pytest.raises(ConfigError, match="Binance key: it was not looked at"):
        require_healthy(good[:1])
    with pytest.raises(ConfigError, match="journal: torn"):
        require_healthy([*good, Finding("journal", ok=False, found="torn")])
    with pytest.raises(ConfigError, match="it may withdraw"):
        require_healthy([good[0], Finding(KEY_CHECK, ok=False, found="it may withdraw")])


def test_what_is_at_risk_is_told_in_money(make_settings):
    told = "\n".join(at_risk(make_settings(**MEANT)))
    for part in ("REAL MONEY at api.binance.com, account 77: 2000.0 USDT in BTCUSDT, ETHUSDT", "2.0% of equity", "leverage 3", "4,000 USDT of entries a minute", "100 USDT in a day", "300 USDT from"):  # fmt: skip
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
        connect(make_settings(**MEANT), options, load_strategy("drill"))
    with pytest.raises(ConfigError, match="real_money is false"):
        changed = MEANT | {"BOT4_BINANCE__REAL_MONEY": "false"}
        connect(make_settings(**changed), options, load_strategy("regime_follower"))
    remote = connect(make_settings(**MEANT), options, load_strategy("regime_follower"))
    assert remote.told("BTCUSDT") is None, "nothing was asked yet"
    remote.stop()
    with pytest.raises(ConfigError, match="real money"):
        changed = MEANT | {"BOT4_RUNTIME__MODE": "testnet"}
        connect(make_settings(**changed), options, load_strategy("regime_follower"))
