"""What a leaf of the log says: an `Event` in canonical bytes, without any text of a user. PURE.

A leaf is JSON as RFC 8785 (JCS) writes it; its bytes are what is hashed and never made again:

    {"event": {...what the producer said...}, "log": {...what the audit service adds...},
     "schema": "sealgate/audit/v1"}

    event   call_id, phase, time_us, action, outcome, finish_reason, tenant and actor, user
            and subject (pseudonyms), tls, ocsf ids, model, model_digest, policies, purpose,
            prompt_template_digest, pseudonym_key (the id of the key that actor, user and subject
            are under: audit.pseudonyms), verdicts [[direction, type, subtype, action, count]...],
            usage, cache, duration_us, first_token_us, trace_id, span_id, commitments (values
            alone), detail
    log     producer (SPIFFE id), received_us, retention, intent (index of the call's INTENT),
            payload_sha256 (of the sealed payload), skewed (clocks differ by more than a second)

Absent means empty. Digests, ids and commitments are lower-case hexadecimal. A pseudonym is the
first 16 bytes of HMAC-SHA-256 under a key, so that a leaf outlives the key's erasure as a random
number. The same event again gives, under the same key, the same `event` bytes: that is how a
repeated append is told from a conflicting one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from audit.records.ocsf import activity_of, status_of
from meshkit.contract import Phase, Reason, Refusal
from meshkit.identity import is_label

if TYPE_CHECKING:
    from audit.keys.pseudonyms import EventNames
    from meshkit.contract import Commitment, Event

__all__ = [
    "Leaf",
    "LogPart",
    "check_event",
    "event_bytes",
    "leaf_bytes",
    "parse_leaf",
    "retention_of_leaf",
    "same_event",
]

SCHEMA = "sealgate/audit/v1"
COUNTS_MAX = 256
DETAILS_MAX = 32
DETAIL_CHARS_MAX = 512
SUBJECT_BYTES_MAX = 128
JSON_INTEGER_MAX = 2**53 - 1
"""Beyond it, readers that keep numbers as doubles would see another one (RFC 7493, 2.2)."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", re.ASCII)
_LABEL_CHARS_MAX = 128
_DETAIL = re.compile(r"[ -~]{0,512}", re.ASCII)

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
_SCHEMA_BYTES = SCHEMA.encode()
_RETENTION = b'"retention":"'
_CALL_ID_BYTES, _TRACE_ID_BYTES, _SPAN_ID_BYTES = 16, 16, 8
_COMMITMENT_LENGTHS = frozenset({32})
_DIGEST_LENGTHS = frozenset({0, 32})
_LABEL_FIELDS = (
    "outcome",
    "model",
    "purpose",
    "cache_tier",
    "tls_version",
    "key_exchange_group",
)


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


@lru_cache(maxsize=8_192)
def _is_kind(type_: str, subtype: str, action: str) -> bool:
    """Whether a count's three labels are: few combinations, many events."""
    return all(map(_LABEL.fullmatch, (type_, subtype or type_, action)))


def _demand(*checks: tuple[object, str]) -> None:
    """Refuse the first field whose check does not hold: one call for many, as events are many."""
    for holds, field in checks:
        if not holds:
            raise Refusal(Reason.INVALID_FIELD, field=field)


def check_event(event: Event) -> None:
    """Refuse what a leaf must not hold: free text, wrong lengths, numbers beyond 2**53.

    Raises:
        Refusal: INVALID_FIELD with the field's name.
    """
    _demand(
        (len(event.call_id) == _CALL_ID_BYTES, "call_id"),
        (len(event.trace.trace_id) == _TRACE_ID_BYTES, "trace_id"),
        (len(event.trace.span_id) == _SPAN_ID_BYTES, "span_id"),
        (0 < event.occurred_at_us <= JSON_INTEGER_MAX, "occurred_at"),
        (is_label(event.tenant) or (event.phase is Phase.NOTE and not event.tenant), "tenant"),
    )
    _check_labels(
        event.action,
        event.outcome,
        event.model,
        event.purpose,
        event.cache_tier,
        event.connection.tls_version,
        event.connection.key_exchange_group,
    )
    # Its pseudonym belongs to a tenant's key.
    named = event.tenant and len(event.subject.encode()) <= SUBJECT_BYTES_MAX
    usage = event.usage
    _demand(
        (len(event.model_digest) in _DIGEST_LENGTHS, "model_digest"),
        (len(event.compliance_policy_digest) in _DIGEST_LENGTHS, "compliance_policy_digest"),
        (len(event.authorization_policy_digest) in _DIGEST_LENGTHS, "authorization_policy_digest"),
        (len(event.prompt_template_digest) in _DIGEST_LENGTHS, "prompt_template_digest"),
        (0 <= event.duration_us <= JSON_INTEGER_MAX, "duration_us"),
        (0 <= event.first_token_us <= JSON_INTEGER_MAX, "first_token_us"),
        (named or not event.subject, "subject"),
        (0 <= usage.prompt_tokens <= JSON_INTEGER_MAX, "usage"),
        (0 <= usage.completion_tokens <= JSON_INTEGER_MAX, "usage"),
    )
    _check_lists(event)


@lru_cache(maxsize=8_192)
def _check_labels(action: str, *others: str) -> None:
    """Check all labels of an event at once: few combinations, many events."""
    _demand((_LABEL.fullmatch(action), "action"))
    for text, field in zip(others, _LABEL_FIELDS, strict=True):
        _demand((not text or _LABEL.fullmatch(text), field))


def _check_lists(event: Event) -> None:
    made = commitments(event)
    lengths = {len(part) for _, one in made for part in (one.salt, one.value)}
    _demand(
        (len(event.counts) <= COUNTS_MAX, "counts"),
        (len(event.detail) <= DETAILS_MAX, "detail"),
        # A payload is sealed under its tenant's key, so there must be a tenant.
        (event.tenant or not (event.payload or made), "tenant"),
        (lengths <= _COMMITMENT_LENGTHS, "commitments"),
    )
    for found in event.counts:
        size = len(found.type) + len(found.subtype) + len(found.action)
        # What is too long is not remembered.
        named = size <= 3 * _LABEL_CHARS_MAX and _is_kind(found.type, found.subtype, found.action)
        if not (named and 0 <= found.count <= JSON_INTEGER_MAX):
            raise Refusal(Reason.INVALID_FIELD, field="counts")
    if event.detail:
        _demand((len(dict(event.detail)) == len(event.detail), "detail"))
        for name, value in event.detail:
            short = len(name) <= _LABEL_CHARS_MAX
            _demand((short and _is_label(name) and _DETAIL.fullmatch(value), "detail"))


def commitments(event: Event) -> list[tuple[str, Commitment]]:
    """Return the commitments that the event has, by name, in the order of their names."""
    pairs = (
        ("answer_delivered", event.answer_delivered),
        ("answer_released", event.answer_released),
        ("prompt_received", event.prompt_received),
        ("prompt_screened", event.prompt_screened),
    )
    return [(name, commitment) for name, commitment in pairs if commitment is not None]


@lru_cache(maxsize=1_024)
def _ocsf(action: str, outcome: str, phase: Phase) -> str:
    """Write the OCSF ids: few combinations, many events."""
    does = activity_of(action, outcome)
    return (
        f'{{"activity_id":{does.activity_id},"class_uid":{does.class_uid},'
        f'"status_id":{status_of(outcome, phase)},"type_uid":{does.type_uid}}}'
    )


def event_bytes(event: Event, pseudonyms: EventNames) -> bytes:
    """Check an event and write what the producer said: the `event` member, canonical.

    Written by hand, in the order of RFC 8785: every text in here was checked to be a label, which
    needs no escaping, and a general encoder takes longer. About 10 µs.

    Raises:
        Refusal: INVALID_FIELD, as `check_event` says.
    """
    check_event(event)
    parts = [f'{{"action":"{event.action}"']
    actor = event.actor
    if actor is not None:
        parts.append(f',"actor":"{pseudonyms.workload(event.tenant, actor.spiffe_id)}"')
    if event.cache_tier:
        parts.append(f',"cache":"{event.cache_tier}"')
    parts.append(f',"call_id":"{event.call_id.hex()}"')
    if made := commitments(event):
        values = ",".join(f'"{name}":"{one.value.hex()}"' for name, one in made)
        parts.append(f',"commitments":{{{values}}}')
    if event.detail:
        parts.append(f',"detail":{_encode(dict(event.detail))}')
    parts.append(_number("duration_us", event.duration_us))
    if event.finish_reason is not None:
        parts.append(f',"finish_reason":"{event.finish_reason}"')
    parts.append(_number("first_token_us", event.first_token_us))
    if event.model:
        parts.append(f',"model":"{event.model}"')
    if event.model_digest:
        parts.append(f',"model_digest":"{event.model_digest.hex()}"')
    parts.append(f',"ocsf":{_ocsf(event.action, event.outcome, event.phase)}')
    if event.outcome:
        parts.append(f',"outcome":"{event.outcome}"')
    address = event.connection.peer_ip
    # Only with somebody who came from there: no key of a tenant is made for an address.
    if address and (pseudonyms.key_id or not event.tenant):
        parts.append(f',"peer":"{pseudonyms.peer(event.tenant, address)}"')
    parts.append(f',"phase":"{event.phase}"')
    parts += _second_half(event, pseudonyms)
    return "".join(parts).encode()


def _second_half(event: Event, pseudonyms: EventNames) -> list[str]:
    """Write the members from `policies` on, and the closing brace."""
    parts = [_policies(event.authorization_policy_digest, event.compliance_policy_digest)]
    if event.prompt_template_digest:
        parts.append(f',"prompt_template_digest":"{event.prompt_template_digest.hex()}"')
    if pseudonyms.key_id:
        parts.append(f',"pseudonym_key":"{pseudonyms.key_id}"')
    if event.purpose:
        parts.append(f',"purpose":"{event.purpose}"')
    parts.append(f',"span_id":"{event.trace.span_id.hex()}"')
    if event.subject:
        parts.append(f',"subject":"{pseudonyms.subject(event.tenant, event.subject)}"')
    if event.tenant:
        parts.append(f',"tenant":"{pseudonyms.tenant(event.tenant)}"')
    parts.append(f',"time_us":{event.occurred_at_us}')
    if event.connection.tls_version:
        group = event.connection.key_exchange_group
        second = f',"{group}"' if group else ""
        parts.append(f',"tls":["{event.connection.tls_version}"{second}]')
    parts.append(f',"trace_id":"{event.trace.trace_id.hex()}"')
    usage = event.usage
    if usage.completion_tokens or usage.prompt_tokens:
        completion, prompt = str(usage.completion_tokens or ""), str(usage.prompt_tokens or "")
        parts.append(
            _members(',"usage":', ("completion_tokens", completion), ("prompt_tokens", prompt))
        )
    if event.actor is not None and event.actor.user is not None:
        parts.append(f',"user":"{pseudonyms.user(event.tenant, event.actor.user)}"')
    if event.counts:
        rows = [
            f'["{f.direction}","{f.type}","{f.subtype}","{f.action}",{f.count}]'
            for f in event.counts
        ]
        parts.append(f',"verdicts":[{",".join(rows)}]')
    parts.append("}")
    return parts


@lru_cache(maxsize=1_024)
def _policies(authorization: bytes, compliance: bytes) -> str:
    """Write the digests of policies: few pairs, many events."""
    pairs = (("authorization", authorization), ("compliance", compliance))
    return _members(
        ',"policies":', *((name, f'"{raw.hex()}"' if raw else "") for name, raw in pairs)
    )


def _number(name: str, value: int) -> str:
    return f',"{name}":{value}' if value else ""


def _members(head: str, *pairs: tuple[str, str]) -> str:
    """Write an object of the members that have a value; nothing if none has."""
    told = ",".join([f'"{name}":{value}' for name, value in pairs if value])
    return f"{head}{{{told}}}" if told else ""


def leaf_bytes(event: bytes, log: LogPart) -> bytes:
    """Put the leaf together: `event` is what `event_bytes` gave."""
    intent = "" if log.intent is None else f'"intent":{log.intent},'
    payload = f'"payload_sha256":"{log.payload_sha256}",' if log.payload_sha256 else ""
    skewed = ',"skewed":true' if log.skewed else ""
    added = (
        f"{{{intent}{payload}{_producer(log.producer)}"
        f'"received_us":{log.received_us},"retention":"{log.retention}"{skewed}}}'
    )
    return b'{"event":%b,"log":%b,"schema":"%b"}' % (event, added.encode(), _SCHEMA_BYTES)


@lru_cache(maxsize=256)
def _producer(spiffe_id: str) -> str:
    """Write the producer: it comes from a certificate, so it is escaped."""
    return f'"producer":{_encode(spiffe_id)},'


def same_event(leaf: bytes, event: bytes) -> bool:
    """Tell whether a leaf holds this very event, whatever the audit service added."""
    # A JSON string cannot hold a bare quote, so nothing inside `event` can look like its end.
    return leaf.startswith(b'{"event":' + event + b',"log":{')


def retention_of_leaf(leaf: bytes) -> str:
    """Return the retention class in a leaf of ours, without parsing it: about 0.3 µs."""
    # The last member of that name is `log`'s: what stands in `event` comes before it.
    start = leaf.rindex(_RETENTION) + len(_RETENTION)
    return leaf[start : leaf.index(b'"', start)].decode()


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
