"""Entries in the Elastic Common Schema, one JSON object a line. PURE.

Fields of ECS 8.17 and 9.x alone, and our own under `sealgate`. `event.original` is the leaf, byte
for byte, and `event.hash` its hash in the log: so a document in an index can be checked against a
checkpoint. Actors, users, subjects and tenants are pseudonyms.
Source: https://www.elastic.co/docs/reference/ecs/ecs-field-reference
"""

from __future__ import annotations

import json
from base64 import b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from audit.export.told import iso

if TYPE_CHECKING:
    from audit.export.told import Told

__all__ = ["ECS_VERSION", "ecs_line", "ecs_record"]

ECS_VERSION = "8.17.0"

# By OCSF class: event.category, and event.type for want of a better one.
_BY_CLASS = {
    1008: ("configuration", "info"),
    2004: ("intrusion_detection", "info"),
    2006: ("intrusion_detection", "info"),
    3002: ("authentication", "start"),
    3003: ("authentication", "start"),
    3004: ("configuration", "change"),
    3005: ("iam", "change"),
    6002: ("process", "change"),
    6003: ("api", "access"),
    6005: ("database", "access"),
}
_FINDINGS = frozenset({2004, 2006})
_BY_ACTIVITY = {
    (1008, 9): "start", (1008, 10): "end",
    (3004, 1): "creation", (3004, 4): "deletion",
    (6002, 3): "start", (6002, 4): "end",
    (6005, 2): "change", (6005, 7): "deletion",
}  # fmt: skip
_OUTCOMES = {1: "success", 2: "failure"}
_DENIALS = frozenset({"DENIED", "UNAUTHENTICATED", "BLOCKED", "LIMITED"})


def ecs_line(told: Told) -> bytes:
    """Write a document as one line: ASCII, so that no character ends it early."""
    return json.dumps(ecs_record(told), separators=(",", ":"), sort_keys=True).encode()


def ecs_record(told: Told) -> dict[str, Any]:
    """Map an entry to a document; members that it has not are left out."""
    usage = {
        "input_tokens": told.count("usage", "prompt_tokens"),
        "output_tokens": told.count("usage", "completion_tokens"),
    }
    group, version = told.tls[1], told.tls[0]
    whole = {
        "@timestamp": iso(told.time_us),
        "ecs": {"version": ECS_VERSION},
        "event": _event(told),
        "organization": {"id": told.text("tenant")},
        "user": {"id": told.text("user") or told.text("actor")},
        "related": {"user": sorted({told.text(name) for name in ("user", "actor", "subject")})},
        "service": {"name": told.producer.rpartition("/")[2], "type": "sealgate"},
        "trace": {"id": told.text("trace_id").strip("0") and told.text("trace_id")},
        "span": {"id": told.text("span_id").strip("0") and told.text("span_id")},
        "tls": {
            "version": version.removeprefix("TLSv"),
            "version_protocol": version and "tls",
            "curve": group,
        },
        "gen_ai": {
            "request": {"model": told.text("model")},
            "response": {"finish_reasons": [told.text("finish_reason")]},
            "usage": usage,
        },
        "sealgate": _ours(told),
    }
    kept: dict[str, Any] = _without_empty(whole)
    return kept


def _event(told: Told) -> dict[str, Any]:
    kind, activity = told.count("ocsf", "class_uid"), told.count("ocsf", "activity_id")
    category, usual = _BY_CLASS.get(kind or 0, ("api", "info"))
    types = [_BY_ACTIVITY.get((kind or 0, activity or 0), usual)]
    if told.text("outcome") in _DENIALS and category != "authentication":
        types.append("denied")
    received, duration_us = told.received_us, told.number("duration_us")
    return {
        "kind": "alert" if kind in _FINDINGS else "event",
        "category": [category],
        "type": types,
        "action": told.text("action"),
        "outcome": _OUTCOMES.get(told.count("ocsf", "status_id") or 0, "unknown"),
        "reason": told.text("outcome"),
        "id": f"{told.text('call_id')}-{told.text('phase')}" if told.event else "",
        "sequence": told.index,
        "ingested": "" if received is None else iso(received),
        "duration": None if duration_us is None else duration_us * 1_000,
        "provider": "sealgate",
        "module": "sealgate",
        "dataset": "sealgate.audit",
        "hash": told.leaf_hash,
        "original": _original(told),
    }


def _original(told: Told) -> str:
    """Return the leaf; one that is no leaf of ours in base64: it may be anything."""
    if told.event:
        with suppress(UnicodeDecodeError):
            return told.leaf.decode()
    return b64encode(told.leaf).decode()


def _ours(told: Told) -> dict[str, Any]:
    return {
        "log": {"origin": told.origin, "index": told.index, "leaf_hash": told.leaf_hash},
        "call_id": told.text("call_id"),
        "phase": told.text("phase"),
        "actor": told.text("actor"),
        "subject": told.text("subject"),
        "purpose": told.text("purpose"),
        "cache": told.text("cache"),
        "model_digest": told.text("model_digest"),
        "policies": {
            name: value for name, value in told.inner("policies").items() if isinstance(value, str)
        },
        "producer": told.producer,
        "verdicts": [
            {
                "direction": each.direction,
                "type": each.type,
                "subtype": each.subtype,
                "action": each.action,
                "count": each.times,
            }
            for each in told.verdicts
        ],
        "detail": {
            name: value for name, value in told.inner("detail").items() if isinstance(value, str)
        },
    }


def _without_empty(value: Any) -> Any:  # noqa: ANN401 -- JSON
    """Leave out what is not there: empty texts, lists and objects, and None; never a zero."""
    if isinstance(value, dict):
        kept = {name: _without_empty(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each not in ("", None, [], {})}
    if isinstance(value, list):
        return [each for each in map(_without_empty, value) if each not in ("", None, [], {})]
    return value
