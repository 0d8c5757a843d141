"""One stream for all events: acks, breaks, replay, bounds. The log behind it is a fake in memory
that takes an event once, as the real one does; the wire is real.
"""

import asyncio
import os
from contextlib import asynccontextmanager

import pytest

from gateway.clients import Hops
from meshkit.audit_client import audit_client
from meshkit.channel import line
from meshkit.contract import (
    Actor,
    Commitment,
    Connection,
    Direction,
    Event,
    FindingCount,
    FinishReason,
    Message,
    Payload,
    Phase,
    Reason,
    Refusal,
    Role,
    TraceContext,
    Usage,
)
from meshkit.recording.wire import event_to_wire
from sealgate.v1.audit_pb2_grpc import AuditServiceStub
from tests.fakes import MemoryAudit
from tests.mesh.conftest import DOMAIN, service_id
from tests.ports import unused_port

HOPS = Hops(append_ms=20_000, connect_ms=200, append_pause_ms=10, appends_max=8)


def event(phase=Phase.INTENT, call_id=None, **rest):
    return Event(
        call_id=call_id or os.urandom(16),
        phase=phase,
        tenant="demo",
        occurred_at_us=1_700_000_000_000_000,
        trace=TraceContext(trace_id=b"t" * 16, span_id=b"s" * 8),
        **rest,
    )


@asynccontextmanager
async def client_to(host, port, hops=HOPS, holder=None):
    gateway = holder or host.holder(service_id("gateway"))
    async with (
        line(f"localhost:{port}", gateway, AuditServiceStub, hops.reaching) as reached,
        audit_client(reached, hops) as client,
    ):
        yield client


async def test_an_event_crosses_whole(host):
    from audit.wire import event_from_wire

    sent = event(
        Phase.OUTCOME,
        actor=Actor(
            spiffe_id=f"spiffe://{DOMAIN}/tenant/demo/assistant",
            tenant="demo",
            workload="assistant",
            user="ada",
            roles=frozenset({"application", "auditor"}),
        ),
        connection=Connection(tls_version="TLSv1.3", key_exchange_group="X", peer_ip="127.0.0.1"),
        outcome="released",
        finish_reason=FinishReason.STOP,
        model="m",
        model_digest=b"d" * 32,
        compliance_policy_digest=b"p" * 32,
        authorization_policy_digest=b"a" * 32,
        purpose="care",
        counts=(
            FindingCount(
                direction=Direction.PROMPT, type="EMAIL", subtype="", action="mask", count=2
            ),
        ),
        usage=Usage(prompt_tokens=3, completion_tokens=4),
        cache_tier="l1",
        prompt_received=Commitment(b"1" * 32, b"2" * 32),
        prompt_screened=Commitment(b"3" * 32, b"4" * 32),
        answer_released=Commitment(b"5" * 32, b"6" * 32),
        answer_delivered=Commitment(b"7" * 32, b"8" * 32),
        payload=Payload(screened=(Message(Role.USER, "hi"),), released="ho"),
        detail=(("count", "3"), ("second", "4")),
    )

    assert event_from_wire(event_to_wire(sent, sampled=True)) == sent
    assert event_from_wire(event_to_wire(event(), sampled=False)).actor is None


async def test_an_outcome_comes_back_with_its_receipt(host):
    log = MemoryAudit()
    async with host.serving("audit", log) as port, client_to(host, port) as client:
        intent = event()
        first = await client.append(intent)
        outcome = await client.append(event(Phase.OUTCOME, intent.call_id, outcome="released"))

    assert (first.index, first.receipt) == (0, None)
    assert outcome.index == 1
    assert outcome.receipt.call_id == intent.call_id
    assert log.producers == {service_id("gateway")}


async def test_many_events_go_by_one_stream(host):
    log = MemoryAudit()
    hops = HOPS.model_copy(update={"appends_max": 1_000})
    async with host.serving("audit", log) as port, client_to(host, port, hops) as client:
        appended = await asyncio.gather(*(client.append(event()) for _ in range(300)))

        assert client.streams == 1
    assert sorted(each.index for each in appended) == list(range(300))


async def test_a_refused_event_is_told_to_its_own_appender(host):
    log = MemoryAudit(down_for=frozenset({Phase.OUTCOME}))
    async with host.serving("audit", log) as port, client_to(host, port) as client:
        results = await asyncio.gather(
            client.append(event()),
            client.append(event(Phase.OUTCOME)),
            return_exceptions=True,
        )

    assert results[0].index == 0
    assert results[1].reason is Reason.AUDIT_DOWN


async def test_one_key_has_one_content(host):
    log = MemoryAudit(hold=asyncio.Event())
    async with host.serving("audit", log) as port, client_to(host, port) as client:
        once = event()
        first = asyncio.create_task(client.append(once))
        second = asyncio.create_task(client.append(once))
        await until(lambda: log.journal)
        with pytest.raises(Refusal) as caught:
            await client.append(event(call_id=once.call_id, action="chat.stream"))
        log.hold.set()

        assert await first == await second
    assert caught.value.reason is Reason.CONFLICT
    assert len(log.events) == 1


async def until(holds, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


async def test_what_has_no_ack_is_sent_again_and_taken_once(host):
    """Served twice: the first server takes the events, and is gone before it acks them."""
    log = MemoryAudit(hold=asyncio.Event())
    async with host.serving("audit", log, port=unused_port()) as port:
        client = await host.owned.enter_async_context(client_to(host, port))
        before = await send_three(client, log)
    log.hold.set()
    async with host.serving("audit", log, port=port):
        appended = await asyncio.gather(*before)

    assert sorted(each.index for each in appended) == [0, 1, 2]
    assert len(log.events) == 3
    assert client.streams == 2


async def send_three(client, log):
    tasks = [asyncio.create_task(client.append(event())) for _ in range(3)]
    await until(lambda: log.journal.count("sent intent") >= 1)
    return tasks


async def test_an_ack_that_was_lost_names_the_first_place_again(host):
    log = MemoryAudit()
    async with host.serving("audit", log) as port, client_to(host, port) as client:
        once = event()
        first = await client.append(once)
        await client.append(event())

        assert await client.append(once) == first
    assert len(log.events) == 2


async def test_a_log_that_is_away_is_down_within_the_budget(host):
    hops = HOPS.model_copy(update={"append_ms": 300})
    async with client_to(host, 1, hops) as client:
        began = asyncio.get_running_loop().time()
        with pytest.raises(Refusal) as caught:
            await client.append(event())
        took = asyncio.get_running_loop().time() - began

        assert len(client._appends) == 0
    assert caught.value.reason is Reason.AUDIT_DOWN
    assert took < 5


async def test_the_buffer_has_an_end(host):
    log = MemoryAudit(hold=asyncio.Event())
    async with host.serving("audit", log) as port, client_to(host, port) as client:
        waiting = [asyncio.create_task(client.append(event())) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as caught:
            await client.append(event())
        log.hold.set()
        await asyncio.gather(*waiting)

        assert (await client.append(event())).index == 8
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_ms == HOPS.appends_retry_ms


async def test_an_appender_that_left_leaves_no_trace_in_the_buffer(host):
    log = MemoryAudit(hold=asyncio.Event())
    async with host.serving("audit", log) as port, client_to(host, port) as client:
        task = asyncio.create_task(client.append(event()))
        await until(lambda: log.journal)
        task.cancel()
        await asyncio.wait([task])

        assert len(client._appends) == 0
        log.hold.set()
        await client.append(event())


async def test_a_draining_log_lets_its_producers_go_at_once(host):
    """Their streams have no end of their own; the drain would last as long as it may."""
    log = MemoryAudit()
    loop = asyncio.get_running_loop()
    patient = host.placed.serving.model_copy(update={"drain_ms": 20_000})
    host.placed = host.placed.model_copy(update={"serving": patient})
    async with host.serving("audit", log) as port:
        client = await host.owned.enter_async_context(client_to(host, port))
        await client.append(event())
        began = loop.time()

    assert loop.time() - began < host.placed.serving.drain_ms / 1_000 / 2


async def test_a_draining_log_acks_what_it_has_read(host):
    log = MemoryAudit(hold=asyncio.Event())
    async with host.serving("audit", log) as port:
        client = await host.owned.enter_async_context(client_to(host, port))
        task = asyncio.create_task(client.append(event()))
        await until(lambda: log.journal)
        asyncio.get_running_loop().call_later(0.2, log.hold.set)

    assert (await task).index == 0
    assert client.streams == 1


async def test_a_renewed_certificate_moves_the_stream_without_a_loss(host):
    log = MemoryAudit()
    holder = host.holder(service_id("gateway"))
    hops = HOPS.model_copy(update={"appends_max": 100})
    async with host.serving("audit", log) as port, client_to(host, port, hops, holder) as client:
        appended = []
        for _ in range(10):
            batch = [asyncio.create_task(client.append(event())) for _ in range(20)]
            await asyncio.sleep(0.02)
            holder.replace(host.authority.issue(service_id("gateway")))
            appended += await asyncio.gather(*batch)

        assert client.streams >= 4
    assert sorted(each.index for each in appended) == list(range(200))
    assert len(log.events) == 200


async def test_a_peer_that_may_not_append_is_told_nothing_and_takes_no_event(host):
    log = MemoryAudit()
    hops = HOPS.model_copy(update={"append_ms": 300})
    stranger = host.holder(f"spiffe://{DOMAIN}/tenant/demo/assistant")
    async with (
        host.serving("audit", log) as port,
        client_to(host, port, hops, stranger) as client,
    ):
        with pytest.raises(Refusal) as caught:
            await client.append(event())
        await until(lambda: log.events)  # it goes on trying

    assert caught.value.reason is Reason.AUDIT_DOWN
    assert {each.action for each in log.events} == {"access.refused"}
