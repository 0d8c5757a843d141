r"""Entries in ArcSight's Common Event Format, one line each. PURE.

    CEF:0|Sealgate|Sealgate|1|6003:chat|chat|3|rt=1795302722284 externalId=41 outcome=success …

Escaping, as "Implementing ArcSight Common Event Format" has it: in the header `\` and `|`, in the
extension `\` and `=`, line breaks as `\n` and `\r` in both. Other control characters, line and
paragraph separators and half characters become `\u` and four digits, which the format does not know
but which breaks no line either. `parse` reads all of it back; the tests hold them to one another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from audit.export.told import Told

__all__ = ["cef_line", "extension_value", "header_value", "parse"]

_VERSION = "1"
"""Of what we put where. Changed with this mapping."""

_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_IN_HEADER = re.compile(rf"[\\|{_CONTROL}]")
_IN_EXTENSION = re.compile(rf"[\\={_CONTROL}]")
_ESCAPED = re.compile(r"\\(u[0-9a-f]{4}|.)", re.DOTALL)
_BREAKS = {"\n": r"\n", "\r": r"\r"}
_BREAKS_BACK = {"n": "\n", "r": "\r"}
_KEY = re.compile(r"(?:^| )([A-Za-z0-9]+)=")
_FIELDS = 8

_FINDINGS = frozenset({2004, 2006})
_ROUTINE, _UNKNOWN, _FAILED, _FOUND = 3, 2, 5, 7
"""Severities, 0 to 10."""
_OUTCOMES = {1: "success", 2: "failure"}


def _escape(match: re.Match[str]) -> str:
    mark = match[0]
    if mark in _BREAKS:
        return _BREAKS[mark]
    return f"\\{mark}" if mark in "\\|=" else f"\\u{ord(mark):04x}"


def header_value(text: str) -> str:
    """Escape a text for the header."""
    return _IN_HEADER.sub(_escape, text)


def extension_value(text: str) -> str:
    """Escape a text for the extension."""
    return _IN_EXTENSION.sub(_escape, text)


def cef_line(told: Told) -> bytes:
    """Map an entry to a line."""
    action = told.text("action") or "entry"
    head = (
        "CEF:0",
        "Sealgate",
        "Sealgate",
        _VERSION,
        header_value(f"{told.count('ocsf', 'class_uid') or 0}:{action}"),
        header_value(action),
        str(_severity(told)),
    )
    pairs = (f"{key}={extension_value(value)}" for key, value in _extension(told) if value)
    return f"{'|'.join(head)}|{' '.join(pairs)}".encode()


def _severity(told: Told) -> int:
    if told.count("ocsf", "class_uid") in _FINDINGS:
        return _FOUND
    return {1: _ROUTINE, 2: _FAILED}.get(told.count("ocsf", "status_id") or 0, _UNKNOWN)


def _extension(told: Told) -> Iterator[tuple[str, str]]:
    """Yield keys of the format's dictionary with their values; empty ones are not written."""
    yield "rt", str(told.time_us // 1_000)
    yield "externalId", str(told.index)
    yield "deviceExternalId", told.origin
    yield "dvchost", told.producer
    yield "act", told.text("action")
    yield "outcome", _OUTCOMES.get(told.count("ocsf", "status_id") or 0, "unknown")
    yield "reason", told.text("outcome")
    yield "suid", told.text("user") or told.text("actor")
    yield "app", told.tls[0]
    for key, label, value in _custom(told):
        if value:
            yield key, value
            yield f"{key}Label", label


def _custom(told: Told) -> Iterator[tuple[str, str, str]]:
    verdicts = (f"{v.direction}/{v.type}/{v.action}/{v.times}" for v in told.verdicts)
    yield "cs1", "tenant", told.text("tenant")
    yield "cs2", "model", told.text("model")
    yield "cs3", "trace", told.text("trace_id")
    yield "cs4", "verdicts", ",".join(verdicts)
    yield "cs5", "leafHash", told.leaf_hash
    yield "cs6", "call", f"{told.text('call_id')}-{told.text('phase')}" if told.event else ""
    yield "flexString1", "actor", told.text("actor")
    yield "flexString2", "subject", told.text("subject")
    for key, label, number in (
        ("cn1", "promptTokens", told.count("usage", "prompt_tokens")),
        ("cn2", "completionTokens", told.count("usage", "completion_tokens")),
        ("cn3", "durationMicroseconds", told.number("duration_us")),
    ):
        yield key, label, "" if number is None else str(number)


# --- back again -----------------------------------------------------------------------------------


def _unescaped(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        mark = match[1]
        if len(mark) > 1:
            return chr(int(mark[1:], 16))
        return _BREAKS_BACK.get(mark, mark)

    return _ESCAPED.sub(plain, text)


def parse(line: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Read a line back: the seven fields of the header, and the extension.

    Raises:
        ValueError: it is no line of this format.
    """
    parts = _split(line)
    if len(parts) != _FIELDS or not parts[0].startswith("CEF:"):
        msg = "not a line of the Common Event Format"
        raise ValueError(msg)
    *head, extension = parts
    return tuple(map(_unescaped, head)), dict(_pairs(extension))


def _split(line: str) -> list[str]:
    """Split the header at bars that are not escaped; the extension is the rest."""
    parts = [""]
    marks = iter(line)
    for mark in marks:
        if len(parts) == _FIELDS:
            parts[-1] += mark
        elif mark == "\\":
            parts[-1] += mark + next(marks, "")
        elif mark == "|":
            parts.append("")
        else:
            parts[-1] += mark
    return parts


def _pairs(extension: str) -> Iterator[tuple[str, str]]:
    found = list(_KEY.finditer(extension))
    for at, match in enumerate(found):
        end = found[at + 1].start() if at + 1 < len(found) else len(extension)
        yield match[1], _unescaped(extension[match.end() : end])
