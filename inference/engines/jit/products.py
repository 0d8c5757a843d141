"""Products of packed matrices with quantised rows: a tile of 16 outputs, any number of rows.

A row comes as int8 codes with a scale for each block of 32, as `rows.quantised` leaves it. Within
a block everything is added in integers (VNNI: 64 products of bytes at once); blocks are added in
fp32, in order. Several rows share a block's weights while these are in registers, but no row's
arithmetic depends on the others: its bits are the same in any company.
"""

from __future__ import annotations

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

FACTORS_BYTES = 12
"""What stands beside a block of codes: scale (fp32), scale x sum (fp32), -128 x sum (int32)."""
SCRATCH_BYTES = 64
"""Of one row's 16 outputs."""

_GROUP, _VECTOR = 32, 64
_QUADS = 8
_TOGETHER = (8, 4, 2, 1)
"""Rows that share a block's weights in registers."""
_CHAINS = 4
"""Sums in flight: one instruction of the kind takes several cycles."""
_NIBBLE = 15


def emit_products(module: ir.Module) -> None:
    """Write `product4` and `product8`: (tile, codes, factors, scratch, blocks, rows)."""
    for name, block in (("product4", _block4), ("product8", _block8)):
        for rows in _TOGETHER:
            _emit_few(module, f"{name}_{rows}", rows, block)
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


def _emit_few(
    module: ir.Module,
    name: str,
    rows: int,
    block: Callable[[Code, ir.Value, ir.Value], Iterator[tuple[int, ir.Value]]],
) -> None:
    c = Code(module, name, [PTR, PTR, PTR, PTR, I64])
    tile, codes, factors, scratch, blocks = c.arguments
    sums = [c.variable(c.floats(0.0)) for _ in range(rows)]
    with c.loop(0, blocks) as number:
        here = [
            c.at(codes, c.mul(c.add(c.mul(blocks, row), number), _GROUP)) for row in range(rows)
        ]
        beside = [
            c.at(factors, c.mul(c.add(c.mul(blocks, row), number), FACTORS_BYTES))
            for row in range(rows)
        ]
        weights = block(c, tile, number)
        totals = _totals(c, weights, here)
        d, more = _scales(c, tile, number, four=block is _block4)
        for row in range(rows):
            total, scale = totals[row], c.splat(c.load(beside[row], F32))
            before = c.get(sums[row])
            if more is None:
                minus = c.splat(c.load(c.at(beside[row], 8), I32))
                total = c.b.add(total, minus)
            else:
                before = c.fma(more, c.splat(c.load(c.at(beside[row], 4), F32)), before)
            c.put(sums[row], c.fma(c.b.sitofp(total, F32X16), c.b.fmul(d, scale), before))
    for row in range(rows):
        c.store(c.get(sums[row]), c.at(scratch, row * SCRATCH_BYTES))
    c.finish()


def _totals(
    c: Code, weights: Iterator[tuple[int, ir.Value]], codes: list[ir.Value]
) -> list[ir.Value]:
    """Sum the products of a block, for each row; the order does not matter to integers."""
    chains = max(1, _CHAINS // len(codes))
    totals: list[list[ir.Value]] = [[] for _ in codes]
    for turn, (quad, vector) in enumerate(weights):
        for row, place in enumerate(codes):
            four = c.splat(c.load(c.at(place, 4 * quad), I32))
            mine = totals[row]
            if len(mine) < chains:
                mine.append(ir.Constant(I32X16, [0] * 16))
                at = len(mine) - 1
            else:
                at = turn % chains
            mine[at] = c.call(
                "llvm.x86.avx512.vpdpbusd.512", I32X16, mine[at], vector, c.b.bitcast(four, I8X64)
            )
    return [_added(c, mine) for mine in totals]


def _added(c: Code, parts: list[ir.Value]) -> ir.Value:
    total = parts[0]
    for part in parts[1:]:
        total = c.b.add(total, part)
    return total


def _block4(c: Code, tile: ir.Value, number: ir.Value) -> Iterator[tuple[int, ir.Value]]:
    """Each four inputs of a block, and 16 outputs' weights for them: bytes 0 to 15."""
    place = c.at(tile, c.mul(number, BLOCK4_BYTES))
    low, four = (ir.Constant(I8X64, [value] * _VECTOR) for value in (_NIBBLE, 4))
    for pair in range(_QUADS // 2):
        both = c.load(c.at(place, pair * _VECTOR), I8X64)
        yield pair, c.b.and_(both, low)
        yield pair + _QUADS // 2, c.b.lshr(both, four)


def _block8(c: Code, tile: ir.Value, number: ir.Value) -> Iterator[tuple[int, ir.Value]]:
    """The same of 8-bit weights: bytes 0 to 255, which is 128 too much."""
    place = c.at(tile, c.mul(number, BLOCK8_BYTES))
    for quad in range(_QUADS):
        yield quad, c.load(c.at(place, quad * _VECTOR), I8X64)


def _scales(
    c: Code, tile: ir.Value, number: ir.Value, *, four: bool
) -> tuple[ir.Value, ir.Value | None]:
    """Return a block's d and, of 4-bit weights, m."""
    size, codes = (BLOCK4_BYTES, 4 * _VECTOR) if four else (BLOCK8_BYTES, 8 * _VECTOR)
    place = c.at(tile, c.add(c.mul(number, size), codes))
    d, m = (
        c.b.fpext(c.load(c.at(place, at), F16X16), F32X16) if at == 0 or four else None
        for at in (0, 32)
    )
    return d, m
