"""Two tenants, two policies, one gateway: in one process, and over five servers."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
import pytest

from compliance.engine import Engine, expressions
from compliance.policy_finder import Finders
from compliance.policy_store import PolicySource, PolicyStore
from compliance.prefilter import HyperscanPrefilter
from compliance.recognizers import ALL
from compliance.service import ComplianceService
from gateway.app import Neighbours, gateway, pipeline_of
from gateway.settings import GatewaySettings
from meshkit.contract import Phase
from meshkit.screening_mac import MacKeys, mac_verifier
from sealgate.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.fakes import DictCache, ShoutingModel
from tests.gateway import conftest as gateways
from tests.gateway.conftest import ASSISTANT, OTHER, chat
from tests.mesh.conftest import QUICK, FakeMesh, service_id

policies = gateways.policies
"""Cedar's, with a second tenant that may chat."""

MAC_KEYS = MacKeys({7: b"k" * 32}, 7)
CARD = "4111 1111 1111 1111"
PLAIN = "version: 1\nname: plain\nextends: default\ntypes: {CREDIT_CARD: {keep_last: 4}}\n"
STRICT = """
version: 1
name: strict
extends: plain
types: {CREDIT_CARD: {prompt: block}, CUSTOM_STAFF: {prompt: allow}}
patterns: [{name: staff, type: CUSTOM_STAFF, pattern: 'e[0-9]{6}', case: false}]
"""
TENANTS = "version: 1\ndefault: plain\ntenants: {other: strict}\n"


@dataclass
class WatchedCache(DictCache):
    asked: list = field(default_factory=list)
    """(tenant, digest of the policy that a question was screened under)."""

    async def get(self, question):
        self.asked.append((question.scope.tenant, question.screened.verdict.policy_digest))
        return await super().get(question)


@dataclass
class WatchedModel(ShoutingModel):
    vouched: list = field(default_factory=list)
    """(tenant, policy's digest, whether the MAC over it holds)."""

    async def generate(self, scope, model, screened, parameters, *, digest=b""):
        holds = mac_verifier(lambda: MAC_KEYS)(scope, screened)
        self.vouched.append((scope.tenant, screened.verdict.policy_digest, holds))
        async for each in super().generate(scope, model, screened, parameters, digest=digest):
            yield each


@dataclass
class Mesh(FakeMesh):
    policies_dir: object = None

    def gateway_settings(self, hops):
        built = super().gateway_settings(hops)
        return built.model_copy(update={"policies_dir": self.policies_dir})


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "compliance"
    made.mkdir()
    for name, text in {"plain": PLAIN, "strict": STRICT, "tenants": TENANTS}.items():
        (made / f"{name}.yaml").write_text(text)
    return made


@pytest.fixture
def store(folder, pytestconfig):
    cache = pytestconfig.rootpath / "var" / "cache" / "compliance"
    finders = Finders(Engine(ALL, HyperscanPrefilter(expressions(ALL), cache)))
    return PolicyStore(PolicySource(folder=folder), finders)


@pytest.fixture(params=["one process", "five servers"])
async def mesh(request, host, policies, store):
    service = ComplianceService(
        store, lambda: MAC_KEYS, memo_entries_max=100, text_chars_max=100_000
    )
    made = Mesh(host, service, WatchedCache(), WatchedModel(), policies_dir=policies)
    if request.param == "five servers":
        await made.start()
        return made
    serving = {**QUICK, "drain_ms": 130_000}
    settings = GatewaySettings(port=0, policies_dir=policies, serving=serving)
    near = Neighbours(
        compliance=service, cache=made.cache, inference=made.inference, audit=made.audit
    )
    holder = host.holder(service_id("gateway"))
    enter = host.owned.enter_async_context
    pipeline = await enter(pipeline_of(settings, near))
    made.ports["gateway"] = await enter(gateway(settings, pipeline, holder.server_credentials()))
    return made


async def asked(mesh, host, uri, text):
    target = f"localhost:{mesh.ports['gateway']}"
    async with grpc.aio.secure_channel(target, host.holder(uri).channel_credentials()) as channel:
        return await GatewayServiceStub(channel).Chat(chat(text))


async def test_each_call_is_judged_and_recorded_under_its_tenants_policy(mesh, host, store, folder):
    plain, strict = (store.book.policies[name].digest for name in ("plain", "strict"))

    theirs = await asked(mesh, host, ASSISTANT, f"e123456 has {CARD}")
    ours = await asked(mesh, host, OTHER, "e123456 has none")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked(mesh, host, OTHER, CARD)

    assert theirs.text == "E123456 HAS [CREDIT_CARD:1111]"
    assert ours.text == "[CUSTOM_STAFF] HAS NONE"
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [theirs.screening.policy_digest, ours.screening.policy_digest] == [plain, strict]
    outcomes = [e for e in mesh.audit.events if e.phase is Phase.OUTCOME]
    assert [(e.tenant, e.outcome, e.compliance_policy_digest) for e in outcomes] == [
        ("demo", "released", plain),
        ("other", "released", strict),
        ("other", "BLOCKED", strict),
    ]
    assert mesh.cache.asked == [("demo", plain), ("other", strict)]
    assert mesh.inference.vouched == [("demo", plain, True), ("other", strict, True)]

    (folder / "plain.yaml").write_text(PLAIN.replace("4}", "2}"))
    assert store.reload()
    after = await asked(mesh, host, ASSISTANT, f"e123456 has {CARD}")
    assert after.text == "E123456 HAS [CREDIT_CARD:11]"
    assert after.screening.policy_digest == store.book.policies["plain"].digest != plain
