"""Reads strace's lines of a writer, and holds them against the order that durability needs.

    before an event is acknowledged     every byte written to a write-ahead segment is fsynced, and
                                        so is the folder that got the segment's name
    before a name is given (link,       the bytes of the file are fsynced
    rename)
    before a checkpoint is published    every name below tile/ is fsynced with its folder

A power loss at any moment takes what was not fsynced; a test that only kills cannot see that.
"""

import re
from collections import Counter
from pathlib import PurePosixPath

_LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>)?(.*)$")
_FD = re.compile(r"^\(\d+<([^>]*)>")
_PATHS = re.compile(r'"([^"]*)"')
_SYNCS = {"fsync", "fdatasync"}
_WRITES = {"write", "pwrite64", "ftruncate"}
_MOVES = {"link", "linkat", "rename", "renameat"}


class OrderBrokenError(AssertionError):
    """Something was told or named before it was durable."""


class _Disk:
    """What is not durable yet, by the calls seen so far."""

    def __init__(self):
        self.bytes = set()
        self.names = {}
        self.seen = Counter()

    def wrote(self, path):
        self.bytes.add(path)

    def synced(self, path):
        self.bytes.discard(path)
        for name in [name for name, folder in self.names.items() if folder == path]:
            del self.names[name]

    def named(self, path):
        self.names[path] = str(PurePosixPath(path).parent)

    def moved(self, source, target):
        if source in self.bytes:
            msg = f"{target} was named before its bytes were durable"
            raise OrderBrokenError(msg)
        self.named(target)

    def need(self, what, *, part):
        """Raise if any bytes or names of a part of the log are not durable."""
        pending = [path for path in (*self.bytes, *self.names) if part(path)]
        if pending:
            msg = f"{what} before these were durable: {sorted(pending)[:3]}"
            raise OrderBrokenError(msg)
        self.seen[what] += 1


def _segment(path):
    return path.endswith(".wal")


def _tile(path):
    return "/log/tile" in path and not PurePosixPath(path).name.startswith(".")


def in_order(trace):
    """Return how much was seen. Raises OrderBrokenError."""
    disk, waiting = _Disk(), {}
    for line in trace.splitlines():
        matched = _LINE.match(line)
        if matched is None:
            continue
        thread, call, rest = matched.groups()
        resumed = "resumed>" in line
        if rest.endswith("<unfinished ...>"):
            waiting[thread] = rest
            if call in _WRITES:
                _take(disk, call, rest)
            continue
        if resumed:
            # A write counted when it began, an fsync counts when it is over.
            rest = waiting.pop(thread, "") + rest
            if call in _WRITES:
                continue
        _take(disk, call, rest)
    return dict(disk.seen) | {"pending": len(disk.bytes) + len(disk.names)}


def _take(disk, call, rest):
    fd, paths = _FD.match(rest), _PATHS.findall(rest)
    failed = " = -1 " in rest
    if call == "writev" and '"acked ' in rest:
        disk.need("acknowledged", part=_segment)
    elif failed:
        return
    elif call in _WRITES and fd:
        disk.wrote(fd[1])
    elif call in _SYNCS and fd:
        disk.seen["fsyncs"] += 1
        disk.synced(fd[1])
    elif paths:
        _take_name(disk, call, rest, paths)


def _take_name(disk, call, rest, paths):
    source, target = paths[0], paths[-1]
    if call == "openat" and "O_CREAT" in rest and "O_EXCL" in rest:
        disk.named(source)
    elif call in {"unlink", "unlinkat"}:
        disk.names.pop(source, None)
        disk.bytes.discard(source)
    elif call in {"mkdir", "mkdirat"}:
        disk.named(source)
    elif call in _MOVES:
        if target.endswith("/log/checkpoint"):
            disk.need("published", part=_tile)
        disk.moved(source, target)
        if call.startswith("rename"):
            disk.names.pop(source, None)
