"""A signed pair trades; anything an attacker writes over it does not, whatever its sha256."""

import base64
import json
import os
import stat

import msgspec
import numpy as np
import pytest

from bot4_pipelines.training.hmm_export import seal
from bot4_runtime.domain.errors import ConfigError, ModelError
from bot4_runtime.regime.archive import ModelArchive
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.regime.signature import (
    PUBLIC_FILE,
    PUBLIC_KEY,
    SIGNING_FILE,
    SIGNING_KEY,
    ModelKeys,
    make_keys,
)

NOW = 1_750_000_000_000


@pytest.fixture
def keys(tmp_path) -> ModelKeys:
    return make_keys(tmp_path / "keys")


@pytest.fixture
def signed(registry, add_pair, keys) -> tuple[ModelRegistry, str, str]:
    pair = add_pair()
    ModelRegistry(registry.root, ModelKeys(signing=keys.signing)).activate("1h", *pair, now_ms=NOW)
    return ModelRegistry(registry.root, ModelKeys(public=keys.public)), *pair


def test_what_was_signed_when_it_was_promoted_is_loaded(signed):
    registry, hmm, lstm = signed
    pair = registry.load("1h", NOW)
    assert (pair.hmm_sha256, pair.lstm_sha256) == (hmm, lstm)
    assert len((registry.root / "archive" / hmm / "model.sig").read_bytes()) == 64


class Swapped(ModelArchive):
    """An archive where somebody else writes: whoever reads a file again reads other bytes."""

    def __init__(self, root):
        super().__init__(root)
        self.read_before = set()

    def read(self, sha256, name):
        if (sha256, name) in self.read_before:
            return b"{}"
        self.read_before.add((sha256, name))
        return super().read(sha256, name)


def test_what_is_loaded_and_signed_are_the_bytes_that_were_checked(signed, keys):
    registry, hmm, lstm = signed
    registry._archive = Swapped(registry.root)
    pair = registry.load("1h", NOW)
    assert (pair.hmm_sha256, pair.lstm_sha256) == (hmm, lstm)
    signature = registry.root / "archive" / lstm / "model.sig"
    before = signature.read_bytes()
    signature.unlink()
    signing = ModelRegistry(registry.root, ModelKeys(signing=keys.signing))
    signing._archive = Swapped(registry.root)
    signing._sign(lstm)
    assert signature.read_bytes() == before


def test_what_was_never_signed_is_refused_where_a_public_key_is_set(registry, add_pair, keys):
    registry.activate("1h", *add_pair(), now_ms=NOW)
    guarded = ModelRegistry(registry.root, ModelKeys(public=keys.public))
    with pytest.raises(ModelError, match=f"it is not signed; .*{SIGNING_KEY} is set"):
        guarded.load("1h", NOW)
    with pytest.raises(ModelError, match="not signed"):
        guarded.activate("1h", *registry.current("1h").shas, now_ms=NOW)
    assert registry.load("1h", NOW)


def test_another_keys_signature_is_refused(registry, add_pair, signed, tmp_path):
    other = make_keys(tmp_path / "other")
    pair = add_pair(scale=1.1)
    ModelRegistry(registry.root, ModelKeys(signing=other.signing)).activate(
        "1h", *pair, now_ms=NOW
    )
    with pytest.raises(ModelError, match="its signature is of another key or another file"):
        signed[0].load("1h", NOW)


def test_a_file_flipped_behind_an_adapted_sha256_is_refused_every_time(signed, make):
    registry, hmm, lstm = signed
    archive, pointer = registry.root / "archive", registry.root / "current.json"
    data = (archive / lstm / "model.onnx").read_bytes()
    good, accepted = pointer.read_text(), 0
    rng = np.random.default_rng(5)
    for at in rng.integers(len(data), size=100).tolist():
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        folder = archive / make.sha256(bytes(flipped))
        folder.mkdir()
        (folder / "model.onnx").write_bytes(flipped)
        for name in ("manifest.json", "model.sig"):
            (folder / name).write_bytes((archive / lstm / name).read_bytes())
        pointer.write_text(good.replace(lstm, folder.name))
        with pytest.raises(ModelError, match="its signature is of another key or another file"):
            registry.load("1h", NOW)
        accepted += 1
    assert accepted == 100
    pointer.write_text(good)
    assert registry.load("1h", NOW).hmm_sha256 == hmm


def test_a_manifest_with_kinder_words_is_refused(signed, make):
    registry, _, lstm = signed
    archive, pointer = registry.root / "archive", registry.root / "current.json"
    manifest = registry.manifest(lstm)
    kinder = msgspec.structs.replace(manifest, expires_ms=manifest.expires_ms * 2)
    data = seal((archive / lstm / "model.onnx").read_bytes(), kinder)
    forged = registry.add(data, kinder, "")
    (archive / forged / "model.sig").write_bytes((archive / lstm / "model.sig").read_bytes())
    pointer.write_text(pointer.read_text().replace(lstm, forged))
    with pytest.raises(ModelError, match="its signature is of another key"):
        registry.load("1h", NOW)


def test_going_back_signs_nothing_and_works_for_what_was_signed(registry, add_pair, keys):
    both = ModelRegistry(registry.root, keys)
    first, second = add_pair(), add_pair(scale=1.1)
    both.activate("1h", *first, now_ms=NOW)
    registry.activate("1h", *second, now_ms=NOW)
    both.activate("1h", *first, now_ms=NOW, action="rollback")
    with pytest.raises(ModelError, match="not signed"):
        both.activate("1h", *second, now_ms=NOW, action="rollback")
    assert both.current("1h").shas == first


def test_a_damaged_model_is_not_signed(registry, add_pair, keys):
    hmm, lstm = add_pair()
    (registry.root / "archive" / lstm / "model.onnx").write_bytes(b"else")
    with pytest.raises(ModelError, match="sha256"):
        ModelRegistry(registry.root, keys).activate("1h", hmm, lstm, now_ms=NOW)
    assert not (registry.root / "archive" / lstm / "model.sig").exists()


def test_the_private_key_is_its_owners_alone_and_never_replaced(tmp_path, keys):
    assert stat.S_IMODE((tmp_path / "keys" / SIGNING_FILE).stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="there already; keys are never replaced"):
        make_keys(tmp_path / "keys")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        make_keys(tmp_path / "file" / "below")
    keys.signing.chmod(0o640)
    with pytest.raises(ConfigError, match=r"has mode 0640.* chmod 600"):
        keys.sign("0" * 64, b"{}")


def test_a_key_that_is_none_is_refused_and_not_shown(tmp_path, keys, registry, add_pair):
    pair = add_pair()
    secret = base64.b64encode(os.urandom(24)).decode()
    for content in (secret, keys.public.read_text()):
        keys.signing.write_text(content)
        with pytest.raises(ConfigError, match="holds no Ed25519 private key") as told:
            ModelRegistry(registry.root, keys).activate("1h", *pair, now_ms=NOW)
        assert content not in str(told.value)
        assert told.value.__cause__ is None
    with pytest.raises(ConfigError, match=f"{SIGNING_KEY} is not set"):
        ModelKeys().sign("0" * 64, b"")
    registry.activate("1h", *pair, now_ms=NOW)
    for content, message in ((secret, "holds no Ed25519 public key"), (None, "not readable")):
        keys.public.unlink()
        if content is not None:
            keys.public.write_text(content)
        with pytest.raises(ConfigError, match=message):
            ModelRegistry(registry.root, ModelKeys(public=keys.public)).load("1h", NOW)


def test_a_link_in_the_place_of_a_signature_is_not_followed(signed, tmp_path):
    registry, hmm, _ = signed
    path = registry.root / "archive" / hmm / "model.sig"
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"model\.sig is not readable"):
        registry.load("1h", NOW)


def test_the_model_itself_is_never_written_again(registry, add_pair):
    hmm, _ = add_pair()
    for name in ("model.onnx", "manifest.json"):
        with pytest.raises(ModelError, match="never written again"):
            registry._archive.put(hmm, name, b"")
    with pytest.raises(ModelError, match="never written again"):
        registry._archive.put("../x", "card.html", b"")


def test_the_environment_says_where_the_keys_lie(tmp_path, monkeypatch):
    assert ModelKeys.from_environment({}) == ModelKeys()
    named = {SIGNING_KEY: "/a/key.pem", PUBLIC_KEY: "~/public.pem"}
    found = ModelKeys.from_environment(named)
    assert str(found.signing) == "/a/key.pem"
    assert found.public is not None
    assert "~" not in str(found.public)
    monkeypatch.setenv(PUBLIC_KEY, str(tmp_path / "nowhere.pem"))
    with pytest.raises(ConfigError, match="not readable"):
        ModelRegistry(tmp_path)._keys.check("0" * 64, b"", b"")


def test_keygen_tells_where_the_keys_lie_and_not_what_they_are(tmp_path):
    from typer.testing import CliRunner

    from bot4_pipelines.cli import app

    done = CliRunner().invoke(app, ["keygen", str(tmp_path / "k"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["public_key"].endswith(PUBLIC_FILE)
    keys = ModelKeys(tmp_path / "k" / SIGNING_FILE, tmp_path / "k" / PUBLIC_FILE)
    keys.check("0" * 64, b"{}", keys.sign("0" * 64, b"{}"))
    done = CliRunner().invoke(app, ["keygen", str(tmp_path / "j")])
    assert SIGNING_KEY in done.output
    assert "PRIVATE" not in done.output


@pytest.mark.parametrize("variable", [PUBLIC_KEY, SIGNING_KEY])
@pytest.mark.parametrize("empty", ["", " "])
def test_a_variable_that_names_no_file_is_not_no_key(variable, empty):
    """`export BOT4_MODEL_PUBLIC_KEY=$UNSET` must not let unsigned models trade."""
    with pytest.raises(ConfigError, match=f"{variable} is set and empty; .*remove the variable"):
        ModelKeys.from_environment({variable: empty})
    assert ModelKeys.from_environment({}) == ModelKeys()
