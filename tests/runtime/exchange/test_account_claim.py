"""One journal trades one account: bound, locked, and taken over only when its last process is dead."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import (
    ConfigError,
    JournalCorrupt,
    JournalLocked,
    OutcomeUnknown,
    VenueUnreachable,
    WrongAccount,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.exchange.account_claim import BOUND, HOLDER, AccountClaim, MachineLock
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

VENUE = "api.binance.com"
TAKEOVER_MS = 7_500


class Journal:
    """Facts of a journal, and how its last process ended."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.ended_in_order = True

    def fact(self, key: str) -> str | None:
        return self.facts.get(key)

    def keep_fact(self, key: str, value: str) -> None:
        self.facts[key] = value


@pytest.fixture
def claim(tmp_path: Path):
    """Make claims, and let go of them at the end; `waited` tells what was waited, in seconds."""
    made: list[AccountClaim] = []
    waited: list[float] = []

    def make(
        journal=None, venue=VENUE, key="key", uid=77, name="'paper'", machine="one", shown=str
    ):
        one = AccountClaim(
            venue,
            key,
            journal=f"the journal of {name}",
            facts=journal or Journal(),
            folder=tmp_path / machine,
            ask=uid if callable(uid) else lambda: uid,
            shown=shown,
            takeover_ms=TAKEOVER_MS,
            wait=waited.append,
        )
        made.append(one)
        return one

    make.waited = waited
    yield make
    for one in made:
        one.stop()
        one.stop()


def begun(one: AccountClaim) -> AccountClaim:
    one.start()
    one.confirm()
    return one


# ------------------------------------------------------------------------ the binding
def test_a_journal_is_bound_to_venue_and_account_and_goes_on_there(claim):
    journal = Journal()
    one = claim(journal)
    one.start()
    assert json.loads(journal.facts[BOUND]) == {"venue": VENUE, "account": ""}
    one.confirm()
    assert json.loads(journal.facts[BOUND]) == {"venue": VENUE, "account": "account 77"}
    one.stop()
    begun(claim(journal, key="another key of the same account"))


def test_another_venue_is_refused_before_anything_is_asked(claim):
    journal = Journal()
    begun(claim(journal)).stop()
    with pytest.raises(
        WrongAccount, match=r"account 77 at api\.binance\.com, and this is 127\.0\.0\.1:1"
    ):
        claim(journal, venue="127.0.0.1:1").start()


@pytest.mark.parametrize("uid", [78, None])
def test_another_account_is_refused_and_the_binding_stays(claim, uid):
    journal = Journal()
    begun(claim(journal)).stop()
    bound = journal.facts[BOUND]
    two = claim(journal, key="other", uid=uid)
    two.start()
    with pytest.raises(
        WrongAccount, match=r"was begun at account 77 at api\.binance\.com"
    ) as refused:
        two.confirm()
    assert "--account" in str(refused.value)
    assert "other" not in str(refused.value).replace("another", ""), "keys are not told"
    assert journal.facts[BOUND] == bound


def test_where_no_number_is_told_the_key_binds_until_one_is(claim):
    journal = Journal()
    begun(claim(journal, uid=None)).stop()
    other = claim(journal, key="other", uid=None)
    other.start()
    with pytest.raises(WrongAccount, match="API key"):
        other.confirm()
    other.stop()
    begun(claim(journal, uid=77))
    assert "account 77" in journal.facts[BOUND]


@pytest.mark.parametrize("uid", [None, 77])
def test_a_new_key_by_which_the_venue_shows_the_journals_order_takes_the_former_ones_place(
    claim, uid
):
    journal = Journal()
    begun(claim(journal, uid=None)).stop()
    journal.ended_in_order = False
    begun(claim(journal, key="new", uid=uid, shown=lambda: "b4-1-7")).stop()
    assert claim.waited == [TAKEOVER_MS / 1000], "what the former key signed may still be taken"
    begun(claim(journal, key="new", uid=uid, shown=pytest.fail)).stop()
    if uid is None:  # the former key is a new one now, and has to show the order too
        with pytest.raises(WrongAccount):
            begun(claim(journal, uid=None))


def test_a_new_key_that_shows_no_order_is_refused_and_what_to_do_is_told(claim):
    journal = Journal()
    begun(claim(journal, uid=None)).stop()
    bound = journal.facts[BOUND]
    with pytest.raises(WrongAccount, match="shows no order of this journal") as refused:
        begun(claim(journal, key="new", uid=None))
    for remedy in ("Use the former key", "close what is open by hand", "--account"):
        assert remedy in str(refused.value)
    assert journal.facts[BOUND] == bound


def test_a_venue_that_is_away_when_the_order_is_asked_for_is_asked_again(claim):
    journal = Journal()
    begun(claim(journal, uid=None)).stop()
    answers = iter([VenueUnreachable("no route"), "b4-1-7"])

    def shown():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    one = claim(journal, key="new", uid=None, shown=shown)
    one.start()
    with pytest.raises(VenueUnreachable):
        one.confirm()
    one.confirm()


def test_an_account_with_a_number_needs_that_number_whatever_is_shown(claim):
    journal = Journal()
    begun(claim(journal)).stop()
    for uid in (78, None):
        other = claim(journal, key=f"other {uid}", uid=uid, shown=lambda: "b4-1-7")
        with pytest.raises(WrongAccount, match="account 77"):
            begun(other)
        other.stop()


def test_a_venue_that_is_away_is_asked_again_and_one_that_answered_is_not(claim):
    answers = [VenueUnreachable("no route"), OutcomeUnknown("no JSON"), 77]
    asked = []

    def ask():
        answer = answers[len(asked)]
        asked.append(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    one = claim(uid=ask)
    one.start()
    for error in (VenueUnreachable, OutcomeUnknown):
        with pytest.raises(error):
            one.confirm()
    for _ in range(3):
        one.confirm()
    assert len(asked) == 3


def test_a_binding_that_cannot_be_read_is_no_binding_to_anything(claim):
    journal = Journal()
    journal.facts[BOUND] = '{"venue": 3}'
    with pytest.raises(JournalCorrupt, match="does not say which account"):
        claim(journal).start()


# -------------------------------------------------------------------------- the locks
def test_two_journals_do_not_trade_by_one_key(claim):
    begun(claim(name="'paper'"))
    two = claim(name="'other'")
    with pytest.raises(JournalLocked, match="the journal of 'paper'") as refused:
        two.start()
    assert f"process {os.getpid()}" in str(refused.value)
    assert refused.value.exit_code == 2


def test_two_journals_do_not_trade_one_account_by_two_keys(claim):
    first = begun(claim(name="'paper'"))
    two = claim(name="'other'", key="key 2")
    two.start()
    with pytest.raises(
        JournalLocked, match=r"account 77 at api\.binance\.com is traded by .*'paper'"
    ):
        two.confirm()
    first.stop()
    two.confirm()


def test_other_accounts_and_venues_are_traded_beside_it(claim):
    begun(claim())
    begun(claim(key="key 2", uid=78))
    begun(claim(venue="testnet.binance.vision"))


def test_no_key_lies_in_the_folder(claim, tmp_path):
    begun(claim(key="canary-key"))
    files = list((tmp_path / "one").iterdir())
    assert len(files) == 2
    for file in files:
        assert b"canary" not in file.read_bytes() + bytes(file)
        assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_written_is_told(claim, tmp_path):
    (tmp_path / "one").write_text("a file")
    with pytest.raises(ConfigError, match="must be writable"):
        claim().start()


def test_a_lock_file_that_is_tidied_away_is_made_and_taken_again(tmp_path):
    path = tmp_path / "a.lock"
    with closing(MachineLock(path, "account 7", "mine")) as lock:
        os.utime(path, (0, 0))
        lock.renew()
        assert path.stat().st_mtime > 0
        path.unlink()
        lock.renew()
        assert path.exists()
        with pytest.raises(JournalLocked, match="mine"):
            MachineLock(path, "account 7", "theirs")
        path.unlink()
        with (
            closing(MachineLock(path, "account 7", "theirs")),
            pytest.raises(JournalLocked, match="theirs"),
        ):
            lock.renew()


def test_a_folder_that_nobody_may_look_into_any_more_is_told(tmp_path, monkeypatch):
    def refused(self: MachineLock, file: int) -> bool:
        raise PermissionError(13, "Permission denied")

    with closing(MachineLock(tmp_path / "a.lock", "account 7", "mine")) as lock:
        monkeypatch.setattr(MachineLock, "_is_there", refused)
        with pytest.raises(ConfigError, match="Permission denied"):
            lock.renew()


def test_a_file_that_is_tidied_away_again_and_again_is_no_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(MachineLock, "_is_there", lambda self, file: False)
    with pytest.raises(JournalLocked, match="again and again"):
        MachineLock(tmp_path / "a.lock", "account 7", "mine")


def test_a_file_that_another_left_in_disorder_is_taken_over(tmp_path):
    path = tmp_path / "a.lock"
    path.write_text("{")
    with closing(MachineLock(path, "account 7", "mine")) as lock:
        assert lock.former == ""
        path.write_text("{")
        with pytest.raises(JournalLocked, match="another process"):
            MachineLock(path, "account 7", "theirs")


HOLDS = """
import sys
from pathlib import Path
from bot4_runtime.exchange.account_claim import MachineLock
lock = MachineLock(Path(sys.argv[1]), "account 7", "the killed one")
print(lock.number, flush=True)
sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free_and_names_it(tmp_path):
    path = tmp_path / "a.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        number = other.stdout.readline().strip()
        with pytest.raises(JournalLocked, match=f"the killed one .process {other.pid}"):
            MachineLock(path, "account 7", "mine")
        other.send_signal(signal.SIGKILL)
        other.wait()
    with closing(MachineLock(path, "account 7", "mine")) as lock:
        assert lock.former == number


# ----------------------------------------------------------------------- the takeover
def test_a_new_journal_and_one_that_ended_in_order_are_not_waited_for(claim):
    journal = Journal()
    begun(claim(journal)).stop()
    begun(claim(journal, machine="two"))
    assert claim.waited == []


def test_what_was_killed_on_this_machine_is_known_to_be_dead(claim):
    journal = Journal()
    begun(claim(journal)).stop()
    journal.ended_in_order = False
    begun(claim(journal)).stop()
    assert claim.waited == []


@pytest.mark.parametrize("left", ["elsewhere", "nothing", "another journal's"])
def test_what_may_live_on_another_machine_is_waited_for(claim, left):
    journal = Journal()
    begun(claim(journal, machine="two")).stop()
    if left == "nothing":
        del journal.facts[HOLDER]  # an older release wrote it
    if left == "another journal's":
        begun(claim(Journal())).stop()
    journal.ended_in_order = False
    begun(claim(journal))
    assert claim.waited == [TAKEOVER_MS / 1000]


# -------------------------------------------------------------------------- the venue
def test_the_venue_tells_whose_key_it_is(claim):
    rules = SymbolRules.of(Instrument.assume("BTCUSDT", Market.SPOT, 40_000.0))
    venue = Loopback(LiveClock(), [(rules, Decimal(40_000))])
    journal = Journal()
    for uid in (1, 2):
        venue.open_account(uid, f"key{uid}", f"secret{uid}", [])
    with hosted(venue) as server:
        signers = (Signer(Secret(f"key{uid}"), Secret(f"secret{uid}")) for uid in (1, 2))
        url = f"http://127.0.0.1:{server.port}"
        first, second = (BinanceSpot(url, None, signer, LiveClock()) for signer in signers)
        with closing(first), closing(second):
            begun(claim(journal, key="key1", uid=first.account_uid)).stop()
            assert "account 1" in journal.facts[BOUND]
            other = claim(journal, key="key2", uid=second.account_uid)
            other.start()
            with pytest.raises(WrongAccount, match="this is account 2"):
                other.confirm()
