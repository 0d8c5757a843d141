"""Asking a mesh that runs to replace its services, and answering: by a signal and `ready.json`.

    restarting(house, ready)        the mesh: does it whenever asked, and says so in `ready`
    restart(ready, say)             the command: asks, and waits

A terminal that closes sends SIGHUP, so another signal asks.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Protocol

from meshkit.files import write_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["restart", "restarting"]

ASKED = signal.SIGUSR1
_POLL_S = 0.1
_FAILED = 1


class House(Protocol):
    """What can be asked."""

    async def restart(self) -> None:
        """Replace every service."""
        ...

    def facts(self) -> dict[str, str | int]:
        """Return what goes into `ready.json`."""
        ...


async def restarting(house: House, ready: Path) -> None:
    """Replace the services each time that somebody asks, for ever."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(ASKED, asked.set)
    while True:
        await asked.wait()
        asked.clear()
        await house.restart()
        write_private(ready, json.dumps(house.facts(), indent=2).encode())


def restart(ready: Path, say: Callable[[str], None]) -> int:
    """Ask the mesh that runs on this data to replace its services; wait until it has.

    Returns:
        The exit code: 0 if each was replaced.
    """
    before = _facts(ready)
    if before is None:
        say("No mesh serves on this data")
        return _FAILED
    os.kill(int(before["pid"]), ASKED)
    while (now := _facts(ready)) is not None and now["restarts"] == before["restarts"]:
        time.sleep(_POLL_S)
    if now is None:
        say("The mesh ended")
    elif now["restart_failed"]:
        say(f"{now['restart_failed']} did not come up again: see its log under services/")
    else:
        say("Every service was replaced")
        return 0
    return _FAILED


def _facts(ready: Path) -> dict[str, str | int] | None:
    """Return what a running mesh says of itself; None if none runs."""
    try:
        facts: dict[str, str | int] = json.loads(ready.read_bytes())
        os.kill(int(facts["pid"]), 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return facts
