"""A start while something is open and not all is well: it is looked after, and nothing entered."""

import shutil
from pathlib import Path

import pytest

from bot4_runtime import app
from bot4_runtime.app.live import at_stake
from bot4_runtime.domain.events import (
    CancelRequested,
    CandleClosed,
    OrderAccepted,
    OrderRejected,
)
from bot4_runtime.domain.order import ENTRIES_WAIT
from bot4_runtime.rehearsal import performance
from bot4_runtime.rehearsal.performance import Killed, Rehearsal
from bot4_runtime.state.reader import JournalReader

REHEARSAL = Path(__file__).parents[1] / "rehearsal"
ACCOUNT = "rehearsal"


@pytest.fixture
def settings(make_settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(REHEARSAL))

    def named(strategy: str):
        return make_settings(
            BOT4_RUNTIME__STRATEGY=strategy,
            BOT4_RUNTIME__SYMBOLS='["BTCUSDT", "ETHUSDT"]',
            BOT4_RISK__MAX_CORRELATION="1.0",
        )

    return named


def events_since(made: Rehearsal, session: int) -> list:
    """Return the journal's events from the n-th session's start on."""
    with JournalReader.open(made._folder / "journal.sqlite") as journal:
        start = journal.sessions()[session][0]
        return [event for _, event in journal.events(start)]


def resting(made: Rehearsal) -> list:
    account = made.made_venue.exchange.account(ACCOUNT)
    return [o for o in made.made_venue.exchange.orders(account) if o.status.open]


def at_stake_of(made: Rehearsal) -> bool:
    return at_stake(made._settings, made._folder)


def test_entries_that_rest_are_called_back_at_once_and_none_is_sent(
    settings, tmp_path, monkeypatch
):
    killed: list[int] = []

    def kill(done: int, _candle: object) -> None:
        if done == 6 and not killed:
            assert len(resting(made)) == 2
            assert at_stake_of(made)
            killed.append(done)
            raise Killed

    def options(**named: str) -> app.RunOptions:
        return app.RunOptions(**named, held="the disk is full" if killed else "")

    monkeypatch.setattr(performance, "RunOptions", options)
    made = Rehearsal(
        settings("resting_strategy:Resting"),
        tmp_path / "run",
        rules=(),
        seed=1,
        hours=6,
        on_progress=kill,
    )
    assert not at_stake_of(made), "no journal, nothing open"
    verdict = made.perform()
    assert (verdict.ended, verdict.findings.violations, resting(made)) == ("", [], [])
    since = events_since(made, 1)
    called_back = [n for n, e in enumerate(since) if type(e) is CancelRequested]
    assert [since[n].reason for n in called_back] == ["the disk is full"] * 2
    assert CandleClosed not in {type(e) for e in since[: called_back[-1]]}
    entries = [e for e in since if type(e) is OrderRejected]
    assert entries
    assert {(e.code, e.reason) for e in entries} == {(ENTRIES_WAIT, "the disk is full")}
    assert OrderAccepted not in {type(e) for e in since}
    assert not at_stake_of(made)


def test_what_is_held_keeps_its_stops_when_the_models_are_gone(
    settings, promote, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    promote()
    sessions = []

    def watched(*named: object, **options: object) -> app.Run:
        run = app.build(*named, **options)
        sessions.append(run.session)
        return run

    monkeypatch.setattr(performance, "build", watched)
    chosen = settings("modelled_strategy:Modelled")
    made = Rehearsal(chosen, tmp_path / "run", rules=(), seed=1, hours=2)
    first = made.perform()
    assert (first.ended, first.findings.violations) == ("", [])
    stops = [order.client_id for order in resting(made)]
    assert stops
    shutil.rmtree(chosen.models)
    made._hours += 3
    verdict = made.perform()
    assert (verdict.ended, verdict.findings.violations) == ("", [])
    assert [order.client_id for order in resting(made)] == stops
    first, *later = (session._held for session in sessions)
    assert first == ""
    assert later
    assert all(why.startswith("no models decide: ") for why in later[-2:])


def test_without_anything_open_no_session_begins_without_models(settings, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    chosen = settings("modelled_strategy:Modelled")
    made = Rehearsal(chosen, tmp_path / "run", rules=(), seed=1, hours=2)
    assert made.perform().ended.startswith("ModelError: ")
