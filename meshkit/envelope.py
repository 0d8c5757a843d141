"""Data keys in the process, so that sealing a record costs microseconds and no request.

    OpenBao transit key  t-<tenant>                  never leaves OpenBao
     └ data key (tenant, purpose, UTC day)           wrapped there, bound to "v1|tenant|day|purpose"
        └ record key (salt)                          `meshkit.sealing`

    async with keyring(vault, FolderWrappedKeys(folder)) as keys:
        record = await keys.seal(tenant="acme", purpose="payload", plaintext=text, aad=event_id)
        text = await keys.open(tenant="acme", purpose="payload", sealed=record, aad=event_id)

How long a data key serves without OpenBao confirming it, which is also how long a revocation takes:

    up to 5 min       seals and opens; confirmed again at 4 min or a little before, if it was used
    up to 15 min      seals only, and only while OpenBao cannot be asked
    beyond            KEYS_DOWN

OpenBao saying no is not OpenBao being away: a key that it will not unwrap any more goes at once.
The next day's keys are made an hour ahead, so that midnight needs nobody. A wrapped key is kept
(`WrappedKeys.put`) before the first record is sealed under it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from hmac import compare_digest
from typing import TYPE_CHECKING, Protocol

import structlog

from meshkit.background import running
from meshkit.contract import Refusal
from meshkit.held_keys import Clock, Held, HeldKeys, KeyringSettings, Place, Slot
from meshkit.identity import is_label
from meshkit.sealing import (
    KEY_BYTES,
    Owner,
    SealBroken,
    key_id_of,
    new_key_id,
    open_record,
    seal_record,
)
from meshkit.vault import DataKey, VaultDown, VaultRejected
from meshkit.wrapped_keys import (
    FolderWrappedKeys,
    MemoryWrappedKeys,
    WrappedKey,
    WrappedKeys,
    binding,
    kek_of,
    wrapping_aad,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

__all__ = [
    "Clock",
    "FolderWrappedKeys",
    "KeyErased",
    "KeyService",
    "Keyring",
    "KeyringSettings",
    "MemoryWrappedKeys",
    "SealBroken",
    "WrappedKey",
    "WrappedKeys",
    "keyring",
]

log = structlog.get_logger()


class KeyService(Protocol):
    """The part of `Vault` that wraps and unwraps."""

    async def datakey(self, name: str, *, aad: bytes) -> DataKey:
        """Make a data key. Raises VaultDown."""
        ...

    async def decrypt(self, name: str, wrapped: str, *, aad: bytes) -> bytes:
        """Unwrap one. Raises VaultRejected if it is not ours, VaultDown."""
        ...


class KeyErased(SealBroken):
    """The wrapped key is not kept any more: the record is noise for ever, as erasing meant it."""


class Keyring:
    """Seals and opens records. Made by `keyring`; for one event loop."""

    def __init__(
        self, service: KeyService, store: WrappedKeys, settings: KeyringSettings, clock: Clock
    ) -> None:
        self._service = service
        self._store = store
        self._settings = settings
        self._clock = clock
        self._held = HeldKeys(settings, clock)
        self._flights: dict[Slot | Place, asyncio.Task[Held]] = {}
        self._away_until_s = float("-inf")

    # --- what callers use -------------------------------------------------------------------

    async def seal(self, *, tenant: str, purpose: str, plaintext: bytes, aad: bytes) -> bytes:
        """Seal; `meshkit.sealing` has the format.

        Raises:
            VaultDown: KEYS_DOWN, there is no key that may be used and none can be had.
            OSError: a new key cannot be kept.
            ValueError: tenant or purpose is no lower-case DNS label.
        """
        sealed = self.try_seal(tenant=tenant, purpose=purpose, plaintext=plaintext, aad=aad)
        if sealed is not None:
            return sealed
        held = await self._key_to_seal((_label(tenant), _label(purpose), self._clock.today()))
        return self._seal_under(held, plaintext, aad)

    async def open(self, *, tenant: str, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            SealBroken: it is not what was sealed for this tenant, purpose and aad.
            KeyErased: its key was erased.
            VaultDown: KEYS_DOWN, its key is not held and cannot be had.
            OSError: the wrapped key cannot be read.
            ValueError: tenant or purpose is no lower-case DNS label.
        """
        opened = self.try_open(tenant=tenant, purpose=purpose, sealed=sealed, aad=aad)
        if opened is not None:
            return opened
        held = await self._key_to_open((_label(tenant), _label(purpose), key_id_of(sealed)))
        return open_record(held.plaintext, Owner(tenant, purpose), sealed, aad)

    def try_seal(self, *, tenant: str, purpose: str, plaintext: bytes, aad: bytes) -> bytes | None:
        """Seal if today's key is at hand; None if `seal` must be awaited."""
        held = self._held.sealing((tenant, purpose, self._clock.today()))
        if held is None or not self._held.may_seal(held):
            return None
        return self._seal_under(held, plaintext, aad)

    def try_open(self, *, tenant: str, purpose: str, sealed: bytes, aad: bytes) -> bytes | None:
        """Open if the key is at hand; None if `open` must be awaited. Raises SealBroken."""
        held = self._held.at((tenant, purpose, key_id_of(sealed)))
        if held is None or not self._held.may_open(held):
            return None
        self._held.touch(held)
        return open_record(held.plaintext, Owner(tenant, purpose), sealed, aad)

    async def ask_anew(self, tenant: str) -> None:
        """Ask OpenBao at once for whatever is held of a tenant, after its key was taken away there.

        What is not kept any more, or OpenBao refuses, goes; and so does what cannot be asked about:
        the end of a key must not wait until OpenBao is back.
        """
        for held in self._held.of(tenant):
            try:
                await self._confirm(held)
            except (Refusal, OSError):
                self._drop(held)

    def held(self) -> dict[str, int]:
        """Return how many keys are held, by tenant."""
        return self._held.counts()

    async def erase_all(self, tenant: str) -> int:
        """Drop all keys of a tenant that are kept in a folder: see `erase`. Raises OSError."""
        assert isinstance(self._store, FolderWrappedKeys)
        days = {key.day for key in await self._store.keys(tenant)}
        return sum([await self.erase(tenant, day) for day in sorted(days)])

    async def erase(self, tenant: str, day: int) -> int:
        """Drop a tenant's keys of a day, here and where they are kept; return how many went.

        What was sealed under them can never be opened again by this process or a later one;
        another process that holds such a key in memory loses it within `fresh_s`.

        Raises:
            OSError: they may still be kept; do it again.
        """
        self._held.forget(lambda key: key.tenant == tenant and key.day == day)
        count = await self._store.drop(tenant, day)
        # A key that was on its way before the drop must not outlive it.
        under_way = [task for at, task in self._flights.items() if at[0] == tenant]
        await asyncio.gather(*under_way, return_exceptions=True)
        self._held.forget(lambda key: key.tenant == tenant and key.day == day)
        return count

    async def forget(self, tenant: str, key_ids: Collection[bytes]) -> None:
        """Hold these keys no longer, now that they are not kept any more.

        To be called once their wrapped keys are dropped: what is on its way then still comes, and
        is let go of here.
        """
        gone = frozenset(key_ids)
        self._held.forget(lambda key: key.tenant == tenant and key.key_id in gone)
        under_way = [task for at, task in self._flights.items() if at[0] == tenant]
        await asyncio.gather(*under_way, return_exceptions=True)
        self._held.forget(lambda key: key.tenant == tenant and key.key_id in gone)

    def try_borrow(self, tenant: str, purpose: str, key_id: bytes) -> bytes | None:
        """Return a key itself, to derive from, if it is at hand; None if `borrow` must be awaited.

        By the rule of sealing: fresh, or stale while OpenBao is away. Use it now, keep it nowhere.
        """
        held = self._held.at((tenant, purpose, key_id))
        if held is None or not self._held.may_seal(held):
            return None
        self._held.touch(held)
        return held.plaintext

    async def borrow(self, tenant: str, purpose: str, key_id: bytes) -> bytes:
        """Return a key itself: see `try_borrow`. Raises as `open` does."""
        place = (_label(tenant), _label(purpose), key_id)
        held = self._held.at(place)
        if held is None:
            held = await self._once(place, lambda: self._fetch(place))
        else:
            try:
                await self._confirm(held)
            except VaultDown:
                if not self._held.may_seal(held):
                    raise
        self._held.touch(held)
        return held.plaintext

    async def add(self, tenant: str, purpose: str, day: int) -> bytes:
        """Make one more key, kept and held; return its id. Raises as `seal` does."""
        slot = (_label(tenant), _label(purpose), day)
        return (await self._once(slot, lambda: self._make(slot))).wrapped.key_id

    def _drop(self, held: Held) -> None:
        self._held.forget(lambda key: key is held.wrapped)

    def _seal_under(self, held: Held, plaintext: bytes, aad: bytes) -> bytes:
        self._held.count(held, len(plaintext))
        key = held.wrapped
        owner = Owner(key.tenant, key.purpose)
        return seal_record(held.plaintext, key.key_id, owner, plaintext, aad)

    # --- keys -------------------------------------------------------------------------------

    async def _key_to_seal(self, slot: Slot) -> Held:
        held = self._held.sealing(slot)
        if held is None or self._held.is_full(held):
            return await self._once(slot, lambda: self._make(slot))
        try:
            return await self._confirm(held)
        except SealBroken:
            return await self._once(slot, lambda: self._make(slot))
        except VaultDown:
            if self._held.may_seal(held):
                return held
            raise

    async def _key_to_open(self, place: Place) -> Held:
        held = self._held.at(place)
        if held is not None:
            return await self._confirm(held)
        return await self._once(place, lambda: self._fetch(place))

    async def _confirm(self, held: Held) -> Held:
        try:
            return await self._once(held.place, lambda: self._refresh(held))
        except VaultRejected:
            held.away = False
            raise
        except VaultDown:
            held.away = True
            raise

    async def _once(self, at: Slot | Place, work: Callable[[], Awaitable[Held]]) -> Held:
        """Do `work` once for all who ask meanwhile; a caller who goes away does not stop it."""
        task = self._flights.get(at)
        if task is None:
            if self._clock.steady_s() < self._away_until_s:
                raise VaultDown
            task = asyncio.create_task(self._watched(work))
            self._flights[at] = task
            task.add_done_callback(lambda done: self._landed(at, done))
        return await asyncio.shield(task)

    async def _watched(self, work: Callable[[], Awaitable[Held]]) -> Held:
        try:
            return await work()
        except VaultRejected:
            raise
        except VaultDown:
            self._away_until_s = self._clock.steady_s() + self._settings.hold_off_s
            raise

    def _landed(self, at: Slot | Place, task: asyncio.Task[Held]) -> None:
        self._flights.pop(at, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; perhaps nobody did

    async def _make(self, slot: Slot) -> Held:
        tenant, purpose, day = slot
        made = await self._service.datakey(kek_of(tenant), aad=binding(tenant, purpose, day))
        wrapped = WrappedKey(new_key_id(day), tenant, purpose, made.wrapped)
        await self._store.put(wrapped)
        held = self._held.hold(wrapped, made.plaintext)
        self._held.seal_with(held)
        return held

    async def _fetch(self, place: Place) -> Held:
        wrapped = await self._stored(place)
        return self._held.hold(wrapped, await self._unwrap(wrapped))

    async def _refresh(self, held: Held) -> Held:
        try:
            plaintext = await self._unwrap(await self._stored(held.place))
            _must_be_equal(plaintext, held.plaintext)
        except SealBroken:
            self._drop(held)
            raise
        self._held.confirm(held)
        return held

    async def _stored(self, place: Place) -> WrappedKey:
        tenant, purpose, key_id = place
        wrapped = await self._store.get(tenant, key_id)
        if wrapped is None:
            raise KeyErased
        if wrapped.purpose != purpose:
            raise SealBroken
        return wrapped

    async def _unwrap(self, key: WrappedKey) -> bytes:
        aad = wrapping_aad(key)
        try:
            plaintext = await self._service.decrypt(kek_of(key.tenant), key.wrapped, aad=aad)
        except VaultRejected as refused:
            if refused.forbidden:
                raise
            log.warning("keyring.key_refused", status=refused.status)
            raise SealBroken from None
        if len(plaintext) != KEY_BYTES:
            raise SealBroken
        return plaintext

    # --- ahead of need ----------------------------------------------------------------------

    async def maintain(self) -> None:
        """Confirm what was used and is due, make tomorrow's keys, drop what is over.

        Runs every `tick_s`. Failures are for those who need a key, not for here.
        """
        for held in self._held.due():
            with suppress(Refusal, OSError):
                await self._confirm(held)
        for slot in self._held.lacking_tomorrow():
            with suppress(Refusal, OSError):
                await self._once(slot, partial(self._make, slot))
        self._held.drop_over()

    async def run(self) -> None:
        """Maintain for ever. Run by `keyring`."""
        while True:
            await asyncio.sleep(self._settings.tick_s)
            await self.maintain()

    async def aclose(self) -> None:
        """Stop what is under way and forget every key."""
        under_way = list(self._flights.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        self._held.forget(lambda _: True)


def _must_be_equal(plaintext: bytes, held: bytes) -> None:
    if not compare_digest(plaintext, held):
        raise SealBroken


def _label(name: str) -> str:
    if not is_label(name):
        msg = "tenant and purpose must be lower-case DNS labels"
        raise ValueError(msg)
    return name


@asynccontextmanager
async def keyring(
    service: KeyService,
    store: WrappedKeys,
    settings: KeyringSettings | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Keyring]:
    """Hold data keys while the block runs; they are forgotten at the end."""
    held = Keyring(service, store, settings or KeyringSettings(), clock or Clock())
    try:
        async with running(held.run(), "keyring-upkeep"):
            yield held
    finally:
        await held.aclose()
