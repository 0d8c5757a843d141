"""Rewrite an ONNX model's 4-bit matrix products to 8-bit ones, which run twice as fast on a CPU.

ONNX Runtime's `MatMulNBits` unpacks 4-bit weights for every product. `DynamicQuantizeMatMul`
multiplies 8-bit integers. Both are of the domain com.microsoft and take (A, B, scales), so each
node is replaced in place, and its two weight tensors with it:

    B       uint8 [N, K/32, 16], two weights a byte, zero point 8   ->   int8 [K, N], -63 to 63
    scales  float [N * K/32], one a block of 32                      ->   float [N], one a column

Seven bits of the eight: an x86 CPU without VNNI (AVX2, the first with AVX-512) adds two products
of an 8-bit activation and a weight in 16 bits, and cuts off what does not fit. 2 * 255 * 63 fits,
so that the sums are exact on every CPU; twice 127 would not.

Only these nodes and tensors are touched. Pure: bytes in, bytes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from compliance.onnx_wire import (
    GRAPH,
    GRAPH_INITIALIZER,
    GRAPH_INPUT,
    GRAPH_NODE,
    NODE_ATTRIBUTE,
    NODE_INPUT,
    NODE_OP_TYPE,
    VALUE_NAME,
    attribute_of,
    fields,
    name_of,
    pack,
    raw_of,
    strings,
    tensor,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from compliance.onnx_wire import Message

__all__ = ["eight_bit", "without_input"]

_BLOCK = 32
_BITS = 4
_INPUTS = 3
_ZERO_POINT = 8
_WEIGHT_MAX = 63
"""Of a rounded weight, either way: see above."""


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
    out: list[Message] = []
    for field in fields(model):
        if field.number == GRAPH:
            out.append(pack(GRAPH, _graph(field.value)))
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
        pack(GRAPH, _with_zero(field.value, name)) if field.number == GRAPH else field.whole
        for field in fields(model)
    )


def _with_zero(graph: Message, name: str) -> bytes:
    read = list(fields(graph))
    kept = [
        f.whole for f in read if f.number != GRAPH_INPUT or strings(f.value, VALUE_NAME) != [name]
    ]
    if len(kept) == len(read):
        msg = "the model has no input of that name"
        raise ValueError(msg)
    zero = tensor(name, np.zeros((1, 1), np.int64))
    return b"".join((*kept, pack(GRAPH_INITIALIZER, zero)))


def _graph(graph: Message) -> bytes:
    read = list(fields(graph))
    products = [
        product
        for field in read
        if field.number == GRAPH_NODE and (product := _product(field.value)) is not None
    ]
    wanted = {name for product in products for name in (product.weights, product.scales)}
    packed = {
        name: raw_of(field.value)
        for field in read
        if field.number == GRAPH_INITIALIZER and (name := name_of(field.value)) in wanted
    }
    fresh: dict[str, bytes] = {}
    for product in products:
        weights, scales = _requantise(product, packed[product.weights], packed[product.scales])
        fresh[product.weights] = tensor(product.weights, weights)
        fresh[product.scales] = tensor(product.scales, scales)
    out: list[Message] = []
    for field in read:
        if field.number == GRAPH_NODE and _product(field.value) is not None:
            out.append(pack(GRAPH_NODE, _node(field.value)))
        elif field.number == GRAPH_INITIALIZER and (name := name_of(field.value)) in fresh:
            out.append(pack(GRAPH_INITIALIZER, fresh[name]))
        else:
            out.append(field.whole)
    return b"".join(out)


def _requantise(
    product: _Product, weights: Message, scales: Message
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Unpack 4-bit blocks to floats and round them to 7 bits by column."""
    k, n = product.rows, product.columns
    pairs = np.frombuffer(weights, np.uint8).reshape(n, k // _BLOCK, _BLOCK // 2)
    nibbles = np.stack((pairs & 15, pairs >> 4), axis=-1).reshape(n, k // _BLOCK, _BLOCK)
    factors = np.frombuffer(scales, np.float32).reshape(n, k // _BLOCK, 1)
    values = ((nibbles.astype(np.float32) - _ZERO_POINT) * factors).reshape(n, k)
    by_column = np.maximum(np.abs(values).max(axis=1) / _WEIGHT_MAX, np.finfo(np.float32).tiny)
    rounded = np.rint(values / by_column[:, None]).astype(np.int8)
    return np.ascontiguousarray(rounded.T), by_column.astype(np.float32)


def _product(node: Message) -> _Product | None:
    if strings(node, NODE_OP_TYPE) != ["MatMulNBits"]:
        return None
    inputs = strings(node, NODE_INPUT)
    attributes = dict(attribute_of(f.value) for f in fields(node) if f.number == NODE_ATTRIBUTE)
    known = attributes.get("bits") == _BITS and attributes.get("block_size") == _BLOCK
    if len(inputs) != _INPUTS or not known:
        msg = "a quantised product of this model has another form than expected"
        raise ValueError(msg)
    return _Product(inputs[1], inputs[2], attributes["K"], attributes["N"])


def _node(node: Message) -> bytes:
    """The node under its new operator, without the attributes of the old one."""
    out: list[Message] = []
    for field in fields(node):
        if field.number == NODE_OP_TYPE:
            out.append(pack(NODE_OP_TYPE, b"DynamicQuantizeMatMul"))
        elif field.number != NODE_ATTRIBUTE:
            out.append(field.whole)
    return b"".join(out)
