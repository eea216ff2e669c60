"""Whatever does not hold is refused, in words."""

import base64
import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.loader import load_model
from bot4_runtime.regime.manifest import GoldenVector, Tensor, decode_manifest
from bot4_runtime.regime.onnx_file import NotOnnxError, read_facts


def load(data, manifest, make, **options):
    return load_model(data, manifest.encode(), make.sha256(data), **options)


def test_a_sound_pair_loads_and_answers(make):
    hmm = load(*make.hmm(), make)
    answer = hmm.run({"obs": np.zeros((1, 1, 1)), "log_prior": np.full((1, 5), -1.6)})
    assert answer[0].shape == (1, 1, 5)
    assert hmm.parameters().means == pytest.approx(make.parameters().means)
    lstm = load(*make.lstm(hmm.sha256), make)
    assert lstm.run({"features": np.zeros((2, 50, 28), dtype=np.float32)})[0].shape == (2, 5)
    with pytest.raises(ModelError, match="no HMM parameters"):
        lstm.parameters()


def test_another_sha256_is_refused(make):
    data, manifest = make.hmm()
    with pytest.raises(ModelError, match=r"sha256 is .* expected 0000.* restore the file"):
        load_model(data, manifest.encode(), "0" * 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_id": "f" * 64}, "feature schema is ffff"),
        ({"class_order": ("StrongBull", "Bull", "Neutral", "Bear", "StrongBear")}, "class order"),
        ({"feature_names": ("volume",)}, "feature order"),
        ({"format": 2}, "manifest format is 2; expected 1"),
        ({"expires_ms": 1_700_000_000_001}, "expiry, 2023-11-14"),
        ({"golden": ()}, "golden vectors is missing"),
        ({"definition": None}, "trend window is None"),
    ],
)
def test_a_manifest_that_does_not_hold_is_refused(make, changes, message):
    data, manifest = make.hmm(**changes)
    with pytest.raises(ModelError, match=message):
        load(data, manifest, make, now_ms=1_800_000_000_000)


def test_expiry_is_the_first_moment_refused(make):
    data, manifest = make.hmm()
    load(data, manifest, make, now_ms=manifest.expires_ms - 1)
    with pytest.raises(ModelError, match="expiry"):
        load(data, manifest, make, now_ms=manifest.expires_ms)


def test_an_lstm_must_name_its_hmm(make):
    with pytest.raises(ModelError, match="the LSTM's HMM is not named"):
        load(*make.lstm(""), make)


def test_the_manifest_beside_must_be_the_one_inside(make):
    data, manifest = make.hmm()
    other = msgspec.structs.replace(manifest, symbols=("XUSDT",))
    with pytest.raises(ModelError, match=r"manifest\.json is another manifest"):
        load(data, other, make)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"opset": 16}, "opset is {'': 16}; expected {'': 17}"),
        ({"name": "inputs"}, "its inputs is .*'inputs'"),
        ({"window": 49}, "its inputs is .*49.*expected .*50"),
    ],
)
def test_another_interface_is_refused(make, graph, message):
    golden = GoldenVector(inputs={}, outputs={})
    data, manifest = make.lstm("a" * 64, make.linear_graph(**graph), golden=(golden,))
    with pytest.raises(ModelError, match=message):
        load(data, manifest, make)


def test_golden_vectors_must_be_met(make):
    good = make.lstm("a" * 64)[1].golden[0]
    values = good.outputs["probabilities"].values
    off = Tensor(good.outputs["probabilities"].shape, (values[0] + 2e-5, *values[1:]))
    nearly = Tensor(off.shape, (values[0] + 5e-6, *values[1:]))
    assert load(*make.lstm("a" * 64, golden=(_with(good, nearly),)), make)
    with pytest.raises(ModelError, match="golden vector is off by 2e-05; expected at most"):
        load(*make.lstm("a" * 64, golden=(_with(good, off),)), make)
    with pytest.raises(ModelError, match="off by nan"):
        load(*make.lstm("a" * 64, golden=(GoldenVector(inputs=good.inputs, outputs={}),)), make)
    with pytest.raises(ModelError, match="golden input"):
        load(*make.lstm("a" * 64, golden=(GoldenVector(inputs={}, outputs={}),)), make)
    short = {"features": Tensor((1, 2, 28), tuple([0.0] * 56))}
    with pytest.raises(ModelError, match="golden input"):
        load(*make.lstm("a" * 64, golden=(GoldenVector(inputs=short, outputs={}),)), make)


def _with(golden, tensor):
    return GoldenVector(inputs=golden.inputs, outputs={"probabilities": tensor})


def test_a_graph_that_answers_nan_is_refused(make):
    graph = make.linear_graph(gain=float("nan"))
    good = make.lstm("a" * 64)[1].golden
    with pytest.raises(ModelError, match="off by nan"):
        load(*make.lstm("a" * 64, graph, golden=good), make)


def test_the_graph_must_compute_what_its_parameters_say(make):
    _, manifest = make.hmm()
    other, _ = make.hmm(scale=1.2, definition=manifest.definition)
    with pytest.raises(ModelError, match="of a golden vector is off"):
        load(other, decode_manifest(_inside(other)), make)


def _inside(data: bytes) -> str:
    import onnx

    return {e.key: e.value for e in onnx.load_model_from_string(data).metadata_props}["manifest"]


def altered(data: bytes, change) -> bytes:
    import onnx

    model = onnx.load_model_from_string(data)
    change(model)
    return model.SerializeToString()


def test_data_in_other_files_is_refused(make):
    data, manifest = make.lstm("a" * 64)

    def point_elsewhere(model):
        entry = model.graph.initializer[0].external_data.add()
        entry.key, entry.value = "location", "../../../etc/passwd"
        model.graph.initializer[0].data_location = 1

    def hide_in_attribute(model):
        node = model.graph.node.add(op_type="Constant", output=["hidden"])
        attribute = node.attribute.add(name="value", type=4)
        attribute.t.external_data.add(key="location", value="weights.bin")

    def hide_in_sparse(model):
        model.graph.sparse_initializer.add().values.data_location = 1

    for change in (point_elsewhere, hide_in_attribute, hide_in_sparse):
        with pytest.raises(ModelError, match="its data is in other files"):
            load(altered(data, change), manifest, make)


def test_foreign_operators_and_functions_are_refused(make):
    data, manifest = make.lstm("a" * 64)

    def foreign(model):
        model.graph.node.add(op_type="Steal", domain="com.evil")

    def function(model):
        model.functions.add(name="f", domain="local")

    with pytest.raises(ModelError, match=r"its content is \['com.evil.Steal'\]"):
        load(altered(data, foreign), manifest, make)
    with pytest.raises(ModelError, match="functions or training graphs"):
        load(altered(data, function), manifest, make)


def test_a_graph_onnx_runtime_cannot_load_or_run_is_refused(make):
    data, manifest = make.lstm("a" * 64)

    def unknown(model):
        model.graph.node[1].op_type = "NoSuchOperator"

    def out_of_range(model):
        model.graph.initializer[1].raw_data = np.array(77, dtype=np.int64).tobytes()

    with pytest.raises(ModelError, match="the graph is not loadable"):
        load(altered(data, unknown), manifest, make)
    with pytest.raises(ModelError, match="the graph is not runnable"):
        load(altered(data, out_of_range), manifest, make)


def test_a_manifest_that_is_none_is_refused(make):
    data, _ = make.hmm()
    for junk in (b"", b"{}", b"\xff\xfe", b'{"kind": "tree"}'):
        with pytest.raises(ModelError, match="unreadable manifest"):
            load_model(data, junk, make.sha256(data))


def test_facts_are_what_the_onnx_package_reads(make):
    for data, _ in (make.hmm(), make.lstm("a" * 64)):
        facts = read_facts(data)
        assert facts.opsets == {"": 17}
        assert not facts.external_data
        assert not facts.extras
    assert {"Scan", "Exp", "ReduceMax"} <= read_facts(make.hmm()[0]).operators


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_walked_or_refused(junk):
    with contextlib.suppress(NotOnnxError):
        assert read_facts(junk).opsets is not None


def test_what_is_no_onnx_is_refused_though_its_sha256_is_right(make):
    _, manifest = make.hmm()
    with pytest.raises(ModelError, match=r"the file is damaged .* export the model again"):
        load(b"not a model", manifest, make)


def test_every_truncation_is_refused_before_onnx_runtime_sees_it(make):
    data, manifest = make.lstm("a" * 64)
    for end in range(0, len(data), max(1, len(data) // 200)):
        with pytest.raises(ModelError):
            load_model(data[:end], manifest.encode(), make.sha256(data))


def test_every_bit_flip_is_refused(make):
    data, manifest = make.lstm("a" * 64)
    whole = make.sha256(data)
    rng = np.random.default_rng(0)
    for at, bit in zip(rng.integers(len(data), size=300), rng.integers(8, size=300), strict=True):
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        with pytest.raises(ModelError, match="sha256"):
            load_model(bytes(flipped), manifest.encode(), whole)


@pytest.mark.parametrize(
    "junk",
    [
        base64.b16decode(b"38FF"),  # field 7 as a group end
        base64.b16decode(b"3805"),  # the graph as a number
        base64.b16decode(b"4203080A01FF"),  # an opset with a torn entry
        base64.b16decode(b"42030A01FF3A00"),  # a domain that is not UTF-8
        base64.b16decode(b"4202080A3A00"[:8] + b"3A00"),
        base64.b16decode(b"42020801" + b"3A050A030A01"),  # torn node
        base64.b16decode(b"4203120141" + b"3A00"),  # version as text
        base64.b16decode(b"42020801" + b"3A040A022001"),  # operator name as a number
        base64.b16decode(b"3B"),
        b"\xff" * 12,
    ],
)
def test_damaged_structures_never_pass_unnoticed(junk, make):
    try:
        facts = read_facts(junk)
    except NotOnnxError:
        return
    assert facts.opsets != {"": 17}


def test_fixed_width_fields_are_skipped():
    assert read_facts(b"\x3a\x00" + b"\x7d\x00\x00\x00\x00" + b"\x79" + b"\x00" * 8).opsets == {}


def test_a_tensor_must_fill_its_shape():
    assert Tensor.of([[1.0, 2.0]]).array().tolist() == [[1.0, 2.0]]
    with pytest.raises(ModelError, match="has 1 values"):
        Tensor((2,), (1.0,)).array()
    with pytest.raises(ModelError, match="has 1 values"):
        Tensor((-1, -1), (1.0,)).array()
