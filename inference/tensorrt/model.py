"""An exported model behind the interface of our own forward pass: slots, prefill, decode.

Keys and values of all requests lie where the torch engine keeps them (`inference.engines.slots`),
on the host; a step is given the part that its rows have filled, padded to the longest, and its new
keys and values are put in their places. `inference.engines.runner.CpuRunner` does the rest:
scheduling, sampling and text are those of the torch engine.

Rows that share a step share its padding, and products of several rows sum in another order than
those of one: unlike the torch engine's, a greedy answer may differ in company where two tokens are
all but equally likely.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import torch

from inference.engines.slots import KvSlots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.architecture import Architecture
    from inference.scheduler import Move
    from inference.tensorrt.session import Session

__all__ = ["StepModel"]


class StepModel:
    """Implements `inference.engines.runner.Model`.

    Args:
        session: of a graph with this architecture.
        slots: requests at once.
        context_tokens: room in each slot; at most the positions that the graph was exported with.
    """

    def __init__(
        self, session: Session, arch: Architecture, *, slots: int, context_tokens: int
    ) -> None:
        self._session = session
        self.slots = KvSlots(arch, slots=slots, context_tokens=context_tokens)

    def prefill(self, tokens: Sequence[int], *, slot: int, start: int) -> torch.Tensor:
        """Run a stretch of one prompt; return the logits after its last token, (vocabulary,)."""
        return self.logits(tokens, slot=slot, start=start, wanted=[len(tokens) - 1])[0]

    def logits(
        self, tokens: Sequence[int], *, slot: int, start: int, wanted: Sequence[int]
    ) -> torch.Tensor:
        """Run a stretch of one prompt; return the logits after some of its tokens.

        Shape (wanted, vocabulary). `wanted` are indices into `tokens`.
        """
        return self._step([list(tokens)], [slot], [start], wanted)[0]

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], slots: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Run one token for each row; return logits, (rows, vocabulary).

        Args:
            tokens: the i-th belongs to slot i, or to slots[i].
            positions: how many tokens stand before each.
            slots: of each row. Several rows of one slot stand side by side, one position apart.
        """
        of = list(range(len(tokens)) if slots is None else slots)
        grouped = [list(rows) for _, rows in groupby(range(len(tokens)), of.__getitem__)]
        stretches = [[tokens[row] for row in rows] for rows in grouped]
        longest = max(map(len, stretches))
        made = self._step(
            stretches,
            [of[rows[0]] for rows in grouped],
            [positions[rows[0]] for rows in grouped],
            range(longest),
        )
        return torch.cat([made[i, : len(rows)] for i, rows in enumerate(grouped)])

    def move(self, move: Move) -> None:
        """Copy the keys and values of a slot to another."""
        self.slots.move(move)

    def _step(
        self,
        stretches: Sequence[Sequence[int]],
        slots: Sequence[int],
        starts: Sequence[int],
        wanted: Sequence[int],
    ) -> torch.Tensor:
        """Run stretches of tokens, each in a slot of its own, the shorter ones padded.

        Padding stands behind a stretch, so that nothing of it is seen by what counts.
        """
        new, past = max(map(len, stretches)), max(1, *starts)
        device = self._session.device
        padded = [[*stretch, *[0] * (new - len(stretch))] for stretch in stretches]
        given = {
            "tokens": torch.tensor(padded, device=device),
            "past_tokens": torch.tensor(starts, device=device),
            "past_keys": self._past(self.slots.keys, slots, starts, past),
            "past_values": self._past(self.slots.values, slots, starts, past),
            "wanted": torch.tensor(list(wanted), device=device),
        }
        made = self._session.run(given)
        self._keep(made, slots, starts, [len(stretch) for stretch in stretches])
        return made["logits"].cpu()

    def _past(
        self, cache: torch.Tensor, slots: Sequence[int], starts: Sequence[int], past: int
    ) -> torch.Tensor:
        layers, _, kv_heads, _, head = cache.shape
        part = torch.empty(layers, len(slots), kv_heads, past, head)
        for row, (slot, filled) in enumerate(zip(slots, starts, strict=True)):
            part[:, row, :, :filled] = cache[:, slot, :, :filled]
            # Unseen, but multiplied by zero: what was never written may be a NaN.
            part[:, row, :, filled:] = 0
        return part.to(self._session.device, self._session.dtype)

    def _keep(
        self,
        made: dict[str, torch.Tensor],
        slots: Sequence[int],
        starts: Sequence[int],
        counts: Sequence[int],
    ) -> None:
        both = ((self.slots.keys, made["new_keys"]), (self.slots.values, made["new_values"]))
        for row, (slot, start, count) in enumerate(zip(slots, starts, counts, strict=True)):
            for cache, new in both:
                cache[:, slot, :, start : start + count] = new[:, row, :, :count]
            self.slots.filled[slot] = start + count
