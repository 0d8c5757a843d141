"""Spans, metrics and log lines at a real collector; a dead one costs drops and no time."""

import asyncio
import io
import logging

import grpc
import pytest
import structlog
from pydantic import ValidationError

from meshkit import counters
from meshkit.counters import counted, measured, observed
from meshkit.counters import counters as counts
from meshkit.logs import configure_logging
from meshkit.otlp import Backlog
from meshkit.telemetry import Telemetry, root_span, step, telemetry
from tests.otlp_receiver import receiving

CANARY = "canary ada@example.org"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    for name in ("_counters", "_histograms", "_steps", "_gauges"):
        monkeypatch.setattr(counters, name, {})
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    configure_logging(stream=io.StringIO())
    yield
    logging.getLogger().handlers = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def settings_for(port, **more):
    return Telemetry(otlp_target=f"127.0.0.1:{port}", trace_sample_ratio=1, **more)


def labels(point):
    return {each.key: each.value.string_value for each in point.attributes}


def number(point):
    return getattr(point, point.WhichOneof("value"))


async def some_work():
    with root_span("gateway.Chat") as call, step("screen"):
        structlog.get_logger().warning("call.done", port=7, model=CANARY, prompt=CANARY)
    counted("rpc.refused.BLOCKED", 2)
    counted(f"rpc.refused.{CANARY}")
    observed("rpc.call..sealgate.v1.GatewayService/Chat", 0.004)
    return call.trace


async def test_all_three_reach_a_collector_when_the_process_ends():
    with receiving() as told:
        async with telemetry(settings_for(told.port), service="gateway"):
            with measured("audit.backlog", lambda: 12):
                trace = await some_work()
                logging.getLogger("grpc").error("Unexpected: %s", CANARY)
    assert {span.name for _, span in told.spans} == {"gateway.Chat", "screen"}
    by_event = {line.body.string_value: line for _, line in told.lines}
    assert set(by_event) == {"call.done", "log.foreign"}
    line = by_event["call.done"]
    assert (line.trace_id, line.span_id) == (trace.trace_id, trace.span_id)
    assert (line.severity_text, line.severity_number) == ("warning", 13)
    assert {each.key for each in line.attributes} == {"port", "model"}
    refusals = told.metrics["gateway", "sealgate.refusals"].sum
    assert refusals.is_monotonic
    assert [(labels(point), number(point)) for point in refusals.data_points] == [
        ({"reason": "BLOCKED"}, 2)
    ]
    (chat,) = told.metrics["gateway", "rpc.server.call.duration"].histogram.data_points
    assert labels(chat) == {"rpc.method": "sealgate.v1.GatewayService/Chat"}
    assert (chat.count, chat.sum) == (1, 0.004)
    assert sum(chat.bucket_counts) == 1
    assert len(chat.bucket_counts) == len(chat.explicit_bounds) + 1
    (screened,) = told.metrics["gateway", "sealgate.step"].histogram.data_points[:1]
    assert screened.count == 1
    assert ("gateway", "process_resident_memory_bytes") in told.metrics
    assert "canary" not in told.text


async def until(holds, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


async def test_they_are_sent_while_it_runs():
    with receiving() as told:
        often = settings_for(told.port, export_every_ms=20, export_metrics_every_ms=20)
        async with telemetry(often, service="gateway"):
            with measured("audit.backlog", lambda: 12):
                await some_work()
                await until(lambda: ("gateway", "sealgate.audit_backlog_events") in told.metrics)
                await until(lambda: told.spans and told.lines)
    (point,) = told.metrics["gateway", "sealgate.audit_backlog_events"].gauge.data_points
    assert number(point) == 12


async def test_a_gauge_that_is_true_or_false_is_a_number():
    with receiving() as told, measured("vault.up", lambda: True):
        async with telemetry(settings_for(told.port), service="gateway"):
            pass
    (point,) = told.metrics["gateway", "sealgate.openbao_up"].gauge.data_points
    assert number(point) == 1


async def test_an_export_that_fails_does_not_end_those_that_follow(monkeypatch):
    from meshkit import otlp

    real, tries = otlp.metrics_data, []

    def fails_first(*given):
        tries.append(given)
        if len(tries) == 1:
            raise ValueError(CANARY)
        return real(*given)

    monkeypatch.setattr(otlp, "metrics_data", fails_first)
    with receiving() as told:
        often = settings_for(told.port, export_metrics_every_ms=20)
        async with telemetry(often, service="gateway"):
            await until(lambda: told.metrics)
    assert counts()["telemetry.metrics_lost"] == 1


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
async def test_each_has_a_switch_of_its_own(signal):
    off = {f"otlp_{each}": each == signal for each in ("traces", "metrics", "logs")}
    with receiving() as told:
        async with telemetry(settings_for(told.port, **off), service="gateway"):
            await some_work()
    arrived = {"traces": told.spans, "metrics": told.metrics, "logs": told.lines}
    assert {name for name, each in arrived.items() if each} == {signal}


async def test_a_collector_that_wants_a_certificate_is_shown_one(tmp_path, ca):
    ours, theirs = ca.issue("spiffe://sealgate.test/service/gateway"), ca.issue()
    ours.write(tmp_path, "own")
    credentials = grpc.ssl_server_credentials(
        [(theirs.key, theirs.chain)], root_certificates=theirs.ca, require_client_auth=True
    )
    files = {
        "otlp_ca": tmp_path / "ca.pem",
        "otlp_chain": tmp_path / "own.pem",
        "otlp_key": tmp_path / "own.key",
    }
    with receiving(credentials) as told:
        target = f"localhost:{told.port}"
        with_it = Telemetry(otlp_target=target, trace_sample_ratio=1, **files)
        async with telemetry(with_it, service="gateway"):
            await some_work()
        assert told.spans
        assert told.lines
        assert told.metrics
        told.spans.clear()
        without = Telemetry(
            otlp_target=target,
            otlp_ca=files["otlp_ca"],
            trace_sample_ratio=1,
            export_timeout_ms=200,
        )
        async with telemetry(without, service="gateway"):
            await some_work()
        assert not told.spans
    for signal in ("spans", "logs", "metrics"):
        assert counts()[f"telemetry.{signal}_lost"] >= 1


def test_half_a_certificate_is_none(tmp_path):
    for half in ({"otlp_chain": tmp_path}, {"otlp_key": tmp_path}):
        with pytest.raises(ValidationError):
            Telemetry(otlp_target="c:1", otlp_ca=tmp_path, **half)
    with pytest.raises(ValidationError):
        Telemetry(otlp_target="127.0.0.1:1", otlp_chain=tmp_path, otlp_key=tmp_path)


async def test_a_dead_collector_costs_drops_that_are_counted():
    dead = settings_for(1, queue_spans_max=4, queue_lines_max=3, export_timeout_ms=100)
    async with telemetry(dead, service="gateway"):
        for _ in range(20):
            await some_work()
    lost = {name: n for name, n in counts().items() if name.endswith("_lost")}
    assert lost == {
        "telemetry.spans_lost": 40,
        "telemetry.logs_lost": 20,
        "telemetry.metrics_lost": 1,
    }


def test_a_backlog_takes_no_more_than_it_may():
    backlog = Backlog(2, "spans")
    assert [backlog.admits() for _ in range(3)] == [True, True, False]
    backlog.left(1, sent=True)
    assert backlog.admits()
    assert counts() == {"telemetry.spans_lost": 1}
    backlog.left(2, sent=False)
    assert (backlog.waiting, counts()["telemetry.spans_lost"]) == (0, 3)
