"""A gRPC server with certificates of a real OpenBao, and a lax role to be issued bad ones by."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from appliance.bootstrap import BootstrapSettings, Estate, prepared
from appliance.openbao import OpenBaoSettings, openbao
from meshkit.contract import Refusal
from meshkit.identity import connection_of, identity_of
from meshkit.tls import Tls, probe_tls13_only

TRUST_DOMAIN = "sealgate.local"
ECHO = "/test.Echo/Say"


class Echo(grpc.GenericRpcHandler):
    """Answers who asked and how, or refuses, as the interceptors do."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(self._say) if details.method == ECHO else None

    async def _say(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            connection = connection_of(context)
            identity = identity_of(context, trust_domain=TRUST_DOMAIN)
        except Refusal as refusal:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, refusal.reason.name)
        facts = (connection.tls_version, connection.key_exchange_group, connection.peer_ip)
        return "\n".join([identity.spiffe_id, *facts, request.decode()]).encode()


@asynccontextmanager
async def serving(credentials: grpc.ServerCredentials) -> AsyncIterator[int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def say(port: int, credentials: grpc.ChannelCredentials) -> list[str]:
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        reply = await channel.unary_unary(ECHO)(b"hello", timeout=5)
    return reply.decode().split("\n")


async def refusal(port: int, credentials: grpc.ChannelCredentials) -> tuple[str, str]:
    """How a call was refused: code and details. Fails if it was not."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await say(port, credentials)
    return refused.value.code().name, refused.value.details() or ""


@dataclass(frozen=True)
class Files:
    """Certificate files that OpenBao issued."""

    folder: Path
    server: Tls
    client: Tls
    wrong: dict[str, Tls]
    """Valid certificates of our own CA whose names are not: by SPIFFE id."""
    rsa: Tls


WRONG_NAMES = (
    f"spiffe://{TRUST_DOMAIN}/other/demo/chat",
    f"spiffe://{TRUST_DOMAIN}/tenant/demo",
    f"spiffe://{TRUST_DOMAIN}/tenant/demo/chat/more",
    f"spiffe://{TRUST_DOMAIN}/tenant/demo/chat/../../other/x",
    f"spiffe://{TRUST_DOMAIN}/tenant/../service/gateway",
    f"spiffe://{TRUST_DOMAIN}/tenant/demo/./chat",
    f"spiffe://{TRUST_DOMAIN}/tenant/demo/chat/",
    f"spiffe://{TRUST_DOMAIN}/tenant/demo/%63hat",
    f"spiffe://{TRUST_DOMAIN}/tenant/demo/chat?x=1",
    f"spiffe://{TRUST_DOMAIN}/tenant/Demo/chat",
    "spiffe://elsewhere.example/tenant/demo/chat",
    f"spiffe://{TRUST_DOMAIN}.elsewhere.example/tenant/demo/chat",
    "https://sealgate.local/tenant/demo/chat",
)


async def lax(estate: Estate, kind: str, bits: int) -> str:
    """Make a role that issues any name: what a careless operator might have."""
    role = f"lax-{kind}"
    body = {
        "allowed_uri_sans": ["*"], "allow_any_name": True, "require_cn": False,
        "key_type": kind, "key_bits": bits, "no_store": True, "max_ttl": "1h",
    }  # fmt: skip
    await estate.keys.ask("POST", f"pki/roles/{role}", body)
    return role


def kept(issued, folder: Path) -> Tls:
    folder.mkdir(parents=True)
    files = Tls(cert_chain=folder / "c.pem", private_key=folder / "k.pem", peer_ca=folder / "a.pem")
    files.cert_chain.write_text(issued.chain_pem)
    files.private_key.write_text(issued.private_key_pem)
    files.peer_ca.write_text(issued.ca_pem)
    return files


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    base = tmp_path_factory.mktemp("tls")
    async with (
        openbao(OpenBaoSettings(data=base / "bao")) as bao,
        prepared(bao, BootstrapSettings()) as estate,
    ):
        role = await lax(estate, "ec", 256)
        wrong = {}
        for number, uri in enumerate(WRONG_NAMES):
            issued = await estate.keys.issue(role, uri_sans=(uri,), ttl_s=3_000)
            wrong[uri] = kept(issued, base / f"wrong{number}")
        two = ("spiffe://sealgate.local/tenant/demo/a", "spiffe://sealgate.local/tenant/demo/b")
        issued = await estate.keys.issue(role, uri_sans=two, ttl_s=3_000)
        wrong["two"] = kept(issued, base / "two")
        issued = await estate.keys.issue(role, uri_sans=(), dns_names=("demo",), ttl_s=3_000)
        wrong["none"] = kept(issued, base / "none")
        rsa = await estate.keys.issue(
            await lax(estate, "rsa", 2_048),
            uri_sans=(f"spiffe://{TRUST_DOMAIN}/service/gateway",),
            dns_names=("localhost",),
            ttl_s=3_000,
        )
        return Files(
            folder=base,
            server=await estate.issue_service("gateway", base / "server"),
            client=await estate.issue_client("demo", "chat", base / "client"),
            wrong=wrong,
            rsa=kept(rsa, base / "rsa"),
        )


@pytest_asyncio.fixture
async def port(files: Files) -> AsyncIterator[int]:
    """A server as a service starts it."""
    async with serving(files.server.server_credentials()) as port:
        await probe_tls13_only("127.0.0.1", port)
        yield port


async def run(*command: str, timeout_s: float = 30) -> tuple[int, str]:
    """Run a program; return its status and all it said."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(timeout_s):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode(errors="replace")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "wrong_name" in metafunc.fixturenames:
        metafunc.parametrize("wrong_name", [*WRONG_NAMES, "two", "none"])


def foreign(folder: Path, files: Tls, uri: str) -> Tls:
    """A client certificate with the right name, from an authority that is not ours."""
    now = dt.datetime.now(dt.UTC)
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sealgate CA of sealgate.local")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True
        )
        .sign(authority, hashes.SHA256())
    )
    chain, private = folder / "foreign.pem", folder / "foreign.key"
    chain.write_bytes(certificate.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Tls(cert_chain=chain, private_key=private, peer_ca=files.peer_ca)


@pytest.fixture
def kit() -> SimpleNamespace:
    """The helpers above, which a test module cannot import."""
    return SimpleNamespace(
        say=say, refusal=refusal, serving=serving, run=run, foreign=foreign, domain=TRUST_DOMAIN
    )
