"""`bot4-runtime watch`: the book and trades that the venue has, and nothing while they are unknown."""

import asyncio
import json
from decimal import Decimal

import pytest
from market_tape import FROM, MINUTE
from typer.testing import CliRunner

from bot4_runtime.app import watch
from bot4_runtime.app.watch import Seen, watched
from bot4_runtime.cli import app
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.exchange.binance.market_messages import DepthSnapshot, DepthUpdate, Trade
from bot4_runtime.settings import load_settings
from bot4_runtime.venue.faults import Fault, FaultRule


def settings(port):
    return load_settings(overrides={"source": {"rest_url": f"http://127.0.0.1:{port}", "spot_stream": f"ws://127.0.0.1:{port}"}})  # fmt: skip


def test_what_is_told_is_the_venues_book_and_every_trade(wire):
    async def run():
        rows, moved = [], 0
        told = watched(settings(wire.port), "BTCUSDT", 0.05)
        async for row in told:
            rows.append(row)
            if row["book"] == "known" and row["trades"] >= 10:
                break
            moved += 1
            assert moved < 400, rows[-1]
            await asyncio.to_thread(wire.advance, FROM + moved * 10_000)
        await told.aclose()
        return rows

    first, *_, last = asyncio.run(run())
    assert (first["bid"], first["spread_bps"], first["trades"]) == (None, None, 0)
    venue = wire.venue.rest._public["GET", "/api/v3/depth"]({"symbol": "BTCUSDT", "limit": "10"})
    assert Decimal(last["bid"]) == Decimal(venue["bids"][0][0])
    assert Decimal(last["ask"]) == Decimal(venue["asks"][0][0])
    assert Decimal(last["bids_near"]) >= Decimal(venue["bids"][0][1])
    middle = (Decimal(last["bid"]) + Decimal(last["ask"])) / 2
    assert last["spread_bps"] == pytest.approx(float((Decimal(last["ask"]) - Decimal(last["bid"])) / middle * 10_000))  # fmt: skip
    assert (last["trades_missed"], last["lines_lost"], last["book_faults"]) == (0, 0, {})


def test_a_lost_line_makes_the_book_unknown_and_missed_trades_are_counted():
    async def run():
        seen = Seen("BTCUSDT", Market.SPOT)
        level = [(Decimal(10), Decimal(2))]
        higher = [(Decimal(11), Decimal(3))]
        seen.event(DepthUpdate(symbol="BTCUSDT", time=1, first_id=1, last_id=5, bids=level, asks=higher))  # fmt: skip
        assert seen.wanted.is_set()
        seen.book.snapshot(DepthSnapshot(last_id=5, bids=level, asks=higher))
        for number in (7, 8, 8):
            seen.event(trade(number))
        before = seen.told()
        seen.lost("cut")
        seen.restored()
        seen.event(trade(11))
        seen.event(trade(2_000))
        return before, seen.told()

    def trade(number):
        return Trade(symbol="BTCUSDT", trade_id=number, price=Decimal(10), quantity=Decimal(1), time=1, buyer_is_maker=True)  # fmt: skip

    before, after = asyncio.run(run())
    assert (before["bid"], before["ask"], before["bids_near"]) == ("10", "11", "2")
    assert (before["trades"], before["trades_repeated"], before["last"]) == (2, 1, "10")
    assert (after["bid"], after["book"], after["lines_lost"]) == (None, "unknown", 1)
    assert (after["trades"], after["trades_missed"], after["volume"]) == (4, 2 + 1_988, "4")


def test_a_snapshot_that_fails_is_asked_for_again(wire):
    wire.faults(FaultRule(fault=Fault.DROP_REQUEST, path="/api/v3/depth", times=2))

    async def run():
        told = watched(settings(wire.port), "BTCUSDT", 0.05)
        moved = 0
        async for row in told:
            if row["book"] == "known":
                break
            moved += 1
            assert moved < 400, row
            await asyncio.to_thread(wire.advance, FROM + min(moved * 10_000, 25 * MINUTE))
        await told.aclose()
        return row

    assert asyncio.run(run())["bid"] is not None


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_writes_a_line_each_time(wire, monkeypatch, as_json):
    monkeypatch.setenv("BOT4_SOURCE__REST_URL", f"http://127.0.0.1:{wire.port}")
    monkeypatch.setenv("BOT4_SOURCE__SPOT_STREAM", f"ws://127.0.0.1:{wire.port}")
    asked = ["watch", "btcusdt", "--every", "0.05", "--lines", "2"]
    said = CliRunner().invoke(app, [*asked, "--json"] if as_json else asked)
    assert said.exit_code == 0, said.output
    lines = said.output.strip().splitlines()
    assert len(lines) == 2
    if as_json:
        assert json.loads(lines[0])["symbol"] == "BTCUSDT"
    else:
        assert lines[0].startswith("BTCUSDT  book unknown  last -  trades 0")


@pytest.mark.parametrize("mode", ["paper", "testnet"])
@pytest.mark.parametrize("market", list(Market))
def test_a_book_is_asked_for_at_its_own_market(monkeypatch, mode, market):
    class Asked(Exception):
        pass

    def asked(url, **_):
        raise Asked(url)

    monkeypatch.setattr(watch, "HttpConnection", asked)
    named = load_settings(overrides={"runtime": {"mode": mode, "market": market.value}})
    with pytest.raises(Asked) as told:
        asyncio.run(anext(watched(named, "BTCUSDT", 1.0)))
    assert ("fapi" in str(told.value)) is (market is Market.USDM)


def test_a_server_whose_streams_are_not_known_is_refused():
    named = load_settings(overrides={"runtime": {"mode": "testnet"}, "binance": {"rest_url": "http://127.0.0.1:9", "stream_url": "ws://127.0.0.1:9/ws-api/v3"}})  # fmt: skip

    async def run():
        async for _ in watched(named, "BTCUSDT", 1.0):
            raise AssertionError("nothing can be seen")

    with pytest.raises(ConfigError, match="spot_stream"):
        asyncio.run(run())
