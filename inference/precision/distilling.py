"""Fewer layers: a student that begins as some of its teacher's layers and learns to answer like it.

The loss is `share` times the divergence from the teacher's distribution (both at a temperature,
times its square, so that gradients keep their size) and the rest cross entropy of the next token.

Source: Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (arXiv 1503.02531);
layers kept at even distances as in DistilBERT (arXiv 1910.01108).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.precision.faults import Fault, PrecisionError
from inference.precision.network import network_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.precision.network import Network

__all__ = ["Distilling", "distilling_loss", "layers_kept", "student_of"]


@dataclass(frozen=True, slots=True)
class Distilling:
    """What a student listens to. share: of the teacher in the loss, 0..1."""

    temperature: float = 2.0
    share: float = 0.7

    def __post_init__(self) -> None:
        """Raise PrecisionError, NUMBER, if that is no mixture of two losses."""
        if not (0 < self.temperature < math.inf and 0 <= self.share <= 1):
            raise PrecisionError(Fault.NUMBER)


def layers_kept(layers: int, keep: int) -> tuple[int, ...]:
    """Choose `keep` of a teacher's layers, evenly, the first and the last among them.

    Raises:
        PrecisionError: NO_LAYERS.
    """
    if not 1 <= keep < layers:
        raise PrecisionError(Fault.NO_LAYERS)
    if keep == 1:
        return (0,)
    return tuple(round(i * (layers - 1) / (keep - 1)) for i in range(keep))


def student_of(teacher: Network, keep: int) -> Network:
    """Build a student out of copies of some of the teacher's layers and all that is around them.

    Raises:
        PrecisionError: NO_LAYERS.
    """
    chosen = {old: new for new, old in enumerate(layers_kept(teacher.arch.layers, keep))}
    state: dict[str, torch.Tensor] = {}
    for name, tensor in teacher.state_dict().items():
        head, _, rest = name.partition("model.layers.")
        if not head and rest:
            number, _, part = rest.partition(".")
            if int(number) not in chosen:
                continue
            name = f"model.layers.{chosen[int(number)]}.{part}"  # noqa: PLW2901 -- the student's
        state[name] = tensor.detach().clone()
    return network_of(replace(teacher.arch, layers=keep), state)


def distilling_loss(
    student: Network, teacher: Network, settings: Distilling
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the loss of a batch of stretches, nats."""

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = teacher(ids[:, :-1]).float().flatten(0, 1)
        given = student(ids[:, :-1]).float().flatten(0, 1)
        heat = settings.temperature
        divergence = F.kl_div(
            F.log_softmax(given / heat, -1),
            F.log_softmax(wanted / heat, -1),
            log_target=True,
            reduction="batchmean",
        )
        truth = F.cross_entropy(given, ids[:, 1:].flatten())
        return settings.share * heat**2 * divergence + (1 - settings.share) * truth

    return loss_of
