"""Listen keys of user streams: one an account, for an hour, and longer when kept alive."""

import hashlib
from typing import Final

from bot4_runtime.venue.futures_account import FuturesAccount

LIFE_MS: Final = 60 * 60_000


class ListenKeys:
    """Gives keys out and knows whose they are."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[FuturesAccount, int]] = {}
        self._given = 0

    def give(self, account: FuturesAccount, now_ms: int) -> str:
        """Return an account's key, a new one if it has none, good for an hour from now."""
        key = self.of(account)
        if key is None:
            self._given += 1
            seed = f"{account.uid}/{self._given}/{now_ms}"
            key = hashlib.sha256(seed.encode()).hexdigest()
        self._keys[key] = (account, now_ms + LIFE_MS)
        return key

    def of(self, account: FuturesAccount) -> str | None:
        """Return the key an account has."""
        return next((key for key, (owner, _) in self._keys.items() if owner is account), None)

    def keep(self, account: FuturesAccount, now_ms: int) -> str | None:
        """Let an account's key live for another hour; return it, None if there is none."""
        key = self.of(account)
        if key is not None:
            self._keys[key] = (account, now_ms + LIFE_MS)
        return key

    def drop(self, account: FuturesAccount) -> str | None:
        """Take an account's key away; return it, None if there is none."""
        key = self.of(account)
        if key is not None:
            del self._keys[key]
        return key

    def expired(self, now_ms: int) -> list[tuple[str, FuturesAccount]]:
        """Take away keys that ran out, and return them with their accounts."""
        out = [(k, owner) for k, (owner, end_ms) in self._keys.items() if end_ms <= now_ms]
        for key, _ in out:
            del self._keys[key]
        return out
