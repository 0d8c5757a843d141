"""The disk, as the audit service uses it: every effect on files goes through `Disk`.

Two promises carry everything else, and tests put a disk under the service that keeps no more than
these (see tests/audit/powerloss.py):

    after `sync`         the file's bytes survive a power loss; before, any part of them may not
    after `sync_folder`  names made, moved or removed in that folder survive; before, they may not

Local POSIX file systems only: NFS and object-store mounts break the second promise and `flock`.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Disk", "make_folders", "put_new", "replace"]

_FILE_MODE = 0o640
_FOLDER_MODE = 0o750


class Disk:
    """The real one. A handle is a file descriptor."""

    def lock(self, path: Path) -> int:
        """Take the folder's writer lock; held until `close`.

        Raises:
            BlockingIOError: another process holds it.
        """
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle

    def create(self, path: Path) -> int:
        """Open a new file for writing; FileExistsError if the name is taken."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)

    def reopen(self, path: Path) -> int:
        """Open a file that is there for writing at places."""
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def write(self, handle: int, data: bytes, at: int | None = None) -> None:
        """Write all of `data`: behind what was written before, or at a place in the file."""
        rest = memoryview(data)
        while rest:
            if at is None:
                done = os.write(handle, rest)
            else:
                done = os.pwrite(handle, rest, at)
                at += done
            rest = rest[done:]

    def sync(self, handle: int) -> None:
        """Make the file's bytes and size durable."""
        os.fdatasync(handle)

    def truncate(self, handle: int, size: int) -> None:
        """Cut the file off at `size` bytes."""
        os.ftruncate(handle, size)

    def close(self, handle: int) -> None:
        """Give the handle back."""
        os.close(handle)

    def read(self, path: Path, start: int = 0, length: int | None = None) -> bytes:
        """Return the file's bytes, or those of a range (fewer at the end)."""
        with path.open("rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)

    def free(self, folder: Path) -> int:
        """Return the bytes that may still be written on the folder's file system."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def names(self, folder: Path) -> list[str]:
        """List a folder, sorted; empty when there is none."""
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208 -- names are all that is needed
        except FileNotFoundError:
            return []

    def is_folder(self, path: Path) -> bool:
        """Tell whether a folder of that name is there."""
        return path.is_dir()

    def make_folder(self, path: Path) -> None:
        """Make one folder."""
        path.mkdir(mode=_FOLDER_MODE)

    def sync_folder(self, path: Path) -> None:
        """Make the folder's names durable."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def link(self, source: Path, target: Path) -> None:
        """Give the file a second name; FileExistsError if that is taken."""
        target.hardlink_to(source)

    def rename(self, source: Path, target: Path) -> None:
        """Move a name, over whatever bears the new one."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()


def make_folders(disk: Disk, path: Path) -> None:
    """Make a folder and all above it, durably."""
    if disk.is_folder(path):
        return
    make_folders(disk, path.parent)
    with suppress(FileExistsError):
        disk.make_folder(path)
    disk.sync_folder(path.parent)


def _write_beside(disk: Disk, path: Path, data: bytes) -> Path:
    """Write a durable file under a name that nobody reads."""
    beside = path.with_name(f".{path.name}.new")
    try:
        handle = disk.create(beside)
    except FileExistsError:
        # Left by a crash, perhaps with the final name on it too: it must not be written to.
        disk.unlink(beside)
        handle = disk.create(beside)
    try:
        disk.write(handle, data)
        disk.sync(handle)
    finally:
        disk.close(handle)
    return beside


def replace(disk: Disk, path: Path, data: bytes) -> None:
    """Put a file in place of another, durably: after a crash it is the old one or the new."""
    disk.rename(_write_beside(disk, path, data), path)
    disk.sync_folder(path.parent)


def put_new(disk: Disk, files: Iterable[tuple[Path, bytes]]) -> None:
    """Make files that never change again, durably. May be repeated after a failure.

    Raises:
        Refusal: EVIDENCE_LOST, if one is there with other bytes.
        OSError: a write failed; some files may be there, none of them half.
    """
    folders: dict[Path, None] = {}
    for path, data in files:
        if path.parent not in folders:
            make_folders(disk, path.parent)
            folders[path.parent] = None
        beside = _write_beside(disk, path, data)
        try:
            disk.link(beside, path)
        except FileExistsError:
            if disk.read(path) != data:
                raise Refusal(Reason.EVIDENCE_LOST) from None
        disk.unlink(beside)
    for folder in folders:
        disk.sync_folder(folder)
