"""A console as production serves it, over a log of real records, and what looks at it."""

import asyncio
import datetime as dt
import json
import re
import ssl
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

import grpc
import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from audit.console.app import console_at
from audit.console.settings import ConsoleSettings
from audit.records.events import parse_leaf
from audit.records.own_events import archive_of
from audit.search.questions import Question
from meshkit.authorization import Authorizer
from meshkit.call_id import new_call_id
from meshkit.contract import (
    Actor,
    Direction,
    FindingCount,
    Phase,
    TraceContext,
    Usage,
)
from meshkit.policies import FOLDER
from meshkit.tls import Certificate, CertificateHolder
from tests.audit.custody_world import CustodyWorld
from tests.audit.world import make_event, make_intent, make_outcome

DOMAIN = "sealgate.local"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"


def spiffe(tenant, workload):
    return f"spiffe://{DOMAIN}/tenant/{tenant}/{workload}"


class Authority:
    """A CA of these tests alone."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        ca = x509.BasicConstraints(ca=True, path_length=0)
        self.pem = self._signed(self.name, self.key, [ca], 3_600)

    def issue(self, *uris, life_s=3_600):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        alternative = x509.SubjectAlternativeName([*names, x509.DNSName("localhost")])
        chain = self._signed(x509.Name([]), key, [alternative], life_s)
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


WORKLOADS = {
    "app": ("application",),
    "auditor": ("auditor",),
    "console": ("auditor", "privacy_officer"),
    "dpo": ("auditor", "privacy_officer"),
    "privacy": ("privacy_officer",),
}


def policies(folder):
    """Lay out policies that know auditors and privacy officers of two tenants."""
    folder.mkdir()
    for name in ("base.cedar", "schema.cedarschema"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    known = json.loads((FOLDER / "entities.json").read_text())
    kept = [each for each in known if each["uid"]["type"] == "Sealgate::Role"]
    for tenant in ("acme", "globex"):
        there = {"type": "Sealgate::Tenant", "id": tenant}
        given = ["auditor", "privacy_officer"] if tenant == "acme" else []
        about = {"data_class": "internal", "user_roles": given}
        kept.append({"uid": there, "attrs": about, "parents": []})
        for workload, roles in WORKLOADS.items():
            kept.append(
                {
                    "uid": {"type": "Sealgate::Workload", "id": spiffe(tenant, workload)},
                    "attrs": {"tenant": {"__entity": there}},
                    "parents": [{"type": "Sealgate::Role", "id": role} for role in roles],
                }
            )
    (folder / "entities.json").write_text(json.dumps(kept))
    return folder


@dataclass
class House:
    """A running console, and the log behind it."""

    authority: Authority
    holder: CertificateHolder
    log: object
    world: CustodyWorld
    port: int
    spans_port: int | None
    authorizer: Authorizer
    archive: object
    oidc: object = None

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    def certificate(self, tenant="acme", workload="auditor"):
        return self.authority.issue(spiffe(tenant, workload))

    @asynccontextmanager
    async def client(self, certificate=None):
        """A client without a browser, to say what a browser would not."""
        context = client_context(self.authority, certificate)
        async with httpx2.AsyncClient(
            base_url=self.url, verify=context, timeout=20, trust_env=False
        ) as client:
            yield client

    @asynccontextmanager
    async def signed_in(self, certificate=None):
        """A client of somebody who has signed in by certificate."""
        async with self.client(certificate or self.certificate()) as client:
            reply = await client.post("/login/certificate", data=await login_form(client))
            assert reply.status_code == 303, reply.text
            yield client

    async def recorded(self, action, tenant="acme", **asked):
        """The events of an action, oldest first, straight out of the log."""
        page = await self.log.search(
            tenant, Question(action=action, newest_first=False, **asked), page_size=1_000
        )
        return [parse_leaf(record.leaf).event for record in page.records]

    async def published(self):
        while self.log.stats.published < self.log.stats.durable:
            await asyncio.sleep(0.01)


def token_in(text):
    return re.search(r'name="csrf" value="([^"]+)"', text)[1]


async def login_form(client, **fields):
    page = await client.get("/login")
    return {"csrf": token_in(page.text), "next": "/", **fields}


def client_context(authority, certificate=None):
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if certificate is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate.key_pem + b"\n" + certificate.chain_pem)
            file.flush()
            context.load_cert_chain(file.name)
    return context


@asynccontextmanager
async def house(folder, *, authority=None, log_settings=None, **settings):
    authority = authority or Authority()
    holder = CertificateHolder(authority.issue(f"spiffe://{DOMAIN}/service/audit"))
    world = CustodyWorld(folder / "log")
    world.folder.mkdir(parents=True)
    whole = {"port": 0, "requests_per_minute": 100_000, "requests_burst": 10_000} | settings
    authorizer = Authorizer(policies(folder / "policies"))
    async with (
        world.live(**log_settings(world) if log_settings else {}) as (log, custody),
        console_at(
            ConsoleSettings.model_validate(whole),
            trust_domain=DOMAIN,
            audit=log,
            authorizer=authorizer,
            certificate=holder,
            archive=(
                archive := archive_of(log.parts.settings, log, f"spiffe://{DOMAIN}/service/audit")
            ),
            custody=custody,
        ) as console,
    ):
        yield House(
            authority,
            holder,
            log,
            world,
            console.port,
            console.spans_port,
            authorizer,
            archive,
            console.oidc,
        )


def person(tenant="acme", user="ada", workload="app"):
    return Actor(spiffe_id=spiffe(tenant, workload), tenant=tenant, workload=workload, user=user)


async def a_call(log, *, tenant="acme", user="ada", ago_s=0, trace_id=None, refused="", **fields):
    """Record a whole call; return its id. `subject` may be among the fields."""
    call_id, now = new_call_id(), time.time_ns() // 1_000 - int(ago_s * 1_000_000)
    trace = TraceContext(
        trace_id=trace_id or sha256(call_id).digest()[:16], span_id=sha256(call_id).digest()[:8]
    )
    same = {
        "subject": fields.pop("subject", ""),
        "tenant": tenant,
        "actor": person(tenant, user),
        "trace": trace,
        "model": "smollm2",
    }
    await log.append(make_intent(call_id, occurred_at_us=now, action="chat.stream", **same))
    await asyncio.sleep(fields.pop("pause_s", 0))
    counts = (
        _found("PERSON", 2),
        _found("EMAIL", 1),
    )
    whole = {
        "occurred_at_us": now + 812_000,
        "action": "chat.stream",
        "counts": counts,
        "usage": Usage(prompt_tokens=41, completion_tokens=80),
        "cache_tier": "miss",
        "model_digest": sha256(b"model").digest(),
        "compliance_policy_digest": sha256(b"policy").digest(),
        "duration_us": 812_000,
        "first_token_us": 164_000,
    }
    if refused:
        whole |= {"outcome": refused, "payload": None, "answer_released": None}
        whole |= {"answer_delivered": None, "first_token_us": 0}
    await log.append(make_outcome(call_id, **same | whole | fields))
    return call_id


def a_note(action="service.start", **fields):
    return make_event(Phase.NOTE, action=action, actor=None, **fields)


def _found(kind, count, action="mask"):
    return FindingCount(
        direction=Direction.PROMPT, type=kind, subtype="", action=action, count=count
    )


STEPS = (
    ("gateway", "gateway.ChatStream", 0, 0, 806),
    ("gateway", "authorize", 1, 2, 1),
    ("audit", "audit.append", 1, 4, 9),
    ("compliance", "screen", 1, 4, 14),
    ("cache", "look.up", 1, 19, 3),
    ("inference", "generate", 1, 24, 742),
    ("compliance", "release", 1, 158, 612),
    ("cache", "put", 1, 771, 4),
    ("audit", "audit.append", 1, 778, 22),
)
"""Spans of a call: service, name, depth, begin and length in milliseconds."""


async def traced(running, call):
    """Send spans of all five services for a call that is recorded."""
    (event,) = [
        each
        for each in await running.recorded("chat.stream")
        if each["call_id"] == call and each["phase"] == "intent"
    ]
    root, begun_ns = bytes.fromhex(event["span_id"]), event["time_us"] * 1_000
    request = pb.ExportTraceServiceRequest()
    for number, (service, name, depth, begin, length) in enumerate(STEPS, 1):
        group = request.resource_spans.add()
        attribute = group.resource.attributes.add()
        attribute.key, attribute.value.string_value = "service.name", service
        span = group.scope_spans.add().spans.add()
        span.trace_id, span.name = bytes.fromhex(event["trace_id"]), name
        span.span_id = number.to_bytes(8) if depth else root
        span.parent_span_id = root if depth else b""
        span.start_time_unix_nano = begun_ns + begin * 1_000_000
        span.end_time_unix_nano = span.start_time_unix_nano + length * 1_000_000
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.spans_port}") as channel:
        await TraceServiceStub(channel).Export(request)
