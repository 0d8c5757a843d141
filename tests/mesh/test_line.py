"""A channel lasts as long as its certificate; a line outlives them."""

import asyncio
import ssl

import grpc
import pytest
from cryptography import x509

from meshkit.channel import Reaching, carried, line
from meshkit.contract import Message, Role
from meshkit.interceptors import current
from meshkit.wire import messages_to_wire, scope_to_wire
from sealgate.v1 import compliance_pb2 as pb
from sealgate.v1.compliance_pb2_grpc import ComplianceServiceStub
from tests.fakes import WaryCompliance
from tests.mesh.conftest import scope, service_id
from tests.ports import unused_port

GATEWAY = service_id("gateway")
ITEM = {
    "scope": scope_to_wire(scope()),
    "messages": messages_to_wire([Message(Role.USER, "hello")]),
}


async def screen(reached):
    with reached.stub() as stub:
        await stub.Screen(pb.ScreenRequest(items=[ITEM]), **carried(reserve_ms=0))


class Slow(WaryCompliance):
    def __init__(self):
        super().__init__()
        self.under_way = 0
        self.go = asyncio.Event()

    async def screen(self, scope, messages):
        self.under_way += 1
        await self.go.wait()
        return await super().screen(scope, messages)


async def test_the_channel_is_made_anew_when_the_certificate_is(host, rpc):
    rpc()
    holder = host.holder(GATEWAY)
    async with (
        host.serving("compliance", WaryCompliance()) as port,
        line(f"localhost:{port}", holder, ComplianceServiceStub) as reached,
    ):
        await screen(reached)
        await screen(reached)
        assert reached.swaps == 0

        holder.replace(host.authority.issue(GATEWAY))
        assert reached.renewed
        await screen(reached)

        assert reached.swaps == 1
        assert not reached.renewed


async def test_a_call_under_way_ends_on_the_channel_it_began_on(host, rpc):
    rpc()
    holder = host.holder(GATEWAY)
    slow = Slow()
    async with (
        host.serving("compliance", slow) as port,
        line(f"localhost:{port}", holder, ComplianceServiceStub) as reached,
    ):
        old = asyncio.create_task(screen(reached))
        await until(lambda: slow.under_way == 1)
        holder.replace(host.authority.issue(GATEWAY))
        new = asyncio.create_task(screen(reached))
        await until(lambda: slow.under_way == 2)
        assert reached.swaps == 1
        slow.go.set()

        await asyncio.gather(old, new)
        await until(lambda: not reached._closing)


async def until(holds, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


async def test_no_call_is_lost_while_both_ends_renew_under_load(host, rpc):
    """Certificates replaced every 30 ms on both sides, old connections forced to end."""
    rpc()
    ours = host.holder(GATEWAY)
    theirs = host.holder(service_id("compliance"))
    from compliance.main import compliance_at

    serving = host.placed.serving.model_copy(
        update={"connection_age_max_ms": 100, "connection_grace_ms": 5_000}
    )
    placed = host.placed.model_copy(update={"serving": serving})
    done = 0
    over = asyncio.Event()

    async def caller(reached):
        nonlocal done
        while not over.is_set():
            await screen(reached)
            done += 1

    async with (
        compliance_at(placed, WaryCompliance(), theirs) as port,
        line(f"localhost:{port}", ours, ComplianceServiceStub) as reached,
    ):
        calls = [asyncio.create_task(caller(reached)) for _ in range(4)]
        async with asyncio.timeout(60):
            while reached.swaps <= 20 or done <= 100:
                await asyncio.sleep(0.03)
                ours.replace(host.authority.issue(GATEWAY))
                theirs.replace(host.authority.issue(service_id("compliance")))
        over.set()
        await asyncio.gather(*calls)


async def test_a_server_shows_the_certificate_of_now(host):
    theirs = host.holder(service_id("compliance"))
    from compliance.main import compliance_at

    async with compliance_at(host.placed, WaryCompliance(), theirs) as port:
        before = await shown(port)
        theirs.replace(host.authority.issue(service_id("compliance")))

        assert await shown(port) != before
        assert await shown(port) == theirs.certificate.serial


async def shown(port):
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def test_a_neighbour_that_comes_back_is_found_at_once(host, rpc):
    rpc()
    settings = Reaching(reconnect_max_ms=300)
    async with host.serving("compliance", WaryCompliance(), port=unused_port()) as port:
        reached = await host.owned.enter_async_context(
            line(f"localhost:{port}", host.holder(GATEWAY), ComplianceServiceStub, settings)
        )
        assert await reached.connected(10.0)
        await screen(reached)
    assert not await reached.connected(0.2)
    await asyncio.sleep(1.0)
    assert not await reached.connected(5.0, patient=False)

    async with host.serving("compliance", WaryCompliance(), port=port):
        assert await reached.connected(10.0)
        await screen(reached)


async def test_a_call_without_an_rpc_is_a_bug(host):
    with pytest.raises(LookupError):
        carried(reserve_ms=0)
    with pytest.raises(LookupError):
        current()


async def test_closing_a_line_ends_what_is_on_it(host, rpc):
    rpc()
    slow = Slow()
    async with host.serving("compliance", slow) as port:
        async with line(
            f"localhost:{port}", host.holder(GATEWAY), ComplianceServiceStub
        ) as reached:
            task = asyncio.create_task(screen(reached))
            await until(lambda: slow.under_way == 1)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await task
