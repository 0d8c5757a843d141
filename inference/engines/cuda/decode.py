"""One token for each running request: the device's state of all slots, and the step over it.

The step feeds itself: a row's token and position lie on the device, so nothing is sent there to go
on. On a GPU it is captured once for each number of rows (1, 2, 4, … slots) and replayed.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it
import triton

from inference.engines.cuda import kernels
from inference.engines.cuda.device import sent, turns
from inference.engines.cuda.graphs import captured
from inference.engines.cuda.products import Product, Products, parts

if TYPE_CHECKING:
    from inference.engines.cuda.device import DeviceLayer, DeviceWeights
    from inference.scheduler import Move

__all__ = ["Decoder", "Slots", "buckets"]

_FUSED_WIDTH_MAX = 2_048
"""Up to this width a single row runs as chained matrix-vector kernels: 0.45 ms a step instead of
0.87 for 135M; wider models are bound by memory either way."""
_BLOCK = 64
_PROGRAMS = 132
"""Programs that keep an H100 busy: one a multiprocessor."""
_GROUP_PAD = 16
"""Rows of the smallest matrix product there is."""
_NUCLEUS_ROUNDS = 18


def buckets(slots: int) -> tuple[int, ...]:
    """Numbers of rows that a step is captured for: powers of two, and `slots`."""
    return (*(2**n for n in range((slots - 1).bit_length())), slots)


class Slots:
    """What the device holds of the requests: keys, values, and the state of each row.

    keys, values: (layers, slots, kv heads, room, head). `room` is one more than the context: a step
    runs ahead of what the host has read. positions: of the token to be read next; -1: no request.
    """

    def __init__(self, weights: DeviceWeights, *, slots: int, context_tokens: int) -> None:
        arch = weights.architecture
        device, dtype = weights.embedding.device, weights.embedding.dtype
        self.count = slots
        self.room = -(-(context_tokens + 1) // _BLOCK) * _BLOCK
        shape = (arch.layers, slots, arch.kv_heads, self.room, arch.head)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.tokens = torch.zeros(slots, device=device, dtype=torch.int64)
        self.positions = torch.full((slots,), -1, device=device, dtype=torch.int32)
        self.results = torch.zeros(slots, device=device, dtype=torch.int32)
        self.temperatures = torch.zeros(slots, device=device)
        self.top_ps = torch.ones(slots, device=device)
        self.seeds = torch.zeros(slots, device=device, dtype=torch.int64)
        self.rows = torch.arange(slots, device=device, dtype=torch.int64)
        self._filled = [0] * slots

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of one token of one request."""
        layers, _, kv_heads, _, head = self.keys.shape
        return 2 * layers * kv_heads * head * self.keys.element_size()

    def begin(
        self,
        slots: torch.Tensor,
        *,
        temperatures: torch.Tensor,
        top_ps: torch.Tensor,
        seeds: torch.Tensor,
    ) -> None:
        """Take over how requests are to be sampled; their prompts come next."""
        here = sent(slots, self.rows.device)
        told = ((self.temperatures, temperatures), (self.top_ps, top_ps), (self.seeds, seeds))
        for row, values in told:
            row.index_copy_(0, here, sent(values.to(row.dtype), row.device))

    def fill(self, slot: int, tokens: int) -> None:
        """Note how much of a slot is in use: what `move` copies."""
        self._filled[slot] = tokens

    def grow(self, rows: int) -> None:
        """Note that the first rows have one token more."""
        for row in range(rows):
            self._filled[row] += 1

    def move(self, move: Move) -> None:
        """Copy a slot to another; what was there is over."""
        source, target = move.source, move.target
        tokens = min(self._filled[source], self.room)
        for cache in (self.keys, self.values):
            cache[:, target, :, :tokens] = cache[:, source, :, :tokens]
        state = (self.tokens, self.positions, self.temperatures, self.top_ps, self.seeds)
        for row in state:
            row[target] = row[source]
        self._filled[target] = tokens

    def clear(self, start: int, stop: int) -> None:
        """Take the requests of some slots out of the next steps."""
        self.positions[start:stop] = -1


class Decoder:
    """Steps over the first rows of some slots."""

    def __init__(self, weights: DeviceWeights, slots: Slots) -> None:
        arch = weights.architecture
        self._weights, self._slots = weights, slots
        self._on_gpu = weights.embedding.is_cuda
        self.cos, self.sin = turns(arch, slots.room, str(weights.embedding.device))
        device = weights.embedding.device
        self._splits = {rows: self._split(rows) for rows in buckets(slots.count)}
        parts = max(rows * splits for rows, splits in self._splits.items()) * arch.kv_heads
        self._part_out = torch.zeros(parts * _GROUP_PAD * arch.head, device=device)
        self._part_stat = torch.zeros(parts * _GROUP_PAD * 2, device=device)
        self._arrived = torch.zeros(slots.count * arch.kv_heads, device=device, dtype=torch.int32)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.products = Products(weights)

    def _split(self, rows: int) -> int:
        """Into how many parts the context is cut so that few rows keep the device busy."""
        arch, splits = self._weights.architecture, 1
        while (
            rows * arch.kv_heads * splits < _PROGRAMS
            and splits < 16  # noqa: PLR2004 -- beyond, merging costs more than it saves
            and self._slots.room // (splits * 2) >= _BLOCK
        ):
            splits *= 2
        return splits

    def capture(self) -> None:
        """Capture every bucket's step, largest first so that they share memory; on a GPU only."""
        if not self._on_gpu:
            return
        pool = torch.cuda.graph_pool_handle()
        for rows in reversed(buckets(self._slots.count)):
            self._graphs[rows] = captured(partial(self._step, rows), pool=pool)

    def step(self, rows: int) -> None:
        """Queue a step of the first `rows` slots; `Slots.results` holds the tokens after it."""
        bucket = next(size for size in buckets(self._slots.count) if size >= rows)
        graph = self._graphs.get(bucket)
        if graph is None:
            self._step(bucket)
        else:
            graph.replay()

    def _step(self, rows: int) -> None:
        fused = rows == 1 and self._fuses
        chained = fused and self._on_gpu
        logits = self._one_row(chained=chained) if fused else self._rows(rows)
        self.sample(logits, self._slots.rows, chained=chained)

    @property
    def _fuses(self) -> bool:
        """Whether a single row is better off without cuBLAS."""
        arch = self._weights.architecture
        return not arch.qkv_bias and (self.products.fp8 or arch.width <= _FUSED_WIDTH_MAX)

    def _rows(self, rows: int) -> torch.Tensor:
        """Logits of several rows: cuBLAS products, kernels between them."""
        weights, do = self._weights, self.products
        x = F.embedding(self._slots.tokens[:rows], weights.embedding)
        rest: Product | None = None
        for number, layer in enumerate(weights.layers):
            qkv = do.product(do.normed(x, rest, layer.attention_norm), layer.qkv, layer.qkv_bias)
            seen = self._attention(qkv, number, layer)
            rest = do.product(do.plain(seen), layer.attention_out)
            gate_up = do.product(do.normed(x, rest, layer.feed_norm), layer.gate_up)
            rest = do.product(do.activated(gate_up), layer.down)
        return F.linear(do.add_norm(x, rest, weights.final_norm), weights.head)

    def _one_row(self, *, chained: bool) -> torch.Tensor:
        """Logits of one row: each product fused with what is around it, each kernel chained."""
        weights, times = self._weights, partial(self.products.one_row, chained=chained)
        x = F.embedding(self._slots.tokens[:1], weights.embedding)
        for number, layer in enumerate(weights.layers):
            qkv = times(x, layer.qkv, norm=layer.attention_norm)
            seen = self._attention(qkv, number, layer, chained=chained)
            x = times(seen, layer.attention_out, addend=x)
            hidden = times(x, layer.gate_up, norm=layer.feed_norm, silu=True)
            x = times(hidden, layer.down, addend=x)
        return times(x, weights.head, norm=weights.final_norm)

    def _attention(
        self, product: Product, number: int, layer: DeviceLayer, *, chained: bool = False
    ) -> torch.Tensor:
        qkv, row_scales, column_scales, scaled = parts(product)
        arch, rows = self._weights.architecture, qkv.shape[0]
        keys, values = self._slots.keys[number], self._slots.values[number]
        splits = self._splits[rows]
        chunk = -(-self._slots.room // splits // _BLOCK) * _BLOCK
        out = torch.empty(rows, arch.heads * arch.head, device=qkv.device, dtype=qkv.dtype)
        kernels.decode_attention[(rows, arch.kv_heads, splits)](
            qkv, row_scales, column_scales, keys, values, out, self._part_out, self._part_stat,
            self._arrived, self._slots.positions, self.cos, self.sin,
            qkv if layer.q_norm is None else layer.q_norm,
            qkv if layer.k_norm is None else layer.k_norm,
            arch.norm_epsilon, 1 / math.sqrt(arch.head), keys.stride(0), keys.stride(1), chunk,
            heads=arch.heads, kv_heads=arch.kv_heads, group_pad=_GROUP_PAD, dim=arch.head,
            block=_BLOCK, splits=splits, norm=arch.qk_norm, scaled=scaled, chained=chained,
            num_warps=4, **({"launch_pdl": True} if chained else {}),
        )  # fmt: skip
        return out

    def sample(self, logits: torch.Tensor, slots: torch.Tensor, *, chained: bool = False) -> None:
        """Draw a token for each row of logits, which belongs to the slot named beside it."""
        state = self._slots
        vocabulary = logits.shape[1]
        kernels.sample[(logits.shape[0],)](
            logits, slots, state.tokens, state.results, state.positions, state.temperatures,
            state.top_ps, state.seeds, vocabulary, rounds=_NUCLEUS_ROUNDS,
            block=min(16_384, triton.next_power_of_2(vocabulary)), chained=chained, num_warps=16,
            **({"launch_pdl": True} if chained else {}),
        )  # fmt: skip
