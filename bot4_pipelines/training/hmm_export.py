"""Writes the HMM's forward filter as an ONNX graph, and seals a model with its manifest.

``obs[B,T,1], log_prior[B,5] -> filtered[B,T,5], next_log_prior[B,5], loglik[B]``, float64, one
`Scan` over time in log space. A window and a streaming step are the same file: feed
``next_log_prior`` back. Means, variances and transitions are initialisers; the pool of blocks of
training returns, which look-ahead simulation draws from, lies in the metadata.
"""

import base64
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.hmm import STATES, HmmParameters
from bot4_runtime.regime.lookahead import BLOCK_LENGTH_KEY, BLOCKS_KEY, MAX_POOL
from bot4_runtime.regime.manifest import (
    METADATA_KEY,
    OPSET,
    GoldenVector,
    Manifest,
    Tensor,
)

IR_VERSION: Final = 8
_SWEEP: Final = 50


def hmm_graph(
    params: HmmParameters, return_blocks: npt.NDArray[np.floating[Any]] | None = None
) -> bytes:
    """Build the graph of the forward filter.

    Args:
        params: the fitted HMM.
        return_blocks: float[blocks, length], contiguous training returns in units of rv_72; at
            most 4,096 numbers.

    Returns:
        The serialised ONNX model, without a manifest.

    Raises:
        ModelError: the pool of blocks is too large or not finite.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    constants = {
        "means": params.means,
        "variances": params.variances,
        "transitions": params.transitions,
        "half": np.array(-0.5),
        "constant": np.array(-0.5 * np.log(2.0 * np.pi)),
    }
    make = helper.make_node
    outer = [
        make("Log", ["variances"], ["log_variances"]),
        make("Mul", ["log_variances", "half"], ["shrink"]),
        make("Add", ["shrink", "constant"], ["log_scale"]),
        make("Scan", ["log_prior", "obs"], ["next_log_prior", "filtered", "scales"],
             num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1, 1],
             body=_step(helper, TensorProto)),
        make("ReduceSum", ["scales", "axis_1"], ["loglik"], keepdims=0),
    ]  # fmt: skip
    double = TensorProto.DOUBLE
    graph = helper.make_graph(
        outer,
        "hmm_regime",
        [
            helper.make_tensor_value_info("obs", double, ["B", "T", 1]),
            helper.make_tensor_value_info("log_prior", double, ["B", STATES]),
        ],
        [
            helper.make_tensor_value_info("filtered", double, ["B", "T", STATES]),
            helper.make_tensor_value_info("next_log_prior", double, ["B", STATES]),
            helper.make_tensor_value_info("loglik", double, ["B"]),
        ],
        [
            *(numpy_helper.from_array(np.array(v), name) for name, v in constants.items()),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis_1"),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="bot4"
    )
    model.ir_version = IR_VERSION
    if return_blocks is not None:
        pool = np.ascontiguousarray(return_blocks, dtype="<f4")
        if pool.ndim != 2 or pool.size > MAX_POOL or not np.isfinite(pool).all():
            raise ModelError(
                f"the pool of return blocks has shape {pool.shape}; expected finite blocks of "
                f"at most {MAX_POOL} numbers in all: draw fewer blocks"
            )
        helper.set_model_props(
            model,
            {
                BLOCKS_KEY: base64.b64encode(pool.tobytes()).decode(),
                BLOCK_LENGTH_KEY: str(pool.shape[1]),
            },
        )
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _step(helper: Any, types: Any) -> Any:
    """One candle: log prior [B,5] and z [B,1] -> next log prior, filtered [B,5], scale [B].

    Log space throughout, with the largest term taken out before each exponential. Parameters are
    the enclosing graph's.
    """
    make = helper.make_node
    nodes = [
        make("Sub", ["z", "means"], ["distance"]),
        make("Mul", ["distance", "distance"], ["square"]),
        make("Div", ["square", "variances"], ["relative"]),
        make("Mul", ["relative", "half"], ["exponent"]),
        make("Add", ["exponent", "log_scale"], ["log_emission"]),
        make("Add", ["prior", "log_emission"], ["joint"]),
        make("ReduceMax", ["joint"], ["largest"], axes=[1], keepdims=1),
        make("Sub", ["joint", "largest"], ["shifted"]),
        make("Exp", ["shifted"], ["weights"]),
        make("ReduceSum", ["weights", "axis_1"], ["total"], keepdims=1),
        make("Div", ["weights", "total"], ["posterior"]),
        make("MatMul", ["posterior", "transitions"], ["predicted"]),
        make("Log", ["predicted"], ["next_prior"]),
        make("Log", ["total"], ["log_total"]),
        make("Add", ["log_total", "largest"], ["scale_column"]),
        make("Squeeze", ["scale_column", "axis_1"], ["scale"]),
    ]
    double = types.DOUBLE
    info = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        "step",
        [info("prior", double, ["B", STATES]), info("z", double, ["B", 1])],
        [
            info("next_prior", double, ["B", STATES]),
            info("posterior", double, ["B", STATES]),
            info("scale", double, ["B"]),
        ],
    )


def hmm_golden(onnx_bytes: bytes, params: HmmParameters) -> tuple[GoldenVector, ...]:
    """Run the graph over windows that visit all five states, and write down what it says."""
    sweep = np.concatenate([np.linspace(-2.5, 2.5, _SWEEP), np.linspace(2.5, -2.5, _SWEEP)])
    z = np.stack([sweep, np.roll(sweep, _SWEEP // 2)])[:, :, None]
    prior = np.repeat(params.log_stationary[None], 2, axis=0)
    return (golden_of(onnx_bytes, {"obs": z, "log_prior": prior}),)


def golden_of(onnx_bytes: bytes, inputs: Mapping[str, npt.NDArray[Any]]) -> GoldenVector:
    """Run any graph once and write down inputs and outputs for the loader to repeat."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, dict(inputs)), strict=True))
    return GoldenVector(
        inputs={name: Tensor.of(array) for name, array in inputs.items()},
        outputs={name: Tensor.of(array) for name, array in outputs.items()},
    )


def seal(onnx_bytes: bytes, manifest: Manifest) -> bytes:
    """Write a manifest into a model's metadata; what comes out is ready for the registry."""
    from onnx import helper, load_model_from_string

    model = load_model_from_string(onnx_bytes)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    kept[METADATA_KEY] = manifest.encode().decode()
    helper.set_model_props(model, kept)
    return bytes(model.SerializeToString())
