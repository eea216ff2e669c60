"""From the bytes of a model file to something that may be asked, or a refusal that says why.

Everything that can be wrong with a file is looked for here: bytes, operator set, external data,
inputs and outputs, feature schema, class order, golden vectors, expiry. ONNX Runtime itself
notices almost nothing. Where files lie and which are promoted is `registry`'s business.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.errors import ModelError
from bot4_runtime.domain.regime import REGIME_LABELS
from bot4_runtime.features.schema import FEATURE_NAMES, TREND_WINDOW, feature_schema_id
from bot4_runtime.regime.hmm import SCORE_NAMES, STATES, HmmParameters, forward_filter
from bot4_runtime.regime.manifest import (
    FORMAT,
    LEAST_WINDOW,
    METADATA_KEY,
    MOST_WINDOW,
    OPSET,
    Manifest,
    ModelKind,
    decode_manifest,
)
from bot4_runtime.regime.onnx_file import NotOnnxError, read_facts

GOLDEN_TOLERANCE: Final = 1e-5
LSTM_COLUMNS: Final[tuple[str, ...]] = (*FEATURE_NAMES, *SCORE_NAMES)
"""Columns of the LSTM's input: the candle features, then the Viterbi scores."""

_FREE: Final = None
_Ports = dict[str, tuple[str, tuple[int | None, ...]]]
_HMM_INPUTS: Final[_Ports] = {
    "obs": ("tensor(double)", (_FREE, _FREE, 1)),
    "log_prior": ("tensor(double)", (_FREE, STATES)),
}
_OUTPUTS: Final[dict[ModelKind, _Ports]] = {
    ModelKind.HMM: {
        "filtered": ("tensor(double)", (_FREE, _FREE, STATES)),
        "next_log_prior": ("tensor(double)", (_FREE, STATES)),
        "loglik": ("tensor(double)", (_FREE,)),
    },
    ModelKind.LSTM: {"probabilities": ("tensor(float)", (_FREE, STATES))},
}
_DTYPES: Final = {"tensor(double)": np.float64, "tensor(float)": np.float32}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A verified model: its identity, what it says of itself, and an ONNX Runtime session."""

    sha256: str
    manifest: Manifest
    session: Any

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Ask the model; outputs in the order of the file's interface."""
        outputs: list[npt.NDArray[Any]] = self.session.run(None, inputs)
        return outputs

    def parameters(self) -> HmmParameters:
        """Return an HMM's parameters.

        Raises:
            ModelError: the manifest carries none.
        """
        if self.manifest.definition is None:
            raise ModelError(f"model {self.sha256[:12]} carries no HMM parameters")
        return self.manifest.definition.parameters()


def load_model(
    data: bytes, manifest_json: bytes, sha256: str, *, now_ms: int | None = None
) -> LoadedModel:
    """Verify a model file against its manifest and open it.

    Args:
        data: the ONNX file.
        manifest_json: the manifest beside it.
        sha256: what the file must hash to.
        now_ms: UTC; None does not look at the expiry.

    Raises:
        ModelError: anything does not hold; says what was found, what was expected, what to do.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise _refusal(sha256, "sha256", found, sha256, "restore the file or promote another")
    try:
        return _verified(data, manifest_json, sha256, now_ms)
    except ModelError:
        raise
    except Exception as error:
        # A file whose sha256 holds may still carry anything: text that is no UTF-8, absurd sizes.
        raise _refusal(
            sha256, "the file", f"damaged ({type(error).__name__}: {error})", "a sound model",
            "export the model again",
        ) from error  # fmt: skip


def _verified(data: bytes, manifest_json: bytes, sha256: str, now_ms: int | None) -> LoadedModel:
    manifest = decode_manifest(manifest_json)
    _check_manifest(manifest, sha256, now_ms)
    _check_structure(data, sha256)
    session = _open(data, sha256)
    inside = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if inside is None or decode_manifest(inside) != manifest:
        raise _refusal(
            sha256, "manifest.json", "another manifest", "the one inside the ONNX file",
            "restore manifest.json or promote another model",
        )  # fmt: skip
    for side, ports, expected in (
        ("inputs", session.get_inputs(), _inputs(manifest)),
        ("outputs", session.get_outputs(), _OUTPUTS[manifest.kind]),
    ):
        _check_ports(sha256, side, ports, expected)
    model = LoadedModel(sha256, manifest, session)
    _check_golden(model)
    return model


def _inputs(manifest: Manifest) -> _Ports:
    """Return what the graph must ask for: of an LSTM, as many rows as its manifest says."""
    if manifest.kind is ModelKind.HMM:
        return _HMM_INPUTS
    return {"features": ("tensor(float)", (_FREE, manifest.window, len(LSTM_COLUMNS)))}


def _refusal(sha256: str, what: str, found: object, expected: object, remedy: str) -> ModelError:
    return ModelError(
        f"model {sha256[:12]} refused: {what} is {found}; expected {expected}; {remedy}"
    )


def _utc(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _check_manifest(manifest: Manifest, sha256: str, now_ms: int | None) -> None:
    again = "train and promote with this version"
    columns = LSTM_COLUMNS if manifest.kind is ModelKind.LSTM else ("z",)
    for what, found, expected in (
        ("manifest format", manifest.format, FORMAT),
        ("feature schema", manifest.schema_id, feature_schema_id()),
        ("feature order", manifest.feature_names, columns),
        ("class order", manifest.class_order, REGIME_LABELS),
    ):
        if found != expected:
            raise _refusal(sha256, what, found, expected, again)
    if now_ms is not None and not now_ms < manifest.expires_ms:
        raise _refusal(
            sha256, "the time", _utc(now_ms), f"before its expiry, {_utc(manifest.expires_ms)}",
            "train and promote a new one",
        )  # fmt: skip
    window = manifest.definition.trend_window if manifest.definition else None
    if manifest.kind is ModelKind.HMM and window != TREND_WINDOW:
        raise _refusal(sha256, "the trend window", window, TREND_WINDOW, again)
    if manifest.kind is ModelKind.LSTM and not manifest.hmm_sha256:
        raise _refusal(sha256, "the LSTM's HMM", "not named", "a sha256", again)
    if manifest.kind is ModelKind.LSTM and not LEAST_WINDOW <= manifest.window <= MOST_WINDOW:
        raise _refusal(
            sha256, "the LSTM's window", f"{manifest.window} candles",
            f"{LEAST_WINDOW} to {MOST_WINDOW}", "train with a lookback within (BOT4_LOOKBACK)",
        )  # fmt: skip


def _check_structure(data: bytes, sha256: str) -> None:
    export = "export the model again"
    try:
        facts = read_facts(data)
    except NotOnnxError as error:
        raise _refusal(sha256, "the file", f"damaged ({error})", "ONNX", export) from error
    if facts.external_data:
        raise _refusal(sha256, "its data", "in other files", "inside the file", export)
    if facts.opsets != {"": OPSET}:
        raise _refusal(sha256, "opset", facts.opsets, {"": OPSET}, export)
    foreign = sorted(name for name in facts.operators if "." in name)
    if foreign or facts.extras:
        raise _refusal(
            sha256, "its content", foreign or "functions or training graphs",
            "operators of ONNX itself", export,
        )  # fmt: skip


def _open(data: bytes, sha256: str) -> Any:
    import onnxruntime  # a strategy without models goes without it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], enable_fallback=False
        )  # the fallback is the same provider again, and prints on stdout
    except Exception as error:
        raise _refusal(
            sha256, "the graph", f"not loadable ({error})", "one that ONNX Runtime loads",
            "export the model again",
        ) from error  # fmt: skip


def _check_ports(sha256: str, side: str, ports: Any, expected: _Ports) -> None:
    """Names, types and fixed dimensions; a named or missing dimension in the file is free."""
    found: _Ports = {
        port.name: (port.type, tuple(d if isinstance(d, int) else _FREE for d in port.shape))
        for port in ports
    }
    if list(found.items()) != list(expected.items()):
        raise _refusal(sha256, f"its {side}", found, expected, "export the model again")


def _check_golden(model: LoadedModel) -> None:
    manifest = model.manifest
    outputs = _OUTPUTS[manifest.kind]
    if not manifest.golden:
        raise _refusal(
            model.sha256, "golden vectors", "missing", "at least one", "export the model again"
        )
    for golden in manifest.golden:
        inputs = _golden_inputs(model, golden.inputs)
        answers = [_ask(model, inputs)]
        if manifest.kind is ModelKind.HMM:
            answers.append(_by_numpy(model.parameters(), inputs))
        for answer in answers:
            for name, array in zip(outputs, answer, strict=True):
                wanted = golden.outputs[name].array() if name in golden.outputs else None
                error = _distance(array, wanted)
                if not error <= GOLDEN_TOLERANCE:
                    raise _refusal(
                        model.sha256, f"{name} of a golden vector", f"off by {error:.3g}",
                        f"at most {GOLDEN_TOLERANCE}", "restore the file or promote another",
                    )  # fmt: skip


def _ask(model: LoadedModel, inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    try:
        return model.run(inputs)
    except Exception as error:
        raise _refusal(
            model.sha256, "the graph", f"not runnable ({error})", "one that answers",
            "export the model again",
        ) from error  # fmt: skip


def _distance(found: npt.NDArray[Any], wanted: npt.NDArray[np.float64] | None) -> float:
    """Return the largest difference; NaN where the arrays cannot be compared."""
    if wanted is None or found.shape != wanted.shape:
        return math.nan
    return float(np.abs(found - wanted).max(initial=0.0))


def _golden_inputs(model: LoadedModel, recorded: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    expected = _inputs(model.manifest)
    arrays = {
        name: recorded[name].array().astype(_DTYPES[dtype])
        for name, (dtype, _) in expected.items()
        if name in recorded
    }
    fits = len(arrays) == len(expected) == len(recorded) and all(
        arrays[name].ndim == len(shape)
        and all(
            want in (_FREE, have) for want, have in zip(shape, arrays[name].shape, strict=True)
        )
        and arrays[name].size
        for name, (_, shape) in expected.items()
    )
    if not fits:
        raise _refusal(
            model.sha256, "its golden input",
            {name: tensor.shape for name, tensor in recorded.items()},
            {name: shape for name, (_, shape) in expected.items()}, "export the model again",
        )  # fmt: skip
    return arrays


def _by_numpy(
    params: HmmParameters, inputs: Mapping[str, npt.NDArray[Any]]
) -> list[npt.NDArray[Any]]:
    """Ask the parameters of the manifest what the graph was asked: they must agree."""
    rows = [
        forward_filter(z[:, 0], params, prior)
        for z, prior in zip(inputs["obs"], inputs["log_prior"], strict=True)
    ]
    return [np.stack([np.asarray(row[part]) for row in rows]) for part in range(3)]
