"""What Prometheus reads, over real HTTP."""

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import AsyncExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from meshkit import counters, metrics
from meshkit.counters import SECONDS, Histogram, counted, measured, observed
from meshkit.counters import counters as counts
from meshkit.metric_names import LABELS, METRICS
from meshkit.metrics import METRICS_PORTS, loop_watched, metrics_endpoint, snapshot
from meshkit.telemetry import Telemetry, step, telemetry
from tests.ports import unused_port

CANARY = "canary ada@example.org"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    for name in ("_counters", "_histograms", "_steps", "_gauges"):
        monkeypatch.setattr(counters, name, {})


def fetched(port, path="/metrics", **more):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", **more)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read().decode()


async def scraped(port):
    """All samples by name and labels."""
    text = await asyncio.to_thread(fetched, port)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_counts_gauges_histograms_and_steps_are_scraped():
    counted("rpc.refused.BLOCKED", 3)
    counted("cache.l1.hit")
    observed("rpc.call..sealgate.v1.GatewayService/Chat", 0.004)
    observed("rpc.call.BLOCKED.sealgate.v1.GatewayService/Chat", 7_000.0)
    with step("screen"):
        pass
    async with metrics_endpoint("127.0.0.1", 0, service="gateway") as port:
        with measured("tls.remaining_s.service.cache", lambda: 41.5):
            seen = await scraped(port)
    chat = ("rpc_method", "sealgate.v1.GatewayService/Chat")
    duration = "rpc_server_call_duration_seconds"
    assert seen["sealgate_refusals_total", ("reason", "BLOCKED")] == 3
    assert seen["sealgate_cache_lookups_total", ("result", "hit"), ("tier", "l1")] == 1
    assert seen["sealgate_certificate_remaining_seconds", ("role", "service.cache")] == 41.5
    assert seen[f"{duration}_count", ("error_type", ""), chat] == 1
    assert seen[f"{duration}_bucket", ("error_type", ""), ("le", "0.0025"), chat] == 0
    assert seen[f"{duration}_bucket", ("error_type", ""), ("le", "0.005"), chat] == 1
    assert seen[f"{duration}_bucket", ("error_type", "BLOCKED"), ("le", "120.0"), chat] == 0
    assert seen[f"{duration}_bucket", ("error_type", "BLOCKED"), ("le", "+Inf"), chat] == 1
    assert seen["sealgate_step_seconds_count", ("step", "screen")] == 1
    assert seen["process_resident_memory_bytes",] > 1_000_000
    (info,) = [key for key in seen if key[0] == "sealgate_info"]
    assert ("service", "gateway") in info


async def test_what_is_not_on_the_list_never_leaves():
    counted(f"rpc.refused.{CANARY}")
    counted("never.heard_of")
    observed(f"gen_ai.first_token.{CANARY}", 1)
    with step(CANARY):
        pass
    async with metrics_endpoint("127.0.0.1", 0, service="gateway") as port:
        with measured(f"tls.remaining_s.{CANARY}", lambda: 1.0):
            text = await asyncio.to_thread(fetched, port)
    assert "canary" not in text
    assert "heard_of" not in text
    assert counts()["metrics.unlisted"] == 5


async def test_a_gauge_that_fails_takes_nothing_else_away():
    counted("rpc.bugs")
    with measured("audit.backlog", lambda: 1 // 0):
        names = {point.metric.name for point in snapshot()}
    assert "sealgate_bugs" in names
    assert "sealgate_audit_backlog_events" not in names
    assert counts()["metrics.unread"] == 1


def test_a_counter_without_labels_is_there_before_it_counts():
    """An increase from nothing to 1 is none to Prometheus."""
    bugs = {point.value for point in snapshot() if point.metric.name == "sealgate_bugs"}
    assert bugs == {0}


async def test_only_metrics_are_answered_and_only_when_asked_for():
    async with metrics_endpoint("127.0.0.1", 0, service="gateway") as port:
        for path, more, code in (("/", {}, 404), ("/metrics", {"data": b"x"}, 405)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                await asyncio.to_thread(fetched, port, path, **more)
            assert caught.value.code == code
            caught.value.close()
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(fetched, port)


async def test_its_end_wakes_the_server_that_waits_for_clients(monkeypatch):
    monkeypatch.setattr(metrics, "_END_LOOK_S", 60.0)
    async with asyncio.timeout(20), metrics_endpoint("127.0.0.1", 0, service="gateway") as port:
        assert await scraped(port)


async def test_a_port_that_is_taken_is_waited_for_and_the_service_goes_on(monkeypatch):
    monkeypatch.setattr("meshkit.metrics._TAKEN_PAUSE_S", 0.01)
    async with AsyncExitStack() as owned:
        port = unused_port()
        with socket.create_server(("127.0.0.1", port)):
            yielded = await owned.enter_async_context(
                metrics_endpoint("127.0.0.1", port, service="gateway")
            )
        assert yielded == port
        async with asyncio.timeout(30):
            while True:
                try:
                    assert ("sealgate_info",) in {key[:1] for key in await scraped(port)}
                except urllib.error.URLError:
                    await asyncio.sleep(0.01)
                else:
                    break


async def test_no_more_clients_are_let_in_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(metrics, "_CLIENTS_MAX", 3)
    async with AsyncExitStack() as owned:
        port = await owned.enter_async_context(metrics_endpoint("127.0.0.1", 0, service="gateway"))
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        for each in slow:
            owned.callback(each.close)
            each.send(b"GET /me")
        with pytest.raises(OSError):  # noqa: PT011 -- turned away by a reset, or by its end
            await asyncio.to_thread(fetched, port)

        slow[0].close()
        async with asyncio.timeout(20):
            while True:
                with suppress(OSError):
                    assert "sealgate_info" in await asyncio.to_thread(fetched, port)
                    break
                await asyncio.sleep(0.05)


async def drip(connection):
    async with asyncio.timeout(20):
        while True:
            connection.send(b"G")
            await asyncio.sleep(0.1)


async def test_a_client_that_drips_is_cut_off(monkeypatch):
    monkeypatch.setattr(metrics, "_CLIENT_S", 0.5)
    async with metrics_endpoint("127.0.0.1", 0, service="gateway") as port:
        slow = socket.create_connection(("127.0.0.1", port))
        with slow, pytest.raises(ConnectionError):
            await drip(slow)


async def test_an_address_that_is_not_ours_ends_the_start_and_is_named():
    with pytest.raises(OSError, match=r"metrics cannot listen on 192\.0\.2\.1:9464"):
        async with metrics_endpoint("192.0.2.1", 9464, service="gateway"):
            pass


def test_where_the_endpoint_is():
    assert [METRICS_PORTS[name] for name in ("gateway", "compliance", "cache")] == [
        9464,
        9465,
        9466,
    ]
    assert (METRICS_PORTS["inference"], METRICS_PORTS["audit"]) == (9467, 9468)
    assert METRICS_PORTS["appliance"] == METRICS_PORTS["gateway"]
    usual = Telemetry()
    assert usual.endpoint("cache", 50_053) == ("127.0.0.1", 9466)
    assert usual.endpoint("cache", 0) == ("127.0.0.1", 0)
    assert Telemetry(metrics_port=9_999).endpoint("cache", 0) == ("127.0.0.1", 9_999)
    assert Telemetry(metrics_port=0).endpoint("cache", 50_053) == ("127.0.0.1", 0)
    assert Telemetry(metrics=False).endpoint("cache", 50_053) is None


async def test_telemetry_opens_an_endpoint_for_a_service_and_none_without():
    async with telemetry(Telemetry(), service="cache"):
        assert not [point for point in snapshot() if point.metric.name == "sealgate_info"]
    async with telemetry(Telemetry(), service="cache", own_port=0):
        assert [point for point in snapshot() if point.metric.name == "sealgate_info"]


async def test_a_loop_that_hangs_is_seen_from_outside():
    async with metrics_endpoint("127.0.0.1", 0, service="gateway") as port, loop_watched():
        seen = threading.Event()
        watching = threading.Thread(target=watched_until_silent, args=(port, seen))
        watching.start()
        assert seen.wait(30)  # the loop stands still meanwhile
        watching.join()
        async with asyncio.timeout(10):
            while "process.loop_lag" not in counters.histograms():
                await asyncio.sleep(0.01)
    lag = counters.histograms()["process.loop_lag"]
    assert sum(lag.counts) >= 1
    assert lag.total > 0.2


def watched_until_silent(port, seen):
    while True:
        (family,) = [
            each
            for each in text_string_to_metric_families(fetched(port))
            if each.name == "sealgate_event_loop_silent_seconds"
        ]
        if family.samples[0].value > 0.2:
            seen.set()
            return
        time.sleep(0.02)


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1e6) | st.sampled_from(SECONDS), max_size=60))
def test_each_value_is_in_the_first_bucket_that_holds_it(values):
    counters._histograms.clear()
    for value in values:
        observed("audit.fsync", value)
    if not values:
        return
    held = counters.histograms()["audit.fsync"]
    assert isinstance(held, Histogram)
    assert sum(held.counts) == len(values)
    for at, bound in enumerate(held.bounds):
        assert sum(held.counts[: at + 1]) == sum(value <= bound for value in values)
    assert held.total == pytest.approx(sum(values))


async def test_labels_of_what_is_scraped_are_on_the_list():
    for metric in METRICS:
        for label in metric.labels:
            assert label in LABELS
    counted("rpc.refused.BLOCKED")
    async with metrics_endpoint("127.0.0.1", 0, service="audit") as port:
        keys = {label for key in await scraped(port) for label, _ in key[1:]}
    assert keys <= {*LABELS, "le"}
