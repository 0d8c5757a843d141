"""The forward pass of a DeepSeek-V3-shaped model on a CPU, several requests at once.

Of each token a layer keeps one latent and one turned key for all heads: (layers, slots, context,
latent + turned) in fp32, instead of keys and values of each head. Queries are brought into the
latents' space, attention is over latents, and what it saw is brought to each head's values: nothing
that was kept is ever expanded. Not safe for threads: the engine's thread alone calls it.

Source: https://arxiv.org/abs/2405.04434, 2.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.engines.dense import DenseHead, steady
from inference.engines.mla.experts import fed, mixed
from inference.engines.mla.weights import Feed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.engines.mla.shape import MlaShape
    from inference.engines.mla.weights import MlaLayer, MlaWeights
    from inference.scheduler import Move

__all__ = ["Mla", "latent_bytes_per_token"]

_INNER_EPSILON = 1e-6
"""Of the norms of queries and latents, whatever `rms_norm_eps` says: so in transformers."""


def latent_bytes_per_token(shape: MlaShape) -> int:
    """What is kept of one token of one request, in fp32."""
    return shape.layers * (shape.latent + shape.turned) * torch.float32.itemsize


class Mla:
    """A model and the latents of the requests that are in it.

    Args:
        weights: see `inference.engines.mla.weights`.
        slots: requests at once.
        context_tokens: room in each slot.
    """

    def __init__(self, weights: MlaWeights, *, slots: int, context_tokens: int) -> None:
        self._weights, self._shape = weights, weights.architecture
        shape = self._shape
        # Not zeroed: nothing is read from a slot beyond what its own request has written.
        self._kept = torch.empty(shape.layers, slots, context_tokens, shape.latent + shape.turned)
        self._filled = [0] * slots
        angles = torch.arange(context_tokens).float()[:, None] * torch.tensor(shape.rope_rates)
        length = 1.0 if shape.yarn is None else shape.yarn.length
        self._turns = torch.polar(torch.full_like(angles, length), angles)
        self._head = DenseHead(weights.head)

    def prefill(self, tokens: Sequence[int], *, slot: int, start: int) -> torch.Tensor:
        """Run a stretch of one prompt; see `inference.engines.runner.Model`."""
        stop = start + len(tokens)
        x = self._run(tokens, range(start, stop), [(slot, 0, len(tokens), stop)])
        self._filled[slot] = stop
        return self._logits(x[-1:])[0]

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Run one token for each of the first slots; see `inference.engines.runner.Model`."""
        places = [(row, row, row + 1, position + 1) for row, position in enumerate(positions)]
        x = self._run(tokens, positions, places)
        self._filled[: len(tokens)] = [stop for *_, stop in places]
        return self._logits(x)

    def move(self, move: Move) -> None:
        """Copy the latents of a slot to another."""
        tokens = self._filled[move.source]
        self._kept[:, move.target, :tokens] = self._kept[:, move.source, :tokens]
        self._filled[move.target] = tokens

    def _run(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        places: Sequence[tuple[int, int, int, int]],
    ) -> torch.Tensor:
        """Run rows through all layers; places: (slot, first row, last row + 1, tokens then)."""
        shape = self._shape
        x = self._weights.embedding[torch.tensor(tokens)].float()
        turns = self._turns[torch.tensor(list(positions))]
        for number, layer in enumerate(self._weights.layers):
            normed = self._norm(x, layer.attention_norm)
            plain, turned = self._queries(layer, normed, turns)
            kept = self._to_keep(layer, normed, turns)
            for slot, first, last, stop in places:
                self._kept[number, slot, stop - (last - first) : stop] = kept[first:last]
            seen = torch.cat(
                [
                    self._seen(layer, plain[a:b], turned[a:b], self._kept[number, slot, :stop])
                    for slot, a, b, stop in places
                ]
            )
            out = layer.attention_out
            x = x + steady(seen.to(out.dtype), out).float()
            normed = self._norm(x, layer.feed_norm)
            feed = layer.feed
            x = x + (fed(feed, normed) if isinstance(feed, Feed) else mixed(shape, feed, normed))
        return x

    def _queries(
        self, layer: MlaLayer, normed: torch.Tensor, turns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries, (rows, heads, latent) in the latents' space and (rows, heads, turned)."""
        shape = self._shape
        if layer.query_down is not None and layer.query_norm is not None:
            low = steady(normed.to(layer.query_down.dtype), layer.query_down).float()
            normed = F.rms_norm(low, (shape.query_rank,), layer.query_norm, _INNER_EPSILON)
        rows = steady(normed.to(layer.query.dtype), layer.query).float()
        plain, turned = torch.split(
            rows.view(len(rows), shape.heads, -1), [shape.plain, shape.turned], -1
        )
        # Head by head, since a batched product would choose its sums by the number of rows.
        heads = [
            steady(plain[:, head], layer.key_up[head].T.contiguous()) for head in range(shape.heads)
        ]
        return torch.stack(heads, 1), _turn(turned, turns[:, None])

    def _to_keep(self, layer: MlaLayer, normed: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        """What is kept of each row: (rows, latent + turned)."""
        shape = self._shape
        rows = steady(normed.to(layer.latent_down.dtype), layer.latent_down).float()
        latent, key = torch.split(rows, [shape.latent, shape.turned], -1)
        latent = F.rms_norm(latent, (shape.latent,), layer.latent_norm, _INNER_EPSILON)
        return torch.cat([latent, _turn(key, turns)], -1)

    def _seen(
        self, layer: MlaLayer, plain: torch.Tensor, turned: torch.Tensor, kept: torch.Tensor
    ) -> torch.Tensor:
        """What one request's rows see of its latents: (rows, heads * value)."""
        shape, rows = self._shape, plain.shape[0]
        queries = torch.cat([plain, turned], -1).transpose(0, 1)
        scores = queries @ kept.T * shape.score_scale
        if rows > 1:
            unseen = torch.ones(rows, len(kept), dtype=torch.bool).triu_(len(kept) - rows + 1)
            scores = scores.masked_fill(unseen, -torch.inf)
        latents = scores.softmax(-1) @ kept[:, : shape.latent]
        values = latents @ layer.value_up.transpose(1, 2)
        return values.transpose(0, 1).flatten(1)

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (self._shape.width,), weight, self._shape.norm_epsilon)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return self._head(self._norm(x, self._weights.final_norm))


def _turn(rows: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn neighbours (2i, 2i + 1) by their position."""
    pairs = torch.view_as_complex(rows.reshape(*rows.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)
