"""What may go wrong, how it is brought about and taken back, and what callers may then hear.

killed        SIGKILL; started again by the supervisor
paused        SIGSTOP for a while
slow          SIGSTOP and SIGCONT in turns: a twentieth of its speed
partitioned   every packet from and to its port is lost (`tests.chaos.network`)
wrong digest, truncated     it lies
replaced      a planned restart: nobody may notice
sealed        OpenBao alone: it answers, but not with keys; then it is killed, and unseals itself
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos import network
from tests.chaos.load import RECEIPT, UNREACHED

if TYPE_CHECKING:
    import random

    from tests.chaos.world import World

SERVICES = ("gateway", "compliance", "cache", "inference", "audit")
LIES = ("wrong digest", "truncated")

# "Closed" means one of these reasons and nothing else; an empty set means open.
_CLOSED = {
    "gateway": {UNREACHED, "OUT_OF_TIME", "CANCELLED"},
    "compliance": {"COMPLIANCE_DOWN"},
    "inference": {"INFERENCE_DOWN"},
    "audit": {"AUDIT_DOWN"},
    "cache": set(),
    "openbao": set(),
    "redis": set(),
}
_SPECIAL = {
    # Its text goes on unscreened, under a MAC that does not hold: inference refuses the text.
    ("compliance", "wrong digest"): {"INVALID_FIELD"},
    # The gateway cannot tell; the caller's own check can.
    ("audit", "wrong digest"): {RECEIPT},
}


@dataclass(frozen=True)
class Fault:
    target: str
    kind: str
    hold_s: float = 0.0

    def __str__(self) -> str:
        held = f" for {self.hold_s:.1f} s" if self.hold_s else ""
        return f"{self.target} {self.kind}{held}"

    @property
    def allowed(self) -> set[str]:
        """Reasons for which calls may be refused because of it."""
        if self.kind == "replaced":
            return set()
        return _SPECIAL.get((self.target, self.kind), _CLOSED[self.target])

    async def strike(self, world: World) -> None:
        """Bring it about, wait, take it back."""
        match self.kind:
            case "killed":
                await _killed(world, self.target)
            case "paused":
                await _paused(world, self.target, self.hold_s)
            case "slow":
                await _slowed(world, self.target, self.hold_s)
            case "partitioned":
                await _partitioned(world, self.target, self.hold_s)
            case "replaced":
                await world.house.children[self.target].replaced()
            case "sealed":
                await _sealed(world, self.hold_s)
            case lie:
                with world.lying(self.target, lie):
                    await asyncio.sleep(self.hold_s)


def kinds_of(target: str, *, partitions: bool) -> list[str]:
    """Which faults a part may have."""
    kinds = ["killed", "paused", "slow"]
    if partitions:
        kinds.append("partitioned")
    if target in SERVICES:
        kinds.append("replaced")
    if target == "cache":
        kinds.append("wrong digest")
    if target in {"compliance", "inference", "audit"}:
        kinds += LIES
    if target == "openbao":
        kinds.append("sealed")
    return kinds


def drawn(dice: random.Random, *, partitions: bool) -> Fault:
    """Draw a part, a fault of it, and for how long."""
    target = dice.choice([*SERVICES, "openbao", "redis"])
    kind = dice.choice(kinds_of(target, partitions=partitions))
    hold_s = 0.0 if kind in {"killed", "replaced"} else round(dice.uniform(0.5, 5.0), 1)
    return Fault(target, kind, hold_s)


async def _killed(world: World, target: str) -> None:
    before = world.pid(target)
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(60):
        while world.pid(target) == before:
            await asyncio.sleep(0.02)


async def _sealed(world: World, hold_s: float) -> None:
    before = world.pid("openbao")
    key = world.house.bao.data / "seal.key"
    away = key.with_name("seal.key.away")
    key.rename(away)
    try:
        os.kill(before, signal.SIGKILL)
        await asyncio.sleep(hold_s)
    finally:
        away.rename(key)
    async with asyncio.timeout(60):
        while world.pid("openbao") == before:
            await asyncio.sleep(0.02)


async def _paused(world: World, target: str, hold_s: float) -> None:
    pid = world.pid(target)
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(hold_s)
    finally:
        _continue(pid)


async def _slowed(world: World, target: str, hold_s: float) -> None:
    pid = world.pid(target)
    clock = asyncio.get_running_loop().time
    end = clock() + hold_s
    try:
        while clock() < end:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.095)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.005)
    except ProcessLookupError:
        return
    finally:
        _continue(pid)


def _continue(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


async def _partitioned(world: World, target: str, hold_s: float) -> None:
    port = world.port(target)
    network.cut(port)
    try:
        await asyncio.sleep(hold_s)
    finally:
        network.heal(port)
