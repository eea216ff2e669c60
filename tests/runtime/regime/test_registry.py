"""The model store: immutable, one pointer, and nothing read from outside it."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime import archive
from bot4_runtime.regime import registry as registry_module
from bot4_runtime.regime.manifest import GateVerdict, UnseenVerdict
from bot4_runtime.regime.registry import ModelRegistry

NOW = 1_750_000_000_000


def test_a_pair_is_added_activated_and_loaded(registry, add_pair):
    hmm, lstm = add_pair()
    pair = registry.activate("1h", hmm, lstm, NOW)
    assert registry.current("1h") == pair
    loaded = registry.load("1h", NOW)
    assert (loaded.hmm_sha256, loaded.lstm_sha256) == (hmm, lstm)
    assert loaded.hmm_manifest == registry.manifest(hmm)
    assert loaded.lstm_manifest == registry.manifest(lstm)
    assert loaded.schema_id == pair.schema_id
    pointer = json.loads((registry.root / "current.json").read_bytes())
    assert pointer["intervals"]["1h"]["lstm_sha256"] == lstm
    assert (registry.root / "archive" / hmm / "card.html").read_text() == "<p>hmm</p>"
    assert registry.check_copies() == []
    (registry.root / "hmm_regime.onnx").write_bytes(b"else")
    assert "hmm_regime.onnx is" in registry.check_copies()[0]


def test_adding_again_changes_nothing(registry, make):
    data, manifest = make.hmm()
    sha = registry.add(data, manifest, "a")
    before = (registry.root / "archive" / sha / "model.onnx").stat().st_mtime_ns
    assert registry.add(data, manifest, "b") == sha
    assert (registry.root / "archive" / sha / "model.onnx").stat().st_mtime_ns == before
    assert [model.sha256 for model in registry.list()] == [sha]


def test_a_model_is_named_by_its_first_digits_where_one_begins_so(registry, add_pair):
    hmm, lstm = add_pair()
    store = archive.ModelArchive(registry.root)
    assert store.whole(hmm) == hmm
    assert store.whole(lstm[:9]) == lstm
    for prefix, found in (("", 0), ("z", 0), (hmm + "0", 0)):
        with pytest.raises(ModelError, match=f"{found} archived models begin with {prefix!r}"):
            store.whole(prefix)
    (registry.root / "archive" / (hmm[:9] + "0" * 55)).mkdir()
    with pytest.raises(ModelError, match="2 archived models"):
        store.whole(hmm[:9])


def test_what_would_not_load_is_not_archived(registry, make):
    data, manifest = make.hmm(schema_id="f" * 64)
    with pytest.raises(ModelError, match="feature schema"):
        registry.add(data, manifest, "")
    assert registry.list() == []


def test_an_hmm_alone_may_be_promoted(registry, make):
    sha = registry.add(*make.hmm(), "")
    registry.activate("1h", sha, now_ms=NOW)
    pair = registry.load("1h", NOW)
    assert pair.lstm is None
    assert pair.lstm_sha256 == ""
    assert pair.lstm_manifest is None
    assert pair.deciding is pair.hmm_manifest
    assert not (registry.root / "lstm_regime.onnx").exists()


def test_nothing_promoted_says_what_to_do(registry):
    assert registry.current("1h") is None
    assert registry.pointer_stamp() is None
    assert registry.check_copies() == []
    with pytest.raises(ModelError, match=r"no models are promoted for 1h .* `bot4-pipelines run`"):
        registry.load("1h", NOW)


def test_a_failed_or_unjudged_gate_is_not_activated(registry, make):
    failed = GateVerdict(name="accuracy", passed=False, value=None, threshold=0.9)
    for gates, message in (((), "never judged"), ((failed,), "accuracy unknown, needs >= 0.9")):
        sha = registry.add(*make.hmm(gates=gates), "")
        with pytest.raises(ModelError, match=message):
            registry.activate("1h", sha, now_ms=NOW)
    assert registry.current("1h") is None


def test_kind_interval_and_partner_must_fit(registry, add_pair, make):
    hmm, lstm = add_pair()
    other, _ = add_pair(scale=1.1)
    for arguments, message in (
        (("1h", lstm, ""), "its kind is lstm; expected hmm"),
        (("1h", hmm, hmm), "its kind is hmm; expected lstm"),
        (("4h", hmm, lstm), "its interval is 1h; expected 4h"),
        (("1h", other, lstm), "it was trained with HMM"),
        (("2y", hmm, lstm), "unknown interval '2y'"),
    ):
        with pytest.raises(ModelError, match=message):
            registry.activate(*arguments, now_ms=NOW)


def test_expiry_refuses_a_load_but_not_a_look(registry, add_pair):
    hmm, lstm = add_pair()
    registry.activate("1h", hmm, lstm, NOW)
    with pytest.raises(ModelError, match="expiry"):
        registry.load("1h", 1_900_000_000_000)
    assert registry.load("1h")
    assert registry.verify(hmm).sha256 == hmm


def test_a_refused_lstm_leaves_the_hmm_where_that_is_wanted(registry, add_pair):
    hmm, lstm = add_pair()
    registry.activate("1h", hmm, lstm, NOW)
    (registry.root / "archive" / lstm / "model.onnx").write_bytes(b"broken")
    with pytest.raises(ModelError, match="sha256"):
        registry.load("1h", NOW)
    pair = registry.load("1h", NOW, hmm_alone=True)
    assert pair.lstm is None
    assert "sha256" in pair.lstm_refusal


def test_missing_and_linked_files_are_refused(registry, add_pair, tmp_path):
    hmm, lstm = add_pair()
    registry.activate("1h", hmm, lstm, NOW)
    folder = registry.root / "archive" / hmm
    original = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx is not readable .* restore it"):
        registry.load("1h", NOW)
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(original)
    (folder / "model.onnx").symlink_to(outside)
    with pytest.raises(ModelError, match="not readable"):
        registry.load("1h", NOW)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    with pytest.raises(ModelError, match="refused"):
        registry.load("1h", NOW)
    (folder / "model.onnx").rmdir()
    os.link(outside, folder / "model.onnx")
    assert registry.load("1h", NOW)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(ModelError, match="not readable"):
        registry.load("1h", NOW)


def test_a_file_too_large_is_refused(registry, make):
    sha = registry.add(*make.hmm(), "")
    with (registry.root / "archive" / sha / "model.onnx").open("wb") as stream:
        stream.truncate(archive.MAX_BYTES + 1)
    with pytest.raises(ModelError, match="expected a plain file"):
        registry.verify(sha)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=70) | st.sampled_from(["..", "../..", "%2e%2e", "a" * 63, "A" * 64, "\0"]))
def test_ids_that_are_no_sha256_never_reach_the_file_system(registry, text):
    with pytest.raises(ModelError, match="is no model id"):
        registry.verify(text)
    with pytest.raises(ModelError, match="unknown interval"):
        registry.current(text)


@pytest.mark.parametrize("junk", [b"", b"[]", b'{"intervals": {}, "extra": 1}', b"\xff"])
def test_a_damaged_pointer_is_refused(registry, make, junk):
    sha = registry.add(*make.hmm(), "")
    (registry.root / "current.json").write_bytes(junk)
    with pytest.raises(ModelError, match=r"pointer .* is unreadable"):
        registry.load("1h", NOW)
    assert [(model.sha256, model.active) for model in registry.list()] == [(sha, ())]


def test_the_list_names_what_is_active_and_what_is_broken(registry, add_pair):
    hmm, lstm = add_pair()
    registry.activate("1h", hmm, lstm, NOW)
    other, _ = add_pair(scale=1.1, created_ms=1_700_000_000_001)
    (registry.root / "archive" / lstm / "manifest.json").write_bytes(b"junk")
    (registry.root / "archive" / "notes").mkdir()
    found = {model.sha256: model for model in registry.list()}
    assert len(found) == 4
    assert found[hmm].active == ("1h",)
    assert found[other].active == ()
    assert "unreadable manifest" in found[lstm].problem
    assert found[lstm].manifest is None
    assert registry.list()[0].manifest.created_ms == 1_700_000_000_001


def test_the_stamp_changes_with_every_activation(registry, add_pair):
    pairs = [add_pair(), add_pair(scale=1.1)]
    stamps = {registry.pointer_stamp()}
    for hmm, lstm in pairs:
        registry.activate("1h", hmm, lstm, NOW)
        stamps.add(registry.pointer_stamp())
    assert len(stamps) == 3


def test_copies_are_the_main_intervals_or_the_only_ones(registry, add_pair, make):
    hmm4, lstm4 = add_pair(interval="4h")
    registry.activate("4h", hmm4, lstm4, NOW)
    copy = registry.root / "hmm_regime.onnx"
    assert make.sha256(copy.read_bytes()) == hmm4
    hmm1, lstm1 = add_pair(scale=1.1)
    registry.activate("1h", hmm1, lstm1, NOW)
    assert make.sha256(copy.read_bytes()) == hmm1
    registry.activate("4h", hmm4, lstm4, NOW)
    assert make.sha256(copy.read_bytes()) == hmm1
    assert registry.check_copies() == []


def test_without_the_main_interval_two_others_have_no_copy(registry, add_pair):
    for interval, scale in (("4h", 1.0), ("2h", 1.1)):
        registry.activate(interval, *add_pair(scale=scale, interval=interval), now_ms=NOW)
    assert registry.check_copies() == []


def test_unseen_symbols_need_a_passed_verdict(registry, make):
    sha = registry.add(*make.hmm(), "")
    registry.activate("1h", sha)
    pair = registry.load("1h")
    pair.require("BTCUSDT")
    with pytest.raises(ModelError, match=r"not trained on SOLUSDT.*trained on BTCUSDT ETHUSDT"):
        pair.require("SOLUSDT")
    for passed in (True, False):
        verdict = UnseenVerdict(symbols=("DOTUSDT",), accuracy=0.94, passed=passed)
        sha = registry.add(*make.hmm(unseen=verdict), "")
        registry.activate("1h", sha)
        assert registry.load("1h").admits("SOLUSDT") is passed


def test_a_crash_at_any_step_leaves_the_old_pair_or_the_new_one(registry, add_pair, monkeypatch):
    old, new = add_pair(), add_pair(scale=1.1)
    registry.activate("1h", *old, now_ms=NOW)
    steps = 0

    class Crash(BaseException):
        pass

    real = os.fsync
    for allowed in range(20):
        left = [allowed]

        def fsync(file, left=left):
            if not left[0]:
                raise Crash
            left[0] -= 1
            real(file)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            registry.activate("1h", *new, now_ms=NOW)
            done = True
        except Crash:
            done = False
        monkeypatch.setattr(os, "fsync", real)
        after = ModelRegistry(registry.root)
        assert after.current("1h").shas in (old, new)
        assert after.load("1h", NOW)
        registry.activate("1h", *old, now_ms=NOW)
        steps += 1
        if done:
            break
    assert steps > 4
    assert after.check_copies() == []


def test_a_pair_replaces_the_one_it_was_meant_to_replace_and_no_other(registry, add_pair):
    first, second, third = add_pair(), add_pair(scale=1.1), add_pair(scale=1.2)
    with pytest.raises(ModelError, match=f"nothing is promoted for 1h; expected {first[0][:12]}"):
        registry.activate("1h", *second, now_ms=NOW, instead_of=first)
    registry.activate("1h", *first, now_ms=NOW, instead_of=registry_module.NOTHING)
    for wrong in (registry_module.NOTHING, second, (first[0], ""), third):
        with pytest.raises(ModelError, match=f"and {first[1][:12]} is promoted for 1h; expected"):
            registry.activate("1h", *third, now_ms=NOW, instead_of=wrong)
    assert registry.current("1h").shas == first
    assert len(registry.activations("1h")) == 1
    registry.activate("1h", *third, now_ms=NOW, instead_of=first)
    assert registry.current("1h").shas == third


def test_of_many_who_replace_the_same_pair_at_once_one_does(registry, add_pair):
    first, second = add_pair(), add_pair(scale=1.1)
    registry.activate("1h", *first, now_ms=NOW)
    start = Barrier(4)

    def replace(_):
        own = ModelRegistry(registry.root)
        start.wait()
        try:
            own.activate("1h", *second, now_ms=NOW, instead_of=first)
        except ModelError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(replace, range(4))) == 1
    assert len(registry.activations("1h")) == 2


def test_a_crash_while_adding_leaves_nothing_half_written(registry, make, monkeypatch):
    data, manifest = make.hmm()
    real = os.fsync

    def fsync(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="no space"):
        registry.add(data, manifest, "")
    monkeypatch.setattr(os, "fsync", real)
    assert registry.list() == []
    assert registry.add(data, manifest, "") == make.sha256(data)


def test_the_history_survives_a_torn_line(registry, add_pair):
    assert registry.activations("1h") == []
    pair = add_pair()
    registry.activate("1h", *pair, now_ms=NOW)
    with (registry.root / registry_module.ACTIVATIONS).open("ab") as stream:
        stream.write(b'{"action": "pro')
    registry.activate("1h", *pair, now_ms=NOW + 1)
    assert [entry.pair.activated_ms for entry in registry.activations("1h")] == [NOW, NOW + 1]
    assert registry.activations("4h") == []


def test_a_manifest_survives_its_json(make):
    from bot4_runtime.regime.manifest import decode_manifest

    manifest = make.hmm(metrics={"test": {"accuracy": None, "ece": 0.01}})[1]
    assert decode_manifest(manifest.encode()) == manifest
    ragged = msgspec.structs.replace(manifest.definition, transitions=((1.0,), (0.5, 0.5)))
    with pytest.raises(ModelError, match="ragged"):
        ragged.parameters()
