"""The whole log, verified, against what callers were told."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audit.records.events import parse_leaf
from meshkit.contract import Phase
from meshkit.files import read_or_none
from meshkit.tlog.tiles import TILE_WIDTH, bundle_path, decode_bundle
from meshkit.tlog.whole import LogInvalid, check_log
from tests.chaos.load import CANARY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.load import Tally
    from tests.chaos.world import World

PUBLISHED_S = 60.0


@dataclass
class Ledger:
    """What the log holds."""

    size: int
    events: Counter[tuple[bytes, Phase]] = field(default_factory=Counter)
    call_at: dict[int, bytes] = field(default_factory=dict)


async def read(world: World, least: int) -> Ledger:
    """Verify the log's every leaf and tile once it has `least` entries; raises LogInvalid.

    It may be published anew while it is read, and partial tiles go then: so it is read again.
    """
    folder = world.data / "audit" / "log"
    clock = asyncio.get_running_loop().time
    until = clock() + PUBLISHED_S
    while True:
        try:
            found = await asyncio.to_thread(_read, folder, world.vkey)
        except LogInvalid:
            if clock() > until:
                raise
        else:
            if found.size >= least or clock() > until:
                return found
        await asyncio.sleep(0.5)


def _read(folder: Path, vkey: str) -> Ledger:
    files: dict[str, bytes | None] = {}

    def kept(path: str) -> bytes | None:
        files[path] = read_or_none(folder / path)
        return files[path]

    checked = check_log(kept, vkey)
    found = Ledger(checked.size)
    for first in range(0, checked.size, TILE_WIDTH):
        width = min(TILE_WIDTH, checked.size - first)
        data = files[bundle_path(first // TILE_WIDTH, width)]
        assert data is not None
        for place, entry in enumerate(decode_bundle(data, width), first):
            leaf = parse_leaf(entry)
            found.events[leaf.call_id, leaf.phase] += 1
            found.call_at[place] = leaf.call_id
    return found


def broken_promises(ledger: Ledger, tally: Tally) -> list[str]:
    """What the record lacks of what callers were promised; empty if all is well."""
    told = [f"event doubled: {n} times" for n in ledger.events.values() if n > 1]
    for call in tally.answered:
        for phase in (Phase.INTENT, Phase.OUTCOME):
            if ledger.events[call.call_id, phase] != 1:
                told.append(f"answered call without its {phase.value}")
        if ledger.call_at.get(call.index) != call.call_id:
            told.append("receipt names another call's place, or none")
    for failure in tally.failed:
        if (
            failure.receipt is not None
            and ledger.call_at.get(failure.receipt[1]) != (failure.receipt[0])
        ):
            told.append("refused call's receipt names no record of it")
    return told


def leaks_on_disk(world: World) -> list[str]:
    """Files of the mesh, logs and record, that hold a caller's or the model's raw text."""
    found = []
    for path in world.data.rglob("*"):
        if path.is_file() and CANARY.search(path.read_bytes().decode(errors="replace")):
            found.append(str(path.relative_to(world.data)))
    return found
