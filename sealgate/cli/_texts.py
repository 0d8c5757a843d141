"""Files of texts, read and written line by line, in bounded memory; nothing of a text is quoted."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["InputError", "Line", "Progress", "jsonl_files", "records", "written_whole"]

LINE_BYTES_MAX = 32 * 1024 * 1024
"""Of one line of input: more than a text of the greatest length, every character escaped."""
PROGRESS_S = 0.2
BAR_CHARS = 24


class InputError(Exception):
    """Something the caller named cannot be used; the text says what, and quotes none of it."""


class Line(NamedTuple):
    """One record and where it stands. ends: bytes of all files read once it was."""

    record: dict[str, Any]
    file: Path
    number: int
    ends: int


def jsonl_files(path: Path) -> list[Path]:
    """Return a file by itself, or the .jsonl files of a folder, in order.

    Raises:
        InputError: the folder has none.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        msg = "no .jsonl files there"
        raise InputError(msg)
    return files


def records(files: Sequence[Path], *, text_chars_max: int) -> Iterator[Line]:
    """Read records `{"id", "text"}`; blank lines are passed over.

    Raises:
        InputError: a line is no such record, or longer than allowed; names it by its number.
        OSError: a file cannot be read.
    """
    before = 0
    for path in files:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                if len(raw) > LINE_BYTES_MAX:
                    _refuse(path, number, f"longer than {LINE_BYTES_MAX:,} bytes")
                if raw.strip():
                    record = _record(raw)
                    if record is None:
                        _refuse(path, number, 'not {"id", "text"} in valid Unicode')
                    elif len(record["text"]) > text_chars_max:
                        _refuse(path, number, f"text is longer than {text_chars_max:,} characters")
                    else:
                        yield Line(record, path, number, before + file.tell())
            before += file.tell()


def _refuse(path: Path, number: int, why: str) -> None:
    msg = f"{path.name}, line {number}: {why}"
    raise InputError(msg)


def _record(raw: bytes) -> dict[str, Any] | None:
    """Parse a line; None if it is no record whose text can be written again."""
    try:
        record: dict[str, Any] = json.loads(raw.decode("utf-8"))
        usable = isinstance(record["text"], str) and "id" in record
        record["text"].encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return record if usable else None


@contextmanager
def written_whole(path: Path) -> Iterator[IO[str]]:
    """Open a file that appears under its name only when all of it is written."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        partial = Path(file.name)
        try:
            yield file
            file.flush()
            os.replace(partial, path)  # noqa: PTH105 -- atomic on POSIX, and says so
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


class Progress:
    """A bar on a terminal, and nothing anywhere else.

    size: bytes of all input; 0 if that cannot be known.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._texts = 0
        self._characters = 0
        self._done = 0
        self._started = self._told = clock()
        self._live = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            print(self.line(), end="\n", file=sys.stderr, flush=True)

    def add(self, line: Line) -> None:
        """Count a record that was dealt with."""
        self._texts += 1
        self._characters += len(line.record["text"])
        self._done = line.ends
        if self._live and self._clock() - self._told >= PROGRESS_S:
            self._told = self._clock()
            print(self.line(), end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """The bar as it is now, from the beginning of the terminal's line."""
        seconds = max(self._clock() - self._started, 1e-9)
        rate = self._characters / seconds / 1000
        told = f"{self._texts:,} texts, {self._characters:,} characters, {rate:,.0f} k/s"
        if not self._size:
            return f"\r{told}\x1b[K"
        share = min(1.0, self._done / self._size)
        filled = round(share * BAR_CHARS)
        bar = "█" * filled + "·" * (BAR_CHARS - filled)
        left = seconds * (1 - share) / share if share else 0.0
        return f"\r{bar} {share:>4.0%}  {told}, {left:,.0f} s left\x1b[K"
