"""Puts a backup back where there is nothing, and believes nothing of it before it is checked.

Everything is unpacked beside the target, held against the manifest, the log verified by its own
checkpoint (and by a verifier key from elsewhere, if given), OpenBao made anew out of its snapshot;
only then does the folder get its name. What fails before leaves nothing behind.

A restored log is as old as its backup. Where the lock is that of a younger log (OpenBao was not
lost), the start refuses it; where lock and log were put back together, witness, mirror and callers'
receipts tell. Either way the way on is `appliance.recovering`.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.backup_check import checked_log, read_about, unpacked
from appliance.backup_openbao import restore_snapshot
from appliance.backup_tar import ABOUT, BackupInvalid
from appliance.staging import RESTORING, staging
from audit.records.spool import leave
from meshkit.files import fsync_folder, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from appliance.age import Opener

__all__ = ["RestoreOrder", "Restored", "restore"]

_SEAL_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOrder:
    """What to put back, and where."""

    pieces: Iterator[bytes]
    """The encrypted file: `appliance.backup_check.pieces_of`."""
    opener: Opener
    into: Path
    """The data folder; must not be there, or be empty. Of `audit_only`: its `audit/`."""
    seal_key: bytes = b""
    """OpenBao's, 32 bytes. Not in the backup. Unused with `audit_only`."""
    vkey: str | None = None
    """The log's verifier key from where it is trusted; None: the backup's own."""
    audit_only: bool = False
    """OpenBao was not lost: leave it, and put back what belongs to the log alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was put back."""

    made: str
    size: int
    files: int
    bytes: int


async def restore(order: RestoreOrder) -> Restored:
    """Put a backup back.

    Raises:
        BackupInvalid, AgeInvalid, LogInvalid: it does not hold, or the folder is not empty.
        OpenBaoError, VaultDown: OpenBao does not start, or not with this seal key.
        OSError, BaseError: it cannot be read, or the disk does not take it.
    """
    _need_empty(order.into)
    if not order.audit_only and len(order.seal_key) != _SEAL_KEY_BYTES:
        msg = "OpenBao's seal key is wanted: 32 bytes, exported when it was made"
        raise BackupInvalid(msg)
    with staging(order.into.parent, RESTORING) as work:
        restored = await asyncio.to_thread(_checked, order, work)
        if not order.audit_only:
            await _openbao(work / "openbao", order.seal_key)
        await asyncio.to_thread(_take_over, order, work, restored)
    return restored


def _need_empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        msg = "the target is not empty: move away what is there, it may be evidence"
        raise BackupInvalid(msg)


def _checked(order: RestoreOrder, work: Path) -> Restored:
    files, size = unpacked(order.pieces, order.opener, work)
    about = read_about(work)
    checked = checked_log(work / "audit" / "log", order.vkey or about["vkey"], about)
    return Restored(made=str(about["made"]), size=checked[0], files=files, bytes=size)


async def _openbao(folder: Path, seal_key: bytes) -> None:
    write_private(folder / "seal.key", seal_key)
    snapshot = folder / "raft.snap"
    await restore_snapshot(folder, snapshot)
    snapshot.unlink()


def _take_over(order: RestoreOrder, work: Path, restored: Restored) -> None:
    """Let the log say what happened to it, and give the folder its name."""
    detail = {"made": restored.made, "size": str(restored.size), "files": str(restored.files)}
    leave(work / "audit", "backup.restore", detail)
    (work / ABOUT).unlink()
    whole = work / "audit" if order.audit_only else work
    os.sync()
    if order.into.exists():
        order.into.rmdir()
    whole.rename(order.into)
    fsync_folder(order.into.parent)
