"""gRPC at the door: what the handshake and the metadata say becomes an `Arrival`, no more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from gateway.arrival import Arrival, certified, now_us
from gateway.wire import (
    delta_frame,
    final_frame,
    models_reply,
    read_chat,
    read_purpose,
    whole_answer,
)
from meshkit.call_id import new_call_id
from meshkit.contract import Reason, Refusal
from meshkit.deadline import Deadline
from meshkit.identity import TenantIdentity
from meshkit.interceptors import current
from sealgate.v1.gateway_pb2_grpc import (
    GatewayServiceServicer,
    add_GatewayServiceServicer_to_server,
)

if TYPE_CHECKING:
    from gateway.pipeline import Pipeline
    from meshkit.contract import Actor, Call
    from meshkit.identity import Identity
    from sealgate.v1 import gateway_pb2 as pb

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["GatewayServicer", "admits", "arrival_of"]

_BEARER = "bearer "


def admits(identity: Identity, method: str) -> bool:  # noqa: ARG001 -- the interceptor's signature
    """Whether a peer may call us at all: tenants' workloads, no service of ours."""
    return isinstance(identity, TenantIdentity)


class GatewayServicer(GatewayServiceServicer):
    """The three methods of gateway.proto over one pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._reserve_s = pipeline.settings.reply_reserve_ms / 1_000

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve these methods on `server`."""
        add_GatewayServiceServicer_to_server(self, server)

    async def Chat(
        self,
        request: pb.ChatRequest,
        context: Context,  # noqa: ARG002 -- all of it is in `current()`
    ) -> pb.ChatResponse:
        """See gateway.proto."""
        read = partial(_read, request, current().header("sealgate-purpose"))
        arrival = self._arrival("chat")
        answer = await self._pipeline.answer(arrival, partial(read, arrival))
        return whole_answer(answer)

    async def ChatStream(  # type: ignore[override] # the stubs know no handler that writes
        self, request: pb.ChatStreamRequest, context: Context
    ) -> None:
        """See gateway.proto. Writes by itself, so that a cancel finds the pipeline where it is."""

        async def deliver(text: str) -> None:
            try:
                await context.write(delta_frame(text))
            except grpc.aio.InternalError:  # the connection is gone, and its cancel on the way
                raise Refusal(Reason.CANCELLED) from None

        read = partial(_read, request.chat, current().header("sealgate-purpose"))
        arrival = self._arrival("chat.stream")
        answer = await self._pipeline.answer(arrival, partial(read, arrival), deliver)
        await context.write(final_frame(answer))

    async def ListModels(
        self,
        request: pb.ListModelsRequest,  # noqa: ARG002 -- empty
        context: Context,  # noqa: ARG002 -- all of it is in `current()`
    ) -> pb.ListModelsResponse:
        """See gateway.proto."""
        return models_reply(await self._pipeline.models(self._arrival("models.list")))

    def _arrival(self, action: str) -> Arrival:
        return arrival_of(action, self._reserve_s)


def arrival_of(action: str, reserve_s: float) -> Arrival:
    """Return the call that is being served as it stands at the door.

    Raises:
        Refusal: UNAUTHENTICATED: no tenant's certificate.
    """
    rpc = current()
    if not isinstance(rpc.identity, TenantIdentity):
        raise Refusal(Reason.UNAUTHENTICATED)
    return Arrival(
        call_id=new_call_id(),
        action=action,
        received_at_us=now_us(),
        trace=rpc.trace,
        peer=rpc.identity,
        certified=certified(rpc.certificate_pem),
        connection=rpc.connection,
        deadline=Deadline(rpc.deadline.at_s - reserve_s),
        token=_bearer(rpc.metadata),
    )


def _read(request: pb.ChatRequest, purpose: str | None, arrival: Arrival, actor: Actor) -> Call:
    return read_chat(request, arrival, actor, read_purpose(purpose))


def _bearer(metadata: tuple[tuple[str, str | bytes], ...]) -> str:
    """Return the token; what is no single bearer token is one that nobody can believe."""
    given = [value for key, value in metadata if key == "authorization"]
    if not given:
        return ""
    if len(given) == 1 and isinstance(given[0], str) and given[0].lower().startswith(_BEARER):
        return given[0][len(_BEARER) :].strip() or "-"
    return "-"
