"""start and replay: what they print, what they leave behind, how they go on."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)


def day(number: int) -> str:
    return (BEGIN + timedelta(days=number)).strftime("%Y-%m-%d")


def test_a_replay_prints_where_its_report_is(command, market: Path, home: Path) -> None:
    ended = command("replay", "--source", f"recorded:{market}", "--strategy", "drill")
    assert ended.code == 0
    assert ended.out == ""
    assert "400 candles of AAAUSDT, BBBUSDT" in ended.err
    (folder,) = (home / "reports").iterdir()
    report = Path(ended.err.rpartition("Report:")[2].strip().replace("\n", ""))
    assert report == folder / "report.html"
    assert {p.name for p in folder.iterdir()} >= {
        "journal.sqlite", "report.html", "summary.json", "run.json", "snapshots",
    }  # fmt: skip


def test_json_is_one_document_on_stdout(command, market: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    words = ("replay", "--source", f"recorded:{market}", "--strategy", "drill", "--out", out)
    ended = command(*words, "--json")
    assert ended.code == 0
    document = json.loads(ended.out)
    assert document["candles"] == 400
    assert document["report_html"] == str(out / "report.html")
    assert document["books"]["validated"]["fills"] > 0
    again = command(*words)
    assert again.code == 2
    assert "already holds a run; choose another --out" in again.words


def test_two_replays_write_the_same_summary(command, market: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ended = command(
            "replay", "--source", f"recorded:{market}", "--strategy", "drill",
            "--symbols", " bbbusdt, ", "--out", tmp_path / name,
        )  # fmt: skip
        assert ended.code == 0
    one, two = ((tmp_path / name / "summary.json").read_bytes() for name in ("one", "two"))
    assert one == two
    assert json.loads(one)["symbols"] == ["BBBUSDT"]


def test_from_and_to_choose_the_range(command, market: Path) -> None:
    source = f"recorded:{market}"
    ended = command(
        "replay", "--source", source, "--strategy", "drill", "--json",
        "--from", "2023-12-15T10:00", "--to", "2023-12-16T10:00:00+00:00",
    )  # fmt: skip
    assert ended.code == 0
    document = json.loads(ended.out)
    assert document["candles"] == 48
    begin = datetime(2023, 12, 15, 11, tzinfo=UTC).timestamp() * 1000
    assert document["from_ms"] == begin


def test_a_simulated_replay_needs_an_end_and_keeps_to_it(command) -> None:
    words = ("replay", "--source", "simulated:5", "--strategy", "drill", "--symbols", "BTCUSDT")
    endless = command(*words)
    assert endless.code == 2
    assert "--to" in endless.err
    ended = command(*words, "--to", day(3), "--json")
    assert ended.code == 0
    document = json.loads(ended.out)
    assert (document["candles"], document["simulated"]) == (72, True)
    assert "SIMULATED" in ended.err


def test_start_runs_and_the_same_command_continues(command, home: Path) -> None:
    words = (
        "start", "--source", "simulated:5", "--strategy", "drill", "--symbols", "BTCUSDT,ETHUSDT",
        "--speed", "max", "--json",
    )  # fmt: skip
    first = command(*words, "--to", day(2))
    assert first.code == 0
    assert json.loads(first.out)["run"]["candles_this_process"] == 96
    assert "Recovered" not in first.err
    second = command(*words, "--to", day(3))
    assert second.code == 0
    assert "Recovered" in second.err
    assert json.loads(second.out)["run"]["candles_this_process"] == 48
    whole = command(*words, "--to", day(3), "--account", "whole")
    assert json.loads(whole.out)["state_hash"] == json.loads(second.out)["state_hash"]
    assert sorted(p.name for p in (home / "state").iterdir()) == ["paper", "whole"]


def test_the_speed_is_kept_and_progress_moves(command) -> None:
    ended = command(
        "start", "--source", "simulated", "--strategy", "drill", "--symbols", "BTCUSDT",
        "--speed", "3600000", "--to", day(1),
    )  # fmt: skip
    assert ended.code == 0
    assert "24 candles of BTCUSDT" in ended.err


def test_options_come_from_a_settings_file_too(command, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[runtime]\naccount = "mine"\nstrategy = "drill"\nsource = "simulated:2"\n'
        'symbols = ["LTCUSDT"]\n[telemetry]\nlog_level = "debug"\n'
    )
    ended = command("start", "--config", file, "--to", day(1), "--speed", "max", "--json")
    document = json.loads(ended.out)
    assert document["run"]["account"] == "mine"
    assert document["symbols"] == ["LTCUSDT"]


def test_candles_of_the_store_are_replayed(command, home: Path) -> None:
    from bot4_runtime.candles.simulated import SimulatedMarket
    from bot4_runtime.candles.store import CandleStore

    begin = 1_700_000_000_000 // 3_600_000 * 3_600_000
    series = SimulatedMarket(2).series("BTCUSDT", "1h", begin, begin + 800 * 3_600_000)
    CandleStore(home / "candles").write(series)
    ended = command("replay", "--strategy", "drill", "--json")
    document = json.loads(ended.out)
    assert (document["candles"], document["source"]) == (100, "store")
    assert "SIMULATED" in ended.err
    other = command("replay", "--strategy", "drill", "--symbols", "BTCUSDT,DOGEUSDT")
    assert other.code == 2
    assert "has no 1h candles of DOGEUSDT" in other.words


def test_who_asks_for_the_sources_gets_them_and_is_told(
    command, market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT4_INTERPRETED", "1")
    ended = command("replay", "--source", f"recorded:{market}", "--strategy", "drill")
    assert ended.code == 0
    assert "interpreted: BOT4_INTERPRETED=1" in ended.words


def test_without_words_there_is_help(command) -> None:
    ended = command()
    assert ended.code == 2
    assert "doctor" in ended.out + ended.err
    helped = command("start", "--help")
    assert helped.code == 0
    assert "--speed" in helped.out
