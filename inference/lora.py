"""LoRA adapters, as PEFT lays them: adapter_config.json and adapter_model.safetensors.

An adapter adds B A, scaled, to chosen matrices W of every layer:

    base_model.model.model.layers.N.MODULE.lora_A.weight    (rank, inputs)
    base_model.model.model.layers.N.MODULE.lora_B.weight    (outputs, rank)
    scale = lora_alpha / r, or lora_alpha / sqrt(r) with `use_rslora`

Where W is fp32 or bf16, the sum is made once, at load, in fp32 and rounded to W's type. Where W is
codes, they stay as they are, and B A is computed beside them in fp32, for each token. What PEFT
knows besides (DoRA, biases, ranks by pattern, whole modules, embeddings) is refused, as is a tensor
that the configuration does not announce.

Source: https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from inference.checkpoint import number_of, size_of, turned_rows
from inference.registry import ModelFileError
from inference.weights import Adapted, Codes4, Rows8, finite

if TYPE_CHECKING:
    from inference.architecture import Architecture
    from inference.safetensors_file import Tensors
    from inference.weights import Layer, Matrix, Weights

__all__ = ["RANK_MAX", "LoraConfig", "adapted", "lora_config"]

RANK_MAX = 512
_PREFIX = "base_model.model.model.layers."
_MODULES = {
    "q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
    "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp",
}  # fmt: skip
_MUST_BE_EMPTY = (
    "use_dora", "fan_in_fan_out", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save",
    "layers_to_transform", "layers_pattern", "layer_replication", "exclude_modules",
    "trainable_token_indices", "target_parameters", "megatron_config", "alora_invocation_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """What an adapter is: its rank, what B A is multiplied by, and the modules it adapts."""

    rank: int
    scale: float
    modules: frozenset[str]


def lora_config(told: dict[str, Any]) -> LoraConfig:
    """Read an `adapter_config.json`.

    Raises:
        ModelFileError: it is no LoRA, or one of a kind that is not implemented here.
    """
    plain = told.get("peft_type") == "LORA" and told.get("bias", "none") == "none"
    if not plain or any(told.get(key) for key in _MUST_BE_EMPTY):
        msg = "the adapter is no LoRA, or of a kind that is not implemented here"
        raise ModelFileError(msg)
    modules = told.get("target_modules")
    if not isinstance(modules, list) or not modules or not all(map(_is_module, modules)):
        msg = "the adapter changes modules that may not be adapted here"
        raise ModelFileError(msg)
    rank, alpha = size_of(told, "r"), number_of(told, "lora_alpha")
    if rank > RANK_MAX:
        msg = "the adapter's rank is out of range"
        raise ModelFileError(msg)
    scale = alpha / (math.sqrt(rank) if told.get("use_rslora") else rank)
    return LoraConfig(rank, scale, frozenset(modules))


def adapted(weights: Weights, config: LoraConfig, tensors: Tensors) -> Weights:
    """Return a base model's weights with an adapter.

    Raises:
        ModelFileError: a tensor is missing, left over, of another shape, or holds no numbers.
    """
    arch = weights.architecture
    source = _Source(arch, config, tensors)
    layers = tuple(source.layer(number, layer) for number, layer in enumerate(weights.layers))
    wanted = 2 * len(config.modules) * len(layers)
    if len(tensors.notes) != wanted:
        msg = "the adapter holds a tensor that its configuration does not announce"
        raise ModelFileError(msg)
    return replace(weights, layers=layers)


class _Source:
    def __init__(self, arch: Architecture, config: LoraConfig, tensors: Tensors) -> None:
        self._arch, self._config, self._tensors = arch, config, tensors

    def layer(self, number: int, layer: Layer) -> Layer:
        arch = self._arch
        heads, kv = arch.heads * arch.head, arch.kv_heads * arch.head
        qkv = self._both(number, {"q_proj": heads, "k_proj": kv, "v_proj": kv}, arch.width)
        out = self._both(number, {"o_proj": arch.width}, heads)
        feed = {"gate_proj": arch.hidden, "up_proj": arch.hidden}
        gate_up = self._both(number, feed, arch.width)
        down = self._both(number, {"down_proj": arch.width}, arch.hidden)
        if qkv is not None:
            qkv = qkv[0], turned_rows(qkv[1], arch)
        return replace(
            layer,
            qkv=_with(layer.qkv, qkv),
            attention_out=_with(layer.attention_out, out),
            gate_up=_with(layer.gate_up, gate_up),
            down=_with(layer.down, down),
        )

    def _both(
        self, number: int, outputs: dict[str, int], inputs: int
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return A (ranks, inputs) and B (all outputs, ranks) of matrices that are stacked."""
        chosen = [name for name in outputs if name in self._config.modules]
        if not chosen:
            return None
        rank = self._config.rank
        down = torch.cat([self._one(number, name, "lora_A", (rank, inputs)) for name in chosen])
        up = torch.zeros(sum(outputs.values()), down.shape[0])
        at = 0
        for name, rows in outputs.items():
            if name in chosen:
                part = self._one(number, name, "lora_B", (rows, rank))
                column = chosen.index(name) * rank
                up[at : at + rows, column : column + rank] = finite(part * self._config.scale)
            at += rows
        return down, up

    def _one(self, number: int, module: str, part: str, shape: tuple[int, int]) -> torch.Tensor:
        name = f"{_PREFIX}{number}.{_MODULES[module]}.{module}.{part}.weight"
        tensor = self._tensors.get(name, shape)
        if not tensor.is_floating_point():
            msg = "a tensor's type is not the architecture's"
            raise ModelFileError(msg)
        return finite(tensor.float())


def _with(matrix: Matrix, both: tuple[torch.Tensor, torch.Tensor] | None) -> Matrix:
    if both is None:
        return matrix
    down, up = both
    if isinstance(matrix, Codes4 | Rows8):
        return Adapted(matrix, down, up)
    if isinstance(matrix, Adapted):
        return Adapted(matrix.base, torch.cat([matrix.down, down]), torch.cat([matrix.up, up], 1))
    return finite(matrix.float() + up @ down).to(matrix.dtype)


def _is_module(name: object) -> bool:
    return isinstance(name, str) and name in _MODULES
