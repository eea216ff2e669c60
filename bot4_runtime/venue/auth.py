"""Who is asking: keys, signatures and timestamps of signed requests, as Binance checks them.

An account's secret is that of HMAC, or the public key of RSA or Ed25519 in PEM.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from bot4_runtime.venue import refusals
from bot4_runtime.venue.account import Account
from bot4_runtime.venue.exchange import Exchange
from bot4_runtime.venue.refusals import Refused, mandatory

AHEAD_MS: Final = 1_000
DEFAULT_WINDOW_MS: Final = 5_000
MAX_WINDOW_MS: Final = 60_000


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


def identify(exchange: Exchange, api_key: str | None) -> Account:
    """Return whose key it is; raises Refused -2014 or -2015 with HTTP status 401."""
    if not api_key:
        raise Refused(*refusals.BAD_KEY_FORMAT, status=401)
    account = exchange.account(api_key)
    if account is None:
        raise Refused(*refusals.REJECTED_KEY, status=401)
    return account


def check_signed(
    exchange: Exchange, account: Account, values: Mapping[str, str], payload: str
) -> None:
    """Check a signed request's time, then its signature.

    Raises:
        Refused: -1102, -1131, -1021 or -1022.
    """
    check_time(exchange.now_ms(), values)
    signature = values.get("signature", "")
    if not signature:
        raise mandatory("signature")
    check_signature(account, payload, signature)


def is_ed25519(account: Account) -> bool:
    """Whether an account signs with a key of Ed25519."""
    text = account.secret
    return text.startswith("-----BEGIN PUBLIC KEY") and isinstance(
        load_pem_public_key(text.encode()), Ed25519PublicKey
    )


def check_signature(account: Account, payload: str, signature: str) -> None:
    """Hold a signature against the account's secret or public key; raises Refused -1022."""
    if account.secret.startswith("-----BEGIN PUBLIC KEY"):
        if not _verified(account.secret, payload.encode(), signature):
            raise Refused(*refusals.INVALID_SIGNATURE)
        return
    expected = hmac.new(account.secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.lower().encode()):
        raise Refused(*refusals.INVALID_SIGNATURE)


def _verified(public_pem: str, payload: bytes, signature: str) -> bool:
    key = load_pem_public_key(public_pem.encode())
    try:
        told = base64.b64decode(signature, validate=True)
        if isinstance(key, Ed25519PublicKey):
            key.verify(told, payload)
        elif isinstance(key, RSAPublicKey):
            key.verify(told, payload, PKCS1v15(), SHA256())
        else:
            return False
    except (ValueError, InvalidSignature):
        return False
    return True


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
