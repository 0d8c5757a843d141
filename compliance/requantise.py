"""Rewrite an ONNX model's 4-bit matrix products to 8-bit ones, which run twice as fast on a CPU.

ONNX Runtime's `MatMulNBits` unpacks 4-bit weights for every product. `DynamicQuantizeMatMul`
multiplies 8-bit integers. Both are of the domain com.microsoft and take (A, B, scales), so each
node is replaced in place, and its two weight tensors with it:

    B       uint8 [N, K/32, 16], two weights a byte, zero point 8   ->   int8 [K, N]
    scales  float [N * K/32], one a block of 32                      ->   float [N], one a column

The file is protobuf (onnx.proto, field numbers below); only these nodes and tensors are touched,
so no ONNX package is needed. Pure: bytes in, bytes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["eight_bit", "without_input"]

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT = 1, 5, 11
_INPUT_NAME = 1
_NODE_INPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE = 1, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT = 1, 3
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT, _INT8, _INT64 = 1, 3, 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BLOCK = 32
_BITS = 4
_INPUTS = 3
_ZERO_POINT = 8
_INT8_MAX = 127


class _Field(NamedTuple):
    number: int
    value: bytes
    """Payload of a length-delimited field, else empty."""
    integer: int
    whole: bytes
    """The field as it stands in the file."""


class _Product(NamedTuple):
    weights: str
    scales: str
    rows: int
    columns: int


def eight_bit(model: bytes) -> bytes:
    """Return the model with every `MatMulNBits` replaced.

    Raises:
        ValueError: a product has other than 4 bits, blocks of 32, or inputs we do not know.
    """
    out = []
    for field in _fields(model):
        if field.number == _MODEL_GRAPH:
            out.append(_pack(_MODEL_GRAPH, _graph(field.value)))
        else:
            out.append(field.whole)
    return b"".join(out)


def without_input(model: bytes, name: str) -> bytes:
    """Return the model with an int64 input of two dimensions made a constant: one zero, [1, 1].

    It must be used where a single row broadcasts, as the kinds of a BERT's tokens are.

    Raises:
        ValueError: the model has no such input.
    """
    return b"".join(
        _pack(_MODEL_GRAPH, _with_zero(field.value, name))
        if field.number == _MODEL_GRAPH
        else field.whole
        for field in _fields(model)
    )


def _with_zero(graph: bytes, name: str) -> bytes:
    fields = list(_fields(graph))
    kept = [f.whole for f in fields if f.number != _GRAPH_INPUT or _input_name(f.value) != name]
    if len(kept) == len(fields):
        msg = "the model has no input of that name"
        raise ValueError(msg)
    zero = _tensor(name, np.zeros((1, 1), np.int64), _INT64)
    return b"".join((*kept, _pack(_GRAPH_INITIALIZER, zero)))


def _input_name(described: bytes) -> str:
    return next((f.value.decode() for f in _fields(described) if f.number == _INPUT_NAME), "")


def _graph(graph: bytes) -> bytes:
    fields = list(_fields(graph))
    products = [
        product
        for field in fields
        if field.number == _GRAPH_NODE and (product := _product(field.value)) is not None
    ]
    wanted = {name for product in products for name in (product.weights, product.scales)}
    packed = {
        name: _raw(field.value)
        for field in fields
        if field.number == _GRAPH_INITIALIZER and (name := _name(field.value)) in wanted
    }
    fresh: dict[str, bytes] = {}
    for product in products:
        weights, scales = _requantise(product, packed[product.weights], packed[product.scales])
        fresh[product.weights] = _tensor(product.weights, weights, _INT8)
        fresh[product.scales] = _tensor(product.scales, scales, _FLOAT)
    out = []
    for field in fields:
        if field.number == _GRAPH_NODE and _product(field.value) is not None:
            out.append(_pack(_GRAPH_NODE, _node(field.value)))
        elif field.number == _GRAPH_INITIALIZER and (name := _name(field.value)) in fresh:
            out.append(_pack(_GRAPH_INITIALIZER, fresh[name]))
        else:
            out.append(field.whole)
    return b"".join(out)


def _requantise(
    product: _Product, weights: bytes, scales: bytes
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Unpack 4-bit blocks to floats and round them to 8 bits by column."""
    k, n = product.rows, product.columns
    pairs = np.frombuffer(weights, np.uint8).reshape(n, k // _BLOCK, _BLOCK // 2)
    nibbles = np.stack((pairs & 15, pairs >> 4), axis=-1).reshape(n, k // _BLOCK, _BLOCK)
    factors = np.frombuffer(scales, np.float32).reshape(n, k // _BLOCK, 1)
    values = ((nibbles.astype(np.float32) - _ZERO_POINT) * factors).reshape(n, k)
    by_column = np.maximum(np.abs(values).max(axis=1) / _INT8_MAX, np.finfo(np.float32).tiny)
    rounded = np.rint(values / by_column[:, None]).astype(np.int8)
    return np.ascontiguousarray(rounded.T), by_column.astype(np.float32)


def _product(node: bytes) -> _Product | None:
    fields = list(_fields(node))
    if not any(f.number == _NODE_OP_TYPE and f.value == b"MatMulNBits" for f in fields):
        return None
    inputs = [f.value.decode() for f in fields if f.number == _NODE_INPUT]
    attributes = dict(_attribute(f.value) for f in fields if f.number == _NODE_ATTRIBUTE)
    known = attributes.get("bits") == _BITS and attributes.get("block_size") == _BLOCK
    if len(inputs) != _INPUTS or not known:
        msg = "a quantised product of this model has another form than expected"
        raise ValueError(msg)
    return _Product(inputs[1], inputs[2], attributes["K"], attributes["N"])


def _node(node: bytes) -> bytes:
    """The node under its new operator, without the attributes of the old one."""
    out = []
    for field in _fields(node):
        if field.number == _NODE_OP_TYPE:
            out.append(_pack(_NODE_OP_TYPE, b"DynamicQuantizeMatMul"))
        elif field.number != _NODE_ATTRIBUTE:
            out.append(field.whole)
    return b"".join(out)


def _attribute(attribute: bytes) -> tuple[str, int]:
    name, integer = "", 0
    for field in _fields(attribute):
        if field.number == _ATTRIBUTE_NAME:
            name = field.value.decode()
        elif field.number == _ATTRIBUTE_INT:
            integer = field.integer
    return name, integer


def _name(tensor: bytes) -> str:
    return next((f.value.decode() for f in _fields(tensor) if f.number == _TENSOR_NAME), "")


def _raw(tensor: bytes) -> bytes:
    return next((f.value for f in _fields(tensor) if f.number == _TENSOR_RAW), b"")


def _tensor(name: str, values: npt.NDArray[np.generic], kind: int) -> bytes:
    dims = b"".join(_varint(_TENSOR_DIMS << 3) + _varint(size) for size in values.shape)
    return b"".join(
        (
            dims,
            _varint(_TENSOR_TYPE << 3) + _varint(kind),
            _pack(_TENSOR_NAME, name.encode()),
            _pack(_TENSOR_RAW, values.tobytes()),
        )
    )


def _pack(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 -- seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 -- the top bit says that more follow
            return value, at


def _fields(data: bytes) -> Iterator[_Field]:
    """Walk the fields of a message; the file's digest was checked, so it is well formed."""
    at = 0
    while at < len(data):
        start = at
        key, at = _read_varint(data, at)
        value, integer = b"", 0
        if key & 7 == _BYTES:
            size, at = _read_varint(data, at)
            value = data[at : at + size]
            at += size
        elif key & 7 == _VARINT:
            integer, at = _read_varint(data, at)
        else:
            at += 4 if key & 7 == _FIXED32 else 8
        yield _Field(key >> 3, value, integer, data[start:at])
