"""Which forward pass a model gets on a CPU: the compiled step where it can, else PyTorch's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from inference.engines.jit.model import KEPT, CompiledLlama, compiles
from inference.engines.llama import Llama

if TYPE_CHECKING:
    from inference.store.manifest import Manifest
    from inference.weights import Weights

__all__ = ["COMPILED_PRECISION", "cpu_model", "kept_bytes", "on_cpu"]

COMPILED_PRECISION = (
    "Q4_1: weights 4 bit in groups of 32, activations int8 in groups of 16 (16 bit before"
    " queries, keys and values), keys and values fp16, attention fp32"
)
"""Another arithmetic than PyTorch's here, so another model as far as a record is concerned."""


def cpu_model(
    weights: Weights, *, slots: int, context_tokens: int, threads: int
) -> CompiledLlama | Llama:
    """Lay a model out. Cost: 1 to 3 s for SmolLM2-135M."""
    if compiles(weights):
        return CompiledLlama(weights, slots=slots, context_tokens=context_tokens, threads=threads)
    return Llama(weights, slots=slots, context_tokens=context_tokens)


def kept_bytes(weights: Weights) -> int:
    """Return the bytes of a number among the keys and values that `cpu_model` keeps."""
    return (KEPT if compiles(weights) else torch.float32).itemsize


def on_cpu(manifest: Manifest, weights: Weights) -> Manifest:
    """Return the manifest with the precision that `cpu_model` will compute in."""
    return replace(manifest, precision=COMPILED_PRECISION) if compiles(weights) else manifest
