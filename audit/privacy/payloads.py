"""Payloads: the screened prompt, the released answer and the salts of an event, sealed.

    payloads/<UTC day>/<tenant pseudonym>/<retention class>/<first index>.sealed

A folder is a partition: it goes as a whole when its class's time is over, and the log stays whole.
A file is a row of frames (index u64 | length u32 | SHA-256 of the sealed bytes | sealed bytes), is
written by one run of the service and never again after a failure or a restart. An index may then
stand in two files, with the same bytes. A frame whose digest is all zeros was blanked: its sealed
bytes are zeros, too, or will be (audit/privacy/plans.py finishes what was begun).

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

from audit.log.disk import Disk, make_folders
from audit.records.events import commitments, retention_of_leaf
from meshkit.contract import Message, Payload, Reason, Refusal, Role
from meshkit.held_keys import DAY_S

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from meshkit.contract import Event, Phase

__all__ = [
    "Frame",
    "Opened",
    "Partition",
    "PayloadStore",
    "Sealer",
    "partition_of",
    "payload_aad",
    "payload_bytes",
    "read_payload",
]

_FRAME = struct.Struct(">QI32s")
_DIGEST_AT = 12
_BLANK = bytes(32)
"""In the place of a digest: nothing hashes to it that anybody could find."""
_KEY_ID = slice(1, 17)
"""Of a sealed record: see `meshkit.sealing`."""
_READ_BYTES = 1 << 18
_OPEN_FILES_MAX = 64
_DAY_US = DAY_S * 1_000_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_text = json.JSONEncoder(ensure_ascii=False).encode
_NO_PAYLOAD = Payload()
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
    return b"sealgate/payload/v1\0" + call_id + phase.encode()


def payload_bytes(event: Event) -> bytes:
    """Write what is sealed; empty if the event has neither text nor commitments."""
    salts = ",".join([f'"{name}":"{one.salt.hex()}"' for name, one in commitments(event)])
    payload = event.payload or _NO_PAYLOAD
    if not salts and not payload.screened and not payload.released:
        return b""
    screened = ",".join([f'["{one.role}",{_text(one.content)}]' for one in payload.screened])
    told = f'{{"released":{_text(payload.released)},"salts":{{{salts}}},"screened":[{screened}]}}'
    return told.encode()


def read_payload(raw: bytes) -> Opened:
    """Read back what `payload_bytes` wrote."""
    told = json.loads(raw)
    screened = tuple(Message(Role(role), content) for role, content in told["screened"])
    salts = {name: bytes.fromhex(salt) for name, salt in told["salts"].items()}
    return Opened(Payload(screened=screened, released=told["released"]), salts)


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """What is kept together and goes together.

    day: since 1970, UTC, of receipt. tenant: a pseudonym.
    """

    day: int
    tenant: str
    retention: str

    @property
    def path(self) -> str:
        """Where it is under payloads/."""
        return f"{_date(self.day)}/{self.tenant or _SYSTEM}/{self.retention}"


@dataclass(frozen=True, slots=True)
class Frame:
    """A sealed payload: of which entry, under which data key (as it says itself), and where."""

    number: int
    key_id: bytes
    place: str


def partition_of(tenant: str, received_us: int, retention: str) -> Partition:
    """Return where a payload is kept that came at a time (UTC, microseconds)."""
    return Partition(received_us // _DAY_US, tenant, retention)


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

    def add(self, items: Iterable[tuple[int, str, int, bytes, bytes]]) -> dict[int, str]:
        """Store sealed payloads: (index, tenant pseudonym, received_us, leaf, sealed). Durable.

        Returns:
            Where each index's payload is, for the search index.

        Raises:
            OSError: call again with the same items; it begins new files.
        """
        frames: dict[str, list[tuple[int, bytes]]] = {}
        for number, tenant, received_us, leaf, sealed in items:
            partition = partition_of(tenant, received_us, retention_of_leaf(leaf)).path
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

    def locate(self, wanted: Iterable[tuple[int, str, int, bytes]]) -> dict[int, str]:
        """Find payloads again without the index: (index, tenant pseudonym, received_us, leaf).

        Reads the partitions named through; those that were erased have none.
        """
        numbers: dict[str, set[int]] = {}
        for number, tenant, received_us, leaf in wanted:
            partition = partition_of(tenant, received_us, retention_of_leaf(leaf)).path
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
                if digest == _BLANK:
                    at = start + length
                    continue
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
            found, length, digest = _FRAME.unpack(head)
            sealed = self._disk.read(self._folder / name, int(offset) + _FRAME.size, length)
        except FileNotFoundError:
            raise Refusal(Reason.NOT_FOUND) from None
        except struct.error:
            raise Refusal(Reason.EVIDENCE_LOST) from None
        if found == number and digest == _BLANK:
            raise Refusal(Reason.NOT_FOUND)
        if found != number or sha256(sealed).hexdigest() != sealed_sha256:
            raise Refusal(Reason.EVIDENCE_LOST)
        return sealed

    # --- what goes --------------------------------------------------------------------------

    def partitions(self) -> list[Partition]:
        """Return what there is, oldest first."""
        found: list[Partition] = []
        for day in self._disk.names(self._folder):
            try:
                number = date.fromisoformat(day).toordinal() - _EPOCH_ORDINAL
            except ValueError:  # not ours
                continue
            for tenant in self._disk.names(self._folder / day):
                whose = "" if tenant == _SYSTEM else tenant
                classes = self._disk.names(self._folder / day / tenant)
                found += [Partition(number, whose, retention) for retention in classes]
        return sorted(found)

    def frames(self, partition: Partition) -> Iterator[Frame]:
        """Yield what a partition holds, blanked frames left out. Reads their heads alone.

        An index may come twice; the end of a file whose last write failed may come as a frame, too.
        """
        for name in self._disk.names(self._folder / partition.path):
            yield from self._heads(f"{partition.path}/{name}")

    def _heads(self, name: str) -> Iterator[Frame]:
        start, at, data = 0, 0, b""
        while True:
            if not start <= at <= start + len(data) - _FRAME.size - _KEY_ID.stop:
                start, data = at, self._disk.read(self._folder / name, at, _READ_BYTES)
            here = data[at - start : at - start + _FRAME.size + _KEY_ID.stop]
            if len(here) < _FRAME.size:
                return
            number, length, digest = _FRAME.unpack_from(here)
            if digest != _BLANK:
                yield Frame(number, here[_FRAME.size :][_KEY_ID], f"{name}@{at}")
            at += _FRAME.size + length

    def blank(self, places: Collection[str]) -> None:
        """Overwrite payloads with zeros, durably. May be repeated; what is gone is passed over.

        First the digests, so that what follows a frame is found whenever this is cut off.

        Raises:
            OSError: call again.
        """
        offsets: dict[str, list[int]] = {}
        for place in places:
            name, _, offset = place.rpartition("@")
            offsets.setdefault(name, []).append(int(offset))
        for name, some in offsets.items():
            try:
                handle = self._disk.reopen(self._folder / name)
            except FileNotFoundError:
                continue
            try:
                self._blank(handle, name, some)
            finally:
                self._disk.close(handle)

    def _blank(self, handle: int, name: str, offsets: list[int]) -> None:
        for at in offsets:
            self._disk.write(handle, _BLANK, at + _DIGEST_AT)
        self._disk.sync(handle)
        for at in offsets:
            head = self._disk.read(self._folder / name, at, _FRAME.size)
            _, length, _ = _FRAME.unpack(head)
            self._disk.write(handle, bytes(length), at + _FRAME.size)
        self._disk.sync(handle)

    def drop(self, partition: Partition) -> None:
        """Remove a partition, durably. May be repeated.

        Raises:
            OSError: call again.
        """
        if partition.path in self._open:
            self._forget(partition.path)
        folder = self._folder / partition.path
        for name in self._disk.names(folder):
            self._disk.unlink(folder / name)
        if self._disk.is_folder(folder):
            self._disk.sync_folder(folder)
        for empty in (folder, folder.parent, folder.parent.parent):
            if self._disk.is_folder(empty) and not self._disk.names(empty):
                self._disk.remove_folder(empty)
                self._disk.sync_folder(empty.parent)
