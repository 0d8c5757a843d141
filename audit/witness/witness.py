"""What a witness decides about a request. Blocks; no network.

    1  the body is a request                                        400
    2  the origin is that of a log on the list                      404
    3  one of that log's keys signed, and no known key's fails      403
    4  the old size is not beyond the checkpoint's                  400
    5  the old size is what was cosigned last                       409, and that size
    6  a checkpoint of size 0 has the root of the empty tree        422
    7  the proof leads from the old root to the new one; it is
       empty where the old size is 0                                422
    8  persisted, unless another request was faster                 409, and its size
    9  cosigned                                                     200

Source: https://c2sp.org/tlog-witness.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit.witness.memory import EMPTY, Seen
from meshkit.tlog import (
    EMPTY_ROOT,
    NoteInvalid,
    VerifierKey,
    check_signatures,
    is_consistent,
    parse_add_checkpoint,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from audit.witness.keys import WitnessKeys
    from audit.witness.memory import WitnessMemory
    from meshkit.tlog import AddCheckpoint

__all__ = ["Answer", "LogList", "Witness"]

_ORIGIN_BYTES_MAX = 255
"""What an ML-DSA-44 cosignature can name; what has been remembered must not fail to be signed."""
OK, MALFORMED, FORBIDDEN, UNKNOWN, CONFLICT, INCONSISTENT = 200, 400, 403, 404, 409, 422


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, and a body where there is one: signature lines, or a size."""

    status: int
    body: str = ""


class LogList:
    """The logs to witness: verifier keys, one a line, several of one name while keys rotate."""

    def __init__(self, path: Path) -> None:
        """Read the list.

        Raises:
            OSError: there is no such file.
            NoteInvalid: a line is no Ed25519 verifier key, or one of too long a name.
        """
        self._path = path
        self._read_at = 0
        self._keys: dict[str, tuple[VerifierKey, ...]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it changed. Raises as the constructor; the list then stays."""
        changed = self._path.stat().st_mtime_ns
        if changed == self._read_at:
            return
        keys: dict[str, tuple[VerifierKey, ...]] = {}
        for line in self._path.read_text("utf-8").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                key = VerifierKey.parse(line)
                if len(key.name.encode()) > _ORIGIN_BYTES_MAX:
                    reason = "origin is too long to be cosigned"
                    raise NoteInvalid(reason)
                keys[key.name] = (*keys.get(key.name, ()), key)
        self._keys, self._read_at = keys, changed

    def keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """Return the keys trusted for a log; empty if it is on no list."""
        return self._keys.get(origin, ())

    def __len__(self) -> int:
        return len(self._keys)


class Witness:
    """One witness; `add` from one thread at a time, or from processes sharing the memory."""

    def __init__(
        self,
        keys: WitnessKeys,
        memory: WitnessMemory,
        logs: LogList,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._memory = memory
        self._logs = logs
        self._clock = clock

    def add(self, body: bytes) -> Answer:
        """Decide about an `add-checkpoint` request; see the top of this file.

        Raises:
            sqlite3.Error: the memory cannot be read or written: nothing was cosigned.
        """
        try:
            asked = parse_add_checkpoint(body)  # 1
        except NoteInvalid:
            return Answer(MALFORMED)
        keys = self._logs.keys(asked.origin)
        if not keys:  # 2
            return Answer(UNKNOWN)
        if not _signed(asked, keys):  # 3
            return Answer(FORBIDDEN)
        if asked.old > asked.size:  # 4
            return Answer(MALFORMED)
        last = self._memory.last(asked.origin)
        if asked.old != last.size:  # 5
            return Answer(CONFLICT, f"{last.size}\n")
        if not _extends(asked, last):  # 6, 7
            return Answer(INCONSISTENT)
        return self._cosigned(asked, last)

    def _cosigned(self, asked: AddCheckpoint, last: Seen) -> Answer:
        """Steps 8 and 9, in that order: what is cosigned and not remembered could be forked."""
        time_s = int(self._clock())
        new = Seen(asked.size, asked.root, asked.note)
        if not self._memory.advance(asked.origin, last, new, time_s):  # 8
            return Answer(CONFLICT, f"{self._memory.last(asked.origin).size}\n")
        return Answer(OK, self._keys.cosign(asked.text, time_s))  # 9


def _signed(asked: AddCheckpoint, keys: tuple[VerifierKey, ...]) -> bool:
    try:
        return bool(check_signatures(asked.text, asked.signatures, keys))
    except NoteInvalid:
        return False


def _extends(asked: AddCheckpoint, last: Seen) -> bool:
    if asked.size == 0 and asked.root != EMPTY_ROOT:
        return False
    return is_consistent(
        old=last.size,
        old_root=EMPTY_ROOT if last == EMPTY else last.root,
        new=asked.size,
        new_root=asked.root,
        proof=asked.proof,
    )
