"""Measure variants against the model they were made from, one at a time in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.precision.faults import Fault, PrecisionError
from inference.precision.making import Progress
from inference.precision.measure import Speed, accuracy_of, bytes_in_memory, speed_of
from inference.precision.report import Row
from inference.precision.schemes import Precision, computes_fp8

if TYPE_CHECKING:
    import torch

    from inference.precision.making import Heard
    from inference.precision.network import Network
    from inference.precision.source import Source

__all__ = ["SERVED", "Measuring", "measured"]

SERVED = {
    Precision.FP32: "torch engine, fp32",
    Precision.BF16: "torch engine, bf16",
    Precision.FP16: "torch engine, widened to fp32",
    Precision.INT8_DYNAMIC: "torch engine, as int8-weight",
    Precision.INT8_WEIGHT: "torch engine, int8 codes",
    Precision.INT4: "torch engine, packed int4",
    Precision.FP8_DYNAMIC: "torch engine, widened to bf16",
    Precision.FP8_WEIGHT: "torch engine, widened to bf16",
}
"""What the torch engine makes of such a variant; see `inference.checkpoint`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """How to measure. text: held-out stretches. decode_steps: 0 leaves speed out."""

    text: torch.Tensor
    device: torch.device
    batch: int = 4
    decode_steps: int = 64
    prefill_batch: int = 8

    def __post_init__(self) -> None:
        """Raise PrecisionError, NUMBER, if nothing would be measured so."""
        if min(self.batch, self.prefill_batch) < 1 or self.decode_steps < 0:
            raise PrecisionError(Fault.NUMBER)


def measured(
    name: str,
    variant: Source,
    original: Network,
    measuring: Measuring,
    *,
    file_bytes: int,
    heard: Heard = lambda progress: None,  # noqa: ARG005 -- nobody listens
) -> Row:
    """Measure one variant.

    Args:
        name: as the report calls it.
        variant: what is measured; may be the original itself.
        original: in fp32 on the device.
        measuring: text, device, how long.
        file_bytes: of its weights, as they are stored.
        heard: hears how many stretches are done.

    Raises:
        PrecisionError: NEEDS_GPU, OTHER_VOCABULARY, DAMAGED, TOO_LITTLE_TEXT, NOT_FINITE,
            OUT_OF_MEMORY.
    """
    network = _comparable(variant, original, measuring.device)
    total = len(measuring.text)
    accuracy = accuracy_of(
        network,
        original,
        measuring.text,
        batch=measuring.batch,
        told=lambda done: heard(Progress(name, done, total)),
    )
    steps = measuring.decode_steps
    speed = Speed(0.0, 0.0, "")
    if steps:
        speed = speed_of(network, measuring.text, batch=measuring.prefill_batch, steps=steps)
    return Row(
        name=name,
        precision=variant.precision.value,
        perplexity=accuracy.perplexity,
        agreement=accuracy.agreement,
        divergence=accuracy.divergence,
        file_bytes=file_bytes,
        memory_bytes=bytes_in_memory(network),
        prefill_per_s=speed.prefill_per_s,
        decode_per_s=speed.decode_per_s,
        timed=speed.how,
        peak_bytes=speed.peak_bytes,
        served=SERVED[variant.precision],
    )


def _comparable(variant: Source, original: Network, device: torch.device) -> Network:
    """Take a variant to the device, if it can be computed there and held against the original."""
    network = variant.network().to(device)
    if variant.precision is Precision.FP8_DYNAMIC and not computes_fp8(network):
        raise PrecisionError(Fault.NEEDS_GPU)
    if network.arch.vocabulary != original.arch.vocabulary:
        raise PrecisionError(Fault.OTHER_VOCABULARY)
    return network
