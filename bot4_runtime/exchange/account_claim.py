"""One journal, one account: who may trade an account at a venue.

Three things keep two journals from trading one account, and one journal from trading two:

- The journal is bound, durably and beside its events, to the venue's host and, once it was read,
  to the account's number there; where a venue tells none, to the API key. Nothing is traded
  elsewhere with it. A new key takes the place of another one when the venue shows by it an order
  of the journal's (`recognition`).
- Locks in the machine's folder, one by API key and one by account number, are held for the life
  of the process. The kernel frees them on kill -9.
- Across machines the names of orders tell (`reconcile.claim`).

A venue takes what was signed before for a while. So a journal whose last process may live on
another machine is gone on with only after that while (`lease.takeover_ms`). A process is known
to be dead when it ended in order, or when it held the very lock that is held now: its number was
left both there and in the journal.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog

from bot4_runtime.domain.errors import (
    ConfigError,
    JournalCorrupt,
    JournalLocked,
    WrongAccount,
)
from bot4_runtime.domain.unreadable import UNREADABLE

BOUND: Final = "account"
"""Fact of the journal: venue and account it trades at."""
HOLDER: Final = "holder"
"""Fact of the journal: number of the process that took it up last."""
_TRIES: Final = 8
_KEY: Final = "API key"
_ELSEWHERE: Final = (
    ": what it holds and has open lies there. Name the former venue and key again, or another "
    "account with --account"
)


class Facts(Protocol):
    """What a journal keeps beside its events."""

    @property
    def ended_in_order(self) -> bool:
        """Whether its last process ended in order, or there was none."""
        ...

    def fact(self, key: str) -> str | None:
        """Return a fact; None when there is none."""
        ...

    def keep_fact(self, key: str, value: str) -> None:
        """Return once a fact is durable."""
        ...


class Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a journal is bound to.

    Attributes:
        venue: host of the venue.
        account: ``account 77``, or ``API key 1a2b…`` where the venue tells no number; empty
            while it was not read.
    """

    venue: str
    account: str = ""


class _Holder(msgspec.Struct):
    """What a lock file holds: whose it is, and the number of the process."""

    pid: int
    journal: str
    number: str


class MachineLock:
    """A lock file that is held until closed or the process ends.

    Args:
        path: of the file; it is left there.
        what: what it keeps for one, in words.
        journal: who holds it, in words.

    Raises:
        JournalLocked: another process holds it.
        ConfigError: the file cannot be made.
    """

    def __init__(self, path: Path, what: str, journal: str) -> None:
        self._path = path
        self._what = what
        self._holder = _Holder(os.getpid(), journal, secrets.token_hex(8))
        self._file = -1
        self.former = ""
        """Number of the process that held it before; empty when nobody knows."""
        self._take()

    @property
    def number(self) -> str:
        """Number of this process, drawn by chance."""
        return self._holder.number

    def renew(self) -> None:
        """See that the file is still there, and keep it young: who tidies up takes old ones.

        Raises:
            JournalLocked: it was taken away, and another process holds the new one.
            ConfigError: it cannot be looked at or made again.
        """
        with self._told():
            if self._is_there(self._file):
                os.utime(self._file)
                return
        self.close()
        self._take()

    def close(self) -> None:
        """Let go of it; may be repeated."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _take(self) -> None:
        with self._told():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for _ in range(_TRIES):
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._lock()
                if self._is_there(self._file):
                    break
                self.close()  # it was taken away between the two
            else:
                raise JournalLocked(f"{self._path} is taken away again and again; stop what does")
            former = _read(self._file)
            self.former = former.number if former is not None else ""
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, msgspec.json.encode(self._holder), 0)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"{self._path} cannot be written ({error.strerror}); it keeps two journals from "
                "trading one account, and must be writable"
            ) from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = _read(self._file)
            self.close()
            who = "another process" if other is None else f"{other.journal} (process {other.pid})"
            raise JournalLocked(
                f"{self._what} is traded by {who} already; stop that one first, or use another "
                f"account of the venue. Lock file: {self._path}"
            ) from None

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False


class AccountClaim:
    """A journal's claim to one account at one venue.

    Args:
        venue: host of the venue, with its port where it is on this machine.
        api_key: that requests are sent with; only its digest is kept.
        journal: the journal, in words.
        facts: of the journal.
        folder: where all processes of this machine meet.
        ask: returns the account's number; None when the venue tells none.
        shown: returns the name of an order of the journal's that the venue shows by this key;
            empty when it shows none. Asked where the journal is bound to another key.
        takeover_ms: how long what another process signed may still be taken.
        wait: lets that many seconds pass.
    """

    def __init__(
        self,
        venue: str,
        api_key: str,
        *,
        journal: str,
        facts: Facts,
        folder: Path,
        ask: Callable[[], int | None],
        shown: Callable[[], str] = str,
        takeover_ms: int,
        wait: Callable[[float], object],
    ) -> None:
        self._venue = venue
        self._key = f"{_KEY} {_digest(api_key)}"
        self._journal = journal
        self._facts = facts
        self._folder = folder
        self._ask = ask
        self._shown = shown
        self._takeover_ms = takeover_ms
        self._wait = wait
        self._bound = Bound(venue)
        self._locks: list[MachineLock] = []
        self._confirmed = False
        self._log = structlog.get_logger("account")

    def start(self) -> None:
        """Take the account as far as it is known before the venue was asked.

        Where the journal's last process may live on another machine, this waits until nothing
        that it signed can be taken any more.

        Raises:
            WrongAccount: the journal is bound to another venue.
            JournalLocked: another journal trades with this key.
            JournalCorrupt: what the journal is bound to cannot be read.
            ConfigError: the machine's folder cannot be written.
        """
        text = self._facts.fact(BOUND)
        if text is not None:
            try:
                self._bound = msgspec.json.decode(text, type=Bound)
            except UNREADABLE as error:
                raise JournalCorrupt(
                    f"{self._journal} does not say which account it trades: {error}"
                ) from error
        if self._bound.venue != self._venue:
            raise self._wrong(self._venue)
        lock = self._hold(self._key)
        before = self._facts.fact(HOLDER)
        if not (self._facts.ended_in_order or before == lock.former != ""):
            self._log.info("another machine may trade this journal", waiting_ms=self._takeover_ms)
            self._wait(self._takeover_ms / 1000)
        self._facts.keep_fact(HOLDER, lock.number)
        if text is None:
            self._bind(self._bound)

    def confirm(self) -> None:
        """Ask the venue whose account it is, once; see each time that it is still held.

        Raises:
            VenueError: it could not be asked.
            WrongAccount: the journal is bound to another account.
            JournalLocked: another journal trades it.
        """
        if not self._confirmed:
            uid = self._ask()
            account = self._key if uid is None else f"account {uid}"
            bound = self._bound.account
            if bound not in {"", account, self._key}:
                self._recognise(bound, account)
            if uid is not None:
                self._hold(account)
            if bound != account:
                self._bind(Bound(self._venue, account))
            self._confirmed = True
        for lock in self._locks:
            lock.renew()

    def stop(self) -> None:
        """Let go of the account."""
        while self._locks:
            self._locks.pop().close()

    def _recognise(self, bound: str, account: str) -> None:
        """Take another key for a new one of the same account, if the venue proves it."""
        if not bound.startswith(_KEY):
            raise self._wrong(f"{account} at {self._venue}")
        order = self._shown()
        if not order:
            raise self._wrong(
                f"{account} at {self._venue}",
                ", by which the venue shows no order of this journal: it is not known to be of "
                "the same account. Use the former key, or close what is open by hand and name "
                "another account with --account",
            )
        self._log.warning("a new key of the same account", proof=order, was=bound, now=account)

    def _hold(self, account: str) -> MachineLock:
        name = _digest(f"{self._venue} {account}")
        lock = MachineLock(
            self._folder / f"account-{name}.lock", f"{account} at {self._venue}", self._journal
        )
        self._locks.append(lock)
        return lock

    def _bind(self, bound: Bound) -> None:
        self._facts.keep_fact(BOUND, msgspec.json.encode(bound).decode())
        self._bound = bound

    def _wrong(self, found: str, remedy: str = _ELSEWHERE) -> WrongAccount:
        bound = self._bound
        was = f"{bound.account} at {bound.venue}" if bound.account else bound.venue
        return WrongAccount(f"{self._journal} was begun at {was}, and this is {found}{remedy}")


def _read(file: int) -> _Holder | None:
    try:
        return msgspec.json.decode(os.pread(file, 4_096, 0), type=_Holder)
    except UNREADABLE:
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
