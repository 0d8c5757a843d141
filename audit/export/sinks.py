"""Where exported lines go: a file that is rotated under us, or standard output.

A sink MUST NOT return from `put` before the lines are as durable as it can make them: the state of
the export is advanced right behind it. What fails for now raises `SinkDown`; the same lines are
then put again.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["FileSink", "Line", "Sink", "SinkDown", "StreamSink"]


class Line(NamedTuple):
    """An entry as it is exported: its index, its line without any line break, and the leaf."""

    number: int
    text: bytes
    leaf: bytes


class SinkDown(Exception):  # noqa: N818 -- says so for now
    """Lines cannot be put now; some of them may have been. `kind` is a constant."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Sink(Protocol):
    """Takes lines, in order."""

    def put(self, lines: Sequence[Line]) -> Sequence[int]:
        """Take lines, durably.

        Returns:
            The indexes of those that the receiver says it will never take.

        Raises:
            SinkDown: not now; some of the lines may have been taken.
        """
        ...

    def reopen(self) -> None:
        """Go on in a file of the same name, if there is one: it was rotated away."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class FileSink:
    """Appends to a file; begins a new one when that of the name is another one (rotation)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def put(self, lines: Sequence[Line]) -> Sequence[int]:
        """See `Sink.put`: written and fsynced."""
        try:
            handle = self._opened()
            before = os.fstat(handle).st_size
            try:
                _write_all(handle, b"".join(line.text + b"\n" for line in lines))
                os.fsync(handle)
            except OSError:
                with suppress(OSError):  # or else half a line stays, and is put right at the start
                    os.ftruncate(handle, before)
                raise
        except OSError as failure:
            self.reopen()
            raise SinkDown(_kind_of(failure)) from None
        return ()

    def _opened(self) -> int:
        if self._handle is not None and not self._is_ours(self._handle):
            self.reopen()
        if self._handle is None:
            new = not self._path.exists()
            # Also for reading: to see how it ends.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._handle = os.open(self._path, flags, 0o600)
            _end_at_a_line(self._handle)
            if new:
                _sync_folder(self._path.parent)
        return self._handle

    def _is_ours(self, handle: int) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        held = os.fstat(handle)
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def reopen(self) -> None:
        """See `Sink.reopen`."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def close(self) -> None:
        """See `Sink.close`."""
        self.reopen()


class StreamSink:
    """Writes to standard output, or any other handle that is open; fsynced where it is a file."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._is_file = stat.S_ISREG(os.fstat(handle).st_mode)

    def put(self, lines: Sequence[Line]) -> Sequence[int]:
        """See `Sink.put`. A pipe that is full is waited for: that is its back-pressure.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        try:
            _write_all(self._handle, b"".join(line.text + b"\n" for line in lines))
            if self._is_file:
                os.fsync(self._handle)
        except BrokenPipeError:
            raise
        except OSError as failure:
            raise SinkDown(_kind_of(failure)) from None
        return ()

    def reopen(self) -> None:
        """Do nothing: who opened it may."""

    def close(self) -> None:
        """Do nothing: it is not ours."""


def _write_all(handle: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _end_at_a_line(handle: int) -> None:
    """Cut off half a line that a crash left at the end: the whole one is written again."""
    size = at = os.fstat(handle).st_size
    while at > 0:
        step = min(at, 65_536)
        found = os.pread(handle, step, at - step).rfind(b"\n")
        if found >= 0:
            at += found + 1 - step
            break
        at -= step
    if at != size:
        os.ftruncate(handle, at)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _kind_of(failure: OSError) -> str:
    return os.strerror(failure.errno) if failure.errno else "the file cannot be written"
