"""Where wrapped data keys are kept. Without its wrapped key a record is noise for ever.

So this is also where erasing happens: drop a day's wrapped keys, and what was sealed under them is
gone, as far as OpenBao's key and no backup of these files can bring them back together.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from meshkit.files import clear_unfinished, fsync_folder, read_or_none, write_private
from meshkit.identity import is_label
from meshkit.sealing import day_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

__all__ = ["FolderWrappedKeys", "MemoryWrappedKeys", "WrappedKey", "WrappedKeys"]
__all__ += ["DAY_S", "binding", "kek_of", "wrapping_aad"]

DAY_S = 86_400
_ENTRIES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key that only OpenBao can open, and what it was made for."""

    key_id: bytes
    tenant: str
    purpose: str
    wrapped: str

    @property
    def day(self) -> int:
        """Days since 1970-01-01 UTC."""
        return day_of(self.key_id)


def kek_of(tenant: str) -> str:
    """Return the name of a tenant's key in OpenBao's transit."""
    return f"t-{tenant}"


def wrapping_aad(key: WrappedKey) -> bytes:
    """Return what OpenBao binds a wrapped key to."""
    return binding(key.tenant, key.purpose, key.day)


def binding(tenant: str, purpose: str, day: int) -> bytes:
    """Return what a key made for this is bound to; `day` since 1970-01-01 UTC."""
    date = time.strftime("%Y-%m-%d", time.gmtime(day * DAY_S))
    return f"v1|{tenant}|{date}|{purpose}".encode()


class WrappedKeys(Protocol):
    """Keeps wrapped data keys."""

    async def put(self, key: WrappedKey) -> None:
        """Keep a key. MUST be as durable as the records under it before it returns.

        Raises:
            OSError: it is not kept.
        """
        ...

    async def get(self, tenant: str, key_id: bytes) -> WrappedKey | None:
        """Return a tenant's key; None if there is none (any more). Raises OSError."""
        ...

    async def drop(self, tenant: str, day: int) -> int:
        """Erase a tenant's keys of a day; return how many went. MUST be durable. Raises OSError."""
        ...


class MemoryWrappedKeys:
    """For records that die with the process: an L1 cache. Beyond `entries_max` the oldest go."""

    def __init__(self, entries_max: int = _ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._keys: dict[tuple[str, bytes], WrappedKey] = {}

    async def put(self, key: WrappedKey) -> None:
        """Keep a key for as long as the process lives."""
        self._keys[key.tenant, key.key_id] = key
        while len(self._keys) > self._entries_max:
            del self._keys[next(iter(self._keys))]

    async def get(self, tenant: str, key_id: bytes) -> WrappedKey | None:
        """Return a tenant's key, or None."""
        return self._keys.get((tenant, key_id))

    async def drop(self, tenant: str, day: int) -> int:
        """Forget a tenant's keys of a day."""
        gone = [at for at, key in self._keys.items() if at[0] == tenant and key.day == day]
        for at in gone:
            del self._keys[at]
        return len(gone)


class FolderWrappedKeys:
    """A file per key, `<folder>/<tenant>/<day>/<key id>.json`, fsynced with its folders.

    Tenants are DNS labels and the rest are numbers, so no name leads out of the folder. Several of
    these, also in several processes, may be over one folder: erasing and replacing exclude one
    another by a lock on the tenant's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, key: WrappedKey) -> None:
        """Keep a key: on stable storage when this returns."""
        await asyncio.to_thread(self._put, key)

    async def get(self, tenant: str, key_id: bytes) -> WrappedKey | None:
        """Read a tenant's key, or None; one whose file is damaged counts as none."""
        raw = await asyncio.to_thread(read_or_none, self._path(tenant, key_id))
        return None if raw is None else _parse(raw, tenant, key_id)

    async def drop(self, tenant: str, day: int) -> int:
        """Unlink a tenant's keys of a day, durably."""
        return await asyncio.to_thread(self._drop, tenant, day)

    async def drop_keys(self, tenant: str, key_ids: Collection[bytes]) -> int:
        """Unlink these keys of a tenant, durably; return how many were there. May be repeated."""
        return await asyncio.to_thread(self._drop_keys, tenant, key_ids)

    async def keys(self, tenant: str) -> list[WrappedKey]:
        """Return all keys of a tenant, oldest day first; damaged ones are left out."""
        return await asyncio.to_thread(self._keys, tenant)

    async def tenants(self) -> list[str]:
        """Return whose keys are kept, sorted."""
        return await asyncio.to_thread(self._tenants)

    async def replace(self, key: WrappedKey, wrapped: str) -> bool:
        """Let a key be wrapped otherwise; False, if it was erased meanwhile. Raises OSError."""
        return await asyncio.to_thread(self._replace, key, wrapped)

    def _keys(self, tenant: str) -> list[WrappedKey]:
        paths = sorted(self._tenant_folder(tenant).glob("*/*.json"))
        found = [_parse(path.read_bytes(), tenant, bytes.fromhex(path.stem)) for path in paths]
        return sorted((key for key in found if key is not None), key=lambda key: key.key_id)

    def _tenants(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted(one.name for one in self._folder.iterdir() if one.is_dir())

    def _replace(self, key: WrappedKey, wrapped: str) -> bool:
        with self._alone(key.tenant):  # or an erasure in between would be undone
            if not self._path(key.tenant, key.key_id).exists():
                return False
            self._write(replace(key, wrapped=wrapped))
        return True

    def _put(self, key: WrappedKey) -> None:
        _make_folder(self._tenant_folder(key.tenant), below=self._folder)
        with self._alone(key.tenant, fcntl.LOCK_SH):  # or its folder might go, as an empty one
            self._write(key)

    def _write(self, key: WrappedKey) -> None:
        path = self._path(key.tenant, key.key_id)
        _make_folder(path.parent, below=self._folder)
        content = {"version": 1, "purpose": key.purpose, "wrapped": key.wrapped}
        write_private(path, json.dumps(content).encode())

    def _drop(self, tenant: str, day: int) -> int:
        folder = self._tenant_folder(tenant) / str(day)
        with self._alone(tenant):
            if not folder.is_dir():
                return 0
            count = len(list(folder.glob("*.json")))
            # Also if there is none: a crash may have left a key beside its name.
            shutil.rmtree(folder)
            fsync_folder(folder.parent)
        return count

    def _drop_keys(self, tenant: str, key_ids: Collection[bytes]) -> int:
        with self._alone(tenant):
            return self._unlinked([self._path(tenant, key_id) for key_id in key_ids])

    def _unlinked(self, paths: Collection[Path]) -> int:
        count = 0
        for path in paths:
            with suppress(FileNotFoundError):
                path.unlink()
                count += 1
        for folder in {path.parent for path in paths}:
            if not folder.is_dir():
                continue
            clear_unfinished(folder, {path.name for path in paths})
            # Also where nothing was there: a try that was cut off may have unlinked it just now.
            fsync_folder(folder)
            with suppress(OSError):  # not empty
                folder.rmdir()
        return count

    @contextmanager
    def _alone(self, tenant: str, mode: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Keep other threads and processes from erasing or replacing a tenant's keys."""
        try:
            handle = os.open(self._tenant_folder(tenant), os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield
            return
        try:
            fcntl.flock(handle, mode)
            yield
        finally:
            os.close(handle)

    def _path(self, tenant: str, key_id: bytes) -> Path:
        return self._tenant_folder(tenant) / str(day_of(key_id)) / f"{key_id.hex()}.json"

    def _tenant_folder(self, tenant: str) -> Path:
        if not is_label(tenant):
            msg = "tenant must be a lower-case DNS label"
            raise ValueError(msg)
        return self._folder / tenant


def _parse(raw: bytes, tenant: str, key_id: bytes) -> WrappedKey | None:
    try:
        content = json.loads(raw)
        return WrappedKey(key_id, tenant, str(content["purpose"]), str(content["wrapped"]))
    except (ValueError, KeyError, TypeError):
        return None


def _make_folder(folder: Path, *, below: Path) -> None:
    """Make a folder and those above it, each durable in the one above."""
    if folder.is_dir():
        return
    if folder != below:
        _make_folder(folder.parent, below=below)
    folder.mkdir(mode=0o700, parents=folder == below, exist_ok=True)
    fsync_folder(folder.parent)
