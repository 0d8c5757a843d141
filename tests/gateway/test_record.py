"""Every path of a call fills its record: who, from where, by which rules, how long, what end."""

from __future__ import annotations

import grpc
import pytest

from meshkit.contract import Phase
from sealgate.v1 import gateway_pb2 as pb
from tests.fakes import MODEL, MODEL_DIGEST, POLICY, TEMPLATE_DIGEST
from tests.gateway.conftest import ASSISTANT, OTHER, STRANGER, chat, until

SLOW = {"inference": {"endless": True, "token_s": 0.002}}


async def ask(_, stub, request):
    await stub.Chat(request)


async def ask_twice(_, stub, request):
    await stub.Chat(request)
    await stub.Chat(request)


async def refused(_, stub, request):
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Chat(request)


async def stream(_, stub, request):
    frames = stub.ChatStream(pb.ChatStreamRequest(chat=request))
    while await frames.read() is not grpc.aio.EOF:
        pass


async def stream_cancelled(_, stub, request):
    frames = stub.ChatStream(pb.ChatStreamRequest(chat=request))
    await frames.read()
    frames.cancel()


async def unary_cancelled(house, stub, request):
    call = stub.Chat(request)
    await until(lambda: house.inference.generated > 1)
    call.cancel()


PATHS = {
    "miss": (ask, chat(), {}, {"cache_tier": "miss", "tokens": True, "first": True}),
    "hit": (ask_twice, chat(), {}, {"cache_tier": "l1", "tokens": True, "first": True}),
    "off": (ask, chat(no_cache=True), {}, {"cache_tier": "off", "tokens": True, "first": True}),
    "stream": (stream, chat(), {}, {"cache_tier": "miss", "tokens": True, "first": True}),
    "counts": (
        ask, chat("my secret word"), {},
        {"cache_tier": "miss", "tokens": True, "first": True, "counts": "SECRET"},
    ),
    "blocked prompt": (
        refused, chat("a forbidden word"), {}, {"outcome": "BLOCKED", "counts": "SECRET"},
    ),
    "blocked answer": (
        stream, chat("good words Forbidden and more"), {},
        {"cache_tier": "miss", "tokens": True, "first": True, "counts": "SECRET"},
    ),
    "cancelled": (
        stream_cancelled, chat("over and over", parameters={"max_tokens": 4_000}), SLOW,
        {"outcome": "CANCELLED", "cache_tier": "miss", "tokens": True, "first": True},
    ),
    "unary cancelled": (
        unary_cancelled, chat("over and over", parameters={"max_tokens": 4_000}), SLOW,
        {"outcome": "CANCELLED", "cache_tier": "miss", "tokens": True, "first": True},
    ),
    "model down": (
        refused, chat("hello there"), {"inference": {"dies_after": 0}},
        {"outcome": "INFERENCE_DOWN", "cache_tier": "miss"},
    ),
}  # fmt: skip
"""How it is asked, what, of which fakes, and what its OUTCOME then holds."""


async def last_outcome(house, count=1):
    await until(lambda: len(house.audit.of(Phase.OUTCOME)) >= count)
    return house.audit.of(Phase.OUTCOME)[-1]


def check_origin(event, uri=ASSISTANT):
    assert event.actor.spiffe_id == uri
    assert event.connection.tls_version == "TLSv1.3"
    assert event.connection.key_exchange_group
    assert event.connection.peer_ip in {"127.0.0.1", "::1"}
    assert any(event.trace.trace_id)
    assert any(event.trace.span_id)


@pytest.mark.parametrize("path", PATHS)
async def test_the_outcome_of_every_path_is_filled(start, path) -> None:
    act, request, fakes, expected = PATHS[path]
    async with start(fakes) as house, house.caller() as stub:
        await act(house, stub, request)
        outcome = await last_outcome(house, 2 if path == "hit" else 1)

    intent = next(e for e in house.audit.of(Phase.INTENT) if e.call_id == outcome.call_id)
    for event in (intent, outcome):
        check_origin(event)
        assert event.authorization_policy_digest == house.pipeline.door.authorizer.digest
        assert (event.model, event.model_digest) == (MODEL, MODEL_DIGEST)
        assert event.prompt_template_digest == TEMPLATE_DIGEST
        assert event.trace.trace_id == outcome.trace.trace_id
    assert outcome.outcome == expected.get("outcome", "released")
    assert outcome.compliance_policy_digest == POLICY
    assert outcome.cache_tier == expected.get("cache_tier", "")
    assert bool(outcome.usage.completion_tokens) == expected.get("tokens", False)
    assert {count.type for count in outcome.counts} == set(expected.get("counts", "").split())
    assert outcome.duration_us > 0
    assert (outcome.first_token_us > 0) == expected.get("first", False)
    assert outcome.first_token_us <= outcome.duration_us
    assert (intent.duration_us, intent.first_token_us) == (0, 0)


@pytest.mark.parametrize(
    ("uri", "request_", "outcome"),
    [
        (STRANGER, chat(), "DENIED"),
        (ASSISTANT, chat(model="no-such"), "NOT_FOUND"),
        (OTHER, chat(parameters={"max_tokens": 5_000}), "INVALID_FIELD"),
    ],
)
async def test_a_refusal_at_the_door_tells_who_and_by_which_rules(
    start, uri, request_, outcome
) -> None:
    async with start() as house, house.caller(uri) as stub:
        await refused(house, stub, request_)
        (event,) = house.audit.of(Phase.OUTCOME)

    check_origin(event, uri)
    assert event.outcome == outcome
    assert event.authorization_policy_digest == house.pipeline.door.authorizer.digest
    assert event.duration_us > 0
    assert event.first_token_us == 0


async def test_a_list_of_models_is_a_record_of_its_own(start) -> None:
    async with start() as house, house.caller() as stub:
        await stub.ListModels(pb.ListModelsRequest())
        (event,) = house.audit.of(Phase.OUTCOME)

    check_origin(event)
    assert (event.action, event.outcome) == ("models.list", "released")
    assert event.duration_us > 0


async def test_a_stranger_s_connection_is_told(start) -> None:
    async with start() as house, house.caller("spiffe://sealgate.local/service/cache") as stub:
        await refused(house, stub, chat())
        (note,) = house.audit.events

    assert (note.phase, note.outcome, note.actor) == (Phase.NOTE, "DENIED", None)
    assert note.connection.tls_version == "TLSv1.3"
    assert note.connection.key_exchange_group
