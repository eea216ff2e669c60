"""Keys, signatures, and the venue's time that signed requests must carry.

Source: binance-spot-api-docs, rest-api.md and web-socket-api.md, "Request security": REST signs
the bytes that are sent, percent-encoded; the WebSocket API signs its parameters sorted by name
and not encoded. HMAC signatures are hex, those of RSA (PKCS#1 v1.5) and Ed25519 base64. Secrets
never appear in a repr, a message or a log.
"""

import base64
import hashlib
import hmac
import statistics
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from bot4_runtime.clock import NS_PER_MS, Clock
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.key_file import read_key_file

API_KEY: Final = "BOT4_BINANCE_API_KEY"
SECRET: Final = "BOT4_BINANCE_SECRET"  # noqa: S105 - the name of a variable
SECRET_FILE: Final = "BOT4_BINANCE_SECRET_FILE"  # noqa: S105 - the name of a variable

SAMPLES: Final = 5
"""How often the venue is asked for its time at once."""
QUICKEST: Final = 3
"""How many of the answers count: the quickest."""
FRESH_S: Final = 600.0
"""After this the time is asked for again; clocks drift by a few ms in it."""


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


class Scheme(StrEnum):
    """How a key signs; told by what the secret is."""

    HMAC = "HMAC SHA-256"
    RSA = "RSA SHA-256"
    ED25519 = "Ed25519"


class Signer:
    """Signs with one account's key.

    Args:
        api_key: names the account; sent with every signed request.
        secret: the secret key of HMAC, or a private key of RSA or Ed25519 in PEM (PKCS#8,
            unencrypted); never leaves this object.

    Raises:
        ConfigError: the secret is a PEM that holds no such key.
    """

    def __init__(self, api_key: Secret, secret: Secret) -> None:
        self._api_key = api_key
        self.scheme, self._sign = _signature_by(secret)

    @property
    def api_key(self) -> str:
        """The key itself, for the header that carries it."""
        return self._api_key.reveal()

    def query(self, parameters: Mapping[str, str | int]) -> str:
        """Return parameters percent-encoded, with their signature as the last of them."""
        payload = urlencode(parameters, quote_via=quote)
        return f"{payload}&signature={quote(self._sign(payload.encode()), safe='')}"

    def message(self, parameters: Mapping[str, str | int]) -> dict[str, str | int]:
        """Return the parameters of a WebSocket API request: sorted, not encoded, and signed."""
        named = {**parameters, "apiKey": self.api_key}
        payload = "&".join(f"{name}={named[name]}" for name in sorted(named))
        return {**named, "signature": self._sign(payload.encode())}


def signer_from_environment(environment: Mapping[str, str]) -> Signer:
    """Return the signer of the key that the environment names.

    ``BOT4_BINANCE_API_KEY`` is the key's name at Binance. What it signs with is the content of
    the file ``BOT4_BINANCE_SECRET_FILE``, of mode 0600, or ``BOT4_BINANCE_SECRET`` itself.

    Raises:
        ConfigError: one is missing or no key, both secrets are there, or the file is not private.
    """
    api_key, text, file = (
        environment.get(name, "").strip() for name in (API_KEY, SECRET, SECRET_FILE)
    )
    if not api_key:
        raise ConfigError(f"{API_KEY} is not set; expected the API key that Binance shows")
    if any(not "!" <= letter <= "~" for letter in api_key):
        raise ConfigError(
            f"{API_KEY} holds blanks, line ends or letters that no key has; expected the API key "
            "that Binance shows, letters and digits alone"
        )
    if bool(text) == bool(file):
        told = "both are" if text else "neither is"
        raise ConfigError(
            f"of {SECRET_FILE} and {SECRET} {told} set; expected one, better the file"
        )
    if file:
        data = read_key_file(Path(file).expanduser(), SECRET_FILE, private=True)
        try:
            text = data.decode("ascii").strip()
        except UnicodeDecodeError:  # the cause quotes the key: it is not kept
            text = ""
        if not text:
            raise ConfigError(
                f"{SECRET_FILE}: {file} holds no key; expected a PEM, or HMAC's secret"
            ) from None
    return Signer(Secret(api_key), Secret(text))


def _signature_by(secret: Secret) -> tuple[Scheme, Callable[[bytes], str]]:
    """Return how a secret signs; keys are parsed here, once."""
    if "-----BEGIN" not in secret.reveal():
        mac = hmac.new(secret.reveal().encode(), digestmod=hashlib.sha256)

        def authenticated(payload: bytes) -> str:
            own = mac.copy()
            own.update(payload)
            return own.hexdigest()

        return Scheme.HMAC, authenticated
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(secret.reveal().encode(), password=None)
    except (ValueError, TypeError):  # the cause may quote the key: it is not kept
        key = None
    if isinstance(key, Ed25519PrivateKey):
        return Scheme.ED25519, lambda payload: base64.b64encode(key.sign(payload)).decode()
    if isinstance(key, RSAPrivateKey):
        padding, digest = PKCS1v15(), SHA256()
        return Scheme.RSA, lambda payload: base64.b64encode(
            key.sign(payload, padding, digest)
        ).decode()
    raise ConfigError(
        "the secret begins as a PEM and holds no private key of Ed25519 or RSA without password; "
        "`openssl genpkey -algorithm ed25519` makes one"
    )


class VenueClock:
    """Our clock, corrected by what the venue says.

    Args:
        clock: ours.
        timer: seconds of a clock that never jumps.
    """

    def __init__(self, clock: Clock, timer: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._timer = timer
        self._offset_ms = 0.0
        self._due_s = float("-inf")
        self.error_ms = float("inf")
        """How far the estimate may have been off when it was made."""
        self.synchronised = False

    def now_ms(self) -> int:
        """Return the venue's time as well as we know it."""
        return int(self._clock.now_ns() / NS_PER_MS + self._offset_ms)

    @property
    def old(self) -> bool:
        """Whether the estimate should be made again when there is time for it."""
        return not self.synchronised or self._timer() >= self._due_s

    def doubt(self) -> None:
        """Ask the venue again before the next signed request; any thread may say so."""
        self.synchronised = False

    def synchronise(self, ask_ms: Callable[[], int]) -> None:
        """Estimate how far the venue's clock is from ours: the median of the quickest answers.

        An answer's error is at most half of the time it took, so slow ones say little; of the
        quick ones the median is taken, since one alone may have been quick one way only.

        Args:
            ask_ms: asks the venue for its time.
        """
        samples = []
        for _attempt in range(SAMPLES):
            started_s, before_ns = self._timer(), self._clock.now_ns()
            venue_ms = ask_ms()
            took_s = self._timer() - started_s
            between_ns = (before_ns + self._clock.now_ns()) / 2
            samples.append((took_s * 500.0, venue_ms - between_ns / NS_PER_MS))
        quickest = sorted(samples)[:QUICKEST]
        self.error_ms = quickest[-1][0]
        self._offset_ms = statistics.median(offset_ms for _, offset_ms in quickest)
        self._due_s = self._timer() + FRESH_S
        self.synchronised = True
