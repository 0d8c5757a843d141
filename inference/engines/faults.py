"""What may happen to an engine's thread: no memory, an exception, a step that does not end."""

from __future__ import annotations

import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Watch", "log_fault", "out_of_memory"]

log = structlog.get_logger()

_NO_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""In what a `RuntimeError` of no type of its own says: PyTorch's on a CPU (c10/core/CPUAllocator),
CUDA's and Triton's when a kernel is loaded, cuBLAS's when it makes a handle."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: a device's, PyTorch's on a CPU, or Python's or numpy's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)


def log_fault(fault: BaseException) -> None:
    """Type and frames only: a message might quote a prompt."""
    frames = [
        f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(fault.__traceback__)
    ]
    log.error("inference.engine_fault", kind=type(fault).__name__, frames=frames)


class Watch:
    """Tells whether the step under way takes longer than any should. Read from any thread.

    Args:
        longest_s: that a step may take.
    """

    def __init__(self, longest_s: float) -> None:
        self.longest_s = longest_s
        self._began_s: float | None = None

    @property
    def hangs(self) -> bool:
        """Whether a step began too long ago and has not ended."""
        began_s = self._began_s
        return began_s is not None and time.monotonic() - began_s > self.longest_s

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time what the block does as one step."""
        self._began_s = time.monotonic()
        try:
            yield
        finally:
            self._began_s = None
