"""The administrator's side of the Vault API: each method makes sure of one thing, again or anew."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from meshkit.vault import AppRole, Vault, VaultRejected, WrappedAppRole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Admin", "Issuer", "policy_text"]

_UPGRADE_TRIES = 50
_UPGRADE_WAIT_S = 0.1
"""A fresh KV mount is not ready at once; it took under 0.2 s where it was measured."""


def policy_text(name: str) -> str:
    """Return the HCL policy of a service, from the installed package."""
    return (files("appliance") / "openbao_policies" / f"{name}.hcl").read_text()


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA in OpenBao."""

    issuer_id: str
    name: str
    key_id: str
    default: bool
    """Whether it issues; one does."""


@dataclass(frozen=True, slots=True)
class Admin:
    """What preparing an OpenBao takes. Every method raises VaultDown."""

    keys: Vault

    async def mount(
        self,
        path: str,
        kind: str,
        options: Mapping[str, str] | None = None,
        *,
        max_lease_ttl_s: int | None = None,
    ) -> None:
        """Mount a secrets engine, unless something is mounted there."""
        mounts = (await self.keys.ask("GET", "sys/mounts")).data
        if f"{path}/" in mounts:
            return
        body: dict[str, Any] = {"type": kind, "options": dict(options or {})}
        if max_lease_ttl_s is not None:
            body["config"] = {"max_lease_ttl": f"{max_lease_ttl_s}s"}
        await self.keys.ask("POST", f"sys/mounts/{path}", body)

    async def enable_auth(self, kind: str) -> None:
        """Mount a login method under its own name, unless it is there."""
        if f"{kind}/" not in (await self.keys.ask("GET", "sys/auth")).data:
            await self.keys.ask("POST", f"sys/auth/{kind}", {"type": kind})

    async def policy(self, name: str) -> None:
        """Write the policy that came with this release."""
        await self.keys.ask("POST", f"sys/policies/acl/{name}", {"policy": policy_text(name)})

    async def disable_upsert(self) -> None:
        """Let no encryption make a key on the way."""
        await self.keys.ask("POST", "transit/config/keys", {"disable_upsert": True})

    # --- logins -----------------------------------------------------------------------------

    async def login_role(
        self, name: str, *, ttl_s: int, max_ttl_s: int, ranges: Sequence[str]
    ) -> None:
        """Make an AppRole with the policy of the same name and nothing else."""
        body = {
            "token_policies": [name],
            "token_no_default_policy": True,
            "token_ttl": ttl_s,
            "token_max_ttl": max_ttl_s,
            "token_bound_cidrs": list(ranges),
            "secret_id_bound_cidrs": list(ranges),
            # It must serve again at each max_ttl; it ends when the next start forgets it.
            "secret_id_num_uses": 0,
            "secret_id_ttl": 0,
        }
        await self.keys.ask("POST", f"auth/approle/role/{name}", body)

    async def login(self, name: str) -> AppRole:
        """Make a login, in plain sight."""
        role_id = await self._role_id(name)
        made = await self.keys.ask("POST", f"auth/approle/role/{name}/secret-id", {})
        return AppRole(role_id, str(made.need("secret_id")))

    async def wrapped_login(self, name: str, ttl_s: int) -> WrappedAppRole:
        """Make a login that only the first to unwrap it can use."""
        role_id = await self._role_id(name)
        path = f"auth/approle/role/{name}/secret-id"
        made = await self.keys.ask("POST", path, {}, wrap_ttl_s=ttl_s)
        return WrappedAppRole(role_id, str(made.body["wrap_info"]["token"]), path)

    async def _role_id(self, name: str) -> str:
        answer = await self.keys.ask("GET", f"auth/approle/role/{name}/role-id")
        return str(answer.need("role_id"))

    async def secret_id_accessors(self, name: str) -> list[str]:
        """List the handles of the secret ids that a role has."""
        path = f"auth/approle/role/{name}/secret-id"
        answer = await self.keys.ask("LIST", path, maybe=True)
        return [str(accessor) for accessor in answer.data.get("keys", ())]

    async def destroy_secret_ids(self, name: str, accessors: Sequence[str]) -> None:
        """End logins by their handles."""
        path = f"auth/approle/role/{name}/secret-id-accessor/destroy"
        for accessor in accessors:
            await self.keys.ask("POST", path, {"secret_id_accessor": accessor})

    async def forget_secret_ids(self, name: str) -> None:
        """End every login of a role."""
        await self.destroy_secret_ids(name, await self.secret_id_accessors(name))

    # --- secrets ----------------------------------------------------------------------------

    async def secret_version(self, path: str) -> int:
        """Return the newest version of a secret, without reading it; 0 where there is none."""
        for _ in range(_UPGRADE_TRIES):
            try:
                answer = await self.keys.ask("GET", f"kv/metadata/{path}", maybe=True)
            except VaultRejected as refused:
                if not refused.unready:
                    raise
                await asyncio.sleep(_UPGRADE_WAIT_S)
            else:
                return int(answer.data.get("current_version", 0))
        raise VaultRejected(400, unready=True)

    async def require_cas(self, path: str) -> None:
        """Refuse every write to a secret that does not name the version it replaces."""
        await self.keys.ask("POST", f"kv/metadata/{path}", {"cas_required": True})

    # --- certificates -----------------------------------------------------------------------

    async def root_certificate(self, trust_domain: str, ttl_s: int) -> None:
        """Make the CA, ECDSA P-256, unless there is one; its key never leaves OpenBao."""
        if not await self.issuers():
            await self.add_root(trust_domain, ttl_s, name="root")

    async def issuers(self) -> list[Issuer]:
        """List the CAs."""
        answer = await self.keys.ask("LIST", "pki/issuers", maybe=True)
        return [
            Issuer(key, about["issuer_name"], about["key_id"], bool(about["is_default"]))
            for key, about in (answer.data.get("key_info") or {}).items()
        ]

    async def add_root(self, trust_domain: str, ttl_s: int, *, name: str) -> None:
        """Make one more CA. All trust it from their next renewal on; the default issues on."""
        body = {
            "common_name": f"Sealgate CA of {trust_domain}",
            "exclude_cn_from_sans": True,
            "key_type": "ec",
            "key_bits": 256,
            "ttl": f"{ttl_s}s",
            "max_path_length": 0,
            "issuer_name": name,
        }
        await self.keys.ask("POST", "pki/root/generate/internal", body)

    async def rename_issuer(self, issuer: str, name: str) -> None:
        """Give a CA another name."""
        await self.keys.ask("POST", f"pki/issuer/{issuer}", {"issuer_name": name})

    async def make_default_issuer(self, issuer: str) -> None:
        """Have every certificate from now on issued by this CA."""
        await self.keys.ask("POST", "pki/config/issuers", {"default": issuer})

    async def destroy_issuer(self, issuer: Issuer) -> None:
        """Forget a CA and its key. Whoever renews from now on trusts it no longer."""
        await self.keys.ask("DELETE", f"pki/issuer/{issuer.issuer_id}")
        await self.keys.ask("DELETE", f"pki/key/{issuer.key_id}")

    async def longest_certificate_s(self, otherwise_s: int) -> int:
        """Return the longest life that any role grants; of one without a limit, `otherwise_s`."""
        answer = await self.keys.ask("LIST", "pki/roles", maybe=True)
        lives = [0]
        for role in answer.data.get("keys", ()):
            about = await self.keys.ask("GET", f"pki/roles/{role}")
            lives.append(int(about.need("max_ttl")) or otherwise_s)
        return max(lives)

    async def certificate_role(
        self,
        name: str,
        spiffe_id: str,
        *,
        ttl_s: int,
        dns_names: Sequence[str] = (),
        ip_ranges: Sequence[str] = (),
    ) -> None:
        """Let certificates be issued for one exact SPIFFE id; servers' if names are given.

        Exact, since a pattern such as `…/tenant/a/*` also admits `…/tenant/a/../b/x`.
        """
        body = {
            "allowed_uri_sans": [spiffe_id],
            "allowed_domains": list(dns_names),
            "allow_bare_domains": bool(dns_names),
            "allow_localhost": False,
            "allow_ip_sans": bool(ip_ranges),
            "allowed_ip_sans_cidr": list(ip_ranges),
            "allow_wildcard_certificates": False,
            "require_cn": False,
            "server_flag": bool(dns_names),
            "client_flag": True,
            "key_type": "ec",
            "key_bits": 256,
            "ttl": ttl_s,
            "max_ttl": ttl_s,
            "no_store": True,
            "not_before_duration": "60s",
        }
        await self.keys.ask("POST", f"pki/roles/{name}", body)
