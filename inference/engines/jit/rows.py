"""What a step does to a row between products: look it up, norm it, quantise it, gate it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir

from inference.engines.jit.emit import F32, F32X16, I8X16, I32, I32X16, Code
from inference.engines.jit.products import FACTORS_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pair", "Quantised", "embedded", "gated", "normed", "quantised"]

_GROUP, _HALF = 32, 16
_INT8_MAX = 127.0
_UNSIGNED = 128
_LEAST_PEAK = 2.0**-120
"""Below it all codes are zero: 127 over it may be more than a float holds."""

Pair: TypeAlias = tuple[ir.Value, ir.Value]
"""32 values in two vectors."""


class Quantised:
    """Where the codes of rows stand, and the factors beside them.

    Args:
        codes: int8, (rows, columns).
        factors: `FACTORS_BYTES` for each block of 32, (rows, columns / 32).
        columns: of a row.
    """

    def __init__(self, codes: ir.Value, factors: ir.Value, columns: int) -> None:
        self.codes, self.factors = codes, factors
        self.blocks = columns // _GROUP

    def put(self, c: Code, row: ir.Value, block: ir.Value, values: Pair) -> Pair:
        """Quantise 32 values to a block of a row; return what the codes leave of them."""
        at = c.add(c.mul(row, self.blocks), block)
        codes = c.at(self.codes, c.mul(at, _GROUP))
        return quantised(c, values, codes, c.at(self.factors, c.mul(at, FACTORS_BYTES)))

    def put_twice(self, c: Code, row: ir.Value, block: ir.Value, values: Pair) -> None:
        """Quantise 32 values to two rows, 2 row and the next, which add up to them: 16 bits."""
        first = c.mul(row, 2)
        self.put(c, c.add(first, 1), block, self.put(c, first, block, values))


def quantised(c: Code, values: Pair, codes: ir.Value, factors: ir.Value) -> Pair:
    """Write 32 values as int8 codes, each half by the largest of it, and their factors.

    Returns what the codes leave of the values.
    """
    sums, rest = [], []
    for half, part in enumerate(values):
        whole, scale = _scaled(c, part)
        c.store(c.b.trunc(whole, I8X16), c.at(codes, half * _HALF))
        total = c.call("llvm.vector.reduce.add.v16i32", I32, whole)
        sums.append(c.b.fmul(scale, c.b.sitofp(total, F32)))
        c.store(scale, c.at(factors, 4 * half))
        c.store(c.b.mul(total, ir.Constant(I32, -_UNSIGNED)), c.at(factors, 4 * (3 + half)))
        minus = c.splat(c.b.fneg(scale))
        rest.append(c.fma(c.b.sitofp(whole, F32X16), minus, part))
    c.store(c.b.fadd(*sums), c.at(factors, 8))
    return rest[0], rest[1]


def _scaled(c: Code, part: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return 16 values as integers of a byte, and their scale."""
    b, zero = c.b, ir.Constant(F32, 0.0)
    # As integers, sizes of floats are ordered as they are, and NaN is above all of them.
    sizes = b.bitcast(c.call("llvm.fabs.v16f32", F32X16, part), I32X16)
    peak = b.bitcast(c.call("llvm.vector.reduce.umax.v16i32", I32, sizes), F32)
    # Codes of NaN and of infinity may be anything: such a scale makes all that is multiplied NaN
    # or infinite.
    tiny = b.fcmp_ordered("<", peak, ir.Constant(F32, _LEAST_PEAK))
    inverse = b.select(tiny, zero, b.fdiv(ir.Constant(F32, _INT8_MAX), peak))
    whole = c.integers(b.fmul(part, c.splat(inverse)))
    return whole, b.fdiv(peak, ir.Constant(F32, _INT8_MAX))


def embedded(c: Code, codes: ir.Value, scales: ir.Value, row: ir.Value, blocks: int) -> None:
    """Write a token's row: `codes` int8 and `scales` fp32 (one a block) are the token's own."""
    with c.loop(0, blocks) as block:
        d = c.splat(c.load(c.at(scales, c.mul(block, 4)), F32))
        for part in (0, _HALF):
            at = c.add(c.mul(block, _GROUP), part)
            whole = c.b.sitofp(c.b.sext(c.load(c.at(codes, at), I8X16), I32X16), F32X16)
            c.store(c.b.fmul(whole, d), c.at(row, c.mul(at, 4)))


def normed(
    c: Code,
    row: ir.Value,
    weight: ir.Value,
    size: tuple[int, float],
    put: Callable[[ir.Value, Pair], object],
) -> None:
    """Give each 32 values of a row's RMS norm to `put(block, values)`; size: width, epsilon."""
    width, epsilon = size
    squares = c.variable(c.floats(0.0))
    with c.loop(0, width, _HALF) as at:
        x = c.load(c.at(row, c.mul(at, 4)))
        c.put(squares, c.fma(x, x, c.get(squares)))
    mean = c.b.fdiv(c.sum(c.get(squares)), ir.Constant(F32, float(width)))
    root = c.call("llvm.sqrt.f32", F32, c.b.fadd(mean, ir.Constant(F32, epsilon)))
    rate = c.splat(c.b.fdiv(ir.Constant(F32, 1.0), root))
    with c.loop(0, width // _GROUP) as block:
        parts = []
        for part in (0, _HALF):
            at = c.mul(c.add(c.mul(block, _GROUP), part), 4)
            scaled = c.b.fmul(c.load(c.at(row, at)), rate)
            parts.append(c.b.fmul(scaled, c.load(c.at(weight, at))))
        put(block, (parts[0], parts[1]))


def gated(c: Code, gate: ir.Value, up: ir.Value) -> ir.Value:
    """Compute silu(gate) * up."""
    one = c.floats(1.0)
    sigmoid = c.b.fdiv(one, c.b.fadd(one, c.exp(c.b.fneg(gate))))
    return c.b.fmul(c.b.fmul(gate, sigmoid), up)
