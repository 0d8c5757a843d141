"""All five services in one process, over an OpenBao of their own.

    async with appliance(ApplianceSettings.load()) as house:
        house.port, house.audit_port, house.tls

Each service is opened with its own login to OpenBao and sees only what its policy allows, as it
would in the mesh. The gateway calls its neighbours' objects directly; what listens is the gateway's
port, audit's port for auditors' reads, and OpenBao on loopback.

Leaving the block unwinds in reverse: the gateway drains while its neighbours still work, then they
close, the log publishes what is durable, and OpenBao goes last.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.bootstrap import (
    CHECKPOINT_KEY,
    CHECKPOINT_LOCK,
    BootstrapSettings,
    prepared,
)
from appliance.clients import keep_clients
from appliance.key_rotation import by_the_calendar
from appliance.models import inference_settings
from appliance.openbao import openbao
from appliance.own_events import Telling
from appliance.screening_keys import rotating
from audit.app import audit_at
from audit.console.app import console_if
from audit.keys.service import audit_keys
from audit.log.epoch import origin_of
from audit.log.locks import VaultLock
from audit.log.opening import open_audit
from audit.log.signer import VaultSigner
from audit.privacy.erasure import Custody, open_custody
from audit.privacy.estate import Estate as Belongings
from audit.settings import AuditSettings
from cache.service import open_cache
from cache.settings import CacheSettings
from cache.tiers import shared_tier, wrapped_keys
from compliance.service import open_compliance
from compliance.settings import ComplianceSettings
from compliance.token_vault import TOKEN_SECRET
from gateway.app import Neighbours, gateway, pipeline_of
from gateway.settings import GatewaySettings
from inference.model_notes import models_noted
from inference.service import InferenceService, open_inference
from inference.store.keys import VaultModelKeys
from meshkit.authorization import Authorizer
from meshkit.background import running
from meshkit.envelope import FolderWrappedKeys, Keyring, keyring
from meshkit.identity import ServiceIdentity
from meshkit.screening_keys import Watching, watched_screening_keys
from meshkit.screening_mac import mac_verifier
from meshkit.telemetry import telemetry
from meshkit.tls import enforce_tls13
from meshkit.tls_renewal import WantedCertificate, renewed_certificate
from meshkit.vault import vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from appliance.openbao import OpenBao
    from appliance.settings import ApplianceSettings
    from inference.engines.base import Engine
    from meshkit.contract import Cache, Compliance
    from meshkit.journal import Journal
    from meshkit.screening_mac import MacKeys
    from meshkit.server import Serving
    from meshkit.tls import CertificateHolder
    from meshkit.vault import Vault

__all__ = ["House", "appliance"]

_KEY_READ_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A running appliance, and what its neighbours on this host need to know."""

    port: int
    """The gateway's."""
    audit_port: int
    console_port: int | None
    """None, if settings want none."""
    tls: Path
    """`ca.pem`, `client.pem`, `client.key` of the first tenant's assistant."""
    auditor_tls: Path
    """The same of its auditor."""
    log: Path
    """The tlog-tiles root; its verifier key lies beside it, in `vkey`."""
    openbao_pid: int


@asynccontextmanager
async def appliance(
    settings: ApplianceSettings,
    *,
    engine: Engine | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[House]:
    """Run everything for as long as the block runs.

    Args:
        settings: The appliance's; each service reads its own from the environment.
        engine: Used instead of the configured model: load tests pass a `NullEngine`.
        tell: Told in a few words what is being done, for people who wait.

    Raises:
        TlsError: `meshkit.tls_floor` was not imported before grpc.
        OpenBaoError, Refusal, ModelFileError, PoliciesInvalid, OSError: a part cannot start.
    """
    enforce_tls13()
    gateway_settings = GatewaySettings.load()
    async with AsyncExitStack() as owned:
        await owned.enter_async_context(
            telemetry(
                gateway_settings.telemetry, service="appliance", own_port=settings.gateway_port
            )
        )
        tell("Starting OpenBao and preparing keys, certificates and policies")
        builder = await _Builder.start(owned, settings)
        tell("Opening the audit log")
        telling = await builder.audit()
        neighbours = await builder.neighbours(telling, engine, tell)
        authorizer = Authorizer(gateway_settings.policies_dir, gateway_settings.policies_archive)
        certificate = await builder.certificate("audit")
        custody = await builder.custody(telling, neighbours.cache)
        audit_port = await builder.serve_audit(telling, authorizer, certificate, custody)
        console_port = await builder.serve_console(telling, authorizer, certificate, custody)
        pipeline = await owned.enter_async_context(
            pipeline_of(gateway_settings, neighbours, authorizer=authorizer)
        )
        certificate = await builder.certificate("gateway")
        port = await owned.enter_async_context(
            gateway(builder.placed(gateway_settings), pipeline, certificate.server_credentials())
        )
        await telling.gateway_serves(certificate, authorizer)
        await owned.enter_async_context(by_the_calendar(settings))
        yield builder.house(port=port, audit_port=audit_port, console_port=console_port)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where audit listens, and with which limits."""

    host: str
    port: int
    trust_domain: str
    call_budget_ms: int
    serving: Serving


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builder:
    """Opens one service after another, each with its own login, and owns them."""

    settings: ApplianceSettings
    owned: AsyncExitStack
    bao: OpenBao
    vaults: dict[str, Vault]
    screening: Callable[[], MacKeys]

    @classmethod
    async def start(cls, owned: AsyncExitStack, settings: ApplianceSettings) -> _Builder:
        """Start OpenBao, prepare it, log each service in, issue the clients' certificates."""
        bao = await owned.enter_async_context(openbao(settings.openbao()))
        wanted = BootstrapSettings(
            trust_domain=settings.trust_domain,
            tenants=settings.tenants,
            service_certificate_ttl_s=settings.certificate_ttl_s,
            client_certificate_ttl_s=settings.client_certificate_ttl_s,
        )
        estate = await owned.enter_async_context(prepared(bao, wanted))
        await keep_clients(owned, estate, settings)
        vaults = {}
        for name, login in (await estate.logins()).items():
            vaults[name] = await owned.enter_async_context(vault(bao.vault_settings(), login))
        # All holders are in this process, so nothing hurries but a rotation by hand.
        pause_s = min(_KEY_READ_S, settings.screening_key_life_s / 10)
        watching = Watching(every_s=pause_s, settle_s=2 * pause_s)
        screening = await owned.enter_async_context(
            watched_screening_keys(vaults["compliance"], watching)
        )
        await owned.enter_async_context(
            running(rotating(estate, settings.screening_key_life_s), "screening-key-rotation")
        )
        return cls(settings=settings, owned=owned, bao=bao, vaults=vaults, screening=screening)

    async def neighbours(
        self, telling: Telling, engine: Engine | None, tell: Callable[[str], None]
    ) -> Neighbours:
        """Open the other services that the gateway calls."""
        tell("Loading recognizers and name models")
        compliance = await self.compliance(telling)
        cache = await self.cache(telling)
        tell("Loading the language model")
        inference = await self.inference(engine, telling)
        return Neighbours(
            compliance=compliance,
            cache=cache,
            inference=inference,
            audit=telling.log,
            releases=inference.desk,
        )

    async def audit(self) -> Telling:
        """Open the log, its checkpoints signed and locked in OpenBao."""
        keys = self.vaults["audit"]
        settings = AuditSettings.load().model_copy(
            update={
                "data_dir": self.settings.data_dir / "audit",
                "producer": self._spiffe_id("gateway"),
            }
        )
        held = await self.owned.enter_async_context(audit_keys(keys, settings))
        origin = origin_of(settings.data_dir, self.settings.trust_domain)
        log = await self.owned.enter_async_context(
            open_audit(
                settings,
                signer=await VaultSigner.load(
                    keys, CHECKPOINT_KEY, origin, overlap_days=settings.checkpoint_key_overlap_days
                ),
                lock=VaultLock(keys, CHECKPOINT_LOCK),
                sealer=held.sealer,
                pseudonym_key=(await keys.secret("pseudonym-key")).newest,
                naming_keys=held.naming,
            )
        )
        await self.owned.enter_async_context(held.taking_orders())
        return await Telling.start(self.owned, log, settings, self.settings.trust_domain)

    async def compliance(self, telling: Telling) -> Compliance:
        """Load policy, patterns and name models."""
        loaded = ComplianceSettings.load()
        archive = loaded.policy_archive or self.settings.data_dir / "compliance" / "policies"
        settings = loaded.model_copy(
            update={"models_dir": self.settings.models_dir, "policy_archive": archive}
        )
        secret = (await self.vaults["compliance"].secret(TOKEN_SECRET)).newest
        book = await telling.journal("compliance")
        compliance = await self.owned.enter_async_context(
            open_compliance(settings, mac_keys=self.screening, token_secret=secret, journal=book)
        )
        telling.serves(book, "compliance")
        return compliance

    async def cache(self, telling: Telling) -> Cache:
        """Open its tiers; data keys live as long as entries: here, or in Redis if it has one."""
        keys, settings = self.vaults["cache"], CacheSettings.load()
        secret = (await keys.secret("cache-keys")).newest
        shared = await self.owned.enter_async_context(shared_tier(settings, secret))
        sealer = await self.owned.enter_async_context(keyring(keys, wrapped_keys(shared)))
        cache = await self.owned.enter_async_context(
            open_cache(
                settings,
                secret=secret,
                sealer=sealer,
                verify=mac_verifier(self.screening),
                shared=shared,
            )
        )
        telling.serves(await telling.journal("cache"), "cache")
        return cache

    async def inference(self, engine: Engine | None, telling: Telling) -> InferenceService:
        """Load the model, or take the engine that was given."""
        book = await telling.journal("inference")
        inference = await self._inference(engine, book)
        telling.serves(book, "inference")
        embedding = inference.embedding_models
        self.owned.enter_context(models_noted(book, inference.desk, embedding=embedding))
        return inference

    async def _inference(self, engine: Engine | None, book: Journal) -> InferenceService:
        verify = mac_verifier(self.screening)
        if engine is not None:
            return InferenceService((engine,), verify=verify)
        settings = inference_settings(self.settings)
        keys = VaultModelKeys(self.vaults["inference"], asyncio.get_running_loop())
        return await self.owned.enter_async_context(
            open_inference(settings, verify=verify, keys=keys, journal=book)
        )

    def house(self, *, port: int, audit_port: int, console_port: int | None) -> House:
        """Tell what neighbours on this host need to know."""
        data = self.settings.data_dir
        return House(
            port=port,
            audit_port=audit_port,
            console_port=console_port,
            tls=data / "tls",
            auditor_tls=data / "tls-auditor",
            log=data / "audit" / "log",
            openbao_pid=self.bao.pid,
        )

    async def certificate(self, service: str) -> CertificateHolder:
        """Have a service's certificate issued, and renewed for as long as it runs."""
        return await self.owned.enter_async_context(
            renewed_certificate(
                self.vaults[service],
                WantedCertificate(
                    role=f"service.{service}",
                    spiffe_id=self._spiffe_id(service),
                    dns_names=("localhost",),
                    ip_addresses=("127.0.0.1",),
                    ttl_s=self.settings.certificate_ttl_s,
                ),
            )
        )

    async def custody(self, telling: Telling, cache: Cache) -> Custody:
        """Keep retention of payloads, and erase what is asked for."""
        parts = telling.log.parts
        assert isinstance(parts.sealer, Keyring)  # `audit` gave it one
        wrapped = FolderWrappedKeys(parts.settings.data_dir / "keys")

        async def purge(tenant: str, subject: str) -> int:
            return await cache.purge(tenant, subject=subject)

        return await self.owned.enter_async_context(
            open_custody(telling.log, Belongings(parts, wrapped, parts.sealer), purges=(purge,))
        )

    async def serve_audit(
        self,
        telling: Telling,
        authorizer: Authorizer,
        certificate: CertificateHolder,
        custody: Custody,
    ) -> int:
        """Let auditors in; return the port."""
        limits = GatewaySettings.load()
        place = _Place(
            host=self.settings.host,
            port=self.settings.audit_port,
            trust_domain=self.settings.trust_domain,
            call_budget_ms=limits.call_budget_ms,
            serving=limits.serving.model_copy(update={"lame_duck_ms": 0}),
        )
        port = await self.owned.enter_async_context(
            audit_at(
                place,
                telling.log,
                authorizer,
                certificate,
                archive=telling.archive,
                reads_per_s_max=AuditSettings.load().reads_per_s_max,
                custody=custody,
            )
        )
        telling.serves(await telling.journal("audit"), "audit", certificate)
        return port

    async def serve_console(
        self,
        telling: Telling,
        authorizer: Authorizer,
        certificate: CertificateHolder,
        custody: Custody,
    ) -> int | None:
        """Let auditors' browsers in; return the port, or None if there is to be no console."""
        port = self.settings.console_port if self.settings.console else None
        placed = {"host": self.settings.host, "port": port}
        console = await self.owned.enter_async_context(
            console_if(
                AuditSettings.load().console.model_copy(update=placed),
                trust_domain=self.settings.trust_domain,
                audit=telling.log,
                authorizer=authorizer,
                certificate=certificate,
                archive=telling.archive,
                custody=custody,
            )
        )
        return None if console is None else console.port

    def placed(self, settings: GatewaySettings) -> GatewaySettings:
        """Put the gateway where the appliance says."""
        serving = settings.serving.model_copy(update={"reflection": self.settings.reflection})
        return settings.model_copy(
            update={
                "host": self.settings.host,
                "port": self.settings.gateway_port,
                "trust_domain": self.settings.trust_domain,
                "serving": serving,
            }
        )

    def _spiffe_id(self, service: str) -> str:
        return ServiceIdentity(self.settings.trust_domain, service).spiffe_id
