"""A trace as a waterfall: what the log recorded of its calls, and spans where they were kept. PURE.

Two kinds of rows, and a reader is told which is which:

    recorded   from signed records: a call from its INTENT to its OUTCOME, its first character, the
               moments at which both were taken into the log
    spans      telemetry of the five services, if the console receives it: sampled, no evidence

Spans count only if they lie under the span that a record of this tenant names: trace ids are the
callers' own, and somebody else's trace may bear the same one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audit.console.fields import span_of_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Bar", "Span", "Waterfall", "waterfall_of"]

_DEPTH_MAX = 12
_BARS_MAX = 400
WIDTH = 1_000.0
"""Of the drawing, in its own units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span of one of our services, without any text. Times in microseconds UTC."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    service: str
    name: str
    start_us: float
    end_us: float
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A row. `left` and `width` are of `WIDTH`; `kind` is call, mark or a service's name."""

    label: str
    kind: str
    depth: int
    left: float
    width: float
    starts: str
    took: str
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """All rows, in order, and how long the whole took."""

    bars: tuple[Bar, ...]
    took: str
    has_spans: bool


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    kind: str
    depth: int
    start_us: float
    end_us: float
    failed: bool = False


def waterfall_of(
    events: Sequence[tuple[dict[str, Any], dict[str, Any]]], spans: Iterable[Span]
) -> Waterfall:
    """Lay out a trace.

    Args:
        events: `event` and `log` of each record of the trace, in log order.
        spans: Of the trace, whoever's.
    """
    children: dict[bytes, list[Span]] = defaultdict(list)
    by_id: dict[bytes, Span] = {}
    for span in spans:
        children[span.parent_id].append(span)
        by_id[span.span_id] = span
    rows: list[_Row] = []
    for call in _calls(events):
        rows += _recorded(call)
        root = by_id.get(bytes.fromhex(call[0][0]["span_id"]))
        if root is not None:
            rows += _under(root, children, 1)
    rows = rows[:_BARS_MAX]
    if not rows:
        return Waterfall(bars=(), took=span_of_time(0), has_spans=False)
    first = min(row.start_us for row in rows)
    whole = max(max(row.end_us for row in rows) - first, 1.0)
    return Waterfall(
        bars=tuple(_bar(row, first, whole) for row in rows),
        took=span_of_time(whole),
        has_spans=any(row.kind not in {"call", "mark"} for row in rows),
    )


def _calls(
    events: Sequence[tuple[dict[str, Any], dict[str, Any]]],
) -> Iterable[list[tuple[dict[str, Any], dict[str, Any]]]]:
    calls: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    for event, log in events:
        calls[event["call_id"]].append((event, log))
    return calls.values()


def _recorded(call: list[tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[_Row]:
    """Yield what a call's own records say."""
    phases = {event["phase"]: (event, log) for event, log in call}
    first = call[0][0]
    outcome = phases.get("outcome", (None, None))[0]
    begun = _begun(first, outcome)
    last = call[-1][0]
    failed = outcome is not None and outcome.get("outcome") != "released"
    ended = last["time_us"] if outcome is None else outcome["time_us"]
    label = f"{first['action']} · {(outcome or last).get('outcome') or 'no outcome'}"
    yield _Row(label, "call", 0, begun, max(ended, begun), failed)
    marks = [
        (float(log["received_us"]), f"{event['phase']} taken into the log") for event, log in call
    ]
    if outcome is not None and outcome.get("first_token_us"):
        marks.append((begun + outcome["first_token_us"], "first character released"))
    for at, mark in sorted(marks):
        yield _Row(mark, "mark", 1, at, at)


def _begun(first: dict[str, Any], outcome: dict[str, Any] | None) -> float:
    """When a call arrived: its outcome's time less its duration, or the time of its INTENT."""
    if outcome is not None and outcome.get("duration_us"):
        return float(min(first["time_us"], outcome["time_us"] - outcome["duration_us"]))
    return float(first["time_us"])


def _under(span: Span, children: dict[bytes, list[Span]], depth: int) -> Iterator[_Row]:
    yield _Row(
        f"{span.service} · {span.name}",
        span.service,
        depth,
        span.start_us,
        span.end_us,
        span.failed,
    )
    if depth < _DEPTH_MAX:
        for child in sorted(children.pop(span.span_id, ()), key=lambda each: each.start_us):
            yield from _under(child, children, depth + 1)


def _bar(row: _Row, first: float, whole: float) -> Bar:
    took = row.end_us - row.start_us
    return Bar(
        label=row.label,
        kind=row.kind,
        depth=row.depth,
        left=round((row.start_us - first) / whole * WIDTH, 1),
        width=round(max(took / whole * WIDTH, 2.0), 1),
        starts=span_of_time(row.start_us - first),
        took=span_of_time(took) if row.kind != "mark" else "",
        failed=row.failed,
    )
