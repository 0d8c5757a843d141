"""What each field of a leaf means, in a sentence, and how a reader is shown its value. PURE."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ["Field", "clock", "day_of", "fields_of", "ocsf_name", "pretty", "span_of_time"]

_MEANING = {
    "schema": "The form of this record.",
    "event.action": "What was asked of Sealgate.",
    "event.actor": "Pseudonym of the workload that asked, within its tenant.",
    "event.cache": "Where the answer came from: l1, l2 or l3 of the cache; miss, down or off.",
    "event.call_id": "The call. INTENT and OUTCOME of a call bear the same one.",
    "event.commitments": "HMAC-SHA-256 of a text under a random salt. Who holds text and salt (the "
    "caller's receipt has both) shows that it is this one; the record alone tells nothing of it.",
    "event.detail": "Constants and numbers that belong to this kind of event.",
    "event.duration_us": "From the call's arrival to its outcome.",
    "event.finish_reason": "Why the model stopped.",
    "event.first_token_us": "From the call's arrival to the first released character.",
    "event.model": "The model, by the name that the caller used.",
    "event.model_digest": "SHA-256 of the model's manifest: which weights these were.",
    "event.ocsf": "The same in the words of OCSF 1.8, which SIEMs read.",
    "event.outcome": "What became of it: released, or the reason of its refusal.",
    "event.phase": "INTENT is durable before the model is asked; OUTCOME before the answer leaves.",
    "event.policies": "SHA-256 of the policies that decided.",
    "event.prompt_template_digest": "SHA-256 of the template that the prompt was put into.",
    "event.pseudonym_key": "Which of the tenant's pseudonym keys was in force.",
    "event.purpose": "The purpose of use that the caller stated.",
    "event.span_id": "The call's span in its distributed trace.",
    "event.subject": "Pseudonym of the person whom the data is about.",
    "event.tenant": "Pseudonym of the tenant.",
    "event.time_us": "When the producer saw it, UTC.",
    "event.tls": "TLS version and key exchange of the caller's connection.",
    "event.trace_id": "The distributed trace; the caller may have chosen it.",
    "event.usage": "Model tokens read and written.",
    "event.user": "Pseudonym of the person who asked, within the tenant.",
    "event.verdicts": "What was found in the texts, by type and place, and what was done about it.",
    "log.intent": "Index of the call's INTENT in this log.",
    "log.payload_sha256": "SHA-256 of the sealed texts. They are kept apart and may be erased; the "
    "record stays.",
    "log.producer": "The service that says so, by its certificate.",
    "log.received_us": "When the audit service took it in, UTC.",
    "log.retention": "How long the sealed texts are kept: a class of the operator's.",
    "log.skewed": "The producer's clock and the audit service's differ by more than is allowed.",
}
_CLASSES = {
    1008: "Event Log Activity",
    2004: "Detection Finding",
    2006: "Data Security Finding",
    3002: "Authentication",
    3003: "Authorize Session",
    3004: "Entity Management",
    3005: "User Access Management",
    6002: "Application Lifecycle",
    6003: "API Activity",
    6005: "Datastore Activity",
}
_STATUS = {0: "unknown", 1: "success", 2: "failure"}
_TEXT_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Field:
    """A row of the table: name, value as text, and what it means."""

    name: str
    value: str
    meaning: str


def clock(time_us: int) -> str:
    """Write a time in UTC, to the millisecond: `2026-11-22 05:14:21.042`."""
    moment = datetime.fromtimestamp(time_us / 1_000_000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1_000:03d}"


def day_of(time_us: int) -> str:
    """Write the day of a time, in UTC: `2026-11-22`."""
    return datetime.fromtimestamp(time_us / 1_000_000, UTC).strftime("%Y-%m-%d")


def span_of_time(duration_us: float) -> str:
    """Write how long something took, to three digits or so: `12.4 ms`."""
    for unit, size in (("s", 1_000_000), ("ms", 1_000)):
        if duration_us >= size:
            return f"{duration_us / size:.3g} {unit}"
    return f"{duration_us:.0f} µs"


def ocsf_name(ids: dict[str, Any]) -> str:
    """Name an event's OCSF class, with its ids."""
    name = _CLASSES.get(ids.get("class_uid", 0), "a class of its own")
    status = _STATUS.get(ids.get("status_id", 0), "other")
    return f"{name} {ids.get('class_uid')}, type {ids.get('type_uid')}, status {status}"


def pretty(leaf: bytes) -> str:
    """Lay a leaf out over lines, for people; what is hashed is the one long line."""
    return json.dumps(json.loads(leaf), ensure_ascii=False, indent=2)


def fields_of(event: dict[str, Any], log: dict[str, Any]) -> list[Field]:
    """Explain a leaf's members, in their order."""
    rows = [_field("event", name, value) for name, value in event.items()]
    return [*rows, *(_field("log", name, value) for name, value in log.items())]


def _field(part: str, name: str, value: object) -> Field:
    path = f"{part}.{name}"
    return Field(path, _shown(name, value)[:_TEXT_MAX], _MEANING.get(path, ""))


def _shown(name: str, value: Any) -> str:  # noqa: ANN401 -- parsed JSON
    if name == "ocsf":
        return ocsf_name(value)
    if name in {"time_us", "received_us"}:
        return f"{clock(value)} UTC"
    if name.endswith("_us"):
        return span_of_time(value)
    if name == "verdicts":
        return "; ".join(
            f"{row[1]} {row[2]} \u00d7{row[4]} in the {row[0]}: {row[3]}" for row in value
        )
    if isinstance(value, dict):
        return "; ".join(f"{key} {_plain(value[key])}" for key in value)
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return _plain(value)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
