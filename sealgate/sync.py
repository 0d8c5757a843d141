"""The synchronous client: `sealgate.client` without `await`; what is not I/O is shared."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self, Unpack, cast

import grpc

from meshkit.wire import model_from_wire
from sealgate._base import BaseClient, BaseStream
from sealgate._line import ThreadLine
from sealgate.errors import BrokenStreamError, error_of_rpc
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1.gateway_pb2_grpc import GatewayServiceStub

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from meshkit.contract import Message, ModelInfo
    from meshkit.status import RpcFailure
    from sealgate._connect import Connection
    from sealgate._shape import ChatOptions, ChatResult, Fold, Prepared, Tries

__all__ = ["Client", "Stream"]


class Client(BaseClient):
    """Talks to one gateway over one connection, which it opens when it is first needed.

    Use it as a context manager, or call `close`. Safe to share between threads. When its files are
    replaced, it opens another connection for the calls that follow; those under way end on theirs.
    """

    def _reach(self, connection: Connection) -> None:
        self._line = ThreadLine(connection)
        self._stub = self._line.stub(GatewayServiceStub)

    def chat(
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
                reply = self._stub.Chat(
                    call.request, timeout=call.timeout_s, metadata=call.metadata
                )
            except grpc.RpcError as failure:
                time.sleep(tries.after(_failed(failure), begun=False))
            else:
                return fold.whole(reply)

    def stream(
        self,
        messages: str | Sequence[Message | Mapping[str, str]],
        *,
        model: str,
        **options: Unpack[ChatOptions],
    ) -> Stream:
        """Ask, and iterate over the answer as it comes. Nothing is sent before the first piece."""
        return Stream(self._stub, *self._begun(messages, model, options))

    def models(self) -> tuple[ModelInfo, ...]:
        """List what this caller may ask. Raises SealgateError."""
        try:
            reply = self._stub.ListModels(
                pb.ListModelsRequest(), timeout=self._timeout_s, metadata=self._metadata()
            )
        except grpc.RpcError as failure:
            raise error_of_rpc(_failed(failure)) from failure
        return tuple(model_from_wire(model) for model in reply.models)

    def close(self) -> None:
        """Close the connection; calls under way are cancelled. Harmless when done again."""
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Call(Protocol):
    """A server stream of synchronous gRPC, which its stubs type as an iterator only."""

    def __next__(self) -> pb.ChatStreamResponse: ...
    def cancel(self) -> bool: ...


def _failed(failure: grpc.RpcError) -> RpcFailure:
    """Every RpcError that a call raises is that call, too; its stubs do not say so."""
    return cast("RpcFailure", failure)


class Stream(BaseStream):
    """An answer on its way: iterate for its text, then see `result`.

    `close` (or leaving `with`) before the end cancels the call, which stops the engine. So does
    dropping it.
    """

    def __init__(self, stub: GatewayServiceStub, call: Prepared, fold: Fold, tries: Tries) -> None:
        super().__init__(call, fold, tries)
        self._stub = stub
        self._call: _Call | None
        self._call = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._over:
            raise StopIteration
        try:
            piece = self._next()
        except BaseException:
            self.close()
            raise
        if piece is None:
            self.close()
            raise StopIteration
        return piece

    def _next(self) -> str | None:
        while not self._over:
            call = self._opened()
            try:
                frame = next(call)
            except StopIteration:
                raise BrokenStreamError from None
            except grpc.RpcError as failure:
                time.sleep(self._tries.after(_failed(failure), begun=self._fold.begun))
                self._call = None
            else:
                piece = self._fold.take(frame)
                if piece is None:
                    # See AsyncStream.
                    with suppress(grpc.RpcError):
                        next(call, None)
                return piece
        return None

    def _opened(self) -> _Call:
        if self._call is None:
            call = self._stub.ChatStream(
                pb.ChatStreamRequest(chat=self._prepared.request),
                timeout=self._prepared.timeout_s,
                metadata=self._prepared.metadata,
            )
            self._call = cast("_Call", call)
        return self._call

    def close(self) -> None:
        """End the stream here; cancels the call if it is still under way."""
        self._over = True
        if self._call is not None:
            self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
