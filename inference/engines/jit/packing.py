"""Matrices in the order in which a step reads them: 16 outputs at a time, block by block.

A tile is 16 outputs. It is one stream of blocks, 32 inputs each, in which byte 4 i + t of a vector
of 64 belongs to output i:

    4 bits, 320 bytes   4 x 64: input 4 j + t in the low nibble, 16 + 4 j + t in the high one;
                        16 d (fp16), 16 m (fp16)
    8 bits, 544 bytes   8 x 64: input 4 j + t, code + 128; 16 d (fp16)

d and m are exact: files store them as fp16.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from inference.weights import GROUP

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from inference.weights import Codes4, Codes8

__all__ = ["BLOCK4_BYTES", "BLOCK8_BYTES", "TILE", "Arena", "packed4", "packed8"]

TILE = 16
_QUAD = 4
_QUADS = GROUP // _QUAD
_VECTOR = TILE * _QUAD
BLOCK4_BYTES = GROUP * TILE // 2 + 2 * 2 * TILE
BLOCK8_BYTES = GROUP * TILE + 2 * TILE
_UNSIGNED = np.uint8(128)


class Arena:
    """Memory for packed matrices in one piece, in huge pages if the kernel has them.

    A step reads all of it: with small pages it would ask for a translation every 4 kB.

    Args:
        size: of all that will be kept, in bytes.
    """

    def __init__(self, size: int) -> None:
        # Private: of shared memory few kernels make huge pages.
        self._map = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel without them
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._filled = 0

    def keep(self, packed: NDArray[np.uint8]) -> int:
        """Copy a matrix; return its address, which holds for as long as the arena."""
        start, self._filled = self._filled, self._filled + packed.size
        self._bytes[start : self._filled] = packed.ravel()
        return self._bytes.ctypes.data + start


def packed4(matrix: Codes4) -> NDArray[np.uint8]:
    """Pack a matrix of whole tiles: (tiles, blocks, BLOCK4_BYTES)."""
    quads = _quads(matrix.codes)
    low, high = quads[..., : _QUADS // 2, :], quads[..., _QUADS // 2 :, :]
    nibbles = np.bitwise_or(low, np.left_shift(high, np.uint8(4)))
    return np.concatenate([_flat(nibbles), _halves(matrix.d), _halves(matrix.m)], axis=-1)


def packed8(matrix: Codes8) -> NDArray[np.uint8]:
    """Pack a matrix of whole tiles: (tiles, blocks, BLOCK8_BYTES)."""
    quads = np.bitwise_xor(_quads(matrix.codes), _UNSIGNED)  # adds 128 to a signed byte
    return np.concatenate([_flat(quads), _halves(matrix.d)], axis=-1)


def _quads(codes: torch.Tensor) -> NDArray[np.uint8]:
    """(tiles, blocks, quads of a block, 64)."""
    tiled = codes.numpy().view(np.uint8).reshape(codes.shape[0] // TILE, TILE, -1, _QUADS, _QUAD)
    return tiled.transpose(0, 2, 3, 1, 4).reshape(tiled.shape[0], -1, _QUADS, _VECTOR)


def _flat(vectors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return vectors.reshape(*vectors.shape[:2], -1)


def _halves(scales: torch.Tensor) -> NDArray[np.uint8]:
    """(tiles, blocks, 2 x TILE bytes)."""
    tiled = scales.numpy().astype(np.float16).reshape(-1, TILE, scales.shape[1])
    return np.ascontiguousarray(tiled.transpose(0, 2, 1)).view(np.uint8)
