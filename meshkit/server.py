"""The life of a gRPC server: down, probed, serving, draining, gone.

async with serving(partial(add_X_to_server, X()), address="127.0.0.1:0",
                   credentials=holder.server_credentials(), guard=guard,
                   settings=settings.serving) as port:
    await stop_event().wait()
# left: health NOT_SERVING, lame duck, calls under way finish, port closed

sys.exit(run(main()))           # in the main of a process that serves: on uvloop
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc
import structlog
import uvloop
from grpc_health.v1 import health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from pydantic import BaseModel, ConfigDict, Field

from meshkit.counters import measured
from meshkit.health import Health
from meshkit.interceptors import MeshInterceptor
from meshkit.tls import probe_tls13_only

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    from meshkit.identity import Identity
    from meshkit.interceptors import Refused
    from meshkit.tls import CertificateHolder

__all__ = ["Listening", "Serving", "run", "serving", "serving_neighbours", "stop_event"]

T = TypeVar("T")

log = structlog.get_logger()

_LOOPBACK = "127.0.0.1"
_LOOK_S = 0.5
"""Between two looks at whether a service can work."""
_SWITCH_S = 0.0005
"""How long a thread that computes (tiles, index) may keep the event loop waiting for the GIL."""
_COLLECT_AT = (10_000, 20, 20)
"""Net allocations before a young collection; young ones before a middle one; those before all."""


class Serving(BaseModel):
    """Limits of a server, nested in a service's settings: `GATEWAY_SERVING__DRAIN_MS=5000`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    lame_duck_ms: int = Field(2_000, ge=0, description="NOT_SERVING before the port closes.")
    drain_ms: int = Field(35_000, ge=0, description="For calls under way; then they are cut off.")
    request_bytes_max: int = Field(2 * 1_024 * 1_024, gt=0, description="RESOURCE_EXHAUSTED above.")
    reply_bytes_max: int = Field(8 * 1_024 * 1_024, gt=0)
    metadata_bytes_max: int = Field(32 * 1_024, gt=0, description="Headers of one call, a JWT too.")
    calls_max: int = Field(1_024, gt=0, description="At once; RESOURCE_EXHAUSTED above.")
    calls_per_connection_max: int = Field(256, gt=0, description="Others wait at the client.")
    calls_per_tenant_max: int = Field(
        384, gt=0, description="Open at once, watches too; RESOURCE_EXHAUSTED above."
    )
    connection_age_max_ms: int = Field(
        1_800_000, gt=0, description="Then a new handshake, so that revoked clients fall out."
    )
    connection_grace_ms: int = Field(60_000, gt=0, description="For its calls, once it is too old.")
    connection_idle_max_ms: int = Field(600_000, gt=0)
    keepalive_ms: int = Field(60_000, gt=0, description="Ping a silent client so often.")
    keepalive_timeout_ms: int = Field(20_000, gt=0, description="And drop it without an answer.")
    ping_interval_min_ms: int = Field(10_000, gt=0, description="A client that pings more is cut.")
    probe_ms: int = Field(
        20_000, gt=0, description="For the proof at start that TLS 1.2 is refused: two connections."
    )
    reflection: bool = Field(default=False, description="Tell anyone admitted what is served.")
    reuse_port: bool = Field(
        default=False,
        description="Share the port with other processes of this user, workers of one service; "
        "else a second server on it is a mistake, and is told so.",
    )

    def options(self) -> list[tuple[str, int]]:
        """Return them by C-core's names."""
        return [
            ("grpc.max_receive_message_length", self.request_bytes_max),
            ("grpc.max_send_message_length", self.reply_bytes_max),
            ("grpc.max_metadata_size", self.metadata_bytes_max),
            ("grpc.absolute_max_metadata_size", self.metadata_bytes_max),
            ("grpc.max_concurrent_streams", self.calls_per_connection_max),
            ("grpc.max_connection_age_ms", self.connection_age_max_ms),
            ("grpc.max_connection_age_grace_ms", self.connection_grace_ms),
            ("grpc.max_connection_idle_ms", self.connection_idle_max_ms),
            ("grpc.keepalive_time_ms", self.keepalive_ms),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("grpc.http2.min_ping_interval_without_data_ms", self.ping_interval_min_ms),
            ("grpc.so_reuseport", int(self.reuse_port)),
        ]


class Listening(Protocol):
    """Where and for whom: `meshkit.member.ServerSettings` has these, among others."""

    @property
    def host(self) -> str: ...  # noqa: D102 -- as there
    @property
    def port(self) -> int: ...  # noqa: D102 -- as there
    @property
    def trust_domain(self) -> str: ...  # noqa: D102 -- as there
    @property
    def call_budget_ms(self) -> int: ...  # noqa: D102 -- as there
    @property
    def serving(self) -> Serving: ...  # noqa: D102 -- as there


def serving_neighbours(
    settings: Listening,
    register: Callable[[grpc.aio.Server], None],
    certificate: CertificateHolder,
    *,
    name: str,
    admits: Callable[[Identity, str], bool],
    on_refused: Refused | None = None,
    healthy: Callable[[], bool] | None = None,
) -> AbstractAsyncContextManager[int]:
    """Serve one service to its neighbours, by its settings. Raises as `serving`.

    Args:
        settings: Where, for whom, and the limits.
        register: Adds the servicer.
        certificate: Shown to each handshake as it then is.
        name: The service's full name.
        admits: See `MeshInterceptor`.
        on_refused: The same.
        healthy: See `serving`.
    """
    return serving(
        register,
        address=f"{settings.host}:{settings.port}",
        credentials=certificate.server_credentials,
        guard=MeshInterceptor(
            trust_domain=settings.trust_domain,
            call_budget_ms=settings.call_budget_ms,
            admits=admits,
            on_refused=on_refused,
        ),
        settings=settings.serving,
        names=(name,),
        healthy=healthy,
    )


@asynccontextmanager
async def serving(
    *register: Callable[[grpc.aio.Server], None],
    address: str,
    credentials: grpc.ServerCredentials | Callable[[], grpc.ServerCredentials],
    guard: MeshInterceptor,
    settings: Serving,
    names: Sequence[str] = (),
    healthy: Callable[[], bool] | None = None,
) -> AsyncIterator[int]:
    """Serve for as long as the block runs; yield the bound port.

    Health says NOT_SERVING until TLS 1.2 was seen to be refused. Leaving the block: NOT_SERVING,
    `lame_duck_ms` pass while balancers look away, then calls under way get `drain_ms`. With
    `reuse_port` a sibling may answer, so the proof is made on a port of this socket alone.

    Args:
        register: Each adds a servicer, as generated `add_…_to_server` do.
        address: host:port; port 0 asks the kernel for a free one.
        credentials: Of `meshkit.tls`. With `reuse_port`, what makes them: two ports that shared
            some would share the news of a renewal, which is told once.
        guard: Goes around every method.
        settings: Limits.
        names: Full names of the services, for health and reflection; "" is there anyway.
        healthy: Whether the service can work; asked twice a second. None: as long as it serves.

    Raises:
        TlsError: the server would take TLS 1.2.
        OSError: the address cannot be bound.
    """
    condition = Health(names)
    server = grpc.aio.server(options=settings.options(), maximum_concurrent_rpcs=settings.calls_max)
    guarded = guard.around(server, calls_per_tenant_max=settings.calls_per_tenant_max)
    add_HealthServicer_to_server(condition, guarded)
    for add_to in register:
        add_to(guarded)
    if settings.reflection:
        _reflect(guarded, names)
    port = _bound(server, address, credentials)
    own = _bound(server, f"{_LOOPBACK}:0", credentials) if settings.reuse_port else 0
    await server.start()
    try:
        host = _LOOPBACK if own else _reachable(address)
        await probe_tls13_only(host, own or port, timeout_ms=settings.probe_ms)
        with measured(f"rpc.in_flight.{'+'.join(names)}", lambda: guard.in_flight):
            async with _telling(condition, healthy):
                yield port
        await asyncio.sleep(settings.lame_duck_ms / 1_000)  # not reached by a block that fails
    finally:
        condition.shut_down()
        await server.stop(settings.drain_ms / 1_000)


@asynccontextmanager
async def _telling(condition: Health, healthy: Callable[[], bool] | None) -> AsyncIterator[None]:
    """Say SERVING for as long as the block runs and `healthy` says so, then NOT_SERVING."""
    condition.set_serving(serving=healthy is None or healthy())
    looking = None if healthy is None else asyncio.create_task(_look(condition, healthy))
    try:
        yield
    finally:
        if looking is not None:
            looking.cancel()
            await asyncio.wait([looking])
        condition.set_serving(serving=False)


async def _look(condition: Health, healthy: Callable[[], bool]) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        condition.set_serving(serving=healthy())


def _bound(
    server: grpc.aio.Server,
    address: str,
    credentials: grpc.ServerCredentials | Callable[[], grpc.ServerCredentials],
) -> int:
    try:
        port = server.add_secure_port(
            address, credentials() if callable(credentials) else credentials
        )
    except RuntimeError:
        port = 0
    if port == 0:
        msg = f"cannot listen on {address}"
        raise OSError(msg)
    return port


def _reachable(address: str) -> str:
    """Return the host by which the probe finds a server that listens on `address`."""
    host = address.rpartition(":")[0].strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 -- told apart, not bound


def _reflect(server: grpc.aio.Server, names: Sequence[str]) -> None:
    # An extra of the gateway: a service image without it serves without it.
    from grpc_reflection.v1alpha import reflection  # noqa: PLC0415 -- see above
    from grpc_reflection.v1alpha.reflection_pb2_grpc import (  # noqa: PLC0415 -- see above
        add_ServerReflectionServicer_to_server,
    )

    listed = (*names, health.SERVICE_NAME, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(listed)  # type: ignore[attr-defined] # old stubs
    add_ServerReflectionServicer_to_server(servicer, server)


def run(main: Coroutine[object, object, T]) -> T:
    """Run a process that serves, as `asyncio.run` would, on uvloop: less CPU a wake-up.

    Calls under way are objects that all live a while: with Python's own thresholds the collector
    went through the whole heap again and again, up to 115 ms at a time. What was imported until now
    it never looks at.
    """
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*_COLLECT_AT)
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def stop_event() -> asyncio.Event:
    """Return an event set by SIGINT or SIGTERM. Nothing is cancelled: we drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop
