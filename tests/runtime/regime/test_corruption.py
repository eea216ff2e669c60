"""Damaged model files: bit flips and truncations, found by sha256, and those behind a new one.

Whoever can write a file can write its sha256 too; then a file is either refused in words or
answers its golden vectors, and only a signature (`test_signature`) tells it from the original.
`make corruption` runs the same over a pair of full size: 3,000 flips of either kind, every length.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.loader import load_model
from bot4_runtime.regime.manifest import METADATA_KEY
from bot4_runtime.regime.registry import ModelRegistry

FULL = os.environ.get("BOT4_CORRUPTION") == "full"
FLIPS = 3_000
ADAPTED = 3_000 if FULL else 200
NAMES = ("hmm", "lstm")


@pytest.fixture
def files(make, tmp_path) -> dict[str, tuple[bytes, bytes]]:
    """Return file and manifest of an HMM and an LSTM."""
    if not FULL:
        made = (make.hmm(), make.lstm("a" * 64))
        pairs = [(data, manifest.encode()) for data, manifest in made]
        return dict(zip(NAMES, pairs, strict=True))
    from benchmarks.models import promote_pair

    promote_pair(tmp_path, "1h")
    current = ModelRegistry(tmp_path).current("1h")
    return {
        name: (_read(tmp_path, sha256, "model.onnx"), _read(tmp_path, sha256, "manifest.json"))
        for name, sha256 in zip(NAMES, current.shas, strict=True)
    }


def _read(root: Path, sha256: str, file: str) -> bytes:
    return (root / "archive" / sha256 / file).read_bytes()


def flips(data: bytes, count: int):
    rng = np.random.default_rng(4)
    print("seed 4")
    for at, bit in zip(
        rng.integers(len(data), size=count), rng.integers(8, size=count), strict=True
    ):
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        yield bytes(flipped)


@pytest.mark.parametrize("name", NAMES)
def test_every_bit_flip_is_refused_by_its_sha256(files, make, name) -> None:
    data, manifest = files[name]
    whole, refused = make.sha256(data), 0
    for flipped in flips(data, FLIPS):
        with pytest.raises(ModelError, match=r"refused: sha256 is .* expected .* restore"):
            load_model(flipped, manifest, whole)
        refused += 1
    assert refused == FLIPS


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_refused_by_its_sha256(files, make, name) -> None:
    data, manifest = files[name]
    whole = make.sha256(data)
    for end in range(0, len(data), 7 if name == "lstm" and not FULL else 1):
        with pytest.raises(ModelError, match="refused: sha256 is"):
            load_model(data[:end], manifest, whole)


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_refused_though_its_sha256_is_adapted(files, make, name) -> None:
    data, manifest = files[name]
    for end in range(0, len(data), 997 if name == "lstm" else 101):
        cut = data[:end]
        with pytest.raises(ModelError, match=r"model [0-9a-f]{12} refused: "):
            load_model(cut, manifest, make.sha256(cut))


def outcome(data: bytes, manifest: bytes, sha256: str) -> str:
    """Return why a file is refused; empty when it is not."""
    try:
        load_model(data, manifest, sha256)
    except ModelError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_a_bit_flip_behind_an_adapted_sha256_is_refused_in_words_or_answers_as_before(
    files, make, name
) -> None:
    data, manifest = files[name]
    passed = refused = 0
    for flipped in flips(data, ADAPTED):
        said = outcome(flipped, manifest, make.sha256(flipped))
        assert not said or "refused: " in said or "unreadable manifest" in said
        refused += bool(said)
        passed += not said
    print(f"{name}: {refused} of {ADAPTED} refused without a signature, {passed} not told apart")
    assert refused


@pytest.mark.parametrize("byte", [0xFF, 0x80, 0xC3])
def test_metadata_that_is_no_text_is_refused_in_words(files, make, byte, capfd) -> None:
    data, manifest = files["hmm"]
    inside = data.index(b'{"class_order"')
    assert METADATA_KEY.encode() in data[inside - 20 : inside]
    for at in (inside - 3, inside + 4, inside + 200):
        damaged = bytearray(data)
        damaged[at] = byte
        with pytest.raises(ModelError, match=r"refused: |unreadable manifest"):
            load_model(bytes(damaged), manifest, make.sha256(bytes(damaged)))
    said = capfd.readouterr()
    assert said.out == "", "stdout is for documents"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expires_ms": -(2**63)}, "refused: "),
        ({"expires_ms": -1}, "before its expiry"),
        ({"created_ms": 2**62}, None),
    ],
)
def test_absurd_times_are_refused_in_words(make, change, message) -> None:
    data, manifest = make.hmm(**change)
    if message is None:
        assert load_model(data, manifest.encode(), make.sha256(data), now_ms=1)
        return
    with pytest.raises(ModelError, match=message):
        load_model(data, manifest.encode(), make.sha256(data), now_ms=1)


def test_any_failure_inside_is_a_refusal(make, monkeypatch) -> None:
    from bot4_runtime.regime import loader

    def broken(*_: object) -> None:
        raise OverflowError("absurd size")

    monkeypatch.setattr(loader, "_check_structure", broken)
    data, manifest = make.hmm()
    with pytest.raises(ModelError, match=r"damaged \(OverflowError: absurd size\)"):
        load_model(data, manifest.encode(), make.sha256(data))


def test_permuted_features_are_refused_with_the_order_that_was_found(make) -> None:
    _, manifest = make.lstm("a" * 64)
    names = list(manifest.feature_names)
    for first, second in ((0, 1), (3, -1)):
        permuted = list(names)
        permuted[first], permuted[second] = permuted[second], permuted[first]
        data, other = make.lstm("a" * 64, feature_names=tuple(permuted))
        with pytest.raises(ModelError, match=r"feature order is .* train and promote"):
            load_model(data, other.encode(), make.sha256(data))


def test_foreign_files_are_refused_each_with_its_reason(registry, add_pair, make) -> None:
    from bot4_runtime.domain.candle import Market

    hmm, lstm = add_pair()
    other_hmm, other_lstm = add_pair(scale=1.1)
    usdm = registry.add(*make.lstm(hmm, market=Market.USDM), "")
    slow = registry.add(*make.lstm(hmm, interval="4h"), "")
    for pair, message in (
        ((hmm, slow), "its interval is 4h; expected 1h"),
        ((hmm, usdm), "its market is usdm; the HMM's is spot"),
        ((hmm, hmm), "its kind is hmm; expected lstm"),
        ((lstm, lstm), "its kind is lstm; expected hmm"),
        ((hmm, other_lstm), f"it was trained with HMM {other_hmm[:12]}; the pair has {hmm[:12]}"),
    ):
        with pytest.raises(ModelError, match=message):
            registry.activate("1h", *pair, now_ms=1_750_000_000_000)
        assert registry.current("1h") is None
    data, manifest = make.hmm(schema_id="f" * 64)
    with pytest.raises(ModelError, match="feature schema is ffff"):
        registry.add(data, manifest, "")
    with pytest.raises(ModelError, match="before its expiry"):
        registry.activate("1h", hmm, lstm, now_ms=1_900_000_000_000)
