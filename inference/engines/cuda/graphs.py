"""Capturing work as a CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["captured"]


def captured(work: Callable[[], None], *, pool: Any = None) -> torch.cuda.CUDAGraph:  # noqa: ANN401 -- torch's handle
    """Run `work` once on the side, so that kernels are compiled, then capture it.

    Args:
        work: launches only: it neither reads the device nor allocates what must outlive it.
        pool: memory that graphs share which never run at once; `torch.cuda.graph_pool_handle`.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch leaves it untyped
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        work()
    return graph
