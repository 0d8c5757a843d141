"""Which field of a message holds a string that is not UTF-8. PURE.

protobuf refuses the whole message without saying where; callers are owed the field's name. This
walks the wire format beside the descriptor, and only for a message that was refused already.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor

__all__ = ["not_utf8_field"]

_BYTES = 2
"""Wire type of strings, bytes and messages."""
_DEPTH_MAX = 16
_VARINT_BITS_MAX = 63


def not_utf8_field(descriptor: Descriptor, raw: bytes) -> str | None:
    """Return the dotted name of the first string field that is not UTF-8; None if there is none.

    A message that is broken in another way is looked through as far as it can be read.
    """
    return _search(descriptor, raw, _DEPTH_MAX)


def _search(descriptor: Descriptor, raw: bytes, depth: int) -> str | None:
    for number, value in _fields(raw):
        field = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        if field.type == FieldDescriptor.TYPE_STRING and not _is_utf8(value):
            return str(field.name)
        if field.message_type is not None and depth > 0:
            inner = _search(field.message_type, value, depth - 1)
            if inner is not None:
                return f"{field.name}.{inner}"
    return None


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each length-delimited field, up to where the message breaks."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        length = 0
        match tag & 7:
            case 0:
                _, at = _varint(raw, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(raw, at)
            case 5:
                at += 4
            case _:
                return
        if at + length > len(raw):
            return
        if tag & 7 == _BYTES:
            yield tag >> 3, raw[at : at + length]
        at += length


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Read a base-128 number; one that does not end counts as reaching past the message."""
    value = shift = 0
    while at < len(raw) and shift <= _VARINT_BITS_MAX:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 -- the continuation bit
            return value, at
    return 0, len(raw) + 1
