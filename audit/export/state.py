"""How far an export has come: a small JSON file, replaced as a whole.

    {"origin": "mesh.local/audit", "format": "ecs", "next": 66100, "root": "6f0c…",
     "seen": {"size": 66240, "root": "11aa…"}, "rejected": 0}

`next` is the first entry that is not exported, `root` that of the tree of all before it; `seen` is
the newest checkpoint that was believed. All entries before `next` are where they were to go, and
durable there: it is only ever advanced behind them. One export at a time holds the file's lock.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audit.export.reading import Seen
from meshkit.files import write_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ExportState", "StateBusy", "StateInvalid", "alone", "load_state", "save_state"]


class StateInvalid(ValueError):  # noqa: N818 -- an answer about somebody's file
    """The file is no state of an export, or one of another log or format."""


class StateBusy(Exception):  # noqa: N818 -- an answer about somebody's file
    """Another export has the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportState:
    """See the top of this file."""

    origin: str = ""
    format: str
    done: Seen = field(default_factory=Seen)
    """What was exported."""
    seen: Seen = field(default_factory=Seen)
    rejected: int = 0
    """Entries that the receiver said it will never take."""


def load_state(path: Path, format_name: str) -> ExportState:
    """Read the state; a new one, if there is no file.

    Raises:
        StateInvalid: it is none, or of another format.
        OSError: it cannot be read.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ExportState(format=format_name)
    try:
        told = json.loads(raw)
        state = ExportState(
            origin=str(told["origin"]),
            format=str(told["format"]),
            done=_seen(told["next"], told["root"]),
            seen=_seen(told["seen"]["size"], told["seen"]["root"]),
            rejected=int(told["rejected"]),
        )
    except (ValueError, KeyError, TypeError):
        msg = "not the state of an export"
        raise StateInvalid(msg) from None
    if state.format != format_name:
        msg = f"the state is of an export in another format: {state.format}"
        raise StateInvalid(msg)
    return state


def _seen(size: object, root: object) -> Seen:
    if not isinstance(size, int) or not isinstance(root, str) or size < 0:
        raise TypeError
    return Seen(size, bytes.fromhex(root))


def save_state(path: Path, state: ExportState) -> None:
    """Replace the file, durably.

    Raises:
        OSError: the disk is full or fails; the old one is still there.
    """
    told = {
        "origin": state.origin,
        "format": state.format,
        "next": state.done.size,
        "root": state.done.root.hex(),
        "seen": {"size": state.seen.size, "root": state.seen.root.hex()},
        "rejected": state.rejected,
    }
    write_private(path, json.dumps(told, indent=1).encode() + b"\n")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only export with this state, for as long as the block runs.

    Raises:
        StateBusy: another one is.
        OSError: the lock's file cannot be made.
    """
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateBusy from None
        yield
    finally:
        os.close(handle)
