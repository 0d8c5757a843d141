"""Variants made from a source, from its reading to the folder that holds the result.

Each of these takes a target that is not there yet and leaves there a whole variant or nothing. What
takes long is told to `heard`. Training keeps its state beside the target, as `.TARGET.training`,
and goes on from there when it is asked for the same again; disk: 12 bytes a weight for that state,
twice while it is renewed, and 2 for the variant.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from inference.precision.distilling import Distilling, distilling_loss, student_of
from inference.precision.faults import Fault, PrecisionError
from inference.precision.network import network_of
from inference.precision.pruning import Pattern, Pruning, next_token_loss
from inference.precision.schemes import GROUP, Precision, quantise
from inference.precision.training import Training, train
from inference.precision.variant import write_variant

if TYPE_CHECKING:
    from pathlib import Path

    from inference.precision.network import Network
    from inference.precision.source import Source

__all__ = ["Heard", "Making", "Progress", "device_of", "distil", "prune", "quantised_variant"]

_CHECKPOINT_BYTES, _VARIANT_BYTES = 24, 4
"""A weight, at most, with a checkpoint being renewed; with a variant of fp32."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is."""

    stage: str
    done: int
    total: int
    loss: float | None = None


Heard = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """Where a variant goes and what is recorded of it.

    base: digest of the model it is made from, hexadecimal.
    """

    target: Path
    base: str
    device: torch.device
    heard: Heard = lambda progress: None  # noqa: ARG005 -- nobody listens


def device_of(name: str) -> torch.device:
    """Find a device: `cpu`, `cuda`, or `auto` for a GPU if there is one.

    Raises:
        PrecisionError: NO_DEVICE.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise PrecisionError(Fault.NO_DEVICE)
    return torch.device(name)


def quantised_variant(
    source: Source, making: Making, *, precision: Precision, group: int = GROUP
) -> None:
    """Make a variant of another precision.

    Raises:
        PrecisionError: EXISTS, NEEDS_GPU, GROUPS, ALREADY_QUANTISED, NO_LIBRARY, DISK_FULL.
    """
    _must_fit(source, making, each=_VARIANT_BYTES)
    network = quantise(source.network().to(making.device), precision, group=group)
    about = {"precision": precision.value, "group": group}
    _write(network, source, making, precision, about)


def prune(
    source: Source,
    text: torch.Tensor,
    making: Making,
    training: Training,
    *,
    sparsity: float,
    pattern: Pattern = "row",
) -> Pruning:
    """Make a variant with zeros for the smallest weights, trained to do without them.

    Args:
        source: what is pruned.
        text: stretches to recover on.
        making: where to.
        training: how long; of 0 steps, none.
        sparsity: the share of each row that is left out.
        pattern: see `pruning`.

    Raises:
        PrecisionError: SPARSITY, and as `train` and `quantised_variant` raise.
    """
    _must_fit(source, making, each=_CHECKPOINT_BYTES)
    network = _learning(source, making.device)
    pruning = Pruning(network, sparsity=sparsity, pattern=pattern)
    about = {"sparsity": sparsity, "pattern": pattern}
    _train(
        network, text, making, training,
        about=about, loss_of=next_token_loss(network), after_step=pruning.apply,
    )  # fmt: skip
    _write(
        network.to(torch.bfloat16),
        source,
        making,
        Precision.BF16,
        about | {"steps": training.steps},
    )
    return pruning


def distil(
    source: Source,
    text: torch.Tensor,
    making: Making,
    training: Training,
    *,
    keep: int,
    distilling: Distilling | None = None,
) -> None:
    """Make a variant of fewer layers that learned from all of them.

    Args:
        source: the teacher.
        text: stretches to learn from.
        making: where to.
        training: how long.
        keep: layers of the student.
        distilling: what the student listens to.

    Raises:
        PrecisionError: NO_LAYERS, and as `train` and `quantised_variant` raise.
    """
    _must_fit(source, making, each=_CHECKPOINT_BYTES)
    teacher = _learning(source, making.device)
    student = student_of(teacher, keep)
    if making.device.type == "cuda":
        teacher.to(torch.bfloat16)
    chosen = distilling or Distilling()
    about = {"layers": keep, "temperature": chosen.temperature, "share": chosen.share}
    loss_of = distilling_loss(student, teacher, chosen)
    _train(student, text, making, training, about=about, loss_of=loss_of)
    _write(
        student.to(torch.bfloat16),
        source,
        making,
        Precision.BF16,
        about | {"steps": training.steps},
    )


def _learning(source: Source, device: torch.device) -> Network:
    """Take the network in fp32, its weights nobody else's."""
    if source.precision.plain is None:
        raise PrecisionError(Fault.ALREADY_QUANTISED)
    state = {
        name: tensor.to(device, torch.float32, copy=True) for name, tensor in source.state.items()
    }
    return network_of(source.architecture, state)


def _train(
    network: Network,
    text: torch.Tensor,
    making: Making,
    training: Training,
    *,
    about: dict[str, Any],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    after_step: Callable[[], None] = lambda: None,
) -> None:
    def told(step: int, loss: float) -> None:
        making.heard(Progress("training", step, training.steps, loss))

    read = hashlib.sha256(text.numpy().tobytes()).hexdigest()
    told_text = {"base": making.base, "text": read, **about}
    train(
        network,
        text,
        loss_of,
        training,
        about=json.dumps(told_text, sort_keys=True),
        checkpoint=making.target.with_name(f".{making.target.name}.training"),
        after_step=after_step,
        told=told,
    )


def _write(
    network: Network, source: Source, making: Making, precision: Precision, about: dict[str, Any]
) -> None:
    making.heard(Progress("writing", 0, 1))
    told = {"base": making.base, "made": json.dumps(about, sort_keys=True)}
    write_variant(making.target, network, source, precision=precision, about=told)
    making.heard(Progress("writing", 1, 1))


def _must_fit(source: Source, making: Making, *, each: int) -> None:
    """Refuse at once what could only fail after hours.

    Raises:
        PrecisionError: EXISTS, DISK_FULL.
    """
    if making.target.exists():
        raise PrecisionError(Fault.EXISTS)
    making.target.parent.mkdir(parents=True, exist_ok=True)
    weights = sum(tensor.numel() for tensor in source.state.values())
    if shutil.disk_usage(making.target.parent).free < each * weights:
        raise PrecisionError(Fault.DISK_FULL)
