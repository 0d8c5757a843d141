"""Products of packed matrices with quantised rows: a tile of 16 outputs, any number of rows.

A row comes as int8 codes with a scale for each half block of 16, as `rows.quantised` leaves it.
Within a half everything is added in integers (`dots`); the rest is added in fp32, in order. Several
rows share a block's weights while these are in registers, but no row's arithmetic depends on the
others: its bits are the same in any company.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from inference.engines.jit.dots import Row
from inference.engines.jit.emit import F16, F32, I64, PTR, Code, vector_of
from inference.engines.jit.packing import BLOCK4_BYTES, BLOCK8_BYTES, TILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inference.engines.jit.dots import Dots

__all__ = ["FACTORS_BYTES", "SCRATCH_BYTES", "emit_products"]

FACTORS_BYTES = 20
"""What stands beside a block of codes: the halves' scales, the sum of scale x sum over both (fp32),
and the halves' -128 x sum (int32)."""
SCRATCH_BYTES = 64
"""Of one row's 16 outputs."""

_GROUP, _VECTOR = 32, 64
_HALVES = (0, 12), (16, 16)
"""Of a block: where its codes begin, and where beside them -128 x their sum stands."""
_F32, _QUADS = 4, 4
"""Of a half: vectors of weights for four inputs each."""
_SCALES_BYTES = 32
_NIBBLE = 15
_AHEAD_BYTES, _LINE = 8_192, 64
_AHEAD_ROWS = 4
"""From so many rows on a step computes longer than it reads, and the CPU reads too late by itself;
with fewer it reads as fast as it can, and asking costs 10 %."""
_PARTED_ROWS = 4
"""From so many rows on the parts of a tile go one after the other: side by side, registers would be
short."""


def emit_products(module: ir.Module, dots: Dots) -> None:
    """Write `product4` and `product8`: (tile, codes, factors, scratch, blocks, rows)."""
    for name, kind in _KINDS.items():
        for rows in dots.together:
            _emit_few(module, f"{name}_{rows}", rows, kind, dots)
        _emit_all(module, name, dots.together)


def _emit_all(module: ir.Module, name: str, together: tuple[int, ...]) -> None:
    """As many rows as there are: most at once, then what is left."""
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

    most, *fewer = together
    with c.loop(0, c.mul(c.div(rows, most), most), most) as first:
        some(most, first)
    for count in fewer:
        done = c.mul(c.div(rows, 2 * count), 2 * count)
        with c.when(c.b.icmp_signed("!=", c.b.and_(rows, c.number(count)), c.number(0))):
            some(count, done)
    c.finish()


def _emit_few(module: ir.Module, name: str, rows: int, kind: _Kind, dots: Dots) -> None:
    """Write the product with just so many rows.

    Each part of a tile reads its own bytes of a block; see `_PARTED_ROWS`.
    """
    c = Code(module, name, [PTR, PTR, PTR, PTR, I64])
    parts = [Part(number, dots.lanes) for number in range(TILE // dots.lanes)]
    for some in [parts] if rows < _PARTED_ROWS else [[part] for part in parts]:
        _emit_parts(c, rows, kind, dots, some)
    c.finish()


def _emit_parts(c: Code, rows: int, kind: _Kind, dots: Dots, parts: Sequence[Part]) -> None:
    tile, codes, factors, scratch, blocks = c.arguments
    sums = {(row, part): c.variable(part.floats(0.0)) for row in range(rows) for part in parts}
    with c.loop(0, blocks) as number:
        at = [c.add(c.mul(blocks, row), number) for row in range(rows)]
        beside = [c.at(factors, c.mul(place, FACTORS_BYTES)) for place in at]
        here = [
            [
                Row(c.at(codes, c.add(c.mul(place, _GROUP), half)), c.at(factor, less))
                for place, factor in zip(at, beside, strict=True)
            ]
            for half, less in _HALVES
        ]
        block = c.at(tile, c.mul(number, kind.block_bytes))
        if rows >= _AHEAD_ROWS and parts[0].first == 0:
            for line in range(0, kind.block_bytes, _LINE):
                c.soon(c.at(block, _AHEAD_BYTES + line))
        for part in parts:
            weights = [kind.vectors(c, block, half, part) for half in range(len(_HALVES))]
            halves = (dots.few if kind.has_least else dots.many)(c, weights, here)
            d = part.scale(c, block, kind.codes_bytes)
            for row, (low, high) in enumerate(zip(*halves, strict=True)):
                value = c.b.fmul(c.b.sitofp(low, d.type), part.factor(c, beside[row], 0))
                value = c.fma(c.b.sitofp(high, d.type), part.factor(c, beside[row], 1), value)
                before = c.get(sums[row, part], d.type)
                if kind.has_least:
                    least = part.scale(c, block, kind.codes_bytes + _SCALES_BYTES)
                    before = c.fma(least, part.factor(c, beside[row], 2), before)
                c.put(sums[row, part], c.fma(value, d, before))
    for (row, part), total in sums.items():
        place = c.at(scratch, row * SCRATCH_BYTES + part.first * _F32)
        c.store(c.get(total, part.floats(0.0).type), place)


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a tile's 16 outputs, as many as a vector has."""

    number: int
    lanes: int

    @property
    def first(self) -> int:
        """Its first output."""
        return self.number * self.lanes

    def floats(self, value: float) -> ir.Constant:
        """Make a constant vector."""
        return ir.Constant(ir.VectorType(F32, self.lanes), [value] * self.lanes)

    def factor(self, c: Code, factors: ir.Value, number: int) -> ir.Value:
        """Read a row's factor."""
        return c.splat(c.load(c.at(factors, _F32 * number), F32), self.lanes)

    def scale(self, c: Code, block: ir.Value, at: int) -> ir.Value:
        """Read the outputs' own, fp16."""
        halves = c.load(c.at(block, at + 2 * self.first), ir.VectorType(F16, self.lanes))
        return c.b.fpext(halves, self.floats(0.0).type)

    def weights(self, c: Code, block: ir.Value, quad: int) -> ir.Value:
        """Read a vector of bytes."""
        kind = vector_of(8, _QUADS * self.lanes)
        return c.load(c.at(block, quad * _VECTOR + _QUADS * self.first), kind)


def _vectors4(c: Code, block: ir.Value, half: int, part: Part) -> list[ir.Value]:
    """Each four inputs of a half, and the outputs' weights for them: bytes 0 to 15."""
    both = [part.weights(c, block, quad) for quad in range(_QUADS)]
    low, four = (ir.Constant(both[0].type, [value] * both[0].type.count) for value in (_NIBBLE, 4))
    return [c.b.lshr(each, four) if half else c.b.and_(each, low) for each in both]


def _vectors8(c: Code, block: ir.Value, half: int, part: Part) -> list[ir.Value]:
    """The same of 8-bit weights: bytes 0 to 255, which is 128 too much."""
    return [part.weights(c, block, half * _QUADS + quad) for quad in range(_QUADS)]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Weights of 4 bits, with a scale and a least value for each block; or of 8, with a scale."""

    block_bytes: int
    codes_bytes: int
    has_least: bool
    vectors: Callable[[Code, ir.Value, int, Part], list[ir.Value]]


_KINDS = {
    "product4": _Kind(BLOCK4_BYTES, _QUADS * _VECTOR, has_least=True, vectors=_vectors4),
    "product8": _Kind(BLOCK8_BYTES, 2 * _QUADS * _VECTOR, has_least=False, vectors=_vectors8),
}
