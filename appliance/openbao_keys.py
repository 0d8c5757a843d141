"""Tenants' keys in OpenBao's transit: their versions, and the end of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.vault import VaultRejected
from meshkit.wrapped_keys import kek_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshkit.vault import Vault

__all__ = ["KeyFacts", "TenantKeys"]

_PREFIX = "t-"
_NO_SUCH_PATH = frozenset({404, 405})


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What OpenBao says of a tenant's key."""

    latest: int
    versions: Mapping[int, int]
    """When each that is left was made, in seconds since 1970."""
    min_decryption: int
    soft_deleted: bool

    @property
    def made_s(self) -> int:
        """When the newest version was made, in seconds since 1970."""
        return self.versions.get(self.latest, 0)


@dataclass(frozen=True, slots=True)
class TenantKeys:
    """One login's hand on tenants' keys. Every method raises VaultDown.

    The operator may look and rotate; the rest is the keyholder's.
    """

    keys: Vault

    async def tenants(self) -> list[str]:
        """List whose keys there are."""
        answer = await self.keys.ask("LIST", "transit/keys", maybe=True)
        names = (str(name) for name in answer.data.get("keys", ()))
        return sorted(name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX))

    async def facts(self, tenant: str) -> KeyFacts | None:
        """Look at a tenant's key; None if there is none."""
        answer = await self.keys.ask("GET", _path(tenant), maybe=True)
        if not answer.data:
            return None
        return KeyFacts(
            latest=int(answer.need("latest_version")),
            versions={int(version): int(made) for version, made in answer.need("keys").items()},
            min_decryption=int(answer.need("min_decryption_version")),
            soft_deleted=bool(answer.data.get("soft_deleted")),
        )

    async def rotate(self, tenant: str) -> int:
        """Add a version; new data keys are wrapped by it. Return its number."""
        await self.keys.ask("POST", f"{_path(tenant)}/rotate", {})
        facts = await self.facts(tenant)
        assert facts is not None  # it was rotated just now
        return facts.latest

    async def trim(self, tenant: str, version: int) -> None:
        """Forget all versions before this one, for ever. hvac refuses the first request."""
        least = {"min_decryption_version": version, "min_encryption_version": version}
        await self.keys.ask("POST", f"{_path(tenant)}/config", least)
        await self.keys.ask("POST", f"{_path(tenant)}/trim", {"min_available_version": version})

    async def soft_delete(self, tenant: str) -> bool:
        """Let the key be of no use until it is restored; False where that is not known (Vault)."""
        try:
            await self.keys.ask("DELETE", f"{_path(tenant)}/soft-delete")
        except VaultRejected as refused:
            if refused.status in _NO_SUCH_PATH:
                return False
            raise
        return True

    async def restore(self, tenant: str) -> None:
        """Undo `soft_delete`."""
        await self.keys.ask("POST", f"{_path(tenant)}/soft-delete-restore", {})

    async def destroy(self, tenant: str) -> None:
        """Delete the key. Only a snapshot of OpenBao can bring it back."""
        await self.keys.ask("POST", f"{_path(tenant)}/config", {"deletion_allowed": True})
        await self.keys.ask("DELETE", _path(tenant))


def _path(tenant: str) -> str:
    return f"transit/keys/{kek_of(tenant)}"
