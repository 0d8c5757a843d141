"""Follows a log and says what is wrong with it. Reads only what is new since its last look.

    1  the checkpoint is one, signed by a trusted log; no known signature fails     signature
    2  the policy's quorum cosigned it                                              quorum
    3  it is not older than the last one seen                                       shrunk
    4  its tree extends the last one's, by a consistency proof                      fork
    5  each new entry's hash is the one in its tile                                 entry
    6  all entries read, from the first, make the checkpoint's root                 fork
    7  no call was begun so long ago and not ended                                  open_intent
    8  no entry is flagged for its producer's clock, nor a cosignature of the future  skew
    9  the checkpoint is new, or was cosigned lately                                stalled

Steps 1, 3, 4, 5 and 6 convict or accuse the log: what the monitor believed before stays what it
believes, and the checkpoint that did not fit is kept as evidence. A checkpoint bears no time of its
own: its age is counted from when this monitor saw it first, or from its newest cosignature.

Leaves are read as JSON for three fields; those of other logs just are not calls.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit.monitor.sources import CHECKPOINT, UnreachableError
from audit.monitor.state import MonitorState, Open
from meshkit.counters import counted
from meshkit.tlog import (
    HASH_BYTES,
    TILE_WIDTH,
    BundleInvalid,
    NoteInvalid,
    TileHashes,
    bundle_path,
    consistency_proof,
    decode_bundle,
    entry_hashes,
    is_consistent,
    judge_checkpoint,
    tile_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from audit.monitor.sources import Source
    from meshkit.tlog import Judged, Policy

__all__ = ["Alarm", "Limits", "Monitor"]

_SHRUNK, _FORK = "shrunk", "fork"
_OPEN_MAX = 100_000
"""Calls begun and not ended that are remembered: about 100 bytes each in the state file."""
_CALL_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TIME_US_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From when on something is worth an alarm, in seconds; 0 leaves it out."""

    stalled_s: float = 3_600.0
    open_intent_s: float = 900.0
    skew_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something is wrong. `kind` is a word of the table above, or `unreachable`."""

    kind: str
    index: int = -1
    """Of the entry that it is about; -1: of none."""
    count: int = 1
    call_id: str = ""
    size: int = -1
    """Of the checkpoint looked at."""

    @property
    def breaks(self) -> bool:
        """Whether it speaks against the log itself, not only against how it is run."""
        return self.kind in {"signature", "shrunk", "fork", "entry"}


class _BrokenError(Exception):
    """A step failed that ends the look."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__(alarm.kind)
        self.alarm = alarm


class _MissingError(Exception):
    """A tile is needed that was not read yet."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class _Tiles:
    """A tile reader that knows what was read, and asks for the rest by exception."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def tile(self, level: int, number: int, width: int) -> bytes:
        path = tile_path(level, number, width)
        if path not in self.known:
            raise _MissingError(path)
        return self.known[path]


class Monitor:
    """Looks at one log, as often as `look` is called."""

    def __init__(
        self,
        source: Source,
        policy: Policy,
        state: MonitorState,
        *,
        limits: Limits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._fresh_s = state.first_seen_s
        self.state = state
        self.refused = ""
        """The checkpoint that did not fit the last one believed: keep it, it is signed."""

    @property
    def age_s(self) -> float:
        """How long ago the newest checkpoint was first seen, or cosigned: seconds."""
        return max(0.0, self._clock() - self._fresh_s)

    async def look(self) -> list[Alarm]:
        """Look once; return what is wrong, nothing if all is well. The state moves on if it is."""
        alarms: list[Alarm] = []
        try:
            judged = await self._checkpoint()
            if not judged.quorum:
                alarms.append(Alarm(kind="quorum", size=judged.checkpoint.size))  # 2
            alarms += await self._follow(judged)
            alarms += self._times(judged)
        except UnreachableError:
            alarms.append(Alarm(kind="unreachable"))
        except _BrokenError as broken:
            alarms.append(broken.alarm)
        alarms += self._overdue()
        for alarm in alarms:
            counted(f"monitor.alarm.{alarm.kind}")
        return alarms

    async def _checkpoint(self) -> Judged:
        """Step 1."""
        raw = await self._source.read(CHECKPOINT)
        if raw is None:
            raise UnreachableError
        try:
            judged = judge_checkpoint(raw.decode(), self._policy)
        except (NoteInvalid, UnicodeDecodeError):
            raise _BrokenError(Alarm(kind="signature")) from None
        return judged

    async def _follow(self, judged: Judged) -> list[Alarm]:
        """Steps 3 to 6, and what the new entries say; then believe the checkpoint."""
        checkpoint, state = judged.checkpoint, self.state
        if checkpoint.size < state.size:
            raise self._against(_SHRUNK, checkpoint.note, checkpoint.size)  # 3
        tiles = _Tiles()
        if not await self._extends(judged, tiles):
            raise self._against(_FORK, checkpoint.note, checkpoint.size)  # 4
        alarms: list[Alarm] = []
        if self._source.tiles:
            alarms = await self._entries(judged)
        now = self._clock()
        if checkpoint.size > state.size or not state.note:
            state.first_seen_s = now
        state.note, state.size, state.root = checkpoint.note, checkpoint.size, checkpoint.root
        self._fresh_s = max([state.first_seen_s, *judged.cosigned.values()])
        return alarms

    def _against(self, kind: str, note: str, size: int) -> _BrokenError:
        self.refused = note
        return _BrokenError(Alarm(kind=kind, size=size))

    async def _extends(self, judged: Judged, tiles: _Tiles) -> bool:
        """Step 4: by the tiles, or by a proof of the service's."""
        old, new = self.state.size, judged.checkpoint.size
        if not self.state.note:
            return True
        if not self._source.tiles:
            proof = () if old in {0, new} else await self._source.consistency(old, new)
        else:
            proof = await self._tile_proof(old, new, tiles)
        return proof is not None and is_consistent(
            old=old, old_root=self.state.root, new=new, new_root=judged.checkpoint.root, proof=proof
        )

    async def _tile_proof(self, old: int, new: int, tiles: _Tiles) -> Sequence[bytes] | None:
        """Make the proof, reading tiles as they turn out to be needed; None if one is missing."""
        while True:
            try:
                return consistency_proof(TileHashes(tiles, new), old, new)
            except _MissingError as missing:
                data = await self._file(missing.path)
                if data is None:
                    return None
                tiles.known[missing.path] = data

    async def _file(self, path: str) -> bytes | None:
        """Read a tile: the start of the full one where the partial one went meanwhile."""
        data = await self._source.read(path)
        base, partial, width = path.partition(".p/")
        if data is None and partial:
            full = await self._source.read(base)
            data = None if full is None else full[: int(width) * HASH_BYTES]
        expected = (int(width) if partial else TILE_WIDTH) * HASH_BYTES
        return data if data is not None and len(data) == expected else None

    # --- entries ----------------------------------------------------------------------------

    async def _entries(self, judged: Judged) -> list[Alarm]:
        """Steps 5 and 6 for all entries that were not read yet; notes calls and flags."""
        edge, size = self.state.edge, judged.checkpoint.size
        open_calls = dict(self.state.open)
        skewed: list[int] = []
        for number in range(edge.size // TILE_WIDTH, -(-size // TILE_WIDTH)):
            first = number * TILE_WIDTH
            entries = await self._bundle(number, min(TILE_WIDTH, size - first))
            fresh = entries[edge.size - first :]
            for index, entry in enumerate(fresh, edge.size):
                if _note_entry(entry, index, open_calls):
                    skewed.append(index)
            edge, _ = edge.grown(entry_hashes(fresh))
        if edge.root() != judged.checkpoint.root:  # 6
            raise self._against(_FORK, judged.checkpoint.note, size)
        self.state.edge, self.state.open = edge, open_calls
        if not skewed:
            return []
        return [Alarm(kind="skew", index=skewed[0], count=len(skewed), size=size)]

    async def _bundle(self, number: int, width: int) -> list[bytes]:
        """Step 5 for one bundle."""
        first = number * TILE_WIDTH
        path = bundle_path(number, width)
        data = await self._source.read(path)
        held = width
        if data is None and width < TILE_WIDTH:
            data, held = await self._source.read(bundle_path(number)), TILE_WIDTH
        row = await self._file(tile_path(0, number, width))
        if data is None or row is None:
            raise _BrokenError(Alarm(kind="entry", index=first))
        try:
            entries = decode_bundle(data, held)[:width]
        except BundleInvalid:
            raise _BrokenError(Alarm(kind="entry", index=first)) from None
        for at, hashed in enumerate(entry_hashes(entries)):
            if row[at * HASH_BYTES : (at + 1) * HASH_BYTES] != hashed:
                raise _BrokenError(Alarm(kind="entry", index=first + at))
        return entries

    # --- time -------------------------------------------------------------------------------

    def _times(self, judged: Judged) -> Iterator[Alarm]:
        """Steps 8 and 9."""
        size, now = judged.checkpoint.size, self._clock()
        ahead = max(judged.cosigned.values(), default=0) - now
        if self._limits.skew_s and ahead > self._limits.skew_s:
            yield Alarm(kind="skew", size=size)
        if self._limits.stalled_s and self.age_s > self._limits.stalled_s:
            yield Alarm(kind="stalled", size=size)

    def _overdue(self) -> list[Alarm]:
        """Step 7. Each call is told once."""
        if not self._limits.open_intent_s:
            return []
        until = self._clock() - self._limits.open_intent_s
        late = [(call, one) for call, one in self.state.open.items() if one.received_s < until]
        crowd = len(self.state.open) > _OPEN_MAX
        for call, _ in late:
            del self.state.open[call]
        told = [Alarm(kind="open_intent", index=one.index, call_id=call) for call, one in late]
        if crowd:
            told.append(Alarm(kind="open_intent", count=len(self.state.open)))
            self.state.open.clear()
        return told


def _note_entry(entry: bytes, index: int, open_calls: dict[str, Open]) -> bool:
    """Keep book of calls; tell whether the log flagged the entry's clock."""
    try:
        leaf = json.loads(entry)
        phase, call_id = leaf["event"]["phase"], leaf["event"]["call_id"]
        received_us = leaf["log"]["received_us"]
        skewed = bool(leaf["log"].get("skewed"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
    if not (isinstance(call_id, str) and _CALL_ID.fullmatch(call_id)):
        return skewed
    if phase == "intent":
        # Any other number than a time of ours counts as long ago: it is told, not forgotten.
        honest = isinstance(received_us, int) and 0 <= received_us <= _TIME_US_MAX
        open_calls[call_id] = Open(index, received_us / 1_000_000 if honest else 0.0)
    elif phase == "outcome":
        open_calls.pop(call_id, None)
    return skewed
