"""A privacy officer's hand on what was said: read it, export it, erase it, hold it.

    async with AsyncPayloads("localhost:50055", tls="tls-privacy/") as payloads:
        erased = await payloads.erase("p-4711")
        Path("erased.tlog-proof").write_text(erased.proof)

Every call is recorded in the audit log, with who made it. `sealgate audit check` reads the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import grpc

from meshkit.contract import Message, Refusal
from meshkit.wire import messages_from_wire
from sealgate._connect import Connection
from sealgate._line import AsyncLine
from sealgate.errors import InternalError, InvalidRequestError, error_of_rpc
from sealgate.v1 import payloads_pb2 as pb
from sealgate.v1.payloads_pb2_grpc import PayloadServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path
    from types import TracebackType
    from typing import TypeVar

    from sealgate._files import Pem
    from sealgate.v1.payloads_pb2_grpc import PayloadServiceAsyncStub

    _T = TypeVar("_T")

__all__ = ["AsyncPayloads", "Erasure", "KeptPayload", "LegalHold"]

_SCOPES = {
    "tenant": pb.HOLD_SCOPE_TENANT,
    "class": pb.HOLD_SCOPE_CLASS,
    "subject": pb.HOLD_SCOPE_SUBJECT,
    "call": pb.HOLD_SCOPE_CALL,
}
_SCOPE_NAMES = {number: name for name, number in _SCOPES.items()}
_ERASE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPayload:
    """What was kept of one event: the prompt as screened, the answer as released, the salts."""

    index: int
    call_id: bytes
    received_us: int
    retention: str
    screened: tuple[Message, ...]
    released: str
    salts: dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What an erasure took. proof: of its record; empty if no checkpoint covered it in time."""

    payloads: int
    keys: int
    cached: int
    call_id: bytes
    index: int
    proof: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalHold:
    """A hold. scope: `tenant`, `class`, `subject` or `call`."""

    id: bytes
    scope: str
    value: str
    reference: str
    set_us: int


class AsyncPayloads:
    """Talks to one audit service, as an async context manager. Raises what `sealgate.errors` has.

    A tenant that is left empty is the caller's own.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: str | Path | None = None,
        ca: Pem | None = None,
        cert: Pem | None = None,
        key: Pem | None = None,
        timeout_s: float = 30.0,
        server_name: str | None = None,
    ) -> None:
        """Prepare; nothing is opened or read yet. See `AsyncAuditReader`."""
        self._connection = Connection.of(target, tls, (ca, cert, key), server_name=server_name)
        self._timeout_s = timeout_s
        self._line = AsyncLine(self._connection)
        self._stub: PayloadServiceAsyncStub = self._line.stub(PayloadServiceStub)

    async def read(self, call_id: bytes, *, tenant: str = "") -> list[KeptPayload]:
        """Return the payloads of a call. Raises NotFoundError: none, expired, or erased."""
        request = pb.ReadPayloadRequest(tenant=tenant, call_id=call_id)
        reply = await _told(self._stub.ReadPayload(request, timeout=self._timeout_s))
        return [_kept(item) for item in reply.items]

    async def export(self, subject: str, *, tenant: str = "") -> AsyncIterator[KeptPayload]:
        """Yield all payloads about a subject, in the order of the log."""
        request = pb.ExportSubjectRequest(tenant=tenant, subject=subject)
        call = self._stub.ExportSubject(request)
        try:
            async for reply in call:
                yield _kept(reply.item)
        except grpc.aio.AioRpcError as failure:
            raise error_of_rpc(failure) from failure
        finally:
            call.cancel()  # it has no deadline, and whoever stops here wants no more of it

    async def erase(self, subject: str, *, tenant: str = "") -> Erasure:
        """Erase all that is kept about a subject.

        Raises:
            HeldError: a legal hold stands against it.
            UnavailableError: not finished, and gone on with by itself; ask again to have the proof.
        """
        request = pb.EraseSubjectRequest(tenant=tenant, subject=subject)
        timeout_s = max(self._timeout_s, _ERASE_S)
        reply = await _told(self._stub.EraseSubject(request, timeout=timeout_s))
        return Erasure(
            payloads=reply.payloads,
            keys=reply.keys,
            cached=reply.cached,
            call_id=reply.call_id,
            index=reply.index,
            proof=reply.proof,
        )

    async def set_hold(
        self, scope: str, value: str, reference: str, *, tenant: str = ""
    ) -> LegalHold:
        """Keep payloads from retention and erasure.

        Args:
            scope: `tenant`, `class`, `subject` or `call`.
            value: Which: nothing, a retention class, a subject's id, a call id in hexadecimal.
            reference: Why: such as a case number.
            tenant: Whose.
        """
        if scope not in _SCOPES:
            msg = "a hold is on a tenant, class, subject or call"
            raise InvalidRequestError(msg, field="scope")
        request = pb.SetHoldRequest(
            tenant=tenant, scope=_SCOPES[scope], value=value, reference=reference
        )
        reply = await _told(self._stub.SetHold(request, timeout=self._timeout_s))
        return _hold(reply.hold)

    async def release_hold(self, hold_id: bytes, *, tenant: str = "") -> None:
        """Release a hold. Raises NotFoundError."""
        request = pb.ReleaseHoldRequest(tenant=tenant, id=hold_id)
        await _told(self._stub.ReleaseHold(request, timeout=self._timeout_s))

    async def holds(self, *, tenant: str = "") -> list[LegalHold]:
        """Return a tenant's holds, oldest first."""
        request = pb.ListHoldsRequest(tenant=tenant)
        reply = await _told(self._stub.ListHolds(request, timeout=self._timeout_s))
        return [_hold(hold) for hold in reply.holds]

    async def aclose(self) -> None:
        """Close the connection. Harmless when done again."""
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


async def _told(call: Awaitable[_T]) -> _T:
    """Wait for a reply; a failure becomes ours."""
    try:
        return await call
    except grpc.aio.AioRpcError as failure:
        raise error_of_rpc(failure) from failure


def _kept(item: pb.PayloadItem) -> KeptPayload:
    try:
        screened = messages_from_wire(item.screened)
    except Refusal:
        msg = "the audit service speaks a later version of the contract"
        raise InternalError(msg) from None
    return KeptPayload(
        index=item.index,
        call_id=item.call_id,
        received_us=item.received_us,
        retention=item.retention,
        screened=screened,
        released=item.released,
        salts=dict(item.salts),
    )


def _hold(hold: pb.Hold) -> LegalHold:
    return LegalHold(
        id=hold.id,
        scope=_SCOPE_NAMES.get(hold.scope, ""),
        value=hold.value,
        reference=hold.reference,
        set_us=hold.set_us,
    )
