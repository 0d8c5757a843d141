"""Logs: one JSON object a line, with trace ids, and nothing a person wrote.

    log = structlog.get_logger()
    log.info("audit.serving", port=50055)
    {"event": "audit.serving", "level": "info", "port": 50055, "at": "...", "trace_id": "0af7..."}

Event names and string values must look like names (`telemetry_names.is_name`); a value that does
not is replaced by a constant and counted, or raises where strict. An exception leaves its type and
frames (file and line), never its message. What other libraries log through `logging` is reduced to
who and how grave: their messages may quote a request.
"""

from __future__ import annotations

import json
import logging
import sys
from traceback import extract_tb
from typing import TYPE_CHECKING, TextIO

import structlog

from meshkit.counters import counted
from meshkit.telemetry_names import is_name
from meshkit.w3c import current_trace

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["FreeTextError", "configure_logging", "frames_of"]

_REFUSED = "refused"
_FRAMES_MAX = 30


class FreeTextError(TypeError):
    """A log line was to carry text that is not a name. Says under which key, not what."""


def frames_of(error: BaseException) -> list[str]:
    """Return where an exception came from, innermost last: `file:line`, at most 30."""
    found = extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    places = [f"{frame.filename}:{frame.lineno}" for frame in found]
    return [place if is_name(place) else f"-:{place.rpartition(':')[2]}" for place in places]


def configure_logging(
    *, level: int = logging.INFO, stream: TextIO | None = None, strict: bool = False
) -> None:
    """Set up structlog and `logging` for this process; call once, in main.

    Args:
        level: What is less grave is not formatted at all.
        stream: Standard error unless told otherwise.
        strict: Raise for free text (tests) instead of replacing it.
    """
    out = stream or sys.stderr
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _with_trace,
        _exception_without_text,
        _only_names(strict=strict),
        structlog.processors.JSONRenderer(sort_keys=False),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Foreign(out)]
    root.setLevel(max(level, logging.WARNING))


def _with_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if (trace := current_trace()) is not None:
        event["trace_id"] = trace.trace_id.hex()
    return event


def _exception_without_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turn `exc_info` into type and frames, before anything can print its message."""
    given = event.pop("exc_info", None)
    event.pop("stack_info", None)
    error = sys.exc_info()[1] if given is True else given
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["kind"] = type(error).__name__
        event["frames"] = frames_of(error)
    return event


def _only_names(*, strict: bool) -> Processor:
    def check(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for key, value in event.items():
            if not _sound(value):
                counted("logs.refused")
                if strict:
                    raise FreeTextError(key)
                event[key] = _REFUSED
        return event

    return check


def _sound(value: object) -> bool:
    match value:
        case None | bool() | int() | float():
            return True
        case str():
            return is_name(value)
        case list() | tuple():
            return all(_sound(each) for each in value)
        case _:
            return False


class _Foreign(logging.Handler):
    """What other libraries log: who, how grave, and for an exception its type. Not what."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        line: dict[str, object] = {
            "event": "log.foreign",
            "level": record.levelname.lower(),
            "logger": record.name if is_name(record.name) else _REFUSED,
            "where": f"{record.filename}:{record.lineno}",
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["kind"] = type(record.exc_info[1]).__name__
            line["frames"] = frames_of(record.exc_info[1])
        self._out.write(json.dumps(line) + "\n")
