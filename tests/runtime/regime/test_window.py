"""How many candles an LSTM reads is its own: said by its manifest, held against its graph."""

import json

import numpy as np
import pytest
from feature_steps import load, run, steps

from bot4_pipelines.training.hmm_export import golden_of
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.features.schema import LOOKBACK, TREND_WINDOW
from bot4_runtime.identity import WARM_CANDLES
from bot4_runtime.regime.detector import RegimeDetector
from bot4_runtime.regime.hmm import viterbi_scores
from bot4_runtime.regime.loader import load_model
from bot4_runtime.regime.manifest import (
    LEAST_WINDOW,
    METADATA_KEY,
    MOST_WINDOW,
    WINDOW,
    Manifest,
    decode_manifest,
)
from bot4_runtime.regime.pair import ModelPair


def pair_of(make, window: int, scale: float = 1.0) -> ModelPair:
    """Return a pair whose LSTM names what the first row of its window says."""
    hmm = load(make.hmm(scale=scale), make)
    graph = make.linear_graph(window=window, row=0)
    return ModelPair("1h", hmm, load(make.lstm(hmm.sha256, graph, window=window), make))


# ------------------------------------------------------------------------ what is loaded
def sealed(make, rows: int, **written: object) -> tuple[bytes, bytes]:
    """Return a file and its manifest in which other things are written than hold."""
    import onnx

    data, manifest = make.lstm("a" * 64, window=rows)
    told = json.loads(manifest.encode()) | written
    told = {name: value for name, value in told.items() if value is not None}
    text = json.dumps(told)
    model = onnx.load_model_from_string(data)
    kept = {entry.key: entry.value for entry in model.metadata_props} | {METADATA_KEY: text}
    onnx.helper.set_model_props(model, kept)
    return model.SerializeToString(), text.encode()


@pytest.mark.parametrize("window", [LEAST_WINDOW, 20, 80, MOST_WINDOW])
def test_a_model_of_any_window_within_the_bounds_loads_and_answers(make, window: int) -> None:
    lstm = load(make.lstm("a" * 64, window=window), make)
    assert lstm.manifest.window == window
    assert lstm.run({"features": np.zeros((2, window, 28), dtype=np.float32)})[0].shape == (2, 5)


def test_a_manifest_from_before_windows_were_a_choice_means_fifty(make) -> None:
    data, told = sealed(make, 50, window=None)
    assert b"window" not in told
    assert load_model(data, told, make.sha256(data)).manifest.window == WINDOW == 50
    other, told = sealed(make, 20, window=None)
    with pytest.raises(ModelError, match=r"its inputs is .*20.*expected .*50"):
        load_model(other, told, make.sha256(other))


def test_a_graph_of_another_window_than_its_manifest_is_refused(make) -> None:
    for window in (LEAST_WINDOW, 19, 21, 50, MOST_WINDOW):
        data, told = sealed(make, 20, window=window)
        with pytest.raises(ModelError, match=rf"its inputs is .*20, 28.*expected .*{window}, 28"):
            load_model(data, told, make.sha256(data))


@pytest.mark.parametrize("window", [-1, 0, LEAST_WINDOW - 1, MOST_WINDOW + 1, 10**9])
def test_a_window_out_of_bounds_is_refused_before_the_file_is_opened(make, window: int) -> None:
    data, told = sealed(make, 20, window=window)
    with pytest.raises(
        ModelError, match=rf"window is {window} candles; expected 10 to 180; train"
    ):
        load_model(data, told, make.sha256(data))


@pytest.mark.parametrize("window", ["20", 20.5, True, [20]])
def test_a_window_that_is_no_number_is_no_manifest(make, window: object) -> None:
    data, told = sealed(make, 20, window=window)
    with pytest.raises(ModelError, match="unreadable manifest"):
        load_model(data, told, make.sha256(data))


def test_the_manifest_beside_must_name_the_window_inside(make) -> None:
    data, _ = sealed(make, 20)
    _, other = sealed(make, 20, window=21)
    with pytest.raises(ModelError, match=r"manifest\.json is another manifest"):
        load_model(data, other, make.sha256(data))


def test_golden_vectors_of_another_window_are_refused(make) -> None:
    golden = golden_of(
        make.linear_graph(window=80), {"features": np.ones((1, 80, 28), dtype=np.float32)}
    )
    with pytest.raises(ModelError, match=r"golden input is .*80, 28.*expected .*20, 28"):
        load(make.lstm("a" * 64, window=20, golden=(golden,)), make)


def test_a_free_length_is_no_window(make) -> None:
    graph = _free(make)
    golden = make.lstm("a" * 64, window=20)[1].golden
    with pytest.raises(ModelError, match=r"its inputs is .*None, None, 28.*expected .*None, 20"):
        load(make.lstm("a" * 64, graph, window=20, golden=golden), make)


def _free(make) -> bytes:
    import onnx

    model = onnx.load_model_from_string(make.linear_graph(window=20))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "T"
    return model.SerializeToString()


def test_an_hmm_says_nothing_of_a_window(make) -> None:
    data, manifest = make.hmm(window=20)
    assert load((data, manifest), make).manifest.window == 20
    assert decode_manifest(manifest.encode()) == manifest
    assert Manifest.__struct_fields__.count("window") == 1


# ------------------------------------------------------------------------ what is asked
def test_the_longest_window_is_whole_after_the_candles_that_a_session_shows() -> None:
    assert WARM_CANDLES - LOOKBACK + 1 >= MOST_WINDOW


@pytest.mark.parametrize("window", [LEAST_WINDOW, 20, 50, 80, MOST_WINDOW])
def test_the_lstm_reads_as_many_valid_rows_as_its_manifest_says(make, window: int) -> None:
    pair = pair_of(make, window)
    rows = list(steps(2_000))
    found = run(RegimeDetector(pair), rows)
    first = LOOKBACK + window - 2
    assert [estimate is not None for estimate in found] == [at >= first for at in range(2_000)]
    scores = viterbi_scores(
        np.array([row.z for _, row in rows[TREND_WINDOW:]]), pair.hmm.parameters()
    )
    beyond = LOOKBACK + 1_024 - 2  # where the room for rows is used up, and what is kept moves
    for at in (first, beyond, beyond + 1, beyond + 2, 1_999):
        begin = at + 1 - window
        inputs = np.concatenate(
            [
                np.array([row.values for _, row in rows[begin : at + 1]]),
                scores[begin - TREND_WINDOW : at + 1 - TREND_WINDOW],
            ],
            axis=1,
        ).astype(np.float32)
        wanted = pair.lstm.run({"features": inputs[None]})[0][0]
        assert found[at].probabilities == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("before", "after"), [(50, 20), (20, 80), (80, 180), (180, 10)])
@pytest.mark.parametrize("at", [0, 540, 600, 720, 1_600])
def test_a_pair_of_another_window_is_swapped_in_and_back(
    make, before: int, after: int, at: int
) -> None:
    """Each answers as if there had been no other, however long the windows and the past."""
    old, new = pair_of(make, before), pair_of(make, after, scale=1.3)
    rows = list(steps(at + 400, seed=3))
    detector = RegimeDetector(old)
    run(detector, rows[:at])
    beside = detector.fork(new)
    detector.swap(new)
    there = run(detector, rows[at : at + 200])
    assert there == run(beside, rows[at : at + 200])
    detector.swap(old)
    back = run(detector, rows[at + 200 :])
    for pair, part, found in (
        (new, slice(at, at + 200), there),
        (old, slice(at + 200, None), back),
    ):
        alone = run(RegimeDetector(pair), rows)[part]
        assert [one is None for one in found] == [one is None for one in alone]
        for one, wanted in zip(found, alone, strict=True):
            if wanted is not None:
                assert one.model_sha256 == wanted.model_sha256
                assert one.probabilities == pytest.approx(wanted.probabilities, abs=1e-6)
    assert detector.faults == 0
