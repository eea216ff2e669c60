"""Signatures of models: who promoted a file, where a sha256 only says which file it is.

Ed25519 (RFC 8032). A signature covers the sha256 of the model file and of the manifest beside
it. ``BOT4_MODEL_SIGNING_KEY`` names the file of the private key: what is promoted is signed with
it. ``BOT4_MODEL_PUBLIC_KEY`` names the file of the public key: whatever is not signed by it is
refused. Keys are PEM files; neither they nor what is in them is ever shown.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bot4_runtime.domain.errors import ConfigError, ModelError
from bot4_runtime.key_file import read_key_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNING_KEY: Final = "BOT4_MODEL_SIGNING_KEY"
PUBLIC_KEY: Final = "BOT4_MODEL_PUBLIC_KEY"
SIGNING_FILE, PUBLIC_FILE = "model-signing-key.pem", "model-public-key.pem"
_DOMAIN: Final = b"bot4 model signature 1\n"


@dataclass(frozen=True, slots=True)
class ModelKeys:
    """Where the keys lie; None where there is none.

    Attributes:
        signing: file of the private key, of mode 0600.
        public: file of the public key.
    """

    signing: Path | None = None
    public: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "ModelKeys":
        """Read where they lie.

        Raises:
            ConfigError: a variable is there and names nothing; that is not "no key".
        """
        env = os.environ if environment is None else environment
        return cls(_named(env, SIGNING_KEY), _named(env, PUBLIC_KEY))

    def sign(self, sha256: str, manifest_json: bytes) -> bytes:
        """Sign a model; needs the private key.

        Args:
            sha256: of the model file.
            manifest_json: the manifest beside it.

        Raises:
            ConfigError: the key is missing, not private to its owner, or no key.
        """
        return _private_key(self.signing).sign(_message(sha256, manifest_json))

    def check(self, sha256: str, manifest_json: bytes, signature: bytes) -> None:
        """Refuse a model that the public key's owner did not sign; without a key, none.

        Raises:
            ModelError: there is no signature, or it is another's or of another file.
            ConfigError: the key is missing or no key.
        """
        if self.public is None:
            return
        from cryptography.exceptions import InvalidSignature

        key = _public_key(self.public)
        if not signature:
            raise ModelError(
                f"model {sha256[:12]} refused: it is not signed; expected a signature by the key "
                f"of {PUBLIC_KEY}; promote it where {SIGNING_KEY} is set"
            )
        try:
            key.verify(signature, _message(sha256, manifest_json))
        except InvalidSignature as error:
            raise ModelError(
                f"model {sha256[:12]} refused: its signature is of another key or another file; "
                f"expected one by the key of {PUBLIC_KEY}; restore the file, or promote it where "
                f"{SIGNING_KEY} is set"
            ) from error


def make_keys(folder: Path) -> ModelKeys:
    """Make a new pair of keys, the private one readable by its owner alone.

    Raises:
        ConfigError: a key lies there already, or the folder cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    public = key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    made = ModelKeys(folder / SIGNING_FILE, folder / PUBLIC_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content, mode in (
            (folder / SIGNING_FILE, private, 0o600),
            (folder / PUBLIC_FILE, public, 0o644),
        ):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(file, "wb") as stream:
                stream.write(content)
    except FileExistsError as error:
        raise ConfigError(
            f"{error.filename} is there already; keys are never replaced: name another folder"
        ) from error
    except OSError as error:
        raise ConfigError(f"keys cannot be written to {folder}: {error.strerror}") from error
    return made


def _named(env: Mapping[str, str], variable: str) -> Path | None:
    name = env.get(variable)
    if name is None:
        return None
    if not name.strip():
        raise ConfigError(
            f"{variable} is set and empty; expected the file of a key: name one, or remove the "
            "variable to go without"
        )
    return Path(name).expanduser()


def _message(sha256: str, manifest_json: bytes) -> bytes:
    return _DOMAIN + f"{sha256}\n{hashlib.sha256(manifest_json).hexdigest()}\n".encode()


def _private_key(path: Path | None) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if path is None:
        raise ConfigError(f"{SIGNING_KEY} is not set; it names the file of the private key")
    data = read_key_file(path, SIGNING_KEY, private=True)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError):  # the cause may quote the key: it is not kept
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{SIGNING_KEY}: {path} holds no Ed25519 private key in PEM; "
            "`bot4-pipelines keygen` makes one"
        ) from None
    return key


def _public_key(path: Path) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = read_key_file(path, PUBLIC_KEY, private=False)
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(
            f"{PUBLIC_KEY}: {path} holds no Ed25519 public key in PEM; `bot4-pipelines keygen` "
            f"writes it as {PUBLIC_FILE}"
        ) from None
    return key
