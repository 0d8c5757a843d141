"""Payloads: the screened prompt, the released answer and the salts of an event, sealed.

    payloads/<UTC day>/<tenant pseudonym>/<first index>.sealed

A folder is a partition: erasing it erases what a tenant said on a day, and the log stays whole. A
file is a row of frames (index u64 | length u32 | SHA-256 of the sealed bytes | sealed bytes), is
written by one run of the service and never again after a failure or a restart. An index may then
stand in two files, with the same bytes.

Payloads become durable with their leaf, in the write-ahead log; from there they are moved here.
"""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from audit.disk import Disk, make_folders
from audit.events import commitments
from meshkit.contract import Message, Payload, Reason, Refusal, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from meshkit.contract import Event, Phase

__all__ = ["Opened", "PayloadStore", "Sealer", "payload_aad", "payload_bytes", "read_payload"]

PURPOSE = "audit-payload"
_FRAME = struct.Struct(">QI32s")
_OPEN_FILES_MAX = 64
_DAY_US = 86_400_000_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_SYSTEM = "system"
"""Partition of events without a tenant."""


class Sealer(Protocol):
    """Seals under a tenant's data key; `meshkit.envelope.Keyring` is the real one."""

    async def seal(self, *, tenant: str, purpose: str, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt. Raises Refusal: KEYS_DOWN."""
        ...

    async def open(self, *, tenant: str, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """Decrypt. Raises Refusal: KEYS_DOWN, or INTERNAL if it does not open."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A payload as it was, and the salts by commitment name."""

    payload: Payload
    salts: dict[str, bytes]


def payload_aad(call_id: bytes, phase: Phase) -> bytes:
    """Bind a sealed payload to its event."""
    return b"sealgate/payload/v1\0" + call_id + phase.value.encode()


def payload_bytes(event: Event) -> bytes:
    """Write what is sealed; empty if the event has neither text nor commitments."""
    salts = {name: commitment.salt.hex() for name, commitment in commitments(event)}
    payload = event.payload or Payload()
    if not salts and not payload.screened and not payload.released:
        return b""
    told = {
        "released": payload.released,
        "salts": salts,
        "screened": [[message.role.value, message.content] for message in payload.screened],
    }
    return _encode(told).encode()


def read_payload(raw: bytes) -> Opened:
    """Read back what `payload_bytes` wrote."""
    told = json.loads(raw)
    screened = tuple(Message(Role(role), content) for role, content in told["screened"])
    salts = {name: bytes.fromhex(salt) for name, salt in told["salts"].items()}
    return Opened(Payload(screened=screened, released=told["released"]), salts)


def _day(received_us: int) -> str:
    return _date(received_us // _DAY_US)


@lru_cache(maxsize=64)
def _date(day: int) -> str:
    """Write a day since 1970 in ISO 8601: the same one for every event of a day."""
    return date.fromordinal(_EPOCH_ORDINAL + day).isoformat()


@dataclass(slots=True)
class _Open:
    handle: int
    size: int
    path: Path


class PayloadStore:
    """All partitions of one log. Methods block, and one thread writes."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def add(self, items: Iterable[tuple[int, str, int, bytes]]) -> dict[int, str]:
        """Store sealed payloads: (index, tenant pseudonym, received_us, sealed). Durable after.

        Returns:
            Where each index's payload is, for the search index.

        Raises:
            OSError: call again with the same items; it begins new files.
        """
        frames: dict[str, list[tuple[int, bytes]]] = {}
        for number, tenant, received_us, sealed in items:
            partition = f"{_day(received_us)}/{tenant or _SYSTEM}"
            frames.setdefault(partition, []).append((number, sealed))
        places: dict[int, str] = {}
        for partition, rows in frames.items():
            places |= self._append(partition, rows)
        return places

    def _append(self, partition: str, rows: list[tuple[int, bytes]]) -> dict[int, str]:
        file = self._open.get(partition) or self._begin(partition, rows[0][0])
        name = file.path.relative_to(self._folder).as_posix()
        places: dict[int, str] = {}
        parts: list[bytes] = []
        at = file.size
        for number, sealed in rows:
            places[number] = f"{name}@{at}"
            parts += (_FRAME.pack(number, len(sealed), sha256(sealed).digest()), sealed)
            at += _FRAME.size + len(sealed)
        try:
            self._disk.write(file.handle, b"".join(parts))
            self._disk.sync(file.handle)
        except OSError:
            self._forget(partition)
            raise
        file.size = at
        return places

    def _begin(self, partition: str, first: int) -> _Open:
        folder = self._folder / partition
        make_folders(self._disk, folder)
        taken = set(self._disk.names(folder))
        tries = (
            f"{first:020d}{mark}.sealed" for mark in ("", *(f"-{n}" for n in range(1, 10_000)))
        )
        path = folder / next(name for name in tries if name not in taken)
        handle = self._disk.create(path)
        self._open[partition] = file = _Open(handle, 0, path)
        try:
            self._disk.sync_folder(folder)
        except OSError:
            self._forget(partition)
            raise
        if len(self._open) > _OPEN_FILES_MAX:
            self._forget(next(iter(self._open)))
        return file

    def _forget(self, partition: str) -> None:
        self._disk.close(self._open.pop(partition).handle)

    def close(self) -> None:
        """Close the files under way."""
        while self._open:
            self._forget(next(iter(self._open)))

    def locate(self, wanted: Iterable[tuple[int, str, int]]) -> dict[int, str]:
        """Find payloads again without the search index: (index, tenant pseudonym, received_us).

        Reads the partitions named through; those that were erased have none.
        """
        numbers: dict[str, set[int]] = {}
        for number, tenant, received_us in wanted:
            partition = f"{_day(received_us)}/{tenant or _SYSTEM}"
            numbers.setdefault(partition, set()).add(number)
        return {
            number: place
            for partition, some in numbers.items()
            for number, place in self._scan(partition)
            if number in some
        }

    def _scan(self, partition: str) -> Iterator[tuple[int, str]]:
        for name in self._disk.names(self._folder / partition):
            data = self._disk.read(self._folder / partition / name)
            at = 0
            while len(data) - at >= _FRAME.size:
                number, length, digest = _FRAME.unpack_from(data, at)
                start = at + _FRAME.size
                if sha256(data[start : start + length]).digest() != digest:
                    break  # the end of a file whose last write failed
                yield number, f"{partition}/{name}@{at}"
                at = start + length

    def read(self, number: int, place: str, sealed_sha256: str) -> bytes:
        """Return a sealed payload.

        Raises:
            Refusal: NOT_FOUND, if it was erased; EVIDENCE_LOST, if it is not what the leaf names.
        """
        name, _, offset = place.rpartition("@")
        try:
            head = self._disk.read(self._folder / name, int(offset), _FRAME.size)
            found, length, _ = _FRAME.unpack(head)
            sealed = self._disk.read(self._folder / name, int(offset) + _FRAME.size, length)
        except FileNotFoundError:
            raise Refusal(Reason.NOT_FOUND) from None
        except struct.error:
            raise Refusal(Reason.EVIDENCE_LOST) from None
        if found != number or sha256(sealed).hexdigest() != sealed_sha256:
            raise Refusal(Reason.EVIDENCE_LOST)
        return sealed
