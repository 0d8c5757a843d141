r"""A model's files at rest: AES-256-GCM in chunks, under a data key that only OpenBao can unwrap.

    OpenBao transit key  model-storage          never leaves OpenBao
     └ data key, one a model                    wrapped there, bound to "sealgate/model-seal/v1|"
        │                                       and the model's digest, in hexadecimal
        └ record key, one a chunk               `meshkit.sealing`

A sealed file is its chunks, one after another, each a record of `meshkit.sealing` for the owner
(`models`, `weights`); all but the last hold `chunk_bytes` of plaintext. Each is bound to

    "sealgate/model-chunk/v1\0" ‖ digest of the model, 32 ‖ length of the name, u32 ‖ name
        ‖ index of the chunk, u64 ‖ 1 if it is the last, else 0, u8

so a chunk that is missing, doubled, moved within its file, to another file or to another model does
not open, and neither does a file that was cut off between two chunks. Memory: a few chunks.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from inference.store.errors import Fault, ModelFileError
from inference.store.keys import STORAGE_KEY
from meshkit.sealing import (
    KEY_BYTES,
    KEY_ID_BYTES,
    OVERHEAD_BYTES,
    Owner,
    SealBroken,
    open_record,
    seal_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inference.store.manifest import FileDigest, Manifest

__all__ = ["CHUNK_BYTES", "SCHEMA", "ModelSeal", "Sealer", "sealed_size", "wrapping_aad"]

SCHEMA = "sealgate/model-seal/v1"
CHUNK_BYTES = 1 << 20
"""Of a new seal. Others are read, too: see `_CHUNK_RANGE`."""
_CHUNK_RANGE = range(1 << 10, (1 << 26) + 1)
_OWNER = Owner("models", "weights")
_LABEL = b"sealgate/model-chunk/v1\0"
_NAME = struct.Struct(">I")
_PLACE = struct.Struct(">QB")


@dataclass(frozen=True, slots=True)
class ModelSeal:
    """How a model was sealed: kept beside its manifest."""

    wrapped: str
    key_id: bytes
    chunk_bytes: int = CHUNK_BYTES

    def text(self) -> bytes:
        """Return what is kept, as JSON."""
        told = {
            "schema": SCHEMA,
            "key": STORAGE_KEY,
            "wrapped": self.wrapped,
            "key_id": self.key_id.hex(),
            "chunk_bytes": self.chunk_bytes,
        }
        return json.dumps(told, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes) -> ModelSeal:
        """Read it again. Raises ModelFileError: SEAL."""
        try:
            told = json.loads(text)
            seal = cls(told["wrapped"], bytes.fromhex(told["key_id"]), told["chunk_bytes"])
            sound = (
                (told["schema"], told["key"]) == (SCHEMA, STORAGE_KEY)
                and type(seal.chunk_bytes) is int
                and seal.chunk_bytes in _CHUNK_RANGE
                and len(seal.key_id) == KEY_ID_BYTES
                and isinstance(seal.wrapped, str)
            )
        except (KeyError, TypeError, ValueError, RecursionError):
            raise ModelFileError(Fault.SEAL) from None
        if not sound:
            raise ModelFileError(Fault.SEAL)
        return seal


def wrapping_aad(manifest: Manifest) -> bytes:
    """Return what OpenBao binds a model's data key to."""
    return f"{SCHEMA}|{manifest.digest.hex()}".encode()


def sealed_size(plain_bytes: int, chunk_bytes: int) -> int:
    """Return how much a file takes once it is sealed."""
    return plain_bytes + _chunks(plain_bytes, chunk_bytes) * OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals and opens the files of one model."""

    seal: ModelSeal
    key: bytes = field(repr=False)
    model_digest: bytes

    def __post_init__(self) -> None:
        """Refuse what is no data key. Raises ModelFileError: SEAL."""
        if len(self.key) != KEY_BYTES:
            raise ModelFileError(Fault.SEAL)

    def sealed(self, file: FileDigest, plain: IO[bytes]) -> Iterator[bytes]:
        """Seal a file, chunk by chunk. Raises ModelFileError: SIZE, it is not as long as stated."""
        last = _chunks(file.bytes, self.seal.chunk_bytes) - 1
        left = file.bytes
        for index in range(last + 1):
            chunk = _exactly(plain, min(left, self.seal.chunk_bytes), Fault.SIZE)
            left -= len(chunk)
            aad = self._aad(file.path, index, final=index == last)
            yield seal_record(self.key, self.seal.key_id, _OWNER, chunk, aad)

    def opened(self, file: FileDigest, sealed: IO[bytes]) -> Iterator[bytes]:
        """Open a file, chunk by chunk; none is yielded before its tag held.

        Raises:
            ModelFileError: SEAL, a chunk is not the one that was sealed for this place.
        """
        last = _chunks(file.bytes, self.seal.chunk_bytes) - 1
        left = file.bytes
        for index in range(last + 1):
            size = min(left, self.seal.chunk_bytes)
            left -= size
            record = _exactly(sealed, size + OVERHEAD_BYTES, Fault.SEAL)
            yield self._chunk(record, self._aad(file.path, index, final=index == last))
        if sealed.read(1):
            raise ModelFileError(Fault.SEAL)

    def _chunk(self, record: bytes, aad: bytes) -> bytes:
        try:
            return open_record(self.key, _OWNER, record, aad)
        except SealBroken:
            raise ModelFileError(Fault.SEAL) from None

    def _aad(self, path: str, index: int, *, final: bool) -> bytes:
        name = path.encode()
        place = _PLACE.pack(index, final)
        return b"".join((_LABEL, self.model_digest, _NAME.pack(len(name)), name, place))


def _chunks(size: int, chunk_bytes: int) -> int:
    return max(1, -(-size // chunk_bytes))


def _exactly(file: IO[bytes], size: int, fault: Fault) -> bytes:
    found: Callable[[int], bytes] = file.read
    chunk = found(size)
    if len(chunk) != size:
        raise ModelFileError(fault)
    return chunk
