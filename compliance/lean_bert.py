"""Write the graph of the Latin name model anew: the same numbers in fewer steps.

PyTorch's export of this BERT spends much of a short run on what is the same in every run. Of 295
steps that ONNX Runtime makes of it 112 are left:

    mask, kinds of tokens        left out: one row is run, and all of it is text
    queries, keys and values     one product a layer, of [hidden, 3 hidden]: one rounding to 8 bits
    biases                       added within the products
    shapes, the scale            constants

No number is rounded otherwise than before, so the logits are equal to the last bit: tests compare
the two. Layer norms, residual sums and embeddings are the export's own nodes, found by their
outputs' names; so are all weights. Pure: bytes in, bytes out.

    int64 input_ids [1, n]   ->   float32 logits [1, n, labels]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from compliance.onnx_wire import (
    GRAPH,
    GRAPH_INITIALIZER,
    GRAPH_INPUT,
    GRAPH_NAME,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    NODE_INPUT,
    NODE_OP_TYPE,
    NODE_OUTPUT,
    array_of,
    fields,
    name_of,
    node,
    pack,
    row_input,
    strings,
    tensor,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from compliance.onnx_wire import Message

__all__ = ["lean"]

_HEADS = 12
_MICROSOFT, _PRODUCT = "com.microsoft", "DynamicQuantizeMatMul"
_EMBEDDINGS = "/bert/embeddings/"
_LAYER = "/bert/encoder/layer.{}/"
_SUM, _NORM = "Add_output_0", "LayerNorm/LayerNormalization_output_0"
_LOOKED_UP = "Gather_output_0"
_LOGITS = "logits"


class _Dense(NamedTuple):
    """x times weights, 8-bit, plus bias. x: whose it is, by name."""

    x: str
    weights: npt.NDArray[np.generic]
    scales: npt.NDArray[np.generic]
    bias: npt.NDArray[np.generic]


class _Source:
    """The export's nodes by their first output, and its tensors by name."""

    def __init__(self, graph: Message) -> None:
        self.nodes: dict[str, Message] = {}
        self.tensors: dict[str, Message] = {}
        self.rest: list[Message] = []
        for field in fields(graph):
            if field.number == GRAPH_NODE:
                self.nodes[strings(field.value, NODE_OUTPUT)[0]] = field.value
            elif field.number == GRAPH_INITIALIZER:
                self.tensors[name_of(field.value)] = field.value
            elif field.number in {GRAPH_NAME, GRAPH_OUTPUT}:
                self.rest.append(field.whole)

    def inputs(self, output: str) -> list[str]:
        return strings(self.nodes[output], NODE_INPUT)

    def array(self, name: str) -> npt.NDArray[np.generic]:
        return array_of(self.tensors[name])

    def dense(self, output: str) -> _Dense:
        """What the sum of an 8-bit product and its bias is made of."""
        bias, product = sorted(self.inputs(output), key=lambda name: name not in self.tensors)
        if strings(self.nodes[product], NODE_OP_TYPE) != [_PRODUCT]:
            msg = "a product of the model is not the 8-bit one expected"
            raise ValueError(msg)
        x, weights, scales = self.inputs(product)
        return _Dense(x, self.array(weights), self.array(scales), self.array(bias))


class _Graph:
    """The graph being written."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.nodes: list[Message] = []
        self.tensors: dict[str, Message] = {}

    def hold(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self.tensors[name] = tensor(name, values)
        return name

    def keep(self, output: str) -> None:
        """Take over a node of the source, and the tensors that it reads."""
        self.nodes.append(self.source.nodes[output])
        for name in self.source.inputs(output):
            if name in self.source.tensors:
                self.tensors.setdefault(name, self.source.tensors[name])

    def add(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str,
        *,
        domain: str = "",
        **attributes: int | Sequence[int],
    ) -> str:
        self.nodes.append(node(op_type, inputs, [output], domain=domain, attributes=attributes))
        return output

    def multiply(self, dense: _Dense, output: str) -> str:
        weights = self.hold(f"{output}.weights", dense.weights)
        scales = self.hold(f"{output}.scales", dense.scales)
        bias = self.hold(f"{output}.bias", dense.bias)
        # The left-out input is the weights' zero point: they have none.
        inputs = [dense.x, weights, scales, "", bias]
        return self.add(_PRODUCT, inputs, output, domain=_MICROSOFT)


def lean(model: bytes) -> bytes:
    """Return the same BERT with less to do; the model must be the one that `eight_bit` returns.

    Raises:
        ValueError: its weights, nodes or names are not those of the model we know.
    """
    try:
        return b"".join(
            pack(GRAPH, _rewritten(field.value)) if field.number == GRAPH else field.whole
            for field in fields(model)
        )
    except KeyError:
        msg = "the model lacks a node or a tensor of the one expected"
        raise ValueError(msg) from None


def _rewritten(graph: Message) -> bytes:
    source = _Source(graph)
    out = _Graph(source)
    _embed(out)
    layers = 0
    while (_LAYER.format(layers) + "output/" + _NORM) in source.nodes:
        _layer(out, _LAYER.format(layers))
        layers += 1
    out.multiply(source.dense(_LOGITS), _LOGITS)
    return b"".join(
        (
            *(pack(GRAPH_NODE, each) for each in out.nodes),
            *(pack(GRAPH_INITIALIZER, each) for each in out.tensors.values()),
            pack(GRAPH_INPUT, row_input("input_ids", "tokens")),
            *source.rest,
        )
    )


def _embed(out: _Graph) -> None:
    """Sum the embeddings of words, of kind 0 and of places 0 to n; their tables are 8-bit."""
    word, kind, place = (
        f"{_EMBEDDINGS}{table}_embeddings/{_LOOKED_UP}"
        for table in ("word", "token_type", "position")
    )
    kinds, places = (out.source.inputs(f"{each}_quantized")[0] for each in (kind, place))
    out.hold(f"{kind}_quantized", out.source.array(kinds)[:1])
    out.tensors[places] = out.source.tensors[places]
    zero = out.hold("lean.zero", np.array([0]))
    count = out.add("Shape", ["input_ids"], "lean.count", start=1, end=2)
    out.add("Slice", [places, zero, count, zero], f"{place}_quantized")
    sums = (_EMBEDDINGS + _SUM, f"{_EMBEDDINGS}Add_1_output_0", _EMBEDDINGS + _NORM)
    for output in (f"{word}_quantized", word, kind, place, *sums):
        out.keep(output)


def _layer(out: _Graph, at: str) -> None:
    inner, sums = at + "intermediate/", (f"{at}attention/output/", f"{at}output/")
    _attend(out, f"{at}attention/self/", out.source.inputs(f"{sums[0]}dense/MatMul_output_0")[0])
    for place in sums:
        if place == sums[1]:
            dense = out.multiply(out.source.dense(f"{inner}dense/{_SUM}"), f"{inner}dense/{_SUM}")
            active = f"{inner}intermediate_act_fn/Mul_1_output_0"
            out.add("Gelu", [dense], active, domain=_MICROSOFT)
        out.multiply(out.source.dense(f"{place}dense/{_SUM}"), f"{place}dense/{_SUM}")
        out.keep(place + _SUM)
        out.keep(place + _NORM)


def _attend(out: _Graph, at: str, output: str) -> None:
    """Attention of every token to every token; the context goes to `output`."""
    parts = [out.source.dense(f"{at}{part}/{_SUM}") for part in ("query", "key", "value")]
    hidden = parts[0].weights.shape[1]
    packed = out.multiply(
        _Dense(
            parts[0].x,
            np.concatenate([part.weights for part in parts], axis=1),
            np.concatenate([part.scales for part in parts]),
            np.concatenate([part.bias for part in parts]),
        ),
        f"{at}packed",
    )
    by_head = out.hold("lean.by_head", np.array([-1, 3, _HEADS, hidden // _HEADS]))
    by_token = out.hold("lean.by_token", np.array([1, -1, hidden]))
    thirds = out.hold("lean.thirds", np.array([1, 1, 1]))
    # A scale for each column: a single number ONNX Runtime would draw into the product of
    # queries and keys, which then rounds otherwise.
    scale = out.hold("lean.scale", _scale(hidden))
    scaled = out.add("Mul", [packed, scale], f"{at}scaled")
    headed = out.add("Reshape", [scaled, by_head], f"{at}headed")
    turned = out.add("Transpose", [headed], f"{at}turned", perm=(1, 2, 0, 3))
    query, key, value = (f"{at}{part}" for part in ("query", "key", "value"))
    out.nodes.append(node("Split", [turned, thirds], [query, key, value], attributes={"axis": 0}))
    scores = out.add("FusedMatMul", [query, key], f"{at}scores", domain=_MICROSOFT, transB=1)
    shares = out.add("Softmax", [scores], f"{at}shares", axis=-1)
    context = out.add("MatMul", [shares, value], f"{at}context")
    joined = out.add("Transpose", [context], f"{at}joined", perm=(0, 2, 1, 3))
    out.add("Reshape", [joined, by_token], output)


def _scale(hidden: int) -> npt.NDArray[np.float32]:
    """For queries and keys the root of one over the root of a head's width; for values 1.

    In float32 step by step, as the export computes it in every run.
    """
    root = np.sqrt(np.float32(1) / np.sqrt(np.float32(hidden // _HEADS)))
    ones = np.ones(hidden, np.float32)
    return np.concatenate((ones * root, ones * root, ones))
