"""What a variant costs in accuracy, and what it saves.

Each stretch of held-out text is read by the original, in fp32, and by the variant, from its start:

    perplexity   exp of the mean cross entropy of the next token
    agreement    share of positions whose likeliest next token is the original's
    divergence   mean of KL(original, variant) over positions, nats

Speed is of this network with torchao's kernels, not of an engine; on a GPU a decoding step is one
CUDA graph, else Python's own time would be all there is to see.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.engines.faults import out_of_memory
from inference.precision.faults import Fault, PrecisionError
from inference.precision.network import Cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.precision.network import Network

__all__ = ["Accuracy", "Speed", "accuracy_of", "bytes_in_memory", "speed_of"]

_CONTEXT = 256
_WARM_STEPS = 3
_PREFILLS = 5
_NO_SINGLE_ROW = "greater than 16"
"""In what PyTorch's int8 product on a GPU says of fewer rows."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """See the module. positions: how many were compared."""

    perplexity: float
    agreement: float
    divergence: float
    positions: int


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second: of prompts in batches, and of one answer as it is made.

    decode_per_s: 0 where a product cannot do a single row (PyTorch's int8 on a GPU).
    how: what ran: blocks compiled or not, a decoding step as one CUDA graph or not.
    peak_bytes: what PyTorch held of a GPU's memory at most while a prompt of 256 tokens was read
        and one answer made, weights included; 0 on a CPU.
    """

    prefill_per_s: float
    decode_per_s: float
    how: str
    peak_bytes: int = 0


@torch.no_grad()
def accuracy_of(
    network: Network,
    original: Network,
    text: torch.Tensor,
    *,
    batch: int,
    told: Callable[[int], None] = lambda done: None,  # noqa: ARG005 -- nobody listens
) -> Accuracy:
    """Compare a variant with its original.

    Args:
        network: the variant.
        original: fp32, on the same device.
        text: held-out stretches, (stretches, tokens).
        batch: stretches read at once.
        told: hears how many stretches are done.

    Raises:
        PrecisionError: TOO_LITTLE_TEXT, NOT_FINITE, OUT_OF_MEMORY.
    """
    if not len(text) or text.shape[1] < 2:  # noqa: PLR2004 -- a token, and the one that follows
        raise PrecisionError(Fault.TOO_LITTLE_TEXT)
    device = next(original.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64)
    for at in range(0, len(text), batch):
        ids = text[at : at + batch].to(device)
        try:
            sums += _compared(network(ids[:, :-1]), original(ids[:, :-1]), ids[:, 1:])
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise PrecisionError(Fault.OUT_OF_MEMORY) from error
            raise
        told(min(at + batch, len(text)))
    positions = text.shape[0] * (text.shape[1] - 1)
    loss, same, divergence = (float(value) / positions for value in sums)
    if not math.isfinite(loss + divergence):
        raise PrecisionError(Fault.NOT_FINITE)
    return Accuracy(math.exp(min(loss, 700.0)), same, divergence, positions)


def _compared(given: torch.Tensor, wanted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Sums over all positions of loss, agreement and divergence: (3,)."""
    sums = torch.zeros(3, dtype=torch.float64)
    # Stretch by stretch: a batch of logits in fp32 several times over would fill a small card.
    for ours, theirs, next_ids in zip(given, wanted, truth, strict=True):
        log_ours, log_theirs = (F.log_softmax(x.float(), -1) for x in (ours, theirs))
        loss = F.nll_loss(log_ours, next_ids, reduction="sum")
        same = (ours.argmax(-1) == theirs.argmax(-1)).sum()
        apart = F.kl_div(log_ours, log_theirs, log_target=True, reduction="sum")
        sums += torch.stack([loss, same.float(), apart]).double().cpu()
    return sums


def bytes_in_memory(network: Network) -> int:
    """What the weights take as torchao holds them here; an engine may pack them closer."""
    return sum(_bytes(parameter.data) for parameter in network.parameters())


def _bytes(tensor: torch.Tensor) -> int:
    if type(tensor) is torch.Tensor or not hasattr(tensor, "tensor_data_names"):
        return tensor.numel() * tensor.element_size()
    parts = [getattr(tensor, name) for name in tensor.tensor_data_names]
    return sum(part.numel() * part.element_size() for part in parts if part is not None)


@torch.no_grad()
def speed_of(
    network: Network, text: torch.Tensor, *, batch: int, steps: int, compiled: bool = False
) -> Speed:
    """Time a network on text: medians.

    Args:
        network: the variant; its blocks stay compiled.
        text: stretches, (stretches, tokens).
        batch: stretches of a prefill.
        steps: decoding steps timed.
        compiled: whether blocks are compiled first (half a minute), or torchao's products and
            all between them run one by one.

    Raises:
        PrecisionError: OUT_OF_MEMORY.
        RuntimeError: what the compiler or a product says, but of a single row.
    """
    try:
        return _speed(network, text, batch=batch, steps=steps, compiled=compiled)
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise PrecisionError(Fault.OUT_OF_MEMORY) from error
        raise


def _speed(
    network: Network, text: torch.Tensor, *, batch: int, steps: int, compiled: bool
) -> Speed:
    device = next(network.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step = _decoding(network, text[0].to(device), steps)
    if compiled:
        for layer in network.model.layers:
            layer.compile(dynamic=False)
    decode_per_s, ran = _decoded(step, steps, device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    ids = text[:batch].to(device)
    reading = [_timed(lambda: network(ids), device) for _ in range(_WARM_STEPS + _PREFILLS)]
    prefill_per_s = ids.numel() / statistics.median(reading[_WARM_STEPS:])
    how = f"{'compiled' if compiled else 'as torchao has it'}{ran}"
    return Speed(prefill_per_s, decode_per_s, how, peak)


def _decoded(step: Callable[[], None], steps: int, device: torch.device) -> tuple[float, str]:
    """Time single steps; return how many a second, and what to say of how they ran."""
    plain = step
    try:
        if device.type == "cuda":
            step = _captured(step)
        times = [_timed(step, device) for _ in range(_WARM_STEPS + steps)]
    except RuntimeError as error:
        if out_of_memory(error) or _NO_SINGLE_ROW not in str(error):
            raise
        return 0.0, ", no single row"
    return 1 / statistics.median(times[_WARM_STEPS:]), ", graph" if step != plain else ""


def _decoding(network: Network, ids: torch.Tensor, steps: int) -> Callable[[], None]:
    """Read a prompt; return what makes one token more, and the next one at the next call."""
    device, prompt = ids.device, ids[:_CONTEXT]
    room = len(prompt) + steps + 2 * _WARM_STEPS + 2
    dtype = network.model.norm.weight.dtype
    cache = Cache.empty(network.arch, batch=1, room=room, device=device, dtype=dtype)
    network(prompt[None], cache=cache)
    token = ids[-1].reshape(1, 1).clone()
    position = torch.tensor([len(prompt)], device=device)

    def step() -> None:
        logits = network(token, cache=cache, positions=position)
        token.copy_(logits[:, -1].argmax(-1, keepdim=True))
        position.add_(1)

    return step


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """Make one CUDA graph of a step, so that launching its kernels from Python costs nothing.

    Some products ask the host on the way, which no graph can hold: then the step as it was.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call] # as torch has it
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_STEPS):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError:
        return step
    return graph.replay


def _timed(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
