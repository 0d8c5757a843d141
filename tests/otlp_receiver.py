"""An OpenTelemetry collector on a real socket, that keeps what it is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc


@dataclass
class Receiver:
    """spans, lines: (service, what); metrics: newest by (service, name); raw: all of it."""

    port: int = 0
    spans: list = field(default_factory=list)
    lines: list = field(default_factory=list)
    metrics: dict = field(default_factory=dict)
    raw: list = field(default_factory=list)

    def of(self, trace_id):
        """Spans of one trace."""
        return [(who, span) for who, span in self.spans if span.trace_id == trace_id]

    @property
    def text(self):
        """Everything that arrived, as text: to look for words in."""
        return "\n".join(map(str, self.raw))

    def take(self, request):
        self.raw.append(request)
        for field_name, take in (
            ("resource_spans", self._spans),
            ("resource_logs", self._lines),
            ("resource_metrics", self._metrics),
        ):
            for resource in getattr(request, field_name, ()):
                (who,) = (
                    each.value.string_value
                    for each in resource.resource.attributes
                    if each.key == "service.name"
                )
                take(who, resource)

    def _spans(self, who, resource):
        for scope in resource.scope_spans:
            self.spans += [(who, span) for span in scope.spans]

    def _lines(self, who, resource):
        for scope in resource.scope_logs:
            self.lines += [(who, line) for line in scope.log_records]

    def _metrics(self, who, resource):
        for scope in resource.scope_metrics:
            self.metrics |= {(who, metric.name): metric for metric in scope.metrics}


@contextmanager
def receiving(credentials=None):
    """Receive traces, metrics and logs on a free port, for as long as the block runs."""
    made = Receiver()
    server = grpc.server(ThreadPoolExecutor(4))
    for service, add_to, reply in (
        (
            traces_grpc.TraceServiceServicer,
            traces_grpc.add_TraceServiceServicer_to_server,
            traces.ExportTraceServiceResponse,
        ),
        (
            logs_grpc.LogsServiceServicer,
            logs_grpc.add_LogsServiceServicer_to_server,
            logs.ExportLogsServiceResponse,
        ),
        (
            metrics_grpc.MetricsServiceServicer,
            metrics_grpc.add_MetricsServiceServicer_to_server,
            metrics.ExportMetricsServiceResponse,
        ),
    ):
        add_to(_servicer(service, reply, made), server)
    if credentials is None:
        made.port = server.add_insecure_port("127.0.0.1:0")
    else:
        made.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield made
    finally:
        server.stop(0).wait()


def _servicer(base, reply, receiver):
    class Takes(base):
        def Export(self, request, _context):
            receiver.take(request)
            return reply()

    return Takes()
