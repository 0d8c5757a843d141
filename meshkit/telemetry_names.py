"""Every key that may stand on a span or in a log line, and what its value may look like. PURE.

Allow-lists, because both leave for places we do not run: a key that is not here is refused in tests
and dropped (and counted) in production. Labels of metrics have a list of their own, in
`meshkit.metric_list`, for they need to be few as well. A string value must look like a name:
no spaces, no `@`, at most 256 ASCII characters, so that prose or an address cannot pass for one.

`rpc.*`, `gen_ai.*` and `error.type` are OpenTelemetry's semantic conventions 1.36; `sealgate.*`
are ours.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["KEYS", "LOG_KEYS", "NAME_CHARS_MAX", "is_event", "is_name", "may_set"]

RPC_SYSTEM: Final = "rpc.system"
RPC_METHOD: Final = "rpc.method"
RPC_GRPC_STATUS_CODE: Final = "rpc.grpc.status_code"
ERROR_TYPE: Final = "error.type"

GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

CALL_ID: Final = "sealgate.call_id"
TENANT: Final = "sealgate.tenant"
AUDIT_INDEX: Final = "sealgate.audit.index"
AUDIT_ORIGIN: Final = "sealgate.audit.origin"
AUDIT_LEAF_HASH: Final = "sealgate.audit.leaf_hash"
REASON: Final = "sealgate.reason"
FINISH_REASON: Final = "sealgate.finish_reason"
CACHE_TIER: Final = "sealgate.cache.tier"
FINDINGS: Final = "sealgate.findings"
POLICY_DIGEST: Final = "sealgate.policy_digest"
TLS_VERSION: Final = "sealgate.tls.version"
TLS_GROUP: Final = "sealgate.tls.group"
STREAM_FRAMES: Final = "sealgate.stream.frames"
BATCH_EVENTS: Final = "sealgate.batch.events"
BYTES: Final = "sealgate.bytes"

KEYS: Final = frozenset(
    {
        RPC_SYSTEM,
        RPC_METHOD,
        RPC_GRPC_STATUS_CODE,
        ERROR_TYPE,
        GEN_AI_OPERATION_NAME,
        GEN_AI_PROVIDER_NAME,
        GEN_AI_REQUEST_MODEL,
        GEN_AI_REQUEST_MAX_TOKENS,
        GEN_AI_REQUEST_TEMPERATURE,
        GEN_AI_REQUEST_TOP_P,
        GEN_AI_USAGE_INPUT_TOKENS,
        GEN_AI_USAGE_OUTPUT_TOKENS,
        CALL_ID,
        TENANT,
        AUDIT_INDEX,
        AUDIT_ORIGIN,
        AUDIT_LEAF_HASH,
        REASON,
        FINISH_REASON,
        CACHE_TIER,
        FINDINGS,
        POLICY_DIGEST,
        TLS_VERSION,
        TLS_GROUP,
        STREAM_FRAMES,
        BATCH_EVENTS,
        BYTES,
    }
)

LOG_KEYS: Final = frozenset(
    {
        *("at", "event", "frames", "kind", "level", "logger", "span_id", "trace_id", "where"),
        *("attempts", "audit_port", "backlog", "code", "count", "digest", "doing", "drain_ms"),
        *("durable", "errno", "events", "failures", "hits", "kept", "method", "mirrored"),
        *("misses", "model", "name", "names", "new", "old", "pid", "policies", "policies_digest"),
        *("policy", "policy_digest", "port", "published", "reason", "recognizers"),
        *("remaining_s", "role", "seconds", "service", "services", "starts", "status", "stop_ms"),
        *("tenants", "verb", "version"),
    }
)
"""The first row is what `meshkit.logs` adds by itself."""

NAME_CHARS_MAX: Final = 256

_NAME = re.compile(rf"[A-Za-z0-9._:/#+\-]{{0,{NAME_CHARS_MAX}}}", re.ASCII)


_EVENT = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+", re.ASCII)


def is_event(text: str) -> bool:
    """Whether `text` looks like an event of ours: `audit.serving`."""
    return len(text) <= NAME_CHARS_MAX and _EVENT.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether `text` looks like an identifier rather than like something a person wrote."""
    return _NAME.fullmatch(text) is not None


def may_set(key: str, value: object) -> bool:
    """Whether a span may carry `value` under `key`: a number, a truth value or a name."""
    if key not in KEYS:
        return False
    return is_name(value) if isinstance(value, str) else isinstance(value, int | float)
