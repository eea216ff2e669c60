"""The connector's benchmark measures what it says: all messages, every trade, each decision."""

import math

import pytest

pytest.importorskip("benchmarks.bench_connector")  # mutation testing copies the tests alone
from benchmarks import bench_connector, table
from bot4_runtime.exchange.binance.market_messages import MarketDecoder


def test_a_burst_is_counted_by_its_numbers_and_decisions_are_those_of_the_engine(monkeypatch):
    monkeypatch.setattr(bench_connector, "BURSTS", 1)
    monkeypatch.setattr(bench_connector, "TRADES", 500)
    monkeypatch.setattr(bench_connector, "DECISIONS", 8)
    taken, missed = bench_connector.burst()
    assert (missed.median, missed.verdict) == (0, "met")
    assert taken.median > 0
    decided = bench_connector.decision()
    assert 0 < decided.min <= decided.median < math.inf
    rows = table.rows([(bench_connector.TITLE, [taken, missed, decided])])
    assert [row[0].partition(": ")[2] for row in rows] == [taken.name, missed.name, decided.name]


def test_what_is_timed_is_a_message_that_is_read(monkeypatch):
    for kind, (stream, event) in bench_connector.messages().items():
        read = MarketDecoder().decode(bench_connector.wrapped(stream, event))
        assert read is not None, kind


def test_ccxts_handler_reads_the_messages_it_is_timed_with():
    seen = []
    handle = bench_connector.ccxts_own(seen.append)
    for stream, event in bench_connector.messages().values():
        handle(bench_connector.wrapped(stream, event))
    assert {"BTC/USDT"} == {told["symbol"] for told in seen if isinstance(told, dict) and "symbol" in told}  # fmt: skip
    assert len(seen) >= 3
