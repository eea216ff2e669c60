"""The machine's request budget: shared, by the minute, and it waits out a ban."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from bot4_pipelines.ingest.plan import Budget
from bot4_pipelines.ingest.rate import SharedRate, machine_rate, pause_s, retry_after_s, wait
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import VenueUnreachable
from bot4_runtime.exchange.binance.limits import Limit, RequestBudget, shared_budget

MINUTE = 60_000


def shared(path: Path, a_minute: int, clock_ms: Callable[[], int] = lambda: MINUTE) -> SharedRate:
    """Of a venue that lets twice as much pass as data may use."""
    requests = RequestBudget(path, clock_ms=clock_ms)
    requests.weight = Limit(MINUTE, 2 * a_minute)
    return SharedRate(requests)


def take_many(path: Path, times: int) -> None:
    rate = shared(path, 10_000, clock_ms=lambda: 5 * MINUTE)
    for _ in range(times):
        rate.take(3, Budget(5))


def test_processes_share_one_count(tmp_path: Path) -> None:
    path = tmp_path / "rate.json"
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=take_many, args=(path, 50)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    full = shared(path, 300, clock_ms=lambda: 5 * MINUTE + 1_000)
    with pytest.raises(VenueUnreachable, match=r"used up .* the next try is due in 59 s"):
        full.take(1, Budget(5))


def test_a_new_minute_has_its_own_weight_and_a_large_request_always_goes(tmp_path: Path) -> None:
    now = [7 * MINUTE]
    rate = shared(tmp_path / "rate.json", 10, clock_ms=lambda: now[0])
    rate.take(40, Budget(1))
    with pytest.raises(VenueUnreachable):
        rate.take(1, Budget(1))
    now[0] += MINUTE
    rate.take(10, Budget(1))
    rate.stay_away(120)
    now[0] += MINUTE
    with pytest.raises(VenueUnreachable, match="due in 60 s"):
        rate.take(1, Budget(1))
    now[0] += MINUTE
    rate.take(1, Budget(1))


def test_it_waits_when_the_time_budget_allows_it(tmp_path: Path) -> None:
    now = [MINUTE - 30]
    rate = shared(
        tmp_path / "rate.json", 10, clock_ms=lambda: (now.append(now[-1] + 20), now[-1])[1]
    )
    rate.take(10, Budget(5))
    rate.take(10, Budget(5))


def test_binance_is_counted_by_machine_and_other_servers_by_home(tmp_path: Path) -> None:
    own = machine_rate(Market.SPOT, None, tmp_path)
    path = own.requests.path
    assert path == machine_rate(Market.SPOT, None, tmp_path / "other").requests.path
    assert path == shared_budget(Market.SPOT).path, "the runtime counts there too"
    assert path != machine_rate(Market.USDM, None, tmp_path).requests.path
    proxy = machine_rate(Market.SPOT, "http://127.0.0.1:1", tmp_path)
    assert proxy.requests.path == tmp_path / ".rate-spot.json"
    assert own.requests.weight.most == 6_000


def test_a_torn_file_counts_as_nothing_used(tmp_path: Path) -> None:
    path = tmp_path / "rate.json"
    path.write_bytes(b'{"minute": 1')
    shared(path, 5).take(5, Budget(1))


def test_pauses_double_and_a_header_wins() -> None:
    grown = [pause_s(attempt) for attempt in range(1, 12)]
    for attempt, pause in enumerate(grown[:5]):
        assert 0.75 * 0.25 * 2**attempt <= pause <= 1.25 * 0.25 * 2**attempt
    assert max(grown) <= 1.25 * 30
    assert pause_s(3, 7.0) == 7.0
    for text, seconds in (
        ("2", 2.0),
        ("0.5", 0.5),
        (None, None),
        ("soon", None),
        ("-1", None),
        ("inf", None),
    ):
        assert retry_after_s(text) == seconds
    with pytest.raises(VenueUnreachable, match="the next try is due in 9 s"):
        wait(9.0, Budget(1), "busy")
