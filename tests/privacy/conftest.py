"""A privacy officer's world: real OpenBao and Redis, two cache replicas and audit, all over TLS."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from appliance.bootstrap import BootstrapSettings, prepared
from appliance.openbao import OpenBaoSettings, openbao
from appliance.openbao_admin import Admin
from audit.app import audit_at
from audit.privacy.clients import CachePurger
from audit.privacy.erasure import open_custody
from audit.privacy.estate import Estate
from cache.main import cache_at
from cache.service import open_cache
from cache.settings import CacheSettings
from cache.tiers import shared_tier, wrapped_keys
from meshkit.authorization import Authorizer
from meshkit.envelope import FolderWrappedKeys, keyring
from meshkit.policies import FOLDER
from meshkit.screening_mac import mac_verifier
from meshkit.vault import AppRole, vault
from sealgate.payloads_client import AsyncPayloads
from tests.audit.world import World, make_intent, make_outcome
from tests.cache.conftest import KEYS
from tests.gateway.conftest import Authority
from tests.mesh.conftest import DOMAIN, Host, service_id
from tests.redis_world import real_redis

TENANT = "demo"
OFFICER = f"spiffe://{DOMAIN}/tenant/{TENANT}/privacy"
SETTINGS = BootstrapSettings(tenants=(TENANT,))


@asynccontextmanager
async def vault_over(bao, service):
    """A login of a service, made by the operator's."""
    operator = AppRole(**json.loads((bao.data / "operator.json").read_text()))
    async with vault(bao.vault_settings(), operator) as keys:
        login = await Admin(keys).login(service)
    async with vault(bao.vault_settings(), login) as keys:
        yield keys


@dataclass
class Office:
    """What outlives the audit service; `live()` runs it."""

    world: World
    host: Host
    caches: list
    """Two replicas, each with an L1 of its own, over one Redis."""
    ports: list
    purge_s: float = 10

    @asynccontextmanager
    async def live(self, bao, **settings):
        """Run audit over an OpenBao; yield the log and its port."""
        store = FolderWrappedKeys(self.world.data / "keys")
        holder = self.host.holder(service_id("audit"))
        purger = CachePurger(
            targets=tuple(f"localhost:{port}" for port in self.ports),
            file=None,
            certificate=holder,
            timeout_s=self.purge_s,
        )
        async with (
            vault_over(bao, "audit") as keys,
            keyring(keys, store) as self.world.sealer,
            self.world.open(**settings) as log,
            open_custody(
                log, Estate(log.parts, store, self.world.sealer), purges=(purger.purge,)
            ) as custody,
            audit_at(self.host.placed, log, Authorizer(FOLDER), holder, custody=custody) as port,
        ):
            yield log, port

    @asynccontextmanager
    async def officer(self, port, uri=OFFICER):
        """Act as a tenant's workload."""
        made = self.host.authority.issue(uri)
        async with AsyncPayloads(
            f"localhost:{port}", ca=made.peer_ca_pem, cert=made.chain_pem, key=made.key_pem
        ) as payloads:
            yield payloads


async def call(log, subject):
    """Append the two events of a call about somebody; return its id."""
    intent = make_intent(subject=subject, tenant=TENANT)
    await log.append(intent)
    await log.append(make_outcome(intent.call_id, subject=subject, tenant=TENANT))
    return intent.call_id


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bao(tmp_path_factory):
    settings = OpenBaoSettings(data=tmp_path_factory.mktemp("bao"))
    async with openbao(settings) as bao, prepared(bao, SETTINGS):
        yield bao


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicas(bao, tmp_path_factory):
    """Two caches as their own processes would run them, and where they listen."""
    async with AsyncExitStack() as owned:
        redis = await owned.enter_async_context(real_redis(tmp_path_factory.mktemp("redis")))
        host = Host(Authority(), owned)
        caches, ports = [], []
        for _ in range(2):
            settings = CacheSettings(redis=redis.link_settings("cache"), purge_seen_ms=60_000)
            shared = await owned.enter_async_context(shared_tier(settings, b"s" * 32))
            keys = await owned.enter_async_context(vault_over(bao, "cache"))
            sealer = await owned.enter_async_context(keyring(keys, wrapped_keys(shared)))
            cache = await owned.enter_async_context(
                open_cache(
                    settings,
                    sealer=sealer,
                    verify=mac_verifier(lambda: KEYS),
                    secret=b"s" * 32,
                    shared=shared,
                )
            )
            caches.append(cache)
            ports.append(
                await owned.enter_async_context(
                    cache_at(host.placed, cache, host.holder(service_id("cache")))
                )
            )
        yield host, caches, ports


@pytest.fixture
def office(replicas, tmp_path):
    return Office(World(tmp_path), *replicas)
