"""A process that moves durable events into payload store and search index, when there are many.

    process = MoverProcess(folder)
    process.begin()
    if process.ready: process.move(start, groups)
    process.end()

Nothing but the disk is needed for it: the write-ahead log says all. In a thread it would hold the
interpreter while the event loop wants it, which costs every append a third of its time.

It is asked by a line of JSON on its standard input, and answers by one on its standard output. When
its parent is killed the kernel kills it, too; and lest the log's next writer come before that is
done, it holds a lock of its own, which every writer waits for at the start.

    {"move": START, "groups": [[path, first, count, offset, length]...]}  ->  {}
    {"release": true}    let go of open files: some are about to be removed   ->  {}
    anything that failed ->  {"failed": "OSError" | "OperationalError" | a Reason, "errno": N}
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from audit.log.disk import Disk
from audit.log.wal import Group, Wal
from audit.privacy.payloads import PayloadStore
from audit.search.rows import row_of
from audit.search.writer import IndexWriter, connected
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from audit.log.wal import Entry
    from audit.search.index import Index
    from audit.search.query import IndexRow

__all__ = ["MOVER_LOCK", "MoverEndedError", "MoverProcess", "enter", "move"]

MOVER_LOCK = "mover.lock"
_PR_SET_PDEATHSIG = 1
_NICE = 5
"""Acks come first."""
_END_S = 5.0
_PATIENCE_S = 30.0
"""A move takes well under a second: who does not answer for so long is stopped, or its disk is."""
_HURRIED_S = 5.0
_LOOK_MS = 100
_READ_BYTES = 4_096
_GREETING = b"ready"


class MoverEndedError(RuntimeError):
    """The process is gone; whether what was asked last was done, is to be seen in the index."""


def move(
    payloads: PayloadStore,
    index: IndexWriter | Index,
    entries: Sequence[Entry],
    rows: Sequence[IndexRow],
) -> None:
    """Put sealed payloads into their partitions, then their entries into the index.

    Raises:
        OSError, sqlite3.OperationalError: call again.
        Refusal: EVIDENCE_LOST: the same call and phase is there already, which must not be.
    """
    places = payloads.add(
        (row.number, row.tenant, row.received_us, entry.leaf, entry.sealed)
        for row, entry in zip(rows, entries, strict=True)
        if entry.sealed
    )
    enter(index, rows, places)


def enter(index: IndexWriter | Index, rows: Sequence[IndexRow], places: Mapping[int, str]) -> None:
    """Put entries into the index; `places` says where their payloads are. Raises as `move` does."""
    try:
        index.add(rows, places)
    except sqlite3.IntegrityError:
        raise Refusal(Reason.EVIDENCE_LOST) from None


class MoverProcess:
    """The parent's end; for one thread."""

    def __init__(self, folder: Path) -> None:
        """Prepare for a log's folder, whose writer lock is ours; start nothing yet."""
        self._folder = folder.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._greeted = False
        self.hurried = False
        """Whether to wait for answers only shortly; may be set from another thread."""

    def begin(self) -> None:
        """Start it, if it does not run; it takes half a second until it is ready.

        Raises:
            OSError: it cannot be started.
        """
        if self._process is not None:
            return
        self._greeted = False
        # By our own path, whatever made it: and so by no module that lies where we were started.
        found = os.pathsep.join(str(Path(each).absolute()) for each in sys.path)
        self._process = subprocess.Popen(  # noqa: S603 -- ourselves
            [sys.executable or "", "-P", "-m", __name__, str(self._folder), str(os.getpid())],
            bufsize=0,
            env=os.environ | {"PYTHONPATH": found},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    @property
    def pid(self) -> int | None:
        """Which process it is, while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def ready(self) -> bool:
        """Whether it runs and can be asked."""
        if self._process is None:
            return False
        if not self._greeted:
            told = self._process.stdout
            assert told is not None
            if not _can(told, select.POLLIN, 0):
                return False
            self._greeted = os.read(told.fileno(), _READ_BYTES) == _GREETING + b"\n"
            if not self._greeted:
                self._kill()
        return self._greeted

    def move(self, start: int, groups: Iterable[Group]) -> None:
        """Have groups moved, from entry `start` on.

        Raises:
            OSError, sqlite3.OperationalError: ask again.
            Refusal: EVIDENCE_LOST.
            MoverEndedError: it is gone, or knows another index.
        """
        where = [
            [str(each.segment), each.first, each.count, each.offset, each.length] for each in groups
        ]
        self._asked({"move": start, "groups": where})

    def release(self) -> None:
        """Have it let go of its open files. Raises MoverEndedError: it is gone, which does too."""
        if self.ready:
            self._asked({"release": True})

    def _asked(self, order: dict[str, Any]) -> None:
        try:
            told = json.loads(self._answer(json.dumps(order).encode() + b"\n"))
        except (OSError, ValueError):
            self._kill()
            raise MoverEndedError from None
        if told.get("failed") == MoverEndedError.__name__:
            self.end()
            raise MoverEndedError
        _raised(told)

    def _answer(self, line: bytes) -> bytes:
        """Send a line and wait for the one that answers it. Raises OSError: nobody answers."""
        assert self._process is not None
        asked, told = self._process.stdin, self._process.stdout
        assert asked is not None
        assert told is not None
        since_s = time.monotonic()
        rest, answer = memoryview(line), b""
        while rest:
            self._wait(asked, select.POLLOUT, since_s)
            rest = rest[os.write(asked.fileno(), rest) :]
        while not answer.endswith(b"\n"):
            self._wait(told, select.POLLIN, since_s)
            read = os.read(told.fileno(), _READ_BYTES)
            if not read:
                raise BrokenPipeError
            answer += read
        return answer

    def _wait(self, end: IO[bytes], event: int, since_s: float) -> None:
        while not _can(end, event, _LOOK_MS):
            if time.monotonic() - since_s > (_HURRIED_S if self.hurried else _PATIENCE_S):
                raise TimeoutError

    def _kill(self) -> None:
        """End it at once: when this returns, it writes no more."""
        if self._process is not None:
            self._process.kill()
        self.end()

    def end(self) -> None:
        """End it: what it is at is done first, or it is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with process, process.stdout:
            try:
                process.stdin.close()
                process.wait(_END_S)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()


def _can(end: IO[bytes], event: int, within_ms: int) -> bool:
    """Tell whether a pipe's end can be read or written; or its other end is gone."""
    poll = select.poll()  # not select(): a service with many connections is beyond what it takes
    poll.register(end, event)
    return bool(poll.poll(within_ms))


def _raised(told: dict[str, Any]) -> None:
    """Raise what failed there."""
    failed = told.get("failed")
    if failed is None:
        return
    if failed == OSError.__name__:
        raise OSError(told["errno"], os.strerror(told["errno"]))
    if failed == sqlite3.OperationalError.__name__:
        raise sqlite3.OperationalError
    raise Refusal(Reason[failed])


# --- the process -----------------------------------------------------------------------------


def serve(folder: Path, asked: IO[bytes], told: IO[bytes]) -> None:
    """Do what is asked for until nobody can ask any more.

    Raises:
        BlockingIOError: another such process is there.
    """
    disk = Disk()
    with ExitStack() as owned:
        owned.callback(disk.close, disk.lock(folder / MOVER_LOCK))
        wal = Wal(disk, folder / "wal", segment_bytes_max=0)  # to read by it
        payloads = PayloadStore(disk, folder / "payloads")
        owned.callback(payloads.close)
        index = IndexWriter(connected(folder / "index.sqlite", mode="rw"))
        owned.callback(index.close)
        _tell(told, _GREETING)
        for line in asked:
            _tell(told, json.dumps(_answer(json.loads(line), wal, payloads, index)).encode())


def _tell(told: IO[bytes], line: bytes) -> None:
    told.write(line + b"\n")
    told.flush()


def _answer(
    order: dict[str, Any], wal: Wal, payloads: PayloadStore, index: IndexWriter
) -> dict[str, Any]:
    try:
        _do(order, wal, payloads, index)
    except sqlite3.OperationalError as failure:
        return {"failed": type(failure).__name__}
    except OSError as failure:
        return {"failed": OSError.__name__, "errno": failure.errno or 0}
    except Refusal as refusal:
        return {"failed": refusal.reason.name}
    except MoverEndedError as ended:
        return {"failed": type(ended).__name__}
    return {}


def _do(order: dict[str, Any], wal: Wal, payloads: PayloadStore, index: IndexWriter) -> None:
    if "release" in order:
        payloads.close()
        return
    start = int(order["move"])
    index.refresh()
    if index.size != start:
        raise MoverEndedError
    entries: list[Entry] = []
    for path, first, count, offset, length in order["groups"]:
        group = Group(first, count, Path(path), offset, length)
        entries += wal.read(group)[max(0, start - first) :]
    rows = [row_of(number, entry.leaf) for number, entry in enumerate(entries, start)]
    move(payloads, index, entries, rows)


def _main() -> None:
    # In this order: else a parent that ends in between would leave us behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        return
    # A signal to the whole group means the parent: it says when this is over.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(_NICE)
    try:
        serve(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
    except Exception as failure:  # noqa: BLE001 -- a thread meets the same, and says more
        # Its kind alone: what it says may be out of an entry.
        sys.exit(f"{__package__}: {type(failure).__name__}")


if __name__ == "__main__":
    _main()
