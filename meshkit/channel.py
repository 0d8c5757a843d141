"""Channels to a neighbour in the mesh, and what every call over one carries along.

async with channel_to(target, holder.channel_credentials()) as channel:
    stub = CacheServiceStub(channel)
    await stub.Get(request, **carried(reserve_ms=20))
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypedDict

import grpc
from pydantic import BaseModel, ConfigDict, Field

from meshkit.interceptors import current
from meshkit.telemetry import outbound_traceparent
from meshkit.w3c import HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Carried", "Reaching", "carried", "channel_to"]


class Reaching(BaseModel):
    """Limits of a channel, nested in a service's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    reply_bytes_max: int = Field(default=8 * 1_024 * 1_024, gt=0)
    request_bytes_max: int = Field(default=8 * 1_024 * 1_024, gt=0)
    keepalive_ms: int = Field(default=30_000, gt=0, description="Ping a silent neighbour so often.")
    keepalive_timeout_ms: int = Field(default=10_000, gt=0)
    reconnect_max_ms: int = Field(default=2_000, gt=0, description="Longest pause between tries.")

    def options(self) -> list[tuple[str, int]]:
        """Return them by C-core's names."""
        return [
            ("grpc.max_receive_message_length", self.reply_bytes_max),
            ("grpc.max_send_message_length", self.request_bytes_max),
            ("grpc.keepalive_time_ms", self.keepalive_ms),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("grpc.max_reconnect_backoff_ms", self.reconnect_max_ms),
            # A broken call is made again by those who know whether it may be.
            ("grpc.enable_retries", 0),
        ]


@asynccontextmanager
async def channel_to(
    target: str, credentials: grpc.ChannelCredentials, settings: Reaching | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """Own a channel for as long as the block runs. A certificate's end needs a new one."""
    options = (settings or Reaching()).options()
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        yield channel


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
