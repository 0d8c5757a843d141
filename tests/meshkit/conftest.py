"""A small CA, and a server and channels over mutual TLS 1.3, as production has them."""

from __future__ import annotations

import datetime as dt
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshkit.interceptors import MeshInterceptor
from meshkit.server import Serving, serving
from meshkit.tls import Certificate, CertificateHolder

if TYPE_CHECKING:
    from pathlib import Path

TRUST_DOMAIN = "sealgate.test"


@dataclass(frozen=True)
class Ends:
    """PEM of one end."""

    ca: bytes
    chain: bytes
    key: bytes

    def certificate(self) -> Certificate:
        return Certificate.from_pem(chain=self.chain, key=self.key, peer_ca=self.ca)

    def write(self, folder: Path, name: str) -> Path:
        (folder / "ca.pem").write_bytes(self.ca)
        (folder / f"{name}.pem").write_bytes(self.chain)
        (folder / f"{name}.key").write_bytes(self.key)
        return folder


def pem(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class TestCa:
    __test__ = False

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._sign(
            self.key.public_key(),
            "test ca",
            [(x509.BasicConstraints(ca=True, path_length=0), True)],
        )
        self.pem = self.cert.public_bytes(serialization.Encoding.PEM)

    def _sign(self, public, name, extensions, life=dt.timedelta(hours=1)) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test ca")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + life)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *uris: str, life=dt.timedelta(hours=1)) -> Ends:
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), *(x509.UniformResourceIdentifier(u) for u in uris)]
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        cert = self._sign(
            key.public_key(),
            "end",
            [(x509.SubjectAlternativeName(names), False), (x509.ExtendedKeyUsage(usage), False)],
            life,
        )
        return Ends(self.pem, cert.public_bytes(serialization.Encoding.PEM), pem(key))


@pytest.fixture(scope="session")
def ca() -> TestCa:
    return TestCa()


@pytest.fixture(scope="session")
def server_ends(ca) -> Ends:
    return ca.issue(f"spiffe://{TRUST_DOMAIN}/service/gateway")


@pytest.fixture(scope="session")
def tenant_ends(ca) -> Ends:
    return ca.issue(f"spiffe://{TRUST_DOMAIN}/tenant/acme/app")


@pytest.fixture(scope="session")
def service_ends(ca) -> Ends:
    return ca.issue(f"spiffe://{TRUST_DOMAIN}/service/compliance")


def channel_to(port: int, ends: Ends) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(ends.ca, ends.key, ends.chain)
    return grpc.aio.secure_channel(f"localhost:{port}", credentials)


@pytest.fixture
def channel():
    return channel_to


def guard_of(**given) -> MeshInterceptor:
    settings = {"trust_domain": TRUST_DOMAIN, "call_budget_ms": 30_000, "admits": lambda *_: True}
    return MeshInterceptor(**(settings | given))


@pytest.fixture
def make_guard():
    return guard_of


@asynccontextmanager
async def served(
    ends: Ends,
    *register,
    guard=None,
    names=(),
    address="127.0.0.1:0",
    healthy=None,
    **settings,
):
    async with serving(
        *register,
        address=address,
        credentials=CertificateHolder(ends.certificate()).server_credentials(),
        guard=guard or guard_of(),
        settings=Serving(**({"lame_duck_ms": 0, "drain_ms": 5_000} | settings)),
        names=names,
        healthy=healthy,
    ) as port:
        yield port


@pytest.fixture
def serve(server_ends):
    """An async context manager: add-to-server functions in, port out."""
    return partial(served, server_ends)
