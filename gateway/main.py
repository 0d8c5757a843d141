"""`python -m gateway.main`: the gateway by itself, a member of the mesh."""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc, or TLS 1.2 would be let in

import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gateway.app import Neighbours, gateway, pipeline_of
from gateway.clients import CacheClient, ComplianceClient, Hops, InferenceClient
from gateway.releases.clients import ReleasesClient
from gateway.settings import GatewaySettings
from meshkit.audit_client import AuditClient, audit_client
from meshkit.channel import line
from meshkit.journal import Journalling, journal
from meshkit.member import Member, ServerSettings, run
from meshkit.own_events import policies_noted, service_noted
from sealgate.v1.audit_pb2_grpc import AuditServiceStub
from sealgate.v1.cache_pb2_grpc import CacheServiceStub
from sealgate.v1.compliance_pb2_grpc import ComplianceServiceStub
from sealgate.v1.inference_pb2_grpc import InferenceServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meshkit.tls import CertificateHolder

__all__ = ["GatewayServer", "neighbours", "serve"]

assert tls_floor.in_time()


class GatewayServer(GatewaySettings, ServerSettings):
    """Environment `GATEWAY_*`: the service's own settings, and how it joins the mesh."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    compliance_target: str = "localhost:50052"
    cache_target: str = "localhost:50053"
    inference_target: str = "localhost:50054"
    audit_target: str = "localhost:50055"
    journal: Journalling = Journalling()
    hops: Hops = Field(default=Hops(), description="Times and limits of calls to them.")


@asynccontextmanager
async def neighbours(
    settings: GatewayServer, certificate: CertificateHolder
) -> AsyncIterator[Neighbours]:
    """Own a line to each neighbour for as long as the block runs. None is waited for."""
    hops = settings.hops
    async with AsyncExitStack() as owned:
        compliance = await owned.enter_async_context(
            line(settings.compliance_target, certificate, ComplianceServiceStub, hops.reaching)
        )
        cache = await owned.enter_async_context(
            line(settings.cache_target, certificate, CacheServiceStub, hops.reaching)
        )
        inference = await owned.enter_async_context(
            line(settings.inference_target, certificate, InferenceServiceStub, hops.reaching)
        )
        audit = await owned.enter_async_context(
            line(settings.audit_target, certificate, AuditServiceStub, hops.reaching)
        )
        yield Neighbours(
            compliance=ComplianceClient(compliance, hops),
            cache=CacheClient(cache, hops),
            inference=InferenceClient(inference, hops),
            releases=ReleasesClient(inference, hops),
            audit=await owned.enter_async_context(audit_client(audit, hops)),
        )


@asynccontextmanager
async def serve(settings: GatewayServer, member: Member) -> AsyncIterator[int]:
    """Reach the neighbours and serve; yield the port."""
    async with (
        neighbours(settings, member.certificate) as others,
        journal(_recorder(others), settings.journal) as book,
        pipeline_of(settings, others) as pipeline,
        gateway(settings, pipeline, member.certificate.server_credentials) as port,
    ):
        with (
            service_noted(book, "gateway", certificate=member.certificate),
            policies_noted(book, pipeline.door.authorizer),
        ):
            yield port


def _recorder(others: Neighbours) -> AuditClient:
    """The pipeline's own way to audit: it may only append, the journal archives too."""
    assert isinstance(others.audit, AuditClient)
    return others.audit


if __name__ == "__main__":
    sys.exit(run("gateway", GatewayServer, serve))
