"""Small files that must be whole or not there, and that nobody else may read."""

from __future__ import annotations

import fnmatch
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

__all__ = [
    "clear_unfinished",
    "fsync_folder",
    "names_like",
    "read_or_none",
    "replace_together",
    "write_private",
]


def write_private(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `content`, durably and at once: a crash leaves the old file or the new.

    The file is written beside it, fsynced, renamed, and the folder fsynced. Its mode is `mode`
    from its first byte on.

    Raises:
        OSError: the disk is full, or the folder is missing or not writable; `path` is untouched.
    """
    replace_together(path.parent, {path.name: (content, mode)})


def replace_together(folder: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    """Replace files of a folder that belong together, each as `write_private` does, in order.

    All are on the disk before the first is renamed, so that old and new stand side by side for
    some microseconds only. Who reads several must still see whether they fit, and read again.

    Args:
        folder: Exists.
        files: Content and mode by name.

    Raises:
        OSError: the disk is full, or the folder is missing or not writable; nothing was replaced.
    """
    fresh = {name: folder / f".{name}.{os.getpid()}.new" for name in files}
    try:
        for name, (content, mode) in files.items():
            _write_new(fresh[name], content, mode)
        for name, path in fresh.items():
            path.replace(folder / name)
    except OSError:
        for path in fresh.values():
            path.unlink(missing_ok=True)
        raise
    fsync_folder(folder)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def clear_unfinished(folder: Path, names: Collection[str] | None = None) -> int:
    """Remove what a crash left of `write_private` beside these names (of all); return how many.

    Nobody may write these at the same time. The folder is not fsynced. Raises OSError.
    """
    count = 0
    for path in folder.glob(".*.new"):
        # .<name>.<pid>.new
        if names is None or path.name[1:].rsplit(".", 2)[0] in names:
            path.unlink(missing_ok=True)
            count += 1
    return count


def fsync_folder(folder: Path) -> None:
    """Make what was created, renamed or unlinked in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def names_like(folder: Path, pattern: str) -> list[str]:
    """Return the names in a folder that match, in any order; none, if it is not there or not ours.

    A few us where little is in it, a tenth of `Path.glob`: a look that mostly finds nothing needs
    no thread of its own. Raises OSError.
    """
    try:
        return fnmatch.filter(os.listdir(folder), pattern)  # noqa: PTH208 -- names, not paths
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def read_or_none(path: Path) -> bytes | None:
    """Return the file's bytes; None if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
