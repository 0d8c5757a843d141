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


def llama(*, heads=4, kv_heads=2, layers=1, base=10_000.0, epsilon=1e-5, kind=4) -> bytes:
    """A whole model, its tensors as its fields say: one block, 64 wide, of zeros."""
    told = {
        "embedding_length": 64, "feed_forward_length": 32, "attention.head_count": heads,
        "attention.head_count_kv": kv_heads, "block_count": layers, "vocab_size": 32,
        "context_length": 64,
    }  # fmt: skip
    fields = [("general.architecture", 8, text("llama"))]
    form = "<I" if kind == 4 else "<f"
    fields += [(f"llama.{name}", kind, struct.pack(form, size)) for name, size in told.items()]
    for name, number in {
        "rope.freq_base": base,
        "attention.layer_norm_rms_epsilon": epsilon,
    }.items():
        fields.append((f"llama.{name}", 6, struct.pack("<f", number)))
    head = 64 // heads
    sizes = {"token_embd": (64, 32), "output_norm": (64,)}
    matrices = {
        "attn_q": (64, heads * head), "attn_k": (64, kv_heads * head), "attn_norm": (64,),
        "attn_v": (64, kv_heads * head), "attn_output": (heads * head, 64), "ffn_norm": (64,),
        "ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64),
    }  # fmt: skip
    for name, size in matrices.items():
        sizes |= {f"blk.{layer}.{name}": size for layer in range(layers)}
    tensors, at = [], 0
    for name, size in sizes.items():
        form = 0 if len(size) == 1 else 8 if name == "token_embd" else 3
        tensors.append((f"{name}.weight", size, form, at))
        at += 4_096 * 2
    return gguf(fields=fields, tensors=tensors, data=bytes(at))


LIES = {
    "key heads that do not divide": {"heads": 4, "kv_heads": 3},
    "more key heads than heads": {"heads": 2, "kv_heads": 4},
    "no base": {"base": 0.0},
    "a base that is no number": {"base": float("nan")},
    "an endless epsilon": {"epsilon": float("inf")},
    "an epsilon below zero": {"epsilon": -1.0},
    "heads of one number": {"heads": 64, "kv_heads": 64},
    "no block": {"layers": 0},
    "sizes that are no integers": {"kind": 6},
}


def test_a_whole_model_is_read(tmp_path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(llama())

    assert load_weights(read_gguf(path)).architecture.kv_heads == 2


@pytest.mark.parametrize("lie", LIES)
def test_a_model_whose_sizes_do_not_fit_one_another_is_refused(tmp_path, lie) -> None:
    """Tensors are as the fields say: only the sizes themselves tell."""
    path = tmp_path / "model.gguf"
    path.write_bytes(llama(**LIES[lie]))

    with pytest.raises(ModelFileError):
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
