"""The audit service over the wire: one stream for all events, made again whenever it breaks.

    async with audit_client(line, limits) as audit:
        appended = await audit.append(event)        # durable, exactly once

A task of its own keeps the stream. Whatever has no ack when it breaks is sent again on the next
one, unchanged: the log takes an event once by its call id and phase. An appender waits `append_ms`
at most, and then knows only that its event may not be durable: AUDIT_DOWN.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import structlog

from meshkit.appends import Appends
from meshkit.background import running
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted
from meshkit.recording.wire import ack_from_wire, append_to_wire, archive_to_wire
from meshkit.status import from_rpc_error
from meshkit.telemetry import outbound_traceparent
from meshkit.w3c import parse_traceparent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meshkit.channel import Line
    from meshkit.contract import Appended, Document, Event

    Stream = grpc.aio.StreamStreamCall[Any, Any]

__all__ = ["AppendLimits", "AuditClient", "audit_client"]

log = structlog.get_logger()

_GROWTH_MAX = 20


class AppendLimits(Protocol):
    """Times and limits of a stream of events; settings hold them under these names."""

    @property
    def connect_ms(self) -> int:
        """How long the audit service is waited for before the next try."""
        ...

    @property
    def append_ms(self) -> int:
        """An event without an ack by then: AUDIT_DOWN."""
        ...

    @property
    def appends_max(self) -> int:
        """Events without an ack; beyond: OVERLOADED."""
        ...

    @property
    def appends_retry_ms(self) -> int:
        """What an OVERLOADED appender is told."""
        ...

    @property
    def append_batch_max(self) -> int:
        """Events in one message."""
        ...

    @property
    def append_pause_ms(self) -> int:
        """Before the stream is made again; doubles up to 20 times it."""
        ...


class AppendStub(Protocol):
    """The part of the generated stub that is used here."""

    def Append(self) -> Stream:
        """Open a stream of batches."""
        ...


class AuditClient:
    """The appending half of `meshkit.contract.Audit`. Made by `audit_client`."""

    def __init__(self, line: Line[Any], limits: AppendLimits) -> None:
        self._line = line
        self._limits = limits
        self._appends = Appends(limits.appends_max, limits.appends_retry_ms)
        self._acks = 0
        self.streams = 0
        """How many were made: 1, and one more each time that one broke or moved on."""

    async def append(self, event: Event) -> Appended:
        """See `meshkit.contract.Audit.append`."""
        pending = self._appends.add(event, sampled=_sampled())
        try:
            async with asyncio.timeout(self._limits.append_ms / 1_000):
                result = await asyncio.shield(pending.done)
        except TimeoutError:
            raise Refusal(Reason.AUDIT_DOWN) from None
        finally:
            self._appends.leave(pending)
        if isinstance(result, Refusal):
            # Each appender gets its own: a refusal carries what happened to it.
            raise Refusal(result.reason, field=result.field, retry_after_ms=result.retry_after_ms)
        return result

    async def archive(self, document: Document) -> None:
        """Keep a document under its digest. May be repeated.

        Raises:
            Refusal: INVALID_FIELD, EVIDENCE_LOST, OVERLOADED, AUDIT_DOWN.
        """
        with self._line.stub() as stub:
            try:
                await stub.Archive(
                    archive_to_wire(document), timeout=self._limits.append_ms / 1_000
                )
            except grpc.aio.AioRpcError as failure:
                raise from_rpc_error(failure, down=Reason.AUDIT_DOWN) from None

    async def keep_streaming(self) -> None:
        """Keep a stream open, for ever."""
        first_s = self._limits.append_pause_ms / 1_000
        pause_s = first_s
        while True:
            acks = self._acks
            await self._stream()
            pause_s = first_s if self._acks > acks else min(pause_s * 2, first_s * _GROWTH_MAX)
            await asyncio.sleep(0 if self._line.renewed else pause_s)

    async def _stream(self) -> None:
        """Send and take acks until the stream breaks, the peer ends it, or it should move on."""
        if not await self._line.connected(self._limits.connect_ms / 1_000):
            return
        with self._line.stub() as stub:
            self.streams += 1
            call: Stream = stub.Append()
            self._appends.rewind()
            reading = asyncio.create_task(self._take_acks(call))
            reading.add_done_callback(lambda _: self._appends.changed.set())
            try:
                await self._send(call, reading)
                await self._last_acks()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as failure:
                _tell(failure)
            finally:
                call.cancel()
                reading.cancel()
                await asyncio.wait([reading])
                if not reading.cancelled():
                    reading.exception()  # told already, where it mattered

    async def _send(self, call: Stream, reading: asyncio.Task[None]) -> None:
        """Send whatever there is, for as long as the peer acks and our certificate is the same."""
        changed = self._appends.changed
        while not self._line.renewed:
            if reading.done():
                reading.result()
                return
            batch = self._appends.take(self._limits.append_batch_max)
            if batch:
                await call.write(append_to_wire(batch))
            else:
                changed.clear()
                await changed.wait()

    async def _last_acks(self) -> None:
        """Wait a while for what was sent: what has no ack then goes by the next stream again."""
        if self._line.renewed and (sent := [each.done for each in self._appends.sent()]):
            await asyncio.wait(sent, timeout=self._limits.append_ms / 1_000)

    async def _take_acks(self, call: Stream) -> None:
        async for reply in call:
            for ack in reply.acks:
                self._acks += 1
                with suppress(KeyError):  # an enum of a newer version: its appender times out
                    self._appends.settle(*ack_from_wire(ack))


def _tell(failure: Exception) -> None:
    counted("audit.stream.broken")
    code = failure.code().name if isinstance(failure, grpc.aio.AioRpcError) else "ENDED"
    log.warning("audit.stream_broken", code=code)


def _sampled() -> bool:
    parent = parse_traceparent(outbound_traceparent())
    return parent is not None and parent.sampled


@asynccontextmanager
async def audit_client(line: Line[Any], limits: AppendLimits) -> AsyncIterator[AuditClient]:
    """Keep a stream to the audit service for as long as the block runs."""
    client = AuditClient(line, limits)
    async with running(client.keep_streaming(), "audit-stream"):
        yield client
