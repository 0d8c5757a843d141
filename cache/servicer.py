"""gRPC at the cache: open to the gateway alone. Every text's MAC is checked by the service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cache.wire import answered, read_ended, read_question, read_wait_s
from meshkit.contract import CacheMiss, Reason, Refusal, is_subject
from meshkit.identity import ServiceIdentity, is_label
from meshkit.interceptors import current
from meshkit.telemetry import step
from meshkit.wire import released_from_wire
from sealgate.v1 import cache_pb2 as pb
from sealgate.v1.cache_pb2_grpc import CacheServiceServicer

if TYPE_CHECKING:
    import grpc

    from meshkit.contract import Cache, CachedAnswer, Question
    from meshkit.identity import Identity

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["SERVICE", "CacheServicer", "admits"]

SERVICE = "sealgate.v1.CacheService"
_PURGE = f"/{SERVICE}/Purge"


def admits(identity: Identity, method: str) -> bool:
    """Whether a peer may call us: the gateway, audit to purge what it erases, and nobody else."""
    if not isinstance(identity, ServiceIdentity):
        return False
    return identity.name == "gateway" or (identity.name == "audit" and method == _PURGE)


class CacheServicer(CacheServiceServicer):
    """The methods of cache.proto over one service object."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def Get(
        self,
        request: pb.GetRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.GetResponse:
        """See cache.proto."""
        question = read_question(request.question, current().trace)
        wait_s = read_wait_s(request)
        with step("cache.look_up"):
            return answered(await self._found(question, wait_s))

    async def _found(self, question: Question, wait_s: float | None) -> CachedAnswer | CacheMiss:
        try:
            async with asyncio.timeout(wait_s):
                return await self._cache.get(question)
        except TimeoutError:
            return CacheMiss()

    async def Put(
        self,
        request: pb.PutRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.PutResponse:
        """See cache.proto."""
        question = read_question(request.question, current().trace)
        if not request.HasField("answer"):
            await self._cache.abandon(question, request.lease)
            return pb.PutResponse()
        with step("cache.keep"):
            await self._cache.put(
                question, request.lease, released_from_wire(request.answer), read_ended(request)
            )
        return pb.PutResponse()

    async def Purge(
        self,
        request: pb.PurgeRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.PurgeResponse:
        """See cache.proto."""
        if not is_label(request.tenant):
            raise Refusal(Reason.INVALID_FIELD, field="tenant")
        given = [each for each in (request.session, request.model_digest, request.subject) if each]
        if len(given) > 1 or (request.subject and not is_subject(request.subject)):
            raise Refusal(Reason.INVALID_FIELD, field="subject")
        return pb.PurgeResponse(
            entries=await self._cache.purge(
                request.tenant,
                session=request.session,
                model_digest=request.model_digest,
                subject=request.subject,
            )
        )
