"""Weights on the device, stacked as the kernels read them, and the tables and caches beside them.

Architectures: Llama (also the distilled DeepSeek-R1 of that shape), Qwen2 (biases on q, k, v) and
Qwen3 (norms on the heads of q and k). Matrices that read the same input are one: q, k, v and
gate, up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inference.weights import dense

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference.architecture import Architecture
    from inference.engines.cuda.products import Matrix
    from inference.weights import Layer, Weights

__all__ = [
    "DeviceLayer",
    "DeviceWeights",
    "from_codes",
    "from_state",
    "random_weights",
    "sent",
    "turns",
]


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Queue a copy to the device.

    The host does not wait for what runs there: meanwhile it reads and tells the step before.
    """
    if device.type != "cuda" or not len(values):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLayer:
    """One block: (outputs, inputs) each; `qkv_bias` and head norms where the model has them."""

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
class DeviceWeights:
    """All of a model, on one device. `head` is `embedding` where they are tied."""

    architecture: Architecture
    embedding: torch.Tensor
    layers: tuple[DeviceLayer, ...]
    final_norm: torch.Tensor
    head: torch.Tensor

    @property
    def bytes_read(self) -> int:
        """What a decode step reads of them: all but the embedding, unless it is the head."""
        matrices: list[Matrix] = [self.head]
        for layer in self.layers:
            matrices += [layer.qkv, layer.attention_out, layer.gate_up, layer.down]
        return sum(matrix.numel() * matrix.element_size() for matrix in matrices)


def random_weights(
    arch: Architecture, *, device: str, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> DeviceWeights:
    """Make weights of a shape, for benchmarks and tests: normal, 0.02; norms 1."""
    source = torch.Generator(device).manual_seed(seed)

    def matrix(*shape: int) -> torch.Tensor:
        made = torch.empty(*shape, device=device, dtype=dtype)
        return made.normal_(0, 0.02, generator=source)

    def ones(size: int) -> torch.Tensor:
        return torch.ones(size, device=device, dtype=dtype)

    stacked = (arch.heads + 2 * arch.kv_heads) * arch.head

    def layer() -> DeviceLayer:
        return DeviceLayer(
            attention_norm=ones(arch.width),
            qkv=matrix(stacked, arch.width),
            attention_out=matrix(arch.width, arch.heads * arch.head),
            feed_norm=ones(arch.width),
            gate_up=matrix(2 * arch.hidden, arch.width),
            down=matrix(arch.width, arch.hidden),
            qkv_bias=matrix(stacked) if arch.qkv_bias else None,
            q_norm=ones(arch.head) if arch.qk_norm else None,
            k_norm=ones(arch.head) if arch.qk_norm else None,
        )

    embedding = matrix(arch.vocabulary, arch.width)
    return DeviceWeights(
        architecture=arch,
        embedding=embedding,
        layers=tuple(layer() for _ in range(arch.layers)),
        final_norm=ones(arch.width),
        head=embedding if arch.tied else matrix(arch.vocabulary, arch.width),
    )


def from_state(
    arch: Architecture,
    state: Mapping[str, torch.Tensor],
    *,
    device: str,
    dtype: torch.dtype = torch.bfloat16,
) -> DeviceWeights:
    """Take over tensors named as Hugging Face's transformers names them.

    Raises:
        KeyError: a tensor is missing.
    """

    def put(name: str) -> torch.Tensor:
        return state[name].to(device, dtype).contiguous()

    def stack(prefix: str, names: tuple[str, ...], suffix: str) -> torch.Tensor:
        return torch.cat([put(f"{prefix}{name}.{suffix}") for name in names])

    def layer(prefix: str) -> DeviceLayer:
        qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        return DeviceLayer(
            attention_norm=put(f"{prefix}input_layernorm.weight"),
            qkv=stack(prefix, qkv, "weight"),
            attention_out=put(f"{prefix}self_attn.o_proj.weight"),
            feed_norm=put(f"{prefix}post_attention_layernorm.weight"),
            gate_up=stack(prefix, ("mlp.gate_proj", "mlp.up_proj"), "weight"),
            down=put(f"{prefix}mlp.down_proj.weight"),
            qkv_bias=stack(prefix, qkv, "bias") if arch.qkv_bias else None,
            q_norm=put(f"{prefix}self_attn.q_norm.weight") if arch.qk_norm else None,
            k_norm=put(f"{prefix}self_attn.k_norm.weight") if arch.qk_norm else None,
        )

    embedding = put("model.embed_tokens.weight")
    return DeviceWeights(
        architecture=arch,
        embedding=embedding,
        layers=tuple(layer(f"model.layers.{number}.") for number in range(arch.layers)),
        final_norm=put("model.norm.weight"),
        head=embedding if arch.tied else put("lm_head.weight"),
    )


def from_codes(
    weights: Weights, *, device: str, dtype: torch.dtype = torch.bfloat16
) -> DeviceWeights:
    """Dequantise a CPU model's weights; interleaved rope becomes the kernels' halves."""
    arch = weights.architecture

    def put(matrix: torch.Tensor) -> torch.Tensor:
        return matrix.to(device, dtype).contiguous()

    def turned(vector: torch.Tensor | None, heads: int) -> torch.Tensor | None:
        return None if vector is None else put(_in_halves(vector, arch, heads))

    def layer(one: Layer) -> DeviceLayer:
        heads = arch.heads + arch.kv_heads
        return DeviceLayer(
            attention_norm=put(one.attention_norm),
            qkv=put(_in_halves(dense(one.qkv), arch, heads)),
            attention_out=put(dense(one.attention_out)),
            feed_norm=put(one.feed_norm),
            gate_up=put(dense(one.gate_up)),
            down=put(dense(one.down)),
            qkv_bias=turned(one.qkv_bias, heads),
            q_norm=turned(one.q_norm, 1),
            k_norm=turned(one.k_norm, 1),
        )

    embedding = put(weights.embedding.dequantised())
    return DeviceWeights(
        architecture=arch,
        embedding=embedding,
        layers=tuple(layer(one) for one in weights.layers),
        final_norm=put(weights.final_norm),
        head=embedding if weights.head is None else put(dense(weights.head)),
    )


def _in_halves(rows: torch.Tensor, arch: Architecture, heads: int) -> torch.Tensor:
    """Undo llama.cpp's permutation: it turns neighbours, the kernels element i with i + dim/2."""
    stop = heads * arch.head
    pairs = rows[:stop].view(-1, arch.head // 2, 2, *rows.shape[1:])
    return torch.cat([pairs.transpose(1, 2).reshape(rows[:stop].shape), rows[stop:]])


def turns(arch: Architecture, positions: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of rope: (positions, head / 2) each, fp32."""
    rates = torch.tensor(arch.rope_rates, dtype=torch.float64)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    return angles.cos().float().to(device), angles.sin().float().to(device)
