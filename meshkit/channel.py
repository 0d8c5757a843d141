"""Channels to a neighbour in the mesh, and what every call over one carries along.

async with line(target, holder, CacheServiceStub) as cache:
    with cache.stub() as stub:
        await stub.Get(request, **carried(reserve_ms=20))

A channel shows the certificate it was made with for ever (grpc/grpc#41779). So a `Line` makes a new
channel for the first call after the certificate changed, and closes the old one once the calls on
it have ended: no call is lost when a certificate is renewed.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypedDict, TypeVar

import grpc
from pydantic import BaseModel, ConfigDict, Field

from meshkit.interceptors import current
from meshkit.telemetry import outbound_traceparent
from meshkit.w3c import HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from meshkit.tls import Certificate, CertificateHolder

__all__ = ["Carried", "Line", "Reaching", "carried", "channel_to", "line"]

StubT = TypeVar("StubT")

_READY = grpc.ChannelConnectivity.READY
_FAILED = grpc.ChannelConnectivity.TRANSIENT_FAILURE


_AGAIN = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["CANCELLED"],
                },
            }
        ]
    }
)
"""gRPC cancels what reaches a server between its goodbye and the moment that the goodbye arrives:
nobody has seen such a call, and nothing but a cancellation of ours looks the same. So it is made
again, by whoever serves the port then. Other broken calls are made again by those who know whether
they may be."""


class Reaching(BaseModel):
    """Limits of a channel, nested in a service's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    reply_bytes_max: int = Field(default=8 * 1_024 * 1_024, gt=0)
    request_bytes_max: int = Field(default=8 * 1_024 * 1_024, gt=0)
    keepalive_ms: int = Field(default=30_000, gt=0, description="Ping a silent neighbour so often.")
    keepalive_timeout_ms: int = Field(default=10_000, gt=0)
    reconnect_first_ms: int = Field(default=100, gt=0, description="Pause after the first try.")
    reconnect_max_ms: int = Field(default=2_000, gt=0, description="Longest pause between tries.")

    def options(self) -> list[tuple[str, int | str]]:
        """Return them by C-core's names."""
        return [
            ("grpc.max_receive_message_length", self.reply_bytes_max),
            ("grpc.max_send_message_length", self.request_bytes_max),
            ("grpc.keepalive_time_ms", self.keepalive_ms),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout_ms),
            # A keepalive waits behind an older ping of C-core's own, which has 60 s by default.
            ("grpc.http2.ping_timeout_ms", self.keepalive_timeout_ms),
            ("grpc.initial_reconnect_backoff_ms", self.reconnect_first_ms),
            ("grpc.max_reconnect_backoff_ms", self.reconnect_max_ms),
            ("grpc.enable_retries", 1),
            ("grpc.service_config", _AGAIN),
        ]


@asynccontextmanager
async def channel_to(
    target: str, credentials: grpc.ChannelCredentials, settings: Reaching | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """Own a channel for as long as the block runs. A certificate's end needs a new one."""
    options = (settings or Reaching()).options()
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        yield channel


@dataclass(slots=True, eq=False)
class _Wire(Generic[StubT]):
    """A channel, and how many calls are on it."""

    channel: grpc.aio.Channel
    stub: StubT
    certificate: Certificate
    calls: int = 0


class Line(Generic[StubT]):
    """A neighbour's stub, over a channel that is made anew when our certificate is."""

    def __init__(
        self,
        target: str,
        holder: CertificateHolder,
        make_stub: Callable[[grpc.aio.Channel], StubT],
        settings: Reaching,
    ) -> None:
        """Prepare; `line` owns the channels."""
        self._target = target
        self._holder = holder
        self._make_stub = make_stub
        self._options = settings.options()
        self._wire = self._opened()
        self._closing: set[asyncio.Task[None]] = set()
        self.swaps = 0
        """How often a new channel took the place of an old one."""

    @contextmanager
    def stub(self) -> Iterator[StubT]:
        """Yield the stub for one call (or stream), which must end within the block."""
        wire = self._current()
        wire.calls += 1
        try:
            yield wire.stub
        finally:
            wire.calls -= 1
            self._close_if_done(wire)

    @property
    def renewed(self) -> bool:
        """Whether our certificate is a newer one than the channel's: streams should move on."""
        return self._wire.certificate is not self._holder.certificate

    async def connected(self, within_s: float, *, patient: bool = True) -> bool:
        """Whether the neighbour can be reached; waits so long for a connection if there is none.

        Args:
            within_s: The longest wait, in seconds.
            patient: Wait on after a try that failed, as for a neighbour that restarts.
        """
        channel = self._current().channel
        try:
            async with asyncio.timeout(within_s):
                while (state := channel.get_state(try_to_connect=True)) is not _READY:
                    if state is _FAILED and not patient:
                        return False
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Cut off whatever is left."""
        await self._wire.channel.close(None)
        while self._closing:
            await asyncio.wait(self._closing)

    def _current(self) -> _Wire[StubT]:
        if self.renewed:
            old, self._wire = self._wire, self._opened()
            self.swaps += 1
            self._close_if_done(old)
        return self._wire

    def _opened(self) -> _Wire[StubT]:
        certificate = self._holder.certificate
        credentials = self._holder.channel_credentials()
        channel = grpc.aio.secure_channel(self._target, credentials, options=self._options)
        channel.get_state(try_to_connect=True)  # so that the first call need not wait for it
        return _Wire(channel, self._make_stub(channel), certificate)

    def _close_if_done(self, wire: _Wire[StubT]) -> None:
        if wire is self._wire or wire.calls:
            return
        task = asyncio.create_task(wire.channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


@asynccontextmanager
async def line(
    target: str,
    holder: CertificateHolder,
    make_stub: Callable[[grpc.aio.Channel], StubT],
    settings: Reaching | None = None,
) -> AsyncIterator[Line[StubT]]:
    """Own the channels to a neighbour for as long as the block runs.

    Args:
        target: host:port; the host must be in the neighbour's certificate.
        holder: Our own certificate, renewed by `meshkit.tls_renewal`.
        make_stub: A generated stub class.
        settings: Limits of each channel.
    """
    owned = Line(target, holder, make_stub, settings or Reaching())
    try:
        yield owned
    finally:
        await owned.close()


class Carried(TypedDict):
    """Keyword arguments of a call."""

    timeout: float
    metadata: tuple[tuple[str, str], ...]


def carried(*, reserve_ms: int) -> Carried:
    """Return deadline and trace of the RPC being served, for a call to a neighbour.

    Args:
        reserve_ms: Held back, so that a timeout there can still be told and recorded here.

    Raises:
        Refusal: OUT_OF_TIME, if that leaves nothing.
        LookupError: no RPC is being served.
    """
    deadline = current().deadline.shave(reserve_ms)
    header = outbound_traceparent()
    return Carried(
        timeout=deadline.remaining_s, metadata=((HEADER, header),) if header is not None else ()
    )
