"""The four neighbours over the wire, as the same Protocols that the appliance meets in process.

ComplianceClient   Screen, and Release as a stream of its own for each answer
CacheClient        Get, Put
InferenceClient    Generate; closing the iterator cancels the call, and that stops the engine
meshkit.audit_client has the fourth: one stream for all events, for as long as the gateway runs.

Every call carries the deadline of the RPC being served, less a reserve to record a timeout with,
and its trace. Refusals come back as the peer told them; a peer that cannot be reached, dies half
way or talks nonsense is down, by its own reason. Nothing is sent twice but audit events, whose log
takes each once.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

import grpc
from pydantic import BaseModel, ConfigDict, Field

from gateway.wire import (
    cached_from_wire,
    embedded_from_wire,
    generated_from_wire,
    models_from_wire,
    question_to_wire,
)
from meshkit.channel import Reaching, carried
from meshkit.contract import BlockedText, CacheMiss, Embedded, Ended, Generated, Reason, Refusal
from meshkit.status import from_rpc_error
from meshkit.telemetry import outbound_traceparent
from meshkit.w3c import HEADER
from meshkit.wire import (
    finish_to_wire,
    messages_to_wire,
    parameters_to_wire,
    released_from_wire,
    released_to_wire,
    scope_to_wire,
    screened_from_wire,
    screened_to_wire,
    usage_to_wire,
    verdict_from_wire,
)
from sealgate.v1 import cache_pb2, compliance_pb2, inference_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Sequence

    from meshkit.channel import Line
    from meshkit.contract import (
        CachedAnswer,
        Message,
        ModelInfo,
        Parameters,
        Question,
        Released,
        Scope,
        Screened,
    )
    from sealgate.v1.cache_pb2_grpc import CacheServiceAsyncStub
    from sealgate.v1.compliance_pb2_grpc import ComplianceServiceAsyncStub
    from sealgate.v1.inference_pb2_grpc import InferenceServiceAsyncStub

__all__ = ["CacheClient", "ComplianceClient", "Hops", "InferenceClient"]


class Hops(BaseModel):
    """Times and limits of calls to neighbours: `GATEWAY_HOPS__RESERVE_MS=100`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    reserve_ms: int = Field(
        default=70, ge=0, description="Taken off a call's deadline: a timeout is told from here."
    )
    connect_ms: int = Field(
        default=1_000, ge=0, description="How long a call waits for a neighbour that restarts."
    )
    cache_connect_ms: int = Field(
        default=250, ge=0, description="For the first try to reach the cache; no other is awaited."
    )
    cache_ms: int = Field(
        default=6_000, gt=0, description="The longest look-up; above the cache's own wait_max_ms."
    )
    abandon_ms: int = Field(
        default=1_000, gt=0, description="To give a lease back, also after the call's deadline."
    )
    append_ms: int = Field(
        default=4_000, gt=0, description="An event without an ack by then: AUDIT_DOWN."
    )
    appends_max: int = Field(
        default=4_096, gt=0, description="Events without an ack; beyond: OVERLOADED. 1-100 kB each."
    )
    appends_retry_ms: int = Field(
        default=50, gt=0, description="What an OVERLOADED appender is told."
    )
    append_batch_max: int = Field(
        default=64, ge=1, le=1_024, description="Events in one message; they wait for nobody."
    )
    append_pause_ms: int = Field(
        default=50, gt=0, description="Before the stream is made again; doubles up to 20 times it."
    )
    # A neighbour that hangs answers no ping: its calls end as those of a dead one. Servers take
    # one ping in `ping_interval_min_ms`.
    reaching: Reaching = Reaching.model_validate(
        {"reconnect_max_ms": 500, "keepalive_ms": 12_000, "keepalive_timeout_ms": 5_000}
    )


_Failed = grpc.aio.AioRpcError


class ComplianceClient:
    """Implements `meshkit.contract.Compliance`."""

    def __init__(self, line: Line[ComplianceServiceAsyncStub], hops: Hops) -> None:
        self._line = line
        self._hops = hops

    async def screen(self, scope: Scope, messages: Sequence[Message]) -> Screened:
        """See `meshkit.contract.Compliance.screen`."""
        item = compliance_pb2.ScreenItem(
            scope=scope_to_wire(scope), messages=messages_to_wire(messages)
        )
        await _reach(self._line, self._hops.connect_ms, Reason.COMPLIANCE_DOWN)
        with self._line.stub() as stub:
            try:
                reply = await stub.Screen(
                    compliance_pb2.ScreenRequest(items=[item]),
                    **carried(reserve_ms=self._hops.reserve_ms),
                )
            except _Failed as failure:
                raise from_rpc_error(failure, down=Reason.COMPLIANCE_DOWN) from None
        return _screened(reply)

    async def release(
        self, scope: Scope, deltas: AsyncIterable[str], *, policy_digest: bytes = b""
    ) -> AsyncGenerator[str | Released, None]:
        """See `meshkit.contract.Compliance.release`."""
        with self._line.stub() as stub:
            # No iterator: the answer is written as it comes.
            call = stub.Release(  # type: ignore[call-arg] # the stubs know no call without one
                **carried(reserve_ms=self._hops.reserve_ms)
            )
            opening = compliance_pb2.ReleaseRequest(
                open=scope_to_wire(scope), policy_digest=policy_digest
            )
            sending = asyncio.create_task(_send_deltas(call, opening, deltas))
            try:
                async with aclosing(_released(call, sending)) as items:
                    async for item in items:
                        yield item
            finally:
                call.cancel()
                sending.cancel()
                await asyncio.wait([sending])

    async def reveal(self, scope: Scope, names: Sequence[str]) -> dict[str, str]:
        """See `meshkit.contract.Compliance.reveal`."""
        request = compliance_pb2.RevealRequest(scope=scope_to_wire(scope), names=names)
        await _reach(self._line, self._hops.connect_ms, Reason.COMPLIANCE_DOWN)
        with self._line.stub() as stub:
            try:
                reply = await stub.Reveal(request, **carried(reserve_ms=self._hops.reserve_ms))
            except _Failed as failure:
                raise from_rpc_error(failure, down=Reason.COMPLIANCE_DOWN) from None
        return {token.name: token.value for token in reply.tokens}


def _screened(reply: compliance_pb2.ScreenResponse) -> Screened:
    if len(reply.results) != 1:
        raise Refusal(Reason.COMPLIANCE_DOWN)
    (result,) = reply.results
    try:
        if result.WhichOneof("result") == "screened":
            return screened_from_wire(result.screened)
        verdict = verdict_from_wire(result.blocked)
    except Refusal:
        raise Refusal(Reason.COMPLIANCE_DOWN) from None
    raise BlockedText(verdict)


async def _send_deltas(
    call: grpc.aio.StreamStreamCall[Any, Any],
    opening: compliance_pb2.ReleaseRequest,
    deltas: AsyncIterable[str],
) -> None:
    """Hand the answer over as it comes; whatever fails in `deltas` ends the call too."""
    source = cast("AsyncGenerator[str, None]", aiter(deltas))
    try:
        async with aclosing(source):
            await call.write(opening)
            async for delta in source:
                await call.write(compliance_pb2.ReleaseRequest(delta=delta))
            await call.write(compliance_pb2.ReleaseRequest(end=compliance_pb2.ReleaseRequest.End()))
            await call.done_writing()
    except (_Failed, asyncio.InvalidStateError):
        return  # the call is over: its reader knows why
    except Exception:
        call.cancel()
        raise


async def _released(
    call: grpc.aio.StreamStreamCall[Any, compliance_pb2.ReleaseResponse],
    sending: asyncio.Task[None],
) -> AsyncGenerator[str | Released, None]:
    """Yield what may leave.

    Raises:
        Refusal: COMPLIANCE_DOWN, also for a stream that ends before, or not with, all it released.
    """
    text: list[str] = []
    try:
        async for frame in call:
            if frame.WhichOneof("frame") == "released":
                released = _trusted(frame, "".join(text))
                yield released
                return
            text.append(frame.delta)
            if frame.delta:
                yield frame.delta
    except _Failed as failure:
        raise from_rpc_error(failure, down=Reason.COMPLIANCE_DOWN) from None
    except asyncio.CancelledError:
        _raise_cause(sending)
        raise
    raise Refusal(Reason.COMPLIANCE_DOWN)


def _trusted(frame: compliance_pb2.ReleaseResponse, text: str) -> Released:
    try:
        released = released_from_wire(frame.released)
    except Refusal:
        raise Refusal(Reason.COMPLIANCE_DOWN) from None
    if released.text != text:
        raise Refusal(Reason.COMPLIANCE_DOWN)
    return released


def _raise_cause(sending: asyncio.Task[None]) -> None:
    """Raise why the call was cancelled from here, unless it was us who are cancelled."""
    us = asyncio.current_task()
    if us is not None and us.cancelling():
        return
    if sending.done() and not sending.cancelled() and (cause := sending.exception()) is not None:
        raise cause


class CacheClient:
    """Implements `meshkit.contract.Cache`."""

    def __init__(self, line: Line[CacheServiceAsyncStub], hops: Hops) -> None:
        self._line = line
        self._hops = hops

    async def get(self, question: Question) -> CachedAnswer | CacheMiss:
        """See `meshkit.contract.Cache.get`."""
        connect_s = self._hops.cache_connect_ms / 1_000
        if not await self._line.connected(connect_s, patient=False):
            raise Refusal(Reason.CACHE_DOWN)
        with self._line.stub() as stub:
            try:
                reply = await stub.Get(
                    cache_pb2.GetRequest(question=question_to_wire(question)),
                    timeout=self._time_left_s(),
                    metadata=_trace_header(),
                )
            except _Failed as failure:
                raise from_rpc_error(failure, down=Reason.CACHE_DOWN) from None
        if reply.WhichOneof("result") != "hit":
            return CacheMiss(lease=reply.miss.lease)
        try:
            return cached_from_wire(reply.hit)
        except Refusal:
            raise Refusal(Reason.CACHE_DOWN) from None

    async def put(self, question: Question, lease: bytes, answer: Released, ended: Ended) -> None:
        """See `meshkit.contract.Cache.put`."""
        request = cache_pb2.PutRequest(
            question=question_to_wire(question),
            lease=lease,
            answer=released_to_wire(answer),
            finish_reason=finish_to_wire(ended.finish_reason),
            usage=usage_to_wire(ended.usage),
        )
        await self._put(request, self._time_left_s())

    async def abandon(self, question: Question, lease: bytes) -> None:
        """See `meshkit.contract.Cache.abandon`. Also for calls that have no time left."""
        request = cache_pb2.PutRequest(question=question_to_wire(question), lease=lease)
        await self._put(request, self._hops.abandon_ms / 1_000)

    def _time_left_s(self) -> float:
        """Return what a call to the cache may take. Raises Refusal: OUT_OF_TIME."""
        left_s = carried(reserve_ms=self._hops.reserve_ms)["timeout"]
        return min(left_s, self._hops.cache_ms / 1_000)

    async def _put(self, request: cache_pb2.PutRequest, timeout_s: float) -> None:
        with self._line.stub() as stub:
            try:
                await stub.Put(request, timeout=timeout_s, metadata=_trace_header())
            except _Failed as failure:
                raise from_rpc_error(failure, down=Reason.CACHE_DOWN) from None

    async def purge(
        self, tenant: str, *, session: str = "", model_digest: bytes = b"", subject: str = ""
    ) -> int:
        """See `meshkit.contract.Cache.purge`."""
        request = cache_pb2.PurgeRequest(
            tenant=tenant, session=session, model_digest=model_digest, subject=subject
        )
        with self._line.stub() as stub:
            try:
                reply = await stub.Purge(
                    request,
                    **carried(reserve_ms=self._hops.reserve_ms),
                )
            except _Failed as failure:
                raise from_rpc_error(failure, down=Reason.CACHE_DOWN) from None
        return reply.entries


class InferenceClient:
    """Implements `meshkit.contract.Inference`."""

    def __init__(self, line: Line[InferenceServiceAsyncStub], hops: Hops) -> None:
        self._line = line
        self._hops = hops

    async def models(self) -> tuple[ModelInfo, ...]:
        """See `meshkit.contract.Inference.models`."""
        await _reach(self._line, self._hops.connect_ms, Reason.INFERENCE_DOWN)
        with self._line.stub() as stub:
            try:
                reply = await stub.ListModels(
                    inference_pb2.InferenceServiceListModelsRequest(),
                    **carried(reserve_ms=self._hops.reserve_ms),
                )
            except _Failed as failure:
                raise from_rpc_error(failure, down=Reason.INFERENCE_DOWN) from None
        return models_from_wire(reply)

    async def generate(
        self,
        scope: Scope,
        model: str,
        screened: Screened,
        parameters: Parameters,
        *,
        digest: bytes = b"",
    ) -> AsyncGenerator[Generated | Ended, None]:
        """See `meshkit.contract.Inference.generate`."""
        request = inference_pb2.GenerateRequest(
            scope=scope_to_wire(scope),
            model=model,
            prompt=screened_to_wire(screened),
            parameters=parameters_to_wire(parameters),
            model_digest=digest,
        )
        await _reach(self._line, self._hops.connect_ms, Reason.INFERENCE_DOWN)
        with self._line.stub() as stub:
            call = stub.Generate(request, **carried(reserve_ms=self._hops.reserve_ms))
            try:
                async for frame in call:
                    yield generated_from_wire(frame)
                    if frame.WhichOneof("frame") == "ended":
                        return
            except _Failed as failure:
                raise from_rpc_error(failure, down=Reason.INFERENCE_DOWN) from None
            finally:
                call.cancel()
        raise Refusal(Reason.INFERENCE_DOWN)

    async def embed(self, scope: Scope, model: str, screened: Screened) -> Embedded:
        """See `meshkit.contract.Inference.embed`."""
        request = inference_pb2.EmbedRequest(
            scope=scope_to_wire(scope), model=model, prompt=screened_to_wire(screened)
        )
        await _reach(self._line, self._hops.connect_ms, Reason.INFERENCE_DOWN)
        with self._line.stub() as stub:
            try:
                reply = await stub.Embed(request, **carried(reserve_ms=self._hops.reserve_ms))
            except _Failed as failure:
                raise from_rpc_error(failure, down=Reason.INFERENCE_DOWN) from None
        return embedded_from_wire(reply, len(screened.messages))


async def _reach(line: Line[Any], connect_ms: int, down: Reason) -> None:
    if not await line.connected(connect_ms / 1_000):
        raise Refusal(down)


def _trace_header() -> tuple[tuple[str, str], ...]:
    header = outbound_traceparent()
    return ((HEADER, header),) if header is not None else ()
