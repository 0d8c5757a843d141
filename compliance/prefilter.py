"""Tell in one pass which patterns may match a text: hyperscan over all of them at once.

Hyperscan's PREFILTER mode promises a superset of the matches of each expression, so a pattern that
is not reported cannot match. The engine then runs Python's `re` for the few that are reported: the
meaning of a pattern is `re`'s alone, and the prefilter only saves time. SINGLEMATCH keeps it to
one callback a pattern and text; a callback into Python costs more than the scan.

Compiling takes about two seconds, so the compiled database is kept in `cache_folder`, under a name
that is a digest of the expressions, their flags and hyperscan's version, behind its own SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import hyperscan

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HyperscanPrefilter"]

_FLAGS: int = hyperscan.HS_FLAG_PREFILTER | hyperscan.HS_FLAG_SINGLEMATCH
_BOUNDARY = re.compile(r"\(\?:[\^$]\|\[\^[ -Z_-~]+\]\)|\(\?<?!\[[^\]]*\]\)")
_WIDE = re.compile(r"[^\x00-\x7f]|\[\^|(?<!\\)\.|\\[SDW]")
_DIGEST_BYTES = 32


class HyperscanPrefilter:
    """Callable: UTF-8 bytes of a text -> indexes of the expressions that may match it.

    expressions: (pattern in Python's syntax, whether case matters).
    cache_folder: made if missing; None compiles anew each time.
    Safe to share between threads: a scan holds a lock (hyperscan's scratch space has one user).
    """

    def __init__(self, expressions: Sequence[tuple[str, bool]], cache_folder: Path | None) -> None:
        self._database = _load(expressions, cache_folder)
        self._hits: list[int] = []
        self._lock = Lock()

    def __call__(self, text: bytes) -> list[int]:
        """Scan once; indexes in no particular order, each at most once."""
        with self._lock:
            self._hits = []
            self._database.scan(text, match_event_handler=self._on_match)
            return self._hits

    def _on_match(self, index: int, *_where: object) -> None:
        self._hits.append(index)


def _load(expressions: Sequence[tuple[str, bool]], cache_folder: Path | None) -> hyperscan.Database:
    if cache_folder is None:
        return _compile(expressions)
    path = cache_folder / f"patterns-{_name(expressions)}.hs"
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raw = b""
    body = raw[_DIGEST_BYTES:]
    if body and hashlib.sha256(body).digest() == raw[:_DIGEST_BYTES]:
        database = hyperscan.loadb(body, hyperscan.HS_MODE_BLOCK)
        database.scratch = hyperscan.Scratch(database)
        return database
    database = _compile(expressions)
    _keep(path, bytes(hyperscan.dumpb(database)))
    return database


def _compile(expressions: Sequence[tuple[str, bool]]) -> hyperscan.Database:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=[_translate(pattern).encode() for pattern, _ in expressions],
        ids=list(range(len(expressions))),
        elements=len(expressions),
        flags=[_flags(pattern, case=case) for pattern, case in expressions],
    )
    return database


def _flags(pattern: str, *, case: bool) -> int:
    """Read bytes where characters beyond ASCII cannot matter: that is faster than UTF-8.

    A boundary may be a byte of any character; a repeat of such a class may not be counted in bytes.
    """
    wide = _WIDE.search(_BOUNDARY.sub("", pattern)) is not None
    utf8 = hyperscan.HS_FLAG_UTF8 if wide else 0
    return _FLAGS | utf8 | (0 if case else hyperscan.HS_FLAG_CASELESS)


def _translate(pattern: str) -> str:
    """Turn Python's named groups into plain ones; all else is common to both syntaxes."""
    return pattern.replace("(?P<v>", "(").replace("(?P<q>", "(")


def _name(expressions: Sequence[tuple[str, bool]]) -> str:
    probe = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    probe.compile(expressions=[b"x"], ids=[0], elements=1, flags=[0])
    # info() names hyperscan's version and the processor features that a database is built for.
    digest = hashlib.sha256(repr((probe.info(), _FLAGS)).encode())
    digest.update(repr(tuple(expressions)).encode())
    return digest.hexdigest()[:32]


def _keep(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(hashlib.sha256(body).digest() + body)
    Path(file.name).chmod(0o600)
    os.replace(file.name, path)  # noqa: PTH105 -- atomic on POSIX, and says so
