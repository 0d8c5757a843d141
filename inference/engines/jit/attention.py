"""Attention of one row and one key head, with the query heads that share it.

Keys and values are kept as fp16; all that is computed is fp32.

Keys and values of several requests come from memory, in pieces too short for the CPU to notice in
time that it could read ahead. So values are asked for while keys are worked on, and the next unit's
keys while values are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from inference.engines.jit.emit import F32, I32, I32X16, Code

if TYPE_CHECKING:
    from inference.engines.jit.rows import Quantised

__all__ = ["Unit", "attended", "turned"]

_LANES, _GROUP = 16, 32
_F16, _F32 = 2, 4
_LINE = 64


@dataclass(frozen=True, slots=True)
class Unit:
    """What is worked on.

    head: width of a head. queries: how many share the key head; they stand together at `query`.
    keys, values: of the slot and key head, fp16, (context, head). end: tokens to see.
    next_keys: of what is worked on next, or any. asks: whether to ask for what is needed soon.
    """

    head: int
    queries: int
    query: ir.Value
    keys: ir.Value
    values: ir.Value
    next_keys: ir.Value
    end: ir.Value
    asks: bool = True

    @property
    def parts(self) -> range:
        """Offsets of a head's vectors of fp32, in bytes."""
        return range(0, self.head * _F32, _LANES * _F32)

    def kept(self, c: Code, token: ir.Value, part: int = 0) -> ir.Value:
        """Return the offset of a token's key, or value, or of the part that has one in fp32."""
        return c.add(c.mul(token, self.head * _F16), part * _F16 // _F32)


def turned(c: Code, place: ir.Value, turns: tuple[ir.Value, ir.Value], at: int) -> ir.Value:
    """Turn 16 of a head's values (8 pairs) by their position.

    place: the head's. turns: cosines, and sines with the sign of their lane, of the position, a
    head wide. at: offset of the 16, in bytes.
    """
    cosines, sines = (c.load(c.at(table, at)) for table in turns)
    x = c.load(c.at(place, at))
    return c.fma(x, cosines, c.b.fmul(c.swapped(x), sines))


def attended(
    c: Code, unit: Unit, scores: ir.Value, room: int, put: tuple[Quantised, ir.Value, ir.Value]
) -> None:
    """Attend, and quantise what was seen.

    scores: this thread's own, fp32, (queries, room). put: rows, the row, the first block in it.
    """
    rows, row, first = put
    _score(c, unit, scores, room)
    inverse = [
        _weigh(c, unit.end, c.at(scores, query * room * _F32)) for query in range(unit.queries)
    ]
    seen = _mix(c, unit, scores, room)
    blocks = unit.head // _GROUP
    for query, parts in enumerate(seen):
        whole = [c.b.fmul(c.get(part), c.splat(inverse[query])) for part in parts]
        for block in range(blocks):
            at = c.add(first, query * blocks + block)
            rows.put(c, row, at, (whole[2 * block], whole[2 * block + 1]))


def _score(c: Code, unit: Unit, scores: ir.Value, room: int) -> None:
    """Set scores = queries · keys; those behind the end, up to a whole vector, are -inf."""
    last = c.mul(c.div(c.add(unit.end, -1), _LANES), _LANES)
    for query in range(unit.queries):
        nothing = ir.Constant(ir.VectorType(F32, _LANES), [float("-inf")] * _LANES)
        c.store(nothing, c.at(scores, c.mul(c.add(last, query * room), _F32)))
    with c.loop(0, unit.end) as token:
        parts = _vectors(c, unit, token, unit.keys, unit.values)
        for query in range(unit.queries):
            mine = c.at(unit.query, query * unit.head * _F32)
            total = c.b.fmul(parts[0], c.load(mine))
            for part, at in zip(parts[1:], unit.parts[1:], strict=True):
                total = c.fma(part, c.load(c.at(mine, at)), total)
            c.store(c.sum(total), c.at(scores, c.mul(c.add(token, query * room), _F32)))


def _weigh(c: Code, end: ir.Value, scores: ir.Value) -> ir.Value:
    """Set scores = e**(score - largest); return one over their sum."""
    most = c.variable(c.floats(float("-inf")))
    with c.loop(0, end, _LANES) as token:
        c.put(most, c.larger(c.get(most), c.load(c.at(scores, c.mul(token, _F32)))))
    largest = c.splat(c.most(c.get(most)))
    total = c.variable(c.floats(0.0))
    with c.loop(0, end, _LANES) as token:
        place = c.at(scores, c.mul(token, _F32))
        weight = c.exp(c.b.fsub(c.load(place), largest))
        # The least that `exp` gives is not zero; behind the end it must be.
        lanes = c.b.add(c.splat(c.b.trunc(token, I32)), ir.Constant(I32X16, list(range(_LANES))))
        inside = c.b.icmp_signed("<", lanes, c.splat(c.b.trunc(end, I32)))
        weight = c.b.select(inside, weight, c.floats(0.0))
        c.store(weight, place)
        c.put(total, c.b.fadd(c.get(total), weight))
    return c.b.fdiv(ir.Constant(F32, 1.0), c.sum(c.get(total)))


def _mix(c: Code, unit: Unit, scores: ir.Value, room: int) -> list[list[ir.Value]]:
    """Return variables: the sum of values by weight, for each query, in vectors of 16."""
    seen = [[c.variable(c.floats(0.0)) for _ in unit.parts] for _ in range(unit.queries)]
    with c.loop(0, unit.end) as token:
        parts = _vectors(c, unit, token, unit.values, unit.next_keys)
        for query, mine in enumerate(seen):
            at = c.mul(c.add(token, query * room), _F32)
            weight = c.splat(c.load(c.at(scores, at), F32))
            for part, variable in zip(parts, mine, strict=True):
                c.put(variable, c.fma(part, weight, c.get(variable)))
    return seen


def _vectors(
    c: Code, unit: Unit, token: ir.Value, these: ir.Value, soon: ir.Value
) -> list[ir.Value]:
    """Load a token's key or value; ask for what stands in another place at the same offset."""
    for line in range(0, unit.head * _F16, _LINE) if unit.asks else ():
        c.soon(c.at(soon, c.add(unit.kept(c, token), line)))
    return [c.load_half(c.at(these, unit.kept(c, token, part))) for part in unit.parts]
