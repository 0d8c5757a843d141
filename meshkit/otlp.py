"""Spans, log lines and metrics on their way to an OpenTelemetry collector, by OTLP over gRPC.

Nobody ever waits for it. Each kind has a thread of its own and a bounded queue; what the queue has
no room for, and what the collector does not take in time, is dropped and counted: `telemetry.
spans_lost`, `.logs_lost`, `.metrics_lost`. Over TLS, with a certificate of our own where settings
name one; in the clear to loopback only.

Metrics are those that Prometheus sees, read at the same place (`meshkit.metrics.snapshot`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from meshkit.counters import counted
from meshkit.otlp_metrics import metrics_data
from meshkit.span_filter import AllowListExporter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from meshkit.telemetry import Telemetry

__all__ = ["Backlog", "bounded_spans", "lines_sent", "metrics_sent"]

_SEVERITY = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
_PLACES = frozenset({"event", "level", "at", "trace_id", "span_id"})
"""Keys of a line that have a place of their own in a log record."""


class Backlog:
    """How much waits to be sent, what is being sent included; a little of it, from any thread."""

    def __init__(self, most: int, signal: str) -> None:
        self.waiting = 0
        self._most = most
        self._lost = f"telemetry.{signal}_lost"
        self._lock = threading.Lock()

    def admits(self) -> bool:
        """Take one more in; where there is no room, count it as lost."""
        with self._lock:
            if self.waiting < self._most:
                self.waiting += 1
                return True
        counted(self._lost)
        return False

    def left(self, number: int, *, sent: bool) -> None:
        """So many have gone; not sent, they are counted as lost."""
        with self._lock:
            self.waiting -= number
        if not sent:
            counted(self._lost, number)


def _reaching(settings: Telemetry) -> dict[str, Any]:
    """Return how every exporter reaches the collector.

    Raises:
        OSError: a file of a certificate cannot be read.
    """
    ca, chain, key = (
        None if path is None else path.read_bytes()
        for path in (settings.otlp_ca, settings.otlp_chain, settings.otlp_key)
    )
    return {
        "endpoint": settings.otlp_target,
        "insecure": ca is None,
        "credentials": None if ca is None else grpc.ssl_channel_credentials(ca, key, chain),
        "timeout": settings.export_timeout_ms / 1_000,
    }


def _ended(work: Callable[[], object], cut: Callable[[], object], within_s: float) -> None:
    """End `work`; when it takes too long, cut the connection that it waits for."""
    timer = threading.Timer(within_s, cut)
    timer.start()
    try:
        work()
    finally:
        timer.cancel()


# --- spans --------------------------------------------------------------------------------------


class _BoundedSpans(SpanProcessor):
    """A batch processor that counts what it has no room for."""

    def __init__(self, settings: Telemetry) -> None:
        self._backlog = Backlog(settings.queue_spans_max, "spans")
        self._exporter = OTLPSpanExporter(**_reaching(settings))
        self._within_s = settings.export_timeout_ms / 1_000
        self._inner = BatchSpanProcessor(
            _CountedSpans(AllowListExporter(self._exporter), self._backlog),
            max_queue_size=settings.queue_spans_max,
            schedule_delay_millis=settings.export_every_ms,
            max_export_batch_size=min(settings.export_spans_max, settings.queue_spans_max),
        )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue it, if there is room."""
        if self._backlog.admits():
            self._inner.on_end(span)

    def shutdown(self) -> None:
        """Send what is queued, for as long as one export may take."""
        _ended(self._inner.shutdown, self._exporter.shutdown, self._within_s)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is queued."""
        return self._inner.force_flush(timeout_millis)


class _CountedSpans(SpanExporter):
    def __init__(self, inner: SpanExporter, backlog: Backlog) -> None:
        self._inner = inner
        self._backlog = backlog

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            return self._inner.export(spans)  # which counts a failure
        finally:
            self._backlog.left(len(spans), sent=True)

    def shutdown(self) -> None:
        self._inner.shutdown()


def bounded_spans(settings: Telemetry) -> SpanProcessor:
    """Make what takes ended spans. Raises OSError, if a certificate cannot be read."""
    return _BoundedSpans(settings)


# --- log lines ----------------------------------------------------------------------------------


class _CountedLines(LogRecordExporter):
    def __init__(self, inner: LogRecordExporter, backlog: Backlog) -> None:
        self._inner = inner
        self._backlog = backlog

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        sent = False
        try:
            result = self._inner.export(batch)
            sent = result is LogRecordExportResult.SUCCESS
        finally:
            self._backlog.left(len(batch), sent=sent)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call] # as the library has it

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


@asynccontextmanager
async def lines_sent(
    settings: Telemetry, resource: Resource
) -> AsyncIterator[Callable[[Mapping[str, object]], None]]:
    """Yield what takes clean log lines and sends them. Raises OSError, as `bounded_spans`."""
    backlog = Backlog(settings.queue_lines_max, "logs")
    exporter = OTLPLogExporter(**_reaching(settings))
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(
        BatchLogRecordProcessor(
            _CountedLines(exporter, backlog),
            max_queue_size=settings.queue_lines_max,
            schedule_delay_millis=settings.export_every_ms,
            max_export_batch_size=min(settings.export_spans_max, settings.queue_lines_max),
        )
    )
    logger = provider.get_logger("sealgate")

    def send(line: Mapping[str, object]) -> None:
        if backlog.admits():
            logger.emit(_record(line))

    try:
        yield send
    finally:
        within_s = settings.export_timeout_ms / 1_000
        await asyncio.to_thread(_ended, provider.shutdown, exporter.shutdown, within_s)


def _record(line: Mapping[str, object]) -> LogRecord:
    level = str(line.get("level", "info"))
    rest: dict[str, Any] = {key: value for key, value in line.items() if key not in _PLACES}
    return LogRecord(
        timestamp=_nanoseconds(line.get("at")),
        context=_context(str(line.get("trace_id", "")), str(line.get("span_id", ""))),
        severity_text=level,
        severity_number=_SEVERITY.get(level, SeverityNumber.INFO),
        body=str(line["event"]),
        attributes={key: value for key, value in rest.items() if value is not None},
    )


def _nanoseconds(at: object) -> int:
    if not isinstance(at, str):
        return time.time_ns()
    return int(datetime.fromisoformat(at).timestamp() * 1_000_000) * 1_000


def _context(trace_id: str, span_id: str) -> Context:
    if not (trace_id and span_id):
        return set_span_in_context(NonRecordingSpan(SpanContext(0, 0, is_remote=False)), Context())
    where = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(0)
    )
    return set_span_in_context(NonRecordingSpan(where), Context())


# --- metrics ------------------------------------------------------------------------------------


@asynccontextmanager
async def metrics_sent(settings: Telemetry, resource: Resource) -> AsyncIterator[None]:
    """Send all metrics every so often, and once more at the end. Raises as `bounded_spans`."""
    exporter = OTLPMetricExporter(**_reaching(settings))
    stop, began_ns = threading.Event(), time.time_ns()

    def push() -> None:
        sent = False
        with suppress(Exception):  # counted: one that cannot be told must not end all that follow
            result = exporter.export(metrics_data(resource, began_ns))
            sent = result is MetricExportResult.SUCCESS
        counted("telemetry.metrics_lost", int(not sent))

    def keep_pushing() -> None:
        while not stop.wait(settings.export_metrics_every_ms / 1_000):
            push()
        push()
        exporter.shutdown()

    thread = threading.Thread(target=keep_pushing, name="otlp-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        within_s = settings.export_timeout_ms / 1_000
        await asyncio.to_thread(_ended, thread.join, exporter.shutdown, within_s)
