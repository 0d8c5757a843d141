"""The true appliance in a process of its own, and its caller."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.children import WORK, Child, child, cores
from bench.load import Run, channel, drive
from bench.workload import prompt
from sealgate.v1 import common_pb2, gateway_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

SERVICE = "/sealgate.v1.GatewayService"
MAX_TOKENS = 50
"""Of 4 characters each: answers of 200 characters."""


class UnexpectedAnswerError(AssertionError):
    """An answer was not of the kind that the figure is about: no figure beats a wrong one."""


def request(number: int, *, max_tokens: int, model: str) -> gateway_pb2.ChatRequest:
    """Ask prompt `number` of the workload."""
    turn = common_pb2.Message(role=common_pb2.ROLE_USER, content=prompt(number))
    parameters = common_pb2.Parameters(max_tokens=max_tokens)
    return gateway_pb2.ChatRequest(model=model, messages=[turn], parameters=parameters)


@dataclass(frozen=True, slots=True)
class Caller:
    """A running appliance and a warm connection to it.

    Requests are serialised before they are timed, and answers parsed, so that the load generator
    spends as little as it can.
    """

    process: Child
    model: str
    _chat: grpc.aio.UnaryUnaryMultiCallable[bytes, gateway_pb2.ChatResponse]
    _stream: grpc.aio.UnaryStreamMultiCallable[bytes, gateway_pb2.ChatStreamResponse]

    @property
    def pid(self) -> int:
        """The server's."""
        return self.process.pid

    async def steps(self) -> dict[str, float]:
        """Return the mean wall microseconds of each step of the pipeline since last asked."""
        return await self.process.ask("steps")

    async def newest_tokens(self) -> int:
        """Return the tokens so far of the stream that the engine served last."""
        told = await self.process.ask("tokens")
        return int(told["newest"])

    def requests(self, first: int, count: int) -> list[bytes]:
        """Serialise `count` requests of the workload from number `first` on."""
        made = (request(first + n, max_tokens=MAX_TOKENS, model=self.model) for n in range(count))
        return [one.SerializeToString() for one in made]

    async def chat(self, asked: bytes) -> gateway_pb2.ChatResponse:
        """Make one unary call."""
        return await self._chat(asked)

    def stream(
        self, asked: gateway_pb2.ChatRequest
    ) -> grpc.aio.UnaryStreamCall[bytes, gateway_pb2.ChatStreamResponse]:
        """Make one streaming call."""
        whole = gateway_pb2.ChatStreamRequest(chat=asked)
        return self._stream(whole.SerializeToString())

    async def drive(self, asked: list[bytes], tier: int, *, in_flight: int, seconds: float) -> Run:
        """Ask these in turn; every answer must come from `tier` and bear a receipt."""
        (core,) = cores()[0]

        async def call(number: int) -> None:
            check(await self._chat(asked[number % len(asked)]), tier)

        return await drive(call, pid=self.pid, core=core, in_flight=in_flight, seconds=seconds)


def check(answer: gateway_pb2.ChatResponse, tier: int) -> None:
    """Refuse to time anything but a whole, recorded answer from the tier the figure is about.

    Raises:
        UnexpectedAnswerError: it is another tier's, or has no text, findings or receipt.
    """
    seen = (answer.cache_tier == tier, answer.text, answer.receipt.signature)
    if not all(seen) or sum(count.count for count in answer.screening.counts) < 2:
        msg = f"tier {answer.cache_tier} where {tier} was due, or an incomplete answer"
        raise UnexpectedAnswerError(msg)


@asynccontextmanager
async def appliance(*, tokens_per_s: float = 0.0) -> AsyncIterator[Caller]:
    """Run the appliance with the null engine on the server's core; everything else is on."""
    options = {"folder": str(WORK / "appliance"), "tokens_per_s": tokens_per_s}
    async with child("appliance", options, pinned_to=cores()[0]) as process:
        told = await process.told()
        async with connected(process, told["port"], Path(told["tls"])) as caller:
            yield caller


@asynccontextmanager
async def connected(process: Child, port: int, tls: Path) -> AsyncIterator[Caller]:
    """Open a warm connection to a gateway, with the client's files in a folder."""
    files = (tls / "ca.pem", tls / "client.pem", tls / "client.key")
    async with channel(port, *files) as opened:
        models = await opened.unary_unary(
            f"{SERVICE}/ListModels",
            gateway_pb2.ListModelsRequest.SerializeToString,
            gateway_pb2.ListModelsResponse.FromString,
        )(gateway_pb2.ListModelsRequest())
        chat = opened.unary_unary(f"{SERVICE}/Chat", bytes, gateway_pb2.ChatResponse.FromString)
        stream = opened.unary_stream(
            f"{SERVICE}/ChatStream", bytes, gateway_pb2.ChatStreamResponse.FromString
        )
        yield Caller(process, models.models[0].name, chat, stream)
