"""A line to Redis that is never waited for long: TLS 1.3, one try, and a breaker.

    async with redis_link(settings, name="cache") as link:
        value = await link.call("GET", key)
        reply = await link.run(SCRIPT, keys=(key,), args=(b"1",))

Whatever keeps Redis from answering is `RedisAway`, at the latest after `timeout_ms`. After
`failures_max` failures in a row calls fail at once, but for one every `hold_off_ms` that tries; the
first that succeeds ends it. So a dead Redis costs its users next to nothing, and one that comes
back is used again without anybody's help.

No command is ever sent twice: a script that ran and whose reply was lost must not run again.

Counted: `redis.<name>.failed` (asked, no good answer), `redis.<name>.held_off` (not asked).
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path  # noqa: TC003 -- pydantic reads it at run time
from typing import TYPE_CHECKING, Any, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, model_validator
from redis.asyncio import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from meshkit.counters import counted, measured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

__all__ = [
    "Breaker",
    "RedisAway",
    "RedisLink",
    "RedisRefused",
    "RedisSettings",
    "Script",
    "redis_link",
]

log = structlog.get_logger()

Part = bytes | str | int | float

_MS_PER_S = 1_000


class RedisAway(Exception):  # noqa: N818 -- a state of a neighbour, not a malfunction of ours
    """Redis did not answer, or is not asked for a while. Says nothing of what was asked."""


class RedisRefused(RedisAway):
    """Redis answered that it will not: forbidden by its ACL, out of memory, of another type."""


class RedisSettings(BaseModel):
    """How a service reaches its Redis. Without `address`, there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(
        default="",
        pattern=r"^$|^[A-Za-z0-9.\-]+:[0-9]{1,5}$",
        description="`host:port`. Empty: off.",
    )
    ca: Path | None = Field(default=None, description="PEM; no other authority is believed.")
    username: str = Field(default="", max_length=64, description="Of Redis' ACL.")
    password_file: Path | None = Field(
        default=None, description="Read anew for every connection, so it may be rotated."
    )
    timeout_ms: int = Field(
        default=250, gt=0, description="For one call, with connecting where that is needed."
    )
    failures_max: int = Field(default=3, gt=0, description="In a row; then it is held off.")
    hold_off_ms: int = Field(default=1_000, gt=0, description="Between tries while it is away.")
    connections_max: int = Field(default=16, gt=0, description="More calls at once take turns.")

    @property
    def configured(self) -> bool:
        """Whether there is a Redis."""
        return bool(self.address)

    @model_validator(mode="after")
    def is_complete(self) -> Self:
        """There is no mode without TLS and none without a login to forget about."""
        given = (self.ca, self.username, self.password_file)
        if self.address and not all(given):
            msg = "redis needs ca, username and password_file beside its address"
            raise ValueError(msg)
        if any(given) and not self.address:
            msg = "redis has settings, but no address"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, sent by its digest once Redis knows it."""

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        # Redis names scripts so; it guards nothing.
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


@dataclass(slots=True)
class Breaker:
    """Whether to ask somebody who did not answer before. No I/O."""

    failures_max: int
    hold_off_s: float
    clock: Callable[[], float] = time.monotonic
    _failures: int = 0
    _again_s: float = 0.0

    @property
    def open(self) -> bool:
        """Whether most calls are held off."""
        return self._failures >= self.failures_max

    def admits(self) -> bool:
        """Whether this call may try; while open, one in each `hold_off_s`."""
        if not self.open:
            return True
        now_s = self.clock()
        if now_s < self._again_s:
            return False
        # Whoever else comes before this try has ended finds it held off.
        self._again_s = now_s + self.hold_off_s
        return True

    def succeeded(self) -> bool:
        """Close; return whether it was open."""
        was_open = self.open
        self._failures = 0
        return was_open

    def failed(self) -> bool:
        """Count a failure; return whether that opened it."""
        was_open = self.open
        self._failures += 1
        if self.open:
            self._again_s = self.clock() + self.hold_off_s
        return self.open and not was_open


class RedisLink:
    """Calls to one Redis. Made by `redis_link`; for one event loop."""

    def __init__(self, connections: _Connections, settings: RedisSettings, name: str) -> None:
        self._connections = connections
        self._timeout_s = settings.timeout_ms / _MS_PER_S
        self._breaker = Breaker(settings.failures_max, settings.hold_off_ms / _MS_PER_S)
        self._name = name
        self._refusing = False

    @property
    def held_off(self) -> bool:
        """Whether Redis failed so often that it is hardly asked."""
        return self._breaker.open

    async def call(self, *command: Part) -> Any:  # noqa: ANN401 -- whatever the command replies
        """Send a command; return its raw reply.

        Raises:
            RedisRefused: Redis answered with an error.
            RedisAway: it did not answer in time, or is held off.
        """
        try:
            return await self._asked(command)
        except ResponseError as error:
            raise self._refused(error) from None

    async def run(self, script: Script, *, keys: tuple[str, ...], args: tuple[Part, ...]) -> Any:  # noqa: ANN401 -- whatever the script replies
        """Run a script; return its raw reply. Raises as `call` does."""
        rest = (len(keys), *keys, *args)
        try:
            return await self._asked(("EVALSHA", script.digest, *rest))
        except NoScriptError:
            # It did not run: Redis was started anew since. This sends it and runs it.
            return await self.call("EVAL", script.text, *rest)
        except ResponseError as error:
            raise self._refused(error) from None

    async def _asked(self, command: tuple[Part, ...]) -> Any:  # noqa: ANN401 -- as above
        if not self._breaker.admits():
            counted(f"redis.{self._name}.held_off")
            raise RedisAway
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._connections.ask(command)
        except ResponseError:
            self._back()
            raise
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._away(error)
            raise RedisAway from None
        self._back()
        self._refusing = False
        return reply

    def _refused(self, error: ResponseError) -> RedisRefused:
        counted(f"redis.{self._name}.failed")
        if not self._refusing:
            log.warning("redis.refused", name=self._name, kind=type(error).__name__)
        self._refusing = True
        return RedisRefused()

    def _away(self, error: Exception) -> None:
        counted(f"redis.{self._name}.failed")
        if self._breaker.failed():
            log.warning("redis.away", name=self._name, kind=type(error).__name__)

    def _back(self) -> None:
        if self._breaker.succeeded():
            log.info("redis.back", name=self._name)


@asynccontextmanager
async def redis_link(settings: RedisSettings, *, name: str) -> AsyncIterator[RedisLink]:
    """Own connections to Redis for as long as the block runs. It need not be there yet.

    Args:
        settings: With an address.
        name: Of the user of this link, a constant: it stands in counters and logs.

    Raises:
        OSError: the CA cannot be read.
    """
    host, _, port = settings.address.rpartition(":")
    make = partial(
        _PinnedConnection,
        tls=_tls(settings),
        host=host,
        port=int(port),
        credential_provider=_PasswordFile(settings),
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,  # the call's own timeout is for all of it
        socket_connect_timeout=settings.timeout_ms / _MS_PER_S,
        # These send commands that a least-privilege ACL refuses.
        driver_info=None,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    connections = _Connections(make, settings.connections_max)
    link = RedisLink(connections, settings, name)
    try:
        with measured(f"redis.up.{name}", lambda: not link.held_off):
            yield link
    finally:
        await connections.aclose()


class _Connections:
    """A connection for each call under way, up to a number; more calls take turns.

    redis-py's own pool and client do the same at twice the cost, most of it for retries, metrics
    and kinds of Redis that are not used here.
    """

    def __init__(self, make: Callable[[], SSLConnection], most: int) -> None:
        self._make = make
        self._turns = asyncio.Semaphore(most)
        self._idle: list[SSLConnection] = []

    async def ask(self, command: tuple[Part, ...]) -> Any:  # noqa: ANN401 -- whatever it replies
        """Send a command and read its reply; a connection that fails at that is closed."""
        async with self._turns:
            connection = self._idle.pop() if self._idle else self._make()
            try:
                return await _asked(connection, command)
            except ResponseError:
                raise
            except BaseException:
                # Also when cancelled: a reply still to come must not meet another command.
                await connection.disconnect(nowait=True)
                raise
            finally:
                self._idle.append(connection)

    async def aclose(self) -> None:
        """Close what is open; no call is under way any more."""
        for connection in self._idle:
            with suppress(RedisError, OSError):
                await connection.disconnect()


async def _asked(connection: SSLConnection, command: tuple[Part, ...]) -> Any:  # noqa: ANN401 -- as above
    # Readable before anything was asked: Redis closed it, while it was idle.
    if connection.is_connected and await connection.can_read():
        await connection.disconnect(nowait=True)
    if not connection.is_connected:
        await connection.connect()  # type: ignore[no-untyped-call] # redis-py left its types out
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()


def _tls(settings: RedisSettings) -> ssl.SSLContext:
    """TLS 1.3 under one CA: redis-py's own context would believe the system's CAs as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=settings.ca)
    return context


class _PinnedConnection(SSLConnection):
    """A connection with a TLS context that is given whole."""

    def __init__(self, *, tls: ssl.SSLContext, **given: Any) -> None:  # noqa: ANN401 -- redis-py's
        super().__init__(**given)
        self._tls = tls

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {"host": self.host, "port": self.port, "ssl": self._tls}


class _PasswordFile(CredentialProvider):
    """Reads the password when a connection logs in."""

    def __init__(self, settings: RedisSettings) -> None:
        assert settings.password_file is not None
        self._username = settings.username
        self._file = settings.password_file

    def get_credentials(self) -> tuple[str, str]:
        """Return user name and password. Raises OSError."""
        return self._username, self._file.read_text().strip()

    async def get_credentials_async(self) -> tuple[str, str]:
        """Return the same: a file of 64 bytes is read at once."""
        return self.get_credentials()
