"""The last look at a span before it leaves the process.

Spans made by `meshkit.telemetry` are clean; this also catches what reaches OpenTelemetry by another
way (an instrumented library, a stray `span.set_attribute` or `record_exception`). It works on the
exporter's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from meshkit.counters import counted
from meshkit.telemetry_names import may_set

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AllowListExporter", "cleaned"]


class AllowListExporter(SpanExporter):
    """Export through `inner`, with all that is not on the allow-list taken off."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Clean and pass on. A failed export is counted; the spans are gone, requests are not."""
        result = self._inner.export([cleaned(span) for span in spans])
        if result is not SpanExportResult.SUCCESS:
            counted("telemetry.spans_lost", len(spans))
        return result

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is buffered."""
        return self._inner.force_flush(timeout_millis)


def cleaned(span: ReadableSpan) -> ReadableSpan:
    """Return `span`, or if anything on it is not allowed, a copy without that."""
    attributes = span.attributes or {}
    kept = {key: value for key, value in attributes.items() if may_set(key, value)}
    if len(kept) == len(attributes) and not (span.events or span.links or span.status.description):
        return span
    counted("telemetry.spans_cleaned")
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=kept,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
