"""A Llama-architecture model's weights, whatever file they came from, and those of a GGUF file.

A matrix is a tensor (fp32 or bf16), or codes, or codes with an adapter beside them; `dense` makes
a tensor of any. Weights named as transformers names them are read by `inference.checkpoint`.

Q4_1 stores 32 weights as d * q + m with q in 0..15; torch's packed int4 computes (q - 8) * scale +
zero. With scale = d and zero = m + 8 d the very codes of the file are used: nothing is quantised
again. Q8_0 (the embedding) stays as it is, too: 32 weights as d * q with q in -128..127.

The rows of q and k are in llama.cpp's order, which interleaves each head's two rope halves, since
in that order rope is one complex multiplication; scores do not change when q and k are permuted
alike. `interleaved` brings the halves of other files into that order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from inference.architecture import Architecture
from inference.gguf_file import TensorFormat
from inference.registry import ModelFileError

if TYPE_CHECKING:
    from inference.gguf_file import GgufFile, Tensor

__all__ = [
    "GROUP",
    "Adapted",
    "Architecture",
    "Codes4",
    "Codes8",
    "Layer",
    "Matrix",
    "Rows8",
    "Table",
    "Weights",
    "dense",
    "finite",
    "fitting",
    "interleaved",
    "load_weights",
]

GROUP = 32
_Q4_1_BYTES = 20  # fp16 d, fp16 m, 16 bytes of nibbles
_Q8_0_BYTES = 34  # fp16 d, 32 bytes


@dataclass(frozen=True, slots=True)
class Codes4:
    """A matrix as 4-bit codes: weight = d * code + m for each group of 32 along the input.

    codes: int8, (outputs, inputs), 0..15. d, m: fp32, (outputs, inputs / 32).
    """

    codes: torch.Tensor
    d: torch.Tensor
    m: torch.Tensor

    def dequantised(self) -> torch.Tensor:
        """The matrix in fp32."""
        grouped = self.codes.view(*self.d.shape, GROUP).float()
        return (grouped * self.d[..., None] + self.m[..., None]).view(self.codes.shape)


@dataclass(frozen=True, slots=True)
class Codes8:
    """A matrix as 8-bit codes: weight = d * code.

    codes: int8, (rows, columns). d: fp32, (rows, columns / 32).
    """

    codes: torch.Tensor
    d: torch.Tensor

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Some rows in fp32: (len(ids), columns)."""
        d = self.d[ids]
        return (self.codes[ids].view(*d.shape, GROUP) * d[..., None]).flatten(1)

    def dequantised(self) -> torch.Tensor:
        """The matrix in fp32."""
        return (self.codes.view(*self.d.shape, GROUP) * self.d[..., None]).flatten(1)


@dataclass(frozen=True, slots=True)
class Rows8:
    """A matrix as 8-bit codes with one scale a row: weight = scale * code.

    codes: int8, (outputs, inputs). scale: fp32, (outputs,).
    """

    codes: torch.Tensor
    scale: torch.Tensor

    def dequantised(self) -> torch.Tensor:
        """The matrix in fp32."""
        return self.codes.float() * self.scale[:, None]


@dataclass(frozen=True, slots=True)
class Adapted:
    """Codes, and what an adapter adds beside them: weight = base + up down.

    down: (rank, inputs). up: (outputs, rank), the adapter's scale in it. Both fp32.
    """

    base: Codes4 | Rows8
    down: torch.Tensor
    up: torch.Tensor

    def dequantised(self) -> torch.Tensor:
        """The matrix in fp32."""
        return self.base.dequantised() + self.up @ self.down


@dataclass(frozen=True, slots=True)
class Table:
    """An embedding as it is: (rows, columns), fp32 or bf16."""

    values: torch.Tensor

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Some rows in fp32: (len(ids), columns)."""
        return self.values[ids].float()

    def dequantised(self) -> torch.Tensor:
        """The matrix in fp32."""
        return self.values.float()


Matrix = torch.Tensor | Codes4 | Rows8 | Adapted
"""(outputs, inputs), in whatever form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block. Matrices that read the same input are stacked: q, k, v and gate, up."""

    attention_norm: torch.Tensor
    qkv: Matrix
    attention_out: Matrix
    feed_norm: torch.Tensor
    gate_up: Matrix
    down: Matrix
    qkv_bias: torch.Tensor | None = None
    q_norm: torch.Tensor | None = None
    k_norm: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """All of a model. head: None where the embedding is the output head too."""

    architecture: Architecture
    embedding: Codes8 | Table
    layers: tuple[Layer, ...]
    final_norm: torch.Tensor
    head: Matrix | None = None


def dense(matrix: Matrix) -> torch.Tensor:
    """Return a matrix as a tensor: its own, or fp32 where it is codes."""
    return matrix if isinstance(matrix, torch.Tensor) else matrix.dequantised()


def fitting(weights: Weights) -> Weights:
    """Return the weights. Raises ModelFileError: a shape is not what the architecture says."""
    arch = weights.architecture
    turned, heads = arch.heads + arch.kv_heads, arch.heads * arch.head
    stacked = (turned + arch.kv_heads) * arch.head
    table = (arch.vocabulary, arch.width)
    found = [
        (_shape(weights.embedding), table),
        (weights.final_norm.shape, (arch.width,)),
        (table if weights.head is None else _shape(weights.head), table),
    ]
    for layer in weights.layers:
        found += [
            (_shape(layer.qkv), (stacked, arch.width)),
            (_shape(layer.attention_out), (arch.width, heads)),
            (_shape(layer.gate_up), (2 * arch.hidden, arch.width)),
            (_shape(layer.down), (arch.width, arch.hidden)),
            (layer.attention_norm.shape, (arch.width,)),
            (layer.feed_norm.shape, (arch.width,)),
        ]
    if len(weights.layers) != arch.layers or any(tuple(a) != b for a, b in found):
        msg = "a tensor's shape is not the architecture's"
        raise ModelFileError(msg)
    return weights


def _shape(matrix: Matrix | Codes8 | Table) -> tuple[int, ...]:
    while isinstance(matrix, Adapted):
        matrix = matrix.base
    if isinstance(matrix, Table):
        return tuple(matrix.values.shape)
    return tuple(matrix.shape if isinstance(matrix, torch.Tensor) else matrix.codes.shape)


def interleaved(rows: torch.Tensor, head: int) -> torch.Tensor:
    """Bring rows (or one row's elements) of whole heads from rope's halves into its pairs.

    Args:
        rows: (heads * head, ...): first halves, then second halves, head by head.
        head: width of one.
    """
    halves = rows.view(-1, 2, head // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def finite(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor. Raises ModelFileError: a number in it is NaN or infinite."""
    if not torch.isfinite(tensor).all():
        msg = "a weight is not a number"
        raise ModelFileError(msg)
    return tensor


def load_weights(file: GgufFile) -> Weights:
    """Read the weights of a file.

    Raises:
        ModelFileError: the file's architecture, shapes or formats are not those described here,
            or a weight is not a number.
    """
    tensors = file.tensors
    try:
        architecture = _architecture(file)
        return fitting(
            Weights(
                architecture=architecture,
                embedding=_codes8(tensors["token_embd.weight"]),
                layers=tuple(_layer(tensors, f"blk.{i}.") for i in range(architecture.layers)),
                final_norm=_vector(tensors["output_norm.weight"]),
            )
        )
    except (KeyError, ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        msg = "the file lacks a tensor or a field of the llama architecture"
        raise ModelFileError(msg) from error


def _architecture(file: GgufFile) -> Architecture:
    field = file.fields.__getitem__
    if field("general.architecture") != "llama" or "output.weight" in file.tensors:
        msg = "the file is not a llama model with a tied head"
        raise ModelFileError(msg)
    heads, width = field("llama.attention.head_count"), field("llama.embedding_length")
    arch = Architecture(
        layers=field("llama.block_count"),
        width=width,
        hidden=field("llama.feed_forward_length"),
        heads=heads,
        kv_heads=field("llama.attention.head_count_kv"),
        head=width // heads,
        vocabulary=field("llama.vocab_size"),
        context_tokens=field("llama.context_length"),
        rope_base=field("llama.rope.freq_base"),
        norm_epsilon=field("llama.attention.layer_norm_rms_epsilon"),
    )
    _must_fit(arch)
    return arch


def _must_fit(arch: Architecture) -> None:
    """Tensors may all be as such sizes say, and a forward pass still go astray."""
    sizes = (arch.layers, arch.width, arch.hidden, arch.heads, arch.kv_heads, arch.head)
    counts = (*sizes, arch.vocabulary, arch.context_tokens)
    fits = (
        all(type(count) is int and count > 0 for count in counts)
        and all(0 < number < math.inf for number in (arch.rope_base, arch.norm_epsilon))
        and arch.heads % arch.kv_heads == 0
        and arch.head % 2 == 0
    )
    if not fits:
        msg = "the file's sizes do not fit one another"
        raise ModelFileError(msg)


def _layer(tensors: dict[str, Tensor], prefix: str) -> Layer:
    def codes(*names: str) -> Codes4:
        parts = [_codes4(tensors[f"{prefix}{name}.weight"]) for name in names]
        return Codes4(
            torch.cat([part.codes for part in parts]),
            torch.cat([part.d for part in parts]),
            torch.cat([part.m for part in parts]),
        )

    return Layer(
        attention_norm=_vector(tensors[f"{prefix}attn_norm.weight"]),
        qkv=codes("attn_q", "attn_k", "attn_v"),
        attention_out=codes("attn_output"),
        feed_norm=_vector(tensors[f"{prefix}ffn_norm.weight"]),
        gate_up=codes("ffn_gate", "ffn_up"),
        down=codes("ffn_down"),
    )


def _vector(tensor: Tensor) -> torch.Tensor:
    _demand(tensor, TensorFormat.F32)
    return finite(torch.from_numpy(tensor.raw.view(np.float32).reshape(tensor.shape).copy()))


def _codes4(tensor: Tensor) -> Codes4:
    _demand(tensor, TensorFormat.Q4_1)
    blocks = tensor.raw.reshape(tensor.raw.shape[0], -1, _Q4_1_BYTES)
    nibbles = blocks[..., 4:]
    codes = np.concatenate([nibbles & 15, nibbles >> 4], axis=-1).astype(np.int8)
    scales = np.ascontiguousarray(blocks[..., :4]).view(np.float16).astype(np.float32)
    return Codes4(
        torch.from_numpy(codes.reshape(codes.shape[0], -1)),
        finite(torch.from_numpy(scales[..., 0].copy())),
        finite(torch.from_numpy(scales[..., 1].copy())),
    )


def _codes8(tensor: Tensor) -> Codes8:
    _demand(tensor, TensorFormat.Q8_0)
    blocks = tensor.raw.reshape(tensor.raw.shape[0], -1, _Q8_0_BYTES)
    codes = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    d = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)
    return Codes8(
        torch.from_numpy(codes.reshape(codes.shape[0], -1)), finite(torch.from_numpy(d[..., 0]))
    )


def _demand(tensor: Tensor, form: TensorFormat) -> None:
    if tensor.format is not form:
        msg = f"{tensor.name} is {tensor.format.name}, not {form.name}"
        raise ModelFileError(msg)
