"""Tell in one pass which patterns may match a text: hyperscan over all of them at once.

Hyperscan's PREFILTER mode promises a superset of the matches of each expression, so a pattern that
is not reported cannot match. The engine then runs Python's `re` for the few that are reported: the
meaning of a pattern is `re`'s alone, and the prefilter only saves time. SINGLEMATCH keeps it to
one callback a pattern and text; a callback into Python costs more than the scan.

Expressions are told apart by `Stage`, and each stage is cut into databases of a few: short forms of
letters and digits have no literal to look for and make automata, and what compiling them takes
grows faster than their number (docs/adr/0007). Texts without a digit are not scanned for them, and
several texts are scanned as one to tell which of these databases matter. Runs of digits are not
looked for here at all: `compliance.shapes` knows what they may be. A long bounded repeat, such as
`{1,160}`, is told to hyperscan as one without end: it would make one state for each character, and
the answer is a superset already.

Compiling takes some two seconds, so the compiled databases are kept in `cache_folder`, under a name
that is a digest of the expressions, their flags and hyperscan's version, behind its own SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import hyperscan

from compliance.recognizers.base import Expression, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HyperscanPrefilter"]

_FLAGS: int = hyperscan.HS_FLAG_PREFILTER | hyperscan.HS_FLAG_SINGLEMATCH
_BOUNDARY = re.compile(r"\(\?:[\^$]\|\[\^[ -Z_-~]+\]\)|\(\?<?!\[[^\]]*\]\)")
_WIDE = re.compile(r"[^\x00-\x7f]|\[\^|(?<!\\)\.|\\[SDW]")
_DIGIT = re.compile(rb"[0-9]")
_REPEAT = re.compile(r"\{([0-9]+),([0-9]+)\}")
_REPEAT_MAX = 19
"""Times that hyperscan is told to count to, the digits of a card; beyond, any number will do."""
_TOGETHER = {Stage.ALL: 70, Stage.SHORT: 8}
"""Expressions in one database, at most."""
_DIGEST_BYTES = 32

_Part = tuple[int, hyperscan.Database]
"""The place of its first expression, and a database."""


class HyperscanPrefilter:
    """Callable: UTF-8 bytes of a text -> indexes of the expressions that may match it.

    expressions: equal ones are looked for once.
    cache_folder: made if missing; None compiles anew each time.
    Safe to share between threads: a scan holds a lock (hyperscan's scratch space has one user).
    """

    def __init__(self, expressions: Sequence[Expression], cache_folder: Path | None) -> None:
        places: dict[Expression, list[int]] = {}
        for index, expression in enumerate(expressions):
            places.setdefault(expression, []).append(index)
        self._places: list[list[int]] = []
        self._databases: dict[Stage, list[_Part]] = {}
        for stage, together in _TOGETHER.items():
            here = [expression for expression in places if expression.stage is stage]
            self._databases[stage] = []
            for part in _parts(here, together):
                self._databases[stage].append((len(self._places), _load(part, cache_folder)))
                self._places += [places[expression] for expression in part]
        self._hits: list[int] = []
        self._shift = 0
        self._lock = Lock()

    def __call__(self, text: bytes) -> list[int]:
        """Scan once; indexes in no particular order, each at most once."""
        with self._lock:
            self._hits = []
            self._scan(text, self._databases[Stage.ALL])
            if _DIGIT.search(text):
                self._scan(text, self._databases[Stage.SHORT])
            return self._hits

    def each(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Scan several texts: for each what it would get by itself, or more.

        What stands in none of those with a digit is looked for in none of them.
        """
        with_digit = [text for text in texts if _DIGIT.search(text)]
        with self._lock:
            short = self._reported(b"\n".join(with_digit)) if with_digit else []
            found: list[list[int]] = []
            for text in texts:
                self._hits = []
                self._scan(text, self._databases[Stage.ALL])
                if short and _DIGIT.search(text):
                    self._scan(text, short)
                found.append(self._hits)
            return found

    def _reported(self, text: bytes) -> list[_Part]:
        """The databases of the second stage that report anything of a text."""
        some: list[_Part] = []
        for part in self._databases[Stage.SHORT]:
            self._hits = []
            self._scan(text, [part])
            if self._hits:
                some.append(part)
        return some

    def _scan(self, text: bytes, databases: Sequence[_Part]) -> None:
        for shift, database in databases:
            self._shift = shift
            database.scan(text, match_event_handler=self._on_match)

    def _on_match(self, index: int, *_where: object) -> None:
        self._hits += self._places[self._shift + index]


def _parts(expressions: Sequence[Expression], size: int) -> list[Sequence[Expression]]:
    """Deal them out in turn: neighbours are of one country and alike, which makes a part costly."""
    count = -(-len(expressions) // size)
    return [expressions[first::count] for first in range(count)]


def _load(expressions: Sequence[Expression], cache_folder: Path | None) -> hyperscan.Database:
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


def _compile(expressions: Sequence[Expression]) -> hyperscan.Database:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=[_translate(pattern).encode() for pattern, _, _ in expressions],
        ids=list(range(len(expressions))),
        elements=len(expressions),
        flags=[_flags(pattern, case=case) for pattern, case, _ in expressions],
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
    """Turn Python's named groups into plain ones, and long repeats into endless ones.

    All else is common to both syntaxes.
    """
    return _REPEAT.sub(_endless, pattern.replace("(?P<v>", "(").replace("(?P<q>", "("))


def _endless(found: re.Match[str]) -> str:
    return found[0] if int(found[2]) <= _REPEAT_MAX else f"{{{found[1]},}}"


def _name(expressions: Sequence[Expression]) -> str:
    digest = hashlib.sha256(repr((_platform(), _FLAGS, _REPEAT_MAX)).encode())
    digest.update(repr(tuple(expressions)).encode())
    return digest.hexdigest()[:32]


@lru_cache(maxsize=1)
def _platform() -> str:
    """Hyperscan's version and the processor features that a database is built for."""
    probe = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    probe.compile(expressions=[b"x"], ids=[0], elements=1, flags=[0])
    return str(probe.info())


def _keep(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(hashlib.sha256(body).digest() + body)
    Path(file.name).chmod(0o600)
    os.replace(file.name, path)  # noqa: PTH105 -- atomic on POSIX, and says so
