"""Keys, signatures, and the venue's time that signed requests must carry.

Source: binance-spot-api-docs, rest-api.md, "Signed endpoint security"; HMAC SHA-256 over the
bytes that are sent. Secrets never appear in a repr, a message or a log.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlencode

from bot4_runtime.clock import NS_PER_MS, Clock

GOOD_ERROR_MS: Final = 100.0
"""A time sample that is surely this near is good enough; a worse one is asked for again."""
SAMPLES: Final = 3


class Secret:
    """A text that does not show itself; `reveal` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the signer and nobody else."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not written to files or other processes")


class Signer:
    """Signs with one account's key.

    Args:
        api_key: names the account; sent with every signed request.
        secret: never leaves this object.
    """

    def __init__(self, api_key: Secret, secret: Secret) -> None:
        self._api_key = api_key
        self._mac = hmac.new(secret.reveal().encode(), digestmod=hashlib.sha256)

    @property
    def api_key(self) -> str:
        """The key itself, for the header that carries it."""
        return self._api_key.reveal()

    def query(self, parameters: Mapping[str, str | int]) -> str:
        """Return parameters percent-encoded, with their signature as the last of them."""
        payload = urlencode(parameters)
        return f"{payload}&signature={self._sign(payload)}"

    def message(self, parameters: Mapping[str, str | int]) -> dict[str, str | int]:
        """Return the parameters of a WebSocket API request: sorted, not encoded, and signed."""
        named = {**parameters, "apiKey": self.api_key}
        payload = "&".join(f"{name}={named[name]}" for name in sorted(named))
        return {**named, "signature": self._sign(payload)}

    def _sign(self, payload: str) -> str:
        mac = self._mac.copy()
        mac.update(payload.encode())
        return mac.hexdigest()


class VenueClock:
    """Our clock, corrected by what the venue says.

    Args:
        clock: ours.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ms = 0.0
        self.synchronised = False

    def now_ms(self) -> int:
        """Return the venue's time as well as we know it."""
        return int(self._clock.now_ns() / NS_PER_MS + self._offset_ms)

    def doubt(self) -> None:
        """Ask the venue again before the next signed request; any thread may say so."""
        self.synchronised = False

    def synchronise(self, ask_ms: Callable[[], int]) -> None:
        """Estimate how far the venue's clock is from ours, by the quickest of a few answers.

        Args:
            ask_ms: asks the venue for its time.
        """
        best_ms = float("inf")
        for _attempt in range(SAMPLES):
            started, before_ns = time.monotonic(), self._clock.now_ns()
            venue_ms = ask_ms()
            error_ms = (time.monotonic() - started) * 500.0
            if error_ms < best_ms:
                between_ns = (before_ns + self._clock.now_ns()) / 2
                best_ms, self._offset_ms = error_ms, venue_ms - between_ns / NS_PER_MS
            if best_ms <= GOOD_ERROR_MS:
                break
        self.synchronised = True
