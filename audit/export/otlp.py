"""Entries as OpenTelemetry log records, by OTLP over gRPC; a batch is done when it is acknowledged.

Not the SDK's exporter: its queue drops what a slow collector does not take in time. Here the export
waits, and the state stays where it is.

A collector may take a request in part and say only how many records it will never take. They are
found by sending halves, down to the single record that is refused: that one is told by its index,
and the export goes on. What was taken meanwhile arrives twice or more.
Source: https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-response
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import (
    LogRecord,
    ResourceLogs,
    ScopeLogs,
    SeverityNumber,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from audit.export.sinks import SinkDown
from audit.export.told import told_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.export.sinks import Line

__all__ = ["OtlpSink", "SinkRefused", "is_loopback"]

_TRACE_ID_BYTES, _SPAN_ID_BYTES = 16, 8
_AGAIN = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""After these, and no others, OTLP has clients send again."""


class SinkRefused(Exception):  # noqa: N818 -- for good
    """The receiver will not take anything from us: `kind` is the name of its status."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def is_loopback(target: str) -> bool:
    """Tell whether host:port is this machine by its address; names but `localhost` are not."""
    host = target.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class OtlpSink:
    """Sends to one collector. In the clear to loopback alone: the caller sees to that."""

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        *,
        origin: str,
        format_name: str,
        timeout_s: float,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            target: host:port.
            credentials: Of the collector's CA and our certificate; None: in the clear.
            origin: The log's name.
            format_name: Of the lines, which become the records' bodies.
            timeout_s: For each request.
        """
        self._channel = (
            grpc.insecure_channel(target)
            if credentials is None
            else grpc.secure_channel(target, credentials)
        )
        self._stub = LogsServiceStub(self._channel)  # type: ignore[no-untyped-call] # generated
        self._origin = origin
        self._format = format_name
        self._timeout_s = timeout_s

    def put(self, lines: Sequence[Line]) -> Sequence[int]:
        """See `Sink.put`: acknowledged.

        Raises:
            SinkRefused: for good.
        """
        rejected = self._sent(lines)
        if not rejected:
            return ()
        if len(lines) == 1:
            return (lines[0].number,)
        middle = len(lines) // 2
        return (*self.put(lines[:middle]), *self.put(lines[middle:]))

    def _sent(self, lines: Sequence[Line]) -> int:
        """Send one request; return how many of its records will never be taken."""
        request = ExportLogsServiceRequest(resource_logs=[self._logs(lines)])
        try:
            reply: ExportLogsServiceResponse = self._stub.Export(request, timeout=self._timeout_s)
        except grpc.RpcError as failure:
            code = failure.code()
            if code in _AGAIN:
                raise SinkDown(code.name) from None
            raise SinkRefused(code.name) from None
        return int(reply.partial_success.rejected_log_records)

    def _logs(self, lines: Sequence[Line]) -> ResourceLogs:
        scope = InstrumentationScope(name="sealgate.audit", version="1")
        return ResourceLogs(
            resource=Resource(
                attributes=[
                    _text("service.name", "sealgate-audit"),
                    _text("audit.origin", self._origin),
                ]
            ),
            scope_logs=[ScopeLogs(scope=scope, log_records=[self._record(line) for line in lines])],
        )

    def _record(self, line: Line) -> LogRecord:
        told = told_of(line.leaf, line.number, self._origin)
        record = LogRecord(
            time_unix_nano=told.time_us * 1_000,
            observed_time_unix_nano=(told.received_us or told.time_us) * 1_000,
            severity_number=SeverityNumber.SEVERITY_NUMBER_INFO,
            body=AnyValue(string_value=line.text.decode()),
            event_name=told.text("action"),
            attributes=[
                KeyValue(key="audit.index", value=AnyValue(int_value=line.number)),
                _text("audit.leaf_hash", told.leaf_hash),
                _text("audit.format", self._format),
            ],
        )
        record.trace_id = _id(told.text("trace_id"), _TRACE_ID_BYTES)
        record.span_id = _id(told.text("span_id"), _SPAN_ID_BYTES)
        return record

    def reopen(self) -> None:
        """Do nothing: gRPC connects again by itself."""

    def close(self) -> None:
        """See `Sink.close`."""
        self._channel.close()


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _id(text: str, length: int) -> bytes:
    """Read an id; none (empty) for zeros or anything else."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return b""
    return found if len(found) == length and any(found) else b""
