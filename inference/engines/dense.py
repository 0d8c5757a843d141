"""Matrix products on a CPU with weights as they are, and the choice among all kinds of them.

What `linear` promises holds here: a row gets the same bits whoever shares the batch. Libraries sum
the last few fp32 rows of a product in another order than the rest, so rows of zeros stand below
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.engines.linear import Head, Linear
from inference.weights import Adapted, Codes4, Rows8, Table, dense

if TYPE_CHECKING:
    from inference.weights import Matrix, Weights

__all__ = ["Dense", "DenseHead", "Product", "activations", "head_of", "linear_of", "steady"]

_ROWS = 8
"""MKL sums the rows of a whole group of 4 alike, wherever it stands (AVX-512); twice that here."""


class Product(Protocol):
    """y = x W', row by row the same bits in any company."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: (rows, inputs) to (rows, outputs)."""
        ...


class Dense:
    """A product with a matrix in fp32 or bf16; so are the rows that come and go."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight.contiguous()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: (rows, inputs) to (rows, outputs)."""
        return steady(x.to(self._weight.dtype), self._weight)


def steady(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return x W' + b, each row's bits the same for any number of rows: (rows, outputs)."""
    rows = x.shape[0]
    if rows % _ROWS:
        x = F.pad(x, (0, 0, 0, -rows % _ROWS))
    return F.linear(x, weight, bias)[:rows]


class Int8:
    """A product with 8-bit codes and a scale a row: sums of bf16 products, as exact as those."""

    def __init__(self, weight: Rows8) -> None:
        self._codes = Dense(weight.codes.to(torch.bfloat16))  # -128 to 127 are exact in bf16
        self._scale = weight.scale

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: (rows, inputs) to (rows, outputs), bf16."""
        return (self._codes(x).float() * self._scale).to(torch.bfloat16)


class Beside:
    """A product with codes, and an adapter's two small ones beside it."""

    def __init__(self, weight: Adapted) -> None:
        self._base = linear_of(weight.base)
        self._down, self._up = Dense(weight.down), Dense(weight.up)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: bf16 (rows, inputs) to bf16 (rows, outputs)."""
        return (self._base(x).float() + self._up(self._down(x))).to(torch.bfloat16)


class DenseHead:
    """Logits, fp32, of a matrix that is no codes: (vocabulary, width)."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._product = Dense(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: fp32 (rows, width) to fp32 (rows, vocabulary)."""
        return self._product(x).float()


def linear_of(matrix: Matrix) -> Product:
    """Choose the product that a matrix wants."""
    if isinstance(matrix, torch.Tensor):
        return Dense(matrix)
    if isinstance(matrix, Codes4):
        return Linear(matrix)
    return Int8(matrix) if isinstance(matrix, Rows8) else Beside(matrix)


def head_of(weights: Weights) -> Product:
    """Choose the output head: int8 where the weights are codes, else as they are."""
    matrix = weights.head
    if matrix is None:
        table = weights.embedding
        matrix = table.values if isinstance(table, Table) else table.dequantised()
        return DenseHead(matrix) if isinstance(table, Table) else Head(matrix)
    return DenseHead(matrix) if isinstance(matrix, torch.Tensor) else Head(dense(matrix))


def activations(weights: Weights) -> torch.dtype:
    """What the rows between products are: fp32 if matrices are, else bf16."""
    first = weights.layers[0].qkv if weights.layers else None
    full = isinstance(first, torch.Tensor) and first.dtype is torch.float32
    return torch.float32 if full else torch.bfloat16
