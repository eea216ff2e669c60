"""The one exception tree. Foreign exceptions are mapped once, at the rim, with ``from``.

Bot4Error                     every error of ours; ``exit_code`` is what a command ends with
├─ ConfigError                a setting is unknown, impossible or contradicts another      (2)
│  └─ WrongAccount            a journal is bound to another account or venue               (2)
├─ DataError                  candles are unreadable, empty or of the wrong kind           (2)
│  └─ StoreBusy               another writer held a store too long; safe to retry          (2)
├─ ModelError                 a model file, manifest or pointer is refused                 (2)
├─ BuildError                 compiled modules are stale or missing where demanded         (2)
├─ JournalError               the journal cannot be trusted or written                     (1)
│  ├─ JournalMissing          an account or folder was named that has none                 (2)
│  ├─ JournalLocked           another runtime holds the account                            (2)
│  ├─ JournalCorrupt          frames fail their checks                                     (1)
│  └─ JournalWriteFailed      a write or fsync failed; never retried                       (1)
├─ UndefinedStatistic         a number has no value (zero variance, too few samples)       (1)
├─ InvariantViolated          something that must always hold does not                     (1)
└─ VenueError                 the exchange or the way to it                                (1)
   ├─ VenueUnreachable        nothing was sent; safe to retry
   ├─ VenueRefused            the venue said no; not retryable
   │  └─ LocationRefused      HTTP 451: this location is refused; not retryable            (2)
   ├─ OutcomeUnknown          sent, and the result is not known: query, never resend
   └─ OrdersMayRest           a session ended, and the end of its entries is not confirmed

Messages say what happened, what was received, what was expected, and what to do.
"""

from typing import ClassVar


class Bot4Error(Exception):
    """Every error that Bot4 raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(Bot4Error):
    """A setting is unknown, impossible, or contradicts another."""

    exit_code = 2


class WrongAccount(ConfigError):
    """A journal was begun at another venue or account: what it has open lies there."""


class DataError(Bot4Error):
    """Candles are unreadable, empty, or of another kind than asked for."""

    exit_code = 2


class StoreBusy(DataError):
    """Another process kept writing to a store; nothing was written, retrying is safe."""


class ModelError(Bot4Error):
    """A model, manifest or pointer is refused; the message says why and what to do."""

    exit_code = 2


class BuildError(Bot4Error):
    """Compiled modules do not match their sources."""

    exit_code = 2


class JournalError(Bot4Error):
    """The journal cannot be trusted or written: trading stops."""


class JournalMissing(JournalError):
    """There is no journal there: an account or a folder was named wrongly."""

    exit_code = 2


class JournalLocked(JournalError):
    """Another runtime holds this account's journal."""

    exit_code = 2


class JournalCorrupt(JournalError):
    """The journal's frames fail their checks."""


class JournalWriteFailed(JournalError):
    """A write or fsync failed. It is never retried: stop, reopen, replay."""


class UndefinedStatistic(Bot4Error):
    """A statistic has no value here, and 0.0 would be a lie."""


class InvariantViolated(Bot4Error):
    """Something that must always hold does not; the process stops opening positions."""


class VenueError(Bot4Error):
    """The exchange, or the way to it."""


class VenueUnreachable(VenueError):
    """Nothing was sent; retrying is safe."""


class VenueRefused(VenueError):
    """The venue answered no; retrying the same thing is pointless.

    Attributes:
        for_good: whether it would say so to anything: another key or place is needed.
    """

    for_good: bool = False


class LocationRefused(VenueRefused):
    """HTTP 451: Binance refuses this location."""

    exit_code = 2
    for_good = True


class OutcomeUnknown(VenueError):
    """The request was sent and its outcome is not known: query, never resend."""


class OrdersMayRest(VenueError):
    """A session ended, and the venue did not confirm that what it had open is safe."""
