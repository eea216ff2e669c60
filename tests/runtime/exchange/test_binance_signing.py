"""Signatures against Binance's own examples, `cryptography`, ccxt and the venue."""

import base64
import json
from urllib.parse import parse_qsl, unquote

import ccxt
import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.errors import ConfigError, VenueRefused
from bot4_runtime.exchange.binance.signing import (
    API_KEY,
    SECRET,
    SECRET_FILE,
    Scheme,
    Secret,
    Signer,
    signer_from_environment,
)
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback

DOCUMENTED_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
DOCUMENTED_SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
KEYS = {
    Scheme.ED25519: ed25519.Ed25519PrivateKey.generate(),
    Scheme.RSA: rsa.generate_private_key(65_537, 2_048),
}


def private_pem(key) -> str:
    return key.private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()
    ).decode()


def public_pem(key) -> str:
    return (
        key.public_key()
        .public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


PEMS = {scheme: private_pem(key) for scheme, key in KEYS.items()}
SIGNERS = {scheme: Signer(Secret("k"), Secret(text)) for scheme, text in PEMS.items()}


def verify(scheme, signature: str, payload: bytes) -> None:
    public, told = KEYS[scheme].public_key(), base64.b64decode(signature, validate=True)
    if scheme is Scheme.ED25519:
        public.verify(told, payload)
    else:
        public.verify(told, payload, padding.PKCS1v15(), SHA256())


@pytest.mark.parametrize(
    ("symbol", "signature"),
    [
        ("LTCBTC", "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
        ("１２３４５６", "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3"),
    ],
)
def test_rest_signs_as_binances_own_examples(symbol, signature):
    """rest-api.md, "SIGNED Endpoint Examples for POST /api/v3/order", ASCII and not."""
    signer = Signer(Secret(DOCUMENTED_KEY), Secret(DOCUMENTED_SECRET))
    fields = {"symbol": symbol, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": 1, "price": "0.1", "recvWindow": 5000, "timestamp": 1499827319559}  # fmt: skip
    assert signer.scheme is Scheme.HMAC
    assert signer.query(fields).endswith(f"&signature={signature}")


def test_the_websocket_api_signs_as_binances_own_example():
    """web-socket-api.md, "SIGNED request example (HMAC)"."""
    signer = Signer(Secret(DOCUMENTED_KEY), Secret(DOCUMENTED_SECRET))
    fields = {"symbol": "BTCUSDT", "side": "SELL", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01000000", "price": "52000.00", "newOrderRespType": "ACK", "recvWindow": 100, "timestamp": 1645423376532}  # fmt: skip
    told = signer.message(fields)
    assert told["signature"] == "cc15477742bd704c29492d96c7ead9414dfd8e0ec4a00f947bb5bb454ddbd08a"
    assert told["apiKey"] == DOCUMENTED_KEY


NAMES = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=8)
FIELDS = st.dictionaries(NAMES, st.text(max_size=12) | st.integers(0), min_size=1, max_size=8)


@given(FIELDS, st.sampled_from([Scheme.ED25519, Scheme.RSA]))
@settings(max_examples=60)
def test_what_is_sent_is_what_was_signed(fields, scheme):
    query = SIGNERS[scheme].query(fields)
    payload, _, signature = query.rpartition("&signature=")
    verify(scheme, unquote(signature), payload.encode())
    assert dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) == {
        name: str(value) for name, value in fields.items()
    } | {"signature": unquote(signature)}
    told = SIGNERS[scheme].message(fields)
    signature = told.pop("signature")
    assert told == fields | {"apiKey": "k"}
    sorted_plain = "&".join(f"{name}={told[name]}" for name in sorted(told))
    verify(scheme, signature, sorted_plain.encode())


@pytest.mark.parametrize("secret", [DOCUMENTED_SECRET, *PEMS.values()])
def test_ccxt_signs_the_same(secret):
    client = ccxt.binance({"apiKey": "k", "secret": secret})
    client.nonce = lambda: 1_700_000_000_000
    fields = {"symbol": "BTCUSDT", "newClientOrderId": "b4:1/2"}
    theirs = client.sign("order", ["private"], "DELETE", fields)
    sent = theirs["url"].partition("?")[2] or theirs["body"]
    named = dict(parse_qsl(sent))
    signature = named.pop("signature")
    ours = Signer(Secret("k"), Secret(secret)).query(named)
    assert dict(parse_qsl(ours))["signature"] == signature


@pytest.mark.parametrize("scheme", list(Scheme))
def test_the_venue_knows_every_kind_of_key_and_nobody_elses(scheme):
    secrets = {**PEMS, Scheme.HMAC: "secret"}
    others = {
        Scheme.HMAC: "other",
        Scheme.RSA: private_pem(rsa.generate_private_key(65_537, 2_048)),
        Scheme.ED25519: private_pem(ed25519.Ed25519PrivateKey.generate()),
    }
    held = "secret" if scheme is Scheme.HMAC else public_pem(KEYS[scheme])
    venue = Loopback(LiveClock(), [])
    venue.open_account(77, "mine", held, [])
    with hosted(venue) as server:
        for secret, passes in ((secrets[scheme], True), (others[scheme], False)):
            signer = Signer(Secret("mine"), Secret(secret))
            client = BinanceSpot(f"http://127.0.0.1:{server.port}", None, signer, LiveClock())
            if passes:
                assert client.balances() == {}
            else:
                with pytest.raises(VenueRefused, match="-1022"):
                    client.balances()
            client.close()


def test_secrets_come_from_a_private_file_or_the_environment(tmp_path):
    file = tmp_path / "key.pem"
    file.write_text(PEMS[Scheme.ED25519])
    file.chmod(0o600)
    told = signer_from_environment({API_KEY: "k", SECRET_FILE: str(file)})
    assert (told.api_key, told.scheme) == ("k", Scheme.ED25519)
    file.write_text("plain-secret\n")
    ours = signer_from_environment({API_KEY: "k", SECRET_FILE: str(file)})
    assert ours.query({"a": 1}) == signer_from_environment(
        {API_KEY: "k", SECRET: "plain-secret"}
    ).query({"a": 1})


def test_blanks_around_a_key_are_left_out_and_one_that_no_header_takes_is_refused_unshown():
    told = signer_from_environment({API_KEY: " canary\n", SECRET: "s\n"})
    assert told.api_key == "canary"
    assert told.query({"a": 1}) == Signer(Secret("k"), Secret("s")).query({"a": 1})
    for key in ("canary\nX-Other: 1", "canary key", "canary\u00fc", "canary\x7f"):
        with pytest.raises(ConfigError, match=API_KEY) as refused:
            signer_from_environment({API_KEY: key, SECRET: "s"})
        assert "canary" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused(tmp_path, mode):
    file = tmp_path / "key.pem"
    file.write_text("canary-secret")
    file.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600") as told:
        signer_from_environment({API_KEY: "k", SECRET_FILE: str(file)})
    assert "canary" not in str(told.value)


def test_what_is_no_key_is_refused_and_never_shown(tmp_path):
    file = tmp_path / "key"
    file.touch(0o600)
    elliptic = private_pem(ec.generate_private_key(ec.SECP256R1()))
    for content, match in (
        (b"", "holds no key"),
        ("canary\u00fc".encode(), "holds no key"),
        (b"canary" * 4_000, "longer than"),
        (b"-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----", "Ed25519 or RSA"),
        (elliptic.encode(), "Ed25519 or RSA"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=match) as told:
            signer_from_environment({API_KEY: "k", SECRET_FILE: str(file)})
        assert "canary" not in f"{told.value} {told.value.__cause__}"
    for env, match in (
        ({}, API_KEY),
        ({API_KEY: "k"}, "neither"),
        ({API_KEY: "k", SECRET: "s", SECRET_FILE: str(file)}, "both"),
        ({API_KEY: "k", SECRET_FILE: str(tmp_path / "none")}, "not readable"),
    ):
        with pytest.raises(ConfigError, match=match):
            signer_from_environment(env)


def test_no_kind_of_key_shows_itself():
    for signer, text in ((SIGNERS[scheme], PEMS[scheme]) for scheme in PEMS):
        shown = f"{signer!r} {vars(signer)} {json.dumps(str(signer))}"
        assert text.splitlines()[1] not in shown
