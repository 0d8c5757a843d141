"""A Llama-architecture model with the weights of a GGUF file, on a CPU, by a compiled step.

Not safe for threads: the engine's thread alone calls it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inference.engines.jit.compiled import compiled, cpu_dots
from inference.engines.jit.packing import (
    BLOCK4_BYTES,
    BLOCK8_BYTES,
    TILE,
    Arena,
    packed4,
    packed8,
)
from inference.engines.jit.products import FACTORS_BYTES, SCRATCH_BYTES
from inference.engines.jit.program import Argument, Field, Plan
from inference.engines.jit.team import Team
from inference.engines.slots import KvSlots
from inference.weights import GROUP, Codes4, Codes8

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.scheduler import Move
    from inference.weights import Layer, Weights

__all__ = ["KEPT", "CompiledLlama", "compiles"]

_ROWS_MAX = 64
"""Rows that a step takes; of longer prompts it takes several stretches, with the same result."""
_SCRATCH_PARTS = 4
KEPT = torch.float16
"""What keys and values are kept in."""


def compiles(weights: Weights) -> bool:
    """Whether `CompiledLlama` takes these weights, and this CPU has what it needs."""
    arch = weights.architecture
    layers = all(
        isinstance(matrix, Codes4)
        for layer in weights.layers
        for matrix in (layer.qkv, layer.attention_out, layer.gate_up, layer.down)
    ) and all(
        extra is None
        for layer in weights.layers
        for extra in (layer.qkv_bias, layer.q_norm, layer.k_norm)
    )
    tied = isinstance(weights.embedding, Codes8) and weights.head is None
    blocks = (arch.head, arch.width, arch.hidden)
    even = all(size % GROUP == 0 for size in blocks) and arch.vocabulary % TILE == 0
    return layers and tied and even and cpu_dots() is not None


def _packed_bytes(weights: Weights, table: Codes8) -> int:
    """Of all matrices, which are whole tiles of whole blocks."""
    codes = sum(
        matrix.codes.numel()
        for layer in weights.layers
        for matrix in (layer.qkv, layer.attention_out, layer.gate_up, layer.down)
        if isinstance(matrix, Codes4)
    )
    weights_a_block = TILE * GROUP
    return (codes * BLOCK4_BYTES + table.codes.numel() * BLOCK8_BYTES) // weights_a_block


class CompiledLlama:
    """A model and the keys and values of the requests that are in it.

    Args:
        weights: such as `compiles` takes.
        slots: requests at once.
        context_tokens: room in each slot.
        threads: of a step.
    """

    def __init__(self, weights: Weights, *, slots: int, context_tokens: int, threads: int) -> None:
        self._arch = arch = weights.architecture
        self._room = -(-context_tokens // TILE) * TILE
        self.slots = KvSlots(arch, slots=slots, context_tokens=self._room, kind=KEPT)
        self._rows = max(_ROWS_MAX, slots)
        self._held: list[NDArray[np.generic] | torch.Tensor | Arena] = []
        self._given = np.zeros(len(Argument), np.int64)
        self._given[Argument.THREADS] = threads
        self._tokens, self._of, self._at, self._wanted = (
            self._buffer(argument, np.int64, self._rows)
            for argument in (
                Argument.TOKENS,
                Argument.SLOTS,
                Argument.POSITIONS,
                Argument.WANTED,
            )
        )
        self._bounds = (
            (self._tokens, arch.vocabulary),
            (self._of, slots),
            (self._at, context_tokens),
        )
        self._lay_out(threads)
        self._hold_weights(weights)
        dots = cpu_dots()
        assert dots is not None
        code = compiled(Plan(arch, self._rows, self._room, dots))
        self._team = Team(code, self._given, (self._held, self.slots))

    def prefill(self, tokens: Sequence[int], *, slot: int, start: int) -> torch.Tensor:
        """Run a stretch of one prompt; return the logits after its last token, (vocabulary,).

        Args:
            tokens: the stretch.
            slot: the request's.
            start: how many tokens of this request went before.
        """
        logits = torch.empty(1, self._arch.vocabulary)
        for first in range(0, len(tokens), self._rows):
            some = tokens[first : first + self._rows]
            count, at = len(some), start + first
            self._wanted[0] = count - 1
            wanted = logits[: first + count == len(tokens)]
            self._run(some, [slot] * count, range(at, at + count), wanted)
        self.slots.filled[slot] = start + len(tokens)
        return logits[0]

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], slots: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Run one token for each row; return logits, (rows, vocabulary).

        Args:
            tokens: one a row.
            positions: how many tokens stand before each; at most the slot's room less one.
            slots: whose each row is; None: the i-th is slot i's. Rows of one slot stand together,
                one position behind the other: a row sees those of its slot before it.
        """
        rows = len(tokens)
        of = range(rows) if slots is None else slots
        logits = torch.empty(rows, self._arch.vocabulary)
        for first in range(0, rows, self._rows):
            part = slice(first, min(first + self._rows, rows))
            self._wanted[: part.stop - first] = range(part.stop - first)
            self._run(tokens[part], of[part], positions[part], logits[part])
        for slot, position in zip(of, positions, strict=True):
            self.slots.filled[slot] = position + 1
        return logits

    def move(self, move: Move) -> None:
        """Copy the keys and values of a slot to another."""
        self.slots.move(move)

    def _run(
        self, tokens: Sequence[int], of: Sequence[int], at: Sequence[int], logits: torch.Tensor
    ) -> None:
        """Run rows: tokens, slots and positions, one a row.

        Raises:
            IndexError: a token, slot or position that there is not; machine code would not ask.
        """
        rows = len(tokens)
        for values, (buffer, bound) in zip((tokens, of, at), self._bounds, strict=True):
            if min(values) < 0 or max(values) >= bound:
                msg = "a token, slot or position is out of range"
                raise IndexError(msg)
            buffer[:rows] = values
        self._given[Argument.ROWS] = rows
        self._given[Argument.WANTED_COUNT] = logits.shape[0]
        self._given[Argument.LOGITS] = logits.data_ptr()
        self._team.run()

    # --- memory -----------------------------------------------------------------------------

    def _lay_out(self, threads: int) -> None:
        """Make room for what a step keeps between its phases."""
        arch, rows = self._arch, self._rows
        narrow = max(arch.width, arch.heads * arch.head)
        floats = {
            Argument.X: rows * arch.width,
            Argument.QKV: rows * (arch.heads + 2 * arch.kv_heads) * arch.head,
            Argument.SCORES: threads * arch.heads // arch.kv_heads * self._room,
        }
        octets = {
            Argument.NARROW_CODES: 2 * rows * narrow,
            Argument.NARROW_FACTORS: 2 * rows * narrow // GROUP * FACTORS_BYTES,
            Argument.WIDE_CODES: rows * arch.hidden,
            Argument.WIDE_FACTORS: rows * arch.hidden // GROUP * FACTORS_BYTES,
            Argument.SCRATCH: threads * rows * SCRATCH_BYTES * _SCRATCH_PARTS,
            Argument.MEETING: 2 * 64,
        }
        for argument, size in floats.items():
            self._buffer(argument, np.float32, size)
        for argument, size in octets.items():
            self._buffer(argument, np.uint8, size)

    def _hold_weights(self, weights: Weights) -> None:
        table = weights.embedding
        assert isinstance(table, Codes8)
        rates = np.array(self._arch.rope_rates, np.float64)
        angles = np.arange(self._room)[:, None] * rates.repeat(2)
        signs = np.tile([-1.0, 1.0], self._arch.head // 2)
        arena = Arena(_packed_bytes(weights, table))
        self._held.append(arena)
        layers = [self._layer(layer, at, arena) for at, layer in enumerate(weights.layers)]
        for argument, values in (
            (Argument.TABLE_CODES, table.codes.contiguous()),
            (Argument.TABLE_SCALES, table.d.contiguous()),
            (Argument.FINAL_NORM, weights.final_norm.contiguous()),
            (Argument.COSINES, np.cos(angles).astype(np.float32)),
            (Argument.SINES, (np.sin(angles) * signs).astype(np.float32)),
            (Argument.LAYERS, np.array(layers, np.int64)),
        ):
            self._given[argument] = self._hold(values)
        self._given[Argument.HEAD] = arena.keep(packed8(table))

    def _layer(self, layer: Layer, number: int, arena: Arena) -> list[int]:
        """Return the addresses of a layer's parts, by `Field`."""
        parts = {
            Field.ATTENTION_NORM: layer.attention_norm.contiguous(),
            Field.FEED_NORM: layer.feed_norm.contiguous(),
            Field.KEYS: self.slots.keys[number],
            Field.VALUES: self.slots.values[number],
        }
        matrices = {
            Field.QKV: layer.qkv,
            Field.ATTENTION_OUT: layer.attention_out,
            Field.GATE_UP: layer.gate_up,
            Field.DOWN: layer.down,
        }
        held = {field: self._hold(tensor) for field, tensor in parts.items()}
        for field, matrix in matrices.items():
            assert isinstance(matrix, Codes4)
            held[field] = arena.keep(packed4(matrix))
        return [held[field] for field in Field]

    def _buffer(self, argument: Argument, kind: type[np.generic], size: int) -> NDArray[Any]:
        """Make a buffer that a step finds at an argument."""
        buffer = np.zeros(size, kind)
        self._given[argument] = self._hold(buffer)
        return buffer

    def _hold(self, values: NDArray[np.generic] | torch.Tensor) -> int:
        """Keep memory for as long as this lives; return its address."""
        self._held.append(values)
        return values.data_ptr() if isinstance(values, torch.Tensor) else values.ctypes.data
