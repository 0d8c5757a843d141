"""What people do to keys: rotate, rewrap, trim, destroy and restore, each recorded.

    async with operating(data) as care:
        await care.rotate("acme")           a new version of the tenant's key
        await care.rotate_checkpoint()      a new key for the log's checkpoints
        await care.rewrap("acme")           what older versions wrapped, under the newest
        await care.trim("acme", keyholder)  older versions gone for ever, once nothing is under them

An act stands in the log before it is done (outcome `begun`) and after (`ok`, or why not): if the
first note cannot be written, nothing is done. The operator's login looks and rotates; what takes a
key away needs the keyholder's (docs/adr/0009); what touches wrapped keys is ordered from the audit
service (`audit.keys.orders`), which may open them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.bootstrap import CHECKPOINT_KEY
from appliance.offboarding import Offboarding, Stage, read_stage, write_stage
from appliance.openbao_keys import KeyFacts, TenantKeys
from audit.keys.orders import order
from audit.keys.pseudonym_keys import PseudonymStore
from audit.privacy.holds import FOLDER as HOLDS
from audit.privacy.holds import held_tenants
from meshkit.contract import Refusal
from meshkit.held_keys import DAY_S
from meshkit.note_event import note_event
from meshkit.rewrap import Rewrapped, version_of
from meshkit.wrapped_keys import FolderWrappedKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from meshkit.contract import Appended, Event
    from meshkit.vault import KeyVersion, Vault

__all__ = ["KeyCare", "NotNowError", "TenantState"]


class NotNowError(Exception):
    """What was asked must not be done, or not yet; the text says why, and names nobody's data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantState:
    """A tenant's key, and what is wrapped by which version of it."""

    tenant: str
    key: KeyFacts | None
    wrapped: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Purpose to version to count, of what the audit service keeps."""
    stage: Offboarding | None = None

    def under_older(self) -> int:
        """Count what is wrapped by an older version than the newest."""
        latest = 0 if self.key is None else self.key.latest
        return sum(n for counts in self.wrapped.values() for v, n in counts.items() if v < latest)

    def due_days(self, life_days: float) -> float | None:
        """Return in how many days a rotation is due (below zero: overdue); None without a key."""
        if self.key is None:
            return None
        return life_days - (time.time() - self.key.made_s) / DAY_S


class KeyCare:
    """The operator's hand on keys. Every method raises Refusal: KEYS_DOWN or AUDIT_DOWN.

    Args:
        keys: OpenBao, logged in as the operator.
        audit_data: Folder of the audit service.
        append: Appends an event durably, and says that it is the operator's.
    """

    def __init__(
        self, keys: Vault, audit_data: Path, append: Callable[[Event], Awaitable[Appended]]
    ) -> None:
        self._keys = keys
        self._tenants = TenantKeys(keys)
        self._data = audit_data
        self._append = append

    # --- looking ----------------------------------------------------------------------------

    async def tenants(self) -> list[str]:
        """List the tenants that have a key."""
        return await self._tenants.tenants()

    async def state(self, tenant: str) -> TenantState:
        """Look at one."""
        stores = {
            "payload": FolderWrappedKeys(self._data / "keys"),
            "pseudonym": PseudonymStore(self._data / "pseudonyms"),
        }
        wrapped = {
            purpose: dict(Counter(version_of(key.wrapped) for key in await store.keys(tenant)))
            for purpose, store in stores.items()
        }
        return TenantState(
            tenant=tenant,
            key=await self._tenants.facts(tenant),
            wrapped=wrapped,
            stage=await read_stage(self._keys, tenant),
        )

    async def checkpoint_keys(self) -> dict[int, KeyVersion]:
        """Return the versions of the key that signs checkpoints."""
        return await self._keys.signing_keys(CHECKPOINT_KEY)

    async def held(self) -> dict[str, dict[str, int]]:
        """Ask the audit service how many keys it holds in memory, by purpose and tenant."""
        told: dict[str, dict[str, int]] = await order(self._data, "held", within_s=5.0)
        return told

    # --- what takes nothing away ------------------------------------------------------------

    async def rotate(self, tenant: str) -> int:
        """Add a version to a tenant's key and return its number. Raises NotNowError."""
        await self._must_live(tenant)
        async with self._recorded("key.rotate", tenant) as told:
            version = await self._tenants.rotate(tenant)
            told["version"] = str(version)
        return version

    async def rewrap(self, tenant: str) -> Rewrapped:
        """Bring what the audit service keeps under the newest version. Raises NotNowError."""
        key = await self._must_live(tenant)
        async with self._recorded("key.rewrap", tenant, version=str(key.latest)) as told:
            answer = await order(
                self._data, "rewrap", within_s=600.0, tenant=tenant, version=key.latest
            )
            told |= {"done": str(answer["done"]), "left": str(answer["left"])}
        return Rewrapped(answer["done"], answer["left"])

    async def rotate_pseudonyms(self, tenant: str) -> str:
        """Begin a new pseudonym key; return its id. Raises NotNowError."""
        await self._must_live(tenant)
        async with self._recorded("key.pseudonym", tenant, act="rotate") as told:
            answer = await order(self._data, "rotate-pseudonyms", tenant=tenant)
            told["key"] = answer["key_id"]
        return str(answer["key_id"])

    async def rotate_secret(self, name: str, rotate: Callable[[str], Awaitable[int]]) -> int:
        """Give a secret of all services a new version, recorded."""
        async with self._recorded("key.rotate", "", secret=name) as told:
            version = await rotate(name)
            told["version"] = str(version)
        return version

    async def rotate_checkpoint(self) -> int:
        """Give the log another key for its checkpoints; return its version.

        The audit service takes it up by itself, and signs with the one before as well for
        `AUDIT_CHECKPOINT_KEY_OVERLAP_DAYS`.
        """
        async with self._recorded("key.rotate", "", key=CHECKPOINT_KEY) as told:
            await self._keys.ask("POST", f"transit/keys/{CHECKPOINT_KEY}/rotate", {})
            version = max(await self.checkpoint_keys())
            told["version"] = str(version)
        return version

    # --- what does --------------------------------------------------------------------------

    async def trim(self, tenant: str, keyholder: Vault) -> int:
        """Forget older versions of a tenant's key for ever; return the one that is left.

        Raises:
            NotNowError: something is still under an older one: rewrap first.
        """
        state = await self.state(tenant)
        key = await self._must_live(tenant)
        if state.under_older():
            msg = f"{state.under_older()} keys are still under older versions: rewrap first"
            raise NotNowError(msg)
        async with self._recorded("key.trim", tenant, version=str(key.latest)):
            await TenantKeys(keyholder).trim(tenant, key.latest)
        return key.latest

    async def erase_pseudonyms(self, tenant: str, before_day: int | None) -> int:
        """Make a tenant's pseudonyms unlinkable for ever; return how many keys went."""
        before = "" if before_day is None else str(before_day)
        async with self._recorded("key.destroy", tenant, purpose="pseudonym", before=before) as t:
            answer = await order(
                self._data, "erase-pseudonyms", tenant=tenant, before_day=before_day
            )
            t["keys"] = str(answer["erased"])
        return int(answer["erased"])

    async def destroy(
        self, tenant: str, keyholder: Vault, *, grace_days: float, snapshot_days: float
    ) -> Offboarding:
        """Take the next step of a tenant's end; return where that leaves it.

        The first call lets the key be of no use, and begins the grace; one after its end deletes
        the key and all wrapped ones; one after the last snapshot that knows the key records that
        nothing can bring it back any more.

        Raises:
            NotNowError: the next step is not due yet, a legal hold stands against it, or there is
                nothing left to destroy.
        """
        now_s = time.time()
        stage = await read_stage(self._keys, tenant)
        if stage is None:
            return await self._offboard(tenant, keyholder, now_s + grace_days * DAY_S)
        if stage.stage is Stage.DONE:
            msg = "this tenant was destroyed, and nothing brings it back"
            raise NotNowError(msg)
        if now_s < stage.next_s:
            when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(stage.next_s))
            msg = f"the next step is not due before {when}"
            raise NotNowError(msg)
        if stage.stage is Stage.GRACE:
            return await self._delete(tenant, keyholder, now_s + snapshot_days * DAY_S)
        async with self._recorded("tenant.irrecoverable", tenant):
            return await write_stage(self._keys, tenant, Offboarding(Stage.DONE, now_s))

    async def restore(self, tenant: str, keyholder: Vault) -> None:
        """Undo the first step of a tenant's end, within the grace. Raises NotNowError."""
        stage = await read_stage(self._keys, tenant)
        if stage is None or stage.stage is not Stage.GRACE:
            msg = "this tenant is not within its grace"
            raise NotNowError(msg)
        async with self._recorded("tenant.offboard", tenant, act="restore"):
            await TenantKeys(keyholder).restore(tenant)
            await write_stage(self._keys, tenant, None)
            await order(self._data, "look", tenant=tenant)

    async def _offboard(self, tenant: str, keyholder: Vault, until_s: float) -> Offboarding:
        await self._must_live(tenant)
        async with self._recorded("tenant.offboard", tenant, until=str(int(until_s))):
            await self._must_not_be_held(tenant)
            if not await TenantKeys(keyholder).soft_delete(tenant) and until_s > time.time():
                msg = "this server knows no soft delete: only --grace-days 0 is possible"
                raise NotNowError(msg)
            stage = await write_stage(self._keys, tenant, Offboarding(Stage.GRACE, until_s))
            await order(self._data, "look", tenant=tenant)
        return stage

    async def _delete(self, tenant: str, keyholder: Vault, until_s: float) -> Offboarding:
        async with self._recorded("key.destroy", tenant, until=str(int(until_s))) as told:
            await self._must_not_be_held(tenant)
            # OpenBao first: then nothing that a backup of the wrapped keys brings back opens.
            if await self._tenants.facts(tenant) is not None:
                await TenantKeys(keyholder).destroy(tenant)
            answer = await order(self._data, "drop", tenant=tenant)
            told["keys"] = str(answer["dropped"])
            return await write_stage(self._keys, tenant, Offboarding(Stage.DELETED, until_s))

    # --- rules ------------------------------------------------------------------------------

    async def _must_live(self, tenant: str) -> KeyFacts:
        key = await self._tenants.facts(tenant)
        if key is None:
            msg = "there is no such tenant"
            raise NotNowError(msg)
        if key.soft_deleted:
            msg = "this tenant is being destroyed"
            raise NotNowError(msg)
        return key

    async def _must_not_be_held(self, tenant: str) -> None:
        if tenant in await asyncio.to_thread(held_tenants, self._data / HOLDS):
            msg = "a legal hold stands against it: let it be released first"
            raise NotNowError(msg)

    @asynccontextmanager
    async def _recorded(
        self, action: str, tenant: str, **detail: str
    ) -> AsyncIterator[dict[str, str]]:
        """Record an act before and after it; what the block puts into the dict is told after."""
        told: dict[str, str] = {}
        await self._note(action, tenant, "begun", detail)
        try:
            yield told
        except (Refusal, NotNowError, OSError, asyncio.CancelledError) as failure:
            outcome = failure.reason.name if isinstance(failure, Refusal) else "failed"
            with suppress(Refusal):  # the log then says that it was begun, and no more
                await self._note(action, tenant, outcome, detail | told)
            raise
        await self._note(action, tenant, "ok", detail | told)

    async def _note(
        self, action: str, tenant: str, outcome: str, detail: Mapping[str, str]
    ) -> None:
        await self._append(note_event(action, tenant=tenant, outcome=outcome, detail=detail))
