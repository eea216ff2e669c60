"""What an ONNX file is made of, read from its bytes alone.

ONNX Runtime tells neither the operator set nor whether tensors lie in other files, and loads
nearly anything; the runtime does not install the onnx package. So the few protobuf fields that
matter are walked here, before the file reaches ONNX Runtime. Numbers from ``onnx.proto3``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS: Final = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BITS: Final = 70

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 20, 25
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = (5, 10), (6, 11)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14


class NotOnnxError(ValueError):
    """The bytes are no protobuf message of the expected form."""


@dataclass(frozen=True)
class OnnxFacts:
    """What the file declares.

    Attributes:
        opsets: version by operator domain; ``""`` is ONNX's own.
        operators: names of all operators used, with their domain unless it is ONNX's own.
        external_data: some tensor's values lie in another file.
        extras: the file brings functions or training graphs, which inference does not need.
    """

    opsets: dict[str, int]
    operators: frozenset[str]
    external_data: bool
    extras: bool


def read_facts(data: bytes) -> OnnxFacts:
    """Walk a serialised ModelProto.

    Raises:
        NotOnnxError: the bytes are damaged, or hold no graph.
    """
    opsets: dict[str, int] = {}
    operators: set[str] = set()
    external = extras = graph_seen = False
    for field, value in _fields(memoryview(data)):
        if field == _MODEL_OPSET:
            entry = dict(_fields(_message(value)))
            opsets[_text(entry.get(_OPSET_DOMAIN, b""))] = _number(entry.get(_OPSET_VERSION, 0))
        elif field == _MODEL_GRAPH:
            graph_seen = True
            external |= _walk_graph(_message(value), operators)
        elif field in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            extras = True
    if not graph_seen:
        raise NotOnnxError("no graph in the file")
    return OnnxFacts(opsets, frozenset(operators), external, extras)


def _walk_graph(graph: memoryview, operators: set[str]) -> bool:
    """Collect operators of a graph and its subgraphs; return whether data is external."""
    external = False
    for field, value in _fields(graph):
        if field == _GRAPH_NODE:
            external |= _walk_node(_message(value), operators)
        elif field == _GRAPH_INITIALIZER:
            external |= _is_external(_message(value))
        elif field == _GRAPH_SPARSE:
            external |= any(
                _is_external(_message(v)) for f, v in _fields(_message(value)) if f < 3
            )
    return external


def _walk_node(node: memoryview, operators: set[str]) -> bool:
    name = domain = ""
    external = False
    for field, value in _fields(node):
        if field == _NODE_OP:
            name = _text(value)
        elif field == _NODE_DOMAIN:
            domain = _text(value)
        elif field == _NODE_ATTRIBUTE:
            for inner, content in _fields(_message(value)):
                if inner in _ATTRIBUTE_TENSORS:
                    external |= _is_external(_message(content))
                elif inner in _ATTRIBUTE_GRAPHS:
                    external |= _walk_graph(_message(content), operators)
    operators.add(f"{domain}.{name}" if domain else name)
    return external


def _is_external(tensor: memoryview) -> bool:
    return any(
        field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value != 0)
        for field, value in _fields(tensor)
    )


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield field numbers and values of one message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            number, at = _varint(data, at)
            yield field, number
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in _WIDTHS:
            length = _WIDTHS[wire]
        else:
            raise NotOnnxError(f"wire type {wire} at byte {at}")
        if length > len(data) - at:
            raise NotOnnxError(f"a field of {length} bytes reaches past the end at byte {at}")
        yield field, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < _MAX_VARINT_BITS:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise NotOnnxError(f"a number does not end at byte {at}")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise NotOnnxError("a number where a message belongs")
    return value


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise NotOnnxError("a message where a number belongs")
    return value


def _text(value: int | memoryview | bytes) -> str:
    if isinstance(value, int):
        raise NotOnnxError("a number where a name belongs")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise NotOnnxError("a name is not UTF-8") from error
