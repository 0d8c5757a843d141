"""tokenizer.json and templates: as transformers renders them, deaf to what callers write."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.registry import ModelFileError
from inference.tokenizer_file import FileTokenizer, template_in
from meshkit.contract import Message, Reason, Refusal, Role
from tests.inference.toys import MARKS, TEMPLATE, VOCABULARY, tokenizer_told

NAMES = {"bos_token": MARKS[0], "eos_token": MARKS[2]}
TYPED = (*MARKS, "<think>", "{{ bos_token }}", "{% for", "\ue0000\ue001", "the", " ")
written = st.lists(st.sampled_from(TYPED) | st.text(max_size=5), max_size=6).map("".join)
LLAMA3 = (
    "{{- bos_token }}{% for message in messages %}{{- '<|start|>' + message['role'] + '<|end|>\n\n'"
    " + message['content'] | trim + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{- '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|start|>system\nBe kind.<|end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|start|>' + m.role + '\n' + m.content + '<|end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
STRICT = (
    "{% if messages|length > 1 %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
)


def made(template: str = TEMPLATE, **changes) -> FileTokenizer:
    told = tokenizer_told() | changes
    return FileTokenizer(told, template=template, names=NAMES, vocabulary=VOCABULARY)


@pytest.fixture(scope="module")
def ids():
    return {one["content"]: one["id"] for one in tokenizer_told()["added_tokens"]}


def shown(tokenizer, ids, tokens) -> str:
    marks = {number: mark for mark, number in ids.items()}
    return "".join(marks.get(t) or tokenizer.raw(t).decode("latin-1") for t in tokens)


@pytest.mark.parametrize("template", [TEMPLATE, LLAMA3, CHATML])
def test_conversations_are_encoded_as_transformers_encodes_them(template, tmp_path) -> None:
    from transformers import PreTrainedTokenizerFast

    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_told()))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), **NAMES)
    turns = [
        ("user", "  the end?\n"),
        ("assistant", "\nth é 漢 🙂"),
        ("user", "Go on."),
        ("user", ""),
    ]
    told = [{"role": role, "content": text} for role, text in turns]
    want = theirs.apply_chat_template(
        told, chat_template=template, add_generation_prompt=True, return_dict=False
    )
    messages = [Message(Role(role), text) for role, text in turns]

    assert made(template).encode_chat(messages, default_system="") == want


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(written, min_size=1, max_size=3), data=st.data())
@pytest.mark.parametrize("template", [TEMPLATE, LLAMA3, CHATML])
def test_nobody_writes_a_mark_but_the_template(ids, template, texts, data) -> None:
    tokenizer = made(template)
    roles = [data.draw(st.sampled_from(Role)) for _ in texts]
    said = [Message(role, text) for role, text in zip(roles, texts, strict=True)]
    mute = [Message(role, "") for role in roles]
    marks = set(ids.values())

    def written_marks(messages):
        return [t for t in tokenizer.encode_chat(messages, default_system="") if t in marks]

    assert written_marks(said) == written_marks(mute)
    assert not {t for text in texts for t in tokenizer.encode(text)} & marks


@settings(max_examples=100, deadline=None)
@given(text=written)
def test_text_survives_the_round_trip(text) -> None:
    tokenizer = made()

    assert b"".join(map(tokenizer.raw, tokenizer.encode(text))).decode() == text


def test_a_tokenizer_that_takes_whole_words_takes_no_mark_for_one() -> None:
    """`ignore_merges` gives any word that is in the vocabulary its id: so marks may not be in."""
    told = tokenizer_told(ignore_merges=True)
    mark = {"id": 300, "content": "turn", "special": True}
    told["model"]["vocab"]["turn"] = 300
    told["added_tokens"].append({**told["added_tokens"][0], **mark})
    tokenizer = FileTokenizer(told, template=TEMPLATE, names=NAMES, vocabulary=VOCABULARY)
    tokens = tokenizer.encode("turn")

    assert len(tokens) == 4
    assert 300 not in tokens


def test_marks_and_ids_without_text_end_an_answer(ids) -> None:
    tokenizer = made()

    assert tokenizer.ends == {*(ids[mark] for mark in MARKS), *range(262, VOCABULARY)}
    assert tokenizer.raw(ids["<think>"]) == b"<think>"
    assert tokenizer.raw(VOCABULARY - 1) == b""


def test_the_default_system_message_comes_first_if_the_caller_has_none(ids) -> None:
    tokenizer = made()
    asked = [Message(Role.USER, "Go.")]

    assert shown(tokenizer, ids, tokenizer.encode_chat(asked, default_system="Be kind.")) == (
        "<|begin|><|start|>system\nBe kind.<|end|>\n<|start|>user\nGo.<|end|>\n<|start|>assistant\n"
    )
    own = [Message(Role.SYSTEM, "Mine."), *asked]
    assert "kind" not in shown(tokenizer, ids, tokenizer.encode_chat(own, default_system="kind"))


def test_an_order_of_roles_that_the_template_refuses_is_the_callers_fault() -> None:
    with pytest.raises(Refusal) as caught:
        made(STRICT).encode_chat([Message(Role.USER, "a")] * 2, default_system="")

    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "messages")


BAD_TEMPLATES = {
    "no Jinja": "{% for %}",
    "an escape": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "endless": "{% for i in range(10**9) %}x{% endfor %}",
    "a clock": "{{ strftime_now('%d') }}",
    "messages as JSON": "{{ messages[0].content | tojson }}",
    "long": "x" * (1 << 17),
    "private characters": "\ue000",
    "a mark of its own": r"{{ '\ue000' + '7' + '\ue001' }}",
    "no text at all": r"{{ '\ud800' }}",
    "an error of Python's": "{{ '{}'.format() }}",
    "another": "{{ ''.encode('nope') }}",
    "blocks too deep": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "brackets too deep": f"{{{{ {'(' * 5_000}1{')' * 5_000} }}}}",
    "a loop without end": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "calls without end": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
    "{% endmacro %}{{ m(40) }}",
    "chance": "{{ [1, 2, 3] | random }}",
    "idle talk": "{{ lipsum() }}",
    "a way out": "{{ cycler.__init__.__globals__ }}",
    "a file": "{% include 'x' %}",
}


@pytest.mark.parametrize("fault", BAD_TEMPLATES)
def test_a_template_that_cannot_be_trusted_is_refused(fault) -> None:
    with pytest.raises(ModelFileError):
        made(BAD_TEMPLATES[fault])


def without(key):
    return {name: value for name, value in tokenizer_told()["model"].items() if name != key}


MODEL = tokenizer_told()["model"]
BAD_TOKENIZERS = {
    "a token beyond the model's": {"model": MODEL | {"vocab": MODEL["vocab"] | {"ab": VOCABULARY}}},
    "a mark beyond the model's": {
        "added_tokens": [{"id": 1 << 40, "content": "<x>", "special": True}]
    },
    "a negative mark": {"added_tokens": [{"id": -1, "content": "<x>", "special": True}]},
    "an empty mark": {"added_tokens": [{"id": 1, "content": "", "special": True}]},
    "marks of another shape": {"added_tokens": {"a": 1}},
    "pieces of words": {"model": MODEL | {"type": "WordPiece"}},
    "bytes as a fallback": {"model": MODEL | {"byte_fallback": True}},
    "no vocabulary": {"model": without("vocab")},
    "no model": {"model": None},
    "no merges": {"model": without("merges")},
    "another pre-tokenizer": {"pre_tokenizer": {"type": "Whitespace"}},
    "another that speaks of it": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": "ByteLevel"},
            "behavior": "Isolated",
            "invert": False,
        }
    },
    "text put in between": {
        "normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}
    },
    "text put in, further down": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": ""}]}
    },
    "a map of characters that is none": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    },
    "steps of another shape": {"normalizer": {"type": "Sequence", "normalizers": 5}},
    "a decoder of another shape": {"decoder": [1]},
    "chance": {"model": MODEL | {"dropout": 0.5}},
    "a prefix": {"model": MODEL | {"continuing_subword_prefix": "ththth"}},
    "a mark that is no text": {
        "added_tokens": [{"id": 300, "content": "\ud800", "special": False}]
    },
    "letters that are no bytes": {"model": MODEL | {"vocab": MODEL["vocab"] | {"漢": 300}}},
}


@pytest.mark.parametrize("fault", BAD_TOKENIZERS)
def test_a_tokenizer_that_does_not_fit_is_refused(fault) -> None:
    with pytest.raises(ModelFileError):
        made(**BAD_TOKENIZERS[fault])


@pytest.mark.parametrize("template", ["\ud800", None, ["{{ x }}"]])
def test_a_template_that_is_no_text_is_refused(template) -> None:
    with pytest.raises(ModelFileError):
        template_in({"chat_template": template}, None)
