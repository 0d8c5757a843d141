"""Just enough of GGUF to read a model: metadata, and tensors as views of the mapped file.

Everything is little-endian; a string is its length (u64) and UTF-8 bytes:

    "GGUF", version 3 (u32), tensors (u64), fields (u64)
    for each field     name (string), type (u32), value; an array is its item type (u32), its length
                       (u64), and the items
    for each tensor    name (string), dimensions n (u32), n sizes, fastest first (u64),
                       format (u32), offset from the start of the data (u64)
    the data, at the next multiple of `general.alignment` (32 unless stated)

The `gguf` package reads the same in 2.5 s instead of 0.1 s; the tests compare the two.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.store.errors import Fault, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["GgufFile", "Tensor", "TensorFormat", "read_gguf"]

_MAGIC, _VERSION = b"GGUF", 3
_STRING, _ARRAY = 8, 9
_NUMBERS = {
    number: struct.Struct(f"<{code}")
    for number, code in {
        0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
    }.items()
}  # fmt: skip
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]
_ALIGNMENT = 32
_DAMAGES = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError, struct.error,
)  # fmt: skip
"""What reading a damaged file may raise: a number of another type, an offset beyond it, …"""


class TensorFormat(IntEnum):
    """The formats that are understood here, with GGUF's numbers."""

    F32 = 0
    Q4_1 = 3
    Q8_0 = 8


_BLOCKS = {TensorFormat.F32: (1, 4), TensorFormat.Q4_1: (32, 20), TensorFormat.Q8_0: (32, 34)}
"""Weights in a block, and its bytes."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as it lies in the file.

    shape: slowest first, as numpy has it. raw: uint8, (all but the last of shape, bytes of a row).
    """

    name: str
    shape: tuple[int, ...]
    format: TensorFormat
    raw: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A file's metadata and tensors, by name."""

    fields: dict[str, Any]
    tensors: dict[str, Tensor]


class _Cursor:
    def __init__(self, raw: mmap.mmap) -> None:
        self.raw = raw
        self.at = 0

    def number(self, kind: struct.Struct) -> Any:  # noqa: ANN401 -- int, float or bool by kind
        (value,) = kind.unpack_from(self.raw, self.at)
        self.at += kind.size
        return value

    def text(self) -> str:
        length = self.number(_U64)
        self.at += length
        return self.raw[self.at - length : self.at].decode()

    def value(self, kind: int) -> Any:  # noqa: ANN401 -- any of GGUF's types
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            item, length = self.number(_U32), self.number(_U64)
            return [self.value(item) for _ in range(length)]
        return self.number(_NUMBERS[kind])


def read_gguf(path: Path) -> GgufFile:
    """Map a file whose digest was checked. Cost: 0.1 s for 50,000 tokens.

    Raises:
        ModelFileError: not GGUF version 3, damaged, or a tensor's format is not understood.
    """
    try:
        with path.open("rb") as file:
            cursor = _Cursor(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _read(cursor)
    except _DAMAGES as error:
        raise ModelFileError(Fault.GGUF) from error


def _read(cursor: _Cursor) -> GgufFile:
    magic, cursor.at = cursor.raw[:4], 4
    if (magic, cursor.number(_U32)) != (_MAGIC, _VERSION):
        msg = "magic or version"
        raise ValueError(msg)
    tensors, fields = cursor.number(_U64), cursor.number(_U64)
    metadata = {cursor.text(): cursor.value(cursor.number(_U32)) for _ in range(fields)}
    headers = [_header(cursor) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    data_at = -(-cursor.at // alignment) * alignment
    return GgufFile(
        metadata,
        {
            name: _tensor(cursor.raw, name, shape, TensorFormat(number), data_at + offset)
            for name, shape, number, offset in headers
        },
    )


def _header(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.text()
    sizes = [cursor.number(_U64) for _ in range(cursor.number(_U32))]
    return name, tuple(reversed(sizes)), cursor.number(_U32), cursor.number(_U64)


def _tensor(raw: mmap.mmap, name: str, shape: Sequence[int], form: TensorFormat, at: int) -> Tensor:
    weights, size = _BLOCKS[form]
    row = shape[-1] // weights * size
    rows = tuple(shape[:-1])
    view = np.frombuffer(raw, np.uint8, count=prod(rows) * row, offset=at)
    return Tensor(name, tuple(shape), form, view.reshape(*rows, row))
