"""Servers that share a port: each proves itself and shows renewed certificates; none by mistake."""

import asyncio
import ssl
from collections import Counter
from contextlib import asynccontextmanager

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from meshkit.channel import Reaching
from meshkit.server import Serving, serving
from meshkit.tls import CertificateHolder, TlsError

SHARED = Serving(lame_duck_ms=0, drain_ms=1_000, reuse_port=True)
PROOFS = 6
"""A proof that any server on the port could give would pass by luck but once in 2 ** 6."""


@pytest.fixture
def holder(server_ends) -> CertificateHolder:
    return CertificateHolder(server_ends.certificate())


@pytest.fixture
def share(make_guard, holder):
    """Serve on a port that others may share; credentials come from `holder` unless given."""

    @asynccontextmanager
    async def shared(port: int = 0, credentials=None, settings: Serving = SHARED):
        async with serving(
            address=f"127.0.0.1:{port}",
            credentials=credentials or holder.server_credentials,
            guard=make_guard(),
            settings=settings,
        ) as bound:
            yield bound

    return shared


async def healthy(channel, port: int, ends) -> None:
    async with channel(port, ends) as ours:
        await HealthStub(ours).Check(HealthCheckRequest(), timeout=10)


def shown(port: int) -> int:
    """The serial number of the certificate that a new connection sees."""
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def test_two_serve_one_port_until_the_last_is_gone(share, channel, tenant_ends) -> None:
    async with share() as port:
        async with share(port) as again:
            assert again == port
            await healthy(channel, port, tenant_ends)
        await healthy(channel, port, tenant_ends)
    with pytest.raises(grpc.aio.AioRpcError):
        await healthy(channel, port, tenant_ends)


async def test_without_the_setting_a_second_server_is_a_mistake(share) -> None:
    alone = SHARED.model_copy(update={"reuse_port": False})
    async with share(settings=alone) as port:
        for settings in (alone, SHARED):
            with pytest.raises(OSError, match="cannot listen"):
                async with share(port, settings=settings):
                    pytest.fail("it took the port")


async def test_each_proves_itself_and_not_its_sibling(share, ca, channel, tenant_ends) -> None:
    """An RSA certificate lets TLS 1.2 in; a sound sibling on the port must not vouch for it."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    chain = ca._sign(key.public_key(), "rsa", [(names, False)]).public_bytes(
        serialization.Encoding.PEM
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    careless = grpc.ssl_server_credentials([(pem, chain)], ca.pem, require_client_auth=True)
    async with share() as port:
        for _ in range(PROOFS):
            with pytest.raises(TlsError, match=r"takes TLS 1\.2"):
                async with share(port, careless):
                    pytest.fail("its sibling vouched for it")
        await healthy(channel, port, tenant_ends)


async def test_a_renewed_certificate_is_shown_on_the_shared_port(
    share, ca, holder, server_ends
) -> None:
    async with share() as port:
        assert await asyncio.to_thread(shown, port) == server_ends.certificate().serial
        renewed = ca.issue("spiffe://sealgate.test/service/gateway").certificate()
        holder.replace(renewed)
        assert await asyncio.to_thread(shown, port) == renewed.serial


HANDOVERS = 5
CALLERS = 16


async def echo(request, _context):
    await asyncio.sleep(0.002)
    return request


async def test_no_call_is_lost_when_one_takes_over_from_another(
    make_guard, holder, tenant_ends
) -> None:
    """What arrives just as the old one says goodbye is cancelled by gRPC, and made again by ours.

    Without the retry policy of `Reaching` some 4 % of these calls fail.
    """
    ends: Counter[str] = Counter()
    over = False

    def served(port: int):
        handler = grpc.unary_unary_rpc_method_handler(echo)
        echoing = grpc.method_handlers_generic_handler("test.Echo", {"Unary": handler})
        return serving(
            lambda server: server.add_generic_rpc_handlers([echoing]),
            address=f"127.0.0.1:{port}",
            credentials=holder.server_credentials,
            guard=make_guard(),
            settings=SHARED,
        )

    async def calling(port: int) -> None:
        ours = CertificateHolder(tenant_ends.certificate()).channel_credentials()
        options = [*Reaching().options(), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(f"localhost:{port}", ours, options) as channel:
            call = channel.unary_unary("/test.Echo/Unary")
            while not over:
                try:
                    await call(b"x", timeout=20)
                    ends["OK"] += 1
                except grpc.aio.AioRpcError as failure:
                    ends[failure.code().name] += 1

    serves = served(0)
    port = await serves.__aenter__()
    callers = [asyncio.create_task(calling(port)) for _ in range(CALLERS)]
    for _ in range(HANDOVERS):
        some_more = ends["OK"] + 4 * CALLERS
        async with asyncio.timeout(30):
            while ends["OK"] < some_more:
                await asyncio.sleep(0.01)
        successor = served(port)
        assert await successor.__aenter__() == port
        await serves.__aexit__(None, None, None)
        serves = successor
    over = True
    await asyncio.gather(*callers)
    await serves.__aexit__(None, None, None)

    assert set(ends) == {"OK"}
