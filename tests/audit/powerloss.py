"""A disk that keeps no more than POSIX promises, and forgets the rest when the power goes.

Bytes are durable once the file is synced, names once their folder is. Everything else may be kept,
lost or torn at the power loss, at random: `survivor(rng)` is one such disk.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audit.log.disk import Disk

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(eq=False)
class Node:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""

    def after_loss(self, rng):
        """Synced bytes stay; each page of the others is the old or the new, the end anywhere."""
        now, kept = bytes(self.data), self.durable
        if now == kept:
            return now
        if len(now) < len(kept):  # cut: the old or the new
            return rng.choice([now, kept])
        after = bytearray(now[: rng.randint(len(kept), len(now))])
        old = kept + bytes(len(after) - len(kept))
        for start in range(0, len(after), 512):
            if rng.random() < 0.2:
                after[start : start + 512] = old[start : start + 512]
        return bytes(after)


class MemoryDisk(Disk):
    """Files in memory, with what of them is durable. `on_effect(name)` is told of each effect."""

    def __init__(self, on_effect=lambda _name: None):
        self.on_effect = on_effect
        self.names_now: dict[Path, Node | None] = {}  # None is a folder
        self.names_durable: dict[Path, Node | None] = {}
        self.handles: dict[int, Node] = {}
        self.next_handle = 1_000_000
        self.guard = threading.RLock()
        self.locked: set[Path] = set()

    def _effect(self, name):
        self.on_effect(name)

    def _handle(self, node):
        self.next_handle += 1
        self.handles[self.next_handle] = node
        return self.next_handle

    def lock(self, path):
        with self.guard:
            if path in self.locked:
                raise BlockingIOError
            self.locked.add(path)
            return self._handle(Node())

    def create(self, path):
        with self.guard:
            self._effect("create")
            if path in self.names_now:
                raise FileExistsError
            node = self.names_now[path] = Node()
            return self._handle(node)

    def reopen(self, path):
        with self.guard:
            return self._handle(self.names_now[path])

    def write(self, handle, data, at=None):
        with self.guard:
            self._effect("write")
            whole = self.handles[handle].data
            at = len(whole) if at is None else at
            whole[at : at + len(data)] = data

    def free(self, _folder):
        return 1 << 40

    def sync(self, handle):
        with self.guard:
            self._effect("sync")
            node = self.handles[handle]
            node.durable = bytes(node.data)

    def truncate(self, handle, size):
        with self.guard:
            self._effect("truncate")
            del self.handles[handle].data[size:]

    def close(self, handle):
        self.handles.pop(handle, None)

    def read(self, path, start=0, length=None):
        with self.guard:
            node = self.names_now.get(path)
            if node is None:
                raise FileNotFoundError
            return bytes(node.data[start : None if length is None else start + length])

    def names(self, folder):
        with self.guard:
            return sorted(path.name for path in self.names_now if path.parent == folder)

    def is_folder(self, path):
        return path == path.parent or (path in self.names_now and self.names_now[path] is None)

    def make_folder(self, path):
        with self.guard:
            self._effect("make_folder")
            if path in self.names_now:
                raise FileExistsError
            self.names_now[path] = None

    def sync_folder(self, path):
        with self.guard:
            self._effect("sync_folder")
            for name in [n for n in self.names_durable if n.parent == path]:
                if name not in self.names_now:
                    del self.names_durable[name]
            for name, node in self.names_now.items():
                if name.parent == path:
                    self.names_durable[name] = node

    def link(self, source, target):
        with self.guard:
            self._effect("link")
            if target in self.names_now:
                raise FileExistsError
            self.names_now[target] = self.names_now[source]

    def rename(self, source, target):
        with self.guard:
            self._effect("rename")
            self.names_now[target] = self.names_now.pop(source)

    def unlink(self, path):
        with self.guard:
            self._effect("unlink")
            if path not in self.names_now:
                raise FileNotFoundError
            del self.names_now[path]

    def remove_folder(self, path):
        with self.guard:
            self._effect("remove_folder")
            if self.names(path):
                raise OSError
            del self.names_now[path]

    def survivor(self, rng):
        """Return one disk that a power loss at this moment may leave."""
        with self.guard:
            after = MemoryDisk()
            contents: dict[int, Node] = {}
            for path in sorted({*self.names_now, *self.names_durable}):
                absent = object()
                now = self.names_now.get(path, absent)
                kept = self.names_durable.get(path, absent)
                chosen = now if now is kept else rng.choice([now, kept])
                if chosen is absent or not after.is_folder(path.parent):
                    continue
                if chosen is not None:
                    if id(chosen) not in contents:
                        data = chosen.after_loss(rng)
                        contents[id(chosen)] = Node(bytearray(data), data)
                    chosen = contents[id(chosen)]
                after.names_now[path] = chosen
            after.names_durable = dict(after.names_now)
            return after


class NoSync(MemoryDisk):
    """A mutant: files are never synced. The power-loss test must notice."""

    def sync(self, handle):
        pass


class NoFolderSync(MemoryDisk):
    """A mutant: folders are never synced."""

    def sync_folder(self, path):
        pass


class FailingDisk(Disk):
    """The real disk, whose `fail_at`-th effect of the given kinds raises once (or always)."""

    def __init__(self):
        self.effects = 0
        self.fail_at = None
        self.full = None

    def _effect(self):
        self.effects += 1
        if self.effects == self.fail_at or self.full is not None:
            raise OSError(self.full or 28, "injected")

    def create(self, path):
        self._effect()
        return super().create(path)

    def write(self, handle, data, at=None):
        try:
            self._effect()
        except OSError:
            super().write(handle, data[: len(data) // 2], at)  # a full disk takes the first part
            raise
        super().write(handle, data, at)

    def sync(self, handle):
        self._effect()
        super().sync(handle)

    def make_folder(self, path):
        self._effect()
        super().make_folder(path)

    def sync_folder(self, path):
        self._effect()
        super().sync_folder(path)

    def link(self, source, target):
        self._effect()
        super().link(source, target)

    def rename(self, source, target):
        self._effect()
        super().rename(source, target)

    def unlink(self, path):
        self._effect()
        super().unlink(path)
