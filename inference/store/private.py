"""Folders for one opened model each: readable by us alone, in memory if there is room, gone after.

Each folder is held by a lock for as long as it is used. A lock ends with its process, so what a
crash left is told by its lock being free, and is removed when the next folder is made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import structlog

from inference.store.errors import Fault, ModelFileError

__all__ = ["PrivateFolder", "private_folder"]

log = structlog.get_logger()

_MEMORY = Path("/dev/shm")  # noqa: S108 -- looked at, and what is made there is 0700
_LOCK = ".lock"
_SPARE = 0.1
"""Of the memory that is free there, how much is left to others."""


@dataclass(slots=True)
class PrivateFolder:
    """A folder of ours, until it is closed. `close` may be called again, from any thread."""

    path: Path
    _lock: int

    def close(self) -> None:
        """Remove it. What is mapped or open stays until that ends."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def private_folder(room_bytes: int, *, where: Path | None = None) -> PrivateFolder:
    """Make a folder with room for so many bytes.

    Args:
        room_bytes: What is going to be written there.
        where: A folder to make it in; None: memory if there is room, else the temporary folder.

    Raises:
        ModelFileError: NO_ROOM; UNREADABLE, somebody else's folder stands there.
    """
    places = [where] if where else [_MEMORY, Path(tempfile.gettempdir())]
    homes = [place / f"sealgate-models-{os.geteuid()}" for place in places]
    try:
        for home in homes:
            if _is_ours(home):
                _sweep(home)
        for home in homes:
            if home.parent.is_dir() and _free(home.parent) * (1 - _SPARE) >= room_bytes:
                return _made(_ours(home))
    except OSError as error:
        raise ModelFileError(Fault.NO_ROOM) from error
    raise ModelFileError(Fault.NO_ROOM)


def _free(place: Path) -> int:
    about = os.statvfs(place)
    return about.f_bavail * about.f_frsize


def _ours(home: Path) -> Path:
    """Make the folder above, unless it is there; it must be ours, and no link."""
    with suppress(FileExistsError):
        home.mkdir(mode=0o700)
    if not _is_ours(home):
        raise ModelFileError(Fault.UNREADABLE)
    return home


def _is_ours(home: Path) -> bool:
    try:
        about = home.lstat()
    except FileNotFoundError:
        return False
    ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()
    return ours and not about.st_mode & 0o077


def _made(home: Path) -> PrivateFolder:
    """Make a folder that is locked before it bears the name by which a sweep would find it."""
    unnamed = home / f".new-{token_hex(8)}"
    unnamed.mkdir(mode=0o700)
    lock = os.open(unnamed / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    path = home / f"open-{token_hex(8)}"
    unnamed.rename(path)
    return PrivateFolder(path, lock)


def _sweep(home: Path) -> None:
    for path in home.glob("open-*"):
        try:
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # somebody is removing it just now
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(path, ignore_errors=True)
            log.info("models.leftover_removed")
        finally:
            os.close(lock)
