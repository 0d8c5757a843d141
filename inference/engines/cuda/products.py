"""Matrix products of a block and what is fused with them, in bf16 or fp8.

fp8 is e4m3 with a scale for each output of a matrix and each row of activations, sums in fp32. The
product itself is cuBLAS's unscaled one, and whatever reads it multiplies (`Scaled`): torch's own
row-scaled product takes a quarter longer. A single row reads fp8 matrices as they are and keeps its
activations in bf16. Embedding, norms, attention, its cache and the output head stay bf16: with the
head in fp8 a step is a twentieth shorter, and twice as many tokens differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it
import triton

from inference.engines.cuda import kernels

if TYPE_CHECKING:
    from inference.engines.cuda.device import DeviceWeights

__all__ = ["Fp8", "Matrix", "Product", "Products", "Scaled", "parts", "to_fp8"]

_FP8_MAX = 448.0
"""The largest e4m3 there is."""


@dataclass(frozen=True, slots=True)
class Fp8:
    """Rows of e4m3 codes, (rows, columns), and a scale for each: fp32, (rows, 1)."""

    codes: torch.Tensor
    scales: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the codes."""
        return self.codes.shape

    def numel(self) -> int:
        """Elements of the codes."""
        return self.codes.numel()

    def element_size(self) -> int:
        """Bytes of a code."""
        return self.codes.element_size()

    def dequantised(self) -> torch.Tensor:
        """The matrix in fp32."""
        return self.codes.float() * self.scales


Matrix = torch.Tensor | Fp8


@dataclass(frozen=True, slots=True)
class Scaled:
    """A product whose scales are still to be applied: bf16, (rows, outputs).

    rows: fp32, (rows, 1). columns: fp32, (outputs, 1).
    """

    values: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the values."""
        return self.values.shape

    def applied(self) -> torch.Tensor:
        """The product: bf16."""
        return (self.values.float() * self.rows * self.columns.t()).to(self.values.dtype)


Product = torch.Tensor | Scaled


def parts(product: Product) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
    """Return values, scales of rows and columns (anything, if there are none), and if there are."""
    if isinstance(product, Scaled):
        return product.values, product.rows, product.columns, True
    return product, product, product, False


def to_fp8(weights: DeviceWeights) -> DeviceWeights:
    """Quantise the matrices of every block. docs/inference.md says what that costs."""

    def code(matrix: Matrix) -> Fp8:
        assert isinstance(matrix, torch.Tensor)
        scales = (matrix.abs().amax(1, keepdim=True).float() / _FP8_MAX).clamp(min=1e-12)
        return Fp8((matrix / scales).to(torch.float8_e4m3fn), scales)

    return replace(
        weights,
        layers=tuple(
            replace(
                layer,
                qkv=code(layer.qkv),
                attention_out=code(layer.attention_out),
                gate_up=code(layer.gate_up),
                down=code(layer.down),
            )
            for layer in weights.layers
        ),
    )


class Products:
    """How a model's blocks multiply: by the precision of its matrices."""

    def __init__(self, weights: DeviceWeights) -> None:
        self._one = torch.ones((), device=weights.embedding.device)
        self._epsilon = weights.architecture.norm_epsilon
        self.fp8 = isinstance(weights.layers[0].qkv, Fp8)

    def add_norm(self, x: torch.Tensor, addend: Product | None, gain: torch.Tensor) -> torch.Tensor:
        """Add to the residual stream in place and return its norm: (rows, width)."""
        rows, width = x.shape
        out = torch.empty_like(x)
        values, row_scales, column_scales, scaled = parts(x if addend is None else addend)
        kernels.add_norm[(rows,)](
            x, values, row_scales, column_scales, gain, out, width, self._epsilon,
            add=addend is not None, scaled=scaled, block=triton.next_power_of_2(width),
            num_warps=_warps(width),
        )  # fmt: skip
        return out

    def normed(self, x: torch.Tensor, addend: Product | None, gain: torch.Tensor) -> Matrix:
        """Do as `add_norm`, for a product with a block's matrix."""
        return self._coded(x, addend, gain) if self.fp8 else self.add_norm(x, addend, gain)

    def plain(self, x: torch.Tensor) -> Matrix:
        """Return rows as they are, for a product with a block's matrix."""
        return self._coded(x, None, None) if self.fp8 else x

    def _coded(self, x: torch.Tensor, addend: Product | None, gain: torch.Tensor | None) -> Fp8:
        rows, width = x.shape
        codes = torch.empty(rows, width, device=x.device, dtype=torch.float8_e4m3fn)
        scales = torch.empty(rows, 1, device=x.device)
        values, row_scales, column_scales, scaled = parts(x if addend is None else addend)
        kernels.norm_fp8[(rows,)](
            x, values, row_scales, column_scales, x if gain is None else gain, codes, scales, width,
            self._epsilon, add=addend is not None, scaled=scaled, norm=gain is not None,
            block=triton.next_power_of_2(width), num_warps=_warps(width),
        )  # fmt: skip
        return Fp8(codes, scales)

    def activated(self, gate_up: Product) -> Matrix:
        """Return silu(gate) * up: (rows, hidden)."""
        rows, hidden = gate_up.shape[0], gate_up.shape[1] // 2
        if self.fp8:
            values, row_scales, column_scales, scaled = parts(gate_up)
            codes = torch.empty(rows, hidden, device=values.device, dtype=torch.float8_e4m3fn)
            scales = torch.empty(rows, 1, device=values.device)
            kernels.silu_mul_fp8[(rows,)](
                values, row_scales, column_scales, codes, scales, hidden,
                scaled=scaled, block=triton.next_power_of_2(hidden), num_warps=8,
            )  # fmt: skip
            return Fp8(codes, scales)
        assert isinstance(gate_up, torch.Tensor)
        out = torch.empty(rows, hidden, device=gate_up.device, dtype=gate_up.dtype)
        kernels.silu_mul[(rows, triton.cdiv(hidden, 1_024))](
            gate_up, out, hidden, block=1_024, num_warps=4
        )
        return out

    def product(self, rows: Matrix, matrix: Matrix, bias: torch.Tensor | None = None) -> Product:
        """Multiply rows with a matrix of the same precision: (rows, outputs)."""
        if isinstance(rows, torch.Tensor):
            assert isinstance(matrix, torch.Tensor)
            return F.linear(rows, matrix, bias)
        assert isinstance(matrix, Fp8)
        sums = torch._scaled_mm(  # noqa: SLF001 -- torch has no public name for it
            rows.codes,
            matrix.codes.t(),
            scale_a=self._one,
            scale_b=self._one,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        told = Scaled(sums, rows.scales, matrix.scales)
        return told if bias is None else told.applied() + bias

    def one_row(
        self,
        x: torch.Tensor,
        matrix: Matrix,
        *,
        norm: torch.Tensor | None = None,
        addend: torch.Tensor | None = None,
        silu: bool = False,
        chained: bool = True,
    ) -> torch.Tensor:
        """Multiply one row, with the norm before it and the sum or activation after it."""
        outputs, columns = matrix.shape
        outputs //= 2 if silu else 1
        codes, scales = (matrix.codes, matrix.scales) if isinstance(matrix, Fp8) else (matrix, x)
        block = triton.next_power_of_2(min(columns, 2_048))
        out = torch.empty(1, outputs, device=x.device, dtype=x.dtype)
        kernels.gemv[(triton.cdiv(outputs, 4),)](
            x, codes, scales, x if norm is None else norm, x if addend is None else addend, out,
            outputs, columns, self._epsilon, norm=norm is not None, add=addend is not None,
            silu=silu, coded=isinstance(matrix, Fp8), whole=columns <= block, block_rows=4,
            block=block, chained=chained, num_warps=4, **({"launch_pdl": True} if chained else {}),
        )  # fmt: skip
        return out


def _warps(width: int) -> int:
    return 4 if width < 2_048 else 8  # noqa: PLR2004 -- as measured on an H100
