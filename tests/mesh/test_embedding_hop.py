"""Vectors across the hop from gateway to inference: numbers, refusals, and what adds up."""

import pytest

from meshkit.contract import Embedded, Message, Reason, Refusal, Role, Screened, Usage, Verdict
from tests.mesh.conftest import scope
from tests.mesh.test_hops import inference_client

SAID = (Message(Role.USER, "One."), Message(Role.USER, "Two."))
ASKED = Screened(
    messages=SAID, verdict=Verdict(policy_digest=b"p" * 32), mac=b"m" * 32, mac_key_version=1
)


class Embedding:
    """An inference service that answers, or refuses, as it is told."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.asked = []

    async def embed(self, scope, model, screened):
        self.asked.append((scope, model, screened))
        if isinstance(self.answer, Refusal):
            raise self.answer
        return self.answer


async def embedded(host, service, model="toy"):
    async with inference_client(host, service) as client:
        return await client.embed(scope(), model, ASKED)


async def test_vectors_cross_the_hop(host, rpc) -> None:
    rpc()
    service = Embedding(Embedded(((0.5, -0.25), (1.0, 0.0)), Usage(prompt_tokens=8)))
    told = await embedded(host, service)

    assert told == service.answer
    ((asked_by, model, screened),) = service.asked
    assert (asked_by.tenant, asked_by.call_id, model) == ("demo", b"c" * 16, "toy")
    assert (screened.messages, screened.mac) == (SAID, b"m" * 32)


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(Reason.NOT_FOUND),
        Refusal(Reason.INVALID_FIELD, field="messages"),
        Refusal(Reason.OVERLOADED, retry_after_ms=500),
    ],
)
async def test_a_refusal_crosses_the_hop(host, rpc, refusal) -> None:
    rpc()
    with pytest.raises(Refusal) as caught:
        await embedded(host, Embedding(refusal))

    told = caught.value
    assert (told.reason, told.field) == (refusal.reason, refusal.field)
    assert (told.retry_after_ms or 0) == (refusal.retry_after_ms or 0)


@pytest.mark.parametrize("vectors", [(), ((1.0,),), ((1.0,), (1.0, 0.0))])
async def test_vectors_that_are_not_as_many_or_as_long_are_no_answer(host, rpc, vectors) -> None:
    rpc()
    with pytest.raises(Refusal) as caught:
        await embedded(host, Embedding(Embedded(vectors, Usage())))

    assert caught.value.reason is Reason.INFERENCE_DOWN


@pytest.mark.parametrize("model", ["", "x" * 129])
async def test_a_name_that_is_none_is_refused_at_the_door(host, rpc, model) -> None:
    rpc()
    service = Embedding(Embedded((), Usage()))
    with pytest.raises(Refusal) as caught:
        await embedded(host, service, model)

    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "model")
    assert service.asked == []
