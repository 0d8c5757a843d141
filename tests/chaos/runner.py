"""One run: faults one after another under load, each with what callers heard and how it ended."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.chaos import ledger
from tests.chaos.load import Load, loaded
from tests.chaos.say import say

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator

    from tests.chaos.faults import Fault
    from tests.chaos.load import Tally
    from tests.chaos.world import World

WARM_CALLS = 30
ROUNDS_IN_A_ROW = 2


@dataclass(frozen=True)
class Limits:
    recovery_s: float
    growth_mb: float


@dataclass(frozen=True)
class Suffered:
    """A fault that is over."""

    fault: Fault
    struck_s: float
    recovered_s: float | None
    """From its end until every caller is answered again; None: not in time."""
    answered: int
    heard: Counter[str]

    @property
    def unexpected(self) -> set[str]:
        """Reasons that the table does not give for it."""
        return set(self.heard) - self.fault.allowed

    def told(self) -> dict[str, Any]:
        return {
            "fault": str(self.fault),
            "target": self.fault.target,
            "kind": self.fault.kind,
            "struck_s": round(self.struck_s, 1),
            "recovered_s": None if self.recovered_s is None else round(self.recovered_s, 1),
            "answered": self.answered,
            "heard": dict(self.heard),
            "unexpected": sorted(self.unexpected),
        }


@dataclass
class Run:
    world: World
    limits: Limits
    suffered: list[Suffered] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    memory_mb: dict[str, float] = field(default_factory=dict)
    records: int = 0
    _load: Load | None = None
    _first: dict[int, float] = field(default_factory=dict)
    """Memory of each process when it was first seen at work, in megabytes."""

    @property
    def load(self) -> Load:
        assert self._load is not None
        return self._load

    @property
    def tally(self) -> Tally:
        return self.load.tally

    @asynccontextmanager
    async def under_load(self, pause_s: float) -> AsyncIterator[None]:
        async with loaded(self.world.clients, pause_s) as self._load:
            async with asyncio.timeout(60):
                while len(self.tally.answered) < WARM_CALLS and not self.tally.failed:
                    await asyncio.sleep(0.1)
            if self.tally.failed:
                self.broken.append(f"refused before any fault: {self.tally.failures(0)}")
            self._weigh()
            yield
            self._weigh()

    async def suffer(self, fault: Fault) -> None:
        """Bring it about, wait until it is overcome, and hold it to the table."""
        answered, failed = len(self.tally.answered), len(self.tally.failed)
        began = time.monotonic()
        await fault.strike(self.world)
        ended = time.monotonic()
        recovered = await self._recovered(
            ended, ROUNDS_IN_A_ROW if self.tally.failed[failed:] else 1
        )
        seen = Suffered(
            fault=fault,
            struck_s=ended - began,
            recovered_s=recovered,
            answered=len(self.tally.answered) - answered,
            heard=self.tally.failures(failed),
        )
        self.suffered.append(seen)
        after = "NOT" if recovered is None else f"after {recovered:.1f} s"
        say(f"{seen.fault}: {seen.answered} answered, {dict(seen.heard)}, recovered {after}")
        if seen.unexpected:
            self.broken.append(f"{fault}: callers heard {sorted(seen.unexpected)}")
        if recovered is None:
            self.broken.append(f"{fault}: not overcome within {self.limits.recovery_s:.0f} s")
        if self.tally.leaks:
            self.broken.append(f"{fault}: {len(self.tally.leaks)} canaries left")
        self._weigh()

    async def _recovered(self, ended: float, rounds_due: int) -> float | None:
        """Wait until all tenants are answered, so often in a row, and no call is left of before."""
        rounds = 0
        while time.monotonic() - ended < self.limits.recovery_s:
            if await self._all_answered():
                rounds += 1
            else:
                rounds = 0
                await asyncio.sleep(0.2)
            if rounds >= rounds_due and self.load.oldest_s() > ended:
                return time.monotonic() - ended
        return None

    async def _all_answered(self) -> bool:
        clients = self.world.clients.values()
        ends = await asyncio.gather(
            *(self.load.unary(client, fresh=True) for client in clients),
            *(self.load.stream(client) for client in clients),
        )
        return set(ends) <= {"miss", "l1", "l2", "off"}

    def _weigh(self) -> None:
        """Hold each process to its growth since it was first weighed."""
        for name, child in self.world.house.children.items():
            now = self.world.memory_mb()[name]
            if not now:
                continue
            self.memory_mb[name] = max(self.memory_mb.get(name, 0.0), now)
            grown = now - self._first.setdefault(child.pid, now)
            if grown > self.limits.growth_mb:
                self.broken.append(f"{name} grew by {grown:.0f} MB")

    def report(self) -> dict[str, Any]:
        return {
            "calls": len(self.tally.answered) + len(self.tally.failed),
            "answered": len(self.tally.answered),
            "refused": dict(self.tally.failures(0)),
            "records": self.records,
            "canaries that left": len(self.tally.leaks),
            "memory_mb_max": {name: round(mb) for name, mb in self.memory_mb.items()},
            "broken": self.broken,
            "faults": [each.told() for each in self.suffered],
        }


async def promises_kept(run: Run) -> None:
    """Hold the whole log against what callers were told; look for raw text on the disk."""
    tally = run.tally
    refused = [each.receipt[1] for each in tally.failed if each.receipt is not None]
    least = max([0, *(call.index for call in tally.answered), *refused]) + 1
    found = await ledger.read(run.world, least)
    run.records = found.size
    run.broken += sorted(set(ledger.broken_promises(found, tally)))
    run.broken += [f"raw text in {path}" for path in ledger.leaks_on_disk(run.world)]
