"""Has the kernel fail, or kill, a writer at each of its system calls, one by one; then checks it.

    python -m tests.audit.syscalls FOLDER EIO|ENOSPC|KILL SHARE SEED
    python -m tests.audit.syscalls FOLDER ORDER

strace attaches to a forked writer and injects the fault into the K-th call of one kind (of each
thread). Which calls there are, and how many of each, a run without faults tells. SHARE is the part
of all faults that is tried, drawn by SEED; 1 is every one. After each fault, as an outsider would:

    the log that lies there holds            (no checkpoint is published that its files do not bear)
    a start without faults takes it up       (nothing that one fault does may need a human)
    every acknowledged event is there once, at its index; a repeat gets that index
    every checkpoint that was ever signed is a beginning of the log that there is now

ORDER has nothing fail, and holds the calls that were made against the order that durability needs
(tests/audit/order.py).

Prints one JSON line.
"""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from base64 import b64decode, b64encode
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from audit.records.events import parse_leaf
from meshkit.contract import Appended, Phase, Refusal
from meshkit.files import read_or_none
from meshkit.tlog import ListHashes, check_log, leaf_hash, root_of
from tests.audit.killed import event_of, world
from tests.audit.order import in_order
from tests.audit.world import ORIGIN

CALLS = (
    "openat", "read", "write", "pwrite64", "pread64", "fsync", "fdatasync", "link", "linkat",
    "mkdir", "mkdirat", "rename", "renameat", "unlink", "unlinkat", "rmdir", "close", "ftruncate",
    "fallocate", "flock", "statvfs", "fstatfs", "statfs", "getdents64", "writev",
)  # fmt: skip
TELLS = "writev"
"""By which the writer tells: nothing else in it does that."""
BATCHES = 5
TRIES = 8
LIMIT_S = 30.0
REFUSED = 3
"""Exit code of a writer that was refused by the disk and said so."""


@dataclass
class Told:
    """What a writer said before its end."""

    begun: list = field(default_factory=list)
    acked: dict = field(default_factory=dict)
    signed: list = field(default_factory=list)

    def read(self, lines):
        for line in lines:
            mark, *words = line.split()
            if mark == "signed":
                text = b64decode(words[0]).decode()
                if text.startswith(f"{ORIGIN}\n"):  # else it endorses a receipt key
                    self.signed.append(text)
                continue
            key = (bytes.fromhex(words[0]), Phase(words[1]))
            if mark == "begun":
                self.begun.append(key)
            else:
                assert self.acked.setdefault(key, int(words[2])) == int(words[2])


def _quiet(_logger, _method, _event):
    raise structlog.DropEvent  # a line on stdout would be a write, too


class _Telling:
    """A signer that tells what it signs, by a system call that nothing else uses."""

    def __init__(self, signer, tell):
        self._signer = signer
        self._tell = tell
        self.vkey = signer.vkey

    def __getattr__(self, name):
        return getattr(self._signer, name)

    async def sign(self, data):
        self._tell(f"signed {b64encode(data).decode()}")
        return await self._signer.sign(data)


async def write(folder, tell, looks):
    """Append a few batches, each until it is taken, and let each be published.

    looks: How often it is seen whether it was: a fault may keep it from that for a while.
    """
    made = world(folder)
    made.signer = _Telling(made.signer, tell)
    settings = {"publish_interval_ms": 10, "segment_bytes_max": 16_000, "segment_age_max_s": 0.02}
    rng = random.Random(1)
    async with made.open(**settings) as audit:
        for _ in range(BATCHES):
            call_id = (time.time_ns() // 1_000_000).to_bytes(6) + rng.randbytes(10)
            for phase in (Phase.INTENT, Phase.OUTCOME):
                await _insist(audit, (call_id, phase), tell)
            last = audit.stats.durable
            for _ in range(looks):
                if audit.stats.published >= last:
                    break
                await asyncio.sleep(0.005)


async def _insist(audit, key, tell):
    tell(f"begun {key[0].hex()} {key[1].value}")
    for _ in range(TRIES):
        (answer,) = await audit.append_many([event_of(*key)])
        if isinstance(answer, Appended):
            tell(f"acked {key[0].hex()} {key[1].value} {answer.index}")
            return
        await asyncio.sleep(0.01)
    raise answer


def _child(folder, go, pipe, looks):
    structlog.configure(processors=[_quiet])
    try:
        os.read(go, 1)
        asyncio.run(write(folder, lambda line: os.writev(pipe, [line.encode() + b"\n"]), looks))
    except* (OSError, Refusal, sqlite3.Error):
        os._exit(REFUSED)
    except* BaseException:  # noqa: BLE001 -- told as the parent's finding
        os.writev(2, [traceback.format_exc().encode()])
        os._exit(4)
    os._exit(0)


def run(folder, inject=()):
    """Run one writer under strace; return what it told, how it ended and strace's lines."""
    folder.mkdir(exist_ok=True)
    go_read, go_write = os.pipe()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _child(folder, go_read, write_end, looks=100 if inject else 4_000)
    os.close(write_end)
    trace = folder / "strace"
    command = ["strace", "-f", "-y", "-qq", "-s", "160", "-o", str(trace), "-p", str(child)]
    words = [word for each in (f"trace={','.join(f'?{call}' for call in CALLS)}", *inject)
             for word in ("-e", each)]  # fmt: skip
    tracer = subprocess.Popen([*command, *words], stderr=subprocess.PIPE)
    _attached(child)
    os.write(go_write, b"x")
    signal.alarm(int(LIMIT_S))  # a writer that hangs ends this program
    told = b""
    while more := os.read(read_end, 1 << 16):
        told += more
    _, status = os.waitpid(child, 0)
    tracer.wait(LIMIT_S)
    tracer.stderr.close()
    signal.alarm(0)
    for end in (go_read, go_write, read_end):
        os.close(end)
    said = Told()
    said.read(told.decode().splitlines())
    return said, status, trace.read_text(errors="replace")


def _attached(pid):
    until = time.monotonic() + LIMIT_S
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < until, "strace does not attach"
        time.sleep(0.001)


def faults(folder):
    """Run without faults; return (call, K) for each call there was, of any thread."""
    _, status, trace = run(folder)
    assert status == 0, "the writer fails by itself"
    counts = Counter(re.findall(r"^(\d+) +(\w+)\(", trace, re.MULTILINE))
    most = Counter()
    for (_thread, call), count in counts.items():
        if call != TELLS:
            most[call] = max(most[call], count)
    return [(call, number) for call in sorted(most) for number in range(1, most[call] + 1)]


async def judge(folder, told):
    """Raise if anything that was promised does not hold; return the seconds of the start."""
    made = world(folder)
    if (made.log / "checkpoint").exists():
        check_log(lambda path: read_or_none(made.log / path), made.vkey)
    start = time.perf_counter()
    async with made.open() as audit:
        took = time.perf_counter() - start
        leaves = [audit.parts.leaf(number) for number in range(audit.stats.durable)]
        keys = [(leaf.call_id, leaf.phase) for leaf in map(parse_leaf, leaves)]
        assert len(set(keys)) == len(keys), "an event is there twice"
        for key, index in told.acked.items():
            assert keys[index] == key, "an acknowledged event is not at its index"
        again = await audit.append_many([event_of(*key) for key in told.begun])
        for key, answer in zip(told.begun, again, strict=True):
            assert told.acked.get(key, answer.index) == answer.index, "a repeat has another index"
        leaves = [audit.parts.leaf(number) for number in range(audit.stats.durable)]
    hashes = [leaf_hash(leaf) for leaf in leaves]
    for text in told.signed:
        _, size, root, _ = text.split("\n")
        found = root_of(ListHashes(hashes), int(size))
        assert int(size) <= len(hashes), "a checkpoint was signed for events that are lost"
        assert b64decode(root) == found, "a bad checkpoint was signed"
    checked = check_log(lambda path: read_or_none(made.log / path), made.vkey)
    assert checked.size == len(leaves)
    return took


def _words(kind, call, number):
    what = "signal=KILL" if kind == "KILL" else f"error={kind}"
    return [f"inject={call}:{what}:when={number}"]


def main():
    top, kind, *more = Path(sys.argv[1]), *sys.argv[2:]
    told, _, _ = run(top / "warm")
    asyncio.run(judge(top / "warm", told))
    if kind == "ORDER":
        _, status, trace = run(top / "order")
        assert status == 0, "the writer fails by itself"
        sys.stdout.write(json.dumps(in_order(trace)))
        return
    share, seed = float(more[0]), more[1]
    all_faults = faults(top / "count")
    rng = random.Random(seed)
    drawn = [fault for fault in all_faults if rng.random() < share]
    starts, ends, hits = [], Counter(), Counter()
    for number, (call, at) in enumerate(drawn):
        folder = top / str(number)
        told, status, trace = run(folder, _words(kind, call, at))
        code = "killed" if os.WIFSIGNALED(status) else str(os.waitstatus_to_exitcode(status))
        assert code in {"killed", "0", str(REFUSED)}, (call, at, code)
        hit = trace.count("(INJECTED)") if kind != "KILL" else int(code == "killed")
        hits[call] += hit
        ends[code] += 1
        try:
            starts.append(asyncio.run(judge(folder, told)))
        except BaseException:
            sys.stderr.write(f"after {kind} at {call} number {at}: {folder}\n")
            raise
        shutil.rmtree(folder)
    starts.sort()
    sys.stdout.write(json.dumps({
        "fault": kind, "places": len(all_faults), "tried": len(drawn), "hit": hits.total(),
        "calls": dict(sorted(hits.items())), "ends": dict(ends),
        "start_p50_s": round(starts[len(starts) // 2], 3) if starts else None,
        "start_p99_s": round(starts[int(len(starts) * 0.99)], 3) if starts else None,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
