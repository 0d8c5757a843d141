"""A gateway as production starts it, over real mutual TLS on a loopback socket, among fakes."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.app import Neighbours, gateway, pipeline_of
from gateway.settings import GatewaySettings
from meshkit.policies import FOLDER
from meshkit.tls import Certificate, CertificateHolder
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1.common_pb2 import ROLE_USER, Message
from sealgate.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.fakes import MODEL, DictCache, MemoryAudit, ShoutingModel, WaryCompliance

if TYPE_CHECKING:
    from pathlib import Path

DOMAIN = "sealgate.local"
ASSISTANT = f"spiffe://{DOMAIN}/tenant/demo/assistant"
STRANGER = f"spiffe://{DOMAIN}/tenant/demo/stranger"
PATIENCE_S = 60.0
OTHER = f"spiffe://{DOMAIN}/tenant/other/assistant"


@dataclass
class Authority:
    """A throw-away CA that issues ECDSA certificates with SPIFFE ids."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self):
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self.pem = self._signed(
            self.name, self.key, [x509.BasicConstraints(ca=True, path_length=0)], 3_600
        )

    def issue(self, uri, life_s=3_600):
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(uri), x509.DNSName("localhost")]
        )
        chain = self._signed(x509.Name([]), key, [names], life_s)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Certificate.from_pem(chain=chain, key=private, peer_ca=self.pem)

    def _signed(self, name, key, extensions, life_s):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(seconds=life_s))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass
class House:
    """One running gateway and all that it can be looked at by."""

    authority: Authority
    journal: list
    compliance: WaryCompliance
    cache: DictCache
    inference: ShoutingModel
    audit: MemoryAudit
    pipeline: object = None
    port: int = 0
    releases: object = None

    @asynccontextmanager
    async def raw_caller(self, uri=ASSISTANT, **issue):
        holder = CertificateHolder(self.authority.issue(uri, **issue))
        async with grpc.aio.secure_channel(
            f"localhost:{self.port}", holder.channel_credentials()
        ) as channel:
            yield channel

    @asynccontextmanager
    async def caller(self, uri=ASSISTANT, **issue):
        async with self.raw_caller(uri, **issue) as channel:
            yield GatewayServiceStub(channel)

    async def at_rest(self):
        """Wait until no call is under way and all that cancelled ones left behind is done."""
        await until(lambda: not self.pipeline.in_flight)
        await self.pipeline.settled()

    def seconds_of_refusals(self):
        """Return a set that fills with the seconds in which something is refused from now on."""
        ledger, seconds = self.pipeline.ledger, set()
        clock_us = ledger.clock_us

        def watching():
            now_us = clock_us()
            seconds.add(now_us // 1_000_000)
            return now_us

        ledger.clock_us = watching
        return seconds


async def until(condition):
    """Wait until something is so; however busy the machine, it will be."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def chat(text="hello big world", **rest):
    given = {"model": MODEL, "messages": [Message(role=ROLE_USER, content=text)]}
    return pb.ChatRequest(**given | rest)


@pytest.fixture(scope="session")
def authority():
    return Authority()


@pytest.fixture
def policies(tmp_path) -> Path:
    """The shipped set, with a second tenant whose workload may chat, for cross-tenant tests."""
    folder = tmp_path / "policies"
    folder.mkdir()
    for each in FOLDER.iterdir():
        if each.suffix in {".cedar", ".cedarschema", ".json"}:
            (folder / each.name).write_bytes(each.read_bytes())
    entities = json.loads((folder / "entities.json").read_text())
    entities += [
        {
            "uid": {"type": "Sealgate::Tenant", "id": "other"},
            "attrs": {"data_class": "internal", "user_roles": []},
            "parents": [],
        },
        {
            "uid": {"type": "Sealgate::Workload", "id": OTHER},
            "attrs": {"tenant": {"__entity": {"type": "Sealgate::Tenant", "id": "other"}}},
            "parents": [{"type": "Sealgate::Role", "id": "application"}],
        },
    ]
    (folder / "entities.json").write_text(json.dumps(entities))
    return folder


@pytest.fixture
def start(authority, policies):
    """Return how to start a gateway: `async with start(**settings) as house`."""

    @asynccontextmanager
    async def started(fakes=None, *, audit=None, releases=None, **settings):
        journal = []
        house = House(
            authority,
            journal,
            WaryCompliance(journal),
            DictCache(journal),
            ShoutingModel(journal),
            audit or MemoryAudit(journal),
        )
        for name, values in (fakes or {}).items():
            for key, value in values.items():
                setattr(getattr(house, name), key, value)
        serving = {"lame_duck_ms": 0, "drain_ms": 130_000} | settings.pop("serving", {})
        built = GatewaySettings(port=0, policies_dir=policies, serving=serving, **settings)
        holder = CertificateHolder(authority.issue(f"spiffe://{DOMAIN}/service/gateway"))
        neighbours = Neighbours(
            compliance=house.compliance,
            cache=house.cache,
            inference=house.inference,
            audit=house.audit,
            releases=releases,
        )
        async with (
            pipeline_of(built, neighbours) as house.pipeline,
            gateway(built, house.pipeline, holder.server_credentials()) as house.port,
        ):
            yield house

    return started
