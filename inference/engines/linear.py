"""Matrix products on a CPU, in the format that is fastest for the number of rows.

Every product gives a row the same bits whoever shares the batch, so a seeded answer does not depend
on the load: packed int4 and bf16 work row by row, and the head's int8 products are summed in
integers. The dynamic int8 product of torch.ao would be faster for 5 to 16 rows, but it quantises a
batch by its largest value: one tenant's prompt would sway another's answer.
"""

from __future__ import annotations

import structlog
import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.weights import GROUP, Codes4

__all__ = ["Head", "Linear"]

log = structlog.get_logger()

_pack_int4 = torch.ops.aten._convert_weight_to_int4pack_for_cpu  # noqa: SLF001 -- no public name
_multiply_int4 = torch.ops.aten._weight_int4pack_mm_for_cpu  # noqa: SLF001 -- no public name
_INNER_TILES = 1
_INT4_ROWS_MAX = 48
"""Above it bf16 is faster (2 cores, AVX-512: 64 rows of SmolLM2 in 44 ms against 83 ms)."""
_INT8_MAX = 127
_INT8_ZERO = 128
_TRIED_ROWS = 8
_TRIAL_TOLERANCE = 0.02


class Linear:
    """y = x W', for a matrix given as 4-bit codes.

    Few rows are bound by reading the weights, so those stay 4 bit; many are bound by arithmetic,
    for which a bf16 copy is kept.
    """

    def __init__(self, weight: Codes4) -> None:
        self._packed = _pack_int4(weight.codes.to(torch.int32), _INNER_TILES)
        scales = torch.stack([weight.d, weight.m + 8 * weight.d], dim=-1)
        self._scales = scales.transpose(0, 1).to(torch.bfloat16).contiguous()
        self._dense = weight.dequantised().to(torch.bfloat16)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: bf16 (rows, inputs) to bf16 (rows, outputs)."""
        if x.shape[0] > _INT4_ROWS_MAX:
            return F.linear(x, self._dense)
        y: torch.Tensor = _multiply_int4(x, self._packed, GROUP, self._scales)
        return y


class Head:
    """Logits, fp32: int8 weights by output channel, activations int8 by row.

    Some CPUs add products of bytes in 16 bits and saturate. So the sums are tried once with the
    largest values there are; where they come out wrong, bf16 is used instead.

    Args:
        weight: fp32, (vocabulary, width).
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._scale = weight.abs().amax(dim=1) / _INT8_MAX
        codes = (weight / self._scale[:, None]).round().to(torch.int8)
        self._zero = torch.zeros(weight.shape[0], dtype=torch.long)
        self._packed = torch.ops.onednn.qlinear_prepack(codes, None)
        self._dense: torch.Tensor | None = None
        if not self._adds_up(weight):
            log.warning("inference.int8_saturates")
            self._dense = weight.to(torch.bfloat16)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: fp32 (rows, width) to fp32 (rows, vocabulary)."""
        if self._dense is not None:
            return F.linear(x.bfloat16(), self._dense).float()
        # A row of zeros would divide by zero; NaN stays NaN and is noticed by the sampler.
        peak = x.abs().amax(dim=-1, keepdim=True).clamp_min_(1e-12)
        codes = (x * (_INT8_MAX / peak)).round_().add_(_INT8_ZERO).to(torch.uint8)
        return self._multiply(codes).mul_(peak)

    def _multiply(self, codes: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            codes,
            1 / _INT8_MAX,
            _INT8_ZERO,
            self._packed,
            self._scale,
            self._zero,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return y

    def _adds_up(self, weight: torch.Tensor) -> bool:
        """Whether rows of the weight, met by their own signs, give the sums of their sizes."""
        rows = weight[:_TRIED_ROWS]
        found = self(rows.sign())[:, : rows.shape[0]].diagonal()
        return bool((found / rows.abs().sum(dim=1) - 1).abs().max() < _TRIAL_TOLERANCE)
