"""Whether a file is an ONNX model that keeps its weights in itself. PURE.

ONNX is a protocol buffer. Only its skeleton is walked: each message must fill its place exactly,
and no tensor, however deep, may point to another file (`external_data`: that is a path, which a
careless reader follows anywhere). What the numbers are is the runtime's business.

Source: onnx.proto of ONNX 1.23; field numbers below.
"""

from __future__ import annotations

from dataclasses import dataclass

from inference.store.errors import Fault, ModelFileError

__all__ = ["check_onnx"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10
_DEPTH_MAX = 32
_NUMBER_MAX = (1 << 29) - 1
"""Some readers drop the bits above: a larger number would be another field to them than to us."""
_GRAPH, _OPSETS = 7, 8

_BELOW: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Which fields of a message are messages that may hold a tensor."""
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    kind: int
    value: int
    """Of a varint."""
    begin: int
    end: int
    """Where a field of bytes lies."""


def check_onnx(raw: memoryview) -> None:
    """Walk a model; `raw` is best a mapped file.

    Raises:
        ModelFileError: ONNX, EXTERNAL.
    """
    if not {_GRAPH, _OPSETS} <= _walk(raw, 0, len(raw), "model", 0):
        raise ModelFileError(Fault.ONNX)


def _walk(raw: memoryview, at: int, end: int, message: str, depth: int) -> set[int]:
    """Walk one message; return the numbers of its fields."""
    if depth > _DEPTH_MAX:
        raise ModelFileError(Fault.ONNX)
    seen = set()
    while at < end:
        field = _field(raw, at, end)
        at = field.end
        seen.add(field.number)
        if message == "tensor":
            _must_be_inside(field)
        kind = _BELOW[message].get(field.number)
        if kind is not None:
            if field.kind != _BYTES:
                raise ModelFileError(Fault.ONNX)
            _walk(raw, field.begin, field.end, kind, depth + 1)
    return seen


def _must_be_inside(field: _Field) -> None:
    if field.number == _EXTERNAL_DATA or (field.number == _DATA_LOCATION and field.value):
        raise ModelFileError(Fault.EXTERNAL)


def _field(raw: memoryview, at: int, end: int) -> _Field:
    tag, at = _varint(raw, at, end)
    number, kind = tag >> 3, tag & 7
    value, begin = 0, at
    if kind == _VARINT:
        value, at = _varint(raw, at, end)
    elif kind == _BYTES:
        length, begin = _varint(raw, at, end)
        at = begin + length
    elif kind in {_FIXED64, _FIXED32}:
        at += 8 if kind == _FIXED64 else 4
    else:
        raise ModelFileError(Fault.ONNX)
    if at > end or not 0 < number <= _NUMBER_MAX:
        raise ModelFileError(Fault.ONNX)
    return _Field(number, kind, value, begin, at)


def _varint(raw: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES_MAX, 7):
        if at >= end:
            break
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 -- the bit that says: more follows
            return value, at
    raise ModelFileError(Fault.ONNX)
