"""Files opened under a folder, and nowhere else: no link is followed, on the way or at its end.

    with folder(models_dir) as top:
        with opened(top, "store/acme-chat/1/files/model.gguf") as handle:
            ...

Each step is opened relative to the one before, without following links, and what was opened is then
looked at: between a check and a use there is no name that somebody could point elsewhere. The
folder at the top may be reached by a link; that is the operator's.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inference.store.errors import Fault, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["file_at", "folder", "folder_at", "is_folder", "must_be_no_links", "names_in"]
__all__ += ["read_small", "walk"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Not blocking, or a pipe would keep us until somebody writes into it."""


@contextmanager
def folder(path: Path) -> Iterator[int]:
    """Open the folder at the top; yield its descriptor. Raises ModelFileError: UNREADABLE."""
    try:
        handle = os.open(path, _FOLDER)
    except OSError as error:
        raise _refusal(error) from error
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def folder_at(top: int, path: str) -> Iterator[int]:
    """Open a folder below `top` (none of its own name: `top` again); yield its descriptor.

    Raises:
        ModelFileError: LINK, a step is no folder; UNREADABLE.
    """
    handle = os.dup(top)
    try:
        for part in path.split("/") if path else ():
            step = _step(part, _FOLDER | os.O_NOFOLLOW, handle)
            os.close(handle)
            handle = step
        yield handle
    finally:
        os.close(handle)


@contextmanager
def file_at(top: int, path: str, *, alone: bool = False) -> Iterator[int]:
    """Open a regular file below `top` for reading; yield its descriptor.

    Args:
        top: Descriptor of a folder.
        path: Relative, with `/`.
        alone: Whether a file with a second name, somewhere, is refused.

    Raises:
        ModelFileError: PATH; LINK, something on the way or at the end is a link, a device or a
            pipe; UNREADABLE.
    """
    above, _, name = path.rpartition("/")
    with folder_at(top, above) as parent:
        handle = _step(name, _FILE, parent)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or (alone and about.st_nlink != 1):
            raise ModelFileError(Fault.LINK, member=path)
        yield handle
    finally:
        os.close(handle)


def names_in(top: int, path: str) -> list[str]:
    """List a folder below `top`, sorted; nothing if there is none. Raises ModelFileError."""
    try:
        with folder_at(top, path) as handle:
            return sorted(os.listdir(handle))  # noqa: PTH208 -- Path knows no descriptors
    except ModelFileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise


def is_folder(top: int, path: str) -> bool:
    """Whether a name below `top` is a folder's, and no link's. Raises ModelFileError."""
    above, _, name = path.rpartition("/")
    with folder_at(top, above) as parent:
        try:
            about = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            raise _refusal(error, path) from error
    return stat.S_ISDIR(about.st_mode)


def walk(top: int, path: str) -> Iterator[str]:
    """Yield every name below a folder but folders', sorted. Raises ModelFileError."""
    for name in names_in(top, path):
        inner = f"{path}/{name}" if path else name
        if is_folder(top, inner):
            yield from walk(top, inner)
        else:
            yield inner


def read_small(top: int, path: str, *, bytes_max: int) -> bytes | None:
    """Read a file below `top`; None if there is none.

    Raises:
        ModelFileError: LARGE, and as `file_at`.
    """
    try:
        with file_at(top, path) as handle, os.fdopen(os.dup(handle), "rb") as file:
            text = file.read(bytes_max + 1)
    except ModelFileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    if len(text) > bytes_max:
        raise ModelFileError(Fault.LARGE, member=path)
    return text


def must_be_no_links(*folders: Path) -> None:
    """Refuse to change what lies elsewhere. Raises ModelFileError: LINK."""
    if any(folder.is_symlink() for folder in folders):
        raise ModelFileError(Fault.LINK)


def _step(part: str, flags: int, above: int) -> int:
    if part in {"", ".", ".."} or "\0" in part:
        raise ModelFileError(Fault.PATH, member=part)
    try:
        return os.open(part, flags, dir_fd=above)
    except OSError as error:
        raise _refusal(error, part) from error


def _refusal(error: OSError, member: str = "") -> ModelFileError:
    # ELOOP: a link at the end. ENOTDIR: a link, or a file, where a folder should be. ENXIO: a pipe.
    links = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}
    return ModelFileError(Fault.LINK if error.errno in links else Fault.UNREADABLE, member=member)
