"""The forward pass of a Llama-architecture model on a CPU, several requests at once.

Keys and values of all requests lie in two fixed tensors, (layers, slots, kv heads, context, head)
in fp32; a request owns a slot. The residual stream, rope and attention are fp32, matrix products
bf16 in and out (see `linear`), or fp32 where the weights are (see `dense`). Not safe for threads:
the engine's thread alone calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.engines.dense import activations, head_of, linear_of
from inference.engines.slots import KvSlots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.architecture import Architecture
    from inference.engines.dense import Product
    from inference.scheduler import Move
    from inference.weights import Layer, Weights

__all__ = ["Llama"]


@dataclass(frozen=True, slots=True)
class _Block:
    attention_norm: torch.Tensor
    qkv: Product
    attention_out: Product
    feed_norm: torch.Tensor
    gate_up: Product
    down: Product
    qkv_bias: torch.Tensor | None
    head_norms: torch.Tensor | None


def _block(layer: Layer, arch: Architecture) -> _Block:
    return _Block(
        layer.attention_norm,
        linear_of(layer.qkv),
        linear_of(layer.attention_out),
        layer.feed_norm,
        linear_of(layer.gate_up),
        linear_of(layer.down),
        layer.qkv_bias,
        _head_norms(layer, arch),
    )


def _head_norms(layer: Layer, arch: Architecture) -> torch.Tensor | None:
    """The norm weights of each turned head, (heads, head): Qwen3's, of q's heads and of k's."""
    if layer.q_norm is None or layer.k_norm is None:
        return None
    norms = (layer.q_norm.expand(arch.heads, -1), layer.k_norm.expand(arch.kv_heads, -1))
    return torch.cat(norms)


class Llama:
    """A model and the keys and values of the requests that are in it.

    Args:
        weights: see `inference.weights`.
        slots: requests at once.
        context_tokens: room in each slot.
    """

    def __init__(self, weights: Weights, *, slots: int, context_tokens: int) -> None:
        self._arch = arch = weights.architecture
        self._embedding = weights.embedding
        self._blocks = [_block(layer, arch) for layer in weights.layers]
        self._dtype = activations(weights)
        self._final_norm = weights.final_norm
        self._head = head_of(weights)
        self.slots = KvSlots(arch, slots=slots, context_tokens=context_tokens)
        self._keys, self._values = self.slots.keys, self.slots.values
        self._filled = self.slots.filled
        rates = torch.tensor(arch.rope_rates)
        angles = torch.arange(context_tokens).float()[:, None] * rates
        self._turns = torch.polar(torch.ones_like(angles), angles)[:, None, :]

    def prefill(self, tokens: Sequence[int], *, slot: int, start: int) -> torch.Tensor:
        """Run a stretch of one prompt; return the logits after its last token, (vocabulary,).

        Args:
            tokens: the stretch.
            slot: the request's.
            start: how many tokens of this request went before.
        """
        count = len(tokens)
        stop = start + count
        x = self._embedding.rows(torch.tensor(tokens))
        turns = self._turns[start:stop]
        # The stretch sees all before it and itself up to each token.
        mask = torch.ones(count, stop, dtype=torch.bool).tril_(start) if start else None
        for i, block in enumerate(self._blocks):
            q, k, v = self._qkv(block, x, turns)
            self._keys[i, slot, :, start:stop] = k.transpose(0, 1)
            self._values[i, slot, :, start:stop] = v.transpose(0, 1)
            seen = F.scaled_dot_product_attention(
                q.transpose(0, 1)[None],
                self._keys[i, slot, :, :stop][None],
                self._values[i, slot, :, :stop][None],
                attn_mask=mask,
                is_causal=mask is None,
                enable_gqa=True,
            )
            x = self._rest(block, x, seen[0].transpose(0, 1).flatten(1))
        self._filled[slot] = stop
        return self._logits(x[-1:])[0]

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
        arch, rows = self._arch, len(tokens)
        ends = [position + 1 for position in positions]
        at = torch.tensor(positions)
        of = list(range(rows)) if slots is None else list(slots)
        of_rows = torch.tensor(of)
        x = self._embedding.rows(torch.tensor(tokens))
        turns = self._turns[at]
        # The query heads of one kv head stand as rows, so that no key is copied.
        groups = (rows, 1, arch.kv_heads, arch.heads // arch.kv_heads, arch.head)
        seen = torch.empty(groups)
        for i, block in enumerate(self._blocks):
            q, k, v = self._qkv(block, x, turns)
            keys, values = self._keys[i], self._values[i]
            keys.transpose(1, 2).index_put_((of_rows, at), k)
            values.transpose(1, 2).index_put_((of_rows, at), v)
            queries = q.view(groups)
            # Request by request: a shared call would pad to the longest, and the kernel's sums
            # would then depend on who else is there.
            for row, (slot, end) in enumerate(zip(of, ends, strict=True)):
                seen[row] = F.scaled_dot_product_attention(
                    queries[row],
                    keys[slot : slot + 1, :, :end],
                    values[slot : slot + 1, :, :end],
                )
            x = self._rest(block, x, seen.reshape(rows, arch.heads * arch.head))
        for slot, end in zip(of, ends, strict=True):
            self._filled[slot] = end
        return self._logits(x)

    def move(self, move: Move) -> None:
        """Copy the keys and values of a slot to another."""
        self.slots.move(move)

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (self._arch.width,), weight, self._arch.norm_epsilon)

    def _qkv(
        self, block: _Block, x: torch.Tensor, turns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys (both turned by their position) and values: (rows, heads, head)."""
        arch = self._arch
        normed = self._norm(x, block.attention_norm).to(self._dtype)
        stacked = block.qkv(normed).float()
        if block.qkv_bias is not None:
            stacked = stacked + block.qkv_bias
        rows = stacked.view(x.shape[0], -1, arch.head)
        turned = arch.heads + arch.kv_heads
        if block.head_norms is not None:
            rows = rows.clone()
            rows[:, :turned] = (
                F.rms_norm(rows[:, :turned], (arch.head,), None, arch.norm_epsilon)
                * block.head_norms
            )
        pairs = rows[:, :turned].reshape(x.shape[0], turned, arch.head // 2, 2)
        qk = torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(2)
        return qk[:, : arch.heads], qk[:, arch.heads :], rows[:, turned:]

    def _rest(self, block: _Block, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """What follows attention in a block, both residual sums included."""
        x = x + block.attention_out(seen.to(self._dtype))
        gate, up = block.gate_up(self._norm(x, block.feed_norm).to(self._dtype)).chunk(2, -1)
        return x + block.down(F.silu(gate) * up)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return self._head(self._norm(x, self._final_norm))
