"""Crashes: simulated by the dozen, gaps included, and the real one of May 2021."""

import html
import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random

import numpy as np
import pytest

from bot4_runtime.candles.files import read_candle_folder
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import Market, Origin, SeriesId
from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.protection.holdings import Holdings, MarginPosition
from bot4_runtime.protection.rehearsal import StressRequest, rehearse_crash
from bot4_runtime.protection.simulated import Faults
from bot4_runtime.protection.stress import (
    StressSettings,
    default_holdings,
    first_prices,
    points,
    result_hash,
    stress,
)
from bot4_runtime.report.stress import outcome, render_stress
from bot4_runtime.risk.brackets import published_brackets, published_symbols
from bot4_runtime.risk.liquidation import LiquidationLimits
from bot4_runtime.settings import load_settings

MINUTE = 60_000
START_MS = 1_600_000_020_000
D = Decimal
LADDERS = {symbol: published_brackets(symbol) for symbol in published_symbols()}


def candles(symbol: str, closes: list[float], wick=0.0, start_ms=0) -> CandleSeries:
    """Candles that open at the last close and reach a share beyond both ends."""
    close = np.array(closes)
    open_ = np.concatenate(([close[0]], close[:-1]))
    return CandleSeries(
        SeriesId(Origin.REAL, Market.SPOT, symbol, "1m"),
        start_ms + np.arange(len(close), dtype=np.int64) * MINUTE,
        open_,
        np.maximum(open_, close) * (1 + wick),
        np.minimum(open_, close) * (1 - wick),
        close,
        np.ones(len(close)),
    )


def crash(seed: int, gap: float = 0.0, minutes: int = 120) -> list[CandleSeries]:
    """Two symbols that fall together, a third of their worth and more; perhaps by one gap."""
    rng = Random(seed)
    prices = {"BTCUSDT": 40_000.0, "ETHUSDT": 2_000.0}
    closes: dict[str, list[float]] = {symbol: [] for symbol in prices}
    at = rng.randrange(minutes)
    for minute in range(minutes):
        common = rng.gauss(-0.004, 0.005) - (gap if minute == at else 0.0)
        for symbol, price in list(prices.items()):
            prices[symbol] = price * math.exp(common + rng.gauss(0, 0.001))
            closes[symbol].append(prices[symbol])
    return [candles(symbol, values, 0.001, START_MS) for symbol, values in closes.items()]


def run_all(series: list[CandleSeries], settings=None, leverage=3):
    accounts = default_holdings(first_prices(series), D(leverage))
    return [
        stress(
            name, holdings, list(points(series, holdings)), settings or StressSettings(), LADDERS
        )
        for name, holdings in accounts.items()
    ]


def due(result):
    """Liquidations before whose step action was due: from 0.9 of the distance on."""
    return [gone for gone in result.liquidations if not gone.worst_before < 0.9]


def position(**changes) -> MarginPosition:
    told = {"symbol": "BTCUSDT", "side": "long", "size": D(1), "entry_price": D(100)}
    return MarginPosition(**(told | changes))


def flat_path(*prices: float) -> list:
    return [
        (minute * MINUTE * 1_000_000, {"BTCUSDT": price}) for minute, price in enumerate(prices)
    ]


# ----------------------------------------------------------------------- the path
def test_a_candle_is_four_steps_with_the_harmful_extreme_last():
    one = candles("BTCUSDT", [100.0, 110.0], wick=0.1, start_ms=MINUTE)
    long = Holdings(cross_balance=D(1), free=D(0), positions=(position(),))
    short = Holdings(cross_balance=D(1), free=D(0), positions=(position(side="short"),))
    high, low = pytest.approx(121.0), pytest.approx(90.0)
    assert [(ts // 1_000_000, marks["BTCUSDT"]) for ts, marks in points([one], long)][4:] == [
        (2 * MINUTE, 100.0),
        (2 * MINUTE + 15_000, high),
        (2 * MINUTE + 30_000, low),
        (2 * MINUTE + 45_000, 110.0),
    ]
    assert [marks["BTCUSDT"] for _, marks in points([one], short)][4:] == [100.0, low, high, 110.0]


def test_symbols_step_together_and_one_that_is_missing_keeps_its_mark():
    one, other = candles("BTCUSDT", [1.0, 2.0]), candles("ETHUSDT", [5.0])
    held = Holdings(cross_balance=D(1), free=D(0), positions=(position(),))
    steps = list(points([one, other], held))
    assert [sorted(marks) for _, marks in steps] == [["BTCUSDT", "ETHUSDT"]] * 4 + [
        ["BTCUSDT"]
    ] * 4


def test_a_gap_of_days_is_refused():
    early, late = candles("BTCUSDT", [1.0]), candles("ETHUSDT", [1.0], start_ms=2 * 86_400_000)
    with pytest.raises(DataError, match="--from"):
        list(points([early, late], Holdings(cross_balance=D(1), free=D(0), positions=())))


# ----------------------------------------------------------------- simulated crashes
@pytest.mark.parametrize("seed", range(8))
def test_no_simulated_crash_liquidates_what_could_be_saved(seed):
    for result in run_all(crash(seed)):
        assert due(result) == result.avoidable == [], result.name
        if result.unprotected_liquidations:
            assert result.actions or result.liquidations


@pytest.mark.parametrize("seed", range(6))
def test_an_instant_gap_liquidates_only_by_a_step_beyond_the_whole_distance(seed):
    results = run_all(crash(seed, gap=0.4))
    longs = [result for result in results if "long" in result.name]
    assert all(due(result) == result.avoidable == [] for result in results)
    for result in longs:
        for gone in result.liquidations:
            assert not gone.avoidable
            assert gone.worst_before < 0.9
            fall = min(gone.marks_after[s] / p for s, p in gone.marks_before.items())
            assert fall < 1 - 0.1 / 3.1, "a tenth of the distance of 3x, at least"


@pytest.mark.parametrize("seed", range(4))
def test_late_and_lost_answers_do_not_make_it_act_twice(seed):
    faults = Faults(latency_ms=(0, 5_000), ack_loss=0.3, partial=0.3)
    results = run_all(crash(seed), StressSettings(faults=faults, seed=seed))
    for result in results:
        sizes = {p["symbol"]: D(p["size"]) for p in result.holdings["positions"]}
        for symbol, size in sizes.items():
            assert sum(D(a.filled) for a in result.actions if a.symbol == symbol) <= size


def test_a_position_that_is_closed_in_time_keeps_what_a_liquidation_takes():
    held = Holdings(cross_balance=D(1_000), free=D(0), positions=(position(size=D(30)),))
    result = stress("one", held, flat_path(100, 80, 69, 66, 50), StressSettings(), LADDERS)
    assert result.unprotected == 0.0
    assert result.unprotected_liquidations[0].marks_after == {"BTCUSDT": 66}
    assert result.protected > 0.0
    assert result.liquidations == []
    assert [action.action for action in result.actions][:1] == ["reduce"]


def test_a_step_beyond_the_whole_distance_is_reported_as_what_it_is():
    held = Holdings(cross_balance=D(1_000), free=D(0), positions=(position(size=D(30)),))
    result = stress("one", held, flat_path(100, 80, 50), StressSettings(), LADDERS)
    [gone] = result.liquidations
    assert not gone.avoidable
    assert (gone.marks_before, gone.marks_after) == ({"BTCUSDT": 80}, {"BTCUSDT": 50})
    assert gone.worst_before == pytest.approx(1 - (400 - 9.6) / (1000 - 12))
    assert result.protected == 0.0


def test_a_liquidation_while_action_was_due_is_avoidable():
    """With no allowed step the monitor can only watch: the report does not excuse it."""
    held = Holdings(cross_balance=D(1_000), free=D(0), positions=(position(size=D(30)),))
    idle = StressSettings(limits=LiquidationLimits(actions=()))
    result = stress("one", held, flat_path(100, 69, 50), idle, LADDERS)
    assert [gone.avoidable for gone in result.liquidations] == [True]
    assert result.avoidable == result.liquidations
    assert result.alarms["ACTION_IMPOSSIBLE"] == 1


def test_missing_candles_let_the_marks_grow_old():
    held = Holdings(cross_balance=D(1_000), free=D(0), positions=(position(),))
    path = [(second * 10**9, {"BTCUSDT": 100.0}) for second in (0, 60, 660)]
    assert stress("one", held, path, StressSettings(), LADDERS).alarms["MARK_STALE"] == 2


def test_a_long_replay_is_drawn_thinned_with_its_last_point_and_every_action():
    held = Holdings(cross_balance=D(1_000), free=D(0), positions=(position(size=D(30)),))
    prices = [100.0] * 4_001
    prices[2_003:2_006] = [80.0, 69.0, 69.0]
    result = stress("one", held, flat_path(*prices), StressSettings(), LADDERS)
    assert result.actions != []
    minutes = [ms // MINUTE for ms in result.times_ms]
    acted = {action.ts_ms // MINUTE for action in result.actions}
    assert {*range(0, 4_001, 5), 4_000} <= set(minutes)
    assert acted <= set(minutes)
    assert 2_004 in acted
    assert len(minutes) < 900
    assert len(minutes) == len(result.worst) == len(result.prices["BTCUSDT long"])


def test_the_steps_of_long_candles_are_not_missing_ones():
    held = Holdings(cross_balance=D(1_000), free=D(0), positions=(position(size=D(1)),))
    hour_ns = 3_600 * 10**9
    path = [(number * hour_ns, {"BTCUSDT": 100.0}) for number in range(4)]
    assert "MARK_STALE" not in stress("one", held, path, StressSettings(), LADDERS).alarms
    path.append((6 * hour_ns, {"BTCUSDT": 100.0}))
    assert stress("one", held, path, StressSettings(), LADDERS).alarms["MARK_STALE"] > 0


def test_the_same_replay_gives_the_same_hash_in_another_process():
    code = (
        "from test_stress import crash, run_all, StressSettings, Faults, result_hash\n"
        "f = Faults(latency_ms=(0, 5000), ack_loss=.3, partial=.3)\n"
        "print(result_hash(run_all(crash(3), StressSettings(faults=f, seed=3))))"
    )
    faults = Faults(latency_ms=(0, 5_000), ack_loss=0.3, partial=0.3)
    here = result_hash(run_all(crash(3), StressSettings(faults=faults, seed=3)))
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
        env={
            "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[3]}",
            "PYTHONHASHSEED": "7",
        },
    )
    assert there.stdout.strip() == here


# --------------------------------------------------------------------- May 2021
@pytest.mark.data
@pytest.mark.parametrize(
    ("opened", "leverage"),
    [
        pytest.param("2021-05-08", 3, marks=pytest.mark.slow),
        ("2021-05-17", 3),
        ("2021-05-19", 3),
        ("2021-05-19", 5),
        ("2021-05-19T12:00", 10),
    ],
)
def test_no_position_opened_before_the_crash_of_may_2021_is_liquidated_avoidably(
    test_data, opened, leverage
):
    ms = [
        round(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
        for day in (opened, "2021-05-20")
    ]
    series = [
        one.between(*ms) for one in read_candle_folder(test_data / "spot" / "1m", Market.SPOT)
    ]
    results = run_all(series, leverage=leverage)
    assert len(results) == 6
    for result in results:
        assert due(result) == result.avoidable == [], result.name
        if result.unprotected_liquidations:
            assert result.actions or result.liquidations
        for action in result.actions:
            assert action.reason
            assert max(action.ratio, action.consumed) >= 0.9
            assert action.status != "in flight"


@pytest.mark.data
@pytest.mark.slow
def test_the_crash_of_may_2021_liquidates_3x_longs_that_protection_brings_through(test_data):
    ms = [
        round(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
        for day in ("2021-05-12", "2021-05-20")
    ]
    series = [
        one.between(*ms) for one in read_candle_folder(test_data / "spot" / "1m", Market.SPOT)
    ]
    results = {result.name: result for result in run_all(series)}
    for name in (
        "BTCUSDT isolated long",
        "ETHUSDT isolated long",
        "BTCUSDT and ETHUSDT cross long",
    ):
        result = results[name]
        assert result.liquidations == []
        assert result.unprotected_liquidations != []
        assert result.without_margin > result.unprotected
    assert all(results[name].actions == [] for name in results if name.endswith("short"))


# ------------------------------------------------------------------- the command
@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "candles"
    made.mkdir()
    for one in crash(2):
        rows = "\n".join(
            f"{c.open_time_ms},{c.open!r},{c.high!r},{c.low!r},{c.close!r},1" for c in one
        )
        text = f"timestamp,open,high,low,close,volume\n{rows}\n"
        (made / f"{one.id.symbol}.csv").write_text(text)
    return made


def rehearse(folder: Path, out: Path, **changes):
    return rehearse_crash(
        load_settings(environment={}), StressRequest(candles=folder, out=out, **changes)
    )


def test_the_report_tells_every_account_action_and_assumption(folder, tmp_path):
    document = rehearse(folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "stress.json").read_text())["accounts"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "no avoidable liquidation" in page
    assert "stand in for mark prices" in page
    for account in document["accounts"]:
        assert account["name"] in page
        for action in account["actions"]:
            assert action["reason"] in page
    assert "Without protection liquidated at" in page
    assert document["avoidable_liquidations"] == 0
    assert "<script" not in page
    again = rehearse(folder, tmp_path / "again")
    assert again["result_hash"] == document["result_hash"]
    assert (tmp_path / "again" / "report.html").read_text() == page


def test_positions_of_a_file_are_replayed(folder, tmp_path):
    file = tmp_path / "account.json"
    file.write_text(
        json.dumps(
            {
                "cross_balance": "100",
                "free": 100,
                "positions": [
                    {
                        "symbol": "BTCUSDT",
                        "side": "long",
                        "size": "0.01",
                        "entry_price": "41000",
                        "isolated_wallet": "60",
                    }
                ],
            }
        )
    )
    document = rehearse(folder, tmp_path / "out", positions=file)
    assert [account["name"] for account in document["accounts"]] == ["account"]
    assert document["symbols"] == ["BTCUSDT"]
    assert document["leverage"] is None


def test_a_report_of_avoidable_and_of_unavoidable_liquidations_says_which():
    held = Holdings(cross_balance=D(1_000), free=D(0), positions=(position(size=D(30)),))
    idle = StressSettings(limits=LiquidationLimits(actions=()))
    facts = {
        "candles": "1m",
        "market": "spot",
        "symbols": ["BTCUSDT"],
        "brackets": None,
        "assumed_brackets": [],
        "from_ms": 0,
        "to_ms": 1,
    }
    bad = stress("idle", held, flat_path(100, 69, 50), idle, LADDERS)
    page = render_stress([bad], facts, idle)
    assert "1 AVOIDABLE LIQUIDATIONS" in page
    assert "AVOIDABLE: action was due before the step" in page
    assert "allowed steps: none" in page
    gap = stress("gap", held, flat_path(100, 80, 50), StressSettings(), LADDERS)
    page = render_stress([gap], facts, StressSettings())
    assert "larger than the whole remaining distance" in page
    assert "BTCUSDT 80 → 50 (-37.50%)" in page


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"leverage": 0.5}, ConfigError, "--leverage"),
        ({"leverage": math.nan}, ConfigError, "--leverage"),
        ({"latency_ms": -1}, ConfigError, "--latency-ms"),
        ({"from_ms": 10**15}, DataError, "another --from"),
        ({"symbols": ["WHATUSDT"]}, DataError, "WHATUSDT"),
        ({"positions": Path("nowhere.json")}, DataError, "nowhere"),
    ],
)
def test_wrong_requests_are_refused(folder, tmp_path, changes, kind, message):
    with pytest.raises(kind, match=message):
        rehearse(folder, tmp_path / "out", **changes)


def test_candles_that_begin_apart_and_empty_accounts_are_refused(folder, tmp_path):
    empty = tmp_path / "empty.json"
    empty.write_text('{"cross_balance": 1, "free": 1, "positions": []}')
    with pytest.raises(DataError, match="no position"):
        rehearse(folder, tmp_path / "out", positions=empty)
    rows = (folder / "BTCUSDT.csv").read_text().splitlines()
    (folder / "BTCUSDT.csv").write_text("\n".join([rows[0], *rows[3:]]))
    with pytest.raises(DataError, match="different times"):
        rehearse(folder, tmp_path / "out")


def test_a_symbol_without_known_brackets_gets_assumed_ones_and_the_report_says_so(
    folder, tmp_path
):
    (folder / "BTCUSDT.csv").rename(folder / "WHATUSDT.csv")
    document = rehearse(folder, tmp_path / "out", symbols=["WHATUSDT"])
    assert document["assumed_brackets"] == ["WHATUSDT"]
    (told,) = [text for text in document["assumptions"] if "WHATUSDT" in text]
    assert "by the highest rate of all of them" in told
    assert html.escape(told) in (tmp_path / "out" / "report.html").read_text()


def test_brackets_of_a_file_replace_the_published_ones(folder, tmp_path):
    rows = [{"notionalFloor": 0, "maintMarginRatio": 0.3, "cum": 0}]
    file = tmp_path / "brackets.json"
    file.write_text(json.dumps([{"symbol": "BTCUSDT", "brackets": rows}]))
    usual = rehearse(folder, tmp_path / "usual", symbols=["BTCUSDT"])
    strict = rehearse(folder, tmp_path / "strict", symbols=["BTCUSDT"], brackets=file)
    assert any("brackets.json, else Binance" in text for text in strict["assumptions"])
    first = [one["accounts"][0]["unprotected_liquidations"][0] for one in (usual, strict)]
    assert first[1]["ts_ms"] < first[0]["ts_ms"]
    for text in ("[", '{"symbol": "BTCUSDT"}'):
        file.write_text(text)
        with pytest.raises(DataError, match="leverage brackets"):
            rehearse(folder, tmp_path / "bad", brackets=file)
    with pytest.raises(DataError, match="leverage brackets from nowhere"):
        rehearse(folder, tmp_path / "bad", brackets=Path("nowhere"))


def command(monkeypatch, *words: str) -> int:
    from bot4_runtime.cli import main

    monkeypatch.setattr(sys, "argv", ["bot4-runtime", "stress", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_command_prints_one_document_and_ends_with_zero(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--candles", str(folder), "--symbols", "btcusdt", "--out", "there"]
    assert command(monkeypatch, *words, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert Path(document["report_html"]) == tmp_path / "there" / "report.html"
    assert document["symbols"] == ["BTCUSDT"]
    assert command(monkeypatch, *words) == 0
    told = " ".join(capsys.readouterr().err.split())
    for account in document["accounts"]:
        saved = account["protected"] - account["unprotected"]
        line = f"{account['name']}: {account['capital']:,.2f} before; protected "
        line += f"{account['protected']:,.2f}, {len(account['actions'])} actions, "
        assert line + f"{len(account['liquidations'])} liquidations" in told
        bare = f"not protected {account['unprotected']:,.2f}, "
        bare += f"{len(account['unprotected_liquidations'])} liquidations."
        if saved < -0.005:
            bare += f" Protection cost {-saved:,.2f} more than it saved."
        assert bare in told


def test_a_line_says_which_liquidations_could_have_been_avoided():
    account = {"name": "a", "capital": 10.0, "actions": [], "unprotected_liquidations": []}
    account |= {"protected": 3.0, "unprotected": 4.5}
    gap = {"avoidable": False}
    line = outcome(account | {"liquidations": [gap]})
    assert "1 liquidations (none avoidable)" in line
    assert line.endswith("Protection cost 1.50 more than it saved.")
    both = outcome(account | {"liquidations": [gap, {"avoidable": True}], "protected": 5.0})
    assert "2 liquidations (1 avoidable)" in both
    assert "cost" not in both


def test_the_command_ends_with_one_after_an_avoidable_liquidation(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOT4_LIQUIDATION__ACTIONS", "[]")
    words = ["--candles", str(folder), "--leverage", "20", "--out", "there"]
    assert command(monkeypatch, *words) == 1


@pytest.mark.parametrize("before", [99.0, 80.0, 71.0, 70.25, 70.23, 70.0, 69.0, 67.5])
def test_what_could_be_saved_follows_from_the_marks_alone(before):
    """30 at 100 on 1,000, 0.4 % maintenance, told again in exact numbers; the end is at 50."""
    held = Holdings(cross_balance=D(1_000), free=D(0), positions=(position(size=D(30)),))
    idle = StressSettings(limits=LiquidationLimits(actions=()))
    [gone] = stress("one", held, flat_path(100, before, 50), idle, LADDERS).liquidations
    mark, rate = D(str(before)), D("0.004")
    equity, maintenance = D(1_000) - 30 * (100 - mark), 30 * mark * rate
    left = (equity - maintenance) / (1_000 - 3_000 * rate)
    worst = max(maintenance / equity, 1 - left)
    assert gone.marks_before == {"BTCUSDT": before}
    assert gone.worst_before == pytest.approx(float(worst))
    assert gone.avoidable is (worst >= D("0.9"))
