"""The asynchronous client. `sealgate.sync` is the same without `await`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self, Unpack

import grpc

from meshkit.wire import model_from_wire
from sealgate._base import BaseClient, BaseStream
from sealgate._line import AsyncLine
from sealgate.errors import BrokenStreamError, error_of_rpc
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1.gateway_pb2_grpc import GatewayServiceStub

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from meshkit.contract import Message, ModelInfo
    from sealgate._connect import Connection
    from sealgate._shape import ChatOptions, ChatResult, Fold, Prepared, Tries
    from sealgate.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

__all__ = ["AsyncClient", "AsyncStream"]


class AsyncClient(BaseClient):
    """Talks to one gateway over one connection, which it opens when it is first needed.

    Use it as an async context manager, or call `aclose`. It belongs to the event loop that it is
    first used in. Safe to share between tasks. When its files are replaced, it opens another
    connection for the calls that follow; those under way end on theirs.
    """

    def _reach(self, connection: Connection) -> None:
        self._line = AsyncLine(connection)
        self._stub: GatewayServiceAsyncStub = self._line.stub(GatewayServiceStub)

    async def chat(
        self,
        messages: str | Sequence[Message | Mapping[str, str]],
        *,
        model: str,
        **options: Unpack[ChatOptions],
    ) -> ChatResult:
        """Ask, and wait for all of the answer.

        Raises:
            SealgateError: see `sealgate.errors`.
        """
        call, fold, tries = self._begun(messages, model, options)
        while True:
            try:
                reply = await self._stub.Chat(
                    call.request, timeout=call.timeout_s, metadata=call.metadata
                )
            except grpc.aio.AioRpcError as failure:
                await asyncio.sleep(tries.after(failure, begun=False))
            else:
                return fold.whole(reply)

    def stream(
        self,
        messages: str | Sequence[Message | Mapping[str, str]],
        *,
        model: str,
        **options: Unpack[ChatOptions],
    ) -> AsyncStream:
        """Ask, and iterate over the answer as it comes. Nothing is sent before the first piece."""
        return AsyncStream(self._stub, *self._begun(messages, model, options))

    async def models(self) -> tuple[ModelInfo, ...]:
        """List what this caller may ask. Raises SealgateError."""
        try:
            reply = await self._stub.ListModels(
                pb.ListModelsRequest(), timeout=self._timeout_s, metadata=self._metadata()
            )
        except grpc.aio.AioRpcError as failure:
            raise error_of_rpc(failure) from failure
        return tuple(model_from_wire(model) for model in reply.models)

    async def aclose(self) -> None:
        """Close the connection; calls under way are cancelled. Harmless when done again."""
        await self._line.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class AsyncStream(BaseStream):
    """An answer on its way: iterate for its text, then see `result`.

    `aclose` (or leaving `async with`) before the end cancels the call, which stops the engine. So
    does dropping it.
    """

    _call: grpc.aio.UnaryStreamCall[pb.ChatStreamRequest, pb.ChatStreamResponse] | None = None
    _loop: asyncio.AbstractEventLoop

    def __init__(
        self, stub: GatewayServiceAsyncStub, call: Prepared, fold: Fold, tries: Tries
    ) -> None:
        super().__init__(call, fold, tries)
        self._stub = stub

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._over:
            raise StopAsyncIteration
        try:
            piece = await self._next()
        except BaseException:
            await self.aclose()
            raise
        if piece is None:
            await self.aclose()
            raise StopAsyncIteration
        return piece

    async def _next(self) -> str | None:
        while not self._over:
            call = self._opened()
            try:
                frame = await call.read()
            except grpc.aio.AioRpcError as failure:
                await asyncio.sleep(self._tries.after(failure, begun=self._fold.begun))
                self._call = None
                continue
            if not isinstance(frame, pb.ChatStreamResponse):
                raise BrokenStreamError
            piece = self._fold.take(frame)
            if piece is None:
                # Wait for the status, else we would cancel a call that is over; whatever it is, the
                # final frame has said how it went.
                with suppress(grpc.aio.AioRpcError):
                    await call.read()
            return piece
        return None

    def _opened(self) -> grpc.aio.UnaryStreamCall[pb.ChatStreamRequest, pb.ChatStreamResponse]:
        if self._call is None:
            self._loop = asyncio.get_running_loop()
            self._call = self._stub.ChatStream(
                pb.ChatStreamRequest(chat=self._prepared.request),
                timeout=self._prepared.timeout_s,
                metadata=self._prepared.metadata,
            )
        return self._call

    async def aclose(self) -> None:
        """End the stream here; cancels the call if it is still under way."""
        self._over = True
        # It is let go, too: a call of gRPC's holds its connection for as long as it is held.
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def __del__(self) -> None:
        # A call lives on without its stream, to its deadline; and any thread may collect a stream.
        if self._call is not None and not self._call.done():
            with suppress(RuntimeError):  # the loop is closed, and its calls have ended with it
                self._loop.call_soon_threadsafe(self._call.cancel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
