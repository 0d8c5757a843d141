"""Every metric: under which names it is counted, what it is called outside, what it means. PURE.

    counted("cache.l1.hit")     -->  sealgate_cache_lookups_total{tier="l1",result="hit"}

`source` is the name in `meshkit.counters`, with `{label}` where a part of it becomes a label: any
text without a dot, or, at the end, any text. What stands in no entry is not exported, and counted.
Where OpenTelemetry's semantic conventions have a metric, it bears their name and labels (1.36;
`rpc.server.call.duration` and `gen_ai.*`); all others are `sealgate_*`, in base units.

An allow-list: `LABELS` are all labels there are, each with what bounds its values. None is a
tenant, a user, a call, or anything else of which there may be any number. A value must look like a
name (`telemetry_names.is_name`) and be shorter than `VALUE_CHARS_MAX`; so no prose can be one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final

from meshkit.metric_list import LABELS, ROWS
from meshkit.telemetry_names import is_name

__all__ = [
    "LABELS",
    "METRICS",
    "OTEL_LABELS",
    "VALUE_CHARS_MAX",
    "Kind",
    "Metric",
    "found",
    "may_label",
]

VALUE_CHARS_MAX: Final = 96
_NAMES_REMEMBERED = 8_192


class Kind(StrEnum):
    """What a metric does over time."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    """Count and sum: what took how long on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric, as one name of `meshkit.counters` feeds it; several may feed the same.

    unit: UCUM, as OpenTelemetry has it: `s`, `{token}`, `1`.
    means: In one sentence.
    then: What an operator does about it; empty where it is there to be looked at.
    """

    source: str
    name: str
    kind: Kind
    unit: str
    means: str
    then: str = ""
    fixed: tuple[tuple[str, str], ...] = ()
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", _pattern(self.source))

    @property
    def exposed(self) -> str:
        """The name by which Prometheus' queries find it; of a histogram, without `_bucket`."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    @property
    def otel(self) -> str:
        """The name in OTLP: without the unit, which a collector puts back for Prometheus."""
        bare = self.name.removesuffix("_seconds")
        return _CONVENTIONS.get(bare) or bare.replace("_", ".", 1)

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels, in the order of the source, fixed ones first."""
        return (*dict(self.fixed), *self.pattern.groupindex)


_CONVENTIONS: Final = {
    "rpc_server_call_duration": "rpc.server.call.duration",
    "gen_ai_client_token_usage": "gen_ai.client.token.usage",
    "gen_ai_server_request_duration": "gen_ai.server.request.duration",
    "gen_ai_server_time_to_first_token": "gen_ai.server.time_to_first_token",
}
OTEL_LABELS: Final = {
    "error_type": "error.type",
    "gen_ai_request_model": "gen_ai.request.model",
    "gen_ai_token_type": "gen_ai.token.type",
    "rpc_method": "rpc.method",
    "rpc_service": "rpc.service",
}
"""Labels that have a name in the conventions; in OTLP they bear it."""


def _pattern(source: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", source)
    texts, labels = parts[::2], parts[1::2]
    built = re.escape(texts[0])
    for at, (label, text) in enumerate(zip(labels, texts[1:], strict=True), 1):
        last = at == len(labels) and not text
        built += f"(?P<{label}>{'.*' if last else '[^.]*'})" + re.escape(text)
    return re.compile(built)


METRICS: Final = tuple(
    Metric(
        source=source,
        name=name,
        kind=Kind(kind),
        unit=unit,
        means=means,
        then=then,
        fixed=tuple(fixed.items()),
    )
    for source, name, kind, unit, fixed, means, then in ROWS
)


def may_label(key: str, value: str) -> bool:
    """Whether a metric may carry this label with this value."""
    return key in LABELS and len(value) < VALUE_CHARS_MAX and is_name(value)


@lru_cache(_NAMES_REMEMBERED)
def found(source: str, kind: Kind) -> tuple[Metric, tuple[tuple[str, str], ...]] | None:
    """Find the metric that a name of `meshkit.counters` feeds, and its labels; None if none does.

    The first entry that fits counts.
    """
    for metric in METRICS:
        if metric.kind is not kind or not (fits := metric.pattern.fullmatch(source)):
            continue
        labels = {**dict(metric.fixed), **fits.groupdict()}
        if all(may_label(key, value) for key, value in labels.items()):
            return metric, tuple(labels.items())
    return None
