"""Small files that must be whole or not there, and that nobody else may read."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["fsync_folder", "read_or_none", "write_private"]


def write_private(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `content`, durably and at once: a crash leaves the old file or the new.

    The file is written beside it, fsynced, renamed, and the folder fsynced. Its mode is `mode`
    from its first byte on.

    Raises:
        OSError: the disk is full, or the folder is missing or not writable; `path` is untouched.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make what was created, renamed or unlinked in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_or_none(path: Path) -> bytes | None:
    """Return the file's bytes; None if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
