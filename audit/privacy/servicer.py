"""gRPC at the payloads: tenants' workloads, each method behind a policy action of its own.

ReadPayload payload.read, ExportSubject payload.export, EraseSubject payload.erase, SetHold
hold.set, ReleaseHold hold.release, ListHolds hold.list. What is done is recorded by
`audit.privacy.erasure`, what is refused by `audit.records.reads`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from audit.privacy.wire import hold_to_wire, item_to_wire, scope_from_wire
from meshkit.contract import Reason, Refusal
from meshkit.request import current
from sealgate.v1 import payloads_pb2 as pb
from sealgate.v1.payloads_pb2_grpc import (
    PayloadServiceServicer,
    add_PayloadServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from audit.privacy.erasure import Custody
    from audit.records.reads import Reads

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["PayloadServicer"]

_ID_BYTES = 16


class PayloadServicer(PayloadServiceServicer):
    """The methods of payloads.proto over one log's custody."""

    def __init__(self, custody: Custody, reads: Reads) -> None:
        self._custody = custody
        self._reads = reads

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have `server` serve it."""
        add_PayloadServiceServicer_to_server(self, server)

    async def ReadPayload(
        self,
        request: pb.ReadPayloadRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.ReadPayloadResponse:
        """See payloads.proto."""
        actor, tenant = await self._reads.let("payload.read", request.tenant)
        _demand_id(request.call_id, "call_id")
        items = await self._custody.read_payload(
            tenant, request.call_id, actor=actor, connection=current().connection
        )
        return pb.ReadPayloadResponse(items=[item_to_wire(item) for item in items])

    async def ExportSubject(
        self,
        request: pb.ExportSubjectRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> AsyncIterator[pb.ExportSubjectResponse]:
        """See payloads.proto."""
        actor, tenant = await self._reads.let("payload.export", request.tenant)
        async for item in self._custody.export_subject(
            tenant, request.subject, actor=actor, connection=current().connection
        ):
            yield pb.ExportSubjectResponse(item=item_to_wire(item))

    async def EraseSubject(
        self,
        request: pb.EraseSubjectRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.EraseSubjectResponse:
        """See payloads.proto."""
        actor, tenant = await self._reads.let("payload.erase", request.tenant)
        erased = await self._custody.erase_subject(
            tenant, request.subject, actor=actor, connection=current().connection
        )
        return pb.EraseSubjectResponse(
            payloads=erased.payloads,
            keys=erased.keys,
            cached=erased.cached,
            call_id=erased.call_id,
            index=erased.index,
            proof=erased.proof,
        )

    async def SetHold(
        self,
        request: pb.SetHoldRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.SetHoldResponse:
        """See payloads.proto."""
        actor, tenant = await self._reads.let("hold.set", request.tenant)
        scope = scope_from_wire(request.scope)
        hold = await self._custody.set_hold(
            tenant,
            scope,
            request.value,
            request.reference,
            actor=actor,
            connection=current().connection,
        )
        return pb.SetHoldResponse(hold=hold_to_wire(hold))

    async def ReleaseHold(
        self,
        request: pb.ReleaseHoldRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.ReleaseHoldResponse:
        """See payloads.proto."""
        actor, tenant = await self._reads.let("hold.release", request.tenant)
        _demand_id(request.id, "id")
        await self._custody.release_hold(
            tenant, request.id, actor=actor, connection=current().connection
        )
        return pb.ReleaseHoldResponse()

    async def ListHolds(
        self,
        request: pb.ListHoldsRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.ListHoldsResponse:
        """See payloads.proto."""
        actor, tenant = await self._reads.let("hold.list", request.tenant)
        holds = await self._custody.holds(tenant, actor=actor, connection=current().connection)
        return pb.ListHoldsResponse(holds=[hold_to_wire(hold) for hold in holds])


def _demand_id(given: bytes, field: str) -> None:
    if len(given) != _ID_BYTES:
        raise Refusal(Reason.INVALID_FIELD, field=field)
