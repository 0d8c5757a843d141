"""The audit service by itself, over gRPC: durable events a second, and the time to the ack.

64 clients, each with its own Append stream over one of a few connections, one batch of events in
flight each. Events are pairs, INTENT and OUTCOME of one call, as the gateway sends them: texts,
four commitments, counts. Server and load share both cores, as the figure says.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.catalogue import Figure, repeated
from bench.children import WORK, child
from bench.governed import count_calls, watched
from bench.load import channel
from bench.meter import stolen_s
from bench.statistics import median, quantile
from bench.workload import answer, prompt
from meshkit.call_id import new_call_id
from sealgate.v1 import audit_pb2, common_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import grpc

    from bench.plan import Plan

NAMES = ("audit_events_per_s", "audit_append_p99_ms", "audit_append_p99_2500_ms")
STEADY_EVENTS_PER_S = 2_500
"""Half of the budgeted rate: a load that stays the same when the highest rate changes."""
CLIENTS = 64
CONNECTIONS = 4
BATCH_EVENTS = 16
METHOD = "/sealgate.v1.AuditService/Append"
SECONDS = 4.0
REPEATS = 5


class EventRefusedError(RuntimeError):
    """The audit service refused an event, so that its rate would mean nothing."""


def _template(number: int) -> tuple[bytes, bytes]:
    """Serialise INTENT and OUTCOME of a call, but for the call id."""
    shared = audit_pb2.AuditEvent(
        tenant="bench",
        trace_id=os.urandom(16),
        span_id=os.urandom(8),
        actor=audit_pb2.Actor(
            spiffe_id="spiffe://sealgate.local/tenant/bench/client",
            workload="client",
            roles=["application"],
        ),
        connection=audit_pb2.Connection(
            tls_version="TLSv1.3", key_exchange_group="X25519MLKEM768", peer_ip="127.0.0.1"
        ),
        action="chat",
        model="null",
        model_digest=os.urandom(32),
        authorization_policy_digest=os.urandom(32),
    )
    shared.occurred_at.GetCurrentTime()
    intent = audit_pb2.AuditEvent()
    intent.CopyFrom(shared)
    intent.phase = audit_pb2.PHASE_INTENT
    intent.prompt_received.CopyFrom(_commitment())
    return intent.SerializeToString(), _outcome(shared, number).SerializeToString()


def _outcome(shared: audit_pb2.AuditEvent, number: int) -> audit_pb2.AuditEvent:
    turn = common_pb2.Message(role=common_pb2.ROLE_USER, content=prompt(number))
    outcome = audit_pb2.AuditEvent(
        phase=audit_pb2.PHASE_OUTCOME,
        outcome="released",
        finish_reason=common_pb2.FINISH_REASON_STOP,
        compliance_policy_digest=os.urandom(32),
        counts=[_count("PERSON"), _count("CREDIT_CARD")],
        usage=common_pb2.Usage(prompt_tokens=50, completion_tokens=50),
        cache_tier="l1",
        prompt_received=_commitment(),
        prompt_screened=_commitment(),
        answer_released=_commitment(),
        answer_delivered=_commitment(),
        payload=audit_pb2.AuditPayload(screened=[turn], released=answer(number)),
    )
    outcome.MergeFrom(shared)
    return outcome


def _commitment() -> audit_pb2.Commitment:
    return audit_pb2.Commitment(salt=os.urandom(32), value=os.urandom(32))


def _count(kind: str) -> common_pb2.FindingCount:
    return common_pb2.FindingCount(
        direction=common_pb2.DIRECTION_PROMPT, type=kind, action=common_pb2.ACTION_MASK, count=1
    )


TEMPLATES = tuple(_template(number) for number in range(8))


def batch(number: int) -> bytes:
    """Serialise an AppendRequest of fresh calls without the cost of building messages.

    A message's fields may come in any order and a repeated field is a row of (tag, length, bytes):
    https://protobuf.dev/programming-guides/encoding
    """
    parts: list[bytes] = []
    for place in range(BATCH_EVENTS // 2):
        call_id = b"\x0a\x10" + new_call_id()
        for event in TEMPLATES[(number + place) % len(TEMPLATES)]:
            whole = call_id + event
            parts += (b"\x0a", _varint(len(whole)), whole)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@dataclass(slots=True)
class _Tally:
    """What has been acknowledged within the window."""

    end_s: float
    events: int = 0
    stolen_s: float = 0.0
    """Time in which the hypervisor let others run, a core on average."""
    latencies_s: list[float] = field(default_factory=list)

    def acknowledged(self, latency_s: float, now_s: float) -> None:
        """Count a batch; one whose ack came too late for the window has a latency only."""
        self.latencies_s.append(latency_s)
        if now_s <= self.end_s:
            self.events += BATCH_EVENTS


async def _client(opened: grpc.aio.Channel, tally: _Tally, every_s: float) -> None:
    """Append batch after batch until the window ends, at most one every `every_s`."""
    loop = asyncio.get_running_loop()
    call = opened.stream_stream(METHOD, bytes, audit_pb2.AppendResponse.FromString)(None)
    number, due = 0, loop.time() + every_s * int.from_bytes(os.urandom(2)) / 2**16
    while (now := loop.time()) < tally.end_s:
        await asyncio.sleep(due - now if every_s else 0)
        due += every_s
        start = loop.time()
        await call.write(batch(number))
        await _acknowledged(call)
        tally.acknowledged(loop.time() - start, loop.time())
        number += 1
    await call.done_writing()


async def _acknowledged(call: grpc.aio.StreamStreamCall[bytes, audit_pb2.AppendResponse]) -> None:
    missing = BATCH_EVENTS
    while missing:
        told = await call.read()
        assert isinstance(told, audit_pb2.AppendResponse)
        for ack in told.acks:
            if not ack.HasField("appended"):
                raise EventRefusedError(ack.refusal.reason)
        missing -= len(told.acks)


async def _window(
    channels: list[grpc.aio.Channel], seconds: float, *, events_per_s: float = 0.0
) -> _Tally:
    """Let all clients append for a while: as fast as they can, or at a rate for all together."""
    every_s = CLIENTS * BATCH_EVENTS / events_per_s if events_per_s else 0.0
    tally = _Tally(asyncio.get_running_loop().time() + seconds)
    before_s = stolen_s()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(_client(channels[number % len(channels)], tally, every_s))
    tally.stolen_s = stolen_s() - before_s
    return tally


async def _served(channels: list[grpc.aio.Channel], seconds: float) -> int:
    return (await _window(channels, seconds)).events


async def measure(plan: Plan) -> list[Figure]:
    """Measure the highest rate first, then the time to an ack at half of it, and at 2,500/s."""
    folder = WORK / "audit"
    seconds, repeats = (0.3, 2) if plan.quick else (SECONDS, REPEATS)
    async with child("audit", {"folder": str(folder)}, pinned_to=None) as process:
        told = await process.told()
        async with AsyncExitStack() as connections:
            channels = [c async for c in _connect(connections, told["port"], folder / "tls")]
            await _window(channels, seconds / 2)
            full = [await _window(channels, seconds) for _ in range(repeats)]
            rates = [tally.events / (seconds - tally.stolen_s) for tally in full]
            at_half, at_steady = [
                [await _window(channels, seconds, events_per_s=rate) for _ in range(repeats)]
                for rate in (median(rates) / 2, STEADY_EVENTS_PER_S)
            ]
            if plan.profiles(*NAMES):
                async with watched(plan, process.pid, *NAMES):
                    await _window(channels, SECONDS)
                await count_calls(plan, process, lambda: _served(channels, SECONDS))
    note = f"{CLIENTS} clients, batches of {BATCH_EVENTS}, payloads sealed"
    wall = median([tally.events / seconds for tally in full])
    stolen = median([tally.stolen_s / seconds for tally in full])
    told_too = f"{note}; {wall:,.0f} by the wall, {stolen:.0%} of which was stolen"
    return [
        repeated("audit_events_per_s", tuple(rates), note=told_too),
        _p99("audit_append_p99_ms", at_half, seconds, note),
        _p99("audit_append_p99_2500_ms", at_steady, seconds, note),
    ]


def _p99(name: str, windows: list[_Tally], seconds: float, note: str) -> Figure:
    p99s = tuple(1_000 * quantile(tally.latencies_s, 0.99) for tally in windows)
    got = median([tally.events / seconds for tally in windows])
    return repeated(name, p99s, note=f"{note}; at {got:,.0f} events/s")


async def _connect(
    connections: AsyncExitStack, port: int, tls: Path
) -> AsyncIterator[grpc.aio.Channel]:
    files = (tls / "ca.pem", tls / "client.pem", tls / "client.key")
    for number in range(CONNECTIONS):
        # Equal channels share a connection; an option that differs keeps them apart.
        options = (("sealgate.bench.connection", number),)
        yield await connections.enter_async_context(channel(port, *files, options=options))
