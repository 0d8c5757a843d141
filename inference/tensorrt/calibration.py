"""How large what a model's products read becomes: what an fp8 export scales it by.

SmolLM2's first tokens drive a few elements into the thousands; e4m3 ends at 448. A scale for each
product, taken from texts, keeps them; what a later text drives beyond it is cut off there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from inference.precision.network import Network

__all__ = ["measured_peaks"]

_PRODUCTS = {
    "self_attn.q_proj": "qkv",
    "self_attn.o_proj": "attention_out",
    "mlp.gate_proj": "gate_up",
    "mlp.down_proj": "down",
}
"""The matrix whose input is looked at, and the product of ours that reads the same."""


@torch.inference_mode()
def measured_peaks(network: Network, texts: Sequence[Sequence[int]]) -> Mapping[str, float]:
    """Run texts (token ids); return the largest magnitude that each product of a layer read.

    Keys are those of `inference.tensorrt.graph`: `layer_0_qkv` and so on.
    """
    peaks: dict[str, float] = {}

    def watch(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def look(_module: Any, given: tuple[torch.Tensor, ...]) -> None:  # noqa: ANN401 -- a hook's
            peaks[name] = max(peaks.get(name, 0.0), float(given[0].abs().max()))

        return look

    hooks = []
    for number, layer in enumerate(network.model.layers):
        for path, product in _PRODUCTS.items():
            module = layer.get_submodule(path)
            hooks.append(module.register_forward_pre_hook(watch(f"layer_{number}_{product}")))
    try:
        for text in texts:
            network(torch.tensor([list(text)]))
    finally:
        for hook in hooks:
            hook.remove()
    return peaks
