"""gRPC at the models' desk: requests become steps, releases become answers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from meshkit.releasing.wire import read_model, release_to_wire, step_from_wire
from sealgate.v1 import models_pb2 as pb
from sealgate.v1.models_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from gateway.arrival import Arrival
    from gateway.releases.desk import ModelDesk
    from meshkit.releasing.wire import StepRequest

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["SERVICE", "ModelServicer"]

SERVICE = "sealgate.v1.ModelService"


class ModelServicer(ModelServiceServicer):
    """The methods of models.proto over one desk.

    Args:
        desk: Decides, records, asks inference.
        arrive: Makes the call at the door of what the handshake and the metadata say.
    """

    def __init__(self, desk: ModelDesk, arrive: Callable[[str], Arrival]) -> None:
        self._desk = desk
        self._arrive = arrive

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve these methods on `server`."""
        add_ModelServiceServicer_to_server(self, server)

    async def ListVersions(
        self,
        request: pb.ListVersionsRequest,  # noqa: ARG002 -- empty
        context: Context,  # noqa: ARG002 -- all of it is in `current()`
    ) -> pb.ListVersionsResponse:
        """See models.proto."""
        found = await self._desk.read(self._arrive("model.read"))
        return pb.ListVersionsResponse(releases=[release_to_wire(each) for each in found])

    async def GetRelease(
        self,
        request: pb.GetReleaseRequest,
        context: Context,  # noqa: ARG002 -- as above
    ) -> pb.GetReleaseResponse:
        """See models.proto."""
        found = await self._desk.read(
            self._arrive("model.read"), partial(read_model, request.model)
        )
        return pb.GetReleaseResponse(release=release_to_wire(found[0]))

    async def LoadModel(
        self,
        request: pb.LoadModelRequest,
        context: Context,  # noqa: ARG002 -- as above
    ) -> pb.LoadModelResponse:
        """See models.proto."""
        return pb.LoadModelResponse(release=await self._taken("model.load", request))

    async def UnloadModel(
        self,
        request: pb.UnloadModelRequest,
        context: Context,  # noqa: ARG002 -- as above
    ) -> pb.UnloadModelResponse:
        """See models.proto."""
        return pb.UnloadModelResponse(release=await self._taken("model.unload", request))

    async def PromoteModel(
        self,
        request: pb.PromoteModelRequest,
        context: Context,  # noqa: ARG002 -- as above
    ) -> pb.PromoteModelResponse:
        """See models.proto. To try a version is one thing, to make it live another."""
        trial = request.stage == pb.MODEL_STAGE_CANARY
        action = "model.canary" if trial else "model.promote"
        return pb.PromoteModelResponse(release=await self._taken(action, request))

    async def RollbackModel(
        self,
        request: pb.RollbackModelRequest,
        context: Context,  # noqa: ARG002 -- as above
    ) -> pb.RollbackModelResponse:
        """See models.proto."""
        return pb.RollbackModelResponse(release=await self._taken("model.rollback", request))

    async def SetShadow(
        self,
        request: pb.SetShadowRequest,
        context: Context,  # noqa: ARG002 -- as above
    ) -> pb.SetShadowResponse:
        """See models.proto."""
        return pb.SetShadowResponse(release=await self._taken("model.shadow", request))

    async def _taken(self, action: str, request: StepRequest) -> pb.ModelRelease:
        release = await self._desk.take(self._arrive(action), partial(step_from_wire, request))
        return release_to_wire(release)
