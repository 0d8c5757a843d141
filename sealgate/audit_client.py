"""An auditor's reads from the audit service: records, checkpoints, proofs.

    async with AsyncAuditReader("localhost:50055", tls="tls/") as audit:
        records = await audit.records("", call_id=call_id)

What comes back is a claim: `meshkit.tlog` checks it (`sealgate audit prove` writes the proof files
that `sealgate audit check` then checks offline). The methods are those of
`meshkit.contract.Audit` but for `append`.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import TYPE_CHECKING, Self

import grpc

from meshkit.contract import Checkpoint, Phase, Record
from meshkit.tlog import LogKeys, NoteInvalid, open_checkpoint, parse_checkpoint
from sealgate._connect import Connection
from sealgate._line import AsyncLine
from sealgate.errors import InternalError, LimitedError, ReceiptError, error_of_rpc
from sealgate.v1 import audit_pb2 as pb
from sealgate.v1.audit_pb2_grpc import AuditServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import TypeVar

    from sealgate._files import Pem
    from sealgate.audit_search import Search
    from sealgate.v1.audit_pb2_grpc import AuditServiceAsyncStub

    _T = TypeVar("_T")

__all__ = ["AsyncAuditReader"]

_PAGE_TRIES = 3
_PAGE_RETRY_MS = 1_000

_PHASES = {
    pb.PHASE_INTENT: Phase.INTENT,
    pb.PHASE_OUTCOME: Phase.OUTCOME,
    pb.PHASE_NOTE: Phase.NOTE,
}


class AsyncAuditReader:
    """Reads from one audit service, as an async context manager. Every method may be repeated."""

    def __init__(
        self,
        target: str,
        *,
        tls: str | Path | None = None,
        ca: Pem | None = None,
        cert: Pem | None = None,
        key: Pem | None = None,
        vkey: str | None = None,
        timeout_s: float = 30.0,
        server_name: str | None = None,
    ) -> None:
        """Prepare; nothing is opened or read yet.

        Args:
            target: host:port of the audit service.
            tls: Folder with `ca.pem`, `client.pem` and `client.key`: when they are replaced, the
                next call shows the new ones; or
            ca: of the service's certificate: PEM as bytes, which stays as it is, or the path of a
                file, which may be replaced; and
            cert: the auditor's own, ECDSA: the same; and
            key: of `cert`: the same.
            vkey: The log's verifier key (several: a line each). With it, a checkpoint's
                signature is checked.
            timeout_s: For each call.
            server_name: The name in the service's certificate, if `target` has another.

        Raises:
            TypeError: neither a folder nor all of ca, cert and key were given.
            ValueError: `vkey` is malformed.
        """
        self._connection = Connection.of(target, tls, (ca, cert, key), server_name=server_name)
        self._vkey = None if vkey is None else LogKeys.parse(vkey)
        self._timeout_s = timeout_s
        self._line = AsyncLine(self._connection)
        self._stub: AuditServiceAsyncStub = self._line.stub(AuditServiceStub)

    @classmethod
    def from_folder(cls, target: str, folder: str | Path, *, vkey: str | None = None) -> Self:
        """Make a reader of `ca.pem`, `client.pem` and `client.key` in a folder."""
        return cls(target, tls=folder, vkey=vkey)

    async def records(
        self, tenant: str = "", *, call_id: bytes | None = None, trace_id: bytes | None = None
    ) -> tuple[Record, ...]:
        """Find records by call or by trace, in log order.

        Args:
            tenant: Empty: the caller's own.
            call_id: 16 bytes; or
            trace_id: 16 bytes.

        Raises:
            ValueError: not exactly one of the two was given.
            NotFoundError: there is no such call in that tenant.
            SealgateError: see `sealgate.errors`.
        """
        if call_id is not None and trace_id is None:
            by_call = pb.GetRecordRequest(tenant=tenant, call_id=call_id)
            reply = await _told(self._stub.GetRecord(by_call, timeout=self._timeout_s))
            return tuple(_records(reply.records))
        if trace_id is not None and call_id is None:
            return await self._of_trace(tenant, trace_id)
        msg = "give a call id or a trace id"
        raise ValueError(msg)

    async def _of_trace(self, tenant: str, trace_id: bytes) -> tuple[Record, ...]:
        """Fetch page after page: a trace may have any number of records."""
        found: list[Record] = []
        request = pb.GetByTraceRequest(tenant=tenant, trace_id=trace_id)
        while True:
            reply = await _told(self._stub.GetByTrace(request, timeout=self._timeout_s))
            found += _records(reply.records)
            if not reply.next_page_token:
                return tuple(found)
            request.page_token = reply.next_page_token

    async def search(self, wanted: Search, *, page_size: int = 0) -> AsyncIterator[Record]:
        """Yield the records that fit, newest first; pages are fetched as they are needed.

        Args:
            wanted: What to find.
            page_size: Records to fetch at once; 0: as the service likes it.

        Raises:
            ValueError: a time has no time zone.
            SealgateError: see `sealgate.errors`; none is raised because nothing was found.
        """
        token = ""
        while True:
            request = wanted.request(page_size, token)
            reply = await self._page(request)
            for record in _records(reply.records):
                yield record
            token = reply.next_page_token
            if not token:
                return

    async def archived(self, digest: bytes, tenant: str = "") -> tuple[str, bytes]:
        """Return what a digest in a record stands for: its kind, and bytes that hash to it.

        Args:
            digest: 32 bytes.
            tenant: Empty: the caller's own.

        Raises:
            NotFoundError: there is no such document, or it is another tenant's.
            InternalError: the service gave something else.
            SealgateError: see `sealgate.errors`.
        """
        request = pb.GetArchivedRequest(tenant=tenant, digest=digest)
        reply = await _told(self._stub.GetArchived(request, timeout=self._timeout_s))
        if sha256(reply.content).digest() != digest:
            msg = "the audit service gave a document of another digest"
            raise InternalError(msg)
        return reply.kind, reply.content

    async def _page(self, request: pb.SearchRequest) -> pb.SearchResponse:
        """Fetch a page; pages beyond so many in a second are waited for, and asked for again."""
        for _ in range(_PAGE_TRIES):
            try:
                return await _told(self._stub.Search(request, timeout=self._timeout_s))
            except LimitedError as limited:
                await asyncio.sleep((limited.retry_after_ms or _PAGE_RETRY_MS) / 1_000)
        return await _told(self._stub.Search(request, timeout=self._timeout_s))

    async def checkpoint(self) -> Checkpoint:
        """Return the newest published checkpoint, its signature checked if there is a `vkey`.

        Raises:
            ReceiptError: it is malformed or not signed by the log; step 3.
            SealgateError: see `sealgate.errors`.
        """
        request = pb.GetCheckpointRequest()
        reply = await _told(self._stub.GetCheckpoint(request, timeout=self._timeout_s))
        try:
            if self._vkey is None:
                return parse_checkpoint(reply.note)
            return open_checkpoint(reply.note, self._vkey)
        except NoteInvalid:
            raise ReceiptError(3) from None

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Return the audit path of leaf `index` in the tree of `size`. Raises NotFoundError."""
        request = pb.GetInclusionProofRequest(index=index, tree_size=size)
        reply = await _told(self._stub.GetInclusionProof(request, timeout=self._timeout_s))
        return tuple(reply.hashes)

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Return the proof that the tree of `new` extends that of `old`. Raises NotFoundError."""
        request = pb.GetConsistencyProofRequest(old_size=old, new_size=new)
        reply = await _told(self._stub.GetConsistencyProof(request, timeout=self._timeout_s))
        return tuple(reply.hashes)

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


def _records(records: Iterable[pb.Record]) -> Iterable[Record]:
    for each in records:
        phase = _PHASES.get(each.phase)
        if phase is None:
            msg = "the audit service speaks a later version of the contract"
            raise InternalError(msg)
        yield Record(index=each.index, phase=phase, leaf=each.leaf)
