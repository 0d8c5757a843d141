"""The inside of a backup: a tar stream with a manifest at its end.

    backup.json          what this is, of which log, at which checkpoint
    audit/… openbao/…    the files
    manifest.jsonl       one line for each of them, in their order: path, bytes, sha256

Any `tar` unpacks it. The manifest comes last, as files are hashed while they are read, and it is
itself a file of this stream: a backup that ends without it, or whose files are not exactly those of
its lines, is none.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from typing import IO, TYPE_CHECKING

from appliance.age import AgeInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["ABOUT", "MANIFEST", "BackupInvalid", "Member", "Packer", "read_members"]

ABOUT = "backup.json"
MANIFEST = "manifest.jsonl"
_BLOCK = 512
_PIECE = 1 << 20
_MODE = 0o600


class BackupInvalid(ValueError):  # noqa: N818 -- an answer about a stranger's file
    """This is no whole backup; the text names a file within it, no content."""


def _line(name: str, size: int, digest: str) -> bytes:
    told = {"path": name, "bytes": size, "sha256": digest}
    return json.dumps(told, ensure_ascii=False, sort_keys=True).encode() + b"\n"


class Packer:
    """Makes the stream; the manifest's lines go to a file meanwhile, so that memory stays flat."""

    def __init__(self, lines: IO[bytes]) -> None:
        self._lines = lines
        self.files = 0
        self.bytes = 0

    def data(self, name: str, content: bytes) -> Iterator[bytes]:
        """Pack bytes as a file."""
        yield self._head(name, len(content))
        yield content
        yield bytes(-len(content) % _BLOCK)
        self._add(name, len(content), sha256(content).hexdigest())

    def file(self, name: str, path: Path, size: int) -> Iterator[bytes]:
        """Pack the first `size` bytes of a file; what is added to it meanwhile stays out.

        Raises:
            BackupInvalid: it became shorter while it was read.
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            yield self._head(name, size)
            hasher, rest = sha256(), size
            while rest:
                piece = file.read(min(rest, _PIECE))
                if not piece:
                    msg = f"{name} became shorter while it was read"
                    raise BackupInvalid(msg)
                hasher.update(piece)
                rest -= len(piece)
                yield piece
        yield bytes(-size % _BLOCK)
        self._add(name, size, hasher.hexdigest())

    def end(self) -> Iterator[bytes]:
        """Pack the manifest, and say that this is the end."""
        size = self._lines.tell()
        self._lines.seek(0)
        yield self._head(MANIFEST, size)
        while piece := self._lines.read(_PIECE):
            yield piece
        yield bytes(-size % _BLOCK)
        yield bytes(2 * _BLOCK)

    def _head(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, _MODE
        return info.tobuf(tarfile.PAX_FORMAT)

    def _add(self, name: str, size: int, digest: str) -> None:
        self._lines.write(_line(name, size, digest))
        self.files += 1
        self.bytes += size


@dataclass(frozen=True, slots=True)
class Member:
    """One file as it was read: its length, and its hash in hex."""

    name: str
    bytes: int
    sha256: str


class _Pieces:
    """Pieces as the file object that tarfile reads from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = bytearray()

    def read(self, length: int) -> bytes:
        while len(self._held) < length:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held += piece
        taken = bytes(self._held[:length])
        del self._held[:length]
        return taken


def read_members(
    pieces: Iterator[bytes], keep: Callable[[str], IO[bytes] | None], lines: IO[bytes]
) -> Iterator[Member]:
    """Read a stream through, file by file, and hold it against its manifest at the end.

    Args:
        pieces: The stream, decrypted.
        keep: Gives an open file to write a member to, or None to read it only; closed by us.
        lines: An empty temporary file, for what the manifest must say.

    Raises:
        BackupInvalid: cut short, no tar, a name that leads elsewhere, or not what the manifest
            says. Nothing that was kept may be used then.
        OSError: the disk does not take it.
    """
    try:
        with tarfile.open(fileobj=_Pieces(pieces), mode="r|", bufsize=_PIECE) as tar:  # type: ignore[call-overload]  # `read` is all that it asks for
            for info in tar:
                body = _plain(tar, info)
                if info.name == MANIFEST:
                    _compare(lines, body)
                    for _ in pieces:  # the end must be authentic, too
                        pass
                    return
                member = _kept(info.name, body, keep(info.name))
                lines.write(_line(member.name, member.bytes, member.sha256))
                yield member
    except (BackupInvalid, AgeInvalid):
        raise
    except (tarfile.TarError, ValueError, OverflowError, IndexError, EOFError):  # of its headers
        msg = "it is no tar stream, or cut short"
        raise BackupInvalid(msg) from None
    msg = "it ends without its manifest"
    raise BackupInvalid(msg)


def _plain(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    """Open a member. Raises BackupInvalid, if it is more than a file below the folder."""
    # Nor is a sparse file plain: its length is a word in its header, its bytes come from nowhere.
    plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
    body = tar.extractfile(info) if plain and _harmless(info.name) else None
    if body is None:
        msg = "it holds something that is no plain file"
        raise BackupInvalid(msg)
    return body


def _harmless(name: str) -> bool:
    parts = name.split("/")
    return "\0" not in name and name.isprintable() and {"", ".", ".."}.isdisjoint(parts)


def _kept(name: str, body: IO[bytes], into: IO[bytes] | None) -> Member:
    hasher, size = sha256(), 0
    try:
        while piece := body.read(_PIECE):
            hasher.update(piece)
            size += len(piece)
            if into is not None:
                into.write(piece)
    finally:
        if into is not None:
            into.close()
    return Member(name, size, hasher.hexdigest())


def _compare(lines: IO[bytes], manifest: IO[bytes]) -> None:
    """See that the manifest lists what was read, no more and no less, in its order."""
    lines.seek(0)
    for number, said in enumerate(manifest, 1):
        if said != lines.readline():
            msg = f"line {number} of its manifest is not what it holds"
            raise BackupInvalid(msg)
    if lines.readline():
        msg = "it holds files that its manifest does not name"
        raise BackupInvalid(msg)
