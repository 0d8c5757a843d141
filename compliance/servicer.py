"""gRPC at compliance: open to the gateway alone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from compliance.wire import (
    blocked_result,
    read_item,
    read_names,
    release_frame,
    revealed_reply,
    screened_result,
)
from meshkit.contract import BlockedText, Reason, Refusal
from meshkit.identity import ServiceIdentity
from meshkit.interceptors import current
from meshkit.telemetry import step
from meshkit.wire import scope_from_wire
from sealgate.v1 import compliance_pb2 as pb
from sealgate.v1.compliance_pb2_grpc import ComplianceServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import grpc

    from meshkit.contract import Compliance, Message, Released, Scope
    from meshkit.identity import Identity

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["SERVICE", "ComplianceServicer", "admits"]

SERVICE = "sealgate.v1.ComplianceService"
ITEMS_MAX = 256
DIGEST_BYTES = 32


def admits(identity: Identity, method: str) -> bool:  # noqa: ARG001 -- the interceptor's signature
    """Whether a peer may call us: the gateway, and nobody else."""
    return isinstance(identity, ServiceIdentity) and identity.name == "gateway"


class ComplianceServicer(ComplianceServiceServicer):
    """The methods of compliance.proto over one service object."""

    def __init__(self, compliance: Compliance) -> None:
        self._compliance = compliance

    async def Screen(
        self,
        request: pb.ScreenRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.ScreenResponse:
        """See compliance.proto. All items are read before the first is screened."""
        if not 1 <= len(request.items) <= ITEMS_MAX:
            raise Refusal(Reason.INVALID_FIELD, field="items")
        trace = current().trace
        items = [read_item(item, trace) for item in request.items]
        with step("compliance.screen"):
            if len(items) == 1:
                return pb.ScreenResponse(results=[await self._screened(*items[0])])
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._caught(*item)) for item in items]
        results = [task.result() for task in tasks]
        for result in results:
            if isinstance(result, Refusal):
                raise result
        return pb.ScreenResponse(results=cast("list[pb.ScreenResult]", results))

    async def _caught(
        self, scope: Scope, messages: tuple[Message, ...]
    ) -> pb.ScreenResult | Refusal:
        """Keep a refusal from becoming a group's: the RPC is refused with it by itself."""
        try:
            return await self._screened(scope, messages)
        except Refusal as refusal:
            return refusal

    async def _screened(self, scope: Scope, messages: tuple[Message, ...]) -> pb.ScreenResult:
        try:
            return screened_result(await self._compliance.screen(scope, messages))
        except BlockedText as blocked:
            return blocked_result(blocked.verdict)

    async def Release(  # type: ignore[override] # the stubs know no handler that writes
        self, request_iterator: AsyncIterator[pb.ReleaseRequest], context: Context
    ) -> None:
        """See compliance.proto."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("frame") != "open":
            raise Refusal(Reason.INVALID_FIELD, field="open")
        scope = scope_from_wire(first.open, current().trace)
        if len(first.policy_digest) not in {0, DIGEST_BYTES}:
            raise Refusal(Reason.INVALID_FIELD, field="policy_digest")
        released = self._compliance.release(
            scope, _deltas(request_iterator), policy_digest=first.policy_digest
        )
        with step("compliance.release"):
            async with aclosing(cast("AsyncGenerator[str | Released, None]", released)) as items:
                async for item in items:
                    await context.write(release_frame(item))

    async def Reveal(
        self,
        request: pb.RevealRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.RevealResponse:
        """See compliance.proto."""
        scope = scope_from_wire(request.scope, current().trace)
        names = read_names(request)
        with step("compliance.reveal"):
            return revealed_reply(await self._compliance.reveal(scope, names))


async def _deltas(requests: AsyncIterator[pb.ReleaseRequest]) -> AsyncIterator[str]:
    """Yield the answer's pieces up to `end`.

    Raises:
        Refusal: INVALID_FIELD, for a frame out of turn; also for a stream that breaks off: an
            answer that is not complete must not be released as if it were.
    """
    async for request in requests:
        match request.WhichOneof("frame"):
            case "delta":
                yield request.delta
            case "end":
                return
            case _:
                raise Refusal(Reason.INVALID_FIELD, field="frame")
    raise Refusal(Reason.INVALID_FIELD, field="end")
