"""Writes a trained LSTM as an ONNX graph, by hand.

Inside the graph: clip((x - mean) / deviation, ±6), the LSTM layers, a linear layer, division by
the temperature, softmax. Clip and ONNX Runtime's activations swallow NaN, so the sum of x - x is
added at the end: an unknown input gives no estimate. torch orders the gates i f g o, ONNX i o f c.
"""

from typing import Any, Final

import numpy as np

from bot4_pipelines.training.dataset import CLASSES, CLIP, INPUT_NAMES
from bot4_pipelines.training.lstm import LstmFit
from bot4_runtime.regime.manifest import OPSET

IR_VERSION: Final = 8
_INPUT: Final = "features"
_OUTPUT: Final = "probabilities"


def lstm_graph(fit: LstmFit, window: int) -> bytes:
    """Build the graph ``features float32[B, window, 28] -> probabilities float32[B, 5]``.

    Args:
        fit: what was learnt; the inputs of the graph are unscaled.
        window: candles the network is shown.

    Returns:
        The serialised ONNX model, without metadata.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    hidden = fit.weights["head.weight"].shape[1]
    layers = sum(name.startswith("lstm.weight_ih_l") for name in fit.weights)
    constants: dict[str, np.ndarray] = {
        "mean": fit.scaler.mean.astype(np.float32),
        "deviation": fit.scaler.deviation.astype(np.float32),
        "clip_low": np.array(-CLIP, dtype=np.float32),
        "clip_high": np.array(CLIP, dtype=np.float32),
        "head_weight": fit.weights["head.weight"],
        "head_bias": fit.weights["head.bias"],
        "temperature": np.array(fit.temperature, dtype=np.float32),
        "direction_axis": np.array([1], dtype=np.int64),
        "first_axis": np.array([0], dtype=np.int64),
        "window_axes": np.array([1, 2], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Sub", [_INPUT, "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "clip_low", "clip_high"], ["clipped"]),
        helper.make_node("Transpose", ["clipped"], ["sequence_0"], perm=[1, 0, 2]),
    ]
    for layer in range(layers):
        constants |= _lstm_constants(fit.weights, layer)
        nodes.append(
            helper.make_node(
                "LSTM",
                [f"sequence_{layer}", f"w_{layer}", f"r_{layer}", f"b_{layer}"],
                [f"all_{layer}", f"last_{layer}"],
                hidden_size=hidden,
            )
        )
        if layer + 1 < layers:
            nodes.append(
                helper.make_node(
                    "Squeeze", [f"all_{layer}", "direction_axis"], [f"sequence_{layer + 1}"]
                )
            )
    nodes += [
        helper.make_node("Squeeze", [f"last_{layers - 1}", "first_axis"], ["state"]),
        helper.make_node("Gemm", ["state", "head_weight", "head_bias"], ["logits"], transB=1),
        helper.make_node("Div", ["logits", "temperature"], ["calibrated"]),
        helper.make_node("Softmax", ["calibrated"], ["shares"], axis=1),
        helper.make_node("Sub", [_INPUT, _INPUT], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros", "window_axes"], ["unknown"], keepdims=0),
        helper.make_node("Unsqueeze", ["unknown", "direction_axis"], ["unknown_column"]),
        helper.make_node("Add", ["shares", "unknown_column"], [_OUTPUT]),
    ]
    shape_in: list[str | int | None] = ["B", window, len(INPUT_NAMES)]
    graph = helper.make_graph(
        nodes,
        "lstm_regime",
        [helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, ["B", CLASSES])],
        [
            numpy_helper.from_array(np.ascontiguousarray(value), name)
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="bot4"
    )
    model.ir_version = IR_VERSION
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _lstm_constants(weights: dict[str, np.ndarray], layer: int) -> dict[str, np.ndarray]:
    """Return one layer's weights in ONNX's order, [1, 4H, I], [1, 4H, H] and [1, 8H]."""

    def gates(name: str) -> np.ndarray:
        i, f, g, o = np.split(weights[f"lstm.{name}_l{layer}"], 4)
        return np.concatenate([i, o, f, g])[None]

    biases = np.concatenate([gates("bias_ih"), gates("bias_hh")], axis=1)
    return {
        f"w_{layer}": gates("weight_ih"),
        f"r_{layer}": gates("weight_hh"),
        f"b_{layer}": biases,
    }


def graph_weights(onnx_bytes: bytes) -> dict[str, np.ndarray]:
    """Read back what `lstm_graph` was given as `LstmFit.weights`, to the last bit.

    Args:
        onnx_bytes: a graph of `lstm_graph`.
    """
    from onnx import load_from_string, numpy_helper

    constants = {
        one.name: numpy_helper.to_array(one)
        for one in load_from_string(onnx_bytes).graph.initializer
    }
    weights = {f"head.{name}": constants[f"head_{name}"] for name in ("weight", "bias")}
    for layer in range(sum(name.startswith("w_") for name in constants)):
        bias_ih, bias_hh = np.split(constants[f"b_{layer}"][0], 2)
        for name, value in (
            ("weight_ih", constants[f"w_{layer}"][0]),
            ("weight_hh", constants[f"r_{layer}"][0]),
            ("bias_ih", bias_ih),
            ("bias_hh", bias_hh),
        ):
            i, o, f, g = np.split(value, 4)
            weights[f"lstm.{name}_l{layer}"] = np.concatenate([i, f, g, o])
    return weights


def open_session(onnx_bytes: bytes) -> Any:
    """Open a graph in ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
