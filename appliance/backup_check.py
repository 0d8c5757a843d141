"""Reads a backup: unpacks it, holds it against its manifest, verifies the log in it.

verify(pieces_of("/backups/sealgate-….tar.age"), identity)
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import obstore

from appliance.age import opened
from appliance.backup import FORMAT
from appliance.backup_tar import ABOUT, BackupInvalid, read_members
from audit.mirror.objects import StorePlace, open_store
from meshkit.tlog import LogInvalid, check_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.age import Opener

__all__ = ["Checked", "checked_log", "pieces_of", "read_about", "unpacked", "verify"]

_READ_BYTES = 1 << 20
_TIMEOUT_MS = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A backup that holds."""

    about: dict[str, Any]
    files: int
    bytes: int
    size: int
    root: str


def pieces_of(backup: str, credentials: Path | None = None) -> Iterator[bytes]:
    """Read a file or an object (`s3://bucket/prefix/NAME`) piece by piece.

    Raises:
        OSError, BaseError: it cannot be read.
    """
    if "://" in backup:
        url, _, name = backup.rpartition("/")
        store = open_store(StorePlace(url=url, credentials=credentials, timeout_ms=_TIMEOUT_MS))
        yield from (bytes(piece) for piece in obstore.get(store, name).stream(_READ_BYTES))
        return
    with Path(backup).open("rb") as file:
        while piece := file.read(_READ_BYTES):
            yield piece


def unpacked(
    pieces: Iterator[bytes], opener: Opener, folder: Path, *, only: str = ""
) -> tuple[int, int]:
    """Unpack a backup under an empty folder, and hold it against its manifest.

    Args:
        pieces: The encrypted file: `pieces_of`.
        opener: Who can open it.
        folder: Exists; all that is written is below it, readable by the owner alone.
        only: Keep what begins so (and `backup.json`); check all.

    Returns:
        How many files it holds, and their bytes.

    Raises:
        AgeInvalid, BackupInvalid: it is not whole. What was unpacked must not be used.
        OSError: the disk does not take it.
    """

    def keep(name: str) -> IO[bytes] | None:
        if name != ABOUT and not name.startswith(only):
            return None
        path = folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    files = size = 0
    with tempfile.TemporaryFile(dir=folder) as lines:
        for member in read_members(opened(pieces, opener), keep, lines):
            files, size = files + 1, size + member.bytes
    return files, size


def verify(
    pieces: Iterator[bytes], opener: Opener, *, vkey: str | None = None, scratch: Path | None = None
) -> Checked:
    """Check a backup: every file against the manifest, and the whole log in it.

    Args:
        pieces: The encrypted file: `pieces_of`.
        opener: Who can open it.
        vkey: The log's verifier key, from where it is trusted; None: the backup's own, which says
            that it is whole, not whose it is.
        scratch: Where the log may be unpacked for a while; None: the system's temporary folder.

    Raises:
        AgeInvalid, BackupInvalid, LogInvalid: it does not hold.
        OSError: it cannot be read, or the log not be unpacked.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        folder = Path(made)
        files, size = unpacked(pieces, opener, folder, only="audit/log/")
        about = read_about(folder)
        checked = checked_log(folder / "audit" / "log", vkey or about["vkey"], about)
        return Checked(about=about, files=files, bytes=size, size=checked[0], root=checked[1].hex())


def read_about(folder: Path) -> dict[str, Any]:
    """Read `backup.json`. Raises BackupInvalid."""
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        known = about["format"] == FORMAT and isinstance(about["vkey"], str)
    except (OSError, ValueError, LookupError, TypeError):
        known = False
    if not known:
        msg = "it is of no format that is known here"
        raise BackupInvalid(msg)
    return about


def checked_log(log: Path, vkey: str, about: dict[str, Any]) -> tuple[int, bytes]:
    """Verify the log that was unpacked; return its size and root. Raises LogInvalid."""

    def read(path: str) -> bytes | None:
        try:
            return (log / path).read_bytes()
        except FileNotFoundError:
            return None

    checked = check_log(read, vkey)
    if checked.size != about["size"]:
        raise LogInvalid(2, "checkpoint", "it is not the one that the backup names")
    return checked.size, checked.root
