"""Only one runtime of this machine trades an account."""

import fcntl
import os
from pathlib import Path

from bot4_runtime.domain.errors import JournalLocked


class AccountLock:
    """An advisory lock keyed by account; held until closed or the process ends.

    Args:
        path: the lock file; it holds the process id of the holder.
    """

    def __init__(self, path: Path, account: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
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

    def close(self) -> None:
        """Let go of the account."""
        os.close(self._file)
