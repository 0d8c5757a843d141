"""What a process tells of itself: traces here, metrics and log lines by way of here.

    async with telemetry(settings, service="gateway", own_port=50051):      # once, in main
        with root_span("gateway.Chat", parse_traceparent(header)) as call:
            with step("screen"):                                # around each step of a pipeline
                ...
            call.set(AUDIT_INDEX, 4711)

Prometheus asks for metrics (`meshkit.metrics`); spans, metrics and log lines go to a collector
where settings name one (`meshkit.otlp`). Nothing that a person wrote is in any of them.

A trace id exists for every call, so that its record can name it; spans exist only for the calls
that the head sampler picks (`trace_sample_ratio`), or that a trusted caller already picked. `step`
always adds to `step_times()`.

Keys and values pass `telemetry_names.may_set`: anything else raises where `strict` (tests), and is
dropped and counted as `telemetry.refused` otherwise. Exceptions leave their type, never their text.

Cost (2-core VM, CPython 3.11): see `bench`; about 1 us a step when not sampled, 15 us when sampled
with the batch exporter, whose own work happens on its thread.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path  # noqa: TC003 -- pydantic reads it at run time
from typing import TYPE_CHECKING, Self

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from pydantic import BaseModel, ConfigDict, Field, model_validator

from meshkit.contract import Refusal, TraceContext
from meshkit.counters import counted, counters, step_times, step_took
from meshkit.logs import configure_logging, handed_to
from meshkit.metrics import METRICS_PORTS, loop_watched, metrics_endpoint
from meshkit.otlp import bounded_spans, lines_sent, metrics_sent
from meshkit.span_filter import AllowListExporter
from meshkit.telemetry_names import ERROR_TYPE, KEYS, may_set
from meshkit.w3c import Parent, current_trace, fresh_trace, set_current_trace, traceparent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = [
    "KEYS",
    "RefusedAttributeError",
    "Telemetry",
    "annotate",
    "configure_logging",
    "counted",
    "counters",
    "current_trace",
    "outbound_traceparent",
    "root_span",
    "step",
    "step_times",
    "telemetry",
]

_LOOPBACK = ("127.0.0.1:", "localhost:", "[::1]:")


class RefusedAttributeError(TypeError):
    """A span was to carry a key or value that is not on the allow-list. Names the key only."""


class Telemetry(BaseModel):
    """Settings, nested in a service's: `GATEWAY_TELEMETRY__OTLP_TARGET=collector:4317`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    otlp_target: str = Field("", description="host:port of an OTLP gRPC collector; empty: none.")
    otlp_ca: Path | None = Field(None, description="PEM; without it only loopback is allowed.")
    otlp_chain: Path | None = Field(None, description="PEM; our certificate for the collector.")
    otlp_key: Path | None = Field(None, description="PEM; the key of `otlp_chain`.")
    otlp_traces: bool = Field(default=True, description="Send spans to the collector.")
    otlp_metrics: bool = Field(default=True, description="Send metrics to the collector, too.")
    otlp_logs: bool = Field(default=True, description="Send log lines to the collector, too.")
    trace_sample_ratio: float = Field(0.01, ge=0, le=1, description="Share of calls with spans.")
    queue_spans_max: int = Field(4_096, gt=0, description="Beyond it, spans are dropped.")
    queue_lines_max: int = Field(4_096, gt=0, description="Beyond it, log lines are not sent.")
    export_every_ms: int = Field(2_000, gt=0, description="Spans and log lines.")
    export_metrics_every_ms: int = Field(15_000, gt=0)
    export_spans_max: int = Field(512, gt=0, description="In one export; so many lines, too.")
    export_timeout_ms: int = Field(5_000, gt=0)
    metrics: bool = Field(default=True, description="Answer Prometheus on `metrics_port`.")
    metrics_host: str = Field(
        "127.0.0.1", description="IPv4. It answers without TLS: on loopback, or a trusted network."
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="None: the service's own, 9464 to 9468 (a free one if the service's port is "
        "0). 0: a free one, told in the log. One that is taken is waited for.",
    )
    strict: bool = Field(
        default=False, description="Raise for a refused attribute or log key (tests)."
    )

    @model_validator(mode="after")
    def plaintext_stays_on_this_host(self) -> Self:
        """A span names tenants and models: it does not cross a network in the clear."""
        if self.otlp_target and self.otlp_ca is None and not self.otlp_target.startswith(_LOOPBACK):
            msg = "otlp_ca is required for an otlp_target that is not on loopback"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def a_certificate_is_whole(self) -> Self:
        """Half of one would be found out only when nothing arrives."""
        if (self.otlp_chain is None) != (self.otlp_key is None):
            msg = "otlp_chain and otlp_key belong together"
            raise ValueError(msg)
        if self.otlp_chain is not None and self.otlp_ca is None:
            msg = "otlp_chain needs otlp_ca"
            raise ValueError(msg)
        return self

    def endpoint(self, service: str, own_port: int) -> tuple[str, int] | None:
        """Return where metrics are answered, of a service that listens on `own_port`; or not."""
        if not self.metrics:
            return None
        given = self.metrics_port
        usual = METRICS_PORTS[service] if own_port else 0
        return self.metrics_host, usual if given is None else given


class _State:
    """What `telemetry` set up in this process; without it, calls have trace ids and no spans."""

    tracer: otel.Tracer | None = None
    sample_ratio: float = 0.0
    strict: bool = False


_span: ContextVar[otel.Span | None] = ContextVar("sealgate_span", default=None)


@asynccontextmanager
async def telemetry(
    settings: Telemetry,
    *,
    service: str,
    own_port: int | None = None,
    exporter: SpanExporter | None = None,
) -> AsyncIterator[None]:
    """Tell of this process for as long as the block runs: metrics, spans, log lines.

    Leaving it flushes, within the export timeout.

    Args:
        settings: Nothing is exported where it names no target.
        service: `service.name` of the process: a service's name, or `appliance`.
        own_port: Where the service listens, 0 if on any; without it there is no metrics endpoint.
        exporter: Used instead of OTLP, and synchronously: tests pass an in-memory one.

    Raises:
        OSError: metrics cannot be answered where settings say, or a file cannot be read.
    """
    resource = Resource({"service.name": service})
    before = (_State.tracer, _State.sample_ratio, _State.strict)
    async with AsyncExitStack() as owned:
        await owned.enter_async_context(loop_watched())
        place = None if own_port is None else settings.endpoint(service, own_port)
        if place is not None:
            await owned.enter_async_context(metrics_endpoint(*place, service=service))
        await owned.enter_async_context(_collected(settings, resource))
        provider = _provider(settings, resource, exporter)
        if provider is not None:
            # Its shutdown waits for the exporter's thread; the loop must go on meanwhile.
            owned.push_async_callback(asyncio.to_thread, provider.shutdown)
        _State.tracer = None if provider is None else provider.get_tracer("sealgate")
        _State.sample_ratio, _State.strict = settings.trace_sample_ratio, settings.strict
        try:
            yield
        finally:
            _State.tracer, _State.sample_ratio, _State.strict = before


@asynccontextmanager
async def _collected(settings: Telemetry, resource: Resource) -> AsyncIterator[None]:
    """Send metrics and log lines to the collector, where there is one."""
    async with AsyncExitStack() as owned:
        send = None
        if settings.otlp_target and settings.otlp_metrics:
            await owned.enter_async_context(metrics_sent(settings, resource))
        if settings.otlp_target and settings.otlp_logs:
            send = await owned.enter_async_context(lines_sent(settings, resource))
        owned.enter_context(handed_to(send, strict=settings.strict))
        yield


def _provider(
    settings: Telemetry, resource: Resource, exporter: SpanExporter | None
) -> TracerProvider | None:
    if exporter is None and not (settings.otlp_target and settings.otlp_traces):
        return None
    provider = TracerProvider(
        sampler=ALWAYS_ON,  # root_span has decided before it asks for a span
        resource=resource,
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_attributes=len(KEYS), max_events=1, max_links=1),
    )
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(AllowListExporter(exporter)))
    else:
        provider.add_span_processor(bounded_spans(settings))
    return provider


class step:  # noqa: N801 -- reads as a statement: `with step("screen"):`
    """Time a step, and give it a span if its call has spans. Not reusable, not re-entrant.

    Works around `await`s and inside an async generator; costs 1 us without a span.
    """

    __slots__ = ("_name", "_outer", "_span", "_started_ns")

    def __init__(self, name: str) -> None:
        self._name = name
        self._span: otel.Span | None = None
        self._outer: otel.Span | None = None

    def __enter__(self) -> Self:
        outer = _span.get()
        if outer is not None and (tracer := _State.tracer) is not None:
            self._outer = outer
            self._span = tracer.start_span(
                self._name, context=otel.set_span_in_context(outer, Context())
            )
            _span.set(self._span)
        self._started_ns = time.perf_counter_ns()
        return self

    def set(self, key: str, value: str | float | bool) -> None:  # noqa: FBT001 -- a span's value
        """Put an attribute of the allow-list on this span.

        Raises:
            RefusedAttributeError: it is not on the list, and telemetry is strict.
        """
        if not may_set(key, value):
            _refuse(key)
        elif self._span is not None:
            self._span.set_attribute(key, value)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        step_took(self._name, time.perf_counter_ns() - self._started_ns)
        if (span := self._span) is not None:
            if error is not None:
                _mark(span, error)
            span.end()
            # Not by token: an abandoned async generator may be closed in another context.
            _span.set(self._outer)


class root_span(step):  # noqa: N801 -- see `step`
    """The span of a whole RPC; within it, `current_trace()` is the call's."""

    __slots__ = ("_parent", "_trust_parent", "trace")

    trace: TraceContext
    """The call's trace id and this span's id, whether sampled or not."""

    def __init__(
        self, name: str, parent: Parent | None = None, *, trust_parent: bool = False
    ) -> None:
        """Prepare.

        Args:
            name: A constant, such as the RPC's method.
            parent: The caller's trace, which this call joins.
            trust_parent: Follow the parent's sampling decision; else only ours counts, so that a
                tenant cannot make us trace every call.
        """
        super().__init__(name)
        self._parent = parent
        self._trust_parent = trust_parent

    def __enter__(self) -> Self:
        tracer, parent = _State.tracer, self._parent
        if tracer is not None and self._picked():
            self._span = tracer.start_span(
                self._name, context=_remote(parent), kind=otel.SpanKind.SERVER
            )
            made = self._span.get_span_context()
            self.trace = TraceContext(
                trace_id=made.trace_id.to_bytes(16), span_id=made.span_id.to_bytes(8)
            )
        else:
            self.trace = fresh_trace(None if parent is None else parent.trace.trace_id)
        _span.set(self._span)
        set_current_trace(self.trace)
        self._started_ns = time.perf_counter_ns()
        return self

    def _picked(self) -> bool:
        if self._trust_parent and self._parent is not None:
            return self._parent.sampled
        return random.random() < _State.sample_ratio  # noqa: S311 -- sampling is no secret


def outbound_traceparent() -> str | None:
    """Return the `traceparent` for a call made now: the child of the step we are in."""
    span = _span.get()
    if span is None:
        trace = current_trace()
        return None if trace is None else traceparent(trace, sampled=False)
    made = span.get_span_context()
    here = TraceContext(trace_id=made.trace_id.to_bytes(16), span_id=made.span_id.to_bytes(8))
    return traceparent(here, sampled=True)


def annotate(key: str, value: str | float | bool) -> None:  # noqa: FBT001 -- a span's value
    """Put an attribute on the innermost span there is; raises as `step.set`."""
    span = _span.get()
    if span is None and not _State.strict:
        return
    if not may_set(key, value):
        _refuse(key)
    elif span is not None:
        span.set_attribute(key, value)


def _refuse(key: str) -> None:
    counted("telemetry.refused")
    if _State.strict:
        raise RefusedAttributeError(key)


def _remote(parent: Parent | None) -> Context:
    if parent is None:
        return Context()
    caller = otel.SpanContext(
        trace_id=int.from_bytes(parent.trace.trace_id),
        span_id=int.from_bytes(parent.trace.span_id),
        is_remote=True,
        trace_flags=otel.TraceFlags(int(parent.sampled)),
    )
    return otel.set_span_in_context(otel.NonRecordingSpan(caller), Context())


def _mark(span: otel.Span, error: BaseException) -> None:
    """Say that it failed and of what kind; never with what text."""
    kind = error.reason.name if isinstance(error, Refusal) else type(error).__name__
    span.set_attribute(ERROR_TYPE, kind)
    span.set_status(otel.Status(otel.StatusCode.ERROR))
