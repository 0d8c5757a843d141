"""How near an exported step comes to PyTorch in fp32, on text, token by token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.precision.faults import Fault, PrecisionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.precision.network import Network
    from inference.tensorrt.model import StepModel

__all__ = ["Accuracy", "accuracy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Of all positions: the largest difference of a logit, the share of equal likeliest tokens.

    perplexity: of the text, for the step; torch_perplexity: for PyTorch.
    """

    positions: int
    difference_max: float
    agreement: float
    perplexity: float
    torch_perplexity: float


@torch.inference_mode()
def accuracy(network: Network, step: StepModel, texts: Sequence[Sequence[int]]) -> Accuracy:
    """Run texts (token ids; each within a slot of the step) through both.

    Args:
        network: the reference, fp32.
        step: the exported model; its first slot is used.
        texts: at least one, of two tokens or more.

    Raises:
        PrecisionError: TOO_LITTLE_TEXT.
    """
    if not texts:
        raise PrecisionError(Fault.TOO_LITTLE_TEXT)
    positions, agreed, difference = 0, 0, 0.0
    losses = [0.0, 0.0]
    for text in texts:
        expected = network(torch.tensor([list(text)]))[0].float()
        found = step.logits(text, slot=0, start=0, wanted=range(len(text)))
        positions += len(text)
        agreed += int((expected.argmax(-1) == found.argmax(-1)).sum())
        difference = max(difference, float((expected - found).abs().max()))
        following = torch.tensor(list(text[1:]))
        for side, logits in enumerate((found, expected)):
            losses[side] += float(F.cross_entropy(logits[:-1], following, reduction="sum"))
    told = positions - len(texts)
    return Accuracy(
        positions=positions,
        difference_max=difference,
        agreement=agreed / positions,
        perplexity=math.exp(losses[0] / told),
        torch_perplexity=math.exp(losses[1] / told),
    )
