"""A model administrator's hand on releases: what there is, load, try, promote, roll back, shadow.

    async with AsyncModels("localhost:50051", tls="tls-models/") as models:
        await models.load("acme-chat", "2")
        await models.canary("acme-chat", "2", percent=5)
        await models.rollback("acme-chat")

Each call is recorded in the audit log, with who made it. docs/releases.md has the states.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import grpc

from meshkit.releasing.wire import release_from_wire
from sealgate._connect import Connection
from sealgate._line import AsyncLine
from sealgate.errors import error_of_rpc
from sealgate.v1 import models_pb2 as pb
from sealgate.v1.models_pb2_grpc import ModelServiceStub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from types import TracebackType
    from typing import TypeVar

    from meshkit.contract import Release, ReleasedVersion
    from sealgate._files import Pem
    from sealgate.v1.models_pb2_grpc import ModelServiceAsyncStub

    _T = TypeVar("_T")

__all__ = ["AsyncModels"]

_PAUSE_S, _PAUSE_MAX_S = 0.2, 5.0
"""Each look is recorded, so there are fewer of them the longer it takes."""


class AsyncModels:
    """Talks to one gateway, as an async context manager. Raises what `sealgate.errors` has."""

    def __init__(
        self,
        target: str,
        *,
        tls: str | Path | None = None,
        ca: Pem | None = None,
        cert: Pem | None = None,
        key: Pem | None = None,
        token: str = "",
        timeout_s: float = 30.0,
        server_name: str | None = None,
    ) -> None:
        """Prepare; nothing is opened or read yet.

        Args:
            target: `host:port` of the gateway.
            tls: Folder with `ca.pem`, `client.pem` and `client.key`; or the three as PEM or paths.
                When files are replaced, the next call shows the new ones; PEM stays as it is.
            ca: Of the gateway's certificate.
            cert: The client's chain.
            key: The client's private key.
            token: The user's JWT, where there is one.
            timeout_s: For each call.
            server_name: In the gateway's certificate, if it is not the host of `target`.
        """
        self._connection = Connection.of(target, tls, (ca, cert, key), server_name=server_name)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout_s = timeout_s
        self._line = AsyncLine(self._connection)
        self._stub: ModelServiceAsyncStub = self._line.stub(ModelServiceStub)

    async def versions(self) -> list[Release]:
        """Return how every model stands. Raises DeniedError: none is yours to look after."""
        reply = await self._told(self._stub.ListVersions, pb.ListVersionsRequest())
        return [release_from_wire(each) for each in reply.releases]

    async def release(self, model: str) -> Release:
        """Return how one model stands."""
        reply = await self._told(self._stub.GetRelease, pb.GetReleaseRequest(model=model))
        return release_from_wire(reply.release)

    async def load(
        self,
        model: str,
        version: str,
        *,
        wait_s: float = 0.0,
        watch: Callable[[ReleasedVersion], None] = lambda _: None,
    ) -> Release:
        """Have a version loaded and warmed up.

        Args:
            model: Its name.
            version: Which.
            wait_s: Look again until it has come to something, so long at most; 0: return at once.
            watch: Told of the version at each look.

        Raises:
            WrongStateError: it is loaded, or was refused for good.
            OverloadedError: another one is being loaded, or too many are.
        """
        request = pb.LoadModelRequest(model=model, version=version)
        reply = await self._told(self._stub.LoadModel, request)
        return await self._awaited(release_from_wire(reply.release), version, wait_s, watch)

    async def unload(self, model: str, version: str) -> Release:
        """Have a version without traffic unloaded. Raises WrongStateError."""
        request = pb.UnloadModelRequest(model=model, version=version)
        reply = await self._told(self._stub.UnloadModel, request)
        return release_from_wire(reply.release)

    async def canary(
        self, model: str, version: str, *, percent: int = 0, replicas: int = 0, seconds: int = 0
    ) -> Release:
        """Try a warm version on some of the traffic; again: on more or less of it, or for longer.

        Args:
            model: Its name.
            version: The candidate.
            percent: Of conversations, 1 to 99.
            replicas: All of so many replicas. Neither: what the service's settings say.
            seconds: For how long; 0: what the settings say.

        Raises:
            WrongStateError: it is not warm, or another one is on trial.
            InvalidRequestError: percent or replicas are out of range.
        """
        request = pb.PromoteModelRequest(
            model=model,
            version=version,
            stage=pb.MODEL_STAGE_CANARY,
            percent=percent,
            replicas=replicas,
            seconds=seconds,
        )
        reply = await self._told(self._stub.PromoteModel, request)
        return release_from_wire(reply.release)

    async def promote(self, model: str, version: str) -> Release:
        """Give a warm version all of the traffic. Raises WrongStateError."""
        request = pb.PromoteModelRequest(model=model, version=version, stage=pb.MODEL_STAGE_LIVE)
        reply = await self._told(self._stub.PromoteModel, request)
        return release_from_wire(reply.release)

    async def rollback(self, model: str) -> Release:
        """End the trial; without one put the version back that was live before.

        Raises:
            WrongStateError: there is nothing to go back to.
        """
        reply = await self._told(self._stub.RollbackModel, pb.RollbackModelRequest(model=model))
        return release_from_wire(reply.release)

    async def shadow(self, model: str, version: str, percent: int) -> Release:
        """Repeat so many per cent of calls on a version that answers for nobody; 0: none."""
        request = pb.SetShadowRequest(model=model, version=version, percent=percent)
        reply = await self._told(self._stub.SetShadow, request)
        return release_from_wire(reply.release)

    async def aclose(self) -> None:
        """Close the connection. Harmless when done again."""
        await self._line.close()

    async def _awaited(
        self,
        release: Release,
        version: str,
        wait_s: float,
        watch: Callable[[ReleasedVersion], None],
    ) -> Release:
        loop = asyncio.get_running_loop()
        ends_s, pause_s = loop.time() + wait_s, _PAUSE_S
        while True:
            found = release.find(version)
            if found is not None:
                watch(found)
            if found is None or not found.loading or loop.time() >= ends_s:
                return release
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _PAUSE_MAX_S)
            release = await self.release(release.model)

    async def _told(self, method: Callable[..., Awaitable[_T]], request: object) -> _T:
        """Wait for a reply; a failure becomes ours."""
        try:
            return await method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as failure:
            raise error_of_rpc(failure) from failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
