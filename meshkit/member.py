"""A service as a process of its own: how it starts, joins the mesh, serves and drains.

    class CacheServer(CacheSettings, ServerSettings):
        model_config = SettingsConfigDict(env_prefix="CACHE_")

    @asynccontextmanager
    async def serve(settings: CacheServer, member: Member) -> AsyncIterator[int]:
        ...
        yield port

    if __name__ == "__main__":
        sys.exit(run("cache", CacheServer, serve))

What a service needs to join stands in two files beside its settings: the id of its AppRole, which
is no secret, and a response-wrapped secret id, which only the first to unwrap it can use and which
is gone from the disk once it was. From then on everything else (certificate, keys) comes out of
OpenBao, and nothing secret is ever in the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 -- pydantic reads it at run time
from typing import TYPE_CHECKING, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshkit import server
from meshkit.contract import Refusal
from meshkit.files import write_private
from meshkit.identity import ServiceIdentity
from meshkit.server import Serving, stop_event
from meshkit.settings import MeshSettings
from meshkit.telemetry import Telemetry, configure_logging, telemetry
from meshkit.tls import TlsError, enforce_tls13
from meshkit.tls_renewal import WantedCertificate, renewed_certificate
from meshkit.vault import VaultSettings, WrappedAppRole, vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from meshkit.tls import CertificateHolder
    from meshkit.vault import Vault

__all__ = ["BEAT_S", "CANNOT_START", "Joining", "Member", "ServerSettings", "joined", "run"]

log = structlog.get_logger()

_FAILED = 1
CANNOT_START = "Cannot start: "
"""How the line on standard error begins that says why."""
BEAT_S = 1.0
"""How often the ready file of a process that works is touched."""


class Joining(BaseModel):
    """How a service logs in and what certificate it asks for: `CACHE_JOIN__OPENBAO__ADDRESS=…`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    openbao: VaultSettings
    role_id_file: Path = Field(description="Holds the id of the service's AppRole.")
    wrapped_secret_id_file: Path = Field(
        description="Holds the wrapping token of its secret id, mode 0600; removed once unwrapped."
    )
    certificate_ttl_s: int = Field(default=3_600, ge=60, description="Renewed at two thirds.")
    certificate_retry_s: float = Field(
        default=10.0, gt=0, description="Between tries while OpenBao issues none."
    )
    dns_names: tuple[str, ...] = Field(
        default=("localhost",), description="Names by which neighbours reach the service."
    )
    ip_addresses: tuple[str, ...] = Field(default=("127.0.0.1",), description="The same, by IP.")


class ServerSettings(MeshSettings):
    """What every service of the mesh is told, beside its own settings."""

    join: Joining = Field(description="Required: there is no mode without certificates.")
    host: str = Field("127.0.0.1", description="Where it listens.")
    port: int = Field(ge=0, le=65_535, description="0 asks the kernel for a free one.")
    trust_domain: str = Field("sealgate.local", min_length=1, max_length=255)
    call_budget_ms: int = Field(300_000, gt=0, description="The longest that a call may take.")
    ready_file: Path | None = Field(
        None,
        description="Holds the port while the service serves, touched each second: for those who "
        "started it.",
    )
    serving: Serving = Serving.model_validate({})
    telemetry: Telemetry = Telemetry.model_validate({})


SettingsT = TypeVar("SettingsT", bound=ServerSettings)


@dataclass(frozen=True, slots=True)
class Member:
    """A service that has joined: its login to OpenBao and its certificate, both kept alive."""

    keys: Vault
    certificate: CertificateHolder


@asynccontextmanager
async def joined(service: str, settings: ServerSettings) -> AsyncIterator[Member]:
    """Log in and hold a certificate for as long as the block runs.

    Raises:
        Interception: somebody else unwrapped the secret id: treat it as stolen.
        VaultDown: OpenBao is away or refused the login or the certificate.
        OSError: a file cannot be read.
        TlsError: what OpenBao issued is no certificate of ours.
    """
    join = settings.join
    # The path is our own claim, not the file's: a token made elsewhere is a swap.
    login = WrappedAppRole(
        role_id=join.role_id_file.read_text().strip(),
        wrapping_token=join.wrapped_secret_id_file.read_text().strip(),
        creation_path=f"auth/approle/role/{service}/secret-id",
    )
    wanted = WantedCertificate(
        role=f"service.{service}",
        spiffe_id=ServiceIdentity(settings.trust_domain, service).spiffe_id,
        dns_names=join.dns_names,
        ip_addresses=join.ip_addresses,
        ttl_s=join.certificate_ttl_s,
        retry_s=join.certificate_retry_s,
    )
    async with vault(join.openbao, login) as keys:
        join.wrapped_secret_id_file.unlink(missing_ok=True)
        async with renewed_certificate(keys, wanted) as certificate:
            yield Member(keys, certificate)


async def _run(
    service: str,
    settings: SettingsT,
    serve: Callable[[SettingsT, Member], AbstractAsyncContextManager[int]],
) -> None:
    _end_at_once()
    async with AsyncExitStack() as owned:
        await owned.enter_async_context(
            telemetry(settings.telemetry, service=service, own_port=settings.port)
        )
        member = await owned.enter_async_context(joined(service, settings))
        port = await owned.enter_async_context(serve(settings, member))
        stop = stop_event()  # nothing was awaited since health said SERVING
        if settings.ready_file is not None:
            owned.enter_context(_told(settings.ready_file, port))
            await owned.enter_async_context(_beating(settings.ready_file))
        log.info("service.serving", service=service, port=port)
        await stop.wait()
        log.info("service.draining", service=service, drain_ms=settings.serving.drain_ms)


@asynccontextmanager
async def _beating(file: Path) -> AsyncIterator[None]:
    """Touch the file from the event loop: who started us sees that it still turns."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            with suppress(OSError):
                os.utime(file)

    beating = asyncio.create_task(beat(), name="heartbeat")
    try:
        yield
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating


def _end_at_once() -> None:
    """Have SIGINT and SIGTERM end us on the spot: until we serve there is nothing to drain.

    Without it a stop would be obeyed only once the model is loaded. As process 1 of a container
    there is no default that would do it.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, os._exit, 0)


@contextmanager
def _told(file: Path, port: int) -> Iterator[None]:
    """Say that we serve; once we do not, take our file away, but not a successor's."""
    write_private(file, str(port).encode())
    ours = file.stat().st_ino
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            if file.stat().st_ino == ours:
                file.unlink()


def run(
    service: str,
    settings_of: type[SettingsT],
    serve: Callable[[SettingsT, Member], AbstractAsyncContextManager[int]],
) -> int:
    """Run a service until SIGINT or SIGTERM, then drain it.

    Args:
        service: Its name, as in its SPIFFE id.
        settings_of: Read from the environment, once.
        serve: Serves while its block runs; yields the port.

    Returns:
        The exit code: 0 after an orderly end, 1 if it cannot start; standard error says why.
    """
    configure_logging()
    try:
        enforce_tls13()
        server.run(_run(service, settings_of.load(), serve))
    except Refusal as refusal:
        _say(refusal.reason.value)
        return _FAILED
    except (ValidationError, OSError, ValueError, TlsError) as failure:
        # Settings hide their input, and these texts name files, ports and settings only.
        _say(str(failure))
        return _FAILED
    return 0


def _say(why: str) -> None:
    sys.stderr.write(f"{CANNOT_START}{why}\n")
