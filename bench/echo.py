"""The reference, and the noise: a bare grpc.aio mTLS echo, alone and against itself."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.catalogue import Figure, paired, repeated
from bench.certificates import Identity, make_identities
from bench.children import WORK, Child, child, cores
from bench.load import Run, channel, drive
from bench.servers import ECHO_METHOD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    import grpc

    from bench.plan import Plan

NAMES = ("echo_rps", "echo_self_ratio")
REQUEST_BYTES = 250
REPLY_BYTES = 700
IN_FLIGHT = 64
FOLDER = WORK / "echo-tls"


@dataclass(frozen=True, slots=True)
class Echo:
    """A running echo server and a warm connection to it."""

    pid: int
    _call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    _request: bytes

    async def drive(self, *, in_flight: int, seconds: float) -> Run:
        """Load it."""
        (core,) = cores()[0]
        return await drive(self.call, pid=self.pid, core=core, in_flight=in_flight, seconds=seconds)

    async def call(self, _number: int) -> bytes:
        """Make one call."""
        return await self._call(self._request)


def identities() -> dict[str, Identity]:
    """Make certificates for the echo (`server`) and its caller (`client`), in `FOLDER`."""
    names = {
        "server": "spiffe://bench.test/service/echo",
        "client": "spiffe://bench.test/tenant/bench/client",
    }
    return make_identities(FOLDER, names)


def child_echo(made: dict[str, Identity]) -> AbstractAsyncContextManager[Child]:
    """Start the echo's process on the server's core."""
    server = made["server"]
    files = {"ca": str(server.ca), "chain": str(server.chain), "key": str(server.key)}
    return child("echo", files, pinned_to=cores()[0])


@asynccontextmanager
async def echo_server(
    *, request_bytes: int = REQUEST_BYTES, reply_bytes: int = REPLY_BYTES
) -> AsyncIterator[Echo]:
    """Run the echo on the server's core, with messages of these sizes."""
    made = identities()
    client = made["client"]
    async with child_echo(made) as process:
        port = (await process.told())["port"]
        async with channel(port, client.ca, client.chain, client.key) as opened:
            call = opened.unary_unary(ECHO_METHOD, bytes, bytes)
            request = reply_bytes.to_bytes(4).ljust(request_bytes, b"x")
            yield Echo(process.pid, call, request)


def pin_load() -> None:
    """Pin this process, the load generator, to its own core."""
    os.sched_setaffinity(0, cores()[1])


async def measure(plan: Plan) -> list[Figure]:
    """Measure two echo servers in interleaved pairs; the ratio ought to be 1."""
    pin_load()
    async with echo_server() as one, echo_server() as other:
        for warm in (one, other):
            await warm.drive(in_flight=IN_FLIGHT, seconds=plan.burst_s / 3)
        ours: list[Run] = []
        theirs: list[Run] = []
        for _ in range(plan.pairs):
            ours.append(await one.drive(in_flight=IN_FLIGHT, seconds=plan.burst_s))
            theirs.append(await other.drive(in_flight=IN_FLIGHT, seconds=plan.burst_s))
    rates = tuple(run.rate for run in ours), tuple(run.rate for run in theirs)
    busy = min(run.spent.busy for run in (*ours, *theirs))
    note = f"server core at least {100 * busy:.0f} % busy, {IN_FLIGHT} in flight"
    ratio = paired("echo_self_ratio", *rates, note=note)
    return [
        repeated("echo_rps", rates[0], note=note),
        Figure(name=ratio.name, value=ratio.ratio or 0.0, spread=ratio.spread),
    ]
