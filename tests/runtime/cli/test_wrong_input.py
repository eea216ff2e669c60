"""Wrong input: exit code 2, one message that says what and what to do, nothing half-written."""

import socket
from pathlib import Path

import pytest

from bot4_runtime import cli
from bot4_runtime.domain.errors import ConfigError, InvariantViolated
from bot4_runtime.state.sqlite import AccountLock

DRILL = ("--strategy", "drill")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("start", *DRILL, "--source", "moon"), "unknown source 'moon'; expected simulated"),
        (("start", *DRILL, "--source", "recorded:"), "unknown source 'recorded:'"),
        (("start", *DRILL, "--source", "simulated:x"), "the seed must be a number"),
        (("start", *DRILL, "--speed", "fast"), "--speed 'fast'; expected a positive number"),
        (("start", *DRILL, "--speed", "-1"), "--speed '-1'"),
        (("start", *DRILL, "--speed", "nan"), "--speed 'nan'"),
        (("start", *DRILL, "--speed", "inf"), "--speed 'inf'"),
        (("start", *DRILL, "--from", "yesterday"), "--from 'yesterday' is no ISO time"),
        (("start", *DRILL, "--to", "2025-13-01"), "--to '2025-13-01' is no ISO time"),
        (("start", *DRILL, "--from", "1990-01-01"), "cannot begin at 1990-01-01"),
        (("start", *DRILL, "--to", "2024-01-01"), "would end at 2024-01-01T00:00Z"),
        (("start", *DRILL, "--symbols", "BTCUSDT,ETHBTC"), "ETHBTC not quoted in USDT"),
        (("start", *DRILL, "--symbols", "BTCUSDT,BTCUSDT"), "different names"),
        (
            ("start", *DRILL, "--from", "2025-01-02", "--to", "2025-01-02"),
            "--from 2025-01-02T00:00Z is not before --to 2025-01-02T00:00Z",
        ),
        (("start", *DRILL, "--mode", "real"), "runtime.mode"),
        (("start", *DRILL, "--interval", "7m"), "unknown interval '7m'"),
        (("start", *DRILL, "--account", "../x"), "runtime.account"),
        (("start", *DRILL, "--metrics-port", "70000"), "telemetry.metrics_port"),
        (("start", "--strategy", "hope"), "unknown strategy 'hope'"),
        (("start", "--strategy", ":X"), "cannot be built"),
        (("start",), "no models are promoted for 1h"),
        (("start", "--source", "binance", "--from", "2025-01-01", *DRILL), "leave out --from"),
        (("replay", "--source", "binance"), "replay needs recorded candles"),
        (("replay", *DRILL, "--source", "simulated"), "needs --to"),
        (("replay", *DRILL), "has no 1h candles of any symbol; run `make demo`"),
        (("replay", *DRILL, "--source", "recorded:nowhere"), "nowhere"),
        (("replay", *DRILL, "--config", "gone.toml"), "cannot read settings gone.toml"),
        (("status",), "has no journal"),
        (("status", "--account", "Ä"), "runtime.account"),
        (("start", "--no-such-option"), "No such option"),
        (("begin",), "No such command"),
        (("venue", "--port", "99999"), "99999 is not in the range"),
    ],
)
def test_wrong_words_are_refused_and_leave_nothing(
    command, home: Path, files_under, words: tuple[str, ...], told: str
) -> None:
    ended = command(*words)
    assert ended.code == 2
    assert ended.out == ""
    assert told in ended.words
    assert files_under(home.parent) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[risk]\nmax_levarage = 2.0\n", "did you mean 'max_leverage'?"),
        ("[risk]\nmax_leverage = 30.0\n", "max_leverage"),
        ("[risc]\n", "did you mean 'risk'?"),
        ("not toml", "not valid TOML"),
    ],
)
def test_wrong_settings_are_refused(command, home: Path, text: str, told: str) -> None:
    Path("bot4.toml").write_text(text)
    for verb in ("start", "replay", "status"):
        ended = command(verb)
        assert ended.code == 2
        assert told in ended.words
    assert not home.exists()


def test_leverage_30_names_its_ceiling(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT4_RISK__MAX_LEVERAGE", "30.0")
    ended = command("start", *DRILL)
    assert ended.code == 2
    assert "30" in ended.err
    assert "5" in ended.err


def test_an_unreadable_candle_file_is_named(command, home: Path, files_under) -> None:
    Path("bad").mkdir()
    Path("bad/BTCUSDT.parquet").write_bytes(b"PAR1 no more")
    ended = command("replay", *DRILL, "--source", "recorded:bad")
    assert ended.code == 2
    assert "bad/BTCUSDT.parquet" in ended.words
    assert files_under(home) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--from", "2030-01-01"), "before the first candle to decide on, 2030-01-01"),
        (("--to", "2020-01-01"), "no candles in the range"),
        (("--symbols", "ZZZUSDT"), "ZZZUSDT"),
        (("--interval", "4h"), "holds 1h candles, and runtime.interval is 4h"),
    ],
)
def test_a_range_or_symbol_that_is_not_there_is_refused(
    command, market: Path, home: Path, files_under, options: tuple[str, ...], told: str
) -> None:
    ended = command("replay", *DRILL, "--source", f"recorded:{market}", *options)
    assert ended.code == 2
    assert told in ended.words
    assert files_under(home) == []


def test_too_few_candles_to_warm_up_are_refused(command, market: Path) -> None:
    ended = command("replay", *DRILL, "--source", f"recorded:{market}", "--to", "2023-11-20")
    assert ended.code == 2
    assert "before the first candle to decide on" in ended.words


def test_an_account_held_by_another_is_refused(command, home: Path) -> None:
    lock = AccountLock(home / "locks" / "paper.lock", "paper")
    try:
        ended = command("start", *DRILL, "--symbols", "BTCUSDT", "--to", "2025-01-02")
    finally:
        lock.close()
    assert ended.code == 2
    assert "held by another runtime" in ended.words
    assert "stop it first" in ended.words


def test_a_taken_metrics_port_is_refused_before_anything_is_written(
    command, home: Path, files_under
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = command("start", *DRILL, "--metrics-port", taken.getsockname()[1])
    assert ended.code == 2
    assert "metrics_port" in ended.words
    assert files_under(home) == []


def test_a_taken_port_of_the_venue_is_refused(command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = command("venue", "--port", taken.getsockname()[1])
    assert ended.code == 2
    assert "choose another --port" in ended.words


def test_another_source_on_the_same_account_is_refused(command) -> None:
    words = ("start", *DRILL, "--symbols", "BTCUSDT", "--speed", "max", "--to", "2025-01-02")
    assert command(*words).code == 0
    ended = command(*words, "--source", "simulated:8")
    assert ended.code == 2
    assert "--account" in ended.words


def test_a_damaged_journal_is_refused_not_replaced(command, home: Path) -> None:
    words = ("start", *DRILL, "--symbols", "BTCUSDT", "--speed", "max", "--to", "2025-01-02")
    assert command(*words).code == 0
    journal = home / "state" / "paper" / "journal.sqlite"
    journal.write_bytes(b"this is no journal" * 1000)
    ended = command(*words)
    assert ended.code == 1
    assert "JournalCorrupt" in ended.err
    assert journal.read_bytes().startswith(b"this is no journal")


@pytest.mark.parametrize("where", ["home", "out"])
def test_a_folder_that_is_a_file_is_refused(
    command, market: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    Path("file").write_text("x")
    words = ["replay", *DRILL, "--source", f"recorded:{market}"]
    if where == "home":
        monkeypatch.setenv("BOT4_HOME", "file")
    else:
        words += ["--out", "file"]
    ended = command(*words)
    assert ended.code == 2
    assert "file" in ended.words
    assert "name folders that can be written: BOT4_HOME (home), --out" in ended.words


def test_secrets_in_a_message_are_hidden(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT4_RUNTIME__SOURCE", "moon?api_key=canary77")
    ended = command("start", *DRILL)
    assert ended.code == 2
    assert "canary77" not in ended.err


class Broken:
    """A strategy whose bug shows itself at the first candle."""

    name = "broken"
    needs_models = False
    synthetic_rules: tuple[str, ...] = ()
    error: BaseException = InvariantViolated("the books do not balance")

    def warm(self, candle) -> None:
        pass

    def on_candle(self, candle):
        raise self.error

    def on_regime(self, estimate, previous, candle):
        return ()


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InvariantViolated("the books do not balance"), 1, "InvariantViolated: the books"),
        (OSError(28, "No space left on device", "journal.sqlite"), 1, "No space left on device"),
        (OSError("odd"), 1, "input or output: odd"),
        (OSError(30, "Read-only file system", "x"), 2, "Read-only file system; name folders"),
        (KeyboardInterrupt(), 130, "bot4-runtime: interrupted"),
    ],
)
def test_trouble_while_trading_has_its_exit_code_and_frees_the_account(
    command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, told: str
) -> None:
    monkeypatch.setattr(Broken, "error", error)
    words = ("start", "--symbols", "BTCUSDT", "--speed", "max", "--to", "2025-01-02")
    ended = command(*words, "--strategy", f"{__name__}:Broken")
    assert ended.code == code
    assert told in ended.words
    assert command(*words, *DRILL, "--account", "other").code == 0
    again = command(*words, "--strategy", f"{__name__}:Broken")
    assert again.code == code, again.err


def test_an_abort_is_told_by_its_code(command, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    @cli.app.command("abort-for-a-test")
    def abort() -> None:
        raise typer.Abort

    try:
        ended = command("abort-for-a-test")
        assert (ended.code, ended.words.strip()) == (130, "bot4-runtime: interrupted")
    finally:
        cli.app.registered_commands.pop()


def test_what_an_error_leaves_behind_is_told_with_it(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: object) -> int:
        error = ConfigError("impossible")
        error.add_note("When it ended, BTCUSDT b4-1-1 was not confirmed as ended")
        raise error

    monkeypatch.setattr(cli, "app", fails)
    ended = command("doctor")
    assert ended.code == 2
    assert "impossible. When it ended, BTCUSDT b4-1-1 was not confirmed" in ended.words
