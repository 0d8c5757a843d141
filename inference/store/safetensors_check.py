"""Whether a file is a whole safetensors: a header of JSON, then tensors without a gap.

    length of the header (u64, little-endian), header, data
    header: {"name": {"dtype": "F16", "shape": [2, 3], "data_offsets": [begin, end]}, …,
             "__metadata__": {"text": "text"}}

Tensors cover the data from its first byte to its last, none over another, so nothing else can hide
in the file.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
from math import prod
from typing import IO, Any

from inference.store.errors import Fault, ModelFileError

__all__ = ["check_safetensors"]

_LENGTH_BYTES = 8
_HEADER_BYTES_MAX = 16 << 20
"""As `inference.safetensors_file`, which loads no larger one."""
_DIMENSIONS_MAX = 8
_SIZE_MAX = 1 << 46
_METADATA = "__metadata__"
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32,
    "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
_BYTE = 8


def check_safetensors(raw: IO[bytes], size: int) -> None:
    """Read the header, and hold it against the file's size.

    Raises:
        ModelFileError: SAFETENSORS, it is damaged, cut off, or holds more than it says.
    """
    length = int.from_bytes(raw.read(_LENGTH_BYTES), "little")
    left = size - _LENGTH_BYTES - length
    if not 0 < length <= _HEADER_BYTES_MAX or left < 0:
        raise ModelFileError(Fault.SAFETENSORS)
    try:
        header = json.loads(raw.read(length), object_pairs_hook=_distinct)
        spans = sorted(_span(about) for name, about in header.items() if name != _METADATA)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise ModelFileError(Fault.SAFETENSORS) from None
    end = 0
    for begin, until in spans:
        if begin != end:
            raise ModelFileError(Fault.SAFETENSORS)
        end = until
    if end != left:
        raise ModelFileError(Fault.SAFETENSORS)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    told = dict(pairs)
    if len(told) != len(pairs):
        raise ValueError
    return told


def _span(about: dict[str, Any]) -> tuple[int, int]:
    """Return where a tensor lies. Raises KeyError, TypeError, ValueError."""
    begin, end = about["data_offsets"]
    shape = about["shape"]
    sizes = [begin, end, *shape]
    if not isinstance(shape, list) or len(shape) > _DIMENSIONS_MAX:
        raise ValueError
    if any(type(one) is not int or not 0 <= one <= _SIZE_MAX for one in sizes):
        raise ValueError
    if (end - begin) * _BYTE != prod(shape) * _BITS[about["dtype"]]:
        raise ValueError
    return begin, end
