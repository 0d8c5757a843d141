"""The services of a mesh on this host: each a process, started, watched, started again, drained.

    child = Child("cache", folder, settings, login)
    await child.start()             # serves, on child.port
    await child.watched()           # for ever: a process that ended is started again
    await child.stop()

What a child needs to log in is written into its own folder, for it alone to read, anew at each
start: a response-wrapped secret id works once. Its log, JSON lines, is `log.jsonl` there. Workers
of one service are children that share a port, each with a folder and a login of its own. A child
dies with us, even by kill -9, and hears no Ctrl-C of ours: the order of the drain is ours.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from appliance.openbao import LAUNCHER
from meshkit.contract import Refusal
from meshkit.files import read_or_none, write_private
from meshkit.member import BEAT_S, CANNOT_START

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from meshkit.vault import WrappedAppRole

__all__ = ["Child", "ChildError"]

log = structlog.get_logger()

_POLL_S = 0.05
_LONG_S = 10.0
"""A child that served for so long did not fail at starting: it is started again at once."""
_PAUSE_MAX_S = 10.0


class ChildError(RuntimeError):
    """A service does not start; the text says which and where its log is."""


@dataclass(slots=True, kw_only=True)
class Child:
    """One service.

    settings: its environment, beside ours; nothing secret.
    login: makes a login for it.
    ready_s: from start to serving, at most.
    stop_s: from SIGTERM to SIGKILL.
    pause_s: before it is started again; doubles while it fails.
    silent_max_s: killed if its ready file stays untouched for so long; 0: never.
    """

    service: str
    folder: Path
    settings: Mapping[str, str]
    login: Callable[[], Awaitable[WrappedAppRole]]
    port: int = 0
    ready_s: float = 120.0
    stop_s: float = 150.0
    pause_s: float = 0.5
    silent_max_s: float = 0.0
    starts: int = 0
    _served: bool = False
    _process: asyncio.subprocess.Process | None = field(default=None)

    @property
    def name(self) -> str:
        """Its service's, or that of its folder, where several serve as one."""
        return self.folder.name

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        assert self._process is not None
        return self._process.pid

    @property
    def serving(self) -> bool:
        """Whether it serves."""
        return self._running and read_or_none(self.folder / "port") is not None

    @property
    def _running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and wait until it serves; from then on its port stays the same.

        Raises:
            ChildError: it ended while starting, or took too long.
            VaultDown: it cannot be given a login.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "port").unlink(missing_ok=True)
        login = await self.login()
        write_private(self.folder / "role_id", login.role_id.encode())
        write_private(self.folder / "wrapped_secret_id", login.wrapping_token.encode())
        self._served = False
        self._process = await self._launched()
        self.starts += 1
        await self._until_serving()
        self._served = True

    async def watched(self) -> None:
        """Start it again whenever it ends, for ever."""
        pause_s = self.pause_s
        while True:
            assert self._process is not None
            began = asyncio.get_running_loop().time()
            status = await self._ended(self._process)
            if asyncio.get_running_loop().time() - began > _LONG_S:
                pause_s = self.pause_s
            log.error("child.ended", service=self.name, status=status)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)
            try:
                await self.start()
            except (ChildError, Refusal, OSError) as failure:
                log.error("child.not_started", service=self.name, kind=type(failure).__name__)  # noqa: TRY400 -- the text is in its log
                await self.stop()
            else:
                log.info("child.started_again", service=self.name, starts=self.starts)

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        """Wait for its end, and bring it about where it has fallen silent: hung, or paused.

        The time is ours and the file tells only that it changed, so a clock that is set kills
        nobody. One that drains has no ready file; its drain has a bound of its own.
        """
        if not self.silent_max_s:
            return await process.wait()
        clock = asyncio.get_running_loop().time
        beat, heard_s = self._beat(), clock()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    return await process.wait()
            if (latest := self._beat()) != beat or latest is None:
                beat, heard_s = latest, clock()
            elif clock() - heard_s > self.silent_max_s:
                log.error("child.silent", service=self.name)
                with suppress(ProcessLookupError):
                    process.kill()

    def _beat(self) -> int | None:
        try:
            return (self.folder / "port").stat().st_mtime_ns
        except FileNotFoundError:
            return None

    async def stop(self) -> None:
        """Drain it; kill it if it takes too long, or has nothing to drain as it never served."""
        if not self._running:
            return
        assert self._process is not None
        with suppress(ProcessLookupError):
            if self._served:
                self._process.terminate()
            else:
                self._process.kill()
        try:
            async with asyncio.timeout(self.stop_s):
                await self._process.wait()
        except TimeoutError:
            log.warning("child.killed", service=self.name)
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _launched(self) -> asyncio.subprocess.Process:
        prefix = self.service.upper()
        files = {
            f"{prefix}_PORT": str(self.port),
            f"{prefix}_READY_FILE": str(self.folder / "port"),
            f"{prefix}_JOIN__ROLE_ID_FILE": str(self.folder / "role_id"),
            f"{prefix}_JOIN__WRAPPED_SECRET_ID_FILE": str(self.folder / "wrapped_secret_id"),
        }
        output = os.open(self.folder / "log.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()),
                sys.executable, "-m", f"{self.service}.main",
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
                env={**os.environ, **self.settings, **files},
            )  # fmt: skip
        finally:
            os.close(output)

    async def _until_serving(self) -> None:
        where = self.folder / "log.jsonl"
        try:
            async with asyncio.timeout(self.ready_s):
                while not (port := read_or_none(self.folder / "port")):  # none yet, or half of it
                    if not self._running:
                        msg = f"{self.service} ended while starting: {_last_words(where)}"
                        raise ChildError(msg)
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            msg = f"{self.service} did not serve within {self.ready_s:.0f} s: see {where}"
            raise ChildError(msg) from None
        self.port = int(port)


def _last_words(log: Path) -> str:
    """Return why a service says it cannot start, or where to look."""
    lines = log.read_text(errors="replace").splitlines()
    told = [line for line in lines if line.startswith(CANNOT_START)]
    return told[-1].removeprefix(CANNOT_START) if told else f"see {log}"
