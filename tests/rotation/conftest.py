"""A real OpenBao, and a room with two ends whose certificates it renews while calls go on."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from cryptography import x509

from appliance.bootstrap import BootstrapSettings, Estate, prepared
from appliance.openbao import OpenBao, OpenBaoSettings, openbao
from meshkit.channel import line
from meshkit.identity import ServiceIdentity
from meshkit.interceptors import MeshInterceptor, current
from meshkit.server import Serving, serving
from meshkit.tls_renewal import WantedCertificate, renewed_certificate
from meshkit.vault import Vault, vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meshkit.channel import Line
    from meshkit.tls import CertificateHolder

DOMAIN = "sealgate.local"
SAY, WATCH = "/test.Room/Say", "/test.Room/Watch"
QUICK = Serving(lame_duck_ms=0, drain_ms=2_000)


class Room(grpc.GenericRpcHandler):
    """Answers with the serial of the certificate that the caller presented."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == SAY:
            return grpc.unary_unary_rpc_method_handler(self._say)
        return grpc.unary_stream_rpc_method_handler(self._watch)

    async def _say(self, _request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        pem = current().certificate_pem
        return str(x509.load_pem_x509_certificate(pem).serial_number).encode()

    async def _watch(self, _request: bytes, _context: grpc.aio.ServicerContext):
        for number in itertools.count():
            yield str(number).encode()
            await asyncio.sleep(0.05)


class RoomStub:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.say = channel.unary_unary(SAY)
        self.watch = channel.unary_stream(WATCH)


def room_at(credentials: grpc.ServerCredentials, settings: Serving = QUICK):
    """Serve a room as every service of the mesh serves."""
    guard = MeshInterceptor(
        trust_domain=DOMAIN, call_budget_ms=300_000, admits=lambda _identity, _method: True
    )
    return serving(
        lambda server: server.add_generic_rpc_handlers((Room(),)),
        address="127.0.0.1:0",
        credentials=credentials,
        guard=guard,
        settings=settings,
    )


def wanted(service: str, ttl_s: int) -> WantedCertificate:
    return WantedCertificate(
        role=f"service.{service}",
        spiffe_id=ServiceIdentity(DOMAIN, service).spiffe_id,
        dns_names=("localhost",),
        ip_addresses=("127.0.0.1",),
        ttl_s=ttl_s,
        retry_s=0.2,
    )


async def shown(port: int) -> int:
    """The serial that a server shows to whoever connects now."""
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def say_with(port: int, credentials: grpc.ChannelCredentials) -> bytes:
    """One call over a connection of its own."""
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        return await RoomStub(channel).say(b"", timeout=5)


async def code_of(call) -> str:
    """How a call was refused; fails if it was not."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code().name


async def until(holds, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.05)


@dataclass
class Load:
    """Calls that go on, and what became of them."""

    line: Line[RoomStub]
    presented: Counter[int] = field(default_factory=Counter)
    """Calls by the serial that the server saw."""
    failed: list[str] = field(default_factory=list)
    frames: int = 0
    streams: int = 0
    over: bool = False

    async def unary(self) -> None:
        while not self.over:
            try:
                with self.line.stub() as stub:
                    self.presented[int(await stub.say(b"", timeout=10))] += 1
            except grpc.aio.AioRpcError as error:
                self.failed.append(f"{error.code().name} {error.details()}")
            await asyncio.sleep(0.01)

    async def stream(self, life_s: float) -> None:
        """One stream after another, each over the channel it began on."""
        while not self.over:
            ends = time.monotonic() + life_s
            try:
                with self.line.stub() as stub:
                    call = stub.watch(b"", timeout=120)
                    self.streams += 1
                    expected = 0
                    while time.monotonic() < ends and not self.over:
                        assert int(await call.read()) == expected
                        expected += 1
                        self.frames += 1
                    call.cancel()
            except grpc.aio.AioRpcError as error:
                self.failed.append(f"stream {error.code().name} {error.details()}")


@asynccontextmanager
async def load_on(reached: Line[RoomStub], long_s: float = 300.0) -> AsyncIterator[Load]:
    """Three unary callers, streams of two seconds, and two that last as long as the block."""
    load = Load(reached)
    tasks = [asyncio.create_task(load.unary()) for _ in range(3)]
    tasks += [asyncio.create_task(load.stream(life_s)) for life_s in (2.0, long_s, long_s)]
    try:
        yield load
    finally:
        load.over = True
        await asyncio.gather(*tasks)


@dataclass
class Ends:
    """A server and a client, each with a login and a certificate of its own."""

    server: CertificateHolder
    client: CertificateHolder
    port: int
    line: Line[RoomStub]
    keys: dict[str, Vault]


@dataclass(frozen=True)
class World:
    bao: OpenBao
    estate: Estate

    @asynccontextmanager
    async def vault_of(self, service: str) -> AsyncIterator[Vault]:
        login = await self.estate.login(service)
        async with vault(self.bao.vault_settings(attempts_max=1), login) as keys:
            yield keys

    @asynccontextmanager
    async def ends(self, *, server_ttl_s: int, client_ttl_s: int) -> AsyncIterator[Ends]:
        """Audit serves, the gateway calls."""
        async with AsyncExitStack() as owned:
            enter = owned.enter_async_context
            keys = {name: await enter(self.vault_of(name)) for name in ("audit", "gateway")}
            server = await enter(renewed_certificate(keys["audit"], wanted("audit", server_ttl_s)))
            client = await enter(
                renewed_certificate(keys["gateway"], wanted("gateway", client_ttl_s))
            )
            port = await enter(room_at(server.server_credentials()))
            reached = await enter(line(f"localhost:{port}", client, RoomStub))
            yield Ends(server, client, port, reached, keys)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bao(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OpenBao]:
    data = tmp_path_factory.mktemp("house") / "openbao"
    async with openbao(OpenBaoSettings(data=data)) as bao:
        yield bao


@pytest_asyncio.fixture
async def world(bao: OpenBao) -> AsyncIterator[World]:
    async with prepared(bao, BootstrapSettings()) as estate:
        yield World(bao, estate)
