"""The gateway as one block: built, serving, drained. Tests enter where production does.

    neighbours = Neighbours(compliance=…, cache=…, inference=…, audit=…)
    async with pipeline_of(settings, neighbours) as pipeline, gateway(
        settings, pipeline, holder.server_credentials()
    ) as port:
        await stop.wait()

Leaving the block: the server drains, then what cancelled calls left behind is recorded.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gateway.admission import MemoryLimits, rates_for
from gateway.asking import Asking
from gateway.door import Door
from gateway.ledger import Ledger
from gateway.models import ModelList
from gateway.pipeline import Pipeline
from gateway.redis_limits import RedisLimits, shares_of
from gateway.refusals import RefusalFlood
from gateway.releases.desk import ModelDesk
from gateway.releases.servicer import SERVICE as MODEL_SERVICE
from gateway.releases.servicer import ModelServicer
from gateway.servicer import GatewayServicer, admits, arrival_of
from gateway.shelf import Shelf
from gateway.tokens import Pace
from gateway.users import users
from meshkit.authorization import Authorizer
from meshkit.interceptors import MeshInterceptor
from meshkit.redis_link import redis_link
from meshkit.server import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc

    from gateway.admission import Limits
    from gateway.ledger import Appender
    from gateway.settings import GatewaySettings
    from meshkit.contract import Cache, Compliance, Inference, ReleaseDesk

__all__ = ["SERVICE", "Neighbours", "gateway", "limits_of", "pipeline_of"]

SERVICE = "sealgate.v1.GatewayService"


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The four services that a call meets: objects in process, or clients of the wire."""

    compliance: Compliance
    cache: Cache
    inference: Inference
    audit: Appender
    releases: ReleaseDesk | None = None
    """Of inference's models; None: ModelService is not served."""


@asynccontextmanager
async def pipeline_of(
    settings: GatewaySettings,
    neighbours: Neighbours,
    *,
    limits: Limits | None = None,
    authorizer: Authorizer | None = None,
) -> AsyncIterator[Pipeline]:
    """Build the pipeline; keep its policies and key sets fresh for as long as the block runs.

    Args:
        settings: The gateway's.
        neighbours: The other four.
        limits: If not given: as the settings say, in Redis or in memory.
        authorizer: One that is shared with other services of this process.

    Raises:
        PoliciesInvalid, JwksInvalid, OSError: there is no good set to start with.
    """
    own = authorizer or Authorizer(settings.policies_dir, settings.policies_archive)
    async with (
        limits_of(settings) as configured,
        users(settings.users) as believed,
        own.watching(settings.policies_every_s),
    ):
        limits = limits or configured
        yield Pipeline(
            door=Door(
                authorizer=own,
                limits=limits,
                models=ModelList(neighbours.inference, settings.models_memo_ms / 1_000),
                users=believed,
                expected_tokens=settings.expected_tokens,
            ),
            ledger=Ledger(
                neighbours.audit,
                RefusalFlood(settings.refusals_singly_max),
                settings.audit_budget_ms / 1_000,
            ),
            compliance=neighbours.compliance,
            shelf=Shelf(neighbours.cache, settings.cache_budget_ms / 1_000),
            asking=_asking(settings, neighbours, limits),
            settings=settings,
            releases=neighbours.releases,
        )


@asynccontextmanager
async def limits_of(settings: GatewaySettings) -> AsyncIterator[Limits]:
    """Hold the limits that the settings name: shared through Redis, or this process's share.

    Raises:
        OSError: the CA of Redis cannot be read. Redis itself need not be there.
    """
    rates = rates_for(
        settings.limits.rates(),
        {tenant: each.rates() for tenant, each in settings.tenant_limits.items()},
    )
    if not settings.redis.configured:
        own = shares_of(rates, settings.limits_replicas)
        yield MemoryLimits(own, clock=time.monotonic, buckets_max=settings.buckets_max)
        return
    async with redis_link(settings.redis, name="limits") as link:
        yield RedisLimits(
            link,
            rates,
            replicas=settings.limits_replicas,
            clock=time.monotonic,
            buckets_max=settings.buckets_max,
        )


def _asking(settings: GatewaySettings, neighbours: Neighbours, limits: Limits) -> Asking:
    return Asking(
        compliance=neighbours.compliance,
        inference=neighbours.inference,
        limits=limits,
        whole=Pace(settings.unary_chunk_tokens),
        streamed=Pace(settings.frame_tokens, settings.frame_ms, eager=True),
        extend_tokens=settings.extend_tokens,
    )


@asynccontextmanager
async def gateway(
    settings: GatewaySettings,
    pipeline: Pipeline,
    credentials: grpc.ServerCredentials | Callable[[], grpc.ServerCredentials],
) -> AsyncIterator[int]:
    """Serve `pipeline`; yield the port. Tests enter here, with a pipeline over fakes.

    `credentials`: as `meshkit.server.serving` takes them.
    """
    guard = MeshInterceptor(
        trust_domain=settings.trust_domain,
        call_budget_ms=max(settings.call_budget_ms, settings.stream_life_ms),
        admits=admits,
        on_refused=pipeline.stranger,
    )
    served, names = [GatewayServicer(pipeline).add_to], [SERVICE]
    if pipeline.releases is not None:
        served.append(_models_desk(settings, pipeline, pipeline.releases).add_to)
        names.append(MODEL_SERVICE)
    try:
        async with serving(
            *served,
            address=f"{settings.host}:{settings.port}",
            credentials=credentials,
            guard=guard,
            settings=settings.serving,
            names=tuple(names),
        ) as port:
            yield port
    finally:
        await pipeline.settled()


def _models_desk(
    settings: GatewaySettings, pipeline: Pipeline, releases: ReleaseDesk
) -> ModelServicer:
    desk = ModelDesk(
        door=pipeline.door,
        ledger=pipeline.ledger,
        releases=releases,
        steps_max=settings.model_steps_max,
        retry_ms=settings.overloaded_retry_ms,
    )
    return ModelServicer(desk, partial(arrival_of, reserve_s=settings.reply_reserve_ms / 1_000))
