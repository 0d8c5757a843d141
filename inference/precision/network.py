"""The forward pass of a Llama-architecture model, to train and to measure with.

Plain modules named as Hugging Face's transformers names them, so a state dict is what a safetensors
file holds; torchao's tensors take the place of a weight without a change here. Rope turns the two
halves of a head against each other. The engines compute the same faster (`inference.engines`); the
tests compare them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it
from torch import nn

from inference.precision.faults import Fault, PrecisionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference.architecture import Architecture

__all__ = ["Cache", "Network", "network_of"]

Turns = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine of each position's angles: fp32, (tokens, head / 2)."""


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys and values of what was read: (layers, batch, kv heads, room, head) each."""

    keys: torch.Tensor
    values: torch.Tensor

    @classmethod
    def empty(
        cls, arch: Architecture, *, batch: int, room: int, device: torch.device, dtype: torch.dtype
    ) -> Cache:
        """Make room for so many tokens."""
        shape = (arch.layers, batch, arch.kv_heads, room, arch.head)
        return cls(
            torch.zeros(shape, device=device, dtype=dtype),
            torch.zeros(shape, device=device, dtype=dtype),
        )


class _Norm(nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.epsilon)
        return normed.to(x.dtype)


def _turned(x: torch.Tensor, turns: Turns) -> torch.Tensor:
    cosine, sine = turns
    left, right = x.float().chunk(2, dim=-1)
    turned = torch.cat([left * cosine - right * sine, right * cosine + left * sine], dim=-1)
    return turned.to(x.dtype)


class _Attention(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        queries, others = arch.heads * arch.head, arch.kv_heads * arch.head
        self.q_proj = nn.Linear(arch.width, queries, bias=arch.qkv_bias)
        self.k_proj = nn.Linear(arch.width, others, bias=arch.qkv_bias)
        self.v_proj = nn.Linear(arch.width, others, bias=arch.qkv_bias)
        self.o_proj = nn.Linear(queries, arch.width, bias=False)
        self.q_norm = _Norm(arch.head, arch.norm_epsilon) if arch.qk_norm else None
        self.k_norm = _Norm(arch.head, arch.norm_epsilon) if arch.qk_norm else None

    def forward(self, x: torch.Tensor, turns: Turns, past: _Past | None) -> torch.Tensor:
        q, k = self._heads(self.q_proj(x)), self._heads(self.k_proj(x))
        v = self._heads(self.v_proj(x))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = _turned(q, turns), _turned(k, turns)
        mask = None
        if past is not None:
            k, v, mask = past.extended(k, v)
        groups = self.arch.heads // self.arch.kv_heads
        seen = F.scaled_dot_product_attention(
            q,
            k.repeat_interleave(groups, 1),
            v.repeat_interleave(groups, 1),
            attn_mask=mask,
            is_causal=mask is None,
        )
        y: torch.Tensor = self.o_proj(seen.transpose(1, 2).flatten(2))
        return y

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], -1, self.arch.head).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class _Past:
    """One layer's part of the cache, and where this call's tokens stand: (tokens,)."""

    keys: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor

    def extended(
        self, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keep this call's keys and values; return all, and who sees whom: (tokens, room)."""
        self.keys.index_copy_(2, self.positions, k)
        self.values.index_copy_(2, self.positions, v)
        room = torch.arange(self.keys.shape[2], device=k.device)
        return self.keys, self.values, room <= self.positions[:, None]


class _Mlp(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(arch.width, arch.hidden, bias=False)
        self.up_proj = nn.Linear(arch.width, arch.hidden, bias=False)
        self.down_proj = nn.Linear(arch.hidden, arch.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class _Layer(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.input_layernorm = _Norm(arch.width, arch.norm_epsilon)
        self.self_attn = _Attention(arch)
        self.post_attention_layernorm = _Norm(arch.width, arch.norm_epsilon)
        self.mlp = _Mlp(arch)

    def forward(self, x: torch.Tensor, turns: Turns, past: _Past | None) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turns, past)
        y: torch.Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class _Embedding(nn.Module):
    """Rows by token; a quantised weight gives its rows without being expanded whole."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary, width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        codes, scale = getattr(self.weight, "qdata", None), getattr(self.weight, "scale", None)
        if codes is None or scale is None:
            return F.embedding(ids, self.weight)
        rows: torch.Tensor = (codes[ids].float() * scale[ids]).to(self.weight.dtype)
        return rows


class _Body(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.embed_tokens = _Embedding(arch.vocabulary, arch.width)
        self.layers = nn.ModuleList(_Layer(arch) for _ in range(arch.layers))
        self.norm = _Norm(arch.width, arch.norm_epsilon)


class Network(nn.Module):
    """A model whose weights can learn.

    Args:
        arch: its sizes. Weights are whatever memory held: see `network_of`.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.model = _Body(arch)
        self.lm_head = None if arch.tied else nn.Linear(arch.width, arch.vocabulary, bias=False)
        # Neither a parameter nor a buffer: a change of precision shall not round the angles.
        self._rates = torch.tensor(arch.rope_rates, dtype=torch.float32, device="cpu")

    def forward(
        self,
        ids: torch.Tensor,
        *,
        cache: Cache | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits after each token, in the precision of the head: (batch, tokens, vocabulary).

        Args:
            ids: (batch, tokens).
            cache: what was read before, which this call extends; None to read `ids` alone.
            positions: where the tokens stand, (tokens,); from 0 on unless given.
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        self._rates = self._rates.to(ids.device)
        angles = positions[:, None].float() * self._rates
        turns = (angles.cos(), angles.sin())
        x = self.model.embed_tokens(ids)
        for i, layer in enumerate(self.model.layers):
            past = None
            if cache is not None:
                past = _Past(cache.keys[i], cache.values[i], positions)
            x = layer(x, turns, past)
        return self._logits(self.model.norm(x))

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        return F.linear(x, head.weight)

    @property
    def matrices(self) -> dict[str, nn.Linear]:
        """The matrices of the blocks, by name: what is quantised and pruned."""
        found = self.model.layers.named_modules(prefix="model.layers")
        return {name: module for name, module in found if isinstance(module, nn.Linear)}


def network_of(arch: Architecture, state: Mapping[str, torch.Tensor]) -> Network:
    """Take over tensors; none is copied.

    Raises:
        PrecisionError: DAMAGED, one is missing, left over or of another shape.
    """
    with torch.device("meta"):
        network = Network(arch).requires_grad_(requires_grad=False)
    try:
        network.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        raise PrecisionError(Fault.DAMAGED) from error
    return network.eval()
