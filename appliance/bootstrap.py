"""Prepares an OpenBao for Sealgate, as often as you like: what is there already stays.

    async with openbao(...) as bao, prepared(bao, BootstrapSettings()) as estate:
        logins = await estate.logins()              a login per service, response-wrapped
        await estate.issue_client("demo", "chat", folder)

Of the first start's root token: it makes the policies and the operator's login, and is revoked
before anything else happens. Afterwards `operator.json` (0600, beside the data) is how this module
comes back: an AppRole whose secret id is replaced at each start, bound to this host, and whose
policy can prepare everything but decrypt, sign or read nothing, and take no key away. That is the
keyholder's (`keyholder.json`, made with the root token), and models are signed and sealed by the
model administrator (`model-admin.json`, made so, too). `init.json` then holds the recovery key
alone, with which a new root token can be made: move all three off this host.

An OpenBao that somebody else runs is prepared by the same steps: `prepare` takes any `Vault`.
"""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from pydantic import BaseModel, ConfigDict, Field, field_validator

from appliance.offboarding import read_stage
from appliance.openbao import OpenBaoError
from appliance.openbao_admin import Admin
from meshkit.files import read_or_none, replace_together, write_private
from meshkit.identity import ServiceIdentity, TenantIdentity, is_label, is_trust_domain
from meshkit.tls import Tls
from meshkit.tls_renewal import Renewal, kept_renewed
from meshkit.vault import AppRole, Issued, StaticToken, Vault, VaultRejected, WrappedAppRole, vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from appliance.openbao import OpenBao
    from meshkit.vault import KeyType

__all__ = ["CHECKPOINT_KEY", "SERVICES", "BootstrapSettings", "Estate", "prepare", "prepared"]

log = structlog.get_logger()

SERVICES = ("gateway", "compliance", "cache", "inference", "audit")
OPERATOR = "operator"
KEYHOLDER = "keyholder"
MODEL_ADMIN = "model-admin"
ROOT_MADE = {
    KEYHOLDER: "This login destroys keys. Give it to another person, and take it off this host.",
    MODEL_ADMIN: "This login signs models. Give it to whoever vouches for them, off this host.",
}
"""Logins that the root token makes, so that no operator can; and what their files say."""
MODEL_KEYS: dict[str, KeyType] = {"model-signing": "ed25519", "model-storage": "aes256-gcm96"}
CHECKPOINT_KEY = "audit-checkpoint"
CHECKPOINT_LOCK = "audit/checkpoint-lock"
SECRETS = ("screening-mac", "cache-keys", "pseudonym-key", "token-keys")
"""Each is `{"key": base64 of 32 bytes}`; `Vault.secret` reads it with the version before."""

_KEY_BYTES = 32
_OPERATOR_TTL_S = 600


class BootstrapSettings(BaseModel):
    """For whom OpenBao is prepared, and how long what it gives lasts."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    trust_domain: str = Field(default="sealgate.local", description="Of every SPIFFE id.")
    tenants: tuple[str, ...] = Field(default=("demo",), description="Each gets a key of its own.")
    dns_names: tuple[str, ...] = Field(
        default=("localhost",), description="Exact names that services' certificates may bear."
    )
    ip_ranges: tuple[str, ...] = Field(
        default=("127.0.0.1/32",), description="Addresses that they may bear."
    )
    login_ranges: tuple[str, ...] = Field(
        default=("127.0.0.1/32",), description="Whence logins and tokens are good."
    )
    token_ttl_s: int = Field(default=3_600, gt=0, description="Renewed at two thirds.")
    token_max_ttl_s: int = Field(default=86_400, gt=0, description="Then services log in again.")
    wrap_ttl_s: int = Field(default=300, gt=0, description="To unwrap a login in.")
    service_certificate_ttl_s: int = Field(default=3_600, gt=0, description="Its only revocation.")
    client_certificate_ttl_s: int = Field(
        default=86_400, gt=0, description="Of tenants' workloads."
    )
    root_certificate_ttl_s: int = Field(default=10 * 365 * 86_400, gt=0, description="Of the CA.")

    @field_validator("trust_domain")
    @classmethod
    def well_formed(cls, value: str) -> str:
        """Refuse what no SPIFFE id could bear."""
        if not is_trust_domain(value):
            msg = "trust_domain must be lower-case DNS labels"
            raise ValueError(msg)
        return value

    @field_validator("tenants")
    @classmethod
    def labels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what no SPIFFE id could bear."""
        if not all(is_label(tenant) for tenant in value):
            msg = "each tenant must be one lower-case DNS label"
            raise ValueError(msg)
        return value


@dataclass(frozen=True, slots=True)
class Estate:
    """A prepared OpenBao, in the operator's hands."""

    keys: Vault
    admin: Admin
    settings: BootstrapSettings

    async def logins(self) -> dict[str, WrappedAppRole]:
        """Make a login per service; those of earlier starts stop working. Raises VaultDown."""
        logins = {}
        for name in SERVICES:
            await self.admin.forget_secret_ids(name)
            logins[name] = await self.login(name)
        return logins

    async def login(self, service: str) -> WrappedAppRole:
        """Make one more login of a service (a replica); it must be unwrapped in `wrap_ttl_s`."""
        return await self.admin.wrapped_login(service, self.settings.wrap_ttl_s)

    async def add_tenant(self, tenant: str) -> None:
        """Make the key that wraps a tenant's data keys. Raises ValueError, VaultDown."""
        _must_be_label(tenant)
        await self.keys.create_key(f"t-{tenant}", "aes256-gcm96")

    async def rotate_secret(self, name: str) -> int:
        """Give one of SECRETS a new version and return it; the one before is still accepted."""
        version = await self.admin.secret_version(name)
        return await self.keys.kv_put(name, _fresh_key(), cas=version)

    async def issue_client(self, tenant: str, workload: str, folder: Path) -> Tls:
        """Write `ca.pem`, `client.pem`, `client.key` (0600) for a tenant's workload.

        Raises:
            ValueError: a name is no lower-case DNS label.
            VaultDown: OpenBao cannot be asked.
            OSError: the files cannot be written.
        """
        return (await self._client(tenant, workload, folder))[0]

    @asynccontextmanager
    async def kept_client(
        self, tenant: str, workload: str, folder: Path, *, retry_s: float = 10.0
    ) -> AsyncIterator[Tls]:
        """Write the files as `issue_client`, anew at two thirds of each life of the certificate.

        With each come the roots of now. Raises as `issue_client`, of the first time; later
        failures are logged, counted and tried again, as `meshkit.tls_renewal` says.
        """
        files, ends_s = await self._client(tenant, workload, folder)

        async def renew() -> float:
            return (await self._client(tenant, workload, folder))[1]

        renewal = Renewal(f"tenant.{tenant}.{workload}", renew, ends_s, retry_s)
        async with kept_renewed(renewal):
            yield files

    async def _client(self, tenant: str, workload: str, folder: Path) -> tuple[Tls, float]:
        """Issue and write; return the files, and when the certificate is over."""
        _must_be_label(tenant)
        _must_be_label(workload)
        identity = TenantIdentity(self.settings.trust_domain, tenant, workload)
        # A dot cannot occur in a label, so no two workloads share a role.
        role = f"tenant.{tenant}.{workload}"
        ttl_s = self.settings.client_certificate_ttl_s
        await self.admin.certificate_role(role, identity.spiffe_id, ttl_s=ttl_s)
        issued = await self.keys.issue(role, uri_sans=(identity.spiffe_id,), ttl_s=ttl_s)
        return await self._written(issued, folder, "client"), issued.not_after_s

    async def _written(self, issued: Issued, folder: Path, name: str) -> Tls:
        return _write(issued, await self.keys.roots(), folder, name)

    async def issue_service(self, service: str, folder: Path) -> Tls:
        """Write `ca.pem`, `server.pem`, `server.key` (0600) for one of SERVICES. Raises as above.

        A service with a `Vault` of its own has no need of this: see `meshkit.tls_renewal`.
        """
        issued = await self.keys.issue(
            f"service.{service}",
            uri_sans=(ServiceIdentity(self.settings.trust_domain, service).spiffe_id,),
            dns_names=self.settings.dns_names,
            ip_addresses=("127.0.0.1",) if "127.0.0.1/32" in self.settings.ip_ranges else (),
            ttl_s=self.settings.service_certificate_ttl_s,
        )
        return await self._written(issued, folder, "server")


@asynccontextmanager
async def prepared(bao: OpenBao, settings: BootstrapSettings) -> AsyncIterator[Estate]:
    """Prepare the OpenBao beside us, and stay logged in as its operator while the block runs.

    Raises:
        OpenBaoError: the operator's login is lost.
        VaultDown: OpenBao cannot be asked.
    """
    await _from_root_to_operator(bao, settings)
    stored = read_or_none(bao.data / "operator.json")
    if stored is None:
        msg = (
            f"{bao.data / 'operator.json'} is missing: make a new root token with the recovery key"
        )
        raise OpenBaoError(msg)
    async with vault(bao.vault_settings(), AppRole(**json.loads(stored))) as keys:
        admin = Admin(keys)
        await prepare(keys, settings)
        await _write_operator(admin, bao.data)
        yield Estate(keys, admin, settings)


async def _from_root_to_operator(bao: OpenBao, settings: BootstrapSettings) -> None:
    """Spend the root token, if it is still there: make the operator, then revoke it.

    A crash between two of these lines is mended by the next start, which finds the token and does
    them again, or finds it revoked and goes on.
    """
    stored = json.loads(read_or_none(bao.data / "init.json") or b"{}")
    if "root_token" not in stored:
        return
    async with vault(bao.vault_settings(), StaticToken(stored["root_token"])) as keys:
        if await _still_good(keys):
            admin = Admin(keys)
            await admin.enable_auth("approle")
            await admin.policy(OPERATOR)
            await _login_role(admin, OPERATOR, settings)
            await _write_operator(admin, bao.data)
            for name, notice in ROOT_MADE.items():
                await _make_login(admin, bao.data, settings, name, notice)
            await keys.token.revoke_self()
    del stored["root_token"]
    stored["notice"] = "The recovery key makes root tokens. Move this file off this host."
    write_private(bao.data / "init.json", json.dumps(stored, indent=2).encode())
    log.info("bootstrap.root_token_revoked")


async def _make_login(
    admin: Admin, data: Path, settings: BootstrapSettings, name: str, notice: str
) -> None:
    """Make a login of `ROOT_MADE`; by root alone."""
    await admin.policy(name)
    await _login_role(admin, name, settings)
    await admin.forget_secret_ids(name)  # of a start that was cut off here
    login = await admin.login(name)
    stored = {"role_id": login.role_id, "secret_id": login.secret_id, "notice": notice}
    write_private(data / f"{name}.json", json.dumps(stored, indent=2).encode())


async def _still_good(keys: Vault) -> bool:
    try:
        await keys.look_up_self()
    except VaultRejected:
        return False
    return True


async def _write_operator(admin: Admin, data: Path) -> None:
    """Replace the operator's secret id: a copy of an older file is worth nothing any more."""
    known = await admin.secret_id_accessors(OPERATOR)
    login = await admin.login(OPERATOR)
    stored = {"role_id": login.role_id, "secret_id": login.secret_id}
    write_private(data / "operator.json", json.dumps(stored, indent=2).encode())
    await admin.destroy_secret_ids(OPERATOR, known)


async def prepare(keys: Vault, settings: BootstrapSettings) -> None:
    """Bring an OpenBao to where the services can work. Idempotent; needs the operator's policy.

    Raises:
        VaultDown: OpenBao cannot be asked; what was done stays, and doing it again is no harm.
    """
    admin = Admin(keys)
    await admin.mount("transit", "transit")
    await admin.mount("kv", "kv", {"version": "2"})
    await admin.mount("pki", "pki", max_lease_ttl_s=settings.root_certificate_ttl_s)
    await _prepare_secrets(keys, admin)
    await _prepare_keys(keys, admin, settings)
    await _prepare_certificates(admin, settings)
    await _prepare_logins(admin, settings)
    log.info("bootstrap.prepared", services=len(SERVICES), tenants=len(settings.tenants))


async def _prepare_keys(keys: Vault, admin: Admin, settings: BootstrapSettings) -> None:
    # Else encrypting under a deleted key would silently make a new one.
    await admin.disable_upsert()
    await keys.create_key(CHECKPOINT_KEY, "ed25519")
    for name, kind in MODEL_KEYS.items():
        await keys.create_key(name, kind)
    for tenant in settings.tenants:
        if await read_stage(keys, tenant) is None:  # else its key is gone, and is to stay so
            await keys.create_key(f"t-{tenant}", "aes256-gcm96")


async def _prepare_secrets(keys: Vault, admin: Admin) -> None:
    for name in SECRETS:
        if await admin.secret_version(name) == 0:
            await keys.kv_put(name, _fresh_key(), cas=0)
    await admin.require_cas(CHECKPOINT_LOCK)


async def _prepare_certificates(admin: Admin, settings: BootstrapSettings) -> None:
    await admin.root_certificate(settings.trust_domain, settings.root_certificate_ttl_s)
    for service in SERVICES:
        identity = ServiceIdentity(settings.trust_domain, service)
        await admin.certificate_role(
            f"service.{service}",
            identity.spiffe_id,
            ttl_s=settings.service_certificate_ttl_s,
            dns_names=settings.dns_names,
            ip_ranges=settings.ip_ranges,
        )
    # A client alone: with it the operator's commands append to the audit log.
    operator = ServiceIdentity(settings.trust_domain, OPERATOR)
    await admin.certificate_role(f"service.{OPERATOR}", operator.spiffe_id, ttl_s=_OPERATOR_TTL_S)


async def _prepare_logins(admin: Admin, settings: BootstrapSettings) -> None:
    for name in (*SERVICES, OPERATOR):
        await admin.policy(name)
        await _login_role(admin, name, settings)


async def _login_role(admin: Admin, name: str, settings: BootstrapSettings) -> None:
    await admin.login_role(
        name,
        ttl_s=settings.token_ttl_s,
        max_ttl_s=settings.token_max_ttl_s,
        ranges=settings.login_ranges,
    )


def _fresh_key() -> dict[str, str]:
    return {"key": b64encode(secrets.token_bytes(_KEY_BYTES)).decode()}


def _must_be_label(name: str) -> None:
    if not is_label(name):
        msg = "tenant and workload must be lower-case DNS labels"
        raise ValueError(msg)


def _write(issued: Issued, roots: str, folder: Path, name: str) -> Tls:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # New roots first: they hold the old ones too, so that no moment lacks what a server needs.
    pems = {
        "ca.pem": ((roots or issued.ca_pem).encode(), 0o644),
        f"{name}.key": (issued.private_key_pem.encode(), 0o600),
        f"{name}.pem": (issued.chain_pem.encode(), 0o644),
    }
    replace_together(folder, pems)
    return Tls(
        cert_chain=folder / f"{name}.pem",
        private_key=folder / f"{name}.key",
        peer_ca=folder / "ca.pem",
    )
