"""Threads that run steps together: whoever asks for one, and helpers that sleep in between."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from inference.engines.jit.program import Argument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inference.engines.jit.compiled import Compiled

__all__ = ["Team"]

_LEAVE_S = 1.0
"""For a helper to leave: it takes microseconds, unless the machine is short of cores."""


class Team:
    """Runs steps on several threads, the caller's among them.

    Args:
        code: see `program.emit_step`.
        given: what a step is given, by `Argument`. Its THREADS says how many we are.
        held: what must live for as long as a helper may run.
    """

    def __init__(self, code: Compiled, given: NDArray[np.int64], held: object) -> None:
        self._code = code  # owns what `step` points to
        self._step, self._given = code.step(), given.ctypes.data
        self._process = os.getpid()
        self._events = [os.eventfd(0) for _ in range(given[Argument.THREADS] - 1)]
        helpers: list[threading.Thread] = []
        # A model that nobody holds any more leaves no threads behind, nor does one half made. At
        # the process's own end they go with it: a step under way would else wait for them.
        end = weakref.finalize(self, _dismiss, given, self._events, helpers, self._process)
        end.atexit = False
        for number, event in enumerate(self._events, 1):
            args = (code, given, held, number, event)
            helper = threading.Thread(target=_help, args=args, name="torch-step", daemon=True)
            helper.start()
            helpers.append(helper)

    def run(self) -> None:
        """Run a step; all threads are done with it when this returns.

        Raises:
            RuntimeError: in a process that was forked: the helpers, and what wakes them, are its
                parent's.
        """
        if os.getpid() != self._process:
            msg = "a model does not outlive a fork"
            raise RuntimeError(msg)
        for event in self._events:
            os.eventfd_write(event, 1)
        self._step(self._given, 0)


def _help(code: Compiled, given: NDArray[np.int64], _held: object, number: int, event: int) -> None:
    """Help until dismissed; the arguments live as long."""
    code.help()(given.ctypes.data, number, event)
    os.close(event)


def _dismiss(
    given: NDArray[np.int64], events: list[int], helpers: list[threading.Thread], process: int
) -> None:
    if os.getpid() != process:
        return
    given[Argument.CLOSING] = 1
    for event in events:
        os.eventfd_write(event, 1)
    # Else one might come back to an interpreter that is ending, which aborts the process.
    for helper in helpers:
        helper.join(_LEAVE_S)
