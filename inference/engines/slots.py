"""Keys and values of requests on a CPU: one room of fixed size for each.

The tensors are not zeroed, so that pages take no memory until a request reaches them, and `forget`
gives the pages of a slot back. So more slots may be laid out than memory would hold when full: the
scheduler sees to it that the tokens promised to requests fit.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING

import structlog
import torch

if TYPE_CHECKING:
    from inference.architecture import Architecture
    from inference.scheduler import Move

__all__ = ["KvSlots", "bytes_per_token", "forget_pages"]

log = structlog.get_logger()

_LIBC = ctypes.CDLL(None, use_errno=True)


class KvSlots:
    """Both caches of all slots.

    keys, values: (layers, slots, kv heads, context, head), of `kind`; nothing may be read from a
    slot beyond what its own request has written. filled: tokens written, of each slot.
    """

    def __init__(
        self,
        arch: Architecture,
        *,
        slots: int,
        context_tokens: int,
        kind: torch.dtype = torch.float32,
    ) -> None:
        shape = (arch.layers, slots, arch.kv_heads, context_tokens, arch.head)
        self.keys, self.values = torch.empty(shape, dtype=kind), torch.empty(shape, dtype=kind)
        self.filled = [0] * slots
        self.bytes_per_token = bytes_per_token(arch, kind.itemsize)

    def move(self, move: Move) -> None:
        """Copy what a slot holds to another."""
        tokens = self.filled[move.source]
        for cache in (self.keys, self.values):
            cache[:, move.target, :, :tokens] = cache[:, move.source, :, :tokens]
        self.filled[move.target] = tokens

    def kept(self, slot: int, start: int, stop: int) -> torch.Tensor:
        """Return a copy of some tokens' keys and values: (2, layers, kv heads, tokens, head)."""
        here = (slice(None), slot, slice(None), slice(start, stop))
        return torch.stack((self.keys[here], self.values[here]))

    def restore(self, slot: int, start: int, kept: torch.Tensor) -> None:
        """Put a copy at the same place of a slot: as if its tokens had been run there."""
        stop = start + kept.shape[3]
        for cache, copy in zip((self.keys, self.values), kept, strict=True):
            cache[:, slot, :, start:stop] = copy
        self.filled[slot] = stop

    def forget(self, slot: int) -> None:
        """Give the memory of a slot back: what it holds is over."""
        for cache in (self.keys, self.values):
            for layer in cache[:, slot]:
                forget_pages(layer)
        self.filled[slot] = 0


def bytes_per_token(arch: Architecture, element_bytes: int = torch.float32.itemsize) -> int:
    """Keys and values of one token of one request."""
    return 2 * arch.layers * arch.kv_heads * arch.head * element_bytes


def forget_pages(tensor: torch.Tensor) -> None:
    """Give the pages that lie wholly in a contiguous tensor back to the kernel (madvise(2)).

    What they held is undefined; they take no memory until they are written again. Where the
    kernel does not oblige, the memory stays ours, no more.
    """
    page = mmap.PAGESIZE
    begin = -(-tensor.data_ptr() // page) * page
    end = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // page * page
    if end > begin:
        _LIBC.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
