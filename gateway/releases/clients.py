"""Releases over the wire: inference's, as the gateway asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import grpc

from meshkit.channel import carried
from meshkit.contract import Reason, Refusal
from meshkit.releasing.wire import release_from_wire, step_to_wire
from meshkit.status import from_rpc_error
from sealgate.v1 import inference_pb2, models_pb2

if TYPE_CHECKING:
    from meshkit.channel import Line
    from meshkit.contract import Release, ReleaseStep
    from sealgate.v1.inference_pb2_grpc import InferenceServiceAsyncStub

__all__ = ["ReleasesClient"]

_STEPS = {
    models_pb2.LoadModelRequest: "load",
    models_pb2.UnloadModelRequest: "unload",
    models_pb2.PromoteModelRequest: "promote",
    models_pb2.RollbackModelRequest: "rollback",
    models_pb2.SetShadowRequest: "shadow",
}


class _Reach(Protocol):
    """The part of `gateway.clients.Hops` that is used here."""

    @property
    def reserve_ms(self) -> int: ...
    @property
    def connect_ms(self) -> int: ...


class ReleasesClient:
    """Implements `meshkit.contract.ReleaseDesk`."""

    def __init__(self, line: Line[InferenceServiceAsyncStub], hops: _Reach) -> None:
        self._line = line
        self._hops = hops

    async def releases(self, model: str = "") -> tuple[Release, ...]:
        """See `meshkit.contract.ReleaseDesk.releases`."""
        request = inference_pb2.ListReleasesRequest(model=model)
        reply = await self._asked("ListReleases", request)
        return tuple(release_from_wire(each) for each in reply.releases)

    async def take(self, step: ReleaseStep) -> Release:
        """See `meshkit.contract.ReleaseDesk.take`."""
        asked = step_to_wire(step)
        request = inference_pb2.TakeStepRequest()
        getattr(request, _STEPS[type(asked)]).MergeFrom(asked)
        getattr(request, _STEPS[type(asked)]).SetInParent()
        return release_from_wire((await self._asked("TakeStep", request)).release)

    async def _asked(self, method: str, request: object) -> Any:  # noqa: ANN401 -- the stub's reply
        if not await self._line.connected(self._hops.connect_ms / 1_000):
            raise Refusal(Reason.INFERENCE_DOWN)
        with self._line.stub() as stub:
            try:
                ask = getattr(stub, method)
                return await ask(request, **carried(reserve_ms=self._hops.reserve_ms))
            except grpc.aio.AioRpcError as failure:
                raise from_rpc_error(failure, down=Reason.INFERENCE_DOWN) from None
