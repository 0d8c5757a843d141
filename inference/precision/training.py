"""The loop that recovery after pruning and distillation share.

AdamW on fp32 weights, a linear rise and a cosine fall of the learning rate, gradients clipped. On a
GPU products are bf16 (autocast). All that is random is the order of the text, and that follows from
the seed: a run that was interrupted and goes on ends, on one machine, with the very weights of one
that was not.

A checkpoint is one safetensors file, renamed into place: weights, both moments of each, and in its
header the step and the settings. Memory: 16 bytes a weight, and the activations of a batch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import SafetensorError, safe_open

from inference.engines.faults import out_of_memory
from inference.precision.corpus import order_of
from inference.precision.faults import Fault, PrecisionError, disk_faults
from inference.precision.files import write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from inference.precision.network import Network

__all__ = ["Told", "Training", "train"]

_STEP, _SETTINGS = "sealgate.step", "sealgate.settings"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_SEED_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How long and how fast to train.

    batch: stretches a step. rate: the highest learning rate. rise_steps: until it is reached.
    norm: gradients longer than this are shortened to it. keep_every: steps between checkpoints.
    """

    steps: int
    batch: int = 8
    rate: float = 1e-4
    rise_steps: int = 20
    decay: float = 0.01
    norm: float = 1.0
    seed: int = 0
    keep_every: int = 200

    def __post_init__(self) -> None:
        """Raise PrecisionError, NUMBER, if nobody can train so; no steps at all are some."""
        sound = self.steps >= 0 and self.batch >= 1 and 0 < self.rate < math.inf
        if not (sound and abs(self.seed) <= _SEED_MAX):
            raise PrecisionError(Fault.NUMBER)

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.rise_steps:
            return self.rate * (step + 1) / self.rise_steps
        done = (step - self.rise_steps) / max(self.steps - self.rise_steps, 1)
        return self.rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


class Told(Protocol):
    """Hears how far a run is."""

    def __call__(self, step: int, loss: float) -> None:
        """Take the number of steps done and the loss of the last."""


class _Run:
    """A network that learns, and where it stands."""

    def __init__(self, network: Network, training: Training, about: str) -> None:
        self.network, self.training, self.step = network, training, 0
        self.named = dict(network.named_parameters())
        fused = next(iter(self.named.values())).device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.named.values(),
            lr=training.rate,
            betas=(0.9, 0.95),
            weight_decay=training.decay,
            fused=fused,
        )
        settings = json.dumps(asdict(training) | {"about": about}, sort_keys=True)
        self.digest = hashlib.sha256(settings.encode()).hexdigest()

    def keep(self, path: Path) -> None:
        tensors: dict[str, torch.Tensor] = {}
        for name, weight in self.named.items():
            state = self.optimizer.state[weight]
            tensors |= {name: weight.data} | {f"{name}#{m}": state[m] for m in _MOMENTS}
        filling = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with disk_faults():
                filling.parent.mkdir(parents=True, exist_ok=True)
                write_tensors(filling, tensors, {_STEP: str(self.step), _SETTINGS: self.digest})
                filling.rename(path)
        finally:
            filling.unlink(missing_ok=True)

    def resume(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get(_SETTINGS) != self.digest:
                    raise PrecisionError(Fault.OTHER_RUN)
                self.step = int(header[_STEP])
                for name, weight in self.named.items():
                    weight.data.copy_(file.get_tensor(name))
                    moments = {
                        m: file.get_tensor(f"{name}#{m}").to(weight.device) for m in _MOMENTS
                    }
                    count = torch.tensor(float(self.step), device=weight.device)
                    self.optimizer.state[weight] = moments | {"step": count}
        except (SafetensorError, RuntimeError) as error:
            raise PrecisionError(Fault.DAMAGED) from error


def train(
    network: Network,
    text: torch.Tensor,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    training: Training,
    *,
    about: str,
    checkpoint: Path | None = None,
    after_step: Callable[[], None] = lambda: None,
    told: Told = lambda step, loss: None,  # noqa: ARG005 -- nobody listens
) -> None:
    """Train in place; the network's parameters are fp32 on one device.

    Args:
        network: what learns.
        text: stretches to learn from, (stretches, tokens).
        loss_of: the loss of a batch of them.
        training: how long and how fast.
        about: what else the run depends on (model, text, sparsity); another one is not resumed.
        checkpoint: where the state is kept and, if it is there, resumed from; removed at the end.
        after_step: put right what the step must not change.
        told: hears of each step.

    Raises:
        PrecisionError: DIVERGED, OTHER_RUN, DISK_FULL, OUT_OF_MEMORY.
        KeyboardInterrupt: after the step under way, and its state is kept first.
    """
    network.requires_grad_(requires_grad=True).train()
    run = _Run(network, training, about)
    try:
        if checkpoint is not None and checkpoint.exists():
            run.resume(checkpoint)
            after_step()
        _through(run, text, loss_of, checkpoint, after_step=after_step, told=told)
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise PrecisionError(Fault.OUT_OF_MEMORY) from error
        raise
    finally:
        network.requires_grad_(requires_grad=False).eval()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)


def _through(
    run: _Run,
    text: torch.Tensor,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    checkpoint: Path | None,
    *,
    after_step: Callable[[], None],
    told: Told,
) -> None:
    """Take the steps that are left; interrupted, keep the state of the last whole one."""
    training = run.training
    order = islice(order_of(len(text), batch=training.batch, seed=training.seed), run.step, None)
    with _interrupts() as asked:
        while run.step < training.steps:
            loss = _step(run, text[next(order)], loss_of)
            after_step()
            run.step += 1
            told(run.step, loss)
            if checkpoint is not None and (asked or run.step % training.keep_every == 0):
                run.keep(checkpoint)
            if asked:
                raise KeyboardInterrupt


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Let an interrupt wait for the end of a step; a second one does not wait.

    Yields a list that is no longer empty once it was asked for. Python hears signals in its main
    thread alone; in another, nothing changes.
    """
    asked: list[int] = []

    def heard(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGINT, heard)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _step(run: _Run, ids: torch.Tensor, loss_of: Callable[[torch.Tensor], torch.Tensor]) -> float:
    device = next(iter(run.named.values())).device
    for group in run.optimizer.param_groups:
        group["lr"] = run.training.rate_at(run.step)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        loss = loss_of(ids.to(device))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise PrecisionError(Fault.DIVERGED)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call] # as torch has it
    torch.nn.utils.clip_grad_norm_(run.named.values(), run.training.norm)
    run.optimizer.step()
    return value
