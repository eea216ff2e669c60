"""Only one runtime of this machine trades an account, and none gives a client id again.

Beside the lock lies the highest epoch that any runtime took, so that a journal restored from an
older copy does not name new orders as ones that were sent already.
"""

import fcntl
import os
from pathlib import Path

from bot4_runtime.domain.errors import JournalError, JournalLocked
from bot4_runtime.state.place import sync_folder


class AccountLock:
    """An advisory lock keyed by account; held until closed or the process ends.

    Args:
        path: the lock file; it holds the process id of the holder.
    """

    def __init__(self, path: Path, account: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._epochs = path.with_suffix(".epoch")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise JournalLocked(
                f"account {account!r} is held by another runtime (process {holder}); "
                f"stop it first, or use another account. Lock file: {path}"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def highest_epoch(self) -> int:
        """Return the highest epoch kept here, 0 when there is none.

        Raises:
            JournalError: it cannot be read.
        """
        try:
            text = self._epochs.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise JournalError(f"{self._epochs} cannot be read: {error.strerror}") from error
        if text and not text.strip().isdigit():
            raise JournalError(
                f"{self._epochs} holds {text[:32]!r}, expected the highest epoch this account was "
                "traded in; write a number above that of every client id at the venue (b4-EPOCH-)"
            )
        return int(text or 0)

    def keep_epoch(self, epoch: int) -> None:
        """Remember an epoch durably, in place, so that a full disk has room for it.

        Raises:
            JournalError: it cannot be written.
        """
        new = not self._epochs.exists()
        try:
            handle = os.open(self._epochs, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(handle, f"{epoch:020d}\n".encode(), 0)
                os.fsync(handle)
            finally:
                os.close(handle)
            if new:
                sync_folder(self._epochs.parent)
        except OSError as error:
            raise JournalError(f"{self._epochs} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the account."""
        os.close(self._file)
