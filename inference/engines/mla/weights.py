"""Weights of a DeepSeek-V3-shaped model out of tensors that bear transformers' names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inference.checkpoint import Source
from inference.weights import dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.engines.mla.shape import MlaShape
    from inference.safetensors_file import Tensors

__all__ = ["Experts", "Feed", "MlaLayer", "MlaWeights", "load_mla"]


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed-forward: gate_up (2 * hidden, width), down (width, hidden)."""

    gate_up: torch.Tensor
    down: torch.Tensor


@dataclass(frozen=True, slots=True)
class Experts:
    """Experts, the shared one that every token goes to, and what chooses among the others.

    router: fp32, (experts, width). bias: fp32, (experts,): for the choice alone.
    """

    router: torch.Tensor
    bias: torch.Tensor
    routed: tuple[Feed, ...]
    shared: Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class MlaLayer:
    """One block.

    query: from the width, or from the compressed query. key_up: (heads, plain, latent). value_up:
    (heads, value, latent): they would expand a latent to keys and values, and are instead applied
    to queries and to what attention saw.
    """

    attention_norm: torch.Tensor
    query_down: torch.Tensor | None
    query_norm: torch.Tensor | None
    query: torch.Tensor
    latent_down: torch.Tensor
    latent_norm: torch.Tensor
    key_up: torch.Tensor
    value_up: torch.Tensor
    attention_out: torch.Tensor
    feed_norm: torch.Tensor
    feed: Feed | Experts


@dataclass(frozen=True, slots=True, kw_only=True)
class MlaWeights:
    """All of a model."""

    architecture: MlaShape
    embedding: torch.Tensor
    layers: tuple[MlaLayer, ...]
    final_norm: torch.Tensor
    head: torch.Tensor


def load_mla(shape: MlaShape, tensors: Tensors) -> MlaWeights:
    """Read all weights. Layers behind the last, which guess further tokens, are not used.

    Raises:
        ModelFileError: a tensor is missing, left over, of another shape, or holds no numbers.
    """
    source = _Matrices(tensors)
    table = (shape.vocabulary, shape.width)
    weights = MlaWeights(
        architecture=shape,
        embedding=source.tensor("model.embed_tokens", *table),
        layers=tuple(_layer(source, shape, number) for number in range(shape.layers)),
        final_norm=source.vector("model.norm.weight", shape.width),
        head=source.tensor("lm_head", *table),
    )
    source.must_be_used_up(but=(f"model.layers.{shape.layers}",))
    return weights


class _Matrices(Source):
    def tensor(self, name: str, *shape: int) -> torch.Tensor:
        return dense(self.matrix(name, *shape))

    def feed(self, name: str, hidden: int, width: int) -> Feed:
        names = [f"{name}.gate_proj", f"{name}.up_proj"]
        gate_up = dense(self.stacked(names, (hidden, hidden), width))
        return Feed(gate_up, self.tensor(f"{name}.down_proj", width, hidden))


def _layer(source: _Matrices, shape: MlaShape, number: int) -> MlaLayer:
    at = f"model.layers.{number}."
    attention = f"{at}self_attn."
    heads, width, rank = shape.heads, shape.width, shape.query_rank
    queries = heads * (shape.plain + shape.turned)
    pairs = source.tensor(
        f"{attention}kv_b_proj", heads * (shape.plain + shape.value), shape.latent
    ).view(heads, -1, shape.latent)
    key_up, value_up = torch.split(pairs, [shape.plain, shape.value], 1)
    return MlaLayer(
        attention_norm=source.vector(f"{at}input_layernorm.weight", width),
        query_down=source.tensor(f"{attention}q_a_proj", rank, width) if rank else None,
        query_norm=source.vector(f"{attention}q_a_layernorm.weight", rank) if rank else None,
        query=source.tensor(
            f"{attention}{'q_b_proj' if rank else 'q_proj'}", queries, rank or width
        ),
        latent_down=source.tensor(
            f"{attention}kv_a_proj_with_mqa", shape.latent + shape.turned, width
        ),
        latent_norm=source.vector(f"{attention}kv_a_layernorm.weight", shape.latent),
        key_up=key_up.float().contiguous(),
        value_up=value_up.float().contiguous(),
        attention_out=source.tensor(f"{attention}o_proj", width, heads * shape.value),
        feed_norm=source.vector(f"{at}post_attention_layernorm.weight", width),
        feed=_feed(source, shape, number, f"{at}mlp"),
    )


def _feed(source: _Matrices, shape: MlaShape, number: int, at: str) -> Feed | Experts:
    if number < shape.dense_layers:
        return source.feed(at, shape.hidden, shape.width)
    names: Sequence[str] = [f"{at}.experts.{expert}" for expert in range(shape.experts)]
    return Experts(
        router=source.vector(f"{at}.gate.weight", shape.experts, shape.width),
        bias=source.vector(f"{at}.gate.e_score_correction_bias", shape.experts),
        routed=tuple(source.feed(name, shape.expert_hidden, shape.width) for name in names),
        shared=source.feed(
            f"{at}.shared_experts", shape.expert_hidden * shape.shared_experts, shape.width
        ),
    )
