"""Cache and inference believe no text without compliance's MAC, whoever brings it.

The gateway here is the liar: it has a valid certificate and is admitted.
"""

import os
from dataclasses import replace

import pytest

from cache.service import CacheService
from cache.settings import CacheSettings
from gateway.clients import CacheClient, Hops, InferenceClient
from inference.engines.null import NullEngine
from inference.service import InferenceService
from meshkit.channel import line
from meshkit.contract import (
    CachedAnswer,
    CacheMiss,
    Ended,
    FinishReason,
    Message,
    Parameters,
    Question,
    Reason,
    Refusal,
    Released,
    Role,
    Screened,
    Stage,
    Usage,
    Verdict,
)
from meshkit.envelope import keyring
from meshkit.screening_mac import MacKeys, digest_of_answer, digest_of_prompt, mac_verifier
from meshkit.wrapped_keys import MemoryWrappedKeys
from sealgate.v1.cache_pb2_grpc import CacheServiceStub
from sealgate.v1.inference_pb2_grpc import InferenceServiceStub
from tests.mesh.conftest import scope, service_id

KEYS = MacKeys({4: b"four" * 8, 5: b"five" * 8}, 5)
POLICY = b"p" * 32
ENDED = Ended(finish_reason=FinishReason.STOP, usage=Usage(prompt_tokens=3, completion_tokens=2))


def screened(text="What is a log?", *, of=None, policy=POLICY, stage=Stage.SCREENED) -> Screened:
    messages = (Message(Role.USER, text),)
    of = of or scope()
    version, mac = KEYS.tag(
        stage=stage,
        text_digest=digest_of_prompt(messages),
        policy_digest=policy,
        tenant=of.tenant,
        call_id=of.call_id,
    )
    return Screened(
        messages=messages, verdict=Verdict(policy_digest=policy), mac=mac, mac_key_version=version
    )


def released(text="A book.", *, of=None, policy=POLICY, stage=Stage.RELEASED) -> Released:
    of = of or scope()
    version, mac = KEYS.tag(
        stage=stage,
        text_digest=digest_of_answer(text),
        policy_digest=policy,
        tenant=of.tenant,
        call_id=of.call_id,
    )
    return Released(
        text=text, verdict=Verdict(policy_digest=policy), mac=mac, mac_key_version=version
    )


OTHER_CALL, OTHER_TENANT = scope(b"d" * 16), scope(tenant="other")


def other_policy(text):
    """Another policy's MAC, under the policy that is in force."""
    return replace(text, verdict=Verdict(policy_digest=POLICY))


PROMPT_LIES = {
    "none": replace(screened(), mac=b""),
    "zeroes": replace(screened(), mac=bytes(32)),
    "another tenant's": screened(of=OTHER_TENANT),
    "another call's": screened(of=OTHER_CALL),
    "another policy's": other_policy(screened(policy=b"q" * 32)),
    "policy swapped after": replace(screened(), verdict=Verdict(policy_digest=b"q" * 32)),
    "another text's": replace(screened(), messages=(Message(Role.USER, "Ada's card"),)),
    "another role's": replace(screened(), messages=(Message(Role.SYSTEM, "What is a log?"),)),
    "one more turn": replace(
        screened(), messages=(*screened().messages, Message(Role.USER, "and her card"))
    ),
    "an answer's": screened(stage=Stage.RELEASED),
    "a key nobody has": replace(screened(), mac_key_version=6),
    "the other key's": replace(screened(), mac_key_version=4),
}
ANSWER_LIES = {
    "none": replace(released(), mac=b""),
    "another tenant's": released(of=OTHER_TENANT),
    "another call's": released(of=OTHER_CALL),
    "another policy's": other_policy(released(policy=b"q" * 32)),
    "another text's": replace(released(), text="Ada's card"),
    "a prompt's": released(stage=Stage.SCREENED),
    "a key nobody has": replace(released(), mac_key_version=6),
}


def question(of=screened()):  # noqa: B008 -- frozen
    return Question(
        scope=scope(), screened=of, model_digest=b"m" * 32, parameters=Parameters(max_tokens=8)
    )


class MemoryKeys:
    """Data keys of a transit that is a dict."""

    def __init__(self):
        self.keys = {}

    async def datakey(self, name, *, aad):
        from meshkit.vault import DataKey

        wrapped = f"vault:v1:{len(self.keys)}"
        self.keys[name, wrapped, aad] = os.urandom(32)
        return DataKey(self.keys[name, wrapped, aad], wrapped)

    async def decrypt(self, name, wrapped, *, aad):
        return self.keys[name, wrapped, aad]


@pytest.fixture
async def inference(host, rpc):
    engine = NullEngine("an answer of the model", name="null")
    service = InferenceService((engine,), verify=mac_verifier(lambda: KEYS))
    port = await host.serve("inference", service)
    rpc()
    async with line(
        f"localhost:{port}", host.holder(service_id("gateway")), InferenceServiceStub
    ) as reached:
        yield InferenceClient(reached, Hops(connect_ms=5_000)), engine


@pytest.fixture
async def cache(host, rpc):
    rpc()
    async with keyring(MemoryKeys(), MemoryWrappedKeys()) as sealer:
        service = CacheService(
            CacheSettings(),
            sealer=sealer,
            verify=mac_verifier(lambda: KEYS),
            secret=b"s" * 32,
        )
        port = await host.serve("cache", service)
        async with line(
            f"localhost:{port}", host.holder(service_id("gateway")), CacheServiceStub
        ) as reached:
            yield CacheClient(reached, Hops(cache_connect_ms=5_000))


async def generated(client, prompt):
    return [
        item async for item in client.generate(scope(), "null", prompt, Parameters(max_tokens=8))
    ]


async def test_what_compliance_vouches_for_is_answered(inference):
    client, _ = inference

    *pieces, ended = await generated(client, screened())

    assert "".join(piece.text for piece in pieces) == "an answer of the model"
    assert ended.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("lie", PROMPT_LIES)
async def test_no_other_prompt_reaches_a_model(inference, lie):
    client, engine = inference

    with pytest.raises(Refusal) as caught:
        await generated(client, PROMPT_LIES[lie])

    assert caught.value.reason is Reason.INVALID_FIELD
    assert caught.value.field == "messages"
    assert engine.generated_tokens == 0


@pytest.mark.parametrize("of", [OTHER_CALL, OTHER_TENANT], ids=["call", "tenant"])
async def test_a_prompt_cannot_be_taken_to_another(inference, cache, of):
    """The same MAC, brought by a scope that it was not made for."""
    client, engine = inference
    with pytest.raises(Refusal) as generation:
        await anext(client.generate(of, "null", screened(), Parameters(max_tokens=8)))
    with pytest.raises(Refusal) as look_up:
        await cache.get(replace(question(), scope=of))

    assert generation.value.reason is look_up.value.reason is Reason.INVALID_FIELD
    assert engine.generated_tokens == 0


async def test_what_compliance_vouches_for_is_kept(cache):
    miss = await cache.get(question())
    assert isinstance(miss, CacheMiss)
    assert miss.lease

    await cache.put(question(), miss.lease, released(), ENDED)

    hit = await cache.get(question())
    assert isinstance(hit, CachedAnswer)
    assert (hit.text, hit.usage, hit.tier) == ("A book.", ENDED.usage, "l1")
    assert await cache.purge("demo") == 1
    assert isinstance(await cache.get(question()), CacheMiss)


async def test_a_lease_that_is_given_back_goes_to_the_next(cache):
    first = await cache.get(question())
    await cache.abandon(question(), first.lease)

    second = await cache.get(question())

    assert second.lease not in {b"", first.lease}


@pytest.mark.parametrize("lie", PROMPT_LIES)
async def test_no_other_prompt_is_looked_up(cache, lie):
    with pytest.raises(Refusal) as caught:
        await cache.get(question(PROMPT_LIES[lie]))

    assert caught.value.reason is Reason.INVALID_FIELD


@pytest.mark.parametrize("lie", ANSWER_LIES)
async def test_no_other_answer_is_kept(cache, lie):
    miss = await cache.get(question())

    with pytest.raises(Refusal) as caught:
        await cache.put(question(), miss.lease, ANSWER_LIES[lie], ENDED)

    assert caught.value.reason is Reason.INVALID_FIELD
    await cache.abandon(question(), miss.lease)
    assert isinstance(await cache.get(question()), CacheMiss)
