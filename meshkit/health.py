"""grpc.health.v1, born down.

grpcio's own servicer starts SERVING, and its `Watch` never ends, so that a single watching balancer
would hold every drain up to its bound. This one starts NOT_SERVING and, once it shuts down, tells
its watchers so and lets them go.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)

from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import grpc

__all__ = ["Health"]


class Health:
    """Health of a server and of the services on it; all of them go up and down together."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Be down. `names` are the services' full names; "" stands for the server."""
        self._names = frozenset({"", *names})
        self._serving = False
        self._gone = False
        self._changed = asyncio.Event()

    def set_serving(self, *, serving: bool) -> None:
        """Change, and wake the watchers. After `shut_down`, nothing changes any more."""
        if self._gone or self._serving is serving:
            return
        self._serving = serving
        self._wake()

    def shut_down(self) -> None:
        """Say NOT_SERVING for good, and end every watch."""
        self._serving, self._gone = False, True
        self._wake()

    async def Check(
        self,
        request: HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002 -- gRPC's signature
    ) -> HealthCheckResponse:
        """Tell how it is now. Raises Refusal: NOT_FOUND, for a service that is not here."""
        if request.service not in self._names:
            raise Refusal(Reason.NOT_FOUND)
        return HealthCheckResponse(status=self._status(request.service))

    async def List(
        self,
        request: HealthListRequest,  # noqa: ARG002 -- gRPC's signature
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002 -- the same
    ) -> HealthListResponse:
        """Tell how each is now."""
        statuses = {n: HealthCheckResponse(status=self._status(n)) for n in self._names}
        return HealthListResponse(statuses=statuses)

    async def Watch(
        self,
        request: HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002 -- gRPC's signature
    ) -> AsyncIterator[HealthCheckResponse]:
        """Tell how it is, and again on each change, until the server shuts down."""
        said = None
        while True:
            changed, gone, status = self._changed, self._gone, self._status(request.service)
            if status != said:
                yield HealthCheckResponse(status=status)
                said = status
            if gone:
                return
            await changed.wait()

    def _status(self, name: str) -> HealthCheckResponse.ServingStatus.ValueType:
        if name not in self._names:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
