"""A leaf as an OCSF 1.8 event. PURE.

    ocsf_record(leaf, index, origin)

It is made from the leaf's bytes and changes nothing in them: what OCSF has no place for stands
under `unmapped`, the leaf's hash among it, so that a record can be traced back to the entry that
proves it. Times are in milliseconds, as OCSF has them; the leaf's microseconds are in `unmapped`.

Source: https://schema.ocsf.io/1.8.0/classes (what each class requires: tests/audit/test_ocsf.py)
"""

from __future__ import annotations

import json
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from audit.records.ocsf import OcsfClass
from meshkit.contract import Reason
from meshkit.tlog import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VERSION", "Severity", "ocsf_record"]

VERSION = "1.8.0"


class Severity(IntEnum):
    """`severity_id`."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


_OTHER = 99
_SEVERITIES = {
    Reason.BLOCKED.name: Severity.MEDIUM,
    Reason.UNAUTHENTICATED.name: Severity.LOW,
    Reason.DENIED.name: Severity.LOW,
    Reason.LIMITED.name: Severity.LOW,
    Reason.EVIDENCE_LOST.name: Severity.CRITICAL,
    Reason.INTERNAL.name: Severity.HIGH,
}
_ASSISTANT = 2
"""`ai_role_id`: the model generating a response."""
_MAPPED = frozenset({"ocsf", "usage", "trace_id", "span_id"})
"""Members of a leaf's event that have their place in OCSF, all of them."""
_Event = dict[str, Any]


def ocsf_record(leaf: bytes, index: int, origin: str) -> dict[str, Any]:
    """Say what a leaf says as an OCSF 1.8 event.

    Args:
        leaf: The entry's bytes.
        index: Its place in the log, 0-based.
        origin: The log's name.

    Raises:
        ValueError: it is no leaf of ours.
    """
    try:
        whole = json.loads(leaf)
        return _record(whole["event"], whole["log"], leaf, index, origin)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        # Without the cause: its text may quote the leaf.
        msg = "leaf is not of this schema"
        raise ValueError(msg) from None


def _record(event: _Event, log: _Event, leaf: bytes, index: int, origin: str) -> dict[str, Any]:
    ids = event["ocsf"]
    class_uid = ids["class_uid"]
    ended_ms = event["time_us"] // 1_000
    began_ms = (event["time_us"] - event.get("duration_us", 0)) // 1_000
    outcome = event.get("outcome", "")
    severity = _SEVERITIES.get(outcome, Severity.INFORMATIONAL)
    found = class_uid == OcsfClass.DETECTION_FINDING
    told = {
        **ids,
        "category_uid": class_uid // 1_000,
        "severity_id": int(max(severity, Severity.HIGH) if found else severity),
        "time": ended_ms,
        "start_time": began_ms,
        "end_time": ended_ms,
        "duration": event.get("duration_us", 0) // 1_000,
        "metadata": _metadata(event, log, index, origin),
        "unmapped": {
            **{name: value for name, value in event.items() if name not in _MAPPED},
            "log": log,
            "leaf_hash": leaf_hash(leaf).hex(),
        },
        **_OF_CLASS[class_uid](event, log),
    }
    if outcome:
        told["status_code"] = outcome
    return told


def _metadata(event: _Event, log: _Event, index: int, origin: str) -> dict[str, Any]:
    told = {
        "version": VERSION,
        "product": {"name": "Sealgate", "vendor_name": "Sealgate"},
        "uid": f"{origin}/{index}",
        "sequence": index,
        "log_name": origin,
        "log_provider": log["producer"],
        "logged_time": log["received_us"] // 1_000,
        "correlation_uid": event["call_id"],
        "event_code": event["action"],
    }
    if event["ocsf"]["class_uid"] == OcsfClass.API_ACTIVITY:
        told["profiles"] = ["ai_operation", "trace"]
    if "tenant" in event:
        told["tenant_uid"] = event["tenant"]
    return told


def _who(event: _Event, log: _Event) -> str:
    """Whoever did it, as a pseudonym; of a service, its name."""
    return str(event.get("user") or event.get("actor") or log["producer"])


def _actor(event: _Event, log: _Event) -> dict[str, Any]:
    """`user`: the person, or the workload where there is none; `app_uid`: the workload."""
    actor: dict[str, Any] = {"user": {"uid": _who(event, log)}}
    return actor | {"app_uid": event.get("actor", log["producer"])}


def _endpoint(event: _Event, log: _Event) -> dict[str, Any]:
    """Where it came from: the pseudonym of an address, or the service that acted by itself."""
    if "peer" in event:
        return {"uid": event["peer"]}
    return {"svc_name": log["producer"]}


def _api(event: _Event, log: _Event) -> dict[str, Any]:
    told: dict[str, Any] = {
        "actor": _actor(event, log),
        "src_endpoint": _endpoint(event, log),
        "api": {
            "operation": event["action"],
            "service": {"name": log["producer"]},
            "request": {"uid": event["call_id"]},
        },
        "trace": _trace(event),
    }
    if "model" in event:
        digest = event.get("model_digest", "")
        told["ai_model"] = {"ai_provider": "Sealgate", "name": event["model"], "version": digest}
    if "usage" in event:
        told["message_context"] = _context(event, log)
    return told


def _context(event: _Event, log: _Event) -> dict[str, Any]:
    """Count tokens; the texts themselves are in no record."""
    usage = event["usage"]
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return {
        "ai_role_id": _ASSISTANT,
        "service": {"name": log["producer"]},
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _trace(event: _Event) -> dict[str, Any]:
    ended_us = event["time_us"]
    span = {
        "uid": event["span_id"],
        "start_time": (ended_us - event.get("duration_us", 0)) // 1_000,
        "end_time": ended_us // 1_000,
    }
    return {"uid": event["trace_id"], "span": span}


def _datastore(event: _Event, log: _Event) -> dict[str, Any]:
    bucket = {"type_id": _OTHER, "type": "audit log", "name": "records"}
    if event["action"].startswith(("payload.", "subject.", "hold.", "tenant.")):
        bucket["name"] = "payloads"
    elif event["action"].startswith("archive."):
        bucket["name"] = "archive"
    elif event["action"].startswith("key."):
        bucket["name"] = "keys"
    return {
        "actor": _actor(event, log),
        "src_endpoint": _endpoint(event, log),
        "databucket": bucket,
    }


def _authentication(event: _Event, log: _Event) -> dict[str, Any]:
    return {
        "user": {"uid": _who(event, log)},
        "service": {"name": log["producer"]},
        "src_endpoint": _endpoint(event, log),
    }


def _session(event: _Event, log: _Event) -> dict[str, Any]:
    """`privileges`: what was asked for."""
    return {
        "user": {"uid": _who(event, log)},
        "privileges": [event["action"]],
        "src_endpoint": _endpoint(event, log),
    }


def _access(event: _Event, log: _Event) -> dict[str, Any]:
    """Who may do what is changed for all at once: by a file, whose digest is in `unmapped`."""
    return {
        "actor": _actor(event, log),
        "user": {"name": "all"},
        "privileges": [event.get("detail", {}).get("new", event["action"])],
    }


def _entity(event: _Event, log: _Event) -> dict[str, Any]:
    """`entity`: a key, a tenant or a policy, by the digest or id that the event tells."""
    detail = event.get("detail", {})
    kind = event["action"].partition(".")[0]
    named = detail.get("new") or detail.get("digest") or detail.get("key") or event["call_id"]
    return {
        "actor": _actor(event, log),
        "src_endpoint": _endpoint(event, log),
        "entity": {"name": kind, "type": kind, "uid": named},
    }


def _finding(event: _Event, log: _Event) -> dict[str, Any]:
    types = sorted({row[1] for row in event.get("verdicts", [])})
    return {
        "finding_info": {
            "uid": event["call_id"],
            "title": event.get("outcome") or event["action"],
            "types": types or [event["action"]],
            "created_time": event["time_us"] // 1_000,
        },
        "actor": _actor(event, log),
        "src_endpoint": _endpoint(event, log),
    }


def _event_log(event: _Event, log: _Event) -> dict[str, Any]:
    return {
        "actor": _actor(event, log),
        "src_endpoint": _endpoint(event, log),
        "log_name": "audit",
        "log_provider": log["producer"],
    }


def _lifecycle(event: _Event, log: _Event) -> dict[str, Any]:
    detail = event.get("detail", {})
    name = detail.get("model") or detail.get("service") or log["producer"]
    app = {"name": name, "uid": detail.get("digest") or log["producer"]}
    if "version" in detail:
        app["version"] = detail["version"]
    return {"app": app, "actor": _actor(event, log)}


_OF_CLASS: dict[int, Callable[[_Event, _Event], dict[str, Any]]] = {
    OcsfClass.API_ACTIVITY: _api,
    OcsfClass.APPLICATION_LIFECYCLE: _lifecycle,
    OcsfClass.AUTHENTICATION: _authentication,
    OcsfClass.AUTHORIZE_SESSION: _session,
    OcsfClass.DATASTORE_ACTIVITY: _datastore,
    OcsfClass.DATA_SECURITY_FINDING: _finding,
    OcsfClass.DETECTION_FINDING: _finding,
    OcsfClass.ENTITY_MANAGEMENT: _entity,
    OcsfClass.EVENT_LOG_ACTIVITY: _event_log,
    OcsfClass.USER_ACCESS: _access,
}
