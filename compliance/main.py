"""`python -m compliance.main`: compliance by itself, a member of the mesh."""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc, or TLS 1.2 would be let in

import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from compliance.service import open_compliance
from compliance.servicer import SERVICE, ComplianceServicer, admits
from compliance.settings import ComplianceSettings
from compliance.token_vault import TOKEN_SECRET
from meshkit.audit_link import AuditLink, journal_over
from meshkit.member import Member, ServerSettings, run
from meshkit.own_events import service_noted
from meshkit.screening_keys import Watching, watched_screening_keys
from meshkit.server import serving_neighbours
from sealgate.v1.audit_pb2_grpc import AuditServiceStub
from sealgate.v1.compliance_pb2_grpc import add_ComplianceServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from meshkit.contract import Compliance
    from meshkit.server import Listening
    from meshkit.tls import CertificateHolder

__all__ = ["ComplianceServer", "compliance_at", "serve"]

assert tls_floor.in_time()


class ComplianceServer(ComplianceSettings, ServerSettings):
    """Environment `COMPLIANCE_*`: the service's own settings, and how it joins the mesh."""

    model_config = SettingsConfigDict(env_prefix="COMPLIANCE_")

    port: int = Field(50_052, ge=0, le=65_535, description="0 asks the kernel for a free one.")
    screening_keys: Watching = Watching()
    audit: AuditLink = AuditLink()


def compliance_at(
    settings: Listening, compliance: Compliance, certificate: CertificateHolder
) -> AbstractAsyncContextManager[int]:
    """Serve a service object; yield the port. Tests enter here. Raises as `serving`."""
    register = partial(add_ComplianceServiceServicer_to_server, ComplianceServicer(compliance))
    return serving_neighbours(settings, register, certificate, name=SERVICE, admits=admits)


@asynccontextmanager
async def serve(settings: ComplianceServer, member: Member) -> AsyncIterator[int]:
    """Open the service and serve it; yield the port."""
    secret = (await member.keys.secret(TOKEN_SECRET)).newest
    async with (
        journal_over(settings.audit, member.certificate, AuditServiceStub) as journal,
        watched_screening_keys(member.keys, settings.screening_keys) as mac_keys,
        open_compliance(
            settings, mac_keys=mac_keys, token_secret=secret, journal=journal
        ) as compliance,
        compliance_at(settings, compliance, member.certificate) as port,
    ):
        with service_noted(journal, "compliance", certificate=member.certificate):
            yield port


if __name__ == "__main__":
    sys.exit(run("compliance", ComplianceServer, serve))
