"""Fewer weights: the smallest of each row become zero, and the rest learns to do without them.

Patterns:

    row    of each row of a matrix the same share is left out, to the weight
    2:4    of each four neighbouring inputs two are left out: what sparse tensor cores can skip

A pruned matrix has its old size in memory and in the file, and no kernel of ours skips the zeros:
pruning alone makes nothing faster or smaller here. What it shows is how much of a model is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.precision.faults import Fault, PrecisionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.precision.network import Network

__all__ = ["Pattern", "Pruning", "next_token_loss"]

Pattern = Literal["row", "2:4"]
_FOUR = 4


def kept_of(weight: torch.Tensor, *, sparsity: float, pattern: Pattern) -> torch.Tensor:
    """Which weights stay: bool, as `weight` (outputs, inputs).

    Raises:
        PrecisionError: SPARSITY, the pattern cannot have this share.
    """
    rows, inputs = weight.shape
    if not 0 <= sparsity < 1:
        raise PrecisionError(Fault.SPARSITY)
    if pattern == "2:4":
        if inputs % _FOUR or sparsity != 0.5:  # noqa: PLR2004 -- two of four
            raise PrecisionError(Fault.SPARSITY)
        blocks = weight.reshape(-1, _FOUR)
        return _largest(blocks, _FOUR // 2).view(rows, inputs)
    return _largest(weight, inputs - round(inputs * sparsity))


def _largest(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Mark the `count` largest of each row; of equals, the first."""
    order = rows.abs().sort(dim=1, descending=True, stable=True).indices
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, order[:, :count], value=True)


class Pruning:
    """The zeros of a network's matrices, and the means to keep them so.

    Args:
        network: pruned at once.
        sparsity: the share of each row that is left out.
        pattern: see the module.

    Raises:
        PrecisionError: SPARSITY.
    """

    def __init__(self, network: Network, *, sparsity: float, pattern: Pattern = "row") -> None:
        self._pairs = [
            (matrix.weight, kept_of(matrix.weight.detach(), sparsity=sparsity, pattern=pattern))
            for matrix in network.matrices.values()
        ]
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Set to zero what was left out, whatever a step of training made of it."""
        for weight, kept in self._pairs:
            weight.mul_(kept)

    @property
    def sparsity(self) -> float:
        """The share of the matrices' weights that is zero."""
        zeros = sum(int((weight == 0).sum()) for weight, _ in self._pairs)
        return zeros / sum(weight.numel() for weight, _ in self._pairs)


def next_token_loss(network: Network) -> Callable[[torch.Tensor], torch.Tensor]:
    """Cross entropy of the next token, nats: what recovery brings down."""

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        logits = network(ids[:, :-1]).float()
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    return loss_of
