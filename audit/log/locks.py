"""Where the newest checkpoint is kept apart from the log's own disk.

The lock is what notices that the log's disk was put back to an older state: its checkpoint would
then be behind the lock's, and signing another tree of the same size would fork the log. So it must
live elsewhere: in OpenBao's KV (`VaultLock`), or, for tests and for logs without OpenBao, in an
SQLite file on another volume (`SqliteLock`). tests/audit/test_locks.py runs one contract over both.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meshkit.contract import Reason, Refusal
from meshkit.vault import CasConflict, VaultDown

if TYPE_CHECKING:
    from pathlib import Path

    from meshkit.vault import Vault

__all__ = ["CheckpointLock", "LockConflict", "Locked", "SqliteLock", "VaultLock"]


@dataclass(frozen=True, slots=True)
class Locked:
    """The checkpoint held, and the token that replacing it must name."""

    note: str
    version: int


class LockConflict(Refusal):
    """Somebody else replaced the checkpoint: EVIDENCE_LOST. Never retried."""

    def __init__(self) -> None:
        super().__init__(Reason.EVIDENCE_LOST)


class CheckpointLock(Protocol):
    """One checkpoint, replaced by compare-and-swap."""

    async def load(self) -> Locked | None:
        """Return what is held; None if nothing ever was.

        Raises:
            Refusal: KEYS_DOWN, if the lock cannot be asked.
        """
        ...

    async def replace(self, old: Locked | None, note: str) -> Locked:
        """Hold `note` if `old` is still what is held. It MUST be durable when this returns.

        Raises:
            LockConflict: something else is held.
            Refusal: KEYS_DOWN. The lock may or may not have taken the note: `load` tells.
        """
        ...


class VaultLock:
    """In OpenBao KV v2, by `options.cas`. The path is below the KV mount."""

    def __init__(self, vault: Vault, path: str) -> None:
        self._vault = vault
        self._path = path

    async def load(self) -> Locked | None:
        """See `CheckpointLock.load`."""
        held = await self._vault.kv_get(self._path)
        if held is None:
            return None
        if "checkpoint" not in held.data:
            raise VaultDown
        return Locked(held.data["checkpoint"], held.version)

    async def replace(self, old: Locked | None, note: str) -> Locked:
        """See `CheckpointLock.replace`."""
        try:
            version = await self._vault.kv_put(
                self._path, {"checkpoint": note}, cas=0 if old is None else old.version
            )
        except CasConflict:
            # A write repeated after a lost answer meets itself here.
            held = await self.load()
            if held is not None and held.note == note:
                return held
            raise LockConflict from None
        return Locked(note, version)


class SqliteLock:
    """In an SQLite file of its own, on another volume than the log."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> Locked | None:
        """See `CheckpointLock.load`."""
        return await asyncio.to_thread(self._load)

    async def replace(self, old: Locked | None, note: str) -> Locked:
        """See `CheckpointLock.replace`."""
        return await asyncio.to_thread(self._replace, 0 if old is None else old.version, note)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS checkpoint"
            " (one INTEGER PRIMARY KEY CHECK (one = 1), note TEXT NOT NULL, version INTEGER)"
        )
        return connection

    def _load(self) -> Locked | None:
        try:
            with closing(self._connect()) as connection:
                row = connection.execute("SELECT note, version FROM checkpoint").fetchone()
        except sqlite3.Error:
            raise Refusal(Reason.KEYS_DOWN) from None
        return None if row is None else Locked(row[0], row[1])

    def _replace(self, version: int, note: str) -> Locked:
        try:
            with closing(self._connect()) as connection:
                done = connection.execute(
                    "INSERT INTO checkpoint VALUES (1, ?1, 1) ON CONFLICT DO NOTHING"
                    if version == 0
                    else "UPDATE checkpoint SET note = ?1, version = version + 1"
                    " WHERE version = ?2",
                    (note,) if version == 0 else (note, version),
                )
        except sqlite3.Error:
            raise Refusal(Reason.KEYS_DOWN) from None
        if done.rowcount == 1:
            return Locked(note, version + 1)
        # Sent twice, as by a publisher that was cancelled between asking and being told.
        held = self._load()
        if held is not None and held.note == note:
            return held
        raise LockConflict
