"""Runs a writer under load and kills it, again and again; then checks every acknowledgement.

    python -m tests.audit.killed FOLDER ROUNDS SEED

Each round is a fork that appends as fast as it can and tells through a pipe what it begins and what
is acknowledged; at a random moment it gets SIGKILL. The next round first sends again what was begun
and not acknowledged. At the end every acknowledged event must be in the log, once, at its index.
Prints one JSON line.
"""

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from audit.log.signer import MemorySigner
from audit.records.events import parse_leaf
from meshkit.contract import Appended, Commitment, Payload, Phase, TraceContext
from meshkit.tlog import check_log
from tests.audit.world import MESSAGES, ORIGIN, World, make_event

CLIENTS = 16


def world(folder):
    made = World(folder)
    key = sha256(b"key of this test").digest()
    made.signer = MemorySigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(key))
    made.vkey = made.signer.vkey
    made.sealer.key = AESGCM(key)
    return made


def event_of(call_id, phase):
    """Make the same event each time from its call id, so that a retry is a true repeat."""
    salt = sha256(call_id + phase.value.encode()).digest()
    return make_event(
        phase,
        call_id,
        occurred_at_us=int.from_bytes(call_id[:6]) * 1_000,
        trace=TraceContext(trace_id=call_id, span_id=call_id[:8]),
        prompt_received=Commitment(salt, salt),
        payload=Payload(screened=MESSAGES, released=call_id.hex()),
        outcome="released" if phase is Phase.OUTCOME else "",
    )


async def write(folder, pipe, again):
    def tell(mark, key, index=0):
        os.write(pipe, f"{mark} {key[0].hex()} {key[1].value} {index}\n".encode())

    async def append(audit, key):
        tell("begun", key)
        appended = await audit.append(event_of(*key))
        tell("acked", key, appended.index)

    async def client(audit):
        while True:
            call_id = (time.time_ns() // 1_000_000).to_bytes(6) + os.urandom(10)
            await append(audit, (call_id, Phase.INTENT))
            await append(audit, (call_id, Phase.OUTCOME))

    settings = {"publish_interval_ms": 20, "segment_bytes_max": 60_000, "segment_age_max_s": 0.2}
    settings["mover_process_events"] = random.choice([0, 1])
    async with world(folder).open(**settings) as audit:
        for key in again:
            await append(audit, key)
        await asyncio.gather(*(client(audit) for _ in range(CLIENTS)))


def one_round(folder, again, rng):
    """Fork a writer and kill it; return its lines."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            asyncio.run(write(folder, write_end, again))
        finally:
            os._exit(1)
    os.close(write_end)
    told = b""
    # A third of the kills hit start and recovery; the others the load, once it runs.
    early = rng.random() < 1 / 3
    deadline = time.monotonic() + (rng.uniform(0.01, 0.1) if early else 30)
    while (left := deadline - time.monotonic()) > 0:
        if select.select([read_end], [], [], left)[0]:
            if not early and b"acked" not in told:
                deadline = time.monotonic() + rng.uniform(0.01, 0.3)
            told += (more := os.read(read_end, 1 << 16))
            if not more:
                break
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while more := os.read(read_end, 1 << 16):
        told += more
    os.close(read_end)
    assert os.WIFSIGNALED(status), "the writer ended by itself"
    return told.decode().splitlines(keepends=True)


async def check(folder, acked):
    made = world(folder)
    seen = {}
    async with made.open() as audit:
        start = time.perf_counter()
        for number in range(audit.stats.durable):
            leaf = parse_leaf(audit.parts.leaf(number))
            assert (leaf.call_id, leaf.phase) not in seen, "an event is there twice"
            seen[leaf.call_id, leaf.phase] = number
        for key, index in acked.items():
            assert seen.get(key) == index, "an acknowledged event is not at its index"
        sample = random.Random(0).sample(sorted(acked), min(len(acked), 200))
        again = await audit.append_many([event_of(*key) for key in sample])
        assert all(isinstance(answer, Appended) for answer in again)
        assert [answer.index for answer in again] == [acked[key] for key in sample]
        took = time.perf_counter() - start
    files = lambda path: (made.log / path).read_bytes() if (made.log / path).exists() else None  # noqa: E731
    checked = check_log(files, made.vkey)
    return {"acked": len(acked), "size": checked.size, "check_s": round(took, 2)}


def main():
    folder, rounds, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(sys.argv[3])
    acked, begun = {}, set()
    for _ in range(rounds):
        again = sorted(begun - acked.keys())
        for line in one_round(folder, again, rng):
            if line.endswith("\n"):
                mark, call_id, phase, index = line.split()
                key = (bytes.fromhex(call_id), Phase(phase))
                begun.add(key)
                if mark == "acked":
                    assert acked.setdefault(key, int(index)) == int(index)
    sys.stdout.write(json.dumps(asyncio.run(check(folder, acked)) | {"kills": rounds}))


if __name__ == "__main__":
    main()
