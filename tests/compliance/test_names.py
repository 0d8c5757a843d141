"""The name models: found people and places, gates, pinned weights, determinism."""

import shutil
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance import names_latin, names_zh
from compliance.name_words import COMMON_WORDS
from compliance.names import ChineseNames, LatinNames, WeightsError, load_names
from compliance.requantise import eight_bit

MODELS = Path(__file__).parents[2] / "var" / "models"


@pytest.fixture(scope="module")
def names(name_runner):
    return name_runner._model


def found(names, text, core=0):
    return {(text[f.start : f.end], f.type) for f in names.find(text, core)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "My name is Ada Lovelace and I live in London.",
            {("Ada Lovelace", "PERSON"), ("London", "LOCATION")},
        ),
        ("It was Samuel L. Jackson's idea.", {("Samuel L. Jackson", "PERSON")}),
        (
            "María García López vive en Madrid.",
            {("María García López", "PERSON"), ("Madrid", "LOCATION")},
        ),
        ("我叫张伟，住在北京。", {("张伟", "PERSON"), ("北京", "LOCATION")}),
        ("李娜在北京大学工作", {("李娜", "PERSON"), ("北京大学", "ORG")}),
    ],
)
def test_names_are_found(names, text, expected):
    assert expected <= found(names, text)


@pytest.mark.parametrize(
    "text",
    [
        "Use S3 and EKS with Kubernetes.",
        "The API returns JSON over HTTPS.",
        "版本是2.0，请稍后再试。",
    ],
)
def test_technical_text_stays_quiet(names, text):
    assert not {kind for _, kind in found(names, text)} & {"PERSON"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("the quick brown fox", False),
        ("The answer is yes. Please wait.", False),
        ("12345, 67890!", False),
        ("Ask Ada about it", True),
        ("my name is ada", True),
        ("张三", True),
        ("你好吗", False),
        ("", False),
    ],
)
def test_a_model_is_asked_only_where_a_name_can_be(names, text, wanted):
    assert (names.ask(text, 0) is not None) is wanted


def test_the_gate_looks_at_the_core_alone(names):
    assert names.ask("Ada Lovelace said that it was late", 13) is None


def test_what_began_in_the_context_is_cut(names):
    text = "Yesterday Ada Lovelace came home."

    assert ("Lovelace", "PERSON") in found(names, text, core=14)
    assert not {value for value, _ in found(names, text, core=23)}


def test_the_same_window_gives_the_same_findings(names):
    text = "Ada Lovelace met Charles Babbage. 张伟住在成都市。"

    assert len({tuple(names.find(text, 0)) for _ in range(5)}) == 1


def test_what_else_was_asked_changes_no_finding(names):
    texts = [
        "Ada Lovelace met Niskanen.",
        "Then Zubrowka left for Kilmarnock with Grobart Eastwick.",
        "李娜在北京大学工作，张医生也在",
        "thanks kevin smith",
    ]
    alone = [names.find(text, 0) for text in texts]

    assert all(alone)
    assert [names.find(text, 0) for text in reversed(texts)] == alone[::-1]


def test_far_apart_words_are_asked_about_apart():
    gap = " and then it was all the same to us because of the rain" * 2
    both = f"Niskanen came{gap}, said Zubrowka"

    assert list(names_latin._pieces(both, [(0, 8), (len(both) - 8, len(both))])) == [
        (0, names_latin._word_end(both, 8 + names_latin.LATIN_CONTEXT)),
        (names_latin._word_start(both, len(both) - 8 - names_latin.LATIN_CONTEXT), len(both)),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("请联系王先生。", "王先生"),
        ("被告人李某某到案", "李某某"),
        ("他叫阿卜杜拉·买买提。", "阿卜杜拉"),
    ],
)
def test_chinese_people_found_by_rule(names, text, expected):
    assert any(expected in value for value, kind in found(names, text) if kind == "PERSON")


def test_titles_alone_are_nobody(names):
    assert not found(names, "这位先生和各位女士")


@given(
    st.integers(1, 6).flatmap(
        lambda steps: st.lists(
            st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=steps, max_size=steps
        )
    ),
    st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=3, max_size=3),
)
def test_the_path_is_a_best_one(emissions, transitions):
    def worth(path):
        steps = sum(emissions[at][tag] for at, tag in enumerate(path))
        return steps + sum(transitions[a][b] for a, b in pairwise(path))

    path = names_zh._viterbi(np.array(emissions, "f4"), np.array(transitions, "f4"))

    assert len(path) == len(emissions)
    assert worth(path) == max(map(worth, product(range(3), repeat=len(emissions))))


def test_weights_must_be_the_pinned_ones(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        load_names(tmp_path)
    shutil.copytree(MODELS / "lac", tmp_path / "lac")
    (tmp_path / "lac" / "tag.dic").write_bytes(b"0\ta-B\n")
    with pytest.raises(WeightsError, match=r"tag\.dic is not the file"):
        ChineseNames(tmp_path / "lac")
    shutil.copytree(MODELS / "rampart", tmp_path / "rampart")
    with (tmp_path / "rampart" / "model_q4.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(WeightsError, match="model_q4"):
        LatinNames(tmp_path / "rampart")


def test_a_long_window_is_no_error(names):
    names.find("Ada Lovelace " * 200, 0)
    names.find("张伟" * 600, 0)


def test_requantising_replaces_every_product_and_leaves_a_rewritten_model_alone():
    model = (MODELS / "rampart" / "model_q4.onnx").read_bytes()
    rewritten = eight_bit(model)

    assert rewritten.count(b"DynamicQuantizeMatMul") >= model.count(b"\x0bMatMulNBits") > 0
    assert b"\x0bMatMulNBits" not in rewritten
    assert eight_bit(rewritten) == rewritten


def test_common_words_are_lower_case():
    assert all(word == word.lower() for word in COMMON_WORDS)
