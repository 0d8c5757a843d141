"""What the adapters share whose models take a text and give a text. PURE.

Such a backend tokenises by itself, and takes `<|im_end|>` in a text for the turn mark, whoever
wrote it. So a caller's text that spells a control token is refused (INVALID_FIELD `messages`):
nobody may end his turn and go on as `system`. Our own model needs no such rule.

It also tells no counts, or not reliably: tokens are counted here by the model's own tokenizer,
piece by piece in the stream, the whole answer once at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from inference.engines.triton.adapters.base import ShapeError
from inference.text import StopScan
from meshkit.contract import (
    Ended,
    FinishReason,
    Generated,
    Reason,
    Refusal,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference.engines.triton.adapters.base import Question
    from meshkit.contract import Message, Parameters

__all__ = ["Chat", "TextReading", "Tokens", "decoded"]


class Tokens(Protocol):
    """As much of a tokenizer as this needs."""

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        ...

    def encode_chat(self, messages: Sequence[Message], *, default_system: str) -> list[int]:
        """Token ids of a conversation, the assistant's turn opened."""
        ...

    def raw(self, token: int) -> bytes:
        """The bytes a token stands for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A model's prompts as text, by its own template, and the counts that go with them.

    spellings: how the control tokens are spelt, by their ids. default_system: what the template
    says where the caller brings no system message.
    """

    tokenizer: Tokens
    spellings: Mapping[int, str]
    default_system: str

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render a conversation and open the assistant's turn.

        The text is that of the tokens which our own engine would run.

        Raises:
            Refusal: INVALID_FIELD `messages`: a text spells a control token.
        """
        spelt = self.spellings.values()
        if any(control in message.content for message in messages for control in spelt):
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        ids = self._ids(messages)
        raw = b"".join(
            self.spellings[token].encode() if token in self.spellings else self.tokenizer.raw(token)
            for token in ids
        )
        return raw.decode("utf-8", "replace")

    def most(self, messages: Sequence[Message], asked: Parameters, context_tokens: int) -> int:
        """See `Adapter.most`."""
        room = context_tokens - self.prompt_tokens(messages)
        if room < 1:
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        return min(asked.max_tokens, room)

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """How many tokens the prompt is."""
        return len(self._ids(messages))

    def tokens(self, text: str) -> int:
        """How many tokens a text is."""
        return len(self.tokenizer.encode(text))

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenizer.encode_chat(messages, default_system=self.default_system)


class TextReading:
    """From pieces of text to an engine's items: stop sequences, counts, the end.

    An answer that goes on beyond `most` tokens is cut there: the backend was told of that limit.
    """

    def __init__(self, chat: Chat, question: Question) -> None:
        self._chat = chat
        self._prompt_tokens = chat.prompt_tokens(question.messages)
        self._most = question.most
        self._stop = StopScan(question.parameters.stop)
        self._text: list[str] = []
        self._counted = 0
        self._done = False

    def piece(self, text: str) -> Sequence[Generated | Ended]:
        """Take a piece; nothing more is wanted once `Ended` is among what it returns."""
        if self._done or not text:
            return ()
        shown, stopped = self._stop.feed(text)
        self._text.append(text)
        tokens = max(1, self._chat.tokens(text))
        self._counted += tokens
        if stopped:
            return Generated(shown, tokens), self._ended(FinishReason.STOP)
        if self._counted > 2 * self._most + 16:
            # Pieces count for more than the whole, but not for so much more.
            return Generated(shown, tokens), self._ended(FinishReason.LENGTH)
        return (Generated(shown, tokens),)

    def end(
        self, reason: FinishReason | None, tokens: int | None = None
    ) -> Sequence[Generated | Ended]:
        """Take the end. reason, tokens: what the backend says of them; None: nothing."""
        if self._done:
            return ()
        rest = self._stop.flush()
        pieces = [Generated(rest)] if rest else []
        return *pieces, self._ended(reason, tokens)

    def _ended(self, reason: FinishReason | None, tokens: int | None = None) -> Ended:
        self._done = True
        counted = self._chat.tokens("".join(self._text)) if tokens is None else tokens
        # A model that ended its turn by itself made one more token than its text has.
        reason = reason or (FinishReason.LENGTH if counted >= self._most else FinishReason.STOP)
        own_end = tokens is None and reason is FinishReason.STOP
        usage = Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=min(self._most, counted + own_end),
        )
        return Ended(finish_reason=reason, usage=usage)


def decoded(raw: object) -> str:
    """Return a STRING element's text.

    Raises:
        ShapeError: it is not UTF-8.
    """
    if not isinstance(raw, bytes):
        msg = "text is not a string"
        raise ShapeError(msg)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        msg = "text is not UTF-8"
        raise ShapeError(msg) from None
