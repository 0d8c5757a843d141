"""How servicers are added to a server so that each of their methods is wrapped, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Handler = grpc.RpcMethodHandler[Any, Any]
    Lookup = grpc.GenericRpcHandler[Any, Any]
    Wrap = Callable[[str, Handler], Handler]
else:
    Lookup = grpc.GenericRpcHandler  # generic in its stubs only

__all__ = ["Registration", "behaviour_of"]


class Registration:
    """The part of a server that generated `add_…_to_server` use; wraps every method.

    gRPC's own interceptors would do, at 50 us a call: they run once a call, this once a method.
    """

    def __init__(self, wrapped: Wrap, server: grpc.aio.Server) -> None:
        self._wrapped = wrapped
        self._inner = server

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Lookup]) -> None:
        """Add lookups; called by generated code and by hand."""
        self._inner.add_generic_rpc_handlers(
            tuple(_Lookup(self._wrapped, each) for each in generic_rpc_handlers)
        )

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Add the methods of one service; called by generated code."""
        wrapped = {
            name: self._wrapped(f"/{service_name}/{name}", handler)
            for name, handler in method_handlers.items()
            if not _is_unwritten(handler)
        }
        # Missing in gRPC's stubs.
        self._inner.add_registered_method_handlers(service_name, wrapped)  # type: ignore[attr-defined] # see above


class _Lookup(Lookup):
    """Finds what `inner` finds, wrapped."""

    def __init__(self, wrapped: Wrap, inner: Lookup) -> None:
        self._wrapped = wrapped
        self._inner = inner

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        handler = self._inner.service(handler_call_details)
        if handler is None or _is_unwritten(handler):
            return None
        return self._wrapped(handler_call_details.method, handler)


def behaviour_of(handler: Handler) -> Callable[..., Any]:
    """Return the function that serves a method."""
    found = handler.unary_unary or handler.unary_stream
    return cast("Callable[..., Any]", found or handler.stream_unary or handler.stream_stream)


def _is_unwritten(handler: Handler) -> bool:
    """Whether a servicer left a method to its generated base: then it is not served at all."""
    return behaviour_of(handler).__module__.endswith("_pb2_grpc")
