"""Who is asking: keys, signatures and timestamps of signed requests, as Binance checks them.

An account's secret is that of HMAC, or the public key of RSA or Ed25519 in PEM.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Final, Protocol, TypeVar
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from bot4_runtime.venue import refusals
from bot4_runtime.venue.refusals import Refused, mandatory

AHEAD_MS: Final = 1_000
DEFAULT_WINDOW_MS: Final = 5_000
MAX_WINDOW_MS: Final = 60_000


class Customer(Protocol):
    """Who signs, whatever the market."""

    secret: str


CustomerT = TypeVar("CustomerT", bound=Customer)
KnownT_co = TypeVar("KnownT_co", bound=Customer, covariant=True)


class Customers(Protocol[KnownT_co]):
    """An exchange as far as it knows its customers and the time."""

    def account(self, api_key: str) -> KnownT_co | None:
        """Return who an API key belongs to."""
        ...

    def now_ms(self) -> int:
        """Return the exchange's time."""
        ...


def parameters(query: str, body: str) -> dict[str, str]:
    """Read the parameters of a request; those of the query win over those of the body."""
    return dict(parse_qsl(body, keep_blank_values=True)) | dict(
        parse_qsl(query, keep_blank_values=True)
    )


def signed_payload(query: str, body: str) -> str:
    """Return what the signature covers: query and body as sent, without the signature."""
    parts = (
        "&".join(pair for pair in part.split("&") if not pair.startswith("signature="))
        for part in (query, body)
    )
    return "".join(parts)


def identify(exchange: Customers[CustomerT], api_key: str | None) -> CustomerT:
    """Return whose key it is; raises Refused -2014 or -2015 with HTTP status 401."""
    if not api_key:
        raise Refused(*refusals.BAD_KEY_FORMAT, status=401)
    account = exchange.account(api_key)
    if account is None:
        raise Refused(*refusals.REJECTED_KEY, status=401)
    return account


def check_signed(
    exchange: Customers[CustomerT], account: CustomerT, values: Mapping[str, str], payload: str
) -> None:
    """Check a signed request's time, then its signature.

    Raises:
        Refused: -1102, -1131, -1021 or -1022.
    """
    check_time(exchange.now_ms(), values)
    signature = values.get("signature", "")
    if not signature:
        raise mandatory("signature")
    if not genuine(account.secret, payload, signature):
        raise Refused(*refusals.INVALID_SIGNATURE)


def worded(params: Mapping[str, object]) -> dict[str, str]:
    """Return a message's parameters as they are signed, in JSON's words for true and false."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in params.items()
    }


def check_sorted(customers: Customers[CustomerT], values: Mapping[str, str]) -> CustomerT:
    """Check a signed message: the signature covers its other parameters, sorted by name.

    Raises:
        Refused: -2014, -2015, -1102, -1131, -1021 or -1022.
    """
    account = identify(customers, values.get("apiKey"))
    names = sorted(name for name in values if name != "signature")
    payload = "&".join(f"{name}={values[name]}" for name in names)
    check_signed(customers, account, values, payload)
    return account


def is_ed25519(secret: str) -> bool:
    """Whether a customer signs by Ed25519: then the exchange knows a public key, as PEM."""
    return isinstance(_public_key(secret), Ed25519PublicKey)


def genuine(secret: str, payload: str, signature: str) -> bool:
    """Verify a signature: HMAC-SHA256 in hexadecimal, or RSA's or Ed25519's in base64."""
    key = _public_key(secret)
    if key is None:
        expected = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected.encode(), signature.lower().encode())
    try:
        told = base64.b64decode(signature, validate=True)
        if isinstance(key, Ed25519PublicKey):
            key.verify(told, payload.encode())
        elif isinstance(key, RSAPublicKey):
            key.verify(told, payload.encode(), PKCS1v15(), SHA256())
        else:
            return False
    except (ValueError, InvalidSignature):
        return False
    return True


def _public_key(secret: str) -> PublicKeyTypes | None:
    """Read a public key; None for the secret of HMAC."""
    if not secret.startswith("-----BEGIN PUBLIC KEY"):
        return None
    return load_pem_public_key(secret.encode())


def check_time(now_ms: int, values: Mapping[str, str]) -> None:
    """Hold a request's timestamp against the exchange's clock and the request's window."""
    stamp = _milliseconds(values, "timestamp", None)
    window = _milliseconds(values, "recvWindow", Decimal(DEFAULT_WINDOW_MS))
    if not window <= MAX_WINDOW_MS:
        raise Refused(-1131, "recvWindow must be less than 60000.")
    if not stamp < now_ms + AHEAD_MS:
        raise Refused(*refusals.AHEAD_OF_SERVER)
    if not now_ms - stamp <= window:
        raise Refused(*refusals.OUTSIDE_RECV_WINDOW)


def _milliseconds(values: Mapping[str, str], name: str, default: Decimal | None) -> Decimal:
    text = values.get(name, "")
    if not text and default is not None:
        return default
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise mandatory(name) from None
    if not value.is_finite() or value < 0:
        raise mandatory(name)
    return value
