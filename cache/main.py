"""`python -m cache.main`: the cache by itself, a member of the mesh."""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc, or TLS 1.2 would be let in

import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from cache.service import open_cache
from cache.servicer import SERVICE, CacheServicer, admits
from cache.settings import CacheSettings
from cache.tiers import shared_tier, wrapped_keys
from meshkit.audit_link import AuditLink, journal_over
from meshkit.envelope import keyring
from meshkit.member import Member, ServerSettings, run
from meshkit.own_events import service_noted
from meshkit.screening_keys import Watching, watched_screening_keys
from meshkit.screening_mac import mac_verifier
from meshkit.server import serving_neighbours
from sealgate.v1.audit_pb2_grpc import AuditServiceStub
from sealgate.v1.cache_pb2_grpc import add_CacheServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from meshkit.contract import Cache
    from meshkit.server import Listening
    from meshkit.tls import CertificateHolder

__all__ = ["CacheServer", "cache_at", "serve"]

assert tls_floor.in_time()


class CacheServer(CacheSettings, ServerSettings):
    """Environment `CACHE_*`: the service's own settings, and how it joins the mesh."""

    model_config = SettingsConfigDict(env_prefix="CACHE_")

    port: int = Field(50_053, ge=0, le=65_535, description="0 asks the kernel for a free one.")
    screening_keys: Watching = Watching()
    audit: AuditLink = AuditLink()


def cache_at(
    settings: Listening, cache: Cache, certificate: CertificateHolder
) -> AbstractAsyncContextManager[int]:
    """Serve a service object; yield the port. Tests enter here. Raises as `serving`."""
    register = partial(add_CacheServiceServicer_to_server, CacheServicer(cache))
    return serving_neighbours(settings, register, certificate, name=SERVICE, admits=admits)


@asynccontextmanager
async def serve(settings: CacheServer, member: Member) -> AsyncIterator[int]:
    """Open the service and serve it; yield the port."""
    secret = (await member.keys.secret("cache-keys")).newest
    async with (
        journal_over(settings.audit, member.certificate, AuditServiceStub) as journal,
        watched_screening_keys(member.keys, settings.screening_keys) as mac_keys,
        shared_tier(settings, secret) as shared,
        keyring(member.keys, wrapped_keys(shared)) as sealer,
        open_cache(
            settings,
            sealer=sealer,
            verify=mac_verifier(mac_keys),
            secret=secret,
            shared=shared,
        ) as cache,
        cache_at(settings, cache, member.certificate) as port,
    ):
        with service_noted(journal, "cache", certificate=member.certificate):
            yield port


if __name__ == "__main__":
    sys.exit(run("cache", CacheServer, serve))
