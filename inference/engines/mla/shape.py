"""Sizes of a DeepSeek-V3-shaped model, and how it turns positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from inference.checkpoint import number_of, rope_of, size_of
from inference.registry import ModelFileError

__all__ = ["MlaShape", "Yarn", "mla_shape"]

_EXPERTS_MAX = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Yarn:
    """How rope is stretched beyond the context that a model was first trained on.

    Source: https://arxiv.org/abs/2309.00071, and `_compute_yarn_parameters` of transformers.
    """

    factor: float
    original_context_tokens: int
    fast_turns: float
    slow_turns: float
    scale: float
    all_scale: float

    def rates(self, base: float, width: int) -> tuple[float, ...]:
        """Radians a token of each pair: fast pairs as they were, slow ones by the factor slower."""
        low = max(math.floor(self._pair_with(self.fast_turns, base, width)), 0)
        high = min(math.ceil(self._pair_with(self.slow_turns, base, width)), width - 1)
        span = high - low or 0.001
        told = []
        for pair in range(width // 2):
            rate = base ** (-2 * pair / width)
            kept = 1 - min(max((pair - low) / span, 0.0), 1.0)
            told.append(rate * (kept + (1 - kept) / self.factor))
        return tuple(told)

    def _pair_with(self, turns: float, base: float, width: int) -> float:
        """Which pair turns so often within the original context."""
        ratio = self.original_context_tokens / (turns * 2 * math.pi)
        return width * math.log(ratio) / (2 * math.log(base))

    @property
    def length(self) -> float:
        """What turned pairs are multiplied by."""
        if self.scale and self.all_scale:
            return self._stretch(self.scale) / self._stretch(self.all_scale)
        return self._stretch(1.0)

    @property
    def sharpness(self) -> float:
        """What attention's scores are multiplied by, besides one over the root of the width."""
        return self._stretch(self.all_scale) ** 2 if self.all_scale else 1.0

    def _stretch(self, scale: float) -> float:
        return 0.1 * scale * math.log(self.factor) + 1 if self.factor > 1 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MlaShape:
    """Sizes. `plain` is the width of a head without rope, `turned` with it, `value` of its value.

    query_rank: 0: queries are not compressed. dense_layers: the first ones, without experts.
    """

    layers: int
    width: int
    hidden: int
    heads: int
    plain: int
    turned: int
    value: int
    query_rank: int
    latent: int
    vocabulary: int
    context_tokens: int
    dense_layers: int
    experts: int
    expert_hidden: int
    shared_experts: int
    groups: int
    groups_chosen: int
    chosen: int
    shares_sum_to_one: bool
    routed_scale: float
    norm_epsilon: float
    rope_base: float
    yarn: Yarn | None

    @property
    def rope_rates(self) -> tuple[float, ...]:
        """Radians a token of each pair of the turned part."""
        if self.yarn is not None:
            return self.yarn.rates(self.rope_base, self.turned)
        return tuple(self.rope_base ** (-2 * n / self.turned) for n in range(self.turned // 2))

    @property
    def score_scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        sharpness = 1.0 if self.yarn is None else self.yarn.sharpness
        return sharpness / math.sqrt(self.plain + self.turned)


def mla_shape(config: dict[str, Any]) -> MlaShape:
    """Read a `config.json`.

    Raises:
        ModelFileError: it is of another architecture, or asks for what is not implemented here.
    """
    plain = (
        config.get("model_type") == "deepseek_v3"
        and config.get("hidden_act", "silu") == "silu"
        and config.get("rope_interleave", True) is True
        and config.get("scoring_func", "sigmoid") == "sigmoid"
        and config.get("topk_method", "noaux_tc") == "noaux_tc"
        and not config.get("attention_bias")
        and not config.get("tie_word_embeddings")
        and not config.get("quantization_config")
    )
    if not plain:
        msg = "the model's architecture is not implemented here"
        raise ModelFileError(msg)
    base, scaling = rope_of(config)
    layers = size_of(config, "num_hidden_layers")
    rank = config.get("q_lora_rank")
    dense = config.get("first_k_dense_replace")
    shape = MlaShape(
        layers=layers,
        width=size_of(config, "hidden_size"),
        hidden=size_of(config, "intermediate_size"),
        heads=size_of(config, "num_attention_heads"),
        plain=size_of(config, "qk_nope_head_dim"),
        turned=size_of(config, "qk_rope_head_dim"),
        value=size_of(config, "v_head_dim"),
        query_rank=0 if rank is None else size_of(config, "q_lora_rank"),
        latent=size_of(config, "kv_lora_rank"),
        vocabulary=size_of(config, "vocab_size"),
        context_tokens=size_of(config, "max_position_embeddings"),
        dense_layers=dense if type(dense) is int and 0 <= dense <= layers else layers,
        experts=size_of(config, "n_routed_experts"),
        expert_hidden=size_of(config, "moe_intermediate_size"),
        shared_experts=size_of(config, "n_shared_experts"),
        groups=size_of(config, "n_group"),
        groups_chosen=size_of(config, "topk_group"),
        chosen=size_of(config, "num_experts_per_tok"),
        shares_sum_to_one=config.get("norm_topk_prob") is True,
        routed_scale=number_of(config, "routed_scaling_factor"),
        norm_epsilon=number_of(config, "rms_norm_eps"),
        rope_base=base,
        yarn=_yarn(scaling, config),
    )
    _must_fit(shape)
    return shape


def _yarn(scaling: dict[str, Any] | None, config: dict[str, Any]) -> Yarn | None:
    if scaling is None:
        return None
    if scaling["rope_type"] != "yarn" or scaling.get("attention_factor") is not None:
        msg = "the model's scaling of rope is not implemented here"
        raise ModelFileError(msg)
    original = size_of(
        scaling, "original_max_position_embeddings", config.get("max_position_embeddings")
    )
    return Yarn(
        factor=number_of(scaling, "factor"),
        original_context_tokens=original,
        fast_turns=number_of(scaling, "beta_fast", 32.0),
        slow_turns=number_of(scaling, "beta_slow", 1.0),
        scale=_or_zero(scaling, "mscale"),
        all_scale=_or_zero(scaling, "mscale_all_dim"),
    )


def _or_zero(scaling: dict[str, Any], key: str) -> float:
    return number_of(scaling, key) if scaling.get(key) else 0.0


def _must_fit(shape: MlaShape) -> None:
    inside, rest = divmod(shape.experts, shape.groups)
    fits = (
        shape.turned % 2 == 0
        and rest == 0
        and inside > 1  # a group is judged by its two best
        and shape.groups_chosen <= shape.groups
        and shape.chosen <= shape.groups_chosen * inside
        and shape.experts <= _EXPERTS_MAX
    )
    if not fits:
        msg = "the configuration's sizes do not fit one another"
        raise ModelFileError(msg)
