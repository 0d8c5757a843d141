"""One step of a Llama-architecture model as an ONNX graph: of a prompt, or a token each.

    tokens         int64 (batch, new)       what is read now
    past_tokens    int64 (batch,)           how many tokens of each row went before
    past_keys      (layers, batch, kv heads, past, head), and past_values: those before, padded
    wanted         int64 (kept,)            whose logits are asked for: indices along `new`
    logits         fp32 (batch, kept, vocabulary)
    new_keys       (layers, batch, kv heads, new, head), and new_values: to be kept by the caller

`past` is at least 1 (a row that has none says so in past_tokens), since TensorRT likes no empty
tensors. What a row holds beyond its past_tokens is not seen. Keys come out turned by rope, in the
order of halves (element i with i + head/2). All of `batch`, `new`, `past`, `kept` are dynamic.

Norms, rope, softmax and the logits are fp32 in every precision; products and keys are in it. With
fp8, weights of the blocks are e4m3 with one scale an output, what they multiply is e4m3 with one
scale a product (`inference.tensorrt.calibration`), the rest fp16.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from onnx import TensorProto, helper

from inference.engines.cuda.device import turns
from inference.tensorrt.assembly import Assembly, onnx_type

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from inference.architecture import Architecture
    from inference.engines.cuda.device import DeviceLayer, DeviceWeights
    from inference.engines.cuda.products import Matrix

__all__ = ["INPUTS", "OUTPUTS", "Precision", "StepGraph", "graph_values"]

INPUTS = ("tokens", "past_tokens", "past_keys", "past_values", "wanted")
OUTPUTS = ("logits", "new_keys", "new_values")

_UNSEEN = -1e9
_SCALE_MIN = 1e-7
"""A row of zeros must not divide by zero; fp16 holds it."""
_PEAK = 448.0
"""Of what nobody measured: unscaled."""


class Precision(StrEnum):
    """In what the products of a step are computed."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"

    @property
    def dtype(self) -> torch.dtype:
        """Of keys, values and whatever is not fp8."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16}.get(self.value, torch.float16)


def graph_values(
    arch: Architecture, precision: Precision
) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """Describe inputs and outputs."""
    kind, ids, real = onnx_type(precision.dtype), TensorProto.INT64, TensorProto.FLOAT
    past: list[str | int] = [arch.layers, "batch", arch.kv_heads, "past", arch.head]
    new: list[str | int] = [arch.layers, "batch", arch.kv_heads, "new", arch.head]
    value = helper.make_tensor_value_info
    inputs = [
        value("tokens", ids, ["batch", "new"]),
        value("past_tokens", ids, ["batch"]),
        value("past_keys", kind, past),
        value("past_values", kind, past),
        value("wanted", ids, ["kept"]),
    ]
    outputs = [
        value("logits", real, ["batch", "kept", arch.vocabulary]),
        value("new_keys", kind, new),
        value("new_values", kind, new),
    ]
    return inputs, outputs


class StepGraph:
    """Adds the nodes of a step to an assembly.

    Args:
        weights: on the CPU, of any floating type; rows of q and k in the order of halves.
        precision: of products, keys and values; see `Precision`.
        positions: how many positions rope's tables reach.
        peaks: with fp8, the largest magnitude that each product reads.
    """

    def __init__(
        self,
        assembly: Assembly,
        weights: DeviceWeights,
        *,
        precision: Precision,
        positions: int,
        peaks: Mapping[str, float] | None = None,
    ) -> None:
        self._a = assembly
        self._weights = weights
        self._arch = weights.architecture
        self._fp8 = precision is Precision.FP8
        self._dtype = precision.dtype
        self._kind = onnx_type(self._dtype)
        self._positions = positions
        self._peaks = peaks or {}

    def add(self) -> None:
        """Add all of it."""
        a, arch = self._a, self._arch
        embedding = a.tensor("embedding", self._weights.embedding.to(self._dtype))
        cos, sin, unseen = self._shared()
        x = a.op("Gather", embedding, "tokens", axis=0)
        keys, values = [], []
        for number, layer in enumerate(self._weights.layers):
            seen, key, value = self._attention(number, layer, x, (cos, sin, unseen))
            keys.append(key)
            values.append(value)
            x = a.op("Add", x, seen)
            x = a.op("Add", x, self._feed(number, layer, x))
        for name, news in (("new_keys", keys), ("new_values", values)):
            a.rename(a.op("Concat", *news, axis=0), name)
        kept = a.op(
            "Gather", self._norm("final_norm", x, self._weights.final_norm), "wanted", axis=1
        )
        tied = self._weights.head is self._weights.embedding
        head = embedding if tied else a.tensor("head", self._weights.head.to(self._dtype))
        flat = a.op("Gemm", a.op("Reshape", kept, a.ints(-1, arch.width)), head, transB=1)
        rows = a.op("Slice", a.op("Shape", kept), a.ints(0), a.ints(2))
        shape = a.op("Concat", rows, a.ints(arch.vocabulary), axis=0)
        a.rename(self._real(a.op("Reshape", flat, shape)), "logits")

    def _shared(self) -> tuple[str, str, str]:
        """What every layer reads: cosines and sines, (batch, 1, new, head/2), and what is unseen.

        The last is added to scores: (batch, 1, heads of a kv head x new, past + new), 0 or -1e9.
        """
        a = self._a
        past, new = self._size("past_keys", 3), self._size("tokens", 1)
        steps = a.op("Range", a.number(0, torch.int64), new, a.number(1, torch.int64))
        before = a.op("Unsqueeze", "past_tokens", a.ints(1))
        positions = a.op("Add", before, steps)
        tables = turns(self._arch, self._positions, "cpu")
        cos, sin = (
            a.op("Unsqueeze", a.op("Gather", a.tensor(name, table), positions, axis=0), a.ints(1))
            for name, table in zip(("cosines", "sines"), tables, strict=True)
        )
        old = a.op("Range", a.number(0, torch.int64), past, a.number(1, torch.int64))
        # (batch, 1, past): the padding of a row is no part of it.
        there = a.op("Unsqueeze", a.op("Less", old, before), a.ints(1))
        ones = a.op("Expand", there, self._shape(a.ints(1), new, a.ints(1)))
        # (1, new, new): a token sees itself and those before it.
        causal = a.op("LessOrEqual", steps, a.op("Unsqueeze", steps, a.ints(1)))
        batch = self._size("tokens", 0)
        causal = a.op("Expand", causal, self._shape(batch, a.ints(1), a.ints(1)))
        seen = a.op("Unsqueeze", a.op("Concat", ones, causal, axis=2), a.ints(1))
        bias = a.op("Where", seen, a.number(0.0), a.number(_UNSEEN))
        groups = self._arch.heads // self._arch.kv_heads
        return cos, sin, a.op("Concat", *([bias] * groups), axis=2)

    def _attention(
        self, number: int, layer: DeviceLayer, x: str, shared: tuple[str, str, str]
    ) -> tuple[str, str, str]:
        """What attention adds to the residual stream; the layer's new keys and values."""
        a, arch = self._a, self._arch
        cos, sin, unseen = shared
        name = f"layer_{number}"
        normed = self._norm(f"{name}_attention_norm", x, layer.attention_norm)
        qkv = self._product(f"{name}_qkv", normed, layer.qkv)
        if layer.qkv_bias is not None:
            bias = a.tensor(f"{name}_qkv_bias", layer.qkv_bias.to(self._dtype))
            qkv = a.op("Add", qkv, bias)
        sizes = (arch.heads * arch.head, arch.kv_heads * arch.head, arch.kv_heads * arch.head)
        q, k, v = a.ops("Split", 3, qkv, a.ints(*sizes), axis=2)
        q, k, v = (
            self._heads(q, arch.heads),
            self._heads(k, arch.kv_heads),
            self._heads(v, arch.kv_heads),
        )
        if layer.q_norm is not None and layer.k_norm is not None:
            q = self._norm(f"{name}_q_norm", q, layer.q_norm)
            k = self._norm(f"{name}_k_norm", k, layer.k_norm)
        q, k = self._turned(q, cos, sin), self._turned(k, cos, sin)
        keys, values = self._all(number, "past_keys", k), self._all(number, "past_values", v)
        # The query heads of one kv head stand as rows, so that no key is copied.
        rows = a.op("Reshape", q, a.ints(0, arch.kv_heads, -1, arch.head))
        rows = a.op("Mul", rows, a.number(arch.head**-0.5, self._dtype))
        scores = self._real(a.op("MatMul", rows, a.op("Transpose", keys, perm=[0, 1, 3, 2])))
        shares = self._cast(a.op("Softmax", a.op("Add", scores, unseen), axis=-1))
        seen = a.op("MatMul", shares, values)
        seen = a.op(
            "Reshape",
            seen,
            self._shape(a.ints(0, arch.heads), self._size("tokens", 1), a.ints(arch.head)),
        )
        flat = a.op("Reshape", a.op("Transpose", seen, perm=[0, 2, 1, 3]), a.ints(0, 0, -1))
        out = self._product(f"{name}_attention_out", flat, layer.attention_out)
        return out, a.op("Unsqueeze", k, a.ints(0)), a.op("Unsqueeze", v, a.ints(0))

    def _feed(self, number: int, layer: DeviceLayer, x: str) -> str:
        a, hidden = self._a, self._arch.hidden
        name = f"layer_{number}"
        normed = self._norm(f"{name}_feed_norm", x, layer.feed_norm)
        both = self._product(f"{name}_gate_up", normed, layer.gate_up)
        gate, up = a.ops("Split", 2, both, a.ints(hidden, hidden), axis=2)
        active = a.op("Mul", a.op("Mul", gate, a.op("Sigmoid", gate)), up)
        return self._product(f"{name}_down", active, layer.down)

    def _product(self, name: str, x: str, matrix: Matrix) -> str:
        assert isinstance(matrix, torch.Tensor)  # on the CPU nothing is fp8 yet
        # ONNX multiplies from the left: (inputs, outputs).
        if self._fp8:
            return self._product8(name, x, matrix.float().t())
        return self._a.op("MatMul", x, self._a.tensor(name, matrix.to(self._dtype).t()))

    def _product8(self, name: str, x: str, matrix: torch.Tensor) -> str:
        a, kind = self._a, torch.float8_e4m3fn
        scales = (matrix.abs().amax(0) / torch.finfo(kind).max).clamp(min=_SCALE_MIN)
        codes = a.tensor(name, (matrix / scales).to(kind))
        scale = a.tensor(f"{name}_scales", scales.to(self._dtype))
        weight = a.op("DequantizeLinear", codes, scale, axis=1)
        peak = self._peaks.get(name, _PEAK) / torch.finfo(kind).max
        step, zero = a.number(max(peak, _SCALE_MIN), self._dtype), a.number(0.0, kind)
        rounded = a.op("DequantizeLinear", a.op("QuantizeLinear", x, step, zero), step, zero)
        return a.op("MatMul", rounded, weight)

    def _norm(self, name: str, x: str, weight: torch.Tensor) -> str:
        a, real = self._a, self._real(x)
        mean = a.op("ReduceMean", a.op("Pow", real, a.number(2.0)), a.ints(-1), keepdims=1)
        root = a.op("Sqrt", a.op("Add", mean, a.number(self._arch.norm_epsilon)))
        return self._cast(a.op("Mul", a.op("Div", real, root), a.tensor(name, weight.float())))

    def _heads(self, x: str, heads: int) -> str:
        """From (batch, new, heads x head) to (batch, heads, new, head)."""
        split = self._a.op("Reshape", x, self._a.ints(0, 0, heads, self._arch.head))
        return self._a.op("Transpose", split, perm=[0, 2, 1, 3])

    def _turned(self, x: str, cos: str, sin: str) -> str:
        a, half = self._a, self._arch.head // 2
        left, right = a.ops("Split", 2, self._real(x), a.ints(half, half), axis=3)
        first = a.op("Sub", a.op("Mul", left, cos), a.op("Mul", right, sin))
        second = a.op("Add", a.op("Mul", right, cos), a.op("Mul", left, sin))
        return self._cast(a.op("Concat", first, second, axis=3))

    def _all(self, number: int, past: str, new: str) -> str:
        """Past and new of a layer: (batch, kv heads, past + new, head)."""
        before = self._a.op("Gather", past, self._a.number(number, torch.int64), axis=0)
        return self._a.op("Concat", before, new, axis=2)

    def _size(self, tensor: str, axis: int) -> str:
        """One size of a tensor, as a scalar."""
        sizes = self._a.op("Shape", tensor)
        return self._a.op("Gather", sizes, self._a.number(axis, torch.int64), axis=0)

    def _shape(self, *sizes: str) -> str:
        """A shape of scalars and vectors."""
        parts = [
            size if size.startswith("ints") else self._a.op("Unsqueeze", size, self._a.ints(0))
            for size in sizes
        ]
        return self._a.op("Concat", *parts, axis=0)

    def _real(self, x: str) -> str:
        return x if self._dtype is torch.float32 else self._a.op("Cast", x, to=TensorProto.FLOAT)

    def _cast(self, x: str) -> str:
        return x if self._dtype is torch.float32 else self._a.op("Cast", x, to=self._kind)
