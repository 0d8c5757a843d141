"""Reversible tokens where compliance is a process of its own: the same as in process."""

from pathlib import Path

import grpc
import pytest

from compliance.engine import Engine, expressions
from compliance.policy import parse_policy
from compliance.prefilter import HyperscanPrefilter
from compliance.recognizers import ALL
from compliance.scanner import Scanner
from compliance.service import ComplianceService
from gateway.clients import ComplianceClient, Hops
from meshkit.channel import line
from meshkit.contract import Message, Phase, Reason, Refusal, Role
from meshkit.screening_mac import MacKeys
from meshkit.tokens import find_tokens
from sealgate.v1 import compliance_pb2
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1.common_pb2 import ROLE_USER
from sealgate.v1.common_pb2 import Message as WireMessage
from sealgate.v1.compliance_pb2_grpc import ComplianceServiceStub
from sealgate.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.fakes import MODEL
from tests.mesh.conftest import DOMAIN, FakeMesh, scope, service_id

MAIL = "ada@example.org"
CACHE = Path(__file__).parents[2] / "var" / "cache" / "compliance"
POLICY = "version: 1\nname: tokens\ndefault: {prompt: tokenise, answer: tokenise}\n"


@pytest.fixture(scope="module")
def compliance():
    keys = MacKeys({1: b"k" * 32}, 1)
    engine = Engine(ALL, HyperscanPrefilter(expressions(ALL), CACHE))
    return ComplianceService(
        Scanner(engine, parse_policy(POLICY)),
        lambda: keys,
        memo_entries_max=100,
        text_chars_max=100_000,
    )


def asked(text, **rest):
    message = WireMessage(role=ROLE_USER, content=text)
    return pb.ChatRequest(model=MODEL, messages=[message], **rest)


async def test_tokens_go_to_the_model_and_values_to_the_caller(host, compliance) -> None:
    mesh = FakeMesh(host, compliance=compliance)
    await mesh.start()
    holder = host.holder(f"spiffe://{DOMAIN}/tenant/demo/assistant")
    async with line(f"localhost:{mesh.ports['gateway']}", holder, GatewayServiceStub) as reached:
        with reached.stub() as stub:
            whole = await stub.Chat(asked(f"mail {MAIL}", session="s"))
            request = pb.ChatStreamRequest(chat=asked(f"mail {MAIL}", session="s", no_cache=True))
            deltas = [frame.delta async for frame in stub.ChatStream(request)]

    assert whole.text == "".join(deltas) == f"MAIL {MAIL}"
    assert all(MAIL not in prompt[-1].content for prompt in mesh.inference.prompts)
    outcome = mesh.audit.of(Phase.OUTCOME)[-1]
    assert [(each.type, each.count) for each in outcome.counts if each.action == "reveal"] == [
        ("EMAIL", 1)
    ]


async def test_reveal_tells_what_the_object_tells(host, compliance, rpc) -> None:
    rpc()
    holder = host.holder(service_id("gateway"))
    async with (
        host.serving("compliance", compliance) as port,
        line(f"localhost:{port}", holder, ComplianceServiceStub) as reached,
    ):
        client = ComplianceClient(reached, Hops(connect_ms=2_000))
        screened = await client.screen(scope(), (Message(Role.USER, f"mail {MAIL}"),))
        (token,) = find_tokens(screened.messages[0].content)

        assert await client.reveal(scope(), [token.name, "EMAIL_7K3F9Q2MBX"]) == {token.name: MAIL}
        assert await client.reveal(scope(tenant="other"), [token.name]) == {}
        for names in ([], ["EMAIL_2345678923"], ["x"], [token.name] * 4_097):
            with pytest.raises(Refusal) as caught:
                await client.reveal(scope(), names)
            assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "names")


async def test_compliance_that_is_away_reveals_nothing(host, rpc) -> None:
    rpc()
    holder = host.holder(service_id("gateway"))
    async with line("localhost:1", holder, ComplianceServiceStub) as reached:
        client = ComplianceClient(reached, Hops(connect_ms=50))
        with pytest.raises(Refusal) as caught:
            await client.reveal(scope(), ["EMAIL_7K3F9Q2MBX"])

    assert caught.value.reason is Reason.COMPLIANCE_DOWN


async def test_a_request_without_a_scope_is_refused(host, compliance) -> None:
    holder = host.holder(service_id("gateway"))
    async with (
        host.serving("compliance", compliance) as port,
        line(f"localhost:{port}", holder, ComplianceServiceStub) as reached,
    ):
        with reached.stub() as stub, pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Reveal(compliance_pb2.RevealRequest(names=["EMAIL_7K3F9Q2MBX"]))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
