"""What a model is made of before it is in the store: files of a folder, an archive, or one file.

Each source yields its members in turn: a name, and the bytes. Nothing is believed: names are
checked before anything is read, links, devices and pipes are refused, and what an archive claims of
its sizes is not used: bytes are counted as they come.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from inference.store import below
from inference.store.errors import Fault, ModelFileError
from inference.store.manifest import is_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Limits", "Member", "members_of"]

_GZIP = b"\x1f\x8b"
_READ_BYTES_MAX = 1 << 20
"""No header of an archive is longer, and files are read in such pieces."""
_DIRECTORY_BYTES_A_FILE = 1 << 12
_OFFSET_END = 1 << 63
_ENCRYPTED = 1
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may be added at once: see `ModelsSettings`."""

    files_max: int = 4_096
    bytes_max: int = 1 << 40
    ratio_max: int = 100
    ratio_free_bytes: int = 64 << 20

    def must_hold(self, unpacked: int, archive_bytes: int | None) -> None:
        """Raise ModelFileError LARGE or BOMB once so many bytes came out."""
        if unpacked > self.bytes_max:
            raise ModelFileError(Fault.LARGE)
        if archive_bytes is None or unpacked <= self.ratio_free_bytes:
            return
        if unpacked > archive_bytes * self.ratio_max:
            raise ModelFileError(Fault.BOMB)


@dataclass(frozen=True, slots=True)
class Member:
    """A file: its name as the source has it, and its bytes, to be read before the next one's."""

    path: str
    raw: IO[bytes]


@contextmanager
def members_of(path: Path, limits: Limits) -> Iterator[Iterator[Member]]:
    """Open a source for as long as the block runs, and yield what is in it.

    Raises:
        ModelFileError: as the module says; UNREADABLE, ARCHIVE, MANY, LARGE, BOMB.
    """
    if path.is_dir() and not path.is_symlink():
        with below.folder(path) as top:
            yield _counted(_folder_members(top), limits, None)
        return
    with below.folder(path.parent) as top, below.file_at(top, path.name) as handle:
        size = os.fstat(handle).st_size
        with os.fdopen(os.dup(handle), "rb") as raw:
            members, packed = _of_file(path.name, raw, size, limits)
            yield _counted(members, limits, size if packed else None)


def _of_file(name: str, raw: IO[bytes], size: int, limits: Limits) -> tuple[Iterator[Member], bool]:
    lower = name.lower()
    if lower.endswith(".zip"):
        return _zip_members(raw, limits), True
    if lower.endswith((".tar", ".tar.gz", ".tgz")):
        return _tar_members(raw, size, limits), True
    return iter((Member(_checked(name), raw),)), False


def _counted(
    members: Iterator[Member], limits: Limits, archive_bytes: int | None
) -> Iterator[Member]:
    """Pass members on, as long as neither they nor their bytes are too many."""
    total = _Total(limits, archive_bytes)
    for count, member in enumerate(members, 1):
        if count > limits.files_max:
            raise ModelFileError(Fault.MANY)
        yield Member(member.path, io.BufferedReader(_Counted(member.raw, total), _READ_BYTES_MAX))


@dataclass(slots=True)
class _Total:
    limits: Limits
    archive_bytes: int | None
    unpacked: int = 0

    def add(self, count: int) -> None:
        self.unpacked += count
        self.limits.must_hold(self.unpacked, self.archive_bytes)


class _Counted(io.RawIOBase):
    """Reads a member, and adds up what came out; what the unpacker stumbles over is ARCHIVE."""

    def __init__(self, raw: IO[bytes], total: _Total) -> None:
        super().__init__()
        self._raw = raw
        self._total = total

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # a narrower buffer
        try:
            taken = self._raw.read(min(len(buffer), _READ_BYTES_MAX))
        except _BROKEN as error:
            raise ModelFileError(Fault.ARCHIVE) from error
        self._total.add(len(taken))
        buffer[: len(taken)] = taken
        return len(taken)


_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError)


# --- folders --------------------------------------------------------------------------------


def _folder_members(top: int) -> Iterator[Member]:
    for path in below.walk(top, ""):
        with (
            below.file_at(top, _checked(path), alone=True) as handle,
            os.fdopen(os.dup(handle), "rb") as raw,
        ):
            yield Member(path, raw)


# --- archives -------------------------------------------------------------------------------


def _checked(path: str) -> str:
    if not is_path(path):
        raise ModelFileError(Fault.PATH, member=path)
    return path


def _zip_members(raw: IO[bytes], limits: Limits) -> Iterator[Member]:
    most = max(_READ_BYTES_MAX, limits.files_max * _DIRECTORY_BYTES_A_FILE)
    try:
        archive = zipfile.ZipFile(_Capped(raw, most))
    except (*_BROKEN, NotImplementedError) as error:  # which a version beyond zipfile's raises
        raise ModelFileError(Fault.ARCHIVE) from error
    with archive:
        entries = archive.infolist()
        if len(entries) > limits.files_max:
            raise ModelFileError(Fault.MANY)
        for entry in entries:
            path = _checked(entry.orig_filename.rstrip("/"))
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise ModelFileError(Fault.LINK, member=path)
            if entry.is_dir():
                continue
            if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
                raise ModelFileError(Fault.ARCHIVE, member=path)
            with _zip_opened(archive, entry) as member:
                yield Member(path, member)


def _zip_opened(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(entry)
    # NotImplementedError, RuntimeError: zipfile's for a patched entry, and one with a password.
    except (*_BROKEN, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(Fault.ARCHIVE) from error


class _Capped(io.RawIOBase):
    """A zip as its reader sees it: zipfile takes the directory into memory as a whole."""

    def __init__(self, raw: IO[bytes], most: int) -> None:
        super().__init__()
        self._raw = raw
        self._most = most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        taken = self._raw.read(self._most + 1 if size < 0 else min(size, self._most + 1))
        if len(taken) > self._most:
            raise ModelFileError(Fault.MANY)
        return taken

    def tell(self) -> int:
        return self._raw.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        # A directory may say that a member lies before the file's beginning, or beyond any file.
        if whence == os.SEEK_SET and not 0 <= offset < _OFFSET_END:
            raise ModelFileError(Fault.ARCHIVE)
        return self._raw.seek(offset, whence)


def _tar_members(raw: IO[bytes], size: int, limits: Limits) -> Iterator[Member]:
    start = raw.read(len(_GZIP))
    raw.seek(0)
    plain: IO[bytes] = gzip.GzipFile(fileobj=raw) if start == _GZIP else raw  # type: ignore[assignment] # it reads and seeks
    try:
        with tarfile.open(fileobj=_Bounded(plain, size, limits), mode="r:") as archive:
            for count, entry in enumerate(archive, 1):
                if count > limits.files_max:
                    raise ModelFileError(Fault.MANY)
                if (member := _tar_member(archive, entry)) is not None:
                    yield member
    except _BROKEN as error:
        raise ModelFileError(Fault.ARCHIVE) from error


def _tar_member(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Member | None:
    path = _checked(entry.name.removeprefix("./")) if entry.name != "." else ""
    if entry.isdir():
        return None
    if not entry.isreg():
        raise ModelFileError(Fault.LINK, member=path)
    if entry.issparse():
        raise ModelFileError(Fault.ARCHIVE, member=path)
    raw = archive.extractfile(entry)
    assert raw is not None  # a regular file
    return Member(path, raw)


class _Bounded(io.RawIOBase):
    """A tar as its reader sees it: no long reads, no way back far, and no more than the limits.

    tarfile takes headers (long names, pax) into memory as a whole, as long as they say they are.
    """

    def __init__(self, raw: IO[bytes], archive_bytes: int, limits: Limits) -> None:
        super().__init__()
        self._raw = raw
        self._archive_bytes = archive_bytes
        self._limits = limits

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _READ_BYTES_MAX:
            raise ModelFileError(Fault.ARCHIVE)
        taken = self._raw.read(size)
        self._limits.must_hold(self._raw.tell(), self._archive_bytes)
        return taken

    def tell(self) -> int:
        return self._raw.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence != os.SEEK_SET:
            raise ModelFileError(Fault.ARCHIVE)
        # Past the last header there are only the member's bytes; they were, or will be, counted.
        self._limits.must_hold(offset, self._archive_bytes)
        return self._raw.seek(offset)
