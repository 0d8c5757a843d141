"""The services of a mesh on this host: each a process, started, watched, started again, drained.

    child = Child("cache", folder, settings, login)
    await child.start()             # serves, on child.port
    await child.watched()           # for ever: a process that ended is started again
    await child.replaced()          # another beside it; once that serves, the first drains
    await child.stop()

What a child needs to log in is written into its own folder, for it alone to read, anew at each
start: a response-wrapped secret id works once. Its log, JSON lines, is `log.jsonl` there. Workers
of one service are children that share a port, each with a folder and a login of its own. A child
dies with us, even by kill -9, and hears no Ctrl-C of ours: the order of the drain is ours.

Two that share a port (`<SERVICE>_SERVING__REUSE_PORT`) can hand over without a gap. One that writes
alone cannot share: its successor does all that can be done before, stands by (`standby`), and takes
over when the first has let go.
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
    module: what is run; None: `<service>.main`.
    standby: it writes alone: `<SERVICE>_STANDBY_FILE` appears once its successor waits for it.
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
    module: str | None = None
    standby: bool = False
    starts: int = 0
    _served: bool = False
    _process: asyncio.subprocess.Process | None = field(default=None)
    _leaving: asyncio.subprocess.Process | None = field(default=None)
    """Drains, for another has taken its place."""
    _moving: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever starts a process, so that no two do."""

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
        self._served = False
        self._process = await self._launched()
        self.starts += 1
        await self._until_serving(self._process, None)
        self._served = True

    async def replaced(self) -> None:
        """Start another beside it, and once that serves let the first drain.

        One that runs no more is left to `watched`. Returns once the first is gone.

        Raises:
            ChildError, VaultDown, OSError: the other does not come up; the first goes on.
        """
        async with self._moving:
            if not self.serving:
                return
            assert self._process is not None
            old, before = self._process, self._ready_file()
            fresh = await self._launched()
            try:
                if self.standby:
                    await self._until(fresh, (self.folder / "standby").exists)
                    (self.folder / "port").unlink(missing_ok=True)
                    before = None
                    _terminate(old)
                await self._until_serving(fresh, before)
            except BaseException:
                await _ended_now(fresh)
                raise
            self._process, self._leaving = fresh, old
            self.starts += 1
        await self._stopped(old)
        self._leaving = None

    async def watched(self) -> None:
        """Start it again whenever it ends, for ever."""
        pause_s = self.pause_s
        while True:
            assert self._process is not None
            process = self._process
            began = asyncio.get_running_loop().time()
            status = await self._ended(process)
            async with self._moving:
                replaced = self._process is not process
            if replaced:
                continue
            if asyncio.get_running_loop().time() - began > _LONG_S:
                pause_s = self.pause_s
            log.error("child.ended", service=self.name, status=status)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)
            await self._started_again()

    async def _started_again(self) -> None:
        try:
            async with self._moving:
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
        for process in (self._leaving, self._process):
            if process is not None and process.returncode is None:
                await self._stopped(process)

    async def _stopped(self, process: asyncio.subprocess.Process) -> None:
        if process is self._process and not self._served:
            await _ended_now(process)
            return
        _terminate(process)
        try:
            async with asyncio.timeout(self.stop_s):
                await process.wait()
        except TimeoutError:
            log.warning("child.killed", service=self.name)
            await _ended_now(process)

    async def _launched(self) -> asyncio.subprocess.Process:
        login = await self.login()
        write_private(self.folder / "role_id", login.role_id.encode())
        write_private(self.folder / "wrapped_secret_id", login.wrapping_token.encode())
        (self.folder / "standby").unlink(missing_ok=True)
        output = os.open(self.folder / "log.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()),
                sys.executable, "-m", self.module or f"{self.service}.main",
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
                env={**os.environ, **self.settings, **self._files()},
            )  # fmt: skip
        finally:
            os.close(output)

    def _files(self) -> dict[str, str]:
        """Return the settings that name its port, and files in its folder."""
        prefix = self.service.upper()
        files = {
            f"{prefix}_PORT": str(self.port),
            f"{prefix}_READY_FILE": str(self.folder / "port"),
            f"{prefix}_JOIN__ROLE_ID_FILE": str(self.folder / "role_id"),
            f"{prefix}_JOIN__WRAPPED_SECRET_ID_FILE": str(self.folder / "wrapped_secret_id"),
        }
        if self.standby:
            files[f"{prefix}_STANDBY_FILE"] = str(self.folder / "standby")
        return files

    def _ready_file(self) -> int | None:
        """Return which file it is that says the port: each process makes one of its own."""
        try:
            return (self.folder / "port").stat().st_ino
        except FileNotFoundError:
            return None

    async def _until_serving(self, process: asyncio.subprocess.Process, before: int | None) -> None:
        """Wait for a ready file that is another than `before`."""
        port: bytes | None = None

        def serves() -> bool:
            nonlocal port
            port = read_or_none(self.folder / "port")  # none yet, or half of it
            return bool(port) and self._ready_file() != before

        await self._until(process, serves)
        assert port is not None
        self.port = int(port)

    async def _until(self, process: asyncio.subprocess.Process, holds: Callable[[], bool]) -> None:
        where = self.folder / "log.jsonl"
        try:
            async with asyncio.timeout(self.ready_s):
                while not holds():
                    if process.returncode is not None:
                        msg = f"{self.service} ended while starting: {_last_words(where)}"
                        raise ChildError(msg)
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            msg = f"{self.service} did not serve within {self.ready_s:.0f} s: see {where}"
            raise ChildError(msg) from None


def _terminate(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()


async def _ended_now(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _last_words(log: Path) -> str:
    """Return why a service says it cannot start, or where to look."""
    lines = log.read_text(errors="replace").splitlines()
    told = [line for line in lines if line.startswith(CANNOT_START)]
    return told[-1].removeprefix(CANNOT_START) if told else f"see {log}"
