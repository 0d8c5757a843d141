"""A file is what its name says, from its first byte to its last, or it is refused."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import onnx
import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from inference.gguf_file import read_gguf
from inference.store.errors import Fault, ModelFileError
from inference.store.formats import check_file, facts_of, must_be_taken
from inference.store.gguf_check import _BLOCKS
from inference.store.onnx_check import _BELOW
from tests.inference.store_world import a_field, a_folder, gguf, safetensors, text


def fault_of(name: str, content: bytes, folder: Path) -> Fault | None:
    path = folder / name
    path.write_bytes(content)
    try:
        with path.open("rb") as raw:
            check_file(name, raw, len(content))
    except ModelFileError as error:
        return error.fault if error.member == name else None
    return None


def onnx_model(**tensor: object) -> bytes:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    for key, value in tensor.items():
        setattr(weights, key, value)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights])
    return helper.make_model(graph).SerializeToString()


class Bomb:
    def __reduce__(self):
        return print, ("it ran",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.gguf", gguf()),
        ("m.safetensors", safetensors()),
        ("m.onnx", onnx_model()),
        ("m.plan", b"ptrt" + bytes(60)),
        ("m.json", b'{"a": 1}'),
        ("m.jinja", b"{{ x }}"),
        ("LICENSE", b"MIT"),
    ],
)
def test_a_sound_file_is_taken_and_nothing_else_under_its_name(tmp_path, name, content) -> None:
    must_be_taken(name)
    assert fault_of(name, content, tmp_path) is None
    for protocol in range(2, 6):
        assert fault_of(name, pickle.dumps(Bomb(), protocol=protocol), tmp_path) in {
            Fault.PICKLE,
            Fault.PLAN,
        }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as torch_file:
        torch_file.writestr("data.pkl", pickle.dumps(Bomb()))
    if name not in {"m.jinja", "LICENSE"}:
        assert fault_of(name, archive.getvalue(), tmp_path) in {Fault.NESTED, Fault.PLAN}
        assert fault_of(name, b"", tmp_path) is not None
    if name not in {"m.jinja", "LICENSE", "m.plan"}:
        assert fault_of(name, pickle.dumps(Bomb(), protocol=0), tmp_path) is not None
        assert fault_of(name, content + archive.getvalue(), tmp_path) is not None, "two in one"
        cut = [fault_of(name, content[:at], tmp_path) for at in range(0, len(content), 7)]
        assert None not in cut, "cut off"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *((f"model.{ext}", Fault.PICKLE) for ext in ("pt", "bin", "pkl", "ckpt", "PTH", "npz")),
        *((f"model.{ext}", Fault.NESTED) for ext in ("zip", "tar", "gz", "whl")),
        *((name, Fault.KIND) for name in ("model.py", "run.sh", "model", "a.so", "x.gguf.exe")),
        ("a.json/model.pt", Fault.PICKLE),
    ],
)
def test_kinds_that_the_store_does_not_take(name, fault) -> None:
    with pytest.raises(ModelFileError) as caught:
        must_be_taken(name)
    assert caught.value.fault is fault


# --- GGUF -----------------------------------------------------------------------------------


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    theirs = {int(kind): tuple(sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {kind: theirs[kind] for kind in _BLOCKS} == _BLOCKS


def test_what_a_gguf_says_of_itself(tmp_path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf())
    facts = facts_of({"m.gguf": path})

    assert (facts.architecture, facts.context_tokens, facts.template) == (
        "llama", 64, b"{{ messages }}",
    )  # fmt: skip
    assert read_gguf(path).fields["general.architecture"] == "llama"
    path.write_bytes(gguf().replace(b"<|end|>", b"<|END|>"))
    assert facts_of({"m.gguf": path}).tokenizer_sha256 != facts.tokenizer_sha256


def two_tensors(first: int, second: int, data: bytes, *, count: int = 2) -> bytes:
    tensors = [text(f"w{at}") + struct.pack("<IQIQ", 1, 8, 0, at) for at in (first, second)]
    head = b"GGUF" + struct.pack("<IQQ", 3, count, 0) + b"".join(tensors[:count])
    return head + bytes(-len(head) % 32 if count else 0) + data


def test_tensors_lie_side_by_side(tmp_path) -> None:
    assert fault_of("m.gguf", two_tensors(0, 32, bytes(64)), tmp_path) is None
    assert fault_of("m.gguf", two_tensors(32, 0, bytes(64)), tmp_path) is None
    assert fault_of("m.gguf", two_tensors(0, 0, b"", count=0), tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        two_tensors(0, 64, bytes(96)),
        two_tensors(32, 64, bytes(96)),
        two_tensors(0, 0, bytes(64)),
        two_tensors(0, 0, bytes(32), count=0),
        gguf().replace(b"GGUF", b"FUGG"),
        gguf().replace(struct.pack("<IQQ", 3, 1, 7), struct.pack("<IQQ", 2, 1, 7)),
        gguf().replace(struct.pack("<IQQ", 3, 1, 7), struct.pack("<IQQ", 3, 1 << 60, 7)),
        gguf().replace(struct.pack("<IQQ", 3, 1, 7), struct.pack("<IQQ", 3, 1, 1 << 60)),
        gguf(offset=32),
        gguf(offset=7),
        gguf(data=bytes(64)),
        gguf(data=bytes(160)),
        gguf(extra=bytes(32)),
        gguf().replace(struct.pack("<2Q", 8, 3), struct.pack("<2Q", 8, 1 << 61)),
        gguf().replace(struct.pack("<2QI", 8, 3, 0), struct.pack("<2QI", 8, 3, 2)),
        gguf().replace(struct.pack("<2QI", 8, 3, 0), struct.pack("<2QI", 8, 3, 999)),
        gguf().replace(text("gpt2"), struct.pack("<Q", 1 << 62) + b"gpt2"),
        gguf().replace(text("numbers"), text("<|end|>").replace(b"<", b"\xff")),
        gguf().replace(struct.pack("<IQ", 5, 3), struct.pack("<IQ", 5, 1 << 40)),
        gguf().replace(struct.pack("<IQ", 5, 3), struct.pack("<IQ", 9, 3)),
        gguf().replace(
            a_field("general.alignment", 4, struct.pack("<I", 32)),
            a_field("general.alignment", 4, struct.pack("<I", 0)),
        ),
    ],
)
def test_a_gguf_that_lies_about_its_sizes_is_refused(tmp_path, content) -> None:
    assert content != gguf()
    assert fault_of("m.gguf", content, tmp_path) is Fault.GGUF


def test_many_long_texts_take_no_memory(tmp_path) -> None:
    long = struct.pack("<Q", 1 << 20) + bytes([97]) * (1 << 20)
    texts = b"".join(a_field(f"t{number}", 8, long) for number in range(12))
    tokens = a_field("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 12) + long * 12)
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 13) + texts + tokens)
    tracemalloc.start()
    try:
        with path.open("rb") as raw:
            check_file("m.gguf", raw, path.stat().st_size)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert taken < 6 << 20


# --- safetensors ----------------------------------------------------------------------------

A = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
B = {"dtype": "I8", "shape": [8], "data_offsets": [16, 24]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"a": A}),
        safetensors({"a": A, "b": B | {"data_offsets": [8, 16]}}),
        safetensors({"a": A, "b": B | {"data_offsets": [17, 25]}}),
        safetensors({"a": A, "b": B | {"data_offsets": [24, 16]}}),
        safetensors({"a": A, "b": B | {"shape": [9]}}),
        safetensors({"a": A, "b": B | {"shape": [-8]}}),
        safetensors({"a": A, "b": B | {"shape": [True] * 3}}),
        safetensors({"a": A, "b": B | {"shape": 8}}),
        safetensors({"a": A, "b": B | {"dtype": "OBJECT"}}),
        safetensors({"a": A, "b": B | {"dtype": ["I8"]}}),
        safetensors({"a": A, "b": {}}),
        safetensors({"a": A, "b": []}),
        safetensors({"a": A, "b": B | {"shape": [8] + [1] * 8}}),
        safetensors({"a": A | {"shape": [10**4_000] * 1_000}, "b": B}),
        safetensors(data=bytes(25)),
        safetensors(data=bytes(23)),
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 20) + b'{"a": {}, "a": {}  }',
    ],
)
def test_a_safetensors_that_lies_about_its_sizes_is_refused(tmp_path, content) -> None:
    assert fault_of("m.safetensors", content, tmp_path) is Fault.SAFETENSORS


def test_a_header_whose_length_looks_like_a_pickle_is_no_pickle(tmp_path) -> None:
    """0x0280 bytes of header: the file begins as pickles do."""
    header = json.dumps({"a": A, "b": B}).ljust(0x0280)
    content = struct.pack("<Q", 0x0280) + header.encode() + bytes(24)

    assert fault_of("m.safetensors", content, tmp_path) is None


# --- ONNX -----------------------------------------------------------------------------------


def test_a_tensor_in_another_file_is_refused_wherever_it_stands(tmp_path) -> None:
    entry = onnx.StringStringEntryProto(key="location", value="../../etc/passwd")
    outside = helper.make_tensor("o", TensorProto.FLOAT, [1], [1.0])
    outside.external_data.append(entry)
    inner = helper.make_graph([], "inner", [], [], [outside])
    hidden = [
        helper.make_node("Constant", [], ["y"], value=outside),
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
    ]
    models = [
        helper.make_model(helper.make_graph([node], "g", [], [])).SerializeToString()
        for node in hidden
    ]
    function = onnx.FunctionProto(name="f", node=hidden[:1])
    with_function = onnx.load_from_string(onnx_model())
    with_function.functions.append(function)
    models += [with_function.SerializeToString(), onnx_model(data_location=TensorProto.EXTERNAL)]

    assert [fault_of("m.onnx", one, tmp_path) for one in models] == [Fault.EXTERNAL] * 4


def varint(value: int) -> bytes:
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def filled(tag: int, content: bytes) -> bytes:
    return varint(tag) + varint(len(content)) + content


def test_a_field_s_number_is_read_as_a_runtime_reads_it(tmp_path) -> None:
    """ONNX Runtime drops the bits above 32 of a tag: it read `secret.bin` for such a weight."""
    high = 1 << 32
    location = filled(0x0A, b"location") + filled(0x12, b"secret.bin")
    tensor = b"\x08\x04\x10\x01" + filled(0x42, b"w")
    tensor += filled(high | 13 << 3 | 2, location) + varint(high | 14 << 3) + b"\x01"
    model = onnx_model() + filled(7 << 3 | 2, filled(5 << 3 | 2, tensor))

    assert fault_of("m.onnx", model, tmp_path) is Fault.ONNX


def test_a_graph_that_is_a_pickle_too_is_refused(tmp_path) -> None:
    """What the pickle reads as a string, ONNX reads as a field that holds the pickle's rest."""
    code = b"0cbuiltins\nlen\n(S'abc'\ntR."
    length = 9 << 3 | 2  # the string's; and the tag of field 9, of bytes
    inner = bytes(length - 1) + code
    model = b"\x80\x02U" + bytes([length]) + varint(len(inner)) + inner + onnx_model()

    assert pickle.loads(model) == 3
    assert len(onnx.load_from_string(model).graph.node) == 1
    assert fault_of("m.onnx", model, tmp_path) is Fault.PICKLE


def test_the_skeleton_is_onnx_s_own() -> None:
    """Every message of a model that can hold a tensor, however deep, is walked.

    Others of onnx.proto (sequences, maps, sets of operators) stand outside of models.
    """
    holding = {"TensorProto": "tensor"}
    names = {
        "ModelProto": "model", "TrainingInfoProto": "training", "FunctionProto": "function",
        "GraphProto": "graph", "NodeProto": "node", "AttributeProto": "attribute",
        "SparseTensorProto": "sparse", "TensorProto": "tensor",
    }  # fmt: skip
    while True:
        more = {
            name: names.get(name, name)
            for name, message in vars(onnx).items()
            if name not in holding
            and hasattr(message, "DESCRIPTOR")
            and any(f.message_type and f.message_type.name in holding for f in fields_of(message))
        }
        if not more:
            break
        holding |= more
    walked = {
        ours: {
            field.number: holding[field.message_type.name]
            for field in fields_of(getattr(onnx, theirs))
            if field.message_type and field.message_type.name in holding
        }
        for theirs, ours in holding.items()
    }
    assert {ours: walked[ours] for ours in names.values()} == _BELOW


def fields_of(message):
    return getattr(message.DESCRIPTOR, "fields", ())


# --- JSON and text --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.json", b"{'a': 1}", Fault.JSON),
        ("a.json", b"[" * 100_000, Fault.JSON),
        ("a.json", b'"\xff"', Fault.JSON),
        ("a.txt", b"\xff\xfe", Fault.TEXT),
        ("a.md", b"a\0b", Fault.TEXT),
        ("tokenizer_config.json", b'{"chat_template": "\\ud800"}', Fault.TEXT),
        ("a.txt", b"\x7fELF\xff", Fault.KIND),
    ],
)
def test_json_and_text_are_what_they_are(tmp_path, name, content, fault) -> None:
    assert fault_of(name, content, tmp_path) is fault


def test_a_template_of_its_own_counts_before_the_tokenizer_s(tmp_path) -> None:
    folder = a_folder(tmp_path)
    paths = {path.name: path for path in folder.iterdir()}

    assert facts_of(paths).template == b"{{ messages }}"
    assert (facts_of(paths).architecture, facts_of(paths).context_tokens) == ("llama", 128)
    (folder / "chat_template.jinja").write_bytes(b"{{ other }}\r\n")
    paths["chat_template.jinja"] = folder / "chat_template.jinja"
    assert facts_of(paths).template == b"{{ other }}\n"


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([("m.gguf", gguf()), ("m.safetensors", safetensors()), ("m.onnx", b"")]),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_file_is_taken_or_refused_and_nothing_else_happens(
    tmp_path_factory, which, flips
):
    name, content = which
    broken = bytearray(content or onnx_model())
    for at, value in flips:
        broken[at % len(broken)] = value
    fault_of(name, bytes(broken), tmp_path_factory.getbasetemp())
