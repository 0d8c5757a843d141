"""gRPC at inference: open to the gateway alone. Every prompt's MAC is checked by the service."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from inference.wire import embed_reply, frame, models_reply, read_asked, read_embed, releases_reply
from meshkit.contract import Reason, Refusal
from meshkit.identity import ServiceIdentity
from meshkit.interceptors import current
from meshkit.releasing.wire import release_to_wire, taken_from_wire
from meshkit.telemetry import step
from sealgate.v1 import inference_pb2
from sealgate.v1.inference_pb2_grpc import InferenceServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import grpc

    from meshkit.contract import Ended, Generated, Inference, ReleaseDesk
    from meshkit.identity import Identity
    from sealgate.v1 import inference_pb2 as pb

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["SERVICE", "InferenceServicer", "admits"]

SERVICE = "sealgate.v1.InferenceService"


def admits(identity: Identity, method: str) -> bool:  # noqa: ARG001 -- the interceptor's signature
    """Whether a peer may call us: the gateway, and nobody else."""
    return isinstance(identity, ServiceIdentity) and identity.name == "gateway"


class InferenceServicer(InferenceServiceServicer):
    """The methods of inference.proto over one service object, and the desk of its releases."""

    def __init__(self, inference: Inference, desk: ReleaseDesk | None = None) -> None:
        self._inference = inference
        self._desk = desk

    async def Generate(  # type: ignore[override] # the stubs know no handler that writes
        self, request: pb.GenerateRequest, context: Context
    ) -> None:
        """See inference.proto. A cancelled call cancels this task, and that closes the engine's."""
        asked = read_asked(request, current().trace)
        items = self._inference.generate(
            asked.scope, asked.model, asked.screened, asked.parameters, digest=asked.digest
        )
        with step("inference.generate"):
            async with aclosing(cast("AsyncGenerator[Generated | Ended, None]", items)) as pieces:
                async for item in pieces:
                    await context.write(frame(item))

    async def Embed(
        self,
        request: pb.EmbedRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.EmbedResponse:
        """See inference.proto."""
        asked = read_embed(request, current().trace)
        with step("inference.embed"):
            embedded = await self._inference.embed(asked.scope, asked.model, asked.screened)
        return embed_reply(embedded)

    async def ListModels(
        self,
        request: pb.InferenceServiceListModelsRequest,  # noqa: ARG002 -- empty
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.InferenceServiceListModelsResponse:
        """See inference.proto."""
        return models_reply(await self._inference.models())

    async def ListReleases(
        self,
        request: pb.ListReleasesRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.ListReleasesResponse:
        """See inference.proto."""
        return releases_reply(await self._releases().releases(request.model))

    async def TakeStep(
        self,
        request: pb.TakeStepRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.TakeStepResponse:
        """See inference.proto."""
        asked = taken_from_wire(request)
        release = await self._releases().take(asked)
        return inference_pb2.TakeStepResponse(release=release_to_wire(release))

    def _releases(self) -> ReleaseDesk:
        if self._desk is None:
            raise Refusal(Reason.NOT_FOUND)
        return self._desk
