r"""SmolLM's tokenizer and chat template, rebuilt from a GGUF file's metadata.

Byte-level BPE; digits are split one by one before GPT-2's word pattern. Text of callers is encoded
by a tokenizer that knows no special tokens at all, so `<|im_end|>` typed by a user is six ordinary
tokens, and only `encode_chat` puts turn marks into a prompt: nobody can end his turn and go on as
`system`. A few bytes are in no merge and no token (U+0004 among them, and first bytes of unassigned
planes); the model cannot see those, as in the original.

ChatML, as the file's own template has it (its SHA-256 is pinned by the manifest):

    <|im_start|>ROLE\nCONTENT<|im_end|>\n   for each message, a default system message before the
    first unless the first is one, then `<|im_start|>assistant\n`
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

from tokenizers import Tokenizer, models, pre_tokenizers

from inference.store.errors import Fault, ModelFileError
from meshkit.contract import Message, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.gguf_file import GgufFile

__all__ = ["ChatTokenizer", "Tokenizing", "byte_letters", "load_tokenizer", "template_of"]

_CONTROL = 3  # gguf.TokenType.CONTROL
_START, _END = "<|im_start|>", "<|im_end|>"


class Tokenizing(Protocol):
    """What an engine asks of a tokenizer."""

    ends: frozenset[int]
    """Ids that end an answer."""

    def encode(self, text: str) -> list[int]:
        """Encode plain text; never gives a control token."""
        ...

    def encode_chat(self, messages: Sequence[Message], *, default_system: str) -> list[int]:
        """Render a conversation and open the assistant's turn."""
        ...

    def raw(self, token: int) -> bytes:
        """Return the bytes a token stands for; none for a control token."""
        ...


class ChatTokenizer:
    """Messages to token ids, token ids to bytes.

    Attributes:
        ends: ids that end an answer: every control token, since none may become text.
        pieces: how many ids there are, from 0 on.
    """

    def __init__(self, tokens: Sequence[str], merges: Sequence[str], types: Sequence[int]) -> None:
        self.ends = frozenset(i for i, kind in enumerate(types) if kind == _CONTROL)
        ids = {token: i for i, token in enumerate(tokens)}
        try:
            self._start, self._end = ids[_START], ids[_END]
        except KeyError as error:
            msg = "the vocabulary lacks ChatML's turn marks"
            raise ModelFileError(msg) from error
        # Without the control tokens: the encoder cannot give what it has never heard of.
        plain = {token: i for token, i in ids.items() if i not in self.ends}
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
        self._bpe = Tokenizer(models.BPE(vocab=plain, merges=pairs))
        self._bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        self._between = [self._end, *self.encode("\n")]
        self._opening = [self._start, *self.encode(f"{Role.ASSISTANT.value}\n")]
        # One of them is asked for again and again: the manifest's. Text and ids are one tuple, so
        # whoever reads it from another thread has a pair that belongs together.
        self._last_system: tuple[str, tuple[int, ...]] = ("", tuple(self._system("")))
        letters = byte_letters()
        self.pieces = len(tokens)
        self._raw = [
            b"" if i in self.ends else bytes(letters[letter] for letter in token)
            for i, token in enumerate(tokens)
        ]

    def encode(self, text: str) -> list[int]:
        """Encode plain text; never gives a control token."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def encode_chat(self, messages: Sequence[Message], *, default_system: str) -> list[int]:
        """Render a conversation and open the assistant's turn."""
        given = bool(messages) and messages[0].role is Role.SYSTEM
        ids = [] if given else self._default(default_system)
        for turn in messages:
            ids += self._turn(turn)
        return ids + self._opening

    def _turn(self, turn: Message) -> list[int]:
        body = self.encode(f"{turn.role.value}\n{turn.content}")
        return [self._start, *body, *self._between]

    def _default(self, content: str) -> list[int]:
        text, ids = self._last_system
        if text != content:
            ids = tuple(self._system(content))
            self._last_system = content, ids
        return list(ids)

    def _system(self, content: str) -> list[int]:
        return self._turn(Message(Role.SYSTEM, content))

    def raw(self, token: int) -> bytes:
        """Return the bytes a token stands for; none for a control token."""
        return self._raw[token]


def load_tokenizer(file: GgufFile, *, template_sha256: str) -> ChatTokenizer:
    """Rebuild the tokenizer. Cost: 0.2 s.

    Raises:
        ModelFileError: tokenizer or template are not those this module implements.
    """
    if (_field(file, "tokenizer.ggml.model"), _field(file, "tokenizer.ggml.pre")) != (
        "gpt2",
        "smollm",
    ):
        msg = "the file's tokenizer is not SmolLM's byte-level BPE"
        raise ModelFileError(msg)
    if hashlib.sha256(template_of(file)).hexdigest() != template_sha256:
        raise ModelFileError(Fault.TEMPLATE)
    parts = [_field(file, f"tokenizer.ggml.{name}") for name in ("tokens", "merges", "token_type")]
    try:
        return ChatTokenizer(*parts)
    except ModelFileError:
        raise
    except Exception as error:  # of ours or of the library, which raises no narrower type
        msg = "the tokenizer cannot be understood"
        raise ModelFileError(msg) from error


def template_of(file: GgufFile) -> bytes:
    """Return the chat template, UTF-8: what the manifest's `template_sha256` is of.

    Raises:
        ModelFileError: the file lacks it.
    """
    return str(_field(file, "tokenizer.chat_template")).encode()


def _field(file: GgufFile, key: str) -> Any:  # noqa: ANN401 -- metadata is of any type
    try:
        return file.fields[key]
    except KeyError as error:
        msg = f"the file lacks {key}"
        raise ModelFileError(msg) from error


def byte_letters() -> dict[str, int]:
    """GPT-2's printable letter for each byte, the other way round.

    Source: `bytes_to_unicode` in openai/gpt-2 `encoder.py`.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    return letters | {chr(256 + n): byte for n, byte in enumerate(others)}
