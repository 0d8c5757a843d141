"""Products of packed matrices with quantised rows: a tile of 16 outputs, any number of rows.

A row comes as int8 codes with a scale for each half block of 16, as `rows.quantised` leaves it.
Within a half everything is added in integers (VNNI: 64 products of bytes at once); the rest is
added in fp32, in order. Several rows share a block's weights while these are in registers, but no
row's arithmetic depends on the others: its bits are the same in any company.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from inference.engines.jit.emit import (
    F16X16,
    F32,
    F32X16,
    I8X64,
    I32,
    I32X16,
    I64,
    PTR,
    Code,
)
from inference.engines.jit.packing import BLOCK4_BYTES, BLOCK8_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FACTORS_BYTES", "SCRATCH_BYTES", "emit_products"]

FACTORS_BYTES = 20
"""What stands beside a block of codes: the halves' scales, the sum of scale x sum over both (fp32),
and the halves' -128 x sum (int32)."""
SCRATCH_BYTES = 64
"""Of one row's 16 outputs."""

_GROUP, _HALF, _VECTOR = 32, 16, 64
_QUADS = 4
"""Of a half: vectors of weights for four inputs each."""
_SCALES_BYTES = 32
_MULTIPLY = "llvm.x86.avx512.vpdpbusd.512"
_TOGETHER = (8, 4, 2, 1)
"""Rows that share a block's weights in registers."""
_CHAINS = 2
"""Sums in flight: one instruction of the kind takes several cycles."""
_NIBBLE = 15
_AHEAD_BYTES, _LINE = 8_192, 64
_AHEAD_ROWS = 4
"""From so many rows on a step computes longer than it reads, and the CPU reads too late by itself;
with fewer it reads as fast as it can, and asking costs 10 %."""


def emit_products(module: ir.Module) -> None:
    """Write `product4` and `product8`: (tile, codes, factors, scratch, blocks, rows)."""
    for name, kind in _KINDS.items():
        for rows in _TOGETHER:
            _emit_few(module, f"{name}_{rows}", rows, kind)
        _emit_all(module, name)


def _emit_all(module: ir.Module, name: str) -> None:
    """As many rows as there are: eights, then what is left."""
    c = Code(module, name, [PTR, PTR, PTR, PTR, I64, I64])
    tile, codes, factors, scratch, blocks, rows = c.arguments

    def some(count: int, first: ir.Value) -> None:
        at = c.mul(first, blocks)
        c.call(
            f"{name}_{count}",
            ir.VoidType(),
            tile,
            c.at(codes, c.mul(at, _GROUP)),
            c.at(factors, c.mul(at, FACTORS_BYTES)),
            c.at(scratch, c.mul(first, SCRATCH_BYTES)),
            blocks,
        )

    most, *fewer = _TOGETHER
    with c.loop(0, c.mul(c.div(rows, most), most), most) as first:
        some(most, first)
    for count in fewer:
        done = c.mul(c.div(rows, 2 * count), 2 * count)
        with c.when(c.b.icmp_signed("!=", c.b.and_(rows, c.number(count)), c.number(0))):
            some(count, done)
    c.finish()


def _emit_few(module: ir.Module, name: str, rows: int, kind: _Kind) -> None:
    """Write the product with just so many rows."""
    c = Code(module, name, [PTR, PTR, PTR, PTR, I64])
    tile, codes, factors, scratch, blocks = c.arguments
    sums = [c.variable(c.floats(0.0)) for _ in range(rows)]
    with c.loop(0, blocks) as number:
        at = [c.add(c.mul(blocks, row), number) for row in range(rows)]
        here = [
            [c.at(codes, c.add(c.mul(place, _GROUP), half)) for place in at] for half in (0, _HALF)
        ]
        beside = [c.at(factors, c.mul(place, FACTORS_BYTES)) for place in at]
        block = c.at(tile, c.mul(number, kind.block_bytes))
        if rows >= _AHEAD_ROWS:
            for line in range(0, kind.block_bytes, _LINE):
                c.soon(c.at(block, _AHEAD_BYTES + line))
        starts = [_starts(c, kind, beside, half) for half in range(2)]
        halves = [
            _half(c, kind.vectors(c, block, half), starts[half], here[half]) for half in range(2)
        ]
        d = _scale(c, block, kind.codes_bytes)
        for row, (low, high) in enumerate(zip(*halves, strict=True)):
            value = c.b.fmul(low, _factor(c, beside[row], 0))
            value = c.fma(high, _factor(c, beside[row], 1), value)
            before = c.get(sums[row])
            if kind.has_least:
                least = _scale(c, block, kind.codes_bytes + _SCALES_BYTES)
                before = c.fma(least, _factor(c, beside[row], 2), before)
            c.put(sums[row], c.fma(value, d, before))
    for row in range(rows):
        c.store(c.get(sums[row]), c.at(scratch, row * SCRATCH_BYTES))
    c.finish()


def _starts(c: Code, kind: _Kind, factors: list[ir.Value], half: int) -> list[ir.Value]:
    """Return what a half's sum begins with, for each row: minus what the weights have too much."""
    if kind.has_least:
        return [ir.Constant(I32X16, [0] * 16)] * len(factors)
    return [c.splat(c.load(c.at(row, 4 * (3 + half)), I32)) for row in factors]


def _half(
    c: Code, weights: Iterator[ir.Value], starts: list[ir.Value], codes: list[ir.Value]
) -> list[ir.Value]:
    """Sum the products of 16 inputs, for each row; the order does not matter to integers."""
    chains = max(1, _CHAINS // len(codes))
    zero = ir.Constant(I32X16, [0] * 16)
    totals = [[start, *[zero] * (chains - 1)] for start in starts]
    for turn, vector in enumerate(weights):
        for row, mine in enumerate(totals):
            four = c.splat(c.load(c.at(codes[row], 4 * turn), I32))
            bytes_of_four = c.b.bitcast(four, I8X64)
            before = mine[turn % chains]
            mine[turn % chains] = c.call(_MULTIPLY, I32X16, before, vector, bytes_of_four)
    return [c.b.sitofp(_added(c, mine), F32X16) for mine in totals]


def _added(c: Code, parts: list[ir.Value]) -> ir.Value:
    total = parts[0]
    for part in parts[1:]:
        total = c.b.add(total, part)
    return total


def _factor(c: Code, factors: ir.Value, number: int) -> ir.Value:
    return c.splat(c.load(c.at(factors, 4 * number), F32))


def _scale(c: Code, block: ir.Value, at: int) -> ir.Value:
    return c.b.fpext(c.load(c.at(block, at), F16X16), F32X16)


def _vectors4(c: Code, block: ir.Value, half: int) -> Iterator[ir.Value]:
    """Each four inputs of a half, and 16 outputs' weights for them: bytes 0 to 15."""
    low, four = (ir.Constant(I8X64, [value] * _VECTOR) for value in (_NIBBLE, 4))
    for pair in range(_QUADS):
        both = c.load(c.at(block, pair * _VECTOR), I8X64)
        yield c.b.lshr(both, four) if half else c.b.and_(both, low)


def _vectors8(c: Code, block: ir.Value, half: int) -> Iterator[ir.Value]:
    """The same of 8-bit weights: bytes 0 to 255, which is 128 too much."""
    for quad in range(_QUADS):
        yield c.load(c.at(block, (half * _QUADS + quad) * _VECTOR), I8X64)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Weights of 4 bits, with a scale and a least value for each block; or of 8, with a scale."""

    block_bytes: int
    codes_bytes: int
    has_least: bool
    vectors: Callable[[Code, ir.Value, int], Iterator[ir.Value]]


_KINDS = {
    "product4": _Kind(BLOCK4_BYTES, _QUADS * _VECTOR, has_least=True, vectors=_vectors4),
    "product8": _Kind(BLOCK8_BYTES, 2 * _QUADS * _VECTOR, has_least=False, vectors=_vectors8),
}
