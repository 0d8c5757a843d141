"""Working folders beside the data, for backups and restores: they hold second names of key files.

Such a folder ends with its block. One that a kill left behind would keep a key that is erased
later, so it is cleared away by the next who makes one, and when the installation starts. A lock on
the folder tells one that is in use.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["BACKUP", "RESTORING", "clear_staging", "cleared_at_start", "staging"]

log = structlog.get_logger()

BACKUP: Final = ".backup-"
RESTORING: Final = ".restoring-"
"""How the folders' names begin."""


@contextmanager
def staging(parent: Path, kind: str) -> Iterator[Path]:
    """Have an empty folder in `parent` (made if need be) for our eyes only; nothing of it stays.

    Raises:
        OSError: the disk does not take it, or what was left behind cannot be removed.
    """
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    clear_staging(parent, kind)
    folder, handle = _made(parent, kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def clear_staging(parent: Path, kind: str) -> int:
    """Remove what a kill left of earlier ones; return how many. Raises OSError."""
    count = 0
    for folder in parent.glob(f"{kind}*"):
        handle = _locked(folder)
        if handle is None:
            continue
        try:
            shutil.rmtree(folder)
            count += 1
        finally:
            os.close(handle)
    return count


def cleared_at_start(data: Path) -> None:
    """Clear what backups of `data` left; what cannot be is logged, and stops no start."""
    try:
        count = clear_staging(data, BACKUP)
    except OSError as failure:
        log.warning("appliance.staging_left", errno=failure.errno)
        return
    if count:
        log.info("appliance.staging_cleared", count=count)


def _made(parent: Path, kind: str) -> tuple[Path, int]:
    while True:
        folder = parent / f"{kind}{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        handle = _locked(folder)
        if handle is None:
            continue
        if folder.is_dir():
            return folder, handle
        os.close(handle)  # somebody cleared it away before we had the lock


def _locked(folder: Path) -> int | None:
    """Lock a folder; None, if it is in use, gone, or none."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
