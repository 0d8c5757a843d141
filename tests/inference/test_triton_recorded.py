"""A Triton that is killed in the middle of an answer, as a caller and the record see it."""

import asyncio
import time
from contextlib import AsyncExitStack

import grpc
import pytest

from inference.service import InferenceService
from meshkit.contract import Reason
from meshkit.status import from_rpc_error
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.gateway.conftest import Authority, chat
from tests.inference import triton_world as world
from tests.mesh.conftest import FakeMesh, Host

WAIT_S = 60.0


@pytest.fixture
async def house(on_triton, tmp_path):
    """A gateway, and inference over a Triton of its own."""
    repository = tmp_path / "repository"
    repository.mkdir()
    world.standin(repository, "scripted")
    with world.running(repository) as server:
        engine = await on_triton("scripted", server, return_wait_ms=50)
        async with AsyncExitStack() as owned:
            mesh = FakeMesh(Host(Authority(), owned))
            mesh.inference = InferenceService((engine,), verify=lambda *_: True)
            await mesh.start()
            yield mesh, server, engine


async def test_a_triton_killed_mid_answer_is_recorded_and_the_next_call_works(house) -> None:
    mesh, server, engine = house
    own = mesh.host.holder("spiffe://sealgate.local/tenant/demo/assistant")
    target = f"localhost:{mesh.ports['gateway']}"
    async with grpc.aio.secure_channel(target, own.channel_credentials()) as channel:
        stub = GatewayServiceStub(channel)
        asked = pb.ChatStreamRequest(chat=chat("slow", model=engine.info.name))
        stream = stub.ChatStream(asked)
        await until(lambda: server.metric("sealgate_steps", "scripted") > 0)
        server.kill()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [frame async for frame in stream]
        assert from_rpc_error(caught.value).reason is Reason.INFERENCE_DOWN
        assert mesh.audit.outcomes == ["INFERENCE_DOWN"]

        await asyncio.to_thread(server.start)
        await until(lambda: engine.healthy)
        answer = await stub.Chat(chat("say 3", model=engine.info.name))
        assert answer.text
        assert mesh.audit.outcomes[1:] == ["released"]


async def until(condition) -> None:
    ends = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        await asyncio.sleep(0.05)
