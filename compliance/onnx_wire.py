"""Read and write what an ONNX file is made of, without an ONNX package.

The file is protobuf; the numbers of its fields are those of onnx.proto. Reading trusts its input,
whose digest was checked. Pure: bytes in, bytes out.

    for field in fields(model):            # of any message: the model, its graph, a node, a tensor
        if field.number == GRAPH: ...
    pack(GRAPH, value)                     # a field that holds bytes, as it stands in a file
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

__all__ = [
    "GRAPH",
    "GRAPH_INITIALIZER",
    "GRAPH_INPUT",
    "GRAPH_NAME",
    "GRAPH_NODE",
    "GRAPH_OUTPUT",
    "NODE_ATTRIBUTE",
    "NODE_INPUT",
    "NODE_OP_TYPE",
    "NODE_OUTPUT",
    "VALUE_NAME",
    "Field",
    "Message",
    "array_of",
    "attribute_of",
    "fields",
    "name_of",
    "node",
    "pack",
    "raw_of",
    "row_input",
    "strings",
    "tensor",
]

GRAPH = 7
GRAPH_NODE, GRAPH_NAME, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 2, 5, 11, 12
VALUE_NAME = 1
NODE_INPUT, NODE_OUTPUT, NODE_OP_TYPE, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_INTS, _ATTRIBUTE_TYPE = 1, 3, 8, 20
_IS_INT, _IS_INTS = 2, 7
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE, _DIM_PARAM = 2, 1, 2, 1, 1, 2
_NUMPY_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 7: np.int64}
_TYPES = {np.dtype(kind): number for number, kind in _NUMPY_TYPES.items()}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Message: TypeAlias = bytes | memoryview
"""What is read: a whole file, or a part of one, which is not copied."""


class Field(NamedTuple):
    """A field of a message."""

    number: int
    value: memoryview
    """Payload of a length-delimited field, else empty; like `whole` a part of what was read."""
    integer: int
    whole: memoryview
    """The field as it stands in the file."""


def fields(message: Message) -> Iterator[Field]:
    """Walk the fields of a message; the file's digest was checked, so it is well formed."""
    data = memoryview(message)
    at = 0
    while at < len(data):
        start = at
        key, at = _read_varint(data, at)
        value, integer = data[:0], 0
        if key & 7 == _BYTES:
            size, at = _read_varint(data, at)
            value = data[at : at + size]
            at += size
        elif key & 7 == _VARINT:
            integer, at = _read_varint(data, at)
        else:
            at += 4 if key & 7 == _FIXED32 else 8
        yield Field(key >> 3, value, integer, data[start:at])


def strings(message: Message, number: int) -> list[str]:
    """The message's texts of that field number."""
    return [str(field.value, "utf-8") for field in fields(message) if field.number == number]


def attribute_of(attribute: Message) -> tuple[str, int]:
    """Name and integer of a node's attribute; 0 if it holds anything else."""
    name, integer = "", 0
    for field in fields(attribute):
        if field.number == _ATTRIBUTE_NAME:
            name = str(field.value, "utf-8")
        elif field.number == _ATTRIBUTE_INT:
            integer = field.integer
    return name, integer


def name_of(tensor: Message) -> str:
    """A tensor's name."""
    return next((str(f.value, "utf-8") for f in fields(tensor) if f.number == _TENSOR_NAME), "")


def raw_of(tensor: Message) -> Message:
    """A tensor's numbers, little-endian."""
    return next((f.value for f in fields(tensor) if f.number == _TENSOR_RAW), b"")


def array_of(tensor: Message) -> npt.NDArray[np.generic]:
    """A tensor's numbers in its shape.

    Raises:
        ValueError: it holds other numbers than float32, uint8, int8 and int64, or not as raw data.
    """
    kind, shape = 0, []
    raw: Message = b""
    for field in fields(tensor):
        if field.number == _TENSOR_DIMS:
            shape.append(field.integer)
        elif field.number == _TENSOR_TYPE:
            kind = field.integer
        elif field.number == _TENSOR_RAW:
            raw = field.value
    if kind not in _NUMPY_TYPES:
        msg = "a tensor of this model holds other numbers than expected"
        raise ValueError(msg)
    return np.frombuffer(raw, _NUMPY_TYPES[kind]).reshape(shape)


def tensor(name: str, values: npt.NDArray[np.generic]) -> bytes:
    """Write a tensor."""
    dims = b"".join(_integer(_TENSOR_DIMS, size) for size in values.shape)
    return b"".join(
        (
            dims,
            _integer(_TENSOR_TYPE, _TYPES[values.dtype]),
            pack(_TENSOR_NAME, name.encode()),
            pack(_TENSOR_RAW, values.tobytes()),
        )
    )


def node(
    op_type: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    domain: str = "",
    attributes: Mapping[str, int | Sequence[int]] | None = None,
) -> bytes:
    """Write a node. inputs: an empty name stands for one that is left out."""
    return b"".join(
        (
            *(pack(NODE_INPUT, name.encode()) for name in inputs),
            *(pack(NODE_OUTPUT, name.encode()) for name in outputs),
            pack(NODE_OP_TYPE, op_type.encode()),
            pack(NODE_DOMAIN, domain.encode()),
            *(
                pack(NODE_ATTRIBUTE, _attribute(name, value))
                for name, value in (attributes or {}).items()
            ),
        )
    )


def row_input(name: str, length: str) -> bytes:
    """Describe an input of int64 `[1, length]`; `length` names what varies."""
    one = pack(_SHAPE_DIM, _integer(_DIM_VALUE, 1))
    shape = one + pack(_SHAPE_DIM, pack(_DIM_PARAM, length.encode()))
    kind = _integer(1, _TYPES[np.dtype(np.int64)]) + pack(_TENSOR_SHAPE, shape)
    return pack(VALUE_NAME, name.encode()) + pack(_VALUE_TYPE, pack(_TYPE_TENSOR, kind))


def pack(number: int, value: Message) -> bytes:
    """Write a field that holds bytes."""
    return b"".join((_varint(number << 3 | _BYTES), _varint(len(value)), value))


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        held, kind = _integer(_ATTRIBUTE_INT, value), _IS_INT
    else:
        held, kind = b"".join(_integer(_ATTRIBUTE_INTS, each) for each in value), _IS_INTS
    return pack(_ATTRIBUTE_NAME, name.encode()) + held + _integer(_ATTRIBUTE_TYPE, kind)


def _integer(number: int, value: int) -> bytes:
    # Below zero as 64 bits in two's complement.
    return _varint(number << 3) + _varint(value % (1 << 64))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 -- seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 -- the top bit says that more follow
            return value, at
