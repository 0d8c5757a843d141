"""`python -m appliance.mesh`: five processes that trust nobody, and an OpenBao, on this host.

The same house as `appliance.main`, with gRPC over mutual TLS between the rooms: each service is a
process of its own with its own login to OpenBao, its own certificate and its own data. Reads the
same settings and leaves the same facts in `ready.json`. A service that ends is started again, and
so are OpenBao and Redis.

Started first: audit, since all others tell it that they start; then compliance, cache and
inference, side by side; then the gateway, which is told where they are. Drained in reverse, by
SIGINT or SIGTERM: the gateway finishes its calls while its neighbours still work, and audit goes
last.

`python -m appliance.mesh restart` replaces every service of the mesh that runs on the same data,
one after another and without a refused call: the new process starts beside the old, on the same
port, and the old one drains once the new one serves. Audit has one writer: its successor stands by,
takes over the log when it is let go of, and gateways hold events back for that moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from appliance.bootstrap import BootstrapSettings, prepared
from appliance.children import Child, ChildError
from appliance.clients import keep_clients
from appliance.key_rotation import by_the_calendar
from appliance.mesh_settings import MeshHouseSettings
from appliance.models import RELEASES
from appliance.openbao import OpenBao, OpenBaoError, alone, openbao
from appliance.redis import RedisError, RedisServer, RedisServerSettings, redis_server
from appliance.restarting import restart, restarting, restarts_asked
from appliance.screening_keys import rotating
from appliance.staging import cleared_at_start
from meshkit.background import running
from meshkit.contract import Refusal
from meshkit.files import write_private
from meshkit.metrics import METRICS_PORTS
from meshkit.server import stop_event
from meshkit.telemetry import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from appliance.bootstrap import Estate

__all__ = ["Mesh", "MeshHouseSettings", "main", "mesh"]

log = structlog.get_logger()

_CANNOT_START = 1
NEIGHBOURS = ("audit", "compliance", "cache", "inference")
_REDIS_PAUSE_S = 0.5
_METRICS_STEP = 10
"""From one worker's metrics port to the next one's: 9464, 9474, …"""


@dataclass(slots=True, kw_only=True)
class Mesh:
    """A running mesh, and what its neighbours on this host need to know."""

    data: Path
    children: dict[str, Child]
    bao: OpenBao
    estate: Estate
    redis: RedisServer | None = None
    modules: Mapping[str, str] = field(default_factory=dict)

    restarts: int = 0
    """How often all services were asked to be replaced, and that came to its end."""
    restart_failed: str = ""
    """The service whose successor did not come up, the last time."""

    async def restart(self) -> None:
        """Replace every service, one after another; stop at the first that cannot be."""
        self.restart_failed = ""
        for name, child in self.children.items():
            try:
                await child.replaced()
            except (ChildError, Refusal, OSError) as failure:
                log.error("mesh.restart_failed", service=name, kind=type(failure).__name__)  # noqa: TRY400 -- the text is in its log
                self.restart_failed = name
                break
            log.info("mesh.restarted", service=name, pid=child.pid)
        self.restarts += 1

    def facts(self) -> dict[str, str | int]:
        """Return what goes into `ready.json`: as the appliance's, and each service's port, pid."""
        ports = {f"{name}_port": child.port for name, child in self.children.items()}
        ports |= {f"{name}_pid": child.pid for name, child in self.children.items()}
        return {
            "gateway": f"localhost:{self.children['gateway'].port}",
            "audit": f"localhost:{self.children['audit'].port}",
            "tls": str(self.data / "tls"),
            "auditor_tls": str(self.data / "tls-auditor"),
            "log": str(self.data / "audit" / "log"),
            "vkey": str(self.data / "audit" / "vkey"),
            "openbao_pid": self.bao.pid,
            "pid": os.getpid(),
            "restarts": self.restarts,
            "restart_failed": self.restart_failed,
            **({"redis_pid": self.redis.pid} if self.redis is not None else {}),
            **ports,
        }


@asynccontextmanager
async def mesh(
    settings: MeshHouseSettings,
    *,
    tell: Callable[[str], None] = lambda _: None,
    modules: Mapping[str, str] | None = None,
) -> AsyncIterator[Mesh]:
    """Run everything for as long as the block runs. Enter from the main thread.

    Args:
        settings: What, and where.
        tell: Hears how far the start is.
        modules: What to run instead of `<service>.main`, by service: benchmarks have an engine
            without a model.

    Raises:
        OpenBaoError, RedisError, ChildError, Refusal, OSError: a part cannot start.
    """
    async with AsyncExitStack() as owned:
        tell("Starting OpenBao and preparing keys, certificates and policies")
        bao = await owned.enter_async_context(openbao(settings.openbao()))
        wanted = BootstrapSettings(
            trust_domain=settings.trust_domain,
            tenants=settings.tenants,
            service_certificate_ttl_s=settings.certificate_ttl_s,
            client_certificate_ttl_s=settings.client_certificate_ttl_s,
        )
        estate = await owned.enter_async_context(prepared(bao, wanted))
        await keep_clients(owned, estate, settings)
        await estate.logins()  # ends whatever logins an earlier run left
        await owned.enter_async_context(
            running(rotating(estate, settings.screening_key_life_s), "screening-key-rotation")
        )
        await owned.enter_async_context(by_the_calendar(settings))
        redis = await _redis(owned, settings, tell) if settings.redis else None
        house = Mesh(
            data=settings.data_dir.absolute(),
            children={},
            bao=bao,
            estate=estate,
            redis=redis,
            modules=modules or {},
        )
        tell("Starting audit, then compliance, cache and inference")
        for names in (NEIGHBOURS[:1], NEIGHBOURS[1:]):
            await _start(owned, house, [_child(name, settings, house) for name in names])
        _caches_of(house).write_text(f"localhost:{house.children['cache'].port}\n")
        tell("Starting the gateway")
        await _start(owned, house, _gateways(settings, house), one_port=True)
        yield house


async def _redis(
    owned: AsyncExitStack, settings: MeshHouseSettings, tell: Callable[[str], None]
) -> RedisServer:
    tell("Starting Redis")
    wanted = RedisServerSettings(data=settings.data_dir / "redis", restart_pause_s=_REDIS_PAUSE_S)
    return await owned.enter_async_context(redis_server(wanted))


async def _start(
    owned: AsyncExitStack, house: Mesh, children: list[Child], *, one_port: bool = False
) -> None:
    """Start side by side, own, watch. With `one_port` the first child finds it for all."""

    async def stop() -> None:
        await asyncio.gather(*(child.stop() for child in children))

    owned.push_async_callback(stop)
    finds_it = 1 if one_port else 0
    for child in children:
        _free(child)
    for first in children[:finds_it]:
        await first.start()
        for child in children:
            child.port = first.port
    await _started(children[finds_it:])
    for child in children:
        house.children[child.name] = child
        await owned.enter_async_context(running(child.watched(), f"{child.name}-watch"))


def _free(child: Child) -> None:
    """See that nobody else has its port: services share theirs, and would share it with a stranger.

    Raises:
        ChildError: somebody has.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", child.port))
        except OSError:
            msg = f"port {child.port} of 127.0.0.1 is taken: is another mesh running?"
            raise ChildError(msg) from None


async def _started(children: list[Child]) -> None:
    """Start side by side. One that cannot start is enough: nobody waits for the others."""
    starts = [asyncio.create_task(child.start()) for child in children]
    try:
        await asyncio.gather(*starts)
    finally:
        for start in starts:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)


def _child(service: str, settings: MeshHouseSettings, house: Mesh) -> Child:
    ports = {
        "gateway": settings.gateway_port,
        "compliance": settings.compliance_port,
        "cache": settings.cache_port,
        "inference": settings.inference_port,
        "audit": settings.audit_port,
    }
    return Child(
        service=service,
        folder=house.data / "services" / service,
        settings=_environment(service, settings, house),
        login=partial(house.estate.login, service),
        port=ports[service],
        pause_s=settings.restart_pause_s,
        module=house.modules.get(service),
        standby=service == "audit",
    )


def _gateways(settings: MeshHouseSettings, house: Mesh) -> list[Child]:
    """Return the gateway's workers; each has its own login, certificate, folder and log."""
    one = _child("gateway", settings, house)
    workers = settings.gateway_workers
    if workers == 1:
        return [one]
    # Elsewhere there may be more of them, all behind one Redis.
    replicas = workers * int(os.environ.get("GATEWAY_LIMITS_REPLICAS", "1"))
    shared = {"GATEWAY_LIMITS_REPLICAS": str(replicas)}
    return [
        replace(
            one,
            folder=one.folder if number == 0 else one.folder.with_name(f"gateway-{number}"),
            settings={**one.settings, **shared, **_metrics_of(number, settings)},
            silent_max_s=settings.worker_silent_max_s,
        )
        for number in range(workers)
    ]


def _metrics_of(worker: int, settings: MeshHouseSettings) -> dict[str, str]:
    """Return where a worker answers Prometheus: each for itself, for none knows the others'."""
    name = "GATEWAY_TELEMETRY__METRICS_PORT"
    first = int(os.environ.get(name) or (METRICS_PORTS["gateway"] if settings.gateway_port else 0))
    return {name: str(first and first + _METRICS_STEP * worker)}


def _environment(service: str, settings: MeshHouseSettings, house: Mesh) -> dict[str, str]:
    """Return what a service is told; nothing secret, for an environment can be read by others."""
    exposed = service in {"gateway", "audit"}
    common = {
        "JOIN__OPENBAO__ADDRESS": house.bao.address,
        "JOIN__OPENBAO__CA": str(house.bao.ca),
        "JOIN__CERTIFICATE_TTL_S": str(settings.certificate_ttl_s),
        "TRUST_DOMAIN": settings.trust_domain,
        "HOST": settings.host if exposed else "127.0.0.1",
        "SERVING__REUSE_PORT": "true",  # with the process that takes its place
    }
    audit = house.children.get("audit")
    own_events = {"AUDIT__TARGET": f"localhost:{audit.port}"} if audit else {}
    own = {
        "gateway": {
            "SERVING__REFLECTION": str(settings.reflection),
            **{
                f"{name.upper()}_TARGET": f"localhost:{child.port}"
                for name, child in house.children.items()
            },
            **_redis_of(service, house),
        },
        "compliance": {
            "MODELS_DIR": str(settings.models_dir.absolute()),
            "POLICY_ARCHIVE": os.environ.get("COMPLIANCE_POLICY_ARCHIVE")
            or str(house.data / "compliance" / "policies"),  # as the appliance
            **own_events,
            **_redis_of(service, house),
        },
        "cache": {**own_events, **_redis_of(service, house)},
        "inference": {
            **own_events,
            "MODELS_DIR": str(settings.models_dir.absolute()),
            "RELEASE__STATE_FILE": os.environ.get("INFERENCE_RELEASE__STATE_FILE")
            or str(house.data / RELEASES),  # as the appliance
        },
        "audit": {
            "DATA_DIR": str(house.data / "audit"),
            "WRITER_WAIT_MS": str(settings.handover_ms),
            "CACHE_TARGETS_FILE": str(_caches_of(house)),
            **_shared_policies(),
        },
    }
    prefix = service.upper()
    return {f"{prefix}_{name}": value for name, value in (common | own[service]).items()}


def _caches_of(house: Mesh) -> Path:
    """Return where audit reads which caches must forget; they start after it."""
    return house.data / "services" / "caches"


def _redis_of(service: str, house: Mesh) -> dict[str, str]:
    """Return how a service reaches Redis, where there is one; how many share it is for all."""
    if house.redis is None:
        return {}
    told = {f"REDIS__{k.upper()}": v for k, v in house.redis.environment(service).items()}
    if service == "gateway":
        told["LIMITS_REPLICAS"] = os.environ.get("GATEWAY_LIMITS_REPLICAS", "1")
    return told


def _shared_policies() -> dict[str, str]:
    """Have audit decide by the gateway's policies, where those are not the shipped ones."""
    folder = os.environ.get("GATEWAY_POLICIES_DIR")
    return {} if folder is None else {"POLICIES_DIR": folder}


async def _serve(settings: MeshHouseSettings) -> None:
    stop, asked = stop_event(), restarts_asked()
    ready = settings.data_dir / "ready.json"
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(settings.data_dir):  # as in the appliance: a second start takes nothing away
        ready.unlink(missing_ok=True)
        cleared_at_start(settings.data_dir)
        async with mesh(settings, tell=_say) as house:
            facts = house.facts()
            write_private(ready, json.dumps(facts, indent=2).encode())
            _say(
                f"Serving on {facts['gateway']}, auditors on {facts['audit']}; "
                f"services' logs under {house.data / 'services'}. Try:\n"
                f"  sealgate chat 'What is a tamper-evident log?' --target {facts['gateway']} "
                f"--tls {facts['tls']}"
            )
            async with running(restarting(house, ready, asked), "restarts"):
                await stop.wait()
            ready.unlink(missing_ok=True)
            _say("Draining: calls under way finish")
    _say("Stopped")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 -- what people who wait read


def main() -> int:
    """Run, or `restart`; return the exit code: 0 after an orderly end, 1 if it cannot be done."""
    configure_logging()
    try:
        settings = MeshHouseSettings.load()
        if sys.argv[1:] == ["restart"]:
            return restart(settings.data_dir / "ready.json", _say)
        asyncio.run(_serve(settings))
    except (ValidationError, OpenBaoError, RedisError, ChildError, OSError, ValueError) as failure:
        # Settings hide their input, and these texts name files, ports and settings only.
        _say(f"Cannot start: {failure}")
        return _CANNOT_START
    except Refusal as refusal:
        _say(f"Cannot start: {refusal.reason.value}")
        return _CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
