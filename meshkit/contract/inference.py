"""What inference is asked and what it answers. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meshkit.contract.audit import Document
    from meshkit.contract.call import FinishReason, Parameters, Scope
    from meshkit.contract.compliance import Screened


PER_WHOLE = 10_000
"""A share of traffic is so many parts of this: 100 are one per cent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens, counted by the model's own tokenizer, chat template included."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a generation ended; always the last item of its stream."""

    finish_reason: FinishReason
    usage: Usage


class Generated(NamedTuple):
    """A piece of a model's answer: of all values the one that most are made of, so a cheap one.

    text: complete characters only, may be empty while a character or stop sequence is incomplete.
    tokens: how many tokens this piece stands for; 1 or more.
    """

    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts, in their order, each of length 1; and what they cost."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that may be asked."""

    name: str
    digest: bytes
    """SHA-256 of the model's manifest, which pins weights, tokenizer and template: 32 bytes."""
    context_tokens: int
    licence: str
    languages: tuple[str, ...] = ()
    template_digest: bytes = b""
    """SHA-256 of the chat template, UTF-8: 32 bytes, or empty if there is none."""
    documents: tuple[Document, ...] = field(default=(), compare=False, repr=False)
    """What the digests are of, for the archive; does not travel."""
    version: str = ""
    """Which of the name's versions this is."""
    state: str = "live"
    """`live` or `canary`."""
    share: int = field(default=PER_WHOLE, compare=False)
    """Of conversations that this version gets, per ten thousand: for `meshkit.contract.choose`."""
    split_key: bytes = field(default=b"", compare=False, repr=False)
    """What splits conversations between versions; between gateway and inference alone."""


class Inference(Protocol):
    """Runs models."""

    async def models(self) -> tuple[ModelInfo, ...]:
        """List what gets traffic: an entry a version, of one name the live version last."""
        ...

    def generate(
        self,
        scope: Scope,
        model: str,
        screened: Screened,
        parameters: Parameters,
        *,
        digest: bytes = b"",
    ) -> AsyncIterator[Generated | Ended]:
        """Answer a screened prompt, token by token; the last item, and only it, is `Ended`.

        Closing the iterator (or cancelling the task in it) stops the engine within one step.

        digest: of the version that is to answer, and no other; empty: whichever.

        Raises:
            Refusal: NOT_FOUND (model); INVALID_FIELD `messages` (prompt longer than the context,
                or its MAC does not hold); OVERLOADED (queue full); OUT_OF_TIME (its deadline
                passed, or would before its first token); INFERENCE_DOWN (also: that
                version is gone).
        """
        ...

    async def embed(self, scope: Scope, model: str, screened: Screened) -> Embedded:
        """Return a vector for each message of a screened prompt, all of them of role user.

        Raises:
            Refusal: NOT_FOUND (model); INVALID_FIELD `messages` (too many, one empty, too long or
                of another role, or the MAC does not hold); OVERLOADED; INFERENCE_DOWN.
        """
        ...
