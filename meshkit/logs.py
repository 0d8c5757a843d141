"""Logs: one JSON object a line, with trace ids, and nothing a person wrote.

    log = structlog.get_logger()
    log.info("audit.serving", port=50055)
    {"event": "audit.serving", "level": "info", "port": 50055, "at": "...", "trace_id": "0af7...",
     "span_id": "b7ad..."}

`span_id` is that of the call's root span. Keys must stand on the list `telemetry_names.LOG_KEYS`,
events and string values must look like names; a key that does not is dropped and a value replaced
by a constant, and that is counted; where strict, as in tests, both raise. An exception leaves its
type and frames (file and line), never its message. What other libraries log through `logging` is
reduced to who and how grave: their messages may quote a request. What is written may also be handed
on, line by line (`handed_to`): `meshkit.otlp` sends it to a collector.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from traceback import extract_tb
from typing import TYPE_CHECKING, TextIO

import structlog

from meshkit.counters import counted
from meshkit.telemetry_names import LOG_KEYS, is_event, is_name
from meshkit.w3c import current_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["FreeTextError", "configure_logging", "frames_of", "handed_to"]

_REFUSED = "refused"
_FRAMES_MAX = 30


class FreeTextError(TypeError):
    """A log line was to carry text that is no name, or a key not on the list. Says which key."""


class _State:
    """How lines are treated in this process, now."""

    strict: bool = False
    hand_on: Callable[[Mapping[str, object]], None] | None = None


@contextmanager
def handed_to(
    hand_on: Callable[[Mapping[str, object]], None] | None, *, strict: bool = False
) -> Iterator[None]:
    """Hand each line on, once it is clean, for as long as the block runs.

    Args:
        hand_on: Must not wait, and not log. Lines come from any thread.
        strict: Raise for what may not stand in a line, from now on (tests).
    """
    before = _State.strict, _State.hand_on
    _State.strict, _State.hand_on = _State.strict or strict, hand_on
    try:
        yield
    finally:
        _State.strict, _State.hand_on = before


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
    _State.strict = strict
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _with_trace,
        _exception_without_text,
        _only_what_may,
        _handed_on,
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
        event["span_id"] = trace.span_id.hex()
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


def _only_what_may(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Let pass what is on the list and looks like a name."""
    clean: EventDict = {}
    for key, value in event.items():
        if key not in LOG_KEYS:
            _refuse(key, "logs.keys_dropped")
        elif not (is_event(value) if key == "event" else _sound(value)):
            _refuse(key, "logs.refused")
            clean[key] = _REFUSED
        else:
            clean[key] = value
    return clean


def _refuse(key: str, counter: str) -> None:
    counted(counter)
    if _State.strict:
        raise FreeTextError(key)


def _handed_on(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if _State.hand_on is not None:
        _State.hand_on(event)
    return event


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
        # Not what the exporter says of itself: that would be sent again and again.
        if _State.hand_on is not None and not record.name.startswith("opentelemetry"):
            _State.hand_on(line)
