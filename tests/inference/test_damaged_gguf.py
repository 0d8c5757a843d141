"""Whatever bytes a GGUF file holds: it is read, or a typed error says that it cannot be."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.gguf_file import read_gguf
from inference.registry import ModelFileError
from inference.weights import load_weights


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(*, fields=(), tensors=(), data=b"", alignment=32) -> bytes:
    """A file: fields are (name, kind, bytes), tensors (name, sizes fastest first, format, at)."""
    raw = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    for name, kind, value in fields:
        raw += text(name) + struct.pack("<I", kind) + value
    for name, sizes, form, at in tensors:
        raw += text(name) + struct.pack("<I", len(sizes))
        raw += b"".join(struct.pack("<Q", size) for size in sizes) + struct.pack("<IQ", form, at)
    return raw + bytes(-len(raw) % alignment) + data


SOUND = gguf(
    fields=[
        ("general.architecture", 8, text("llama")),
        ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
    ],
    tensors=[("output_norm.weight", (8,), 0, 0), ("token_embd.weight", (32, 2), 8, 32)],
    data=np.ones(8, np.float32).tobytes() + bytes(2 * 34),
)
ARRAYS = b"".join(struct.pack("<IQ", 9, 1) for _ in range(20_000))
FAULTS = {
    "cut off in the data": SOUND[:-1],
    "cut off in a name": SOUND[:40],
    "only a beginning": SOUND[:6],
    "empty": b"",
    "another version": SOUND[:4] + struct.pack("<I", 2) + SOUND[8:],
    "a huge number of fields": SOUND[:16] + struct.pack("<Q", 1 << 60) + SOUND[24:],
    "a huge number of tensors": SOUND[:8] + struct.pack("<Q", 1 << 60) + SOUND[16:],
    "a huge array": gguf(fields=[("a", 9, struct.pack("<IQ", 0, 1 << 60))]),
    "a huge text": gguf(fields=[("a", 8, struct.pack("<Q", 1 << 62))]),
    "arrays in arrays": gguf(fields=[("a", 9, ARRAYS)]),
    "an unknown type": gguf(fields=[("a", 99, b"")]),
    "no alignment": gguf(fields=[("general.alignment", 4, struct.pack("<I", 0))]),
    "an alignment of text": gguf(fields=[("general.alignment", 8, text("32"))]),
    "an unknown format": gguf(tensors=[("a", (32,), 99, 0)], data=bytes(64)),
    "a tensor without sizes": gguf(tensors=[("a", (), 0, 0)], data=bytes(64)),
    "a tensor beyond the file": gguf(tensors=[("a", (8,), 0, 1 << 40)], data=bytes(64)),
    "a tensor larger than the file": gguf(tensors=[("a", (1 << 40, 1 << 20), 0, 0)]),
    "a tensor of many dimensions": gguf(tensors=[("a", (1,) * 1_000, 0, 0)], data=bytes(64)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_refused(tmp_path, fault) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(FAULTS[fault])

    with pytest.raises(ModelFileError):
        load_weights(read_gguf(path))


def test_a_sound_file_is_read(tmp_path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(SOUND)

    assert set(read_gguf(path).tensors) == {"output_norm.weight", "token_embd.weight"}
    with pytest.raises(ModelFileError):  # which has too little for a model
        load_weights(read_gguf(path))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_damage_gives_anything_but_a_file_or_a_typed_error(tmp_path_factory, data) -> None:
    raw = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with pytest.raises(ModelFileError):
        load_weights(read_gguf(path))
