import asyncio
from contextlib import suppress

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from meshkit.contract import Reason, Refusal
from meshkit.health import Health
from meshkit.identity import ServiceIdentity
from meshkit.places import RETRY_MS, Places
from meshkit.status import from_rpc_error
from meshkit.tls import TlsError

SERVING, DOWN = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


async def test_health_is_born_down():
    health = Health(["test.Four"])
    for name in ("", "test.Four"):
        assert (await health.Check(HealthCheckRequest(service=name), None)).status == DOWN


async def test_health_serves_named_services_and_knows_no_others(serve, channel, tenant_ends):
    async with serve(names=["test.Four"]) as port, channel(port, tenant_ends) as ours:
        stub = HealthStub(ours)
        for name in ("", "test.Four"):
            assert (await stub.Check(HealthCheckRequest(service=name))).status == SERVING
        call = stub.Watch(HealthCheckRequest(service="other"))
        assert (await call.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
        call.cancel()


async def test_a_watcher_is_told_of_the_drain_and_does_not_hold_it_up(serve, channel, tenant_ends):
    loop = asyncio.get_running_loop()
    async with serve(drain_ms=20_000, lame_duck_ms=50) as port:
        ours = channel(port, tenant_ends)
        watch = HealthStub(ours).Watch(HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        before = loop.time()
    assert (await watch.read()).status == DOWN
    assert await watch.read() is grpc.aio.EOF
    assert loop.time() - before < 5
    await ours.close()


async def test_a_service_that_cannot_work_says_so_until_it_can(serve, channel, tenant_ends):
    able = [False]
    async with serve(healthy=lambda: able[0]) as port, channel(port, tenant_ends) as ours:
        watch = HealthStub(ours).Watch(HealthCheckRequest())
        told = [(await watch.read()).status]
        for able[0] in (True, False):
            told.append((await watch.read()).status)
    assert told == [DOWN, SERVING, DOWN]


async def test_a_balancers_probe_needs_no_tenant(serve, channel, ca):
    async with serve() as port, channel(port, ca.issue()) as ours:
        reply = await HealthStub(ours).Check(HealthCheckRequest())
    assert reply.status == SERVING


async def test_a_port_that_is_taken_is_an_error(serve):
    async with serve() as port:
        with pytest.raises(OSError, match="cannot listen"):
            async with serve(address=f"127.0.0.1:{port}"):
                pytest.fail("two servers on one port")


async def test_a_server_that_takes_tls12_does_not_start(serve, monkeypatch):
    async def found_tls12(host, port, *, timeout_ms):
        msg = "this server takes TLS 1.2"
        raise TlsError(msg)

    monkeypatch.setattr("meshkit.server.probe_tls13_only", found_tls12)
    with pytest.raises(TlsError):
        async with serve():
            pytest.fail("served")


async def test_reflection_lists_what_is_served_to_those_admitted(serve, channel, tenant_ends, ca):
    async def services(ends):
        async with channel(port, ends) as ours:
            call = ServerReflectionStub(ours).ServerReflectionInfo(
                iter([ServerReflectionRequest(list_services="")])
            )
            reply = await call.read()
            return [each.name for each in reply.list_services_response.service]

    async with serve(names=["test.Four"], reflection=True) as port:
        assert "test.Four" in await services(tenant_ends)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await services(ca.issue())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_there_is_no_reflection_unless_asked_for(serve, channel, tenant_ends):
    async with serve() as port, channel(port, tenant_ends) as ours:
        call = ServerReflectionStub(ours).ServerReflectionInfo(
            iter([ServerReflectionRequest(list_services="")])
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_one_tenant_cannot_take_everybodys_places(serve, channel, ca, tenant_ends):
    """Watches stay open for ever, and no limit of rates sees them."""
    other = ca.issue("spiffe://sealgate.local/tenant/globex/chat")
    async with (
        serve(calls_per_tenant_max=3, drain_ms=1_000) as port,
        channel(port, tenant_ends) as greedy,
        channel(port, other) as modest,
    ):
        watches = [HealthStub(greedy).Watch(HealthCheckRequest()) for _ in range(3)]
        assert [(await watch.read()).status for watch in watches] == [SERVING] * 3
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await HealthStub(greedy).Check(HealthCheckRequest())
        refusal = from_rpc_error(caught.value)
        assert (refusal.reason, refusal.retry_after_ms) == (Reason.OVERLOADED, RETRY_MS)

        assert (await HealthStub(modest).Check(HealthCheckRequest())).status == SERVING

        watches[0].cancel()
        for _ in range(50):
            with suppress(grpc.aio.AioRpcError):
                assert (await HealthStub(greedy).Check(HealthCheckRequest())).status == SERVING
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("a place that was given back is not to be had")


def test_services_carry_everybodys_calls_and_are_not_counted():
    places = Places(1)
    gateway = ServiceIdentity("sealgate.local", "gateway")
    with (
        places.taken(gateway),
        places.taken(gateway),
        places.taken(None),
        pytest.raises(Refusal, match="OVERLOADED"),
        places.taken(None),
    ):
        pytest.fail("a second place")
