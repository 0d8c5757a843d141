"""Asking a mesh that runs to replace its services, and answering: by a signal and `ready.json`.

    asked = restarts_asked()                the mesh: listens, before anybody can know of it
    restarting(house, ready, asked)         does it whenever asked, and says so in `ready`
    restart(ready, say)                     the command: asks, and waits

A terminal that closes sends SIGHUP, so another signal asks.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Protocol

from appliance.openbao import OpenBaoError, alone
from meshkit.files import read_or_none, write_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["restart", "restarting", "restarts_asked"]

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


def restarts_asked() -> asyncio.Event:
    """Return what is set when somebody asks. Until then the signal would end the process."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(ASKED, asked.set)
    return asked


async def restarting(house: House, ready: Path, asked: asyncio.Event) -> None:
    """Replace the services each time that somebody asks, for ever."""
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
    """Return what a running mesh says of itself; None if none runs.

    One that was killed leaves its facts, and its number to a stranger: the lock tells.
    """
    if (told := read_or_none(ready)) is None:
        return None
    try:
        with alone(ready.parent):
            return None
    except OpenBaoError:
        facts: dict[str, str | int] = json.loads(told)
        return facts
