"""The export itself: read, verify, write, flush, and only then remember.

At least once: whatever ends it at whatever moment, the next run goes on at `state.next`, so an
entry may go out twice and none is left out. A sink that is down, full or slow is waited for, and
nothing is read ahead of it. A log that was put back, rewritten or forked since is not exported
any further.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from audit.export.cef import cef_line
from audit.export.ecs import ecs_line
from audit.export.ocsf import ocsf_line
from audit.export.reading import LogRefused, Seen, Wrong
from audit.export.sinks import Line, SinkDown
from audit.export.state import load_state, save_state
from audit.export.told import told_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from audit.export.reading import LogReader, Part
    from audit.export.sinks import Sink
    from audit.export.state import ExportState
    from audit.export.told import Told
    from meshkit.contract import Checkpoint

__all__ = ["FORMATS", "Exporter", "GaveUp", "Waits"]

_T = TypeVar("_T")

FORMATS: dict[str, Callable[[Told], bytes]] = {
    "ocsf": ocsf_line,
    "ecs": ecs_line,
    "cef": cef_line,
}


def _slept(seconds: float) -> bool:
    time.sleep(seconds)
    return False


class GaveUp(Exception):  # noqa: N818 -- says so
    """A sink or a file was away for longer than there was patience; `kind` is a constant."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long, in seconds."""

    first_s: float = 0.1
    """Before a failed write is tried again; then twice as long each time."""
    most_s: float = 30.0
    patience_s: float | None = 60.0
    """How long a write is tried before giving up; None: for ever."""
    poll_s: float = 1.0
    """How often a newer checkpoint is looked for."""


class Exporter:
    """One export: from one log, in one format, to one sink."""

    def __init__(
        self,
        reader: LogReader,
        sink: Callable[[str], Sink],
        state_file: Path,
        format_name: str,
        *,
        waits: Waits,
        told: Callable[[str, int], None] = lambda _what, _number: None,
        rest: Callable[[float], bool] = _slept,
    ) -> None:
        """Prepare; nothing is read yet. Whoever runs it holds the state's lock (`alone`).

        Args:
            reader: Of the log.
            sink: Makes the sink, told the log's name.
            state_file: Where to go on, and what is remembered.
            format_name: One of `FORMATS`.
            waits: How long to wait for what.
            told: Told what happens: `waiting` and `rejected`, with an index.
            rest: Waits so many seconds; returns whether to stop.
        """
        self._reader = reader
        self._make_sink = sink
        self._state_file = state_file
        self._format = format_name
        self._waits = waits
        self._told = told
        self._rest = rest
        self._sink: Sink | None = None
        self._stopped = self._rotated = False

    def run(self, *, follow: bool) -> ExportState:
        """Export all that is published; `follow`: and go on with what comes, until stopped.

        Raises:
            LogRefused: the log is not what it was; nothing of that was exported.
            GaveUp: patience is over.
            StateInvalid: the state is another export's.
            SinkRefused: the receiver will take nothing.
            OSError: the state cannot be read.
        """
        state = load_state(self._state_file, self._format)
        try:
            while True:
                state = self._caught_up(state)
                if not follow or self._stopped or self._rest(self._waits.poll_s):
                    return state
        finally:
            if self._sink is not None:
                self._sink.close()

    def reopen_soon(self) -> None:
        """Go on in a new file before the next entries: it was rotated away. Signal handlers may."""
        self._rotated = True

    def _caught_up(self, state: ExportState) -> ExportState:
        checkpoint = self._patiently(lambda: self._reader.checkpoint(state.seen))
        if checkpoint is None:
            return state
        origin = self._reader.origin(checkpoint)
        if state.origin not in ("", origin):
            raise LogRefused(Wrong.FORK, size=checkpoint.size)
        if checkpoint.size == state.done.size == state.seen.size:
            return state
        seen = Seen(checkpoint.size, checkpoint.root)
        return self._all_of(checkpoint, replace(state, origin=origin, seen=seen))

    def _all_of(self, checkpoint: Checkpoint, state: ExportState) -> ExportState:
        edge = self._patiently(lambda: self._reader.edge(state.done, checkpoint))
        while edge is not None and edge.size < checkpoint.size and not self._stopped:
            now = edge
            part = self._patiently(lambda: self._reader.part(now, checkpoint))  # noqa: B023 -- called at once
            if part is None:
                break
            advanced = self._put(part, state)
            if advanced is None:
                break
            state, edge = advanced, part.edge
        return state

    def _put(self, part: Part, state: ExportState) -> ExportState | None:
        """Write a part, flush it, and only then advance the state. None: stopped before."""
        lines = self._lines(part, state.origin)
        if self._sink is None:
            self._sink = self._make_sink(state.origin)
        sink = self._sink
        if self._rotated:
            self._rotated = False
            sink.reopen()
        rejected = self._patiently(lambda: sink.put(lines))
        if rejected is None:
            return None
        for number in rejected:
            self._told("rejected", number)
        done = Seen(part.edge.size, part.edge.root())
        state = replace(state, done=done, rejected=state.rejected + len(rejected))
        self._patiently(partial(save_state, self._state_file, state))
        return state

    def _lines(self, part: Part, origin: str) -> list[Line]:
        written = FORMATS[self._format]
        return [
            Line(number, written(told_of(leaf, number, origin)), leaf)
            for number, leaf in enumerate(part.entries, part.first)
        ]

    def _patiently(self, work: Callable[[], _T]) -> _T | None:
        """Do something that may fail for now, again and again. None: stopped meanwhile."""
        pause_s, waited_s = self._waits.first_s, 0.0
        while True:
            try:
                return work()
            except BrokenPipeError:
                raise
            except SinkDown as down:
                kind = down.kind
            except OSError as failure:
                kind = os.strerror(failure.errno) if failure.errno else "cannot be read"
            patience_s = self._waits.patience_s
            if patience_s is not None and waited_s >= patience_s:
                raise GaveUp(kind)
            self._told("waiting", -1)
            if self._rest(pause_s):
                self._stopped = True
                return None
            waited_s += pause_s
            pause_s = min(2 * pause_s, self._waits.most_s)
