"""A real Redis beside the mesh: TLS 1.3, a user per service, and gone when we are.

    async with redis_server(RedisServerSettings(data=Path("var/mesh/redis"))) as server:
        server.link_settings("cache"), server.link_settings("gateway")

Under `data`, all of it readable by the owner alone:

    tls/            the listener's certificate and its CA, whose private key is forgotten at once
    users/          `<service>.password`, 32 random bytes in hexadecimal
    users.acl       what each user may do; holds the passwords' SHA-256
    redis.conf      the configuration of this start
    redis.log       the server's own log

No value is written to disk: a restart must not bring back what was purged, and Redis' append-only
file loses the last two seconds when it is killed. So it starts empty: the cache misses, and limits
grant one more burst.

A user may only what its service does, and only to keys of its own; the user `default` is off, so
nobody may do anything without a password. Redis sees ciphertext, keyed hashes and numbers.

Out of room, Redis drops what was used longest ago among what has an end anyway: cached answers and
idle limits, never a tenant's generation. It is killed with us, even by kill -9.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import socket
import ssl
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import BaseModel, ConfigDict, Field

from appliance.openbao import LAUNCHER
from appliance.openbao_tls import ensure_listener_tls
from meshkit.background import running
from meshkit.files import read_or_none, write_private
from meshkit.redis_link import RedisSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["USERS", "RedisError", "RedisServer", "RedisServerSettings", "redis_server"]

log = structlog.get_logger()

_PASSWORD_BYTES = 32
_POLL_S = 0.02

_CACHE_READS = ("get", "mget", "hget", "hgetall", "zcount", "time")
_CACHE_WRITES = ("set", "unlink", "pexpire", "hset", "zadd", "zpopmin", "zremrangebyscore")
_SCRIPTS = ("eval", "evalsha")

USERS = {
    "cache": ("sealgate:cache:*", (*_CACHE_READS, *_CACHE_WRITES, *_SCRIPTS)),
    "gateway": ("sealgate:limits:*", ("get", "set", "time", *_SCRIPTS)),
    "compliance": ("sealgate:tokens:*", ("hget", "hlen", "hmget", "hset", "pexpire", *_SCRIPTS)),
}
"""Service -> the keys and the commands that it may use, and no others."""


class RedisServerSettings(BaseModel):
    """How to run Redis on this host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(description="Folder for all its state; made if missing.")
    port: int = Field(default=0, ge=0, le=65_535, description="On 127.0.0.1; 0 takes a free one.")
    program: Path | None = Field(default=None, description="Default: `redis-server` on PATH.")
    memory_bytes_max: int = Field(default=512 * 1024 * 1024, gt=0, description="For all values.")
    ready_ms: int = Field(default=10_000, gt=0, description="From start to the first handshake.")
    stop_ms: int = Field(default=5_000, gt=0, description="From SIGTERM to SIGKILL.")
    restart_pause_s: float | None = Field(
        default=None, gt=0, description="When it ends by itself it is started again; None: not."
    )


class RedisError(RuntimeError):
    """Redis cannot be run here; the text says why and names no secret."""


@dataclass(slots=True, kw_only=True)
class RedisServer:
    """A running Redis, always at the same port."""

    port: int
    data: Path
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        return self.process.pid

    def link_settings(self, service: str, **changes: Any) -> RedisSettings:  # noqa: ANN401 -- its fields
        """Return how a service reaches it."""
        return RedisSettings.model_validate({**self.environment(service), **changes})

    def environment(self, service: str) -> dict[str, str]:
        """Return the same as names and values, for `<SERVICE>_REDIS__<NAME>`; nothing secret."""
        return {
            "address": f"localhost:{self.port}",
            "ca": str(self.data / "tls" / "ca.pem"),
            "username": service,
            "password_file": str(self.data / "users" / f"{service}.password"),
        }


@asynccontextmanager
async def redis_server(settings: RedisServerSettings) -> AsyncIterator[RedisServer]:
    """Run Redis while the block runs. Enter from a thread that lives as long (the main one).

    Raises:
        RedisError: no program, the port is taken, or it ended or was not ready in time.
        OSError: `data` cannot be written.
    """
    program = _program(settings)
    port = _free_port(settings.port)
    data = settings.data.absolute()
    config = _prepare(settings, data, port)
    server = RedisServer(port=port, data=data, process=await _launch(program, config))
    try:
        await _until_ready(server.process, data, port, settings.ready_ms)
        log.info("redis.ready", port=port, pid=server.pid)
        if settings.restart_pause_s is None:
            yield server
            return
        async with running(_kept(server, settings, program, config), "redis-watch"):
            yield server
    finally:
        await _stop(server.process, settings.stop_ms)


async def _kept(
    server: RedisServer, settings: RedisServerSettings, program: Path, config: Path
) -> None:
    """Start it again whenever it ends, for ever; empty, as at the first start."""
    assert settings.restart_pause_s is not None
    while True:
        status = await server.process.wait()
        log.error("redis.ended", status=status)
        await asyncio.sleep(settings.restart_pause_s)
        try:
            server.process = await _launch(program, config)
            await _until_ready(server.process, server.data, server.port, settings.ready_ms)
        except (RedisError, OSError):
            log.error("redis.not_started")  # noqa: TRY400 -- the text names paths; see its log
            await _stop(server.process, settings.stop_ms)
        else:
            log.info("redis.started_again", pid=server.pid)


def _program(settings: RedisServerSettings) -> Path:
    on_path = shutil.which("redis-server")
    found = settings.program or (Path(on_path) if on_path else None)
    if found is None or not os.access(found, os.X_OK):
        msg = "no Redis program: install the package redis-server, or set `program`"
        raise RedisError(msg)
    return found.absolute()


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            msg = f"port {wanted} of 127.0.0.1 is taken: is another Redis running?"
            raise RedisError(msg) from None
        return int(probe.getsockname()[1])


def _prepare(settings: RedisServerSettings, data: Path, port: int) -> Path:
    for folder in (data, data / "tls", data / "users"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ensure_listener_tls(data / "tls", name="Redis")
    users = ["user default off nopass sanitize-payload resetchannels -@all"]
    for service, (keys, commands) in USERS.items():
        may = " ".join(f"+{command}" for command in commands)
        digest = hashlib.sha256(_password(data / "users" / f"{service}.password")).hexdigest()
        users.append(f"user {service} on #{digest} ~{keys} resetchannels -@all {may}")
    write_private(data / "users.acl", ("\n".join(users) + "\n").encode())
    config = data / "redis.conf"
    write_private(config, _config(settings, data, port).encode())
    return config


def _password(path: Path) -> bytes:
    """Return the password kept in a file; make one on the first start."""
    if (kept := read_or_none(path)) is None:
        kept = secrets.token_hex(_PASSWORD_BYTES).encode()
        write_private(path, kept)
    return kept.strip()


def _config(settings: RedisServerSettings, data: Path, port: int) -> str:
    lines = {
        "bind": "127.0.0.1",
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": f'"{data / "tls" / "server.pem"}"',
        "tls-key-file": f'"{data / "tls" / "server.key"}"',
        "tls-ca-cert-file": f'"{data / "tls" / "ca.pem"}"',
        "tls-auth-clients": "no",
        "tls-protocols": '"TLSv1.3"',
        "aclfile": f'"{data / "users.acl"}"',
        "dir": f'"{data}"',
        "logfile": f'"{data / "redis.log"}"',
        "appendonly": "no",
        "save": '""',
        "maxmemory": str(settings.memory_bytes_max),
        "maxmemory-policy": "volatile-lru",
        "timeout": "0",
        "daemonize": "no",
        "enable-debug-command": "no",
        "enable-module-command": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


async def _launch(program: Path, config: Path) -> asyncio.subprocess.Process:
    command = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid())]
    return await asyncio.create_subprocess_exec(
        *command, str(program), str(config),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        # Ctrl-C reaches the whole foreground group: Redis must outlive the drain.
        start_new_session=True,
        umask=0o077,
        env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip


async def _until_ready(
    process: asyncio.subprocess.Process, data: Path, port: int, ready_ms: int
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=data / "tls" / "ca.pem")
    try:
        async with asyncio.timeout(ready_ms / 1_000):
            while not await _answers(port, context):
                if process.returncode is not None:
                    msg = f"Redis ended with {process.returncode} while starting: see its log"
                    raise RedisError(msg)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        msg = f"Redis was not ready after {ready_ms} ms: see {data / 'redis.log'}"
        raise RedisError(msg) from None


async def _answers(port: int, context: ssl.SSLContext) -> bool:
    """Whether it shakes hands and asks for a login, as our Redis does and a stranger would not."""
    try:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return (await reader.readline()).startswith(b"-NOAUTH")
    except OSError:
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _stop(process: asyncio.subprocess.Process, stop_ms: int) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(stop_ms / 1_000):
            await process.wait()
    except TimeoutError:
        log.warning("redis.killed", stop_ms=stop_ms)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
