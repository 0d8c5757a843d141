"""The precisions a model can have, and torchao's recipe for each.

    fp32, bf16, fp16   every tensor
    int8-dynamic       blocks: int8 a row of weights, int8 a token of activations
    int8-weight        blocks: int8 a row of weights
    int4               blocks: 4 bits with scale and zero a group of inputs
    fp8-dynamic        blocks: e4m3 a row of weights, e4m3 a token of activations; needs Hopper
    fp8-weight         blocks: e4m3 a row of weights

"Blocks" are the matrices of attention and feed-forward. With int8 and int4 the embedding, which may
be the output head too, is int8 by row; norms, biases and all else are bf16.

Source: https://docs.pytorch.org/ao/stable/ (torchao.quantization, BSD-3-Clause).
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from inference.precision.faults import Fault, PrecisionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inference.precision.network import Network

__all__ = ["GROUP", "Precision", "computes_fp8", "quantise", "quiet_torchao"]

GROUP = 32
_HOPPER = (9, 0)


class Precision(StrEnum):
    """A precision by the name that commands and manifests use."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8_DYNAMIC = "int8-dynamic"
    INT8_WEIGHT = "int8-weight"
    INT4 = "int4"
    FP8_DYNAMIC = "fp8-dynamic"
    FP8_WEIGHT = "fp8-weight"

    @classmethod
    def named(cls, name: str) -> Precision:
        """Find a precision.

        Raises:
            PrecisionError: UNKNOWN_PRECISION.
        """
        try:
            return cls(name)
        except ValueError as error:
            raise PrecisionError(Fault.UNKNOWN_PRECISION) from error

    @property
    def plain(self) -> torch.dtype | None:
        """The type of every tensor, where it is one; None of a quantised precision."""
        return _PLAIN.get(self)

    @property
    def codes_embedding(self) -> bool:
        """Whether the embedding is int8 by row."""
        return self in {Precision.INT8_DYNAMIC, Precision.INT8_WEIGHT, Precision.INT4}

    def told(self, group: int = GROUP) -> str:
        """What a manifest says of it."""
        text = _TOLD[self]
        return f"{text} in groups of {group}" if self is Precision.INT4 else text


_PLAIN = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
_TOLD = {
    Precision.FP32: "fp32",
    Precision.BF16: "bf16",
    Precision.FP16: "fp16",
    Precision.INT8_DYNAMIC: "blocks int8 by row, activations int8 by token; embedding int8 by row",
    Precision.INT8_WEIGHT: "blocks and embedding int8 by row, activations bf16",
    Precision.INT4: "embedding int8 by row, activations bf16; blocks 4 bit with scale and zero",
    Precision.FP8_DYNAMIC: "blocks e4m3 by row, activations e4m3 by token; embedding bf16",
    Precision.FP8_WEIGHT: "blocks e4m3 by row, activations and embedding bf16",
}


@contextmanager
def quiet_torchao() -> Iterator[None]:
    """Import torchao without its remarks on kernels for other machines.

    Raises:
        PrecisionError: NO_LIBRARY.
    """
    loud = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    before = [logger.level for logger in loud]
    for logger in loud:
        logger.setLevel(logging.ERROR)
    try:
        yield
    except ModuleNotFoundError as error:
        raise PrecisionError(Fault.NO_LIBRARY) from error
    finally:
        for logger, level in zip(loud, before, strict=True):
            logger.setLevel(level)


def quantise(network: Network, precision: Precision, *, group: int = GROUP) -> Network:
    """Change a network's weights in place, on the device where they are; returns it.

    Raises:
        PrecisionError: NEEDS_GPU, GROUPS, ALREADY_QUANTISED, NO_LIBRARY.
    """
    if any(type(p.data) is not torch.Tensor for p in network.parameters()):
        raise PrecisionError(Fault.ALREADY_QUANTISED)
    if precision.plain is not None:
        return network.to(precision.plain)
    if precision is Precision.FP8_DYNAMIC and not computes_fp8(network):
        raise PrecisionError(Fault.NEEDS_GPU)
    if precision is Precision.INT4 and _leaves_rest(network, group):
        raise PrecisionError(Fault.GROUPS)
    network.to(torch.bfloat16)
    with quiet_torchao():
        from torchao.quantization import quantize_  # noqa: PLC0415 -- seconds, for few
    quantize_(network.model.layers, _recipe(precision, group))
    if precision.codes_embedding:
        _code_embedding(network)
    return network


def computes_fp8(network: Network) -> bool:
    """Whether the network is where 8-bit floats are multiplied."""
    device = next(network.parameters()).device
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _HOPPER


def _leaves_rest(network: Network, group: int) -> bool:
    matrices = network.matrices.values()
    return group < 1 or any(matrix.in_features % group for matrix in matrices)


def _recipe(precision: Precision, group: int) -> Any:  # noqa: ANN401 -- torchao's config base
    from torchao import quantization as ao  # noqa: PLC0415 -- as above

    match precision:
        case Precision.INT8_DYNAMIC:
            return ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
        case Precision.INT8_WEIGHT:
            return ao.Int8WeightOnlyConfig(set_inductor_config=False)
        case Precision.INT4:
            # Of torchao's layouts this one alone computes on every device, by expanding the codes.
            return ao.IntxWeightOnlyConfig(
                weight_dtype=torch.int4,  # type: ignore[attr-defined] # torch's stubs lack it
                granularity=ao.PerGroup(group),
                mapping_type=ao.MappingType.ASYMMETRIC,
            )
        case Precision.FP8_DYNAMIC:
            return ao.Float8DynamicActivationFloat8WeightConfig(
                granularity=ao.PerRow(), set_inductor_config=False
            )
        case _:
            return ao.Float8WeightOnlyConfig(set_inductor_config=False)


def _code_embedding(network: Network) -> None:
    from torchao.quantization import Int8Tensor, PerRow  # noqa: PLC0415 -- as above

    holders: list[nn.Module] = [network.model.embed_tokens]
    if network.lm_head is not None:
        holders.append(network.lm_head)
    for holder in holders:
        weight = holder.get_parameter("weight").detach()
        coded = Int8Tensor.from_hp(weight, granularity=PerRow())
        holder.register_parameter("weight", nn.Parameter(coded, requires_grad=False))
