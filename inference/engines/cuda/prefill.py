"""Prompts, whole or in chunks, several at once: keys and values kept, a first token drawn.

Whole prompts of about one length run together, padded to the longest: attention is causal, so what
stands behind a prompt's end sways nothing before it. A chunk that goes on reads what its slot
holds. A single short prompt is bound by launches, so it has captured graphs of its own.

Of a prompt only the last token's logits are wanted, so the last block computes keys, values and
attention for all of it, and what follows attention for that token: of 32 blocks, nine tenths of one
are saved. Nothing here waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it
import triton
from torch.nn.attention.bias import causal_lower_right

from inference.engines.cuda import kernels
from inference.engines.cuda.device import sent
from inference.engines.cuda.graphs import captured
from inference.engines.cuda.products import Product, parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inference.engines.cuda.decode import Decoder, Slots
    from inference.engines.cuda.device import DeviceLayer, DeviceWeights

__all__ = ["Chunk", "Prefiller"]

_GRAPH_TOKENS = (64, 128, 256, 512)
"""Lengths that a single prompt is padded to, for its graph."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `start` and on of a slot's prompt; `last` if the prompt ends with them."""

    slot: int
    start: int
    tokens: tuple[int, ...]
    last: bool


@dataclass(slots=True)
class _Captured:
    """A graph of one prompt, and the inputs that it reads: tokens, then slot, then length."""

    graph: torch.cuda.CUDAGraph
    inputs: torch.Tensor


class Prefiller:
    """Runs chunks on the device that a decoder decodes on."""

    def __init__(self, weights: DeviceWeights, slots: Slots, decoder: Decoder) -> None:
        self._weights, self._slots, self._decoder = weights, slots, decoder
        self._device = weights.embedding.device
        self._graphs: dict[int, _Captured] = {}

    def capture(self) -> None:
        """Capture the graphs of single prompts; on a GPU only."""
        if not self._weights.embedding.is_cuda:
            return
        for tokens in _GRAPH_TOKENS:
            if tokens >= self._slots.room:
                return
            inputs = torch.zeros(tokens + 2, device=self._device, dtype=torch.int64)
            inputs[-1] = 1
            graph = captured(partial(self._single, inputs))
            self._graphs[tokens] = _Captured(graph, inputs)

    def run(self, chunks: Sequence[Chunk]) -> None:
        """Queue some chunks; `Slots.results` holds the first token of each that was the last."""
        whole = [chunk for chunk in chunks if chunk.start == 0]
        if len(whole) == 1 and whole[0].last:
            self._alone(whole[0])
        else:
            for group in _alike(whole):
                self._together(group)
        for chunk in chunks:
            if chunk.start:
                self._onwards(chunk)

    def score(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return the logits after each token of a text: (tokens, vocabulary). In the last slot."""
        count = len(tokens)
        x = self._blocks(
            self._sent(torch.tensor(tokens)),
            self._sent(torch.full((count,), self._slots.count - 1)),
            self._sent(torch.arange(count, dtype=torch.int32)),
            (1, count),
        )
        return self._logits(x)

    def _alone(self, chunk: Chunk) -> None:
        count = len(chunk.tokens)
        size = next((size for size in self._graphs if size >= count), None)
        if size is None:
            self._together([chunk])
            return
        captured = self._graphs[size]
        padded = torch.zeros(size + 2, dtype=torch.int64)
        padded[:count] = torch.tensor(chunk.tokens)
        padded[-2], padded[-1] = chunk.slot, count
        captured.inputs.copy_(padded.pin_memory(), non_blocking=True)
        captured.graph.replay()

    def _single(self, inputs: torch.Tensor) -> None:
        """Run a whole prompt whose slot and length lie on the device."""
        tokens, slot, length = inputs[:-2], inputs[-2:-1], inputs[-1:]
        size = tokens.shape[0]
        at = torch.arange(size, device=self._device, dtype=torch.int32)
        ends = length - 1
        x = self._blocks(tokens, slot.expand(size).contiguous(), at, (1, size), ends=ends)
        self._slots.positions.index_copy_(0, slot, ends.to(torch.int32))
        self._decoder.sample(self._logits(x), slot)

    def _together(self, group: Sequence[Chunk]) -> None:
        """Run whole prompts, or beginnings of prompts, padded to the longest."""
        size = max(len(chunk.tokens) for chunk in group)
        rows = torch.zeros(len(group), size, dtype=torch.int64)
        for row, chunk in zip(rows, group, strict=True):
            row[: len(chunk.tokens)] = torch.tensor(chunk.tokens)
        lengths = torch.tensor([len(chunk.tokens) for chunk in group])
        slots = torch.tensor([chunk.slot for chunk in group])
        at = torch.arange(size, dtype=torch.int32).repeat(len(group))
        done = torch.tensor([chunk.last for chunk in group])
        ends = torch.arange(len(group)) * size + lengths - 1
        x = self._blocks(
            self._sent(rows.flatten()),
            self._sent(slots.repeat_interleave(size)),
            self._sent(at),
            (len(group), size),
            ends=self._sent(ends[done]),
        )
        self._first_tokens(x, slots[done], lengths[done])

    def _onwards(self, chunk: Chunk) -> None:
        """Run a chunk behind what its slot holds."""
        count = len(chunk.tokens)
        at = torch.arange(chunk.start, chunk.start + count, dtype=torch.int32)
        slots = torch.full((count,), chunk.slot)
        done = torch.tensor([chunk.last])
        x = self._blocks(
            self._sent(torch.tensor(chunk.tokens)),
            self._sent(slots),
            self._sent(at),
            (1, count),
            behind=chunk,
            ends=self._sent(torch.tensor([count - 1])[done]),
        )
        self._first_tokens(x, slots[:1][done], torch.tensor([chunk.start + count])[done])

    def _first_tokens(self, x: torch.Tensor, slots: torch.Tensor, lengths: torch.Tensor) -> None:
        """Draw the first token of prompts from the stream at their ends; of none, maybe."""
        if not len(slots):
            return
        here = self._sent(slots)
        self._slots.positions.index_copy_(0, here, self._sent((lengths - 1).to(torch.int32)))
        self._decoder.sample(self._logits(x), here)

    def _sent(self, values: torch.Tensor) -> torch.Tensor:
        return sent(values, self._device)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        weights = self._weights
        normed = self._decoder.products.add_norm(x, None, weights.final_norm)
        return F.linear(normed, weights.head)

    def _blocks(
        self,
        tokens: torch.Tensor,
        slots: torch.Tensor,
        positions: torch.Tensor,
        shape: tuple[int, int],
        *,
        behind: Chunk | None = None,
        ends: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run all blocks over (requests, tokens) of prompt; return the stream: (tokens, width).

        ends: tokens whose stream is wanted, and returned, of all of them; None: every one's.
        """
        do, final = self._decoder.products, len(self._weights.layers) - 1
        x = F.embedding(tokens, self._weights.embedding)
        rest: Product | None = None
        for number, layer in enumerate(self._weights.layers):
            qkv = do.product(do.normed(x, rest, layer.attention_norm), layer.qkv, layer.qkv_bias)
            q, k, v = self._turn_and_keep(qkv, slots, positions, number=number, layer=layer)
            if ends is not None and not len(ends) and number == final:
                return x[:0]
            seen = self._seen(q, k, v, shape, number=number, behind=behind)
            if ends is not None and number == final:
                x, seen = x.index_select(0, ends), seen.index_select(0, ends)
            rest = do.product(do.plain(seen), layer.attention_out)
            gate_up = do.product(do.normed(x, rest, layer.feed_norm), layer.gate_up)
            rest = do.product(do.activated(gate_up), layer.down)
        if rest is None:
            return x
        return x + (rest if isinstance(rest, torch.Tensor) else rest.applied())

    def _turn_and_keep(
        self,
        product: Product,
        slots: torch.Tensor,
        positions: torch.Tensor,
        *,
        number: int,
        layer: DeviceLayer,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return queries, keys and values: (tokens, heads, head) each."""
        qkv, row_scales, column_scales, scaled = parts(product)
        arch, count = self._weights.architecture, qkv.shape[0]
        keys, values = self._slots.keys[number], self._slots.values[number]
        q = torch.empty(count, arch.heads, arch.head, device=qkv.device, dtype=qkv.dtype)
        k = torch.empty(count, arch.kv_heads, arch.head, device=qkv.device, dtype=qkv.dtype)
        v = qkv.view(count, -1, arch.head)[:, arch.heads + arch.kv_heads :]
        if scaled:
            v = torch.empty_like(k)
        kernels.rope_and_keep[(count,)](
            qkv, row_scales, column_scales, q, k, v, keys, values, slots, positions,
            self._decoder.cos, self._decoder.sin,
            qkv if layer.q_norm is None else layer.q_norm,
            qkv if layer.k_norm is None else layer.k_norm,
            arch.norm_epsilon, keys.stride(0), keys.stride(1),
            heads=arch.heads, kv_heads=arch.kv_heads,
            heads_pad=triton.next_power_of_2(arch.heads),
            kv_pad=triton.next_power_of_2(arch.kv_heads),
            dim=arch.head, norm=arch.qk_norm, scaled=scaled, num_warps=4,
        )  # fmt: skip
        return q, k, v

    def _seen(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        shape: tuple[int, int],
        *,
        number: int,
        behind: Chunk | None,
    ) -> torch.Tensor:
        """Attend: a prompt to itself, or a chunk to its slot: (tokens, heads x head)."""
        arch = self._weights.architecture
        queries = q.view(*shape, arch.heads, arch.head).transpose(1, 2)
        if behind is None:
            seen = F.scaled_dot_product_attention(
                queries,
                k.view(*shape, arch.kv_heads, arch.head).transpose(1, 2),
                v.reshape(*shape, arch.kv_heads, arch.head).transpose(1, 2),
                is_causal=True,
                enable_gqa=True,
            )
        else:
            stop = behind.start + len(behind.tokens)
            seen = F.scaled_dot_product_attention(
                queries,
                self._slots.keys[number, behind.slot, :, :stop][None],
                self._slots.values[number, behind.slot, :, :stop][None],
                attn_mask=causal_lower_right(shape[1], stop),
                enable_gqa=True,
            )
        return seen.transpose(1, 2).reshape(q.shape[0], arch.heads * arch.head)


def _alike(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Group chunks so that padding costs little: by the next power of two of their lengths."""
    ordered = sorted(chunks, key=lambda chunk: len(chunk.tokens))
    for _, group in groupby(ordered, key=lambda chunk: triton.next_power_of_2(len(chunk.tokens))):
        yield list(group)
