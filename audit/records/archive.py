"""What digests in records stand for, kept by digest: policies, model manifests, prompt templates.

    archive/<aa>/<sha256>        the document's bytes, never written again
    archive/<aa>/<sha256>.json   {"kind": "policy.compliance", "owners": ["", "acme"]}

`put` is taken only if the bytes hash to the digest that was told, and `get` reads them again before
it believes them. A document that several tenants have is kept once, with each as its owner; `""`
among them means every auditor may read it. Each new document, and each new owner, is an event
`archive.put`, durable before the document can be read.
"""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import TYPE_CHECKING

import structlog

from audit.log.disk import Disk, put_new, replace
from meshkit.contract import OPERATORS, Document, Reason, Refusal
from meshkit.counters import counted
from meshkit.identity import is_label

if TYPE_CHECKING:
    from pathlib import Path

    from audit.records.notes import Notes

__all__ = ["Archive", "document_at"]

log = structlog.get_logger()

DIGEST_BYTES = 32
KIND_CHARS_MAX = 64
OWNERS_MAX = 10_000
SHARED = ""


class Archive:
    """One folder. All methods belong to one event loop, and this process is its only writer.

    notes: where each new document is recorded.
    document_bytes_max: larger ones are refused.
    """

    def __init__(
        self, folder: Path, notes: Notes, *, document_bytes_max: int, disk: Disk | None = None
    ) -> None:
        self._folder = folder
        self._notes = notes
        self._bytes_max = document_bytes_max
        self._disk = disk or Disk()
        self._writing = asyncio.Lock()

    async def put(self, document: Document, digest: bytes) -> bool:
        """Keep a document; return whether it, or its owner, is new.

        When this returns it MUST be on stable storage, and so MUST be the event that says so. What
        is there already is left as it is, so a put may be repeated.

        Raises:
            Refusal: INVALID_FIELD (`digest`: not that of the content; `content`, `kind`, `owners`),
                EVIDENCE_LOST (other bytes lie under the digest), AUDIT_DOWN, OVERLOADED.
        """
        self._check(document, digest)
        async with self._writing:
            try:
                return await self._put(document, digest)
            except OSError as failure:
                log.error("archive.not_written", errno=failure.errno)  # noqa: TRY400 -- a path is no event
                raise Refusal(Reason.AUDIT_DOWN) from None

    async def get(self, digest: bytes, tenant: str) -> Document:
        """Return the document of a digest, if this tenant's auditors may read it.

        Raises:
            Refusal: NOT_FOUND, also if it is another tenant's; EVIDENCE_LOST, if what lies there
                is not what was put; AUDIT_DOWN.
        """
        if len(digest) != DIGEST_BYTES:
            raise Refusal(Reason.INVALID_FIELD, field="digest")
        try:
            found = await asyncio.to_thread(self._read, digest)
        except OSError:
            raise Refusal(Reason.AUDIT_DOWN) from None
        if found is None or not {SHARED, tenant} & set(found[1]):
            raise Refusal(Reason.NOT_FOUND)
        return found[0]

    def _check(self, document: Document, digest: bytes) -> None:
        _need(0 < len(document.content) <= self._bytes_max, "content")
        _need(len(digest) == DIGEST_BYTES and document.digest == digest, "digest")
        _need(len(document.owners) <= OWNERS_MAX, "owners")
        _need(document.owners == (OPERATORS,) or all(map(is_label, document.owners)), "owners")
        kind = document.kind
        _need(kind.isascii() and kind.replace(".", "").isalpha(), "kind")
        _need(len(kind) <= KIND_CHARS_MAX, "kind")

    async def _put(self, document: Document, digest: bytes) -> bool:
        path = self._path(digest)
        kind, owners = await asyncio.to_thread(self._tag, digest)
        new = set(document.owners or (SHARED,)) - set(owners)
        if not new:
            return False
        _need(len(owners) + len(new) <= OWNERS_MAX, "owners")
        await asyncio.to_thread(put_new, self._disk, [(path, document.content)])
        await self._notes.note(
            "archive.put",
            # Several tenants' document is the mesh's: none of them is to learn of the others.
            tenant=document.owners[0] if _is_of_one(document) else "",
            detail={
                "bytes": str(len(document.content)),
                "digest": digest.hex(),
                "kind": document.kind,
                "owners": str(len(new)),
            },
        )
        # The tag makes it readable: had the event failed, the next put would try again.
        tag = {"kind": kind or document.kind, "owners": sorted({*owners, *new})}
        raw = json.dumps(tag, sort_keys=True).encode()
        await asyncio.to_thread(replace, self._disk, path.with_suffix(".json"), raw)
        return True

    def _read(self, digest: bytes) -> tuple[Document, tuple[str, ...]] | None:
        kind, owners = self._tag(digest)
        if not owners:
            return None
        return document_at(self._folder, digest, kind), owners

    def _tag(self, digest: bytes) -> tuple[str, tuple[str, ...]]:
        """Return kind and owners; none, if there is no such document yet."""
        try:
            tag = json.loads(self._disk.read(self._path(digest).with_suffix(".json")))
            return str(tag["kind"]), tuple(map(str, tag["owners"]))
        except FileNotFoundError:
            return "", ()
        except (KeyError, TypeError, ValueError):
            raise Refusal(Reason.EVIDENCE_LOST) from None

    def _path(self, digest: bytes) -> Path:
        return path_of(self._folder, digest)


def _is_of_one(document: Document) -> bool:
    return len(document.owners) == 1 and document.owners != (OPERATORS,)


def path_of(folder: Path, digest: bytes) -> Path:
    """Return where a document lies."""
    name = digest.hex()
    return folder / name[:2] / name


def document_at(folder: Path, digest: bytes, kind: str = "") -> Document:
    """Read a document out of an archive's folder, and see that it is the one.

    Raises:
        OSError: it cannot be read.
        Refusal: EVIDENCE_LOST, its bytes have another digest.
    """
    content = path_of(folder, digest).read_bytes()
    if sha256(content).digest() != digest:
        counted("archive.damaged")
        raise Refusal(Reason.EVIDENCE_LOST)
    return Document(kind, content)


def _need(holds: bool, field: str) -> None:  # noqa: FBT001 -- reads as a sentence
    if not holds:
        raise Refusal(Reason.INVALID_FIELD, field=field)
