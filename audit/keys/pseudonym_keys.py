"""Tenants' pseudonym keys: made, held, rotated and erased.

    <folder>/<tenant>/<day>/<key id>.json   wrapped by the tenant's key in OpenBao, as data keys are
    <folder>/<tenant>/newest                the id of the one in use

A key is used for `life_days` and then followed by the next; `sealgate keys rotate --pseudonyms`
does so at once (`audit.keys.orders`). Keys in memory serve as long as data keys serve to seal: 5
minutes, 15 while OpenBao is away (`meshkit.envelope`). The pointer is read again every `look_s`.

A tenant whose key in OpenBao is gone gets names under a key that is never kept, so that refusals of
its calls are still recorded: nobody can link them to anything, nor to those of another run.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from audit.keys.pseudonyms import NamingKey
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted
from meshkit.envelope import KeyringSettings, SealBroken, keyring
from meshkit.files import read_or_none, write_private
from meshkit.held_keys import DAY_S
from meshkit.sealing import KEY_BYTES, KEY_ID_BYTES, day_of
from meshkit.vault import VaultRejected
from meshkit.wrapped_keys import FolderWrappedKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from meshkit.envelope import Keyring, KeyService

__all__ = ["PURPOSE", "PseudonymKeys", "PseudonymStore", "pseudonym_keys"]

log = structlog.get_logger()

PURPOSE = "pseudonym"
_EPHEMERAL_MAX = 1_024


class PseudonymStore(FolderWrappedKeys):
    """Wrapped keys, and which is in use."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._root = folder

    async def pointed(self, tenant: str) -> bytes | None:
        """Return the id of the key in use; None if there is none, or the pointer is damaged."""
        raw = await asyncio.to_thread(read_or_none, self._pointer(tenant))
        try:
            key_id = bytes.fromhex((raw or b"").decode())
        except ValueError:
            return None
        return key_id if len(key_id) == KEY_ID_BYTES else None

    async def point(self, tenant: str, key_id: bytes) -> None:
        """Let a key that is kept be the one in use. Raises OSError."""
        await asyncio.to_thread(write_private, self._pointer(tenant), key_id.hex().encode())

    def _pointer(self, tenant: str) -> Path:
        return self._root / tenant / "newest"


@dataclass(slots=True)
class _InUse:
    key_id: bytes
    looked_s: float


class PseudonymKeys:
    """Implements `audit.keys.pseudonyms.NamingKeys`. Made by `pseudonym_keys`.

    ring, store: what holds and keeps them, for orders about all keys of a tenant.
    """

    def __init__(
        self, ring: Keyring, store: PseudonymStore, *, life_days: int, look_s: float
    ) -> None:
        self.ring = ring
        self.store = store
        self._life_days = life_days
        self._look_s = look_s
        self._in_use: dict[str, _InUse] = {}
        self._ephemeral: dict[str, NamingKey] = {}
        self._turn = asyncio.Lock()

    def at_hand(self, tenant: str) -> NamingKey | None:
        """See `NamingKeys`."""
        used = self._in_use.get(tenant)
        if used is None or time.monotonic() - used.looked_s >= self._look_s:
            return None
        return self._held(tenant, used.key_id)

    async def newest(self, tenant: str) -> NamingKey:
        """See `NamingKeys`; one is made for a tenant's first event, and when the last is too old.

        Raises:
            Refusal: KEYS_DOWN.
        """
        try:
            return await self._newest(tenant)
        except VaultRejected as refused:
            if refused.forbidden:  # our own token is no good: that says nothing of the tenant
                raise
        except OSError:
            raise Refusal(Reason.KEYS_DOWN) from None
        return self._unkept(tenant)

    async def _newest(self, tenant: str) -> NamingKey:
        key_id = await self._current(tenant)
        try:
            return self._held(tenant, key_id) or await self._borrowed(tenant, key_id)
        except SealBroken:  # erased meanwhile, or OpenBao opens it no more
            async with self._turn:
                key_id = await self._begin(tenant)
            return await self._borrowed(tenant, key_id)

    async def under(self, tenant: str, key_id: str) -> NamingKey | None:
        """See `NamingKeys`."""
        known = self._ephemeral.get(tenant)
        if known is not None and known.key_id == key_id:
            return known
        try:
            return await self._borrowed(tenant, bytes.fromhex(key_id))
        except SealBroken:
            return None
        except OSError:
            raise Refusal(Reason.KEYS_DOWN) from None

    async def every(self, tenant: str) -> list[NamingKey]:
        """See `NamingKeys`. A kept key that does not open is KEYS_DOWN, too: it was not erased."""
        found = []
        for kept in await self.store.keys(tenant):
            key = await self.under(tenant, kept.key_id.hex())
            if key is not None:
                found.append(key)
            elif await self.store.get(tenant, kept.key_id) is not None:
                raise Refusal(Reason.KEYS_DOWN)
        return found

    async def rotate(self, tenant: str) -> str:
        """Begin a new key at once; return its id. Raises Refusal (KEYS_DOWN), OSError."""
        async with self._turn:
            return (await self._begin(tenant)).hex()

    async def erase(self, tenant: str, *, before_day: int | None = None) -> int:
        """Make a tenant's pseudonyms unlinkable for ever; return how many keys went.

        Args:
            tenant: Whose.
            before_day: Only keys made before this day (days since 1970, UTC); by default all.

        Raises:
            OSError: some may still be kept; do it again.
        """
        count = 0
        async with self._turn:
            days = {key.day for key in await self.store.keys(tenant)}
            for day in sorted(days):
                if before_day is None or day < before_day:
                    count += await self.ring.erase(tenant, day)
            self._in_use.pop(tenant, None)
            self._ephemeral.pop(tenant, None)
        return count

    async def _current(self, tenant: str) -> bytes:
        used = self._in_use.get(tenant)
        if used is not None and time.monotonic() - used.looked_s < self._look_s:
            return used.key_id
        async with self._turn:  # two first calls of a tenant make one key
            key_id = await self.store.pointed(tenant)
            if key_id is None or await self._is_over(tenant, key_id):
                return await self._begin(tenant)
            self._use(tenant, key_id)
            return key_id

    async def _is_over(self, tenant: str, key_id: bytes) -> bool:
        if int(time.time() // DAY_S) - day_of(key_id) >= self._life_days:
            return True
        return await self.store.get(tenant, key_id) is None

    async def _begin(self, tenant: str) -> bytes:
        key_id = await self.ring.add(tenant, PURPOSE, int(time.time() // DAY_S))
        await self.store.point(tenant, key_id)
        self._use(tenant, key_id)
        counted("audit.pseudonym_key_made")
        return key_id

    def _use(self, tenant: str, key_id: bytes) -> None:
        self._in_use[tenant] = _InUse(key_id, time.monotonic())

    def _held(self, tenant: str, key_id: bytes) -> NamingKey | None:
        secret = self.ring.try_borrow(tenant, PURPOSE, key_id)
        return None if secret is None else NamingKey(key_id.hex(), secret)

    async def _borrowed(self, tenant: str, key_id: bytes) -> NamingKey:
        return NamingKey(key_id.hex(), await self.ring.borrow(tenant, PURPOSE, key_id))

    def _unkept(self, tenant: str) -> NamingKey:
        key = self._ephemeral.get(tenant)
        if key is None:
            counted("audit.pseudonym_key_unkept")
            log.warning("audit.pseudonym_key_unkept")
            key = NamingKey(os.urandom(KEY_ID_BYTES).hex(), os.urandom(KEY_BYTES))
            self._ephemeral[tenant] = key
            while len(self._ephemeral) > _EPHEMERAL_MAX:
                del self._ephemeral[next(iter(self._ephemeral))]
        return key


@asynccontextmanager
async def pseudonym_keys(
    service: KeyService,
    folder: Path,
    *,
    life_days: int,
    look_s: float = 5.0,
    settings: KeyringSettings | None = None,
) -> AsyncIterator[PseudonymKeys]:
    """Hold tenants' pseudonym keys while the block runs.

    Args:
        service: Wraps and unwraps them.
        folder: Where the wrapped ones are kept.
        life_days: So long a key is used for new events.
        look_s: How often another's rotation is looked for.
        settings: How long a key serves without OpenBao confirming it.
    """
    store = PseudonymStore(folder)
    # A key is not of one day, so none is made ahead of midnight.
    rules = (settings or KeyringSettings()).model_copy(update={"ahead_s": 0.0})
    async with keyring(service, store, rules) as ring:
        yield PseudonymKeys(ring, store, life_days=life_days, look_s=look_s)
