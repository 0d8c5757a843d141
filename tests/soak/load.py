"""Test 20: the audit service under a steady load over gRPC, for as long as is asked.

    python -m tests.soak.load [--seconds N] [--rate EVENTS] [--folder DIR] [--no-witness]

One audit server in a process of its own (payloads sealed, index on, a witness in a third process
cosigning every checkpoint), 64 producers here, all on the same cores. The rate is kept whether acks
come or not. The server's clock jumps by up to 5 s either way. Then the log is verified, every entry
of it, and each acknowledged index must be there once.

Exits 1 if a limit is missed. Prints one JSON line. Seconds are wall time.
"""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc, as in every entry point

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench import auditing
from meshkit.files import read_or_none
from meshkit.tlog import check_log
from sealgate.v1 import audit_pb2
from tests.soak.machine import machine, rss_mb
from tests.soak.witness import witness

assert tls_floor.in_time()

ROOT = Path(__file__).parents[2]
SKEW_S = 5.0
POLL_S = 0.01
REFRESH_S = 1.0
ACK_P99_MS, PUBLISHED_P99_S, WITNESSED_P99_S = 25.0, 1.0, 2.0
FLAT_MB = 32.0
"""Of growth over the second half."""


@dataclass
class Seen:
    """What producers were told, and when which checkpoint was there to be read."""

    acks: list = field(default_factory=list)  # (when, largest index, seconds it took)
    indexes: list = field(default_factory=list)
    published: list = field(default_factory=list)  # (when, size)
    witnessed: list = field(default_factory=list)
    refused: int = 0
    moved: int = 0
    """Batches sent again over another connection."""
    late: int = 0
    rss: list = field(default_factory=list)


async def producer(channel, seen, every_s, until):
    loop = asyncio.get_running_loop()
    call = stream(channel)
    number, due = 0, loop.time() + every_s * int.from_bytes(os.urandom(2)) / 2**16
    while due < until:
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        else:
            seen.late += wait < -every_s
        due += every_s
        sent, batch = loop.time(), auditing.batch(number)
        number += 1
        try:
            largest = await acknowledged(call, batch, seen)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the second: ended before
            # Connections have an age. What has no ack is sent again, as the gateway does.
            if await call.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            seen.moved += 1
            call = stream(channel)
            largest = await acknowledged(call, batch, seen)
        seen.acks.append((loop.time(), largest, loop.time() - sent))
    await call.done_writing()


def stream(channel):
    return channel.stream_stream(auditing.METHOD, bytes, audit_pb2.AppendResponse.FromString)(None)


async def acknowledged(call, batch, seen):
    """Send a batch and take its acks; return the largest index."""
    await call.write(batch)
    missing, indexes = auditing.BATCH_EVENTS, []
    while missing:
        told = await call.read()
        if told is grpc.aio.EOF:
            raise EOFError  # a stream that failed has said why when it was read
        indexes += [ack.appended.index for ack in told.acks if ack.HasField("appended")]
        seen.refused += sum(not ack.HasField("appended") for ack in told.acks)
        missing -= len(told.acks)
    seen.indexes += indexes
    return max(indexes, default=0)


async def watch(checkpoint, seen, pid):
    """Note when checkpoints come to be there; refresh what events say of their time."""
    loop, newest, refreshed = asyncio.get_running_loop(), b"", 0.0
    while True:
        note = read_or_none(checkpoint) or b""
        now = loop.time()
        if note != newest:
            newest = note
            size = int(note.split(b"\n", 2)[1])
            seen.published.append((now, size))
            if note.count("\u2014 ".encode()) > 1:
                seen.witnessed.append((now, size))
        if now - refreshed > REFRESH_S:
            refreshed = now
            auditing.TEMPLATES = tuple(auditing._template(number) for number in range(8))
            seen.rss.append(rss_mb(pid))
        await asyncio.sleep(POLL_S)


def delays(acks, shown):
    """Return for each ack how long after it a checkpoint that covers it was there."""
    sizes = [size for _, size in shown]
    found = []
    for when, index, _ in acks:
        at = bisect_right(sizes, index)
        if at < len(shown):
            found.append(max(0.0, shown[at][0] - when))
    return found


def quantiles(values, digits=3):
    ordered = sorted(values)
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], digits)
        for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    } if ordered else {}  # fmt: skip


@asynccontextmanager
async def server(folder, settings):
    words = [sys.executable, "-m", "tests.soak.server", str(folder), str(SKEW_S)]
    with (folder.parent / "server.log").open("wb") as log:
        child = subprocess.Popen(
            [*words, json.dumps(settings)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        line = await asyncio.to_thread(child.stdout.readline)
        assert line, (folder.parent / "server.log").read_text()[-2_000:]
        yield child.pid, int(line)
    finally:
        child.stdin.close()
        assert await asyncio.to_thread(child.wait, 60) == 0
        child.stdout.close()


async def run(folder, seconds, rate, *, witnessed):
    """Load a server for a while; return what was seen, its folder and its CPU seconds."""
    seen, data = Seen(), folder / "audit"
    data.mkdir()
    async with AsyncExitStack() as opened:
        settings = {}
        if witnessed:
            settings |= await opened.enter_async_context(
                witness(folder / "witness", data / "log" / "data" / "vkey")
            )
        pid, port = await opened.enter_async_context(server(data, settings))
        channels = [c async for c in auditing._connect(opened, port, data / "tls")]
        clock = asyncio.get_running_loop().time
        every_s = auditing.CLIENTS * auditing.BATCH_EVENTS / rate
        checkpoint = data / "log" / "data" / "log" / "checkpoint"
        watching = asyncio.create_task(watch(checkpoint, seen, pid))
        async with asyncio.TaskGroup() as group:
            for number in range(auditing.CLIENTS):
                channel = channels[number % len(channels)]
                group.create_task(producer(channel, seen, every_s, clock() + seconds))
        cpu_s = _cpu_s(pid)
        last, until = max(seen.indexes), clock() + 30
        while not (seen.published and seen.published[-1][1] > last) and clock() < until:
            await asyncio.sleep(POLL_S)
        watching.cancel()
    return seen, data / "log" / "data", cpu_s


def _cpu_s(pid):
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def verified(data, seen):
    """Verify the log; each acknowledged index is within it, and no two acks name one."""
    vkey = (data / "vkey").read_text().strip()
    start = time.perf_counter()
    checked = check_log(lambda path: read_or_none(data / "log" / path), vkey)
    assert len(set(seen.indexes)) == len(seen.indexes), "one index for two events"
    assert max(seen.indexes) < checked.size, "an acknowledged event is not in the log"
    return checked.size, round(time.perf_counter() - start, 2)


def report(seen, size, verify_s, cpu_s):
    first = min(when - took for when, _, took in seen.acks)
    seconds = round(max(when for when, *_ in seen.acks) - first, 1)
    half = seen.rss[len(seen.rss) // 2 :]
    return {
        "events": len(seen.indexes), "seconds": seconds,
        "events_per_s": round(len(seen.indexes) / seconds, 1),
        "refused": seen.refused, "sent again": seen.moved, "late batches": seen.late,
        "log": size, "verify_s": verify_s,
        "ack_ms": quantiles([1_000 * took for *_, took in seen.acks], 1),
        "published_s": quantiles(delays(seen.acks, seen.published)),
        "witnessed_s": quantiles(delays(seen.acks, seen.witnessed)),
        "rss_mb": {"start": seen.rss[0], "half": half[0], "end": half[-1], "most": max(seen.rss)},
        "server_cpu_us_an_event": round(1e6 * cpu_s / len(seen.indexes), 1),
        "machine": machine(),
    }  # fmt: skip


def missed(found, rate):
    """Name the limits that were not kept."""
    rss = found["rss_mb"]
    kept = {
        "rate": found["events_per_s"] >= 0.98 * rate,
        "refused": found["refused"] == 0,
        "ack p99": found["ack_ms"]["p99"] <= ACK_P99_MS,
        "published p99": found["published_s"]["p99"] <= PUBLISHED_P99_S,
        "witnessed p99": found["witnessed_s"].get("p99", 0.0) <= WITNESSED_P99_S,
        "memory": rss["end"] - rss["half"] <= FLAT_MB,
    }
    return sorted(name for name, holds in kept.items() if not holds)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.soak.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3_600.0)
    parser.add_argument("--rate", type=float, default=3_200.0, help="events a second")
    parser.add_argument("--folder", type=Path, default=None, help="on a disk, not in memory")
    parser.add_argument("--no-witness", action="store_true")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        seen, data, cpu_s = asyncio.run(
            run(folder, asked.seconds, asked.rate, witnessed=not asked.no_witness)
        )
        size, verify_s = verified(data, seen)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder)
    found = report(seen, size, verify_s, cpu_s)
    found["missed"] = missed(found, asked.rate)
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if found["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
