"""What the audit log is told, and what it gives back. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from meshkit.contract.call import Actor, Connection, FinishReason, Message, TraceContext
from meshkit.contract.inference import Usage

if TYPE_CHECKING:
    from meshkit.contract.compliance import FindingCount


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
    subject: str = ""
    """Whom the data is about: an opaque id of the caller's choosing, at most 128 bytes of UTF-8.

    The leaf holds a pseudonym of it; without a tenant there is no subject.
    """
    connection: Connection = field(default_factory=Connection)
    action: str = "chat"
    """`chat`, `chat.stream`, `models.list`, `service.start`, `receipt.key`, `refusals.counted`…"""
    outcome: str = ""
    """OUTCOME: `released`, or a `Reason` name."""
    finish_reason: FinishReason | None = None
    model: str = ""
    model_digest: bytes = b""
    prompt_template_digest: bytes = b""
    """SHA-256 of the chat template that the model's prompts are written with."""
    compliance_policy_digest: bytes = b""
    authorization_policy_digest: bytes = b""
    purpose: str = ""
    counts: tuple[FindingCount, ...] = ()
    usage: Usage = field(default_factory=Usage)
    cache_tier: str = ""
    """`l1`, `l2`, `l3`, `miss`, `down` or `off`."""
    duration_us: int = 0
    """OUTCOME: from the call's arrival to this event; monotonic, so never below zero."""
    first_token_us: int = 0
    """OUTCOME: from the call's arrival to the first text that came of model or cache; 0: none."""
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


OPERATORS = "-"
"""As a document's only owner: no tenant's auditor reads it, only who has the archive itself."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a digest in a record stands for; the audit service keeps it under its SHA-256.

    kind: `model.manifest`, `model.template`, `policy.compliance`, `policy.authorization`…
    owners: the tenants whose auditors alone may read it; none: all auditors; or `OPERATORS`.
    """

    kind: str
    content: bytes = field(repr=False)
    owners: tuple[str, ...] = ()

    @property
    def digest(self) -> bytes:
        """What records name it by: 32 bytes."""
        return sha256(self.content).digest()


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
