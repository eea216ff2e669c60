"""A whole account on PostgreSQL: run, stopped, found by every reader, and never split in two."""

import json
import threading

import pytest
from state_postgres import postgres_url
from typer.testing import CliRunner

from bot4_runtime import app
from bot4_runtime.cli import app as commands
from bot4_runtime.domain.errors import ConfigError, JournalError, JournalMissing
from bot4_runtime.settings import load_settings
from bot4_runtime.state.place import JOURNAL, NOTE, read_note
from bot4_runtime.state.postgres import connect
from bot4_runtime.state.reader import JournalReader


def settings_of(tmp_path, account: str, **state):
    return load_settings(
        None,
        {"BOT4_HOME": str(tmp_path / "home"), "BOT4_MODELS": str(tmp_path / "models")},
        {
            "runtime": {"account": account, "strategy": "drill", "symbols": ["BTCUSDT"]},
            "state": state,
        },
    )


def ran(settings, tmp_path, candles: int = 60):
    stop = threading.Event()

    def progress(done, candle):
        if done == candles:
            stop.set()

    folder = tmp_path / "home" / "state" / settings.runtime.account
    options = app.RunOptions(source="simulated:3")
    run = app.build(settings, options, mode="paper", folder=folder, on_progress=progress)
    return run.execute(stop), folder


@pytest.mark.postgres
def test_an_account_lives_in_postgres_and_every_command_finds_it(
    pg_account, tmp_path, monkeypatch
):
    pytest.importorskip("psycopg")
    monkeypatch.chdir(tmp_path)
    settings = settings_of(tmp_path, pg_account, journal=postgres_url(), series=True)
    _, folder = ran(settings, tmp_path)
    again, _ = ran(settings, tmp_path)
    assert again.recovery.last_seq > 0
    assert not (folder / JOURNAL).exists()
    assert read_note(folder).url == postgres_url()
    with JournalReader.open(folder / JOURNAL) as journal:
        assert journal.account() == pg_account
        assert journal.verify() == journal.last_seq()
        assert len(journal.sessions()) == 2
        assert journal.state(folder / "snapshots").state_hash() == again.state_hash
    with connect(postgres_url(), pg_account, writes=True) as sql:
        assert sql.execute("SELECT count(*) FROM candle").fetchone() == (120,)
    environment = {"BOT4_HOME": str(tmp_path / "home")}
    for command in ("status", "verify"):
        told = CliRunner().invoke(
            commands, [command, "--account", pg_account, "--json"], env=environment
        )
        assert told.exit_code == 0, told.output
        assert json.loads(told.stdout)["state_hash"] == again.state_hash
    told = CliRunner().invoke(commands, ["migrate", "--account", pg_account], env=environment)
    assert "nothing to do" in told.output
    with pytest.raises(ConfigError, match=r"set state\.journal to that"):
        ran(settings_of(tmp_path, pg_account), tmp_path)


@pytest.mark.postgres
def test_another_machine_finds_the_journal_by_its_settings_alone(
    pg_account, tmp_path, monkeypatch
):
    pytest.importorskip("psycopg")
    monkeypatch.chdir(tmp_path)
    ended, _ = ran(settings_of(tmp_path, pg_account, journal=postgres_url()), tmp_path, 5)
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("BOT4_HOME", str(elsewhere))
    monkeypatch.setenv("BOT4_STATE__JOURNAL", postgres_url())
    for words in (["status"], ["verify"], ["migrate"], ["why"], ["fees"]):
        told = CliRunner().invoke(commands, [*words, "--account", pg_account, "--json"])
        assert told.exit_code == 0, told.output
        if words[0] in {"status", "verify"}:
            assert json.loads(told.stdout)["state_hash"] == ended.state_hash
        nobody = CliRunner().invoke(commands, [*words, "--account", "nobody-there"])
        assert isinstance(nobody.exception, JournalMissing), nobody.output
    for account, found in ((pg_account, "every checksum holds"), ("nobody-there", "answers; ")):
        told = CliRunner().invoke(
            commands, ["doctor", "--json"], env={"BOT4_RUNTIME__ACCOUNT": account}
        )
        checks = {check["check"]: check for check in json.loads(told.stdout)["checks"]}
        assert checks["journal"]["ok"]
        assert found in checks["journal"]["found"]
    assert not (elsewhere / "state").exists()
    halted = CliRunner().invoke(commands, ["halt", "--reason", "r", "--account", pg_account])
    assert halted.exit_code == 0, halted.output
    assert read_note(elsewhere / "state" / pg_account).url == postgres_url()


def test_an_account_that_began_in_a_file_stays_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran(settings_of(tmp_path, "paper"), tmp_path, 5)
    with pytest.raises(ConfigError, match=r"set state\.journal to 'sqlite'"):
        ran(settings_of(tmp_path, "paper", journal=postgres_url()), tmp_path)
    with pytest.raises(ConfigError, match=r"state\.series"):
        ran(settings_of(tmp_path, "paper", series=True), tmp_path)


def test_without_the_driver_it_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bot4_runtime.state.postgres", None)
    with pytest.raises(ConfigError, match=r"pip install 'bot4\[postgres\]'"):
        ran(settings_of(tmp_path, "paper", journal=postgres_url()), tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@host/db",
        "postgresql://me@host/db@hunter2",
        "mysql://hunter2",
        "hunter2",
    ],
)
def test_a_journal_setting_that_is_refused_is_not_repeated(tmp_path, url):
    with pytest.raises(ConfigError, match=r"state\.journal.*PGPASSWORD") as caught:
        settings_of(tmp_path, "paper", journal=url)
    assert "hunter2" not in str(caught.value)


def test_a_note_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / NOTE).write_text("{}")
    with pytest.raises(JournalError, match="does not say where"):
        JournalReader.open(tmp_path / JOURNAL)
