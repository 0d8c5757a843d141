"""Weights of Llama, Qwen2 and Qwen3 out of tensors that bear transformers' names.

A matrix `M.weight` is (outputs, inputs) in F32, F16 or BF16, or lies as codes, as
`inference.precision.files` writes them: weight = scale * (code - zero), with

    M._weight_qdata         I8 (outputs, inputs), or of 4 bits U8 (outputs, inputs / 2): codes plus
                            8, two a byte, the even column low; or F8_E4M3 (outputs, inputs)
    M._weight_scale         (outputs, groups)
    M._weight_zero_point    I8, as the scale, or absent

and is used so: 4 bits in groups of a multiple of 32, and 8 bits with one scale a row, as the codes
they are; other codes are expanded to bf16. F16 becomes fp32, which holds it exactly; beside codes,
all else is bf16. Nothing may be missing, nothing may be left over, each number must be one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from inference.architecture import Architecture, RopeScaling
from inference.registry import ModelFileError
from inference.weights import (
    GROUP,
    Codes4,
    Codes8,
    Layer,
    Rows8,
    Table,
    Weights,
    dense,
    finite,
    fitting,
    interleaved,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.safetensors_file import Tensors
    from inference.weights import Matrix

__all__ = ["MODEL_TYPES", "architecture_of", "load_checkpoint", "rope_of"]

MODEL_TYPES = ("llama", "qwen2", "qwen3")
_CODES, _SCALE, _ZERO = "_weight_qdata", "_weight_scale", "_weight_zero_point"
_MIDDLE = 8
_SIZE_MAX = 1 << 24
_ROPE_BUFFER = "rotary_emb.inv_freq"
"""Some older files hold this table; it follows from the configuration and is not used."""


def architecture_of(config: dict[str, Any]) -> Architecture:
    """Read a `config.json`.

    Raises:
        ModelFileError: it is of another architecture, or asks for what is not implemented here.
    """
    kind = config.get("model_type")
    if kind not in MODEL_TYPES or config.get("hidden_act", "silu") != "silu":
        msg = "the model's architecture is not implemented here"
        raise ModelFileError(msg)
    if config.get("use_sliding_window") or config.get("mlp_bias"):
        msg = "the model asks for sliding windows or biases that are not implemented here"
        raise ModelFileError(msg)
    if kind != "qwen2" and config.get("attention_bias"):
        msg = "the model asks for biases that are not implemented here"
        raise ModelFileError(msg)
    heads, width = size_of(config, "num_attention_heads"), size_of(config, "hidden_size")
    base, scaling = rope_of(config)
    arch = Architecture(
        layers=size_of(config, "num_hidden_layers"),
        width=width,
        hidden=size_of(config, "intermediate_size"),
        heads=heads,
        kv_heads=size_of(config, "num_key_value_heads", heads),
        head=size_of(config, "head_dim", width // heads),
        vocabulary=size_of(config, "vocab_size"),
        context_tokens=size_of(config, "max_position_embeddings"),
        rope_base=base,
        norm_epsilon=number_of(config, "rms_norm_eps"),
        tied=config.get("tie_word_embeddings", False) is True,
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
        rope_scaling=_llama3(scaling),
    )
    if arch.heads % arch.kv_heads or arch.head % 2:
        msg = "the configuration's sizes do not fit one another"
        raise ModelFileError(msg)
    return arch


def size_of(config: dict[str, Any], key: str, default: int | None = None) -> int:
    """Read a size, 1 or more, of a configuration. Raises ModelFileError: it is none."""
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or not 1 <= value <= _SIZE_MAX:
        msg = "a size in the configuration is missing or out of range"
        raise ModelFileError(msg)
    return value


def number_of(config: dict[str, Any], key: str, default: float | None = None) -> float:
    """Read a number above 0 of a configuration. Raises ModelFileError: it is none."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
        msg = "a number in the configuration is missing or out of range"
        raise ModelFileError(msg)
    return float(value)


def rope_of(config: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """Return rope's base, and how it is scaled (None: not), in either spelling of transformers.

    Raises:
        ModelFileError: they cannot be understood.
    """
    told = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(told, dict):
        msg = "the configuration's rope cannot be understood"
        raise ModelFileError(msg)
    base = number_of(told, "rope_theta", config.get("rope_theta", 10_000.0))
    kind = told.get("rope_type", told.get("type", "default"))
    return base, None if kind == "default" else {**told, "rope_type": kind}


def _llama3(scaling: dict[str, Any] | None) -> RopeScaling | None:
    if scaling is None:
        return None
    if scaling["rope_type"] != "llama3":
        msg = "the model's scaling of rope is not implemented here"
        raise ModelFileError(msg)
    return RopeScaling(
        factor=number_of(scaling, "factor"),
        low_frequency_factor=number_of(scaling, "low_freq_factor"),
        high_frequency_factor=number_of(scaling, "high_freq_factor"),
        original_context_tokens=size_of(scaling, "original_max_position_embeddings"),
    )


def load_checkpoint(arch: Architecture, tensors: Tensors) -> Weights:
    """Read all weights.

    Raises:
        ModelFileError: a tensor is missing, left over, of another shape, or holds no numbers.
    """
    source = Source(tensors)
    weights = fitting(
        Weights(
            architecture=arch,
            embedding=_table(source.matrix("model.embed_tokens", arch.vocabulary, arch.width)),
            layers=tuple(_layer(arch, source, i) for i in range(arch.layers)),
            final_norm=source.vector("model.norm.weight", arch.width),
            head=None if arch.tied else source.matrix("lm_head", arch.vocabulary, arch.width),
        )
    )
    # A tied head may lie in the file all the same; it is the embedding, so it is not read.
    source.must_be_used_up(but=("lm_head",) if arch.tied else ())
    return weights


class Source:
    """Tensors, and which of them were asked for."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._coded = any(name.endswith(_CODES) for name in tensors.notes)
        self._used: set[str] = set()

    def vector(self, name: str, *shape: int) -> torch.Tensor:
        """Read a norm or a bias, in fp32."""
        return self._plain(name, shape).float()

    def matrix(self, name: str, *shape: int) -> torch.Tensor | Codes4 | Rows8:
        """Read a matrix: its `weight`, or its codes."""
        if f"{name}.{_CODES}" in self._tensors:
            return self._codes(name, shape)
        tensor = self._plain(f"{name}.weight", shape)
        if self._coded or tensor.dtype == torch.bfloat16:
            return tensor.to(torch.bfloat16)
        return tensor.float()

    def stacked(self, names: Sequence[str], outputs: Sequence[int], inputs: int) -> Matrix:
        """Read matrices with the same input as one."""
        parts = [self.matrix(name, rows, inputs) for name, rows in zip(names, outputs, strict=True)]
        return stack(parts)

    def must_be_used_up(self, *, but: Sequence[str] = ()) -> None:
        """Raise ModelFileError if there are tensors that nobody asked for."""
        left = self._tensors.notes.keys() - self._used
        allowed = tuple(f"{name}." for name in but)
        if any(not (f"{name}.".startswith(allowed) or _ROPE_BUFFER in name) for name in left):
            msg = "the model holds a tensor that its architecture does not know"
            raise ModelFileError(msg)

    def _plain(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        self._used.add(name)
        tensor = self._tensors.get(name, shape)
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            msg = "a tensor's type is not the architecture's"
            raise ModelFileError(msg)
        return finite(tensor)

    def _codes(self, name: str, shape: tuple[int, ...]) -> torch.Tensor | Codes4 | Rows8:
        names = [f"{name}.{part}" for part in (_CODES, _SCALE, _ZERO)]
        self._used |= set(names)
        codes = self._tensors.get(names[0])
        scale = finite(self._tensors.get(names[1]).float())
        zero = self._tensors.get(names[2]) if names[2] in self._tensors else None
        if codes.dim() != len(shape) or scale.dim() != len(shape) or not scale.numel():
            msg = "a tensor's shape is not the architecture's"
            raise ModelFileError(msg)
        if codes.dtype == torch.uint8:
            codes = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(1).to(torch.int8)
            codes = codes - _MIDDLE
        groups = (shape[0], scale.shape[-1])
        if tuple(codes.shape) != shape or shape[1] % groups[1] or tuple(scale.shape) != groups:
            msg = "a tensor's shape is not the architecture's"
            raise ModelFileError(msg)
        if zero is None:
            zero = torch.zeros(groups, dtype=torch.int8)
        elif zero.shape != scale.shape or zero.dtype is not torch.int8:
            msg = "a tensor's shape is not the architecture's"
            raise ModelFileError(msg)
        return _used_as(codes, scale, zero.float())


def _used_as(
    codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor
) -> torch.Tensor | Codes4 | Rows8:
    """Keep codes as they are, where there is a product for them."""
    group = codes.shape[1] // scale.shape[1]
    if codes.dtype == torch.int8 and scale.shape[1] == 1 and not zero.any():
        return Rows8(codes, scale[:, 0])
    if _is_four_bit(codes) and group % GROUP == 0:
        d = scale.repeat_interleave(group // GROUP, dim=1)
        m = (-(_MIDDLE + zero) * scale).repeat_interleave(group // GROUP, dim=1)
        return Codes4((codes + _MIDDLE).to(torch.int8), d, finite(m))
    grouped = codes.float().view(*scale.shape, group) - zero[..., None]
    return finite((grouped * scale[..., None]).flatten(1)).to(torch.bfloat16)


def _is_four_bit(codes: torch.Tensor) -> bool:
    if codes.dtype != torch.int8:
        return False
    return bool(codes.min() >= -_MIDDLE and codes.max() < _MIDDLE)


def stack(parts: Sequence[Matrix]) -> Matrix:
    """Put matrices with the same input on top of one another."""
    codes4 = [part for part in parts if isinstance(part, Codes4)]
    if len(codes4) == len(parts):
        return Codes4(
            torch.cat([part.codes for part in codes4]),
            torch.cat([part.d for part in codes4]),
            torch.cat([part.m for part in codes4]),
        )
    rows8 = [part for part in parts if isinstance(part, Rows8)]
    if len(rows8) == len(parts):
        scales = torch.cat([part.scale for part in rows8])
        return Rows8(torch.cat([part.codes for part in rows8]), scales)
    plain = [dense(part) for part in parts]
    if all(isinstance(part, torch.Tensor) for part in parts):
        return torch.cat(plain)
    return torch.cat([part.to(torch.bfloat16) for part in plain])


def _layer(arch: Architecture, source: Source, number: int) -> Layer:
    at = f"model.layers.{number}."
    outputs = (arch.heads * arch.head, arch.kv_heads * arch.head, arch.kv_heads * arch.head)
    names = [f"{at}self_attn.{name}_proj" for name in "qkv"]
    norms = [f"{at}self_attn.{name}_norm.weight" for name in "qk"] if arch.qk_norm else []
    q_norm, k_norm = (
        (interleaved(source.vector(name, arch.head), arch.head) for name in norms)
        if norms
        else (None, None)
    )
    return Layer(
        attention_norm=source.vector(f"{at}input_layernorm.weight", arch.width),
        qkv=turned(source.stacked(names, outputs, arch.width), arch),
        attention_out=source.matrix(f"{at}self_attn.o_proj", arch.width, outputs[0]),
        feed_norm=source.vector(f"{at}post_attention_layernorm.weight", arch.width),
        gate_up=source.stacked(
            (f"{at}mlp.gate_proj", f"{at}mlp.up_proj"), (arch.hidden, arch.hidden), arch.width
        ),
        down=source.matrix(f"{at}mlp.down_proj", arch.width, arch.hidden),
        qkv_bias=_bias(arch, source, names, outputs) if arch.qkv_bias else None,
        q_norm=q_norm,
        k_norm=k_norm,
    )


def _bias(
    arch: Architecture, source: Source, names: Sequence[str], outputs: Sequence[int]
) -> torch.Tensor:
    parts = [source.vector(f"{n}.bias", rows) for n, rows in zip(names, outputs, strict=True)]
    return turned_rows(torch.cat(parts), arch)


def turned(qkv: Matrix, arch: Architecture) -> Matrix:
    """Bring the rows of q and k into rope's pairs."""
    match qkv:
        case Codes4(codes, d, m):
            return Codes4(*(turned_rows(part, arch) for part in (codes, d, m)))
        case Rows8(codes, scale):
            return Rows8(turned_rows(codes, arch), turned_rows(scale, arch))
        case torch.Tensor():
            return turned_rows(qkv, arch)
        case _:
            return turned_rows(qkv.dequantised(), arch)


def turned_rows(rows: torch.Tensor, arch: Architecture) -> torch.Tensor:
    """Bring what stands in the order of the rows of q, k, v into rope's pairs: v stays."""
    stop = (arch.heads + arch.kv_heads) * arch.head
    return torch.cat([interleaved(rows[:stop], arch.head), rows[stop:]])


def _table(matrix: torch.Tensor | Codes4 | Rows8) -> Codes8 | Table:
    if isinstance(matrix, Rows8) and matrix.codes.shape[1] % GROUP == 0:
        groups = matrix.codes.shape[1] // GROUP
        return Codes8(matrix.codes, matrix.scale[:, None].expand(-1, groups).contiguous())
    return Table(dense(matrix))
