"""Who asks what, from where: what the gateway knows of a call once it is checked. PURE."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Direction(StrEnum):
    """Which way text travels: to the model or from it."""

    PROMPT = "prompt"
    ANSWER = "answer"


class Stage(StrEnum):
    """What a screening MAC vouches for."""

    SCREENED = "screened"
    RELEASED = "released"


class Role(StrEnum):
    """Who speaks in a conversation; the values of OpenAI's and the chat templates' `role`."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    """The model ended its turn or a stop sequence was met."""
    LENGTH = "length"
    """max_tokens or the context is used up."""
    BLOCKED = "blocked"
    """Compliance stopped the stream; what was delivered before stands."""
    LIMITED = "limited"
    """The caller's token limit ran out mid-stream."""
    CANCELLED = "cancelled"
    """The caller went away or its deadline passed."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, as the caller sent it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How to sample. Ranges are those of `sealgate.v1.ChatRequest`, checked at the edge."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def deterministic(self) -> bool:
        """Whether the same prompt must give the same answer, so that it may be cached."""
        return self.temperature == 0.0 or self.seed is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who calls: a workload by its certificate, perhaps on behalf of a user by a JWT."""

    spiffe_id: str
    tenant: str
    workload: str
    user: str | None = None
    roles: frozenset[str] = frozenset()

    @property
    def principal(self) -> str:
        """The workload, or the user behind it: whose limits and whose cache it is."""
        return self.spiffe_id if self.user is None else f"{self.spiffe_id}#{self.user}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How the caller's bytes came: for the record."""

    tls_version: str = ""
    key_exchange_group: str = ""
    peer_ip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """W3C trace context in binary: 16 and 8 bytes."""

    trace_id: bytes
    span_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What every neighbour must know of a call to serve it; on the wire `sealgate.v1.Scope`."""

    call_id: bytes
    """16 bytes, UUIDv7, made by the gateway."""
    tenant: str
    principal: str
    """Who may share cached answers: SPIFFE id, with `#user` behind it where there is one."""
    session: str = ""
    """The caller's conversation id within the tenant, or empty."""
    subject: str = ""
    """Whom the data is about, as `is_subject` has it; empty if nobody said."""
    trace: TraceContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the gateway knows about one request, checked."""

    scope: Scope
    actor: Actor
    connection: Connection
    model: str
    messages: tuple[Message, ...]
    parameters: Parameters
    purpose: str = ""
    """Purpose of use, as the caller states it (a lower-case label); policy may demand one."""
    cache_ok: bool = True
    received_at_us: int = 0
    """When the gateway saw it: UTC, microseconds since 1970."""


_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)


def is_subject(text: str) -> bool:
    """Tell whether a text may be a subject's id: as `ChatRequest.subject`, but not empty."""
    return _SUBJECT.fullmatch(text) is not None


def subject_of_user(user: str) -> str:
    """Return the subject that a call without one is about: the user of its token.

    Where the token's `sub` could not be a subject (an e-mail address, say), it is
    `sha256:` and the hexadecimal SHA-256 of it.
    """
    return user if is_subject(user) else f"sha256:{sha256(user.encode()).hexdigest()}"


_ROLE_BYTES = {role: len(role.value).to_bytes(4) + role.value.encode() for role in Role}
"""What `prompt_bytes` writes of each: names are ASCII, so a character is a byte."""


def prompt_bytes(messages: Sequence[Message]) -> bytes:
    r"""Serialise a prompt for its commitment: injective, the same in every language.

    `"sealgate/prompt/v1\0"`, then for each message role and content, each as a big-endian uint32
    byte length and the UTF-8 bytes.
    """
    parts = [b"sealgate/prompt/v1\0"]
    for message in messages:
        raw = message.content.encode()
        parts += (_ROLE_BYTES[message.role], len(raw).to_bytes(4), raw)
    return b"".join(parts)


def answer_bytes(text: str) -> bytes:
    r"""Serialise an answer for its commitment: `"sealgate/answer/v1\0"` and the UTF-8 bytes."""
    return b"sealgate/answer/v1\0" + text.encode()
