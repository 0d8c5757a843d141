"""One step: rows of tokens through all layers to logits, as a function that several threads run.

The thread that wants a step calls `step(arguments, 0)`; the others are in `help` all their lives,
which runs the same with their own number whenever an event comes. Each takes its share of a phase's
units, and all meet before the next. A block is eight phases:

    norm, quantise | qkv | turn, keep keys and values | attend, quantise |
    product, residual | norm, quantise | gate, up, quantise | product, residual
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum, auto
from typing import TYPE_CHECKING

from llvmlite import ir

from inference.engines.jit.attention import Unit, attended, turned
from inference.engines.jit.emit import I64, PTR, Code
from inference.engines.jit.packing import BLOCK4_BYTES, BLOCK8_BYTES, TILE
from inference.engines.jit.products import SCRATCH_BYTES, emit_products
from inference.engines.jit.rows import Pair, Quantised, embedded, gated, normed
from inference.engines.jit.waiting import emit_help, emit_meeting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from inference.architecture import Architecture
    from inference.engines.jit.dots import Dots

__all__ = ["Argument", "Field", "Plan", "emit_step"]

_GROUP, _F16, _F32, _I64 = 32, 2, 4, 8
_TILE_BYTES = TILE * _F32
_TILES_A_UNIT = 2
_KEYS_AT_ONCE, _LINE = 4, 64
_FEW_ROWS = 16
"""Up to so many, rows are taken for those of several requests: their keys are not in a cache."""


class Argument(IntEnum):
    """What `step` is given: addresses and numbers, 64 bits each, at these places."""

    THREADS = 0
    ROWS = auto()
    TOKENS = auto()
    SLOTS = auto()
    POSITIONS = auto()
    WANTED = auto()
    WANTED_COUNT = auto()
    LOGITS = auto()
    X = auto()
    QKV = auto()
    NARROW_CODES = auto()
    NARROW_FACTORS = auto()
    WIDE_CODES = auto()
    WIDE_FACTORS = auto()
    SCRATCH = auto()
    SCORES = auto()
    TABLE_CODES = auto()
    TABLE_SCALES = auto()
    COSINES = auto()
    SINES = auto()
    LAYERS = auto()
    FINAL_NORM = auto()
    HEAD = auto()
    MEETING = auto()
    CLOSING = auto()


class Field(IntEnum):
    """What a layer has, likewise."""

    ATTENTION_NORM = 0
    QKV = auto()
    ATTENTION_OUT = auto()
    FEED_NORM = auto()
    GATE_UP = auto()
    DOWN = auto()
    KEYS = auto()
    VALUES = auto()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known when a step is compiled. rows: at most, in a step. dots: of this CPU."""

    arch: Architecture
    rows: int
    context_tokens: int
    dots: Dots


def emit_step(module: ir.Module, plan: Plan) -> None:
    """Write `step(arguments, thread)`, `help(arguments, thread, event)` and what they call."""
    emit_products(module, plan.dots)
    emit_meeting(module)
    c = Code(module, "step", [PTR, I64])
    _Step(c, plan).emit()
    c.finish()
    emit_help(module, closing_at=Argument.CLOSING * _I64)


class _Step:
    """The phases of a step; see the module."""

    def __init__(self, c: Code, plan: Plan) -> None:
        self._c, self._plan, self._arch = c, plan, plan.arch
        self._given, self._thread = c.arguments
        self._threads = self._number(Argument.THREADS)
        self._rows = self._number(Argument.ROWS)
        self._few = c.b.icmp_signed("<=", self._rows, c.number(_FEW_ROWS))
        self._x, self._qkv = self._address(Argument.X), self._address(Argument.QKV)
        arch = plan.arch
        narrow = self._address(Argument.NARROW_CODES), self._address(Argument.NARROW_FACTORS)
        wide = self._address(Argument.WIDE_CODES), self._address(Argument.WIDE_FACTORS)
        self._normed = Quantised(*narrow, arch.width)
        self._seen = Quantised(*narrow, arch.heads * arch.head)
        self._hidden = Quantised(*wide, arch.hidden)
        mine = c.mul(self._thread, plan.rows * SCRATCH_BYTES * 2 * _TILES_A_UNIT)
        self._scratch = c.at(self._address(Argument.SCRATCH), mine)

    def emit(self) -> None:
        """All of it."""
        c = self._c
        self._embed()
        layers = self._address(Argument.LAYERS)
        with c.loop(0, self._arch.layers) as number:
            layer = c.at(layers, c.mul(number, len(Field) * _I64))
            fields = {field: c.load(c.at(layer, field * _I64), PTR) for field in Field}
            self._norm(fields[Field.ATTENTION_NORM], twice=True)
            self._multiply_qkv(fields)
            self._turn(fields)
            self._attend(fields)
            self._add_product(fields[Field.ATTENTION_OUT], self._seen)
            self._norm(fields[Field.FEED_NORM])
            self._gate(fields[Field.GATE_UP])
            self._add_product(fields[Field.DOWN], self._hidden)
        self._norm_wanted()
        self._multiply_head()

    # --- phases -----------------------------------------------------------------------------

    def _embed(self) -> None:
        """Look up my rows; the next phase splits rows alike, so nobody need be met."""
        c, blocks = self._c, self._arch.width // _GROUP
        codes, scales = self._address(Argument.TABLE_CODES), self._address(Argument.TABLE_SCALES)
        with self._mine(self._rows) as row:
            token = self._entry(Argument.TOKENS, row)
            embedded(
                c,
                c.at(codes, c.mul(token, blocks * _GROUP)),
                c.at(scales, c.mul(token, blocks * _F32)),
                self._x_row(row),
                blocks,
            )

    def _norm(self, weight: ir.Value, *, twice: bool = False) -> None:
        put = self._normed.put_twice if twice else self._normed.put
        with self._mine(self._rows) as row:
            self._norm_row(row, weight, lambda block, values: put(self._c, row, block, values))
        self._meet()

    def _norm_row(
        self, row: ir.Value, weight: ir.Value, put: Callable[[ir.Value, Pair], object]
    ) -> None:
        size = self._arch.width, self._arch.norm_epsilon
        normed(self._c, self._x_row(row), weight, size, put)

    def _multiply_qkv(self, fields: dict[Field, ir.Value]) -> None:
        """Each row is two here: what enters queries and keys is what rounding harms most."""
        c, arch = self._c, self._arch
        outputs = (arch.heads + 2 * arch.kv_heads) * arch.head
        asked = c.variable(c.number(0))
        with self._tiles(outputs) as tile:
            self._ask_for_keys(fields, asked)
            self._product(fields[Field.QKV], tile, self._normed, rows=c.mul(self._rows, 2))
            with c.loop(0, self._rows) as row:
                at = c.add(c.mul(row, outputs * _F32), c.mul(tile, _TILE_BYTES))
                first = c.mul(row, 2)
                both = c.b.fadd(self._produced(first), self._produced(c.add(first, 1)))
                c.store(both, c.at(self._qkv, at))
        self._meet()

    def _ask_for_keys(self, fields: dict[Field, ir.Value], asked: ir.Value) -> None:
        """Ask for some keys of each of my units: products leave memory time to bring them.

        asked: variable, tokens that were asked for.
        """
        c, size = self._c, self._arch.head * _F16
        start = c.get(asked, I64)
        stop = c.add(start, _KEYS_AT_ONCE)
        c.put(asked, stop)
        with c.when(self._few), self._units() as (row, key_head):
            end = self._entry(Argument.POSITIONS, row)
            end = c.b.select(c.b.icmp_signed("<", end, stop), end, stop)
            keys = c.at(fields[Field.KEYS], self._kept(row, key_head))
            with c.loop(c.mul(start, size), c.mul(end, size), _LINE) as at:
                c.soon(c.at(keys, at))

    def _turn(self, fields: dict[Field, ir.Value]) -> None:
        """Turn queries and keys; keep keys and values. Queries get the scale of scores."""
        c, arch = self._c, self._arch
        scale = c.floats(arch.head**-0.5)
        with self._units() as (row, key_head):
            unit = self._unit(fields, row, key_head)
            position = self._entry(Argument.POSITIONS, row)
            at = c.mul(position, arch.head * _F32)
            turns = (
                c.at(self._address(Argument.COSINES), at),
                c.at(self._address(Argument.SINES), at),
            )
            key, value = self._new(row, key_head)
            for part in unit.parts:
                for query in range(unit.queries):
                    place = c.at(unit.query, query * arch.head * _F32)
                    done = c.b.fmul(turned(c, place, turns, part), scale)
                    c.store(done, c.at(place, part))
                kept = unit.kept(c, position, part)
                c.store_half(turned(c, key, turns, part), c.at(unit.keys, kept))
                c.store_half(c.load(c.at(value, part)), c.at(unit.values, kept))
        self._meet()

    def _attend(self, fields: dict[Field, ir.Value]) -> None:
        c, arch = self._c, self._arch
        group, room = arch.heads // arch.kv_heads, self._plan.context_tokens
        mine = c.mul(self._thread, group * room * _F32)
        scores = c.at(self._address(Argument.SCORES), mine)
        with self._units() as (row, key_head):
            first = c.mul(key_head, group * arch.head // _GROUP)
            unit = self._unit(fields, row, key_head)
            with c.b.if_else(self._few) as cases:
                for case, asks in zip(cases, (True, False), strict=True):
                    with case:
                        attended(
                            c, replace(unit, asks=asks), scores, room, (self._seen, row, first)
                        )
        self._meet()

    def _add_product(self, weight: ir.Value, inputs: Quantised) -> None:
        c = self._c
        with self._tiles(self._arch.width) as tile:
            self._product(weight, tile, inputs)
            with c.loop(0, self._rows) as row:
                place = c.at(self._x_row(row), c.mul(tile, _TILE_BYTES))
                c.store(c.b.fadd(c.load(place), self._produced(row)), place)
        self._meet()

    def _gate(self, weight: ir.Value) -> None:
        """Two tiles of gates and the same two of ups make a block of 32."""
        c, ups = self._c, self._arch.hidden // TILE
        with self._tiles(self._arch.hidden // _TILES_A_UNIT) as unit:
            for half in range(_TILES_A_UNIT):
                tile = c.add(c.mul(unit, _TILES_A_UNIT), half)
                self._product(weight, tile, self._normed, part=half)
                self._product(weight, c.add(tile, ups), self._normed, part=_TILES_A_UNIT + half)
            with c.loop(0, self._rows) as row:
                low, high = (
                    gated(c, self._produced(row, half), self._produced(row, _TILES_A_UNIT + half))
                    for half in range(_TILES_A_UNIT)
                )
                self._hidden.put(c, row, unit, (low, high))
        self._meet()

    def _norm_wanted(self) -> None:
        final = self._address(Argument.FINAL_NORM)
        with self._mine(self._number(Argument.WANTED_COUNT)) as number:
            self._norm_row(
                self._entry(Argument.WANTED, number),
                final,
                lambda block, values: self._normed.put(self._c, number, block, values),
            )
        self._meet()

    def _multiply_head(self) -> None:
        c, arch = self._c, self._arch
        count, logits = self._number(Argument.WANTED_COUNT), self._address(Argument.LOGITS)
        weight, size = self._address(Argument.HEAD), arch.width // _GROUP * BLOCK8_BYTES
        with self._tiles(arch.vocabulary) as tile:
            place = c.at(weight, c.mul(tile, size))
            self._call_product("product8", place, self._normed, scratch=self._scratch, rows=count)
            with c.loop(0, count) as row:
                at = c.add(c.mul(row, arch.vocabulary * _F32), c.mul(tile, _TILE_BYTES))
                c.store(self._produced(row), c.at(logits, at))
        # Else a thread that is done would see the next step begin before this one's end.
        self._meet()

    # --- parts of them ----------------------------------------------------------------------

    def _product(
        self,
        weight: ir.Value,
        tile: ir.Value,
        inputs: Quantised,
        *,
        part: int = 0,
        rows: ir.Value | None = None,
    ) -> None:
        """Multiply all rows with a tile, into a part of my scratch."""
        c = self._c
        place = c.at(weight, c.mul(tile, inputs.blocks * BLOCK4_BYTES))
        scratch = c.at(self._scratch, part * self._plan.rows * SCRATCH_BYTES)
        self._call_product("product4", place, inputs, scratch=scratch, rows=rows or self._rows)

    def _call_product(
        self, name: str, tile: ir.Value, inputs: Quantised, *, scratch: ir.Value, rows: ir.Value
    ) -> None:
        c, blocks = self._c, self._c.number(inputs.blocks)
        c.call(name, ir.VoidType(), tile, inputs.codes, inputs.factors, scratch, blocks, rows)

    def _produced(self, row: ir.Value, part: int = 0) -> ir.Value:
        c = self._c
        at = c.mul(c.add(row, part * self._plan.rows), SCRATCH_BYTES)
        return c.load(c.at(self._scratch, at))

    @contextmanager
    def _units(self) -> Iterator[tuple[ir.Value, ir.Value]]:
        c, heads = self._c, self._arch.kv_heads
        with self._mine(c.mul(self._rows, heads)) as unit:
            yield self._of_unit(unit)

    def _unit(self, fields: dict[Field, ir.Value], row: ir.Value, key_head: ir.Value) -> Unit:
        c, arch = self._c, self._arch
        queries = arch.heads // arch.kv_heads
        kept = self._kept(row, key_head)
        return Unit(
            arch.head,
            queries,
            self._qkv_head(row, c.mul(key_head, queries)),
            c.at(fields[Field.KEYS], kept),
            c.at(fields[Field.VALUES], kept),
            c.at(fields[Field.KEYS], self._kept(*self._next(row, key_head))),
            c.add(self._entry(Argument.POSITIONS, row), 1),
        )

    def _kept(self, row: ir.Value, key_head: ir.Value) -> ir.Value:
        """Where in a layer's keys, and values, those of a row's slot and key head begin."""
        c, arch = self._c, self._arch
        slot = c.add(c.mul(self._entry(Argument.SLOTS, row), arch.kv_heads), key_head)
        return c.mul(slot, self._plan.context_tokens * arch.head * _F16)

    def _next(self, row: ir.Value, key_head: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Row and key head of the unit behind one; behind the last, that one."""
        c, heads = self._c, self._arch.kv_heads
        unit = c.add(c.mul(row, heads), c.add(key_head, 1))
        last = c.add(c.mul(self._rows, heads), -1)
        unit = c.b.select(c.b.icmp_signed("<", unit, last), unit, last)
        return self._of_unit(unit)

    def _of_unit(self, unit: ir.Value) -> tuple[ir.Value, ir.Value]:
        c, heads = self._c, self._arch.kv_heads
        row = c.div(unit, heads)
        return row, c.b.sub(unit, c.mul(row, heads))

    def _new(self, row: ir.Value, key_head: ir.Value) -> tuple[ir.Value, ir.Value]:
        c, arch = self._c, self._arch
        key = self._qkv_head(row, c.add(key_head, arch.heads))
        return key, c.at(key, arch.kv_heads * arch.head * _F32)

    def _qkv_head(self, row: ir.Value, head: ir.Value) -> ir.Value:
        c, arch = self._c, self._arch
        heads = arch.heads + 2 * arch.kv_heads
        return c.at(self._qkv, c.mul(c.add(c.mul(row, heads), head), arch.head * _F32))

    def _x_row(self, row: ir.Value) -> ir.Value:
        return self._c.at(self._x, self._c.mul(row, self._arch.width * _F32))

    def _tiles(self, outputs: int) -> AbstractContextManager[ir.Value]:
        return self._mine(self._c.number(outputs // TILE))

    def _mine(self, units: ir.Value) -> AbstractContextManager[ir.Value]:
        """My share of so many units, one after the other."""
        c = self._c
        edges = [
            c.b.udiv(c.mul(units, c.add(self._thread, more)), self._threads) for more in (0, 1)
        ]
        return c.loop(*edges)

    def _meet(self) -> None:
        self._c.call("meet", ir.VoidType(), self._address(Argument.MEETING), self._threads)

    def _address(self, argument: Argument) -> ir.Value:
        return self._c.load(self._c.at(self._given, argument * _I64), PTR)

    def _number(self, argument: Argument) -> ir.Value:
        return self._c.load(self._c.at(self._given, argument * _I64), I64)

    def _entry(self, argument: Argument, index: ir.Value) -> ir.Value:
        return self._c.load(self._c.at(self._address(argument), self._c.mul(index, _I64)), I64)
