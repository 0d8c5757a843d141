import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError

from meshkit import telemetry as t
from meshkit.contract import Reason, Refusal, TraceContext
from meshkit.counters import counters, forget_step_times, step_times
from meshkit.span_filter import AllowListExporter
from meshkit.telemetry_names import AUDIT_INDEX, ERROR_TYPE, GEN_AI_REQUEST_MODEL, KEYS, may_set
from meshkit.w3c import Parent, current_trace

CANARY = "canary ada@example.org"
ALWAYS = t.Telemetry(trace_sample_ratio=1, strict=True)
NEVER = t.Telemetry(trace_sample_ratio=0)


@pytest.fixture
def spans():
    return InMemorySpanExporter()


async def test_every_step_of_a_call_is_in_one_trace_that_names_the_record(spans):
    async with t.telemetry(ALWAYS, service="gateway", exporter=spans):
        with t.root_span("Chat") as call:
            with t.step("screen"):
                await asyncio.sleep(0)
                with t.step("recognise"):
                    pass
            with t.step("append") as append:
                append.set(AUDIT_INDEX, 7)
            call.set(AUDIT_INDEX, 4_711)
    by_name = {span.name: span for span in spans.get_finished_spans()}
    assert set(by_name) == {"Chat", "screen", "recognise", "append"}
    root = by_name["Chat"]
    assert root.attributes == {AUDIT_INDEX: 4_711}
    assert {span.context.trace_id.to_bytes(16) for span in by_name.values()} == {
        call.trace.trace_id
    }
    assert root.context.span_id.to_bytes(8) == call.trace.span_id
    assert by_name["recognise"].parent.span_id == by_name["screen"].context.span_id
    assert by_name["append"].parent.span_id == root.context.span_id
    assert root.resource.attributes["service.name"] == "gateway"


async def test_calls_side_by_side_do_not_mix(spans):
    async def call(name):
        with t.root_span(name):
            await asyncio.sleep(0)
            with t.step(f"{name}.step"):
                await asyncio.sleep(0)

    async with t.telemetry(ALWAYS, service="x", exporter=spans):
        await asyncio.gather(*(call(f"call{i}") for i in range(8)))
    found = {span.name: span for span in spans.get_finished_spans()}
    for i in range(8):
        assert found[f"call{i}.step"].parent.span_id == found[f"call{i}"].context.span_id


async def test_an_unsampled_call_has_a_trace_id_and_no_spans(spans):
    async with t.telemetry(NEVER, service="x", exporter=spans):
        with t.root_span("Chat") as call, t.step("screen"):
            assert current_trace() == call.trace
            header = t.outbound_traceparent()
    assert header == f"00-{call.trace.trace_id.hex()}-{call.trace.span_id.hex()}-00"
    assert not spans.get_finished_spans()


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_trusted_parent_decides_and_a_strangers_flag_does_not(spans, sampled):
    parent = Parent(TraceContext(trace_id=b"t" * 16, span_id=b"s" * 8), sampled)
    async with t.telemetry(NEVER, service="x", exporter=spans):
        with t.root_span("trusted", parent, trust_parent=True) as trusted:
            trusted_header = t.outbound_traceparent()
        with t.root_span("stranger", parent) as stranger:
            pass
    assert trusted.trace.trace_id == stranger.trace.trace_id == b"t" * 16
    assert [s.name for s in spans.get_finished_spans()] == (["trusted"] if sampled else [])
    assert trusted_header.endswith("-01" if sampled else "-00")
    if sampled:
        assert spans.get_finished_spans()[0].parent.span_id.to_bytes(8) == b"s" * 8


@pytest.mark.parametrize(
    ("key", "value"),
    [("prompt", 1), (GEN_AI_REQUEST_MODEL, CANARY), (AUDIT_INDEX, ["x"]), (AUDIT_INDEX, b"x")],
)
async def test_what_is_not_on_the_list_is_refused_in_tests_and_dropped_in_production(
    spans, key, value
):
    async with t.telemetry(ALWAYS, service="x", exporter=spans):
        with t.root_span("Chat") as call:
            with pytest.raises(t.RefusedAttributeError) as caught:
                call.set(key, value)
            with pytest.raises(t.RefusedAttributeError):
                t.annotate(key, value)
    assert "canary" not in str(caught.value)
    before = counters().get("telemetry.refused", 0)
    lax = ALWAYS.model_copy(update={"strict": False})
    async with t.telemetry(lax, service="x", exporter=spans):
        with t.root_span("Chat") as call:
            call.set(key, value)
            t.annotate(key, value)
    assert counters()["telemetry.refused"] == before + 2
    assert all(not span.attributes for span in spans.get_finished_spans())


async def test_an_exception_leaves_its_kind_and_never_its_text(spans):
    async with t.telemetry(ALWAYS, service="x", exporter=spans):
        with pytest.raises(ValueError, match="canary"), t.root_span("Chat"), t.step("screen"):
            raise ValueError(CANARY)
        with pytest.raises(Refusal), t.root_span("Chat"):
            raise Refusal(Reason.BLOCKED)
    step, root, refused = spans.get_finished_spans()
    assert step.attributes[ERROR_TYPE] == root.attributes[ERROR_TYPE] == "ValueError"
    assert refused.attributes[ERROR_TYPE] == "BLOCKED"
    for span in (step, root, refused):
        assert not span.status.is_ok
        assert "canary" not in span.to_json()
        assert not span.events


async def test_what_reaches_opentelemetry_by_another_way_is_cleaned(spans):
    async with t.telemetry(ALWAYS, service="x", exporter=spans):
        with t.root_span("Chat"):
            span = t._span.get()
            span.set_attribute("prompt", CANARY)
            span.set_attribute(AUDIT_INDEX, 7)
            span.record_exception(ValueError(CANARY))
            span.set_status(t.otel.Status(t.otel.StatusCode.ERROR, CANARY))
    (span,) = spans.get_finished_spans()
    assert "canary" not in span.to_json()
    assert span.attributes == {AUDIT_INDEX: 7}


class DeadExporter(InMemorySpanExporter):
    def export(self, _spans):
        return SpanExportResult.FAILURE


def test_spans_that_cannot_be_sent_are_counted():
    before = counters().get("telemetry.spans_lost", 0)
    dead = AllowListExporter(DeadExporter())
    assert dead.export([ReadableSpan("a"), ReadableSpan("b")]) is SpanExportResult.FAILURE
    assert counters()["telemetry.spans_lost"] == before + 2


async def test_steps_are_timed_whether_sampled_or_not():
    forget_step_times()
    with t.root_span("Chat"), t.step("screen"):
        pass
    with t.step("screen"):
        pass
    assert step_times()["screen"].runs == 2
    assert step_times()["screen"].total_ns > 0


async def test_an_abandoned_generator_leaves_the_callers_span_alone(spans):
    async def stream():
        with t.step("stream"):
            yield 1
            yield 2

    async with t.telemetry(ALWAYS, service="x", exporter=spans):
        with t.root_span("Chat") as call:
            items = stream()
            await anext(items)
            await asyncio.create_task(items.aclose())
            assert t.outbound_traceparent() is not None
    assert {s.name for s in spans.get_finished_spans()} == {"Chat", "stream"}
    assert call.trace is not None


def test_a_collector_is_reached_in_the_clear_on_loopback_only():
    assert t.Telemetry(otlp_target="127.0.0.1:4317").otlp_ca is None
    with pytest.raises(ValidationError):
        t.Telemetry(otlp_target="collector.example.org:4317")


class Collector(TraceServiceServicer):
    def __init__(self):
        self.names = []

    def Export(self, request, _context):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.names += [span.name for span in scope.spans]
        return ExportTraceServiceResponse()


@pytest.fixture
def collector():
    """An OTLP collector on a real socket: its server and what it was told."""
    told, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(told, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, told
    server.stop(None).wait()


async def test_spans_reach_a_collector_when_the_process_ends(collector):
    port, told = collector
    settings = t.Telemetry(otlp_target=f"127.0.0.1:{port}", trace_sample_ratio=1)
    async with t.telemetry(settings, service="gateway"):
        with t.root_span("Chat"), t.step("screen"):
            pass
    assert sorted(told.names) == ["Chat", "screen"]


async def test_a_dead_collector_costs_spans_not_time():
    settings = t.Telemetry(
        otlp_target="127.0.0.1:1", trace_sample_ratio=1, export_timeout_ms=200, export_every_ms=50
    )
    loop = asyncio.get_running_loop()
    async with t.telemetry(settings, service="x"):
        started = loop.time()
        for _ in range(200):
            with t.root_span("Chat"):
                pass
        ended = loop.time()
        assert ended - started < 10  # had each waited for its export: 40
    assert loop.time() - ended < 10


def test_every_key_is_a_convention_or_ours():
    assert all(key.split(".")[0] in {"rpc", "gen_ai", "error", "sealgate"} for key in KEYS)
    assert not may_set("gen_ai.prompt", "x")
    assert not may_set("gen_ai.input.messages", "x")
