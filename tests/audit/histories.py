"""Concurrent appends with retries, held against a model: is every history linearizable?

    python -m tests.audit.histories COUNT SEED

A history is what a few producers called and were told, in the order of one clock, while the disk
fails now and then and callers go away. The model is a list: appending an event that is new gives it
the next index; the same event again gets that index; other content under its key is a conflict. A
history holds if there is an order of the calls, each somewhere between its call and its answer, in
which the model gives every answer that was given, and leaves what the log then holds. (Calls that
were not answered with an index or a conflict may have happened, or not.) That one order has unique
indexes, no gaps, and each producer's events in the order in which it sent them.

The search is that of Wing and Gong with Lowe's memory of states seen. Now and then the power fails,
and the next history starts on what the disk kept. Prints one JSON line.
"""

import asyncio
import json
import math
import random
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from audit.records.events import parse_leaf
from meshkit.contract import Phase, Reason, Refusal, TraceContext
from tests.audit.powerloss import MemoryDisk
from tests.audit.world import MemoryLock, World, make_event

CONFLICT = "conflict"
NO_ANSWER = None
ANSWERS = {Reason.CONFLICT: CONFLICT, Reason.AUDIT_DOWN: NO_ANSWER}
"""What a refusal says; any other reason would be a finding."""
HISTORIES_A_LIFE = 25
LIVES_A_LOG = 40
FAILING = 0.04


@dataclass
class Op:
    """One call: which key with which content, when it was made and answered, and how."""

    key: bytes
    content: int
    called: int
    returned: float = math.inf
    result: object = NO_ANSWER


def linearizable(ops, before, base, after, end):
    """Tell whether the model explains a history.

    before: key -> (content, index) at its start, when the log had `base` entries.
    after: the same of the entries that it then has from `base` to `end`.
    """
    seen = set()

    def explains(done, held, size):
        left = [at for at in range(len(ops)) if not done >> at & 1]
        if (done, size) in seen:
            return False
        if held == after and size == end and all(ops[at].result is NO_ANSWER for at in left):
            return True
        seen.add((done, size))
        horizon = min((ops[at].returned for at in left), default=math.inf)
        for at in left:
            op = ops[at]
            if op.called > horizon:
                continue  # another one had been answered before this one was called
            known = held.get(op.key) or before.get(op.key)
            if known is None:
                if after.get(op.key) != (op.content, size) or op.result not in {NO_ANSWER, size}:
                    continue
                if explains(done | 1 << at, held | {op.key: (op.content, size)}, size + 1):
                    return True
                continue
            told = known[1] if known[0] == op.content else CONFLICT
            if op.result in {NO_ANSWER, told} and explains(done | 1 << at, held, size):
                return True
        return False

    return explains(0, {}, base)


class Moody(MemoryDisk):
    """Fails now and then, once it is told to; half of what was to be written may be there."""

    rng = None

    def _effect(self, name):
        if self.rng is not None and name in {"write", "sync"} and self.rng.random() < FAILING:
            raise OSError(5, "moody")


class Clock:
    """Orders calls and answers."""

    now = 0

    def tick(self):
        self.now += 1
        return self.now


def _event(key, content):
    return make_event(
        Phase.NOTE,
        key,
        occurred_at_us=1_790_000_000_000_000 + content,
        trace=TraceContext(trace_id=key, span_id=key[:8]),
    )


async def producer(audit, plan, clock, ops, rng):
    """Send a producer's events one after another, each until it is answered or it gives up."""
    for key, content in plan:
        for _try in range(rng.randint(1, 4)):
            op = Op(key, content, clock.tick())
            ops.append(op)
            sent = asyncio.ensure_future(audit.append(_event(key, content)))
            if rng.random() < 0.1:  # its caller goes away
                for _ in range(rng.randint(0, 6)):
                    await asyncio.sleep(0)
                sent.cancel()
            with suppress(asyncio.CancelledError):
                try:
                    op.result = (await sent).index
                except Refusal as refusal:
                    op.result = ANSWERS[refusal.reason]
            if op.result is not NO_ANSWER:
                op.returned = clock.tick()
                break
            for _ in range(rng.randint(0, 3)):
                await asyncio.sleep(0)


def _entries(audit, start, end):
    """Read key -> (content, index) from the log."""
    found = {}
    for number in range(start, end):
        leaf = parse_leaf(audit.parts.leaf(number))
        assert leaf.call_id not in found, "a key is there twice"
        found[leaf.call_id] = (leaf.event["time_us"] - 1_790_000_000_000_000, number)
    return found


async def history(audit, rng, known):
    """Run one history; return its calls. `known`: what the log held; brought up to date."""
    base = audit.stats.durable
    fresh = [rng.randbytes(16) for _ in range(3)]
    keys = fresh + rng.sample(sorted(known), min(len(known), 2))
    ops, clock = [], Clock()
    plans = [
        [(rng.choice(keys), rng.randint(0, 1)) for _ in range(rng.randint(1, 3))]
        for _ in range(rng.randint(2, 4))
    ]
    await asyncio.gather(*(producer(audit, plan, clock, ops, rng) for plan in plans))
    while audit.stats.waiting:  # those whose callers went away
        await asyncio.sleep(0)
    end = audit.stats.durable
    after = _entries(audit, base, end)
    assert linearizable(ops, known, base, after, end), (ops, known, base, after, end)
    known.update(after)
    return ops


async def life(world, disk, rng, known, some):
    """Run histories until the power fails; return how many calls they had, and what is left."""
    calls = 0
    async with world.open(disk, publish_interval_ms=50, segment_bytes_max=1 << 15) as audit:
        start = audit.stats.durable
        for key, (content, index) in known.items():
            assert (await audit.append(_event(key, content))).index == index, "a key is lost"
        assert audit.stats.durable == start
        disk.rng = rng
        for _ in range(some):
            calls += len(await history(audit, rng, known))
            for key in list(known)[:-20]:
                del known[key]
        disk.rng = None
        survivor, held = disk.survivor(rng), world.lock.held
    after = Moody()
    after.__dict__.update(
        {name: value for name, value in survivor.__dict__.items() if name != "on_effect"}
    )
    world.lock = MemoryLock()
    world.lock.held = held
    shutil.rmtree(world.data)
    world.data.mkdir()
    return calls, after


async def run(folder, histories, seed):
    """Run so many histories; return what there was of them."""
    rng, done, calls, lives = random.Random(seed), 0, 0, 0
    while done < histories:
        world = World(folder / str(lives))
        world.data.mkdir(parents=True)
        world.lock, disk, known = MemoryLock(), Moody(), {}
        for _ in range(LIVES_A_LOG):
            some = min(HISTORIES_A_LIFE, histories - done)
            if some <= 0:
                break
            more, disk = await life(world, disk, rng, known, some)
            calls, done, lives = calls + more, done + some, lives + 1
        shutil.rmtree(world.folder)
    return {"histories": done, "calls": calls, "power losses": lives, "not linearizable": 0}


def main():
    with tempfile.TemporaryDirectory() as top:
        found = asyncio.run(run(Path(top), int(sys.argv[1]), sys.argv[2]))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
