"""Sizes of a decoder-only model, and how it turns positions. PURE."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Architecture", "RopeScaling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Llama 3's stretching of rope (transformers: `rope_type` "llama3")."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context_tokens: int

    def rate(self, rate: float) -> float:
        """Slow a rate (radians a token) down: the slow ones wholly, the fast ones not at all."""
        turns = self.original_context_tokens * rate / (2 * math.pi)
        span = self.high_frequency_factor - self.low_frequency_factor
        kept = min(max((turns - self.low_frequency_factor) / span, 0.0), 1.0)
        return rate * (kept + (1 - kept) / self.factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Sizes of a Llama-architecture model. `head` is the width of one attention head.

    tied: the embedding is the output head. qkv_bias: as Qwen2 has. qk_norm: as Qwen3 has.
    """

    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    context_tokens: int
    rope_base: float
    norm_epsilon: float
    tied: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    rope_scaling: RopeScaling | None = None

    @property
    def rope_rates(self) -> tuple[float, ...]:
        """Radians a token of each pair of a head: head / 2 numbers."""
        rates = (self.rope_base ** (-2 * pair / self.head) for pair in range(self.head // 2))
        if self.rope_scaling is None:
            return tuple(rates)
        return tuple(map(self.rope_scaling.rate, rates))
