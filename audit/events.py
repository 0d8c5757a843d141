"""What a leaf of the log says: an `Event` in canonical bytes, without any text of a user. PURE.

A leaf is JSON as RFC 8785 (JCS) writes it; its bytes are what is hashed and never made again:

    {"event": {...what the producer said...}, "log": {...what the audit service adds...},
     "schema": "sealgate/audit/v1"}

    event   call_id, phase, time_us, action, outcome, finish_reason, tenant and actor and user
            (pseudonyms), tls, ocsf ids, model, model_digest, policies, purpose, verdicts
            [[direction, type, subtype, action, count]...], usage, cache, trace_id, span_id,
            commitments (values alone), detail
    log     producer (SPIFFE id), received_us, retention, intent (index of the call's INTENT),
            payload_sha256 (of the sealed payload), skewed (clocks differ by more than a second)

Absent means empty. Digests, ids and commitments are lower-case hexadecimal. A pseudonym is the
first 16 bytes of HMAC-SHA-256 under the pseudonym key, so that a leaf outlives the key's erasure
as a random number. The same event again gives the same `event` bytes: that is how a repeated append
is told from a conflicting one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from hmac import digest as hmac_digest
from typing import TYPE_CHECKING, Any

from meshkit.contract import Phase, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshkit.contract import Commitment, Event

__all__ = [
    "Leaf",
    "LogPart",
    "Pseudonyms",
    "check_event",
    "event_bytes",
    "leaf_bytes",
    "parse_leaf",
    "same_event",
]

SCHEMA = "sealgate/audit/v1"
PSEUDONYM_BYTES = 16
PSEUDONYM_KEY_BYTES = 32
COUNTS_MAX = 256
DETAILS_MAX = 32
DETAIL_CHARS_MAX = 512
JSON_INTEGER_MAX = 2**53 - 1
"""Beyond it, readers that keep numbers as doubles would see another one (RFC 7493, 2.2)."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", re.ASCII)
_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_DETAIL = re.compile(r"[ -~]{0,512}", re.ASCII)

_encode = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode

# OCSF 1.8 (class, activity) by action and by outcome; type_uid = class * 100 + activity.
_API, _AUTHENTICATION, _FINDING, _LIFECYCLE, _ENTITY = 6003, 3002, 2006, 6002, 3004
_OTHER = 99
_BY_ACTION = {
    "chat": (_API, 1),
    "chat.stream": (_API, 1),
    "models.list": (_API, 2),
    "service.start": (_LIFECYCLE, 3),
    "service.stop": (_LIFECYCLE, 4),
    "receipt.key": (_ENTITY, 1),
}
_BY_OUTCOME = {
    Reason.UNAUTHENTICATED.name: (_AUTHENTICATION, 1),
    Reason.BLOCKED.name: (_FINDING, 1),
}
_UNKNOWN, _SUCCESS, _FAILURE = 0, 1, 2


class Pseudonyms:
    """Turns names into random-looking ones, the same each time under one key (32 bytes)."""

    def __init__(self, key: bytes) -> None:
        if len(key) != PSEUDONYM_KEY_BYTES:
            msg = "pseudonym key is not 32 bytes"
            raise ValueError(msg)
        self._key = key
        # Few names, many events: an HMAC and its hexadecimal cost 3 µs, a look-up 0.1 µs.
        self._of = lru_cache(maxsize=8_192)(self._compute)

    def _compute(self, kind: str, *names: str) -> str:
        parts = [b"sealgate/pseudonym/v1\0"]
        for name in (kind, *names):
            raw = name.encode()
            parts += (len(raw).to_bytes(4), raw)
        return hmac_digest(self._key, b"".join(parts), sha256)[:PSEUDONYM_BYTES].hex()

    def tenant(self, tenant: str) -> str:
        """Return a tenant's pseudonym: 32 hexadecimal digits."""
        return self._of("tenant", tenant)

    def workload(self, tenant: str, spiffe_id: str) -> str:
        """Return a workload's pseudonym within its tenant."""
        return self._of("workload", tenant, spiffe_id)

    def user(self, tenant: str, user: str) -> str:
        """Return a user's pseudonym within the tenant."""
        return self._of("user", tenant, user)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """What the audit service adds to an event, once, when it gets its place."""

    producer: str
    received_us: int
    retention: str
    intent: int | None = None
    payload_sha256: str = ""
    skewed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What the index needs of a leaf; `event` and `log` are its parsed JSON."""

    call_id: bytes
    phase: Phase
    tenant: str
    trace_id: bytes
    event: dict[str, Any]
    log: dict[str, Any]


@lru_cache(maxsize=8_192)
def _is_label(text: str) -> bool:
    return _LABEL.fullmatch(text) is not None


def _need(holds: object, field: str) -> None:
    if not holds:
        raise Refusal(Reason.INVALID_FIELD, field=field)


def _fits(number: int) -> bool:
    return 0 <= number <= JSON_INTEGER_MAX


def check_event(event: Event) -> None:
    """Refuse what a leaf must not hold: free text, wrong lengths, numbers beyond 2**53.

    Raises:
        Refusal: INVALID_FIELD with the field's name.
    """
    _need(len(event.call_id) == 16, "call_id")  # noqa: PLR2004 -- a UUID
    _need(len(event.trace.trace_id) == 16, "trace_id")  # noqa: PLR2004 -- W3C
    _need(len(event.trace.span_id) == 8, "span_id")  # noqa: PLR2004 -- W3C
    _need(0 < event.occurred_at_us <= JSON_INTEGER_MAX, "occurred_at")
    nameless = event.phase is Phase.NOTE and not event.tenant
    _need(nameless or _TENANT.fullmatch(event.tenant), "tenant")
    _need(_is_label(event.action), "action")
    for text, field in (
        (event.outcome, "outcome"),
        (event.model, "model"),
        (event.purpose, "purpose"),
        (event.cache_tier, "cache_tier"),
        (event.connection.tls_version, "tls_version"),
        (event.connection.key_exchange_group, "key_exchange_group"),
    ):
        _need(not text or _is_label(text), field)
    for digest, field in (
        (event.model_digest, "model_digest"),
        (event.compliance_policy_digest, "compliance_policy_digest"),
        (event.authorization_policy_digest, "authorization_policy_digest"),
    ):
        _need(len(digest) in {0, 32}, field)
    _need(_fits(event.usage.prompt_tokens) and _fits(event.usage.completion_tokens), "usage")
    _check_lists(event)


def _check_lists(event: Event) -> None:
    _need(len(event.counts) <= COUNTS_MAX, "counts")
    for found in event.counts:
        named = _is_label(found.type) and _is_label(found.action)
        _need(named and (not found.subtype or _is_label(found.subtype)), "counts")
        _need(_fits(found.count), "counts")
    _need(len(event.detail) <= DETAILS_MAX, "detail")
    _need(len(dict(event.detail)) == len(event.detail), "detail")
    for name, value in event.detail:
        _need(_is_label(name) and _DETAIL.fullmatch(value), "detail")
    # A payload is sealed under its tenant's key, so there must be a tenant.
    _need(event.tenant or not (event.payload or list(commitments(event))), "tenant")
    for _, commitment in commitments(event):
        _need(len(commitment.salt) == len(commitment.value) == 32, "commitments")  # noqa: PLR2004


def commitments(event: Event) -> Iterable[tuple[str, Commitment]]:
    """Yield the commitments that the event has, by name."""
    for name, commitment in (
        ("answer_delivered", event.answer_delivered),
        ("answer_released", event.answer_released),
        ("prompt_received", event.prompt_received),
        ("prompt_screened", event.prompt_screened),
    ):
        if commitment is not None:
            yield name, commitment


def _ocsf(event: Event) -> list[int]:
    """Return OCSF class_uid, activity_id, type_uid, status_id."""
    pair = _BY_OUTCOME.get(event.outcome) or _BY_ACTION.get(event.action) or (_API, _OTHER)
    status = _UNKNOWN
    if event.phase is Phase.OUTCOME:
        status = _SUCCESS if event.outcome == "released" else _FAILURE
    return [pair[0], pair[1], pair[0] * 100 + pair[1], status]


def event_bytes(event: Event, pseudonyms: Pseudonyms) -> bytes:
    """Write what the producer said: the `event` member, canonical; about 15 µs.

    The event must have passed `check_event`.
    """
    class_uid, activity_id, type_uid, status_id = _ocsf(event)
    told: dict[str, object] = {
        "action": event.action,
        "call_id": event.call_id.hex(),
        "ocsf": {
            "activity_id": activity_id,
            "class_uid": class_uid,
            "status_id": status_id,
            "type_uid": type_uid,
        },
        "phase": event.phase.value,
        "span_id": event.trace.span_id.hex(),
        "time_us": event.occurred_at_us,
        "trace_id": event.trace.trace_id.hex(),
    }
    optional = {
        "cache": event.cache_tier,
        "commitments": {name: c.value.hex() for name, c in commitments(event)},
        "detail": dict(event.detail),
        "finish_reason": event.finish_reason and event.finish_reason.value,
        "model": event.model,
        "model_digest": event.model_digest.hex(),
        "outcome": event.outcome,
        "policies": _policies(event),
        "purpose": event.purpose,
        "tenant": event.tenant and pseudonyms.tenant(event.tenant),
        "tls": [*filter(None, (event.connection.tls_version, event.connection.key_exchange_group))],
        "usage": _usage(event),
        "verdicts": [
            [found.direction.value, found.type, found.subtype, found.action, found.count]
            for found in event.counts
        ],
    }
    told.update({name: value for name, value in optional.items() if value})
    if event.actor is not None:
        told["actor"] = pseudonyms.workload(event.tenant, event.actor.spiffe_id)
        if event.actor.user is not None:
            told["user"] = pseudonyms.user(event.tenant, event.actor.user)
    return _encode(told).encode()


def _policies(event: Event) -> dict[str, str]:
    pairs = (
        ("authorization", event.authorization_policy_digest),
        ("compliance", event.compliance_policy_digest),
    )
    return {name: digest.hex() for name, digest in pairs if digest}


def _usage(event: Event) -> dict[str, int]:
    pairs = (
        ("completion_tokens", event.usage.completion_tokens),
        ("prompt_tokens", event.usage.prompt_tokens),
    )
    return {name: tokens for name, tokens in pairs if tokens}


def leaf_bytes(event: bytes, log: LogPart) -> bytes:
    """Put the leaf together: `event` is what `event_bytes` gave; about 4 µs."""
    added: dict[str, object] = {
        "producer": log.producer,
        "received_us": log.received_us,
        "retention": log.retention,
    }
    if log.intent is not None:
        added["intent"] = log.intent
    if log.payload_sha256:
        added["payload_sha256"] = log.payload_sha256
    if log.skewed:
        added["skewed"] = True
    return b'{"event":%b,"log":%b,"schema":"%b"}' % (
        event,
        _encode(added).encode(),
        SCHEMA.encode(),
    )


def same_event(leaf: bytes, event: bytes) -> bool:
    """Tell whether a leaf holds this very event, whatever the audit service added."""
    # A JSON string cannot hold a bare quote, so nothing inside `event` can look like its end.
    return leaf.startswith(b'{"event":' + event + b',"log":{')


def parse_leaf(leaf: bytes) -> Leaf:
    """Read a leaf of ours back.

    Raises:
        ValueError: it is not a leaf of this schema.
    """
    try:
        return _read(json.loads(leaf))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        # Without the cause: its text may quote the leaf.
        msg = "leaf is not of this schema"
        raise ValueError(msg) from None


def _read(whole: dict[str, Any]) -> Leaf:
    if whole["schema"] != SCHEMA:
        raise KeyError(SCHEMA)
    event, log = whole["event"], whole["log"]
    return Leaf(
        call_id=bytes.fromhex(event["call_id"]),
        phase=Phase(event["phase"]),
        tenant=event.get("tenant", ""),
        trace_id=bytes.fromhex(event["trace_id"]),
        event=event,
        log=log,
    )
