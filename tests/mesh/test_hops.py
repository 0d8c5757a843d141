"""Calls to neighbours over the wire: what they carry, what comes back, what a broken one means."""

# ruff: noqa: ARG002 -- servicers and fakes have the signatures of what they stand for

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from gateway.clients import CacheClient, ComplianceClient, Hops, InferenceClient
from meshkit.channel import line
from meshkit.contract import (
    BlockedText,
    Ended,
    Message,
    Parameters,
    Reason,
    Refusal,
    Released,
    Role,
    Screened,
)
from meshkit.interceptors import current
from sealgate.v1 import compliance_pb2 as cpb
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1 import inference_pb2 as ipb
from sealgate.v1.cache_pb2_grpc import CacheServiceStub
from sealgate.v1.common_pb2 import ROLE_USER
from sealgate.v1.common_pb2 import Message as WireMessage
from sealgate.v1.compliance_pb2_grpc import ComplianceServiceServicer, ComplianceServiceStub
from sealgate.v1.gateway_pb2_grpc import GatewayServiceStub
from sealgate.v1.inference_pb2_grpc import InferenceServiceServicer, InferenceServiceStub
from tests.fakes import MODEL, ShoutingModel, WaryCompliance
from tests.mesh.conftest import DOMAIN, scope, service_id

ASSISTANT = f"spiffe://{DOMAIN}/tenant/demo/assistant"
SAID = (Message(Role.USER, "tell me a secret"),)
HOPS = Hops(connect_ms=5_000, cache_connect_ms=5_000)


@asynccontextmanager
async def client_of(host, make, stub, port, hops=HOPS):
    async with line(f"localhost:{port}", host.holder(service_id("gateway")), stub) as reached:
        yield make(reached, hops)


@asynccontextmanager
async def compliance_client(host, service):
    async with (
        host.serving("compliance", service) as port,
        client_of(host, ComplianceClient, ComplianceServiceStub, port) as client,
    ):
        yield client


@asynccontextmanager
async def inference_client(host, service):
    async with (
        host.serving("inference", service) as port,
        client_of(host, InferenceClient, InferenceServiceStub, port) as client,
    ):
        yield client


async def words(*texts):
    for text in texts:
        yield text


async def test_a_prompt_comes_back_screened(host, rpc):
    rpc()
    async with compliance_client(host, WaryCompliance()) as client:
        screened = await client.screen(scope(), SAID)

    assert isinstance(screened, Screened)
    assert screened.messages[0].content == "tell me a [MASKED]"
    assert [each.count for each in screened.verdict.counts] == [1]


async def test_a_blocked_prompt_comes_back_with_what_was_found(host, rpc):
    rpc()
    async with compliance_client(host, WaryCompliance()) as client:
        with pytest.raises(BlockedText) as caught:
            await client.screen(scope(), (Message(Role.USER, "forbidden"),))

    assert caught.value.reason is Reason.BLOCKED
    assert [each.action for each in caught.value.verdict.counts] == ["block"]


async def test_an_answer_is_released_as_it_comes(host, rpc):
    rpc()
    first = asyncio.Event()

    async def deltas():
        yield "one "
        await asyncio.wait_for(first.wait(), 5)  # the first piece must not wait for the second
        yield "secret"

    async with compliance_client(host, WaryCompliance()) as client:
        items = []
        async for item in client.release(scope(), deltas()):
            items.append(item)
            first.set()

    assert items[:-1] == ["one ", "[MASKED]"]
    assert isinstance(items[-1], Released)
    assert items[-1].text == "one [MASKED]"


async def test_the_policy_of_the_prompt_travels_with_the_answer(host, rpc):
    rpc()
    fake = WaryCompliance()

    async with compliance_client(host, fake) as client:
        _ = [item async for item in client.release(scope(), words("a "), policy_digest=b"p" * 32)]
        assert fake.asked_under == b"p" * 32
        with pytest.raises(Refusal) as caught:
            _ = [item async for item in client.release(scope(), words("a "), policy_digest=b"p")]

    # Its end may cross a delta on its way, and what gRPC then says is no more than that it is down.
    assert caught.value.reason in {Reason.INVALID_FIELD, Reason.COMPLIANCE_DOWN}
    assert caught.value.field in {"policy_digest", None}


async def test_a_blocked_answer_ends_early_and_closes_its_source(host, rpc):
    rpc()
    closed = asyncio.Event()

    async def endless():
        try:
            yield "fine "
            while True:
                yield "FORBIDDEN "
                await asyncio.sleep(0.001)
        finally:
            closed.set()

    async with compliance_client(host, WaryCompliance()) as client:
        items = [item async for item in client.release(scope(), endless())]
        await asyncio.wait_for(closed.wait(), 5)

    assert items[0] == "fine "
    assert items[-1].blocked


async def test_an_engine_that_fails_is_the_cause_not_compliance(host, rpc):
    rpc()

    async def failing():
        yield "one two "
        raise Refusal(Reason.INFERENCE_DOWN)

    async with compliance_client(host, WaryCompliance()) as client:
        with pytest.raises(Refusal) as caught:
            _ = [item async for item in client.release(scope(), failing())]

    assert caught.value.reason is Reason.INFERENCE_DOWN


class Watched(WaryCompliance):
    """Notes when a release is over."""

    releasing = 0

    async def release(self, scope, deltas, *, policy_digest=b""):
        self.releasing += 1
        try:
            async for item in super().release(scope, deltas, policy_digest=policy_digest):
                yield item
        finally:
            self.releasing -= 1


async def test_closing_a_release_closes_both_its_ends(host, rpc):
    rpc()
    closed = asyncio.Event()
    watched = Watched()

    async def endless():
        try:
            while True:
                yield "word "
                await asyncio.sleep(0.001)
        finally:
            closed.set()

    async with compliance_client(host, watched) as client:
        released = client.release(scope(), endless())
        assert await anext(released)
        assert watched.releasing == 1
        await released.aclose()

        assert closed.is_set()
        await until(lambda: watched.releasing == 0)


async def test_a_refusal_mid_answer_crosses_the_hop(host, rpc):
    rpc()
    async with compliance_client(host, WaryCompliance(down_mid_answer=True)) as client:
        with pytest.raises(Refusal) as caught:
            _ = [item async for item in client.release(scope(), words("one ", "two ", "three"))]

    assert caught.value.reason is Reason.COMPLIANCE_DOWN


async def test_closing_a_generation_stops_the_engine(host, rpc):
    rpc()
    engine = ShoutingModel(endless=True, token_s=0.002)
    async with inference_client(host, engine) as client:
        asked = client.generate(
            scope(),
            MODEL,
            Screened(messages=SAID, verdict=_verdict(), mac=b"m" * 32, mac_key_version=1),
            Parameters(max_tokens=4_000),
        )
        for _ in range(5):
            await anext(asked)
        await asked.aclose()
        await until(lambda: engine.running == 0)
        stopped_at = engine.generated
        await asyncio.sleep(0.1)

    assert engine.generated == stopped_at < 1_000


def _verdict():
    from meshkit.contract import Verdict

    return Verdict(policy_digest=b"p" * 32)


async def until(holds, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_caller_that_leaves_stops_the_engine_behind_two_hops(fake_mesh, host):
    fake_mesh.inference.endless, fake_mesh.inference.token_s = True, 0.002
    credentials = host.holder(ASSISTANT).channel_credentials()
    async with grpc.aio.secure_channel(
        f"localhost:{fake_mesh.ports['gateway']}", credentials
    ) as channel:
        call = GatewayServiceStub(channel).ChatStream(
            pb.ChatStreamRequest(chat=chat("keep talking", parameters={"max_tokens": 4_000}))
        )
        await call.read()
        assert fake_mesh.inference.running == 1
        call.cancel()
        await until(lambda: fake_mesh.inference.running == 0)
        stopped_at = fake_mesh.inference.generated
        await asyncio.sleep(0.1)

    assert fake_mesh.inference.generated == stopped_at
    await until(lambda: fake_mesh.audit.outcomes == ["CANCELLED"])


def chat(text="hello big world", **rest):
    return pb.ChatRequest(model=MODEL, messages=[WireMessage(role=ROLE_USER, content=text)], **rest)


async def test_a_call_crosses_five_servers(fake_mesh, host):
    credentials = host.holder(ASSISTANT).channel_credentials()
    async with grpc.aio.secure_channel(
        f"localhost:{fake_mesh.ports['gateway']}", credentials
    ) as channel:
        stub = GatewayServiceStub(channel)
        answer = await stub.Chat(chat("hello secret world"))
        again = await stub.Chat(chat("hello secret world"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Chat(chat("forbidden"))

    assert answer.text == again.text == "HELLO [MASKED] WORLD"
    assert (answer.cache_tier, again.cache_tier) == (pb.CACHE_TIER_MISS, pb.CACHE_TIER_L1)
    assert answer.receipt.signature
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert fake_mesh.audit.outcomes == ["released", "released", "BLOCKED"]
    assert fake_mesh.audit.producers == {service_id("gateway")}


class Clock(WaryCompliance):
    """Notes how long it was given."""

    given_s = None
    trace = None

    async def screen(self, scope, messages):
        self.given_s = current().deadline.remaining_s
        self.trace = scope.trace
        return await super().screen(scope, messages)


async def test_a_deadline_is_shaved_on_its_way(host, rpc):
    clock = Clock()
    rpc(10.0)  # of more, gRPC tells tenths of a second
    async with compliance_client(host, clock) as client:
        await client.screen(scope(), SAID)

    assert 2.0 < clock.given_s <= 10.0 - HOPS.reserve_ms / 1_000


async def test_work_without_time_is_not_sent(host, rpc):
    clock = Clock()
    rpc(0.05)
    async with compliance_client(host, clock) as client:
        with pytest.raises(Refusal) as caught:
            await client.screen(scope(), SAID)

    assert caught.value.reason is Reason.OUT_OF_TIME
    assert clock.given_s is None


class Stuck(WaryCompliance):
    async def screen(self, scope, messages):
        await asyncio.sleep(60)


async def test_a_neighbour_that_hangs_runs_out_of_the_callers_time(host, rpc):
    rpc(0.5)
    async with compliance_client(host, Stuck()) as client:
        with pytest.raises(Refusal) as caught:
            await client.screen(scope(), SAID)

    assert caught.value.reason is Reason.OUT_OF_TIME


async def test_the_trace_of_a_call_arrives(host, rpc):
    from meshkit.w3c import set_current_trace

    clock = Clock()
    set_current_trace(rpc().trace)
    async with compliance_client(host, clock) as client:
        await client.screen(scope(), SAID)

    assert clock.trace.trace_id == current().trace.trace_id


@pytest.mark.parametrize(
    ("made", "stub", "down"),
    [
        (ComplianceClient, ComplianceServiceStub, Reason.COMPLIANCE_DOWN),
        (CacheClient, CacheServiceStub, Reason.CACHE_DOWN),
        (InferenceClient, InferenceServiceStub, Reason.INFERENCE_DOWN),
    ],
)
async def test_a_neighbour_that_is_not_there_is_down(host, rpc, made, stub, down):
    rpc()
    asked = {
        ComplianceClient: lambda client: client.screen(scope(), SAID),
        CacheClient: lambda client: client.get(_question()),
        InferenceClient: lambda client: client.models(),
    }
    hasty = HOPS.model_copy(update={"connect_ms": 500, "cache_connect_ms": 500})
    async with client_of(host, made, stub, 1, hasty) as client:
        with pytest.raises(Refusal) as caught:
            await asked[made](client)

    assert caught.value.reason is down


def _question():
    from meshkit.contract import Question

    return Question(
        scope=scope(),
        screened=Screened(messages=SAID, verdict=_verdict(), mac=b"m" * 32, mac_key_version=1),
        model_digest=b"m" * 32,
        parameters=Parameters(),
    )


# --- neighbours that lie --------------------------------------------------------------------


class LyingCompliance(ComplianceServiceServicer):
    """Says it released more than it let out, or stops half way."""

    def __init__(self, frames):
        self.frames = frames

    async def Screen(self, request, context):
        return cpb.ScreenResponse()

    async def Release(self, request_iterator, context):
        for frame in self.frames:
            yield frame


class LyingInference(InferenceServiceServicer):
    async def Generate(self, request, context):
        yield ipb.GenerateResponse(piece=ipb.GenerateResponse.Piece(text="half", tokens=1))


@asynccontextmanager
async def lying(host, add, servicer, make, stub):
    server = grpc.aio.server()
    add(servicer, server)
    port = server.add_secure_port(
        "127.0.0.1:0", host.holder(service_id("compliance")).server_credentials()
    )
    await server.start()
    try:
        async with client_of(host, make, stub, port) as client:
            yield client
    finally:
        await server.stop(0)


HALF = cpb.ReleaseResponse(delta="half")


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [HALF],
        [HALF, cpb.ReleaseResponse(released={"text": "half and more"})],
        [HALF, cpb.ReleaseResponse(released={"text": ""})],
        [
            HALF,
            cpb.ReleaseResponse(released={"text": "half", "verdict": {"counts": [{"action": 9}]}}),
        ],
    ],
    ids=["nothing", "cut off", "more than let out", "less than let out", "unknown action"],
)
async def test_a_release_that_does_not_add_up_is_no_release(host, rpc, frames):
    from sealgate.v1.compliance_pb2_grpc import add_ComplianceServiceServicer_to_server as add

    rpc()
    async with lying(
        host, add, LyingCompliance(frames), ComplianceClient, ComplianceServiceStub
    ) as client:
        with pytest.raises(Refusal) as caught:
            _ = [item async for item in client.release(scope(), words("half"))]
        with pytest.raises(Refusal) as empty:
            await client.screen(scope(), SAID)

    assert caught.value.reason is empty.value.reason is Reason.COMPLIANCE_DOWN


async def test_a_generation_without_an_end_is_broken(host, rpc):
    from sealgate.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server as add

    rpc()
    screened = Screened(messages=SAID, verdict=_verdict(), mac=b"m" * 32, mac_key_version=1)
    async with lying(host, add, LyingInference(), InferenceClient, InferenceServiceStub) as client:
        generated = client.generate(scope(), MODEL, screened, Parameters())
        items = [await anext(generated)]
        with pytest.raises(Refusal) as caught:
            await anext(generated)

    assert caught.value.reason is Reason.INFERENCE_DOWN
    assert not any(isinstance(item, Ended) for item in items)
