"""What is known of the RPC that a task serves: who, how, until when, under which trace. PURE."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshkit.contract import Connection, TraceContext
    from meshkit.deadline import Deadline
    from meshkit.identity import Identity

__all__ = ["RequestContext", "current", "with_context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What is known of the RPC being served, before its request was looked at."""

    method: str
    """`/sealgate.v1.GatewayService/Chat`."""
    deadline: Deadline
    trace: TraceContext
    connection: Connection
    identity: Identity | None
    """None for health probes only."""
    certificate_pem: bytes = b""
    """The peer's, as verified in the handshake."""
    metadata: tuple[tuple[str, str | bytes], ...] = ()

    def header(self, name: str) -> str | None:
        """Return a metadata value: None if it is missing, given twice, or binary."""
        found = [value for key, value in self.metadata if key == name]
        return found[0] if len(found) == 1 and isinstance(found[0], str) else None


_CURRENT: ContextVar[RequestContext] = ContextVar("sealgate_request")


def current() -> RequestContext:
    """Return the context of the RPC that this task serves.

    Raises:
        LookupError: it serves none. A bug of ours.
    """
    return _CURRENT.get()


def with_context(context: RequestContext) -> None:
    """Serve under `context` from here on, in this task: for servicers called without a network."""
    _CURRENT.set(context)
