"""What the five services say to one another: values, protocols, refusals. PURE.

    gateway --screen/release--> Compliance      (text in, text that may travel out)
    gateway --get/put---------> Cache
    gateway --generate--------> Inference
    gateway --append----------> Audit           (durable before it returns)

A service implements its Protocol here once; the appliance calls that object in process, the mesh
calls it through `clients.py` and the wire. Nothing in this module does I/O or knows gRPC.

Text changes type as it is allowed further: a caller's `Message` becomes part of `Screened`, a
model's delta becomes part of `Released`. Both carry a MAC (`meshkit.screening_mac`) that cache and
inference verify, so that a faulty gateway cannot hand them anything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Sequence

__all__ = [
    "Actor",
    "Appended",
    "Audit",
    "BlockedText",
    "Cache",
    "CacheMiss",
    "CachedAnswer",
    "Call",
    "Checkpoint",
    "Commitment",
    "Compliance",
    "Connection",
    "Direction",
    "Ended",
    "Event",
    "FindingCount",
    "FinishReason",
    "Generated",
    "Inference",
    "Message",
    "ModelInfo",
    "Parameters",
    "Payload",
    "Phase",
    "Question",
    "Reason",
    "Receipt",
    "Record",
    "Refusal",
    "Released",
    "Role",
    "Scope",
    "Screened",
    "Stage",
    "TraceContext",
    "Usage",
    "Verdict",
    "answer_bytes",
    "prompt_bytes",
]


class Reason(StrEnum):
    """Why a call was refused. The value is the only text a caller sees.

    A name is wire API (google.rpc.ErrorInfo.reason): add freely, never rename, never reuse.
    `meshkit.status` maps each to its gRPC code.
    """

    INVALID_FIELD = "a field of the request is outside the range it states"
    NOT_FOUND = "the thing asked for does not exist"
    UNAUTHENTICATED = "caller is not authenticated"
    DENIED = "policy does not allow this call"
    BLOCKED = "text holds data that policy forbids"
    LIMITED = "a limit is used up; retry later"
    OVERLOADED = "the service is at its capacity; retry later"
    OUT_OF_TIME = "deadline leaves no time for useful work"
    CANCELLED = "caller cancelled the call"
    COMPLIANCE_DOWN = "compliance is unavailable"
    CACHE_DOWN = "cache is unavailable"
    INFERENCE_DOWN = "inference is unavailable"
    AUDIT_DOWN = "audit log is unavailable"
    KEYS_DOWN = "key service is unavailable"
    CONFLICT = "record exists with other content"
    EVIDENCE_LOST = "audit log contradicts an earlier checkpoint"
    INTERNAL = "internal error"


class Refusal(Exception):  # noqa: N818 -- a refusal is an answer, not a malfunction
    """A call ends here, for a closed list of reasons.

    Takes no free text, so user text cannot leak through one. `field` is the name of a proto field
    (INVALID_FIELD only), never its value.
    """

    def __init__(
        self, reason: Reason, *, field: str | None = None, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(reason.name if field is None else f"{reason.name} {field}")
        self.reason = reason
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.receipt: Receipt | None = None
        """Set by the gateway once the refusal's OUTCOME is durable; travels in trailers."""


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


# --- who, where, what -----------------------------------------------------------------------


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


def prompt_bytes(messages: Sequence[Message]) -> bytes:
    r"""Serialise a prompt for its commitment: injective, the same in every language.

    `"sealgate/prompt/v1\0"`, then for each message role and content, each as a big-endian uint32
    byte length and the UTF-8 bytes.
    """
    parts = [b"sealgate/prompt/v1\0"]
    for message in messages:
        for text in (message.role.value, message.content):
            raw = text.encode()
            parts += (len(raw).to_bytes(4), raw)
    return b"".join(parts)


def answer_bytes(text: str) -> bytes:
    r"""Serialise an answer for its commitment: `"sealgate/answer/v1\0"` and the UTF-8 bytes."""
    return b"sealgate/answer/v1\0" + text.encode()


# --- compliance -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingCount:
    """How often a type was found in one direction, and what was done. Never the text."""

    direction: Direction
    type: str
    subtype: str
    action: str
    """`allow`, `mask`, `tokenise` or `block`."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What compliance thought of a text, in numbers, and under which policy."""

    counts: tuple[FindingCount, ...] = ()
    policy_digest: bytes = b""
    """SHA-256 of the policy's canonical form: 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A prompt that `Compliance.screen` let in. Only this may reach cache or model."""

    messages: tuple[Message, ...]
    verdict: Verdict
    mac: bytes
    """`screening_mac.tag` over stage, digest of `prompt_bytes(messages)`, policy, tenant, call."""
    mac_key_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """An answer that `Compliance.release` let out. Only this may be cached or delivered."""

    text: str
    """All of it, with reversible tokens still in place; equal to the deltas yielded before."""
    verdict: Verdict
    mac: bytes
    mac_key_version: int
    blocked: bool = False
    """A segment was blocked: `text` is what stood before it, and nothing follows. Not cached."""


class Compliance(Protocol):
    """Decides what text may travel. A pure function of text and policy, but for the MAC."""

    async def screen(self, scope: Scope, messages: Sequence[Message]) -> Screened:
        """Let a prompt in, masked where policy says so.

        Raises:
            Refusal: BLOCKED, with the counts lost to the caller but kept in `blocked_verdict`
                (see `BlockedText`); COMPLIANCE_DOWN, if a recognizer failed or no policy is loaded.
        """
        ...

    def release(self, scope: Scope, deltas: AsyncIterable[str]) -> AsyncIterator[str | Released]:
        """Let an answer out as it comes; the last item, and only it, is `Released`.

        Yields non-empty pieces whose concatenation is `Released.text`. Closing the iterator
        closes `deltas`.

        Raises:
            Refusal: COMPLIANCE_DOWN. What was yielded before stands.
        """
        ...


class BlockedText(Refusal):
    """`BLOCKED`, with what was found, for the record."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(Reason.BLOCKED)
        self.verdict = verdict


# --- cache ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """All that an answer depends on; the cache's key is a keyed hash of it."""

    scope: Scope
    screened: Screened
    model_digest: bytes
    parameters: Parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAnswer:
    """A released answer that was given before to the same principal under the same policy."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    verdict: Verdict
    tier: str
    """`l1`, `l2` or `l3`: for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMiss:
    """No answer yet.

    lease: not empty if this caller is the one that should produce the answer (single flight): it
        must `put` or `abandon`. Empty: produce one too, and keep it to yourself.
    """

    lease: bytes = b""


class Cache(Protocol):
    """Sealed answers. Losing one is never an error: every failure is a miss."""

    async def get(self, question: Question) -> CachedAnswer | CacheMiss:
        """Look up; wait a bounded time if an equal question is being answered right now.

        Raises:
            Refusal: CACHE_DOWN; the gateway counts it and goes on as after a miss. INVALID_FIELD,
                if `question.screened.mac` does not hold.
        """
        ...

    async def put(self, question: Question, lease: bytes, answer: Released, ended: Ended) -> None:
        """Keep an answer and wake those who wait for it. Raises as `get` does."""
        ...

    async def abandon(self, question: Question, lease: bytes) -> None:
        """Give the lease back without an answer; one waiter becomes the next to try."""
        ...

    async def purge(self, tenant: str) -> int:
        """Forget everything of a tenant; return how many entries went."""
        ...


# --- inference ------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Generated:
    """A piece of a model's answer.

    text: complete characters only, may be empty while a character or stop sequence is incomplete.
    tokens: how many tokens this piece stands for; 1 or more.
    """

    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that may be asked."""

    name: str
    digest: bytes
    """SHA-256 over weights, tokenizer and template: 32 bytes; part of every record."""
    context_tokens: int
    licence: str
    languages: tuple[str, ...] = ()


class Inference(Protocol):
    """Runs models."""

    async def models(self) -> tuple[ModelInfo, ...]:
        """List what is loaded and ready."""
        ...

    def generate(
        self, scope: Scope, model: str, screened: Screened, parameters: Parameters
    ) -> AsyncIterator[Generated | Ended]:
        """Answer a screened prompt, token by token; the last item, and only it, is `Ended`.

        Closing the iterator (or cancelling the task in it) stops the engine within one step.

        Raises:
            Refusal: NOT_FOUND (model); INVALID_FIELD `messages` (prompt longer than the context,
                or its MAC does not hold); OVERLOADED (queue full); INFERENCE_DOWN.
        """
        ...


# --- audit ----------------------------------------------------------------------------------


class Phase(StrEnum):
    """With `call_id` the idempotency key of an event."""

    INTENT = "intent"
    """Durable before the model is asked or anything leaves."""
    OUTCOME = "outcome"
    """Durable before the last frame, the unary answer or the refusal leaves."""
    NOTE = "note"
    """Not about a call: service start, receipt key, counted refusals."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """HMAC-SHA-256(salt, text), made by whoever holds the text. Both 32 bytes.

    The salt is kept with the sealed payload and in the receipt, never in the log.
    """

    salt: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What is stored sealed, apart from the log, and may be erased. Raw text never is."""

    screened: tuple[Message, ...] = ()
    released: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact about one call (or, as a NOTE, about a service).

    The four commitments: `prompt_received` (INTENT), `prompt_screened`, `answer_released`,
    `answer_delivered` (OUTCOME). The first and last are over `prompt_bytes` and `answer_bytes` of
    what crossed the client's connection; None where there was no such text.
    """

    call_id: bytes
    phase: Phase
    tenant: str
    occurred_at_us: int
    trace: TraceContext
    actor: Actor | None = None
    connection: Connection = field(default_factory=Connection)
    action: str = "chat"
    """`chat`, `chat.stream`, `models.list`, `service.start`, `receipt.key`, `refusals.counted`…"""
    outcome: str = ""
    """OUTCOME: `released`, or a `Reason` name."""
    finish_reason: FinishReason | None = None
    model: str = ""
    model_digest: bytes = b""
    compliance_policy_digest: bytes = b""
    authorization_policy_digest: bytes = b""
    purpose: str = ""
    counts: tuple[FindingCount, ...] = ()
    usage: Usage = field(default_factory=Usage)
    cache_tier: str = ""
    """`l1`, `l2`, `l3`, `miss`, `down` or `off`."""
    prompt_received: Commitment | None = None
    prompt_screened: Commitment | None = None
    answer_released: Commitment | None = None
    answer_delivered: Commitment | None = None
    payload: Payload | None = None
    detail: tuple[tuple[str, str], ...] = ()
    """NOTE: a few extra constants or numbers by name. Never user text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a caller keeps: the audit service's signed promise that the record exists.

    `meshkit.tlog.check_receipt` says how it is checked, and `signed_bytes` there what is signed.
    """

    origin: str
    index: int
    """0-based position of the OUTCOME in the log."""
    leaf_hash: bytes
    call_id: bytes
    trace_id: bytes
    prompt_salt: bytes = b""
    prompt_commitment: bytes = b""
    answer_salt: bytes = b""
    answer_commitment: bytes = b""
    key: bytes = b""
    """Ed25519 public key, made in memory when the audit service started: 32 bytes."""
    key_endorsement: bytes = b""
    """Signed-note signature of the log's checkpoint key over that key."""
    signature: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """An event's place in the log, and for an OUTCOME its signed receipt (salts filled in)."""

    index: int
    leaf_hash: bytes
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An event as the log holds it: the very bytes that were hashed."""

    index: int
    phase: Phase
    leaf: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed tree head: C2SP tlog-checkpoint, as text, with its signatures."""

    note: str
    size: int
    root: bytes


class Audit(Protocol):
    """Keeps an append-only, signed record of what the mesh did and why."""

    async def append(self, event: Event) -> Appended:
        """Record an event. When this returns, it is on stable storage, exactly once.

        The same `call_id` and phase with the same content again gives the first place again.

        Raises:
            Refusal: CONFLICT (same key, other content); OVERLOADED (intake full); AUDIT_DOWN (not
                durable; safe to send again, unchanged); KEYS_DOWN (payload cannot be sealed).
        """
        ...

    async def records(
        self, tenant: str, *, call_id: bytes | None = None, trace_id: bytes | None = None
    ) -> tuple[Record, ...]:
        """Find a tenant's records by call or by trace, in log order; empty if there are none."""
        ...

    async def checkpoint(self) -> Checkpoint:
        """Return the newest published checkpoint."""
        ...

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Prove that leaf `index` is in the tree of `size` leaves. Raises Refusal: NOT_FOUND."""
        ...

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Prove that the tree of `new` leaves extends that of `old`. Raises Refusal: NOT_FOUND."""
        ...
