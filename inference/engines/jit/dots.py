"""Sums of products of bytes: CPUs have other instructions for them, with the same integers.

A vector has weights of `lanes` outputs, byte 4 i + t of output i for input t of four.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir

from inference.engines.jit.emit import I1, I8X32, I16X16, I32, I32X8, I32X16, Code, vector_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["AVX2", "VNNI", "Dots", "Row", "Vectors", "best_dots"]

_FOUR = 4
_CHAINS = 2
"""Sums in flight: one instruction of the kind takes several cycles."""
_SIGN = -128
"""As a byte: what an unsigned code has too much, and the bit that takes it away."""

Vectors: TypeAlias = "Sequence[ir.Value]"
"""Of 16 inputs: weights of each four."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row's half of a block. codes: address of 16. less: address of -128 times their sum."""

    codes: ir.Value
    less: ir.Value

    def four(self, c: Code, turn: int, lanes: int) -> ir.Value:
        """Return four codes, as often as a vector has outputs."""
        whole = c.splat(c.load(c.at(self.codes, _FOUR * turn), I32), lanes)
        return c.b.bitcast(whole, vector_of(8, _FOUR * lanes))


@dataclass(frozen=True, slots=True)
class Dots:
    """What a CPU does it with.

    needed: of its features, by LLVM's names. lanes: outputs that a vector has. together: rows that
    share weights in registers, the most first. few: sums of weights from 0 to 15 times codes. many:
    of weights from -128 to 127, stored as themselves + 128, times codes from -127 to 127. Both take
    the halves of a block, and each row's; they give 32-bit integers: for each half, for each row.
    """

    name: str
    needed: tuple[str, ...]
    lanes: int
    together: tuple[int, ...]
    few: Callable[[Code, Sequence[Vectors], Sequence[Sequence[Row]]], list[list[ir.Value]]]
    many: Callable[[Code, Sequence[Vectors], Sequence[Sequence[Row]]], list[list[ir.Value]]]


# --- AVX-512 VNNI: 64 products at once, added to 32 bits ------------------------------------------


def _vnni_few(
    c: Code, halves: Sequence[Vectors], rows: Sequence[Sequence[Row]]
) -> list[list[ir.Value]]:
    zero = ir.Constant(I32X16, [0] * 16)
    return [
        _vnni(c, weights, mine, [zero] * len(mine))
        for weights, mine in zip(halves, rows, strict=True)
    ]


def _vnni_many(
    c: Code, halves: Sequence[Vectors], rows: Sequence[Sequence[Row]]
) -> list[list[ir.Value]]:
    return [
        _vnni(c, weights, mine, [c.splat(c.load(row.less, I32)) for row in mine])
        for weights, mine in zip(halves, rows, strict=True)
    ]


def _vnni(
    c: Code, weights: Vectors, rows: Sequence[Row], starts: Sequence[ir.Value]
) -> list[ir.Value]:
    chains = max(1, _CHAINS // len(rows))
    zero = ir.Constant(I32X16, [0] * 16)
    totals = [[start, *[zero] * (chains - 1)] for start in starts]
    for turn, vector in enumerate(weights):
        for row, mine in zip(rows, totals, strict=True):
            chain = turn % chains
            mine[chain] = c.call(
                "llvm.x86.avx512.vpdpbusd.512", I32X16, mine[chain], vector, row.four(c, turn, 16)
            )
    return [_added(c, mine) for mine in totals]


# --- AVX2: 32 products at once, added in pairs to 16 bits -----------------------------------------


def _avx2_few(
    c: Code, halves: Sequence[Vectors], rows: Sequence[Sequence[Row]]
) -> list[list[ir.Value]]:
    """Eight products of 15 and 127 fit 16 bits: all of a half is added before it is widened."""

    def half(weights: Vectors, row: Row) -> ir.Value:
        pairs = [_pairs(c, vector, row.four(c, n, 8)) for n, vector in enumerate(weights)]
        return _widened(c, _added(c, pairs))

    return _row_by_row(half, halves, rows)


def _avx2_many(
    c: Code, halves: Sequence[Vectors], rows: Sequence[Sequence[Row]]
) -> list[list[ir.Value]]:
    """Two products of 128 and 127 fit 16 bits, if the weight gives its sign to the code."""
    flip, defined = ir.Constant(I8X32, [_SIGN] * 32), ir.Constant(I1, 0)
    signed = [[c.b.xor(vector, flip) for vector in half] for half in halves]

    def half(weights: Vectors, row: Row) -> ir.Value:
        fours = []
        for turn, vector in enumerate(weights):
            size = c.call("llvm.abs.v32i8", I8X32, vector, defined)
            codes = c.call("llvm.x86.avx2.psign.b", I8X32, row.four(c, turn, 8), vector)
            fours.append(_widened(c, _pairs(c, size, codes)))
        return _added(c, fours)

    return _row_by_row(half, signed, rows)


def _row_by_row(
    half: Callable[[Vectors, Row], ir.Value],
    halves: Sequence[Vectors],
    rows: Sequence[Sequence[Row]],
) -> list[list[ir.Value]]:
    """Have one row after the other: there are but 16 registers."""
    pairs = [tuple(map(half, halves, of_row)) for of_row in zip(*rows, strict=True)]
    return [list(of_half) for of_half in zip(*pairs, strict=True)]


def _pairs(c: Code, unsigned: ir.Value, signed: ir.Value) -> ir.Value:
    return c.call("llvm.x86.avx2.pmadd.ub.sw", I16X16, unsigned, signed)


def _widened(c: Code, pairs: ir.Value) -> ir.Value:
    return c.call("llvm.x86.avx2.pmadd.wd", I32X8, pairs, ir.Constant(I16X16, [1] * 16))


def _added(c: Code, parts: Sequence[ir.Value]) -> ir.Value:
    total = parts[0]
    for part in parts[1:]:
        total = c.b.add(total, part)
    return total


_COMMON = ("avx2", "f16c", "fma")
VNNI = Dots(
    "AVX-512 VNNI",
    (*_COMMON, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"),
    16,
    (8, 4, 2, 1),
    _vnni_few,
    _vnni_many,
)
AVX2 = Dots("AVX2", _COMMON, 8, (8, 4, 2, 1), _avx2_few, _avx2_many)


def best_dots(features: Mapping[str, bool]) -> Dots | None:
    """Return the fastest that a CPU with these features has."""
    for dots in (VNNI, AVX2):
        if all(features.get(name, False) for name in dots.needed):
            return dots
    return None
