"""Closed-loop load: so many calls in flight, for so long, never more."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from bench import meter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    """What a burst of load saw."""

    calls: int
    latencies_s: tuple[float, ...]
    spent: meter.Spent

    @property
    def rate(self) -> float:
        """Calls per second of time that the server's core was available to the server."""
        return self.calls / self.spent.available_s

    @property
    def rate_per_cpu(self) -> float:
        """Calls per second of CPU that the server spent."""
        return self.calls / self.spent.cpu_s


async def drive(
    call: Callable[[int], Awaitable[object]],
    *,
    pid: int,
    core: int,
    in_flight: int,
    seconds: float,
    first: int = 0,
) -> Run:
    """Keep `in_flight` calls under way for `seconds`, then let the last ones finish.

    Args:
        call: Makes call number n; its exceptions end the run.
        pid: The server, whose CPU is counted.
        core: The core that it is pinned to.
        in_flight: Callers, each with one call at a time.
        seconds: When to stop starting new calls.
        first: Number of the first call.
    """
    latencies: list[float] = []
    number = first
    before = meter.read(pid, core)
    end = before.wall_s + seconds

    async def caller() -> None:
        nonlocal number
        while (start := time.perf_counter()) < end:
            mine, number = number, number + 1
            await call(mine)
            latencies.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
    spent = meter.between(before, meter.read(pid, core))
    return Run(len(latencies), tuple(latencies), spent)


@asynccontextmanager
async def channel(
    port: int, ca: Path, chain: Path, key: Path, *, options: tuple[tuple[str, int], ...] = ()
) -> AsyncIterator[grpc.aio.Channel]:
    """Open a warm mTLS connection to 127.0.0.1."""
    credentials = _credentials(ca, chain, key)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as opened:
        await asyncio.wait_for(opened.channel_ready(), CALL_TIMEOUT_S)
        yield opened


def _credentials(ca: Path, chain: Path, key: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=ca.read_bytes(),
        private_key=key.read_bytes(),
        certificate_chain=chain.read_bytes(),
    )
