"""What is kept of payloads, and the hand that takes of it: store, wrapped keys and keyring.

What retention and erasure ask, they ask here; what they erase is erased here, in this order:

    1  the wrapped data keys, durably       from here on the payloads are noise
    2  the same keys in memory
    3  the payloads themselves
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from audit.privacy.subjects import read_purpose
from audit.records.events import parse_leaf

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from audit.keys.pseudonyms import Pseudonyms
    from audit.log.parts import Parts
    from audit.privacy.payloads import Frame, Partition
    from audit.privacy.plans import Plan
    from audit.records.events import Leaf
    from meshkit.wrapped_keys import WrappedKey

__all__ = ["Estate", "HeldDataKeys", "KeptDataKeys"]


class KeptDataKeys(Protocol):
    """Where wrapped keys are kept; `meshkit.wrapped_keys.FolderWrappedKeys` is the real one."""

    async def tenants(self) -> list[str]:
        """Return whose keys are kept."""
        ...

    async def keys(self, tenant: str) -> list[WrappedKey]:
        """Return all keys of a tenant."""
        ...

    async def drop_keys(self, tenant: str, key_ids: Collection[bytes]) -> int:
        """Erase keys durably. Raises OSError."""
        ...


class HeldDataKeys(Protocol):
    """Who holds keys in memory; `meshkit.envelope.Keyring` is the real one."""

    async def forget(self, tenant: str, key_ids: Collection[bytes]) -> None:
        """Hold these no longer."""
        ...


class Estate:
    """The payloads of one log and their keys."""

    def __init__(self, parts: Parts, kept: KeptDataKeys, held: HeldDataKeys) -> None:
        self._parts = parts
        self._kept = kept
        self._held = held

    @property
    def pseudonyms(self) -> Pseudonyms:
        """Of this log."""
        return self._parts.pseudonyms

    async def tenants(self) -> dict[str, str]:
        """Return the tenants that have data keys, by pseudonym."""
        return {self.pseudonyms.tenant(each): each for each in await self._kept.tenants()}

    async def keys(self, tenant: str) -> list[WrappedKey]:
        """Return the data keys that a tenant's payloads are under."""
        return [key for key in await self._kept.keys(tenant) if read_purpose(key.purpose)]

    async def partitions(self) -> list[Partition]:
        """Return what partitions there are."""
        return await asyncio.to_thread(self._parts.payloads.partitions)

    async def frames(self, partition: Partition) -> list[Frame]:
        """Return what a partition holds, all that is durable."""
        store = self._parts.payloads
        return await self._parts.mover.alone(lambda: list(store.frames(partition)))

    async def settled(self) -> None:
        """Have all that is durable moved out of the write-ahead log into the store.

        Raises:
            OSError, sqlite3.Error: the disk fails; ask again.
        """
        await self._parts.mover.catch_up()

    async def leaves(self, numbers: Sequence[int]) -> list[Leaf]:
        """Return entries of the log, parsed."""
        return await asyncio.to_thread(
            lambda: [parse_leaf(self._parts.leaf(number)) for number in numbers]
        )

    async def take(self, plan: Plan) -> None:
        """Erase what a plan says. May be repeated.

        Raises:
            OSError: not all of it is gone; do it again.
        """
        if plan.key_ids:
            await self._kept.drop_keys(plan.tenant, plan.key_ids)
            await self._held.forget(plan.tenant, plan.key_ids)
        await self._parts.mover.taking_away(lambda: self._take_payloads(plan))

    def _take_payloads(self, plan: Plan) -> None:
        if plan.partition is not None:
            self._parts.payloads.drop(plan.partition)
        if plan.places:
            self._parts.payloads.blank(plan.places)
