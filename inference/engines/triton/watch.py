"""A thread that looks after one served model: is Triton there, is the model, is it still ours.

    every look_ms, and at once when somebody suspects
        away ── nothing to do but look again
        no model, starting ── have it loaded, then look at it
        ready, but was not, or is doubted ── look at it: ours? does it answer? else load it afresh

A thread, since all of it is waiting on blocking calls, and none of a request's.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from inference.engines.triton.adapters.base import Adapter, Served, ShapeError
from inference.engines.triton.control import Control, ControlError, State
from inference.engines.triton.scrape import Scraper
from meshkit.counters import counted
from meshkit.logs import frames_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.engines.triton.settings import TritonSettings
    from meshkit.contract import ModelInfo

__all__ = ["Opened", "Watch"]

log = structlog.get_logger()

_MS_PER_S: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A served model that was looked at: what it is, and how it is spoken to."""

    info: ModelInfo
    adapter: Adapter
    served: Served


class Watch:
    """Looks after a model. `start` it once, `stop` it once.

    Attributes:
        opened: how the model is spoken to now.
        losses: how often Triton was found to be away: connections from before are of no use.
    """

    def __init__(
        self,
        settings: TritonSettings,
        model: str,
        open_model: Callable[[Control], Opened],
        opened: Opened,
    ) -> None:
        self._settings = settings
        self._model = model
        self._open_model = open_model
        self.opened = opened
        self.losses = 0
        self._control = Control(settings)
        self._scraper = Scraper(settings)
        self._state = State.READY
        self._doubted = False
        self._suspected = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="triton-watch", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether the model could be asked when last looked at."""
        return self._state is State.READY and not self._stopping and self._thread.is_alive()

    @property
    def over(self) -> bool:
        """Whether nobody looks any more."""
        return self._stopping or not self._thread.is_alive()

    def start(self) -> None:
        """Begin to look, in a thread of its own.

        What Triton has counted by now is read before it returns: what it is asked from now on is
        ours. It blocks, for `control_ms` at most wherever nothing comes.
        """
        self._scraper.scrape()
        self._thread.start()

    def suspect(self, *, doubt: bool = False) -> None:
        """Have it look at once. doubt: Triton may call the model ready, but it did not answer."""
        self._doubted = self._doubted or doubt
        self._suspected.set()

    def stop(self) -> None:
        """Look no more; wait for the thread, as long as a question to Triton may take."""
        self._stopping = True
        self._suspected.set()
        if self._thread.is_alive():
            self._thread.join(self._settings.control_ms / _MS_PER_S)

    def _run(self) -> None:
        with self._scraper.gauges():
            while not self._stopping:
                try:
                    self._look()
                except Exception as bug:  # noqa: BLE001 -- else nobody would ever look again
                    log.error("triton.bug", kind=type(bug).__name__, frames=frames_of(bug))  # noqa: TRY400 -- no text
                    self._now(State.BROKEN)
                self._suspected.wait(self._settings.look_ms / _MS_PER_S)
                self._suspected.clear()
        self._control.close()

    def _look(self) -> None:
        state = self._control.look(self._model)
        doubted, self._doubted = self._doubted, False
        if state in (State.NO_MODEL, State.STARTING) and self._settings.load:
            state = self._loaded(state)
        elif state is State.READY and (doubted or self._state is not State.READY):
            state = self._opened_anew()
            if state is State.BROKEN and self._settings.load:
                state = self._reloaded()
        self._now(state)
        if state is State.READY:
            self._scraper.scrape()

    def _reloaded(self) -> State:
        """Have a model loaded afresh that Triton calls ready and that does not answer.

        So it is with a model of the Python backend whose process died: if it streams, Triton never
        starts another (seen with 2.51).
        """
        self._now(State.BROKEN)
        with suppress(ControlError):
            self._control.unload(self._model)
        return self._loaded(State.BROKEN)

    def _loaded(self, state: State) -> State:
        self._now(state)
        try:
            self._control.load(self._model)
        except ControlError:
            counted("triton.event.load_failed")
            return state
        counted("triton.event.loaded")
        return self._opened_anew()

    def _opened_anew(self) -> State:
        """Look at what is served now; another model than before is none."""
        try:
            opened = self._open_model(self._control)
        except ControlError:
            return State.BROKEN
        except ShapeError:
            opened = None
        if opened is None or opened.info.digest != self.opened.info.digest:
            return State.NOT_OURS
        self.opened = opened
        return State.READY

    def _now(self, state: State) -> None:
        if state is self._state:
            return
        counted(f"triton.event.{state.value}")
        tell = log.info if state is State.READY else log.warning
        tell("triton.state", model=self.opened.info.name, kind=state.value)
        if state is State.AWAY:
            self.losses += 1
        self._state = state
