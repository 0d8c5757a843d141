"""Two writers at one log: on one folder, and on two copies of it under one lock.

    python -m tests.audit.writers TRIES

On one folder the second is refused at the start. On a copy (a restored backup, a second host) both
start, both sign; the lock lets one of them go on, and the other closes. Whatever was published or
taken by the lock has one root for each size. Prints one JSON line.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from meshkit.contract import Appended, Reason, Refusal
from meshkit.tlog import parse_checkpoint
from tests.audit.world import MemoryLock, World, make_event

EVENTS_MAX = 2_000


class Recording(MemoryLock):
    """A lock that remembers every checkpoint it ever took."""

    def __init__(self):
        super().__init__()
        self.taken = []

    async def replace(self, old, note):
        locked = await super().replace(old, note)
        self.taken.append(note)
        await asyncio.sleep(0)  # as an answer over a network, later than the deed
        return locked


async def contests(world, tries):
    """Try to open a log that is open; return how often that was refused."""
    refused = 0
    async with world.open() as audit:
        for number in range(tries):
            try:
                async with world.open():
                    raise AssertionError
            except Refusal as refusal:
                refused += refusal.reason is Reason.CONFLICT
            if number % 100 == 0:
                await audit.append(make_event())
    return refused


async def _write_until_closed(world, other_done):
    """Append and publish until refused for good, or until the other one is; return which."""
    async with world.open(publish_interval_ms=10) as audit:
        for _ in range(EVENTS_MAX):
            (answer,) = await audit.append_many([make_event()])
            if not isinstance(answer, Appended):
                assert answer.reason is Reason.EVIDENCE_LOST
                other_done.set()
                return "closed"
            if other_done.is_set():
                return "went on"
            await asyncio.sleep(0.001)
    raise AssertionError


def _copied(world, folder):
    shutil.copytree(world.folder, folder)
    copy = World(folder)
    copy.signer, copy.lock, copy.sealer = world.signer, world.lock, world.sealer
    copy.vkey = world.vkey
    return copy


async def split(folder):
    """Let two copies of one log write under one lock; return how each ended."""
    world = World(folder / "one")
    world.folder.mkdir(parents=True)
    world.lock = Recording()
    async with world.open() as audit:
        await audit.append(make_event())
    copy = _copied(world, folder / "two")
    done = asyncio.Event()
    ends = await asyncio.gather(*(_write_until_closed(each, done) for each in (world, copy)))
    roots = defaultdict(set)
    published = [(each.log / "checkpoint").read_text() for each in (world, copy)]
    for note in [*world.lock.taken, *published]:
        checkpoint = parse_checkpoint(note)
        roots[checkpoint.size].add(checkpoint.root)
    assert all(len(found) == 1 for found in roots.values()), "two roots of one size"
    assert set(published) <= set(world.lock.taken), "published without the lock"
    shutil.rmtree(folder)
    return ends


async def run(top, contested, splits):
    world = World(top / "contested")
    world.folder.mkdir()
    refused, ends = await contests(world, contested), Counter()
    for number in range(splits):
        ends.update(await split(top / str(number)))
    return {"second writers": contested, "refused": refused, "split logs": splits,
            "ends": dict(ends), "conflicting roots": 0}  # fmt: skip


def main():
    tries = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as top:
        found = asyncio.run(run(Path(top), tries, tries // 10))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
