"""doctor: one finding a check, exit 1 when one fails, and never a surprise."""

import json
import socket
from pathlib import Path

import pytest

from bot4_runtime import doctor
from bot4_runtime.app import RunOptions, live
from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.errors import ConfigError, ModelError
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback


def checks(ended) -> dict[str, dict[str, object]]:
    document = json.loads(ended.out)
    assert document["ok"] == all(check["ok"] for check in document["checks"])
    assert ended.code == (0 if document["ok"] else 1)
    return {check["check"]: check for check in document["checks"]}


def test_a_fresh_machine_fails_for_want_of_models_alone(command, home: Path) -> None:
    found = checks(command("doctor", "--json"))
    assert [name for name, check in found.items() if not check["ok"]] == ["models"]
    assert "bot4-pipelines run" in found["models"]["found"]
    assert found["journal"]["found"] == "account 'paper' has none yet"
    assert list(home.iterdir()) == []


def test_people_get_a_line_a_check(command) -> None:
    ended = command("doctor")
    assert ended.code == 1
    assert "ok   python: 3." in ended.out
    assert "FAIL models: no models are promoted" in ended.out


def test_wrong_settings_end_the_examination(command) -> None:
    Path("bot4.toml").write_text("[risk]\nmax_leverage = 30.0\n")
    found = checks(command("doctor", "--json"))
    assert list(found) == ["python", "compiled modules", "settings"]
    assert "max_leverage" in found["settings"]["found"]


def test_a_journal_is_checked_frame_by_frame(command, home: Path) -> None:
    run = command(
        "start", "--strategy", "drill", "--symbols", "BTCUSDT", "--speed", "max",
        "--to", "2025-01-02", "--json",
    )  # fmt: skip
    events = json.loads(command("status", "--json").out)["events"]
    assert run.code == 0
    found = checks(command("doctor", "--json"))
    assert found["journal"]["found"] == f"{events} events, every checksum holds"
    journal = home / "state" / "paper" / "journal.sqlite"
    journal.write_bytes(b"SQLite format 3\0" + b"torn" * 1000)
    assert checks(command("doctor", "--json"))["journal"]["ok"] is False


def test_a_configured_server_that_is_not_there_fails(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        port = closed.getsockname()[1]
        monkeypatch.setenv("BOT4_STATE__JOURNAL", f"postgresql://bot4@127.0.0.1:{port}/bot4")
        monkeypatch.setenv("BOT4_BRIDGE__REDIS_URL", f"redis://:hunter2@127.0.0.1:{port}/0")
        ended = command("doctor", "--json")
    found = checks(ended)
    assert found["journal"]["ok"] is found["Redis"]["ok"] is False
    assert f"127.0.0.1:{port}/bot4 cannot be reached" in found["journal"]["found"]
    assert f"Redis at redis://127.0.0.1:{port}/0 does not answer" in found["Redis"]["found"]
    assert "hunter2" not in ended.out


@pytest.mark.redis
def test_a_configured_redis_that_answers_is_fine(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT4_BRIDGE__REDIS_URL", "redis://127.0.0.1:6379/0")
    assert checks(command("doctor", "--json"))["Redis"]["ok"] is True


def test_a_home_that_cannot_be_written_is_told(command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("x")
    monkeypatch.setenv("BOT4_HOME", "file")
    found = checks(command("doctor", "--json"))
    assert found["home folder"]["ok"] is False
    assert "file" in found["home folder"]["found"]


def test_a_full_disk_is_told(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 2**80)
    found = checks(command("doctor", "--json"))
    assert "MiB free, at least 512 are needed" in found["home folder"]["found"]


def test_without_a_network_binance_fails_and_says_so(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT4_RUNTIME__SYMBOLS", '["BTCXYZ"]')
    found = checks(command("doctor", "--json", "--network"))
    assert found["Binance"]["ok"] is False
    assert "BTCXYZ" in found["Binance"]["found"]


def test_a_key_that_only_trades_passes_and_one_that_withdraws_or_is_anothers_fails(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = Loopback(LiveClock(), [])
    account = venue.open_account(77, "a-key", "canary-secret", [])
    Path("secret").touch(0o600)
    Path("secret").write_text("canary-secret\n")
    monkeypatch.setenv("BOT4_BINANCE_API_KEY", "a-key")
    monkeypatch.setenv("BOT4_BINANCE_SECRET_FILE", "secret")
    with hosted(venue) as server:
        monkeypatch.setenv("BOT4_BINANCE__REST_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("BOT4_BINANCE__STREAM_URL", f"ws://127.0.0.1:{server.port}/ws-api/v3")

        def told() -> tuple[bool, str]:
            ended = command("doctor", "--json", "--network")
            assert "canary" not in ended.out
            found = checks(ended)["Binance key"]
            return found["ok"], found["found"]

        assert told() == (False, "no account is named: set binance.account_uid = 77")
        monkeypatch.setenv("BOT4_BINANCE__ACCOUNT_UID", "77")
        ok, found = told()
        assert ok
        assert "HMAC SHA-256 key of account 77 at 127.0.0.1, reads and trades alone" in found
        account.withdraws = True
        ok, found = told()
        assert not ok
        assert "withdraw" in found
        Path("secret").chmod(0o644)
        assert told() == (False, found := told()[1])
        assert "chmod 600" in found


def test_a_key_of_contracts_is_asked_whether_it_trades_them(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = FuturesLoopback(LiveClock(), [])
    venue.open_account(77, "a-key", "canary-secret", [])
    with hosted(venue) as server:
        at = f"127.0.0.1:{server.port}"
        for name, text in {
            "BOT4_BINANCE_API_KEY": "a-key",
            "BOT4_BINANCE_SECRET": "canary-secret",
            "BOT4_RUNTIME__MODE": "testnet",
            "BOT4_RUNTIME__MARKET": "usdm",
            "BOT4_BINANCE__REST_URL": f"http://{at}",
            "BOT4_BINANCE__STREAM_URL": f"ws://{at}/ws-fapi/v1",
        }.items():
            monkeypatch.setenv(name, text)
        ended = command("doctor", "--json", "--network")
        assert "canary" not in ended.out
        found = checks(ended)["Binance key"]
        assert found["ok"]
        assert "HMAC SHA-256 key at 127.0.0.1 trades USD-M" in found["found"]
        monkeypatch.setenv("BOT4_BINANCE_SECRET", "another")
        assert "-1022" in checks(command("doctor", "--json", "--network"))["Binance key"]["found"]


def test_a_key_that_may_not_trade_contracts_fails() -> None:
    class Client:
        closed = False

        def start(self) -> None:
            """Learn the venue's time."""

        def may_trade(self) -> bool:
            return False

        def close(self) -> None:
            self.closed = True

    client = Client()
    with pytest.raises(ConfigError, match="may not trade USD-M"):
        doctor._contracts_key(client, "the key")  # type: ignore[arg-type]
    assert client.closed


def test_live_does_not_start_where_the_doctor_does_not_pass(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ("start", "--mode", "live", "--source", "binance")
    ended = command(*start)
    assert ended.code == 2
    assert "binance.real_money is false" in ended.err
    venue = Loopback(LiveClock(), [])
    venue.open_account(77, "a-key", "canary-secret", []).withdraws = True
    Path("secret").touch(0o600)
    Path("secret").write_text("canary-secret\n")
    with hosted(venue) as server:
        for name, text in {
            "BOT4_BINANCE_API_KEY": "a-key",
            "BOT4_BINANCE_SECRET_FILE": "secret",
            "BOT4_BINANCE__REST_URL": f"http://127.0.0.1:{server.port}",
            "BOT4_BINANCE__STREAM_URL": f"ws://127.0.0.1:{server.port}/ws-api/v3",
            "BOT4_BINANCE__ACCOUNT_UID": "77",
            "BOT4_BINANCE__REAL_MONEY": "true",
            "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT"]',
        }.items():
            monkeypatch.setenv(name, text)
        ended = command(*start)
    assert ended.code == 2
    assert "mode live starts where" in ended.err
    assert "Binance key: it may withdraw" in ended.err
    assert "REAL MONEY" not in ended.err
    assert "canary" not in ended.out + ended.err
    assert venue.exchange.orders(venue.exchange.account("a-key")) == []


def test_mode_live_looks_after_what_is_open_though_the_doctor_does_not_pass(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = Loopback(LiveClock(), [])
    account = venue.open_account(77, "a-key", "canary-secret", [])
    Path("secret").touch(0o600)
    Path("secret").write_text("canary-secret\n")
    begun: list[RunOptions] = []
    monkeypatch.setattr("bot4_runtime.cli._execute", lambda *given, **_: begun.append(given[2]))
    monkeypatch.setattr(live, "at_stake", lambda *_: True)
    with hosted(venue) as server:
        for name, text in {
            "BOT4_BINANCE_API_KEY": "a-key",
            "BOT4_BINANCE_SECRET_FILE": "secret",
            "BOT4_BINANCE__REST_URL": f"http://127.0.0.1:{server.port}",
            "BOT4_BINANCE__STREAM_URL": f"ws://127.0.0.1:{server.port}/ws-api/v3",
            "BOT4_BINANCE__ACCOUNT_UID": "77",
            "BOT4_BINANCE__REAL_MONEY": "true",
        }.items():
            monkeypatch.setenv(name, text)
        start = ("start", "--mode", "live", "--source", "binance", "--symbols", "BTCUSDT")
        ended = command(*start)
        assert ended.code == 0
        assert "REAL MONEY" in ended.err
        account.withdraws = True
        assert "Binance key: it may withdraw" in command(*start).err
    (options,) = begun
    assert "did not pass at the start: models: " in options.held


def test_mode_live_looks_at_the_very_settings_it_is_to_trade_with(
    command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "state" / "other"
    folder.mkdir(parents=True)
    (folder / "journal.sqlite").write_bytes(b"SQLite format 3\0" + b"torn" * 1000)
    Path("secret").touch(0o600)
    Path("secret").write_text("canary-secret\n")
    for name, text in {
        "BOT4_BINANCE_API_KEY": "a-key",
        "BOT4_BINANCE_SECRET_FILE": "secret",
        "BOT4_BINANCE__REST_URL": "http://127.0.0.1:9",
        "BOT4_BINANCE__STREAM_URL": "ws://127.0.0.1:9/ws-api/v3",
        "BOT4_BINANCE__ACCOUNT_UID": "77",
        "BOT4_BINANCE__REAL_MONEY": "true",
    }.items():
        monkeypatch.setenv(name, text)
    start = ("start", "--mode", "live", "--source", "binance", "--symbols", "BTCUSDT")
    assert "journal: " not in command(*start).err
    assert "journal: " in command(*start, "--account", "other").err


def test_a_check_that_raises_is_a_check_that_failed() -> None:
    def refuse() -> str:
        raise ModelError("expired")

    assert doctor._run("models", refuse) == doctor.Finding("models", False, "expired")
    assert doctor._run("fine", lambda: "yes").told() == {
        "check": "fine", "ok": True, "found": "yes",
    }  # fmt: skip
