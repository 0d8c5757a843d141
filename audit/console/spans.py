"""Spans of the five services for the waterfall: taken by OTLP/gRPC, kept in memory, few and short.

    GATEWAY_TELEMETRY__OTLP_TARGET=127.0.0.1:4317  AUDIT_CONSOLE__SPANS_PORT=4317

Listens on loopback alone, in the clear, as a collector beside the services would, and is off unless
asked for. What it keeps of a span is its place in the trace, its times, whether it failed, and two
names that pass the allow-list (`meshkit.telemetry_names`): no attributes, no events, no text. The
oldest go once there are `spans_max`. It is telemetry, not evidence: sampled, and gone at a restart.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from audit.console.waterfall import Span
from meshkit.counters import counted
from meshkit.telemetry_names import is_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

    from audit.console.settings import ConsoleSettings

__all__ = ["SpanStore", "receiving_spans"]

_TRACE_BYTES, _SPAN_BYTES = 16, 8
_SPANS_OF_TRACE_MAX = 2_000
_REQUEST_BYTES_MAX = 4 * 1_024 * 1_024
_STATUS_ERROR = 2
_UNKNOWN = "unknown"


class SpanStore(TraceServiceServicer):
    """So many spans, by trace; the trace that was not added to for longest goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._traces: OrderedDict[bytes, list[Span]] = OrderedDict()
        self.port = 0

    def __len__(self) -> int:
        return self._count

    def of(self, trace_id: bytes) -> list[Span]:
        """Return a trace's spans."""
        return list(self._traces.get(trace_id, ()))

    def add(self, span: Span) -> None:
        """Keep one, if its trace has room."""
        kept = self._traces.setdefault(span.trace_id, [])
        if len(kept) >= _SPANS_OF_TRACE_MAX:
            counted("console.spans_dropped")
            return
        kept.append(span)
        self._traces.move_to_end(span.trace_id)
        self._count += 1
        while self._count > self._most:
            _, dropped = self._traces.popitem(last=False)
            self._count -= len(dropped)

    async def Export(
        self,
        request: pb.ExportTraceServiceRequest,
        context: grpc.aio.ServicerContext[  # noqa: ARG002 -- gRPC's signature
            pb.ExportTraceServiceRequest, pb.ExportTraceServiceResponse
        ],
    ) -> pb.ExportTraceServiceResponse:
        """Take what a service exports; what is no span of ours is passed over."""
        for group in request.resource_spans:
            service = _service(group)
            for scope in group.scope_spans:
                for wire in scope.spans:
                    if (span := _span(wire, service)) is not None:
                        self.add(span)
        return pb.ExportTraceServiceResponse()


def _service(group: ResourceSpans) -> str:
    for each in group.resource.attributes:
        if each.key == "service.name" and is_name(each.value.string_value):
            return each.value.string_value
    return _UNKNOWN


def _span(wire: WireSpan, service: str) -> Span | None:
    if len(wire.trace_id) != _TRACE_BYTES or len(wire.span_id) != _SPAN_BYTES:
        return None
    return Span(
        trace_id=wire.trace_id,
        span_id=wire.span_id,
        parent_id=wire.parent_span_id,
        service=service,
        name=wire.name if is_name(wire.name) else _UNKNOWN,
        start_us=wire.start_time_unix_nano / 1_000,
        end_us=max(wire.end_time_unix_nano, wire.start_time_unix_nano) / 1_000,
        failed=wire.status.code == _STATUS_ERROR,
    )


@asynccontextmanager
async def receiving_spans(settings: ConsoleSettings) -> AsyncIterator[SpanStore | None]:
    """Take spans for as long as the block runs; None if settings name no port.

    Raises:
        OSError: the port is taken.
    """
    if settings.spans_port is None:
        yield None
        return
    store = SpanStore(settings.spans_max)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", _REQUEST_BYTES_MAX),
            ("grpc.so_reuseport", 0),  # else a second one would get half of the spans, unnoticed
        ]
    )
    add_TraceServiceServicer_to_server(store, server)  # type: ignore[no-untyped-call] # as generated
    try:
        store.port = server.add_insecure_port(f"127.0.0.1:{settings.spans_port}")
    except RuntimeError:
        msg = f"cannot listen on 127.0.0.1:{settings.spans_port}"
        raise OSError(msg) from None
    await server.start()
    try:
        yield store
    finally:
        await server.stop(0)
