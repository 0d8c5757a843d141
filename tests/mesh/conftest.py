"""Services of the mesh on real sockets with real mutual TLS; some among fakes, some real."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest
from pydantic_settings import SettingsConfigDict

from audit.app import audit_at
from cache.main import cache_at
from compliance.main import compliance_at
from gateway.app import gateway, pipeline_of
from gateway.main import GatewayServer, neighbours
from inference.main import inference_at
from meshkit.authorization import Authorizer
from meshkit.contract import Connection, Scope
from meshkit.deadline import Deadline
from meshkit.identity import ServiceIdentity
from meshkit.interceptors import RequestContext, with_context
from meshkit.member import ServerSettings
from meshkit.policies import FOLDER
from meshkit.tls import CertificateHolder
from meshkit.w3c import fresh_trace
from tests.fakes import DictCache, MemoryAudit, ShoutingModel, WaryCompliance
from tests.gateway.conftest import Authority

if TYPE_CHECKING:
    from pathlib import Path

DOMAIN = "sealgate.local"
SERVICES = ("gateway", "compliance", "cache", "inference", "audit")


def service_id(name: str) -> str:
    return f"spiffe://{DOMAIN}/service/{name}"


class PlacedSettings(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="TESTS_MESH_")


JOIN = {
    "openbao": {"ca": "unused.pem"},
    "role_id_file": "unused",
    "wrapped_secret_id_file": "unused",
}
QUICK = {"lame_duck_ms": 0, "drain_ms": 2_000}
PATIENT = {"append_ms": 20_000, "connect_ms": 20_000, "cache_connect_ms": 20_000}
"""Where all are there, a busy machine is no reason for one to be taken for away."""


@dataclass
class Host:
    """Where services are started, each with a certificate of one test authority."""

    authority: Authority
    owned: AsyncExitStack
    placed: PlacedSettings = field(
        default_factory=lambda: PlacedSettings(join=JOIN, port=0, serving=QUICK)
    )

    def holder(self, uri: str, **issue) -> CertificateHolder:
        return CertificateHolder(self.authority.issue(uri, **issue))

    def serving(self, service: str, thing, port: int = 0):
        """Return the service's own way to serve, as its main does it."""
        ways = {
            "compliance": compliance_at,
            "cache": cache_at,
            "inference": inference_at,
            "audit": partial(audit_with, Authorizer(FOLDER)),
        }
        settings = self.placed.model_copy(update={"port": port})
        return ways[service](settings, thing, self.holder(service_id(service)))

    async def serve(self, service: str, thing) -> int:
        return await self.owned.enter_async_context(self.serving(service, thing))


def audit_with(authorizer, settings, thing, certificate):
    return audit_at(settings, thing, authorizer, certificate)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def host(authority):
    async with AsyncExitStack() as owned:
        yield Host(authority, owned)


@dataclass
class FakeMesh:
    """Five servers on five sockets, with fakes behind four of them."""

    host: Host
    compliance: WaryCompliance = field(default_factory=WaryCompliance)
    cache: DictCache = field(default_factory=DictCache)
    inference: ShoutingModel = field(default_factory=ShoutingModel)
    audit: MemoryAudit = field(default_factory=MemoryAudit)
    ports: dict[str, int] = field(default_factory=dict)

    async def start(self, hops: dict | None = None) -> None:
        for service in ("compliance", "cache", "inference", "audit"):
            self.ports[service] = await self.host.serve(service, getattr(self, service))
        await self.serve_gateway(hops)

    async def serve_gateway(self, hops: dict | None = None) -> None:
        settings = self.gateway_settings(hops or {})
        holder = self.host.holder(service_id("gateway"))
        enter = self.host.owned.enter_async_context
        pipeline = await enter(pipeline_of(settings, await enter(neighbours(settings, holder))))
        self.ports["gateway"] = await enter(
            gateway(settings, pipeline, holder.server_credentials())
        )

    def gateway_settings(self, hops: dict) -> GatewayServer:
        targets = {f"{name}_target": f"localhost:{port}" for name, port in self.ports.items()}
        return GatewayServer(
            join=JOIN,
            port=0,
            hops={**PATIENT, **hops},
            serving={**QUICK, "drain_ms": 130_000},
            **targets,
        )


@pytest.fixture
async def fake_mesh(host) -> FakeMesh:
    made = FakeMesh(host)
    await made.start()
    return made


@pytest.fixture
def rpc():
    """Stand within an RPC, as the gateway does when it calls its neighbours."""

    def within(seconds: float = 20.0) -> RequestContext:
        made = RequestContext(
            method="/sealgate.v1.GatewayService/Chat",
            deadline=Deadline.after(seconds),
            trace=fresh_trace(),
            connection=Connection(),
            identity=ServiceIdentity(DOMAIN, "gateway"),
        )
        with_context(made)
        return made

    return within


def scope(call_id: bytes = b"c" * 16, tenant: str = "demo") -> Scope:
    return Scope(
        call_id=call_id,
        tenant=tenant,
        principal=f"spiffe://{DOMAIN}/tenant/{tenant}/assistant",
        trace=fresh_trace(),
    )


@pytest.fixture(scope="session")
def models_dir(pytestconfig) -> Path:
    return pytestconfig.rootpath / "var" / "models"
