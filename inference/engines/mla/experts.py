"""Which experts a token goes to, and what they make of it.

A token's score for an expert is a sigmoid of its own. Experts are in groups; a group is judged by
its two best scores, the best groups are open, and of the experts in those the best are chosen. A
bias, learnt to spread the load, counts in these choices and not in the shares.

Each token's sums are made in the order of the experts' numbers, over products that are the same in
any company: so are its bits.

Source: https://arxiv.org/abs/2412.19437, 2.1.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.engines.dense import steady

if TYPE_CHECKING:
    from inference.engines.mla.shape import MlaShape
    from inference.engines.mla.weights import Experts, Feed

__all__ = ["fed", "mixed", "routed"]

_TINY = 1e-20
_JUDGED_BY = 2


def fed(feed: Feed, x: torch.Tensor) -> torch.Tensor:
    """Apply a feed-forward: (rows, width) to the same."""
    gate, up = steady(x.to(feed.gate_up.dtype), feed.gate_up).chunk(2, -1)
    return steady(F.silu(gate) * up, feed.down).float()


def routed(shape: MlaShape, experts: Experts, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose experts for each row: their numbers and their shares, both (rows, chosen)."""
    scores = steady(x, experts.router).sigmoid()
    judged = (scores + experts.bias).view(len(x), shape.groups, -1)
    best = judged.topk(_JUDGED_BY, dim=-1).values.sum(-1)
    closed = torch.ones_like(best, dtype=torch.bool)
    closed.scatter_(1, best.topk(shape.groups_chosen, dim=-1).indices, value=False)
    judged = judged.masked_fill(closed[..., None], -torch.inf).flatten(1)
    chosen = judged.topk(shape.chosen, dim=-1).indices
    shares = scores.gather(1, chosen)
    if shape.shares_sum_to_one:
        shares = shares / (shares.sum(-1, keepdim=True) + _TINY)
    return chosen, shares * shape.routed_scale


def mixed(shape: MlaShape, experts: Experts, x: torch.Tensor) -> torch.Tensor:
    """Apply the shared expert and the chosen ones: fp32 (rows, width) to the same."""
    chosen, shares = routed(shape, experts, x)
    out = torch.zeros_like(x)
    for number in sorted(set(chosen.flatten().tolist())):
        rows, places = (chosen == number).nonzero(as_tuple=True)
        out[rows] += fed(experts.routed[number], x[rows]) * shares[rows, places, None]
    return out + fed(experts.shared, x)
