"""`--source binance` is the stream with REST beside it, or REST alone, as the settings say."""

import pytest
from prometheus_client import generate_latest

from bot4_runtime import app
from bot4_runtime.app.options import RunOptions
from bot4_runtime.app.source import build_source
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.exchange.binance.polling import BinanceSource
from bot4_runtime.exchange.binance.streamed import StreamedSource
from bot4_runtime.settings import load_settings


def settings(wire, **source):
    return load_settings(
        environment={},
        overrides={
            "runtime": {
                "symbols": ["BTCUSDT", "ETHUSDT"],
                "interval": "1m",
                "strategy": "drill",
            },
            "source": {"rest_url": f"http://127.0.0.1:{wire.port}"} | source,
        },
    )


def built(settings):
    return build_source(settings, RunOptions("binance"), None)


def test_the_stream_is_what_one_gets(wire):
    host = f"ws://127.0.0.1:{wire.port}"
    source = built(settings(wire, spot_stream=host))
    assert type(source) is StreamedSource
    (route,) = source._feed._routes
    assert (route.url, route.streams) == (f"{host}/stream", ("btcusdt@kline_1m", "ethusdt@kline_1m"))  # fmt: skip
    assert (source.symbols, source.interval, source.label) == (("BTCUSDT", "ETHUSDT"), "1m", "binance")  # fmt: skip


def test_rest_alone_can_be_chosen(wire):
    assert type(built(settings(wire, feed="poll"))) is BinanceSource


@pytest.mark.parametrize(
    "wrong",
    [{"feed": "telepathy"}, {"rest_url": "ftp://x"}, {"spot_stream": "https://x"}, {"usdm_public_stream": ""},
     {"usdm_market_stream": "wss://x/market?y"}],
)  # fmt: skip
def test_what_is_no_address_is_refused(wire, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        settings(wire, **wrong)


TESTNET = "wss://stream.testnet.binance.vision"
ELSEWHERE = {"rest_url": "http://127.0.0.1:9", "stream_url": "ws://127.0.0.1:9/ws-api/v3"}


@pytest.mark.parametrize(
    ("mode", "binance", "named", "streamed"),
    [
        ("paper", {}, "", "wss://stream.binance.com:9443"),
        ("paper", ELSEWHERE, "", "wss://stream.binance.com:9443"),  # it trades nowhere
        ("live", {}, "", "wss://stream.binance.com:9443"),
        ("testnet", {}, "", TESTNET),
        ("testnet", ELSEWHERE, "", None),
        ("live", ELSEWHERE, "", None),
        ("testnet", ELSEWHERE, "ws://127.0.0.1:9", "ws://127.0.0.1:9"),
        ("testnet", {}, "ws://127.0.0.1:9", "ws://127.0.0.1:9"),
    ],
)
def test_candles_are_streamed_from_the_market_that_is_traded_or_polled(
    wire, mode, binance, named, streamed
):
    chosen = load_settings(
        environment={},
        overrides={
            "runtime": {"mode": mode, "symbols": ["BTCUSDT"], "strategy": "drill"},
            "source": {"rest_url": f"http://127.0.0.1:{wire.port}", "spot_stream": named},
            "binance": binance,
        },
    )
    source = built(chosen)
    if streamed is None:
        assert type(source) is BinanceSource
    else:
        assert [route.url for route in source._feed._routes] == [f"{streamed}/stream"]


def test_where_candles_come_from_shapes_no_trade(wire):
    assert settings(wire).trading_hash() == settings(wire, feed="poll").trading_hash()


@pytest.mark.parametrize(("feed", "counted"), [("stream", True), ("poll", False)])
def test_what_happens_to_streamed_candles_is_told_by_metrics(wire, tmp_path, feed, counted):
    run = app.build(
        settings(wire, feed=feed), RunOptions("binance"), mode="paper", folder=tmp_path / "account"
    )
    try:
        told = generate_latest(run.metrics.registry)
    finally:
        run.store.close()
    for name in ("candles_streamed", "candles_contradicted", "candles_gaps", "candles_lines"):
        assert (f"bot4_{name}".encode() in told) == counted
