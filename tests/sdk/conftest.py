"""A small gateway on real sockets, with receipts signed as the audit service signs them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshkit.contract import Receipt, Refusal, answer_bytes, prompt_bytes
from meshkit.interceptors import current
from meshkit.tlog import VerifierKey, commit, endorsement_text, receipt_bytes
from meshkit.wire import messages_from_wire, receipt_to_wire
from sealgate import AsyncClient, Client
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1.gateway_pb2_grpc import (
    GatewayServiceServicer,
    add_GatewayServiceServicer_to_server,
)

# The CA and the server are those of meshkit's tests; a conftest cannot be imported by name.
_spec = spec_from_file_location(
    "sealgate_tests_serving", Path(__file__).parents[1] / "meshkit" / "conftest.py"
)
serving = module_from_spec(_spec)
sys.modules[_spec.name] = serving
_spec.loader.exec_module(serving)
ca, server_ends, tenant_ends, serve = (
    serving.ca,
    serving.server_ends,
    serving.tenant_ends,
    serving.serve,
)

ORIGIN = "sealgate.test/log"


class Signer:
    """Makes receipts as the audit service does."""

    def __init__(self) -> None:
        self.origin = ORIGIN
        self.log, self._key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.verifier = VerifierKey(ORIGIN, self.log.public_key().public_bytes_raw())
        self.vkey = str(self.verifier)
        self._public = self._key.public_key().public_bytes_raw()
        text = endorsement_text(ORIGIN, self._public).encode()
        self._endorsement = self.verifier.key_id + self.log.sign(text)

    def receipt(self, messages, answer) -> Receipt:
        prompt_salt, answer_salt = os.urandom(32), os.urandom(32)
        receipt = Receipt(
            origin=ORIGIN,
            index=41,
            leaf_hash=os.urandom(32),
            call_id=os.urandom(16),
            trace_id=os.urandom(16),
            prompt_salt=prompt_salt,
            prompt_commitment=commit(prompt_salt, prompt_bytes(messages)),
            answer_salt=answer_salt,
            answer_commitment=commit(answer_salt, answer_bytes(answer)),
            key=self._public,
            key_endorsement=self._endorsement,
        )
        return replace(receipt, signature=self._key.sign(receipt_bytes(receipt)))


@dataclass
class Gateway(GatewayServiceServicer):
    """Echoes, signs, and does as it is told before."""

    signer: Signer
    refusals: list[Refusal] = field(default_factory=list)
    """Raised one after the other, before any answer."""
    refuse_midway: Refusal | None = None
    refuse_after_all: Refusal | None = None
    pause_s: float = 0.0
    tamper: str = ""
    """Put behind each answer after it was signed."""
    unsigned: bool = False
    unended: bool = False
    seen: list[tuple] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    held: bool = False
    """A stream goes no further than its next piece."""
    closed: threading.Event = field(default_factory=threading.Event)

    async def Chat(self, request, _context):
        text = await self._answer(request)
        return pb.ChatResponse(text=text + self.tamper, **self._end(request, text))

    async def ChatStream(self, request, _context):
        try:
            text = await self._answer(request.chat)
            for piece in [*text.split(), self.tamper]:
                if piece:
                    yield pb.ChatStreamResponse(delta=piece)
                await asyncio.sleep(self.pause_s)
                while self.held:
                    await asyncio.sleep(0.005)
            if self.refuse_midway:
                raise self.refuse_midway
            if not self.unended:
                end = self._end(request.chat, "".join(text.split()))
                yield pb.ChatStreamResponse(final=pb.ChatStreamResponse.Final(**end))
            if self.refuse_after_all:
                raise self.refuse_after_all
        finally:
            self.closed.set()

    async def ListModels(self, _request, _context):
        await self._answer(pb.ChatRequest())
        reply = pb.ListModelsResponse()
        reply.models.add(name="echo", digest=b"d" * 32, context_tokens=2_048, licence="Apache-2.0")
        return reply

    async def _answer(self, request) -> str:
        self.seen.append((request, current()))
        self.asked.set()
        if self.refusals:
            raise self.refusals.pop(0)
        await asyncio.sleep(self.pause_s)
        return " ".join(message.content for message in request.messages)

    def _end(self, request, text):
        receipt = self.signer.receipt(messages_from_wire(request.messages), text)
        end = {
            "finish_reason": 1,
            "usage": {"prompt_tokens": 3, "completion_tokens": 5},
            "screening": {
                "counts": [{"direction": 1, "type": "EMAIL", "action": 2, "count": 2}],
                "policy_digest": b"p" * 32,
            },
            "cache_tier": pb.CACHE_TIER_L1,
        }
        return end if self.unsigned else end | {"receipt": receipt_to_wire(receipt)}


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def gateway(signer) -> Gateway:
    return Gateway(signer)


@pytest.fixture
def port(serve, gateway):
    """The port of `gateway`, served by a thread of its own: the synchronous client blocks ours."""
    with served_apart(serve(partial(add_GatewayServiceServicer_to_server, gateway))) as found:
        yield found


@contextmanager
def served_apart(entered):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(entered.__aenter__(), loop).result(30)
    finally:
        leaving = entered.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(leaving, loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@pytest.fixture
def running():
    return served_apart


@pytest.fixture
def tls(tenant_ends, tmp_path) -> Path:
    """A client's folder, as the appliance writes it."""
    return tenant_ends.write(tmp_path, "client")


class Awaited:
    """The synchronous client, spoken to as if it were the other: the tests are written once."""

    def __init__(self, client) -> None:
        self.client = client

    async def chat(self, *args, **kwargs):
        return await asyncio.to_thread(self.client.chat, *args, **kwargs)

    async def models(self):
        return await asyncio.to_thread(self.client.models)

    def stream(self, *args, **kwargs):
        return AwaitedStream(self.client.stream(*args, **kwargs))

    async def aclose(self):
        await asyncio.to_thread(self.client.close)


class AwaitedStream:
    def __init__(self, stream) -> None:
        self.stream = stream

    def __aiter__(self):
        return self

    async def __anext__(self):
        piece = await asyncio.to_thread(next, self.stream, None)
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def aclose(self):
        await asyncio.to_thread(self.stream.close)

    @property
    def result(self):
        return self.stream.result

    @property
    def text(self):
        return self.stream.text


@pytest.fixture(params=["async", "sync"])
async def connect(request, port, tls):
    """Make a client of either kind: `connect(vkey=…)`."""
    made = []

    def make(**options):
        files = {"ca": tls / "ca.pem", "cert": tls / "client.pem", "key": tls / "client.key"}
        kind = AsyncClient if request.param == "async" else Client
        client = kind(f"localhost:{port}", **(files | options))
        made.append(client if request.param == "async" else Awaited(client))
        return made[-1]

    yield make
    for client in made:
        await client.aclose()
