"""Tokenizer and chat template as transformers lays them: tokenizer.json, tokenizer_config.json.

Byte-level BPE only (Llama 3, Qwen, SmolLM, DeepSeek). What `inference.tokenizer` promises holds:
callers' text is encoded by a tokenizer that knows none of the added tokens, so nobody but the
template writes turn marks; see `inference.chat_template`. Special tokens end an answer, and so does
an id that stands for no text; added tokens that are not special (`<think>`) are text when a model
says them, and letters when a caller does.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from inference.chat_template import ChatTemplate, Control, fill
from inference.safetensors_file import read_json
from inference.store.errors import Fault, ModelFileError
from inference.tokenizer import byte_letters
from meshkit.contract import Message, Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["FileTokenizer", "load_file_tokenizer", "plain_encoder", "template_in"]

_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")
_STEPS = frozenset(
    {
        "BertNormalizer", "BertPreTokenizer", "ByteLevel", "Digits", "Lowercase", "NFC", "NFD",
        "NFKC", "NFKD", "Sequence", "Split", "StripAccents",
    }
)  # fmt: skip
"""What may be done to a text. Others insert: text without end, or what the library dies of."""


class FileTokenizer:
    """Messages to token ids, token ids to bytes; implements `inference.tokenizer.Tokenizing`.

    Args:
        told: the content of tokenizer.json.
        template: Jinja.
        names: the texts of `bos_token` and its like.
        vocabulary: ids that the model knows: 0 to this, exclusive.

    Raises:
        ModelFileError: it is no byte-level BPE, or has ids that the model does not know.
    """

    def __init__(
        self, told: dict[str, Any], *, template: str, names: dict[str, str], vocabulary: int
    ) -> None:
        added, tokens = _added(told), _vocabulary(told)
        _must_be_byte_level(told)
        taken = [*tokens.values(), *(one["id"] for one in added)]
        if any(type(token) is not int or not 0 <= token < vocabulary for token in taken):
            msg = "the tokenizer has tokens that the model does not know"
            raise ModelFileError(msg)
        self._bpe = plain_encoder(told)
        self._raw = _bytes_of(tokens, added, vocabulary)
        special = {one["id"] for one in added if one["special"]}
        self.ends = frozenset(token for token, raw in enumerate(self._raw) if not raw) | special
        controls = {one["content"]: one["id"] for one in added}
        self._template = ChatTemplate(template, controls=controls, names=names)

    def encode(self, text: str) -> list[int]:
        """Encode plain text; never gives an added token."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def encode_chat(self, messages: Sequence[Message], *, default_system: str) -> list[int]:
        """Render a conversation and open the assistant's turn.

        Raises:
            Refusal: INVALID_FIELD `messages`, if the template does not take this order of roles.
        """
        turns = list(messages)
        if default_system and (not turns or turns[0].role is not Role.SYSTEM):
            turns.insert(0, Message(Role.SYSTEM, default_system))
        contents = [turn.content for turn in turns]
        ids: list[int] = []
        for part in self._template.rendered(tuple(turn.role for turn in turns)):
            ids += [part.token] if isinstance(part, Control) else self.encode(fill(part, contents))
        return ids

    def raw(self, token: int) -> bytes:
        """Return the bytes a token stands for; none for a special token."""
        return self._raw[token]


def load_file_tokenizer(
    tokenizer: Path, config: Path, template: Path | None, *, sha256: str, vocabulary: int
) -> tuple[FileTokenizer, bytes]:
    """Read a tokenizer and its template; return the template's bytes, too.

    Args:
        tokenizer: tokenizer.json.
        config: tokenizer_config.json.
        template: chat_template.jinja, if the template lies in a file of its own.
        sha256: of the template, as the manifest says.
        vocabulary: see `FileTokenizer`.

    Raises:
        ModelFileError: something cannot be understood, or the template is another.
    """
    told = read_json(config)
    source = template_in(told, template)
    if hashlib.sha256(source).hexdigest() != sha256:
        raise ModelFileError(Fault.TEMPLATE)
    names = {name: text for name in _NAMES if (text := _token_text(told.get(name)))}
    made = FileTokenizer(
        read_json(tokenizer), template=source.decode(), names=names, vocabulary=vocabulary
    )
    return made, source


def template_in(config: dict[str, Any], template: Path | None) -> bytes:
    """Return the chat template, UTF-8, of a file of its own or of tokenizer_config.json.

    Raises:
        ModelFileError: there is none.
    """
    try:
        text = template.read_text("utf-8") if template else config.get("chat_template")
        found = text.encode() if isinstance(text, str) else None
    except (OSError, ValueError) as error:  # JSON can spell half a character
        msg = "the chat template cannot be read"
        raise ModelFileError(msg) from error
    if found is None:
        msg = "the model has no chat template, or several"
        raise ModelFileError(msg)
    return found


def plain_encoder(told: dict[str, Any], *, keep: Sequence[str] = ()) -> Tokenizer:
    """Make a tokenizer without any of the added tokens, templates, cutting or padding.

    Args:
        told: the content of tokenizer.json.
        keep: added tokens that stay in the vocabulary, though no text is taken for them.

    Raises:
        ModelFileError: the content is no tokenizer.json.
    """
    special = {one["content"] for one in _added(told)} - set(keep)
    model = told["model"]
    known = _kinds(told.get("normalizer")) | _kinds(told.get("pre_tokenizer")) <= _STEPS
    # Dropout is chance; and of a prefix the library's BPE dies.
    odd = model.get("dropout") or (model.get("type") == "BPE" and _affixed(model))
    if odd or not known:
        msg = "the tokenizer changes texts in a way that is not taken here"
        raise ModelFileError(msg)
    vocabulary = {token: id_ for token, id_ in model["vocab"].items() if token not in special}
    plain = told | {
        "model": model | {"vocab": vocabulary},
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    try:
        return Tokenizer.from_str(json.dumps(plain))
    except Exception as error:  # the library raises no narrower type
        msg = "the tokenizer cannot be understood"
        raise ModelFileError(msg) from error


def _affixed(model: dict[str, Any]) -> bool:
    return bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))


def _kinds(step: Any) -> set[str]:  # noqa: ANN401 -- JSON
    """Return what a normalizer or pre-tokenizer is, and all that it is made of."""
    kinds, left = set(), [step]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            kinds.add(str(one.get("type")))
            left += [one.get("normalizers"), one.get("pretokenizers")]
        elif one is not None:
            kinds.add("")
    return kinds


def _added(told: dict[str, Any]) -> list[dict[str, Any]]:
    added = told.get("added_tokens", [])
    if not isinstance(added, list) or not all(
        isinstance(one, dict)
        and isinstance(one.get("content"), str)
        and one["content"]
        and type(one.get("id")) is int
        and isinstance(one.get("special"), bool)
        for one in added
    ):
        msg = "the tokenizer cannot be understood"
        raise ModelFileError(msg)
    return added


def _vocabulary(told: dict[str, Any]) -> dict[str, int]:
    model = told.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict):
        msg = "the tokenizer cannot be understood"
        raise ModelFileError(msg)
    return vocabulary


def _must_be_byte_level(told: dict[str, Any]) -> None:
    model, decoder = told["model"], told.get("decoder")
    if (
        model.get("type") != "BPE"
        or model.get("byte_fallback")
        or not isinstance(decoder, dict)
        or decoder.get("type") != "ByteLevel"
        or "ByteLevel" not in _kinds(told.get("pre_tokenizer"))
    ):
        msg = "the tokenizer is no byte-level BPE"
        raise ModelFileError(msg)


def _bytes_of(
    tokens: dict[str, int], added: Sequence[dict[str, Any]], vocabulary: int
) -> list[bytes]:
    letters = byte_letters()
    raw = [b""] * vocabulary
    special = {one["id"] for one in added}
    try:
        for token, number in tokens.items():
            if number not in special:
                raw[number] = bytes(letters[letter] for letter in token)
        for one in added:
            if not one["special"]:
                raw[one["id"]] = one["content"].encode()
    except (KeyError, UnicodeEncodeError) as error:
        msg = "the tokenizer is no byte-level BPE"
        raise ModelFileError(msg) from error
    return raw


def _token_text(told: Any) -> str:  # noqa: ANN401 -- JSON: a text, or an object with one
    text = told.get("content") if isinstance(told, dict) else told
    return text if isinstance(text, str) else ""
