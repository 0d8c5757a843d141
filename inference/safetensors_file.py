"""Tensors of a safetensors model, in one file or in shards, read with care and only when asked for.

A safetensors file is, little-endian:

    length of the header (u64), at most HEADER_BYTES_MAX here
    header             JSON: {NAME: {"dtype", "shape", "data_offsets": [from, to]}, "__metadata__"}
    the tensors        one after another, row by row, no gap, nothing behind the last

Shards come with an index, `model.safetensors.index.json`: {"weight_map": {NAME: FILE}}. All of this
is checked before the library maps a byte of the tensors; what does not hold is a `ModelFileError`.
A pickle runs code when it is read, so it is refused by its name and by its first bytes.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from inference.store.errors import Fault, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "HEADER_BYTES_MAX",
    "TensorNote",
    "Tensors",
    "read_json",
    "read_tensors",
    "refuse_pickle",
]

HEADER_BYTES_MAX = 16 << 20
"""A model of 100,000 tensors has a header of some 10 MB."""
JSON_BYTES_MAX = 64 << 20
"""A tokenizer.json of 250,000 tokens has some 20 MB."""
_TENSORS_MAX = 200_000
_DIMENSIONS_MAX = 8
_ELEMENTS_MAX = 1 << 40
_PREFIX = struct.Struct("<Q")
_DTYPES = {
    "F32": (torch.float32, 4),
    "F16": (torch.float16, 2),
    "BF16": (torch.bfloat16, 2),
    "F8_E4M3": (torch.float8_e4m3fn, 1),
    "I64": (torch.int64, 8),
    "I8": (torch.int8, 1),
    "U8": (torch.uint8, 1),
}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib")
_ARCHIVES = (b"PK\x03\x04", b"\x93NUMPY")
"""Zip (PyTorch's files), NumPy's."""
_PROTOCOLS = tuple(bytes((0x80, version)) for version in range(1, 6))
"""How pickles begin; so does a safetensors header of 640 bytes, but the ninth byte tells them."""


@dataclass(frozen=True, slots=True)
class TensorNote:
    """What a header says of a tensor, and which file it is in."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensors:
    """Tensors by name. Nothing is read until `get`."""

    notes: Mapping[str, TensorNote]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.notes

    def get(self, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """Read a tensor, in a copy of its own.

        Raises:
            ModelFileError: there is none of that name, it has another shape, or the file fails.
        """
        note = self.notes.get(name)
        if note is None:
            msg = "the model lacks a tensor"
            raise ModelFileError(msg)
        if shape is not None and note.shape != shape:
            msg = "a tensor's shape is not the architecture's"
            raise ModelFileError(msg)
        try:
            with safe_open(note.path, framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelFileError(Fault.UNREADABLE) from error
        # The library's own lies in the mapped file: what is changed there would change here.
        return tensor.clone()


def read_tensors(paths: Iterable[Path], *, index: Path | None = None) -> Tensors:
    """Read the headers of a model's files.

    Args:
        paths: one file, or all shards.
        index: of the shards; each of its names must be in the very file that it says.

    Raises:
        ModelFileError: a file is no whole safetensors, a name is there twice, or in another file
            than the index says.
    """
    notes: dict[str, TensorNote] = {}
    metadata: dict[str, str] = {}
    for path in paths:
        refuse_pickle(path)
        found, told = _header(path)
        if notes.keys() & found.keys():
            msg = "two files hold a tensor of the same name"
            raise ModelFileError(msg)
        notes |= found
        metadata |= told
    if index is not None:
        _check_index(read_json(index), notes)
    return Tensors(notes, metadata)


def refuse_pickle(path: Path) -> None:
    """Raise ModelFileError if a file is a pickle, or an archive of them, by its name or content."""
    try:
        with path.open("rb") as file:
            start = file.read(_PREFIX.size + 1)
    except OSError as error:
        raise ModelFileError(Fault.UNREADABLE) from error
    pickled = start.startswith(_PROTOCOLS) and not start.endswith(b"{")
    if path.name.lower().endswith(_PICKLES) or start.startswith(_ARCHIVES) or pickled:
        raise ModelFileError(Fault.PICKLE)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelFileError: it is missing, too large or something else.
    """
    msg = "a JSON file of the model cannot be understood"
    try:
        with path.open("rb") as file:
            raw = file.read(JSON_BYTES_MAX + 1)
        told = json.loads(raw) if len(raw) <= JSON_BYTES_MAX else None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(msg) from error
    if not isinstance(told, dict):
        raise ModelFileError(msg)
    return told


def _header(path: Path) -> tuple[dict[str, TensorNote], dict[str, str]]:
    try:
        told, room = _told(path)
        metadata = told.pop("__metadata__", {})
        spans = {name: _span(one) for name, one in told.items()}
        _check_layout([span for *_, span in spans.values()], room)
        noted = {str(key): str(value) for key, value in metadata.items()}
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
        RecursionError,
    ) as error:
        raise ModelFileError(Fault.SAFETENSORS) from error
    return {
        name: TensorNote(path, dtype, shape) for name, (dtype, shape, _) in spans.items()
    }, noted


def _told(path: Path) -> tuple[dict[str, Any], int]:
    """Return a file's header, and the bytes behind it."""
    with path.open("rb") as file:
        (length,) = _PREFIX.unpack(file.read(_PREFIX.size))
        if length > HEADER_BYTES_MAX:
            msg = "the header is too long"
            raise ValueError(msg)
        return json.loads(file.read(length)), path.stat().st_size - _PREFIX.size - length


def _span(told: Any) -> tuple[torch.dtype, tuple[int, ...], tuple[int, int]]:  # noqa: ANN401 -- JSON
    dtype, size = _DTYPES[told["dtype"]]
    shape, (start, stop) = tuple(told["shape"]), told["data_offsets"]
    numbers = (*shape, start, stop)
    if any(type(number) is not int or not 0 <= number <= _ELEMENTS_MAX for number in numbers):
        msg = "a size is no number"
        raise ValueError(msg)
    if len(shape) > _DIMENSIONS_MAX or prod(shape) * size != stop - start:
        msg = "a tensor has not the bytes that its shape wants"
        raise ValueError(msg)
    return dtype, shape, (start, stop)


def _check_layout(spans: list[tuple[int, int]], size: int) -> None:
    """Raise ValueError unless the tensors fill the data, each byte once."""
    at = 0
    for start, stop in sorted(spans):
        if start != at:
            msg = "tensors overlap or leave a gap"
            raise ValueError(msg)
        at = stop
    if at != size or len(spans) > _TENSORS_MAX:
        msg = "the file has not the size that its header says"
        raise ValueError(msg)


def _check_index(index: dict[str, Any], notes: Mapping[str, TensorNote]) -> None:
    listed = index.get("weight_map")
    if (
        not isinstance(listed, dict)
        or {name: note.path.name for name, note in notes.items()} != listed
    ):
        msg = "the index and the files do not hold the same tensors"
        raise ModelFileError(msg)
