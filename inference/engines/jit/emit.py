"""Writes one function of machine instructions: loops, vectors of 16, a few functions of numbers.

A thin layer over LLVM's own builder (llvmlite). Offsets and counts are 64-bit integers, offsets in
bytes. Nothing may be reordered that changes a float's bits: no fast-math flag is ever set, and
products that are summed in one rounding say so (`fma`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "F16",
    "F32",
    "F32X16",
    "I1",
    "I8X16",
    "I8X32",
    "I16X16",
    "I32",
    "I32X8",
    "I32X16",
    "I64",
    "PTR",
    "Code",
    "vector_of",
]

LANES = 16
I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32, PTR = ir.FloatType(), ir.PointerType()
F16 = ir.HalfType()
F16X16, F32X16 = (ir.VectorType(kind, LANES) for kind in (F16, F32))
I8X16, I8X32 = (ir.VectorType(I8, lanes) for lanes in (LANES, 32))
I16X16 = ir.VectorType(I16, LANES)
I32X8, I32X16 = ir.VectorType(I32, LANES // 2), ir.VectorType(I32, LANES)

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP_LEAST, _EXP_MOST = -87.0, 88.0
# Cephes expf: relative error below 2e-7 between the bounds.
_EXP_TERMS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_EXPONENT_BIAS, _MANTISSA_BITS = 127, 23
_TO_INTEGERS = float(3 << 22)
"""Added to a float of a size below 2**22, it leaves an integer in the mantissa's lowest bits."""
_PREFETCH, _TO_READ_FROM_L2 = "llvm.prefetch.p0", (0, 2, 1)
_STACK_ALIGNMENT = 64
_F16_MOST = 65_504.0

Int: TypeAlias = int | ir.Value


def vector_of(bits: int, lanes: int) -> ir.VectorType:
    """Return the type of so many integers."""
    return ir.VectorType(ir.IntType(bits), lanes)


class Code:
    """One function in the making.

    Args:
        module: where it goes.
        name: it is found by that.
        arguments: their types; the values are in `arguments`.
    """

    def __init__(self, module: ir.Module, name: str, arguments: Sequence[ir.Type]) -> None:
        self._module = module
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
        # What does not fit the registers goes there. Across two lines of the cache it is 10 times
        # as slow to read back, and threads' stacks begin anywhere.
        self.function.attributes.alignstack = _STACK_ALIGNMENT
        # llvmlite writes the alignment only where a function has a named attribute as well.
        self.function.attributes.add("nounwind")
        self.arguments = self.function.args
        # Variables are laid out in a block of their own, once, however often a loop runs.
        self._entry = self.function.append_basic_block("entry")
        self.b = ir.IRBuilder(self.function.append_basic_block("body"))

    def finish(self) -> None:
        """Return from the function; nothing may follow."""
        self.b.ret_void()
        ir.IRBuilder(self._entry).branch(self.function.blocks[1])

    # --- integers and control ---------------------------------------------------------------

    def number(self, value: Int) -> ir.Value:
        """Make a 64-bit integer."""
        return ir.Constant(I64, value) if isinstance(value, int) else value

    def add(self, left: Int, right: Int) -> ir.Value:
        """Add two integers."""
        return self.b.add(self.number(left), self.number(right))

    def mul(self, left: Int, right: Int) -> ir.Value:
        """Multiply two integers."""
        return self.b.mul(self.number(left), self.number(right))

    def div(self, left: Int, right: int) -> ir.Value:
        """Divide an integer that is not negative."""
        return self.b.udiv(self.number(left), self.number(right))

    @contextmanager
    def loop(self, start: Int, stop: Int, step: int = 1) -> Iterator[ir.Value]:
        """Run the body for start, start + step, … below stop; yields the number."""
        before = self.b.block
        head, body, after = (self.function.append_basic_block() for _ in range(3))
        self.b.branch(head)
        self.b.position_at_end(head)
        number = self.b.phi(I64)
        number.add_incoming(self.number(start), before)
        self.b.cbranch(self.b.icmp_signed("<", number, self.number(stop)), body, after)
        self.b.position_at_end(body)
        yield number
        number.add_incoming(self.add(number, step), self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)

    @contextmanager
    def when(self, condition: ir.Value) -> Iterator[None]:
        """Run the body if the condition holds."""
        with self.b.if_then(condition):
            yield

    # --- memory -----------------------------------------------------------------------------

    def at(self, pointer: ir.Value, offset: Int) -> ir.Value:
        """Return the address some bytes behind another."""
        return self.b.gep(pointer, [self.number(offset)], source_etype=I8)

    def variable(self, initial: ir.Value) -> ir.Value:
        """Make a variable that keeps its value from turn to turn of a loop; see `get`, `put`."""
        place = ir.IRBuilder(self._entry).alloca(initial.type)
        self.b.store(initial, place)
        return place

    def get(self, place: ir.Value, kind: ir.Type = F32X16) -> ir.Value:
        """Read a variable."""
        return self.b.load(place, typ=kind)

    def put(self, place: ir.Value, value: ir.Value) -> None:
        """Write a variable."""
        self.b.store(value, place)

    def load(self, pointer: ir.Value, kind: ir.Type = F32X16) -> ir.Value:
        """Read memory."""
        return self.b.load(pointer, align=1, typ=kind)

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        """Write memory."""
        self.b.store(value, pointer, align=1)

    def load_half(self, pointer: ir.Value) -> ir.Value:
        """Read 16 floats that are stored as fp16."""
        return self.b.fpext(self.load(pointer, F16X16), F32X16)

    def store_half(self, value: ir.Value, pointer: ir.Value) -> None:
        """Write 16 floats as fp16, ties to even.

        What is too large, infinity too, becomes the largest there is; NaN stays NaN.
        """
        most = self.floats(_F16_MOST)
        low = self.call("llvm.minimum.v16f32", F32X16, value, most)
        bounded = self.call("llvm.maximum.v16f32", F32X16, low, self.floats(-_F16_MOST))
        self.store(self.b.fptrunc(bounded, F16X16), pointer)

    def soon(self, pointer: ir.Value) -> None:
        """Have the 64 bytes at an address fetched as far as L2; there need be no memory there."""
        how = (ir.Constant(I32, value) for value in _TO_READ_FROM_L2)
        self.call(_PREFETCH, ir.VoidType(), pointer, *how)

    # --- vectors ----------------------------------------------------------------------------

    def splat(self, scalar: ir.Value, lanes: int = LANES) -> ir.Value:
        """Make a vector of one number."""
        kind = ir.VectorType(scalar.type, lanes)
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
        return self._shuffle(one, [0] * lanes)

    def floats(self, value: float) -> ir.Value:
        """Make a constant vector."""
        return ir.Constant(F32X16, [value] * LANES)

    def fma(self, left: ir.Value, right: ir.Value, more: ir.Value) -> ir.Value:
        """Compute left * right + more, rounded once."""
        return self.call(f"llvm.fma.v{left.type.count}f32", left.type, left, right, more)

    def sum(self, vector: ir.Value) -> ir.Value:
        """Add all lanes, halves upon halves: always in the same order."""
        return self._fold(vector, self.b.fadd)

    def most(self, vector: ir.Value) -> ir.Value:
        """Return the largest lane."""
        return self._fold(vector, self.larger)

    def larger(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return the larger of two, lane by lane."""
        name = "llvm.maxnum.v16f32" if left.type == F32X16 else "llvm.maxnum.f32"
        return self.call(name, left.type, left, right)

    def exp(self, x: ir.Value) -> ir.Value:
        """Compute e**x, lane by lane; NaN stays NaN."""
        b = self.b
        high = self.call("llvm.minimum.v16f32", F32X16, x, self.floats(_EXP_MOST))
        x = self.call("llvm.maximum.v16f32", F32X16, high, self.floats(_EXP_LEAST))
        power = self.rounded(b.fmul(x, self.floats(_LOG2_E)))
        rest = self.fma(power, self.floats(-_LN2_HIGH), x)
        rest = self.fma(power, self.floats(-_LN2_LOW), rest)
        series = self.floats(_EXP_TERMS[0])
        for term in _EXP_TERMS[1:]:
            series = self.fma(series, rest, self.floats(term))
        series = b.fadd(self.fma(series, b.fmul(rest, rest), rest), self.floats(1.0))
        shift = ir.Constant(I32X16, [_MANTISSA_BITS] * LANES)
        bias = ir.Constant(I32X16, [_EXPONENT_BIAS] * LANES)
        scale = b.shl(b.add(self.integers(power), bias), shift)
        return b.fmul(series, b.bitcast(scale, F32X16))

    def rounded(self, x: ir.Value) -> ir.Value:
        """Round to the nearest integer, ties to even."""
        return self.call("llvm.roundeven.v16f32", F32X16, x)

    def integers(self, x: ir.Value) -> ir.Value:
        """Convert floats of a size below 2**22 to the nearest 32-bit integers, ties to even.

        Of what is larger, and of NaN, comes any integer. LLVM's own conversions leave that
        undefined, or take each lane by itself: 20 times as slow.
        """
        bits = self.b.bitcast(self.b.fadd(x, self.floats(_TO_INTEGERS)), I32X16)
        return self.b.sub(bits, self.b.bitcast(self.floats(_TO_INTEGERS), I32X16))

    def swapped(self, vector: ir.Value) -> ir.Value:
        """Swap each even lane with the odd one behind it."""
        return self._shuffle(vector, [lane ^ 1 for lane in range(LANES)])

    def call(self, name: str, result: ir.Type, *values: ir.Value) -> ir.Value:
        """Call an instruction of LLVM by its name, or a function of the module."""
        found = self._module.globals.get(name)
        if found is None:
            kind = ir.FunctionType(result, [value.type for value in values])
            found = ir.Function(self._module, kind, name)
        return self.b.call(found, values)

    def _fold(self, vector: ir.Value, join: object) -> ir.Value:
        assert callable(join)
        half = LANES // 2
        while half:
            lanes = [(lane + half) % LANES for lane in range(LANES)]
            vector = join(vector, self._shuffle(vector, lanes))
            half //= 2
        return self.b.extract_element(vector, ir.Constant(I32, 0))

    def _shuffle(self, vector: ir.Value, lanes: Sequence[int]) -> ir.Value:
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self.b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)
