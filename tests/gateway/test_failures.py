"""The failure table, row by row: what the caller is told, and what the record says."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import grpc
import pytest

from meshkit.contract import (
    Direction,
    FinishReason,
    Message,
    Phase,
    Reason,
    Refusal,
    Role,
    prompt_bytes,
)
from meshkit.counters import counters
from meshkit.status import from_rpc_error
from meshkit.tlog import commit
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1.common_pb2 import FINISH_REASON_BLOCKED, FINISH_REASON_LIMITED
from tests.fakes import POLICY
from tests.gateway.conftest import OTHER, STRANGER, chat, until

LONG = " ".join(f"w{n}" for n in range(60))


async def refused(call):
    """Await a call that must be refused; return the typed refusal as a client rebuilds it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value), caught.value


async def drain(stream):
    """Read a stream to its end; return the text and whether there was a final frame."""
    text, final = "", None
    async for frame in stream:
        text += frame.delta
        final = frame.final if frame.HasField("final") else final
    return text, final


def streaming(stub, request, **call):
    return stub.ChatStream(pb.ChatStreamRequest(chat=request), **call)


# --- a neighbour fails -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fakes", "reason"),
    [
        ({"compliance": {"down": True}}, Reason.COMPLIANCE_DOWN),
        ({"compliance": {"down_mid_answer": True}}, Reason.COMPLIANCE_DOWN),
        ({"inference": {"dies_after": 3}}, Reason.INFERENCE_DOWN),
    ],
)
async def test_a_failing_neighbour_closes_the_call_and_the_record_says_so(
    start, fakes, reason
) -> None:
    async with start(fakes) as house, house.caller() as stub:
        refusal, error = await refused(stub.Chat(chat(LONG)))

        assert refusal.reason is reason
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert refusal.receipt.index == 1
        assert house.audit.outcomes == [reason.name]
        assert house.cache.leases == set()
        assert house.inference.running == 0


async def test_no_models_known_is_a_refusal_at_the_door(start) -> None:
    async with start({"inference": {"down": True}}) as house, house.caller() as stub:
        refusal, _ = await refused(stub.Chat(chat()))

        assert refusal.reason is Reason.INFERENCE_DOWN
        assert [event.phase for event in house.audit.events] == [Phase.OUTCOME]


async def test_a_failing_cache_is_a_miss_and_counted(start) -> None:
    before = counters().get("cache.down", 0)
    async with start({"cache": {"down": True}}) as house, house.caller() as stub:
        reply = await stub.Chat(chat())

        assert reply.text == "HELLO BIG WORLD"
        assert reply.cache_tier == pb.CACHE_TIER_DOWN
        assert house.audit.of(Phase.OUTCOME)[0].cache_tier == "down"
        assert counters()["cache.down"] == before + 1


async def test_a_cache_that_never_answers_is_a_miss_too(start) -> None:
    async with start(cache_budget_ms=50) as house, house.caller() as stub:

        async def hang(*_):
            await asyncio.Event().wait()

        house.cache.get = house.cache.put = hang
        assert (await stub.Chat(chat())).cache_tier == pb.CACHE_TIER_DOWN


async def test_a_cache_that_fails_to_keep_costs_nothing_but_the_lease(start) -> None:
    async with start() as house, house.caller() as stub:

        async def full(*_):
            raise Refusal(Reason.CACHE_DOWN)

        house.cache.put = full
        assert (await stub.Chat(chat())).text == "HELLO BIG WORLD"
        assert (house.cache.leases, house.cache.abandoned) == (set(), 1)


async def test_audit_down_before_the_intent_stops_everything_and_has_no_receipt(start) -> None:
    async with start({"audit": {"down": True}}) as house, house.caller() as stub:
        refusal, error = await refused(stub.Chat(chat()))

        assert refusal.reason is Reason.AUDIT_DOWN
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert refusal.receipt is None
        assert house.inference.generated == 0
        assert (house.cache.leases, house.cache.abandoned) == (set(), 1)


async def test_audit_down_at_the_outcome_withholds_the_answer(start) -> None:
    down = {"audit": {"down_for": frozenset({Phase.OUTCOME})}}
    async with start(down) as house, house.caller() as stub:
        refusal, _ = await refused(stub.Chat(chat()))
        assert refusal.reason is Reason.AUDIT_DOWN

        stream = streaming(stub, chat("one"))
        assert (await stream.read()).delta == "ONE"
        refusal, _ = await refused(stream.read())
        assert refusal.reason is Reason.AUDIT_DOWN


async def test_audit_that_never_answers_is_down(start) -> None:
    async with start(audit_budget_ms=100) as house, house.caller() as stub:
        house.audit.hold = asyncio.Event()
        refusal, _ = await refused(stub.Chat(chat()))

        assert refusal.reason is Reason.AUDIT_DOWN
        assert house.inference.generated == 0
        house.audit.hold.set()


def without_keys(audit):
    """Let an audit log refuse whatever has to be sealed."""
    append = audit.append

    async def keyless(event):
        if event.prompt_received or event.payload:
            raise Refusal(Reason.KEYS_DOWN)
        return await append(event)

    audit.append = keyless


async def test_a_tenant_without_keys_is_denied_and_recorded_like_any_other(start) -> None:
    async with start() as house, house.caller(STRANGER) as stub:
        without_keys(house.audit)
        refusal, _ = await refused(stub.Chat(chat()))

        assert refusal.reason is Reason.DENIED
        assert refusal.receipt.prompt_salt == b""
        assert house.audit.outcomes == ["DENIED"]


async def test_keys_down_at_the_intent_is_recorded_without_salts(start) -> None:
    async with start() as house, house.caller() as stub:
        without_keys(house.audit)
        refusal, _ = await refused(stub.Chat(chat()))

        assert refusal.reason is Reason.KEYS_DOWN
        assert house.audit.outcomes == ["KEYS_DOWN"]
        assert house.inference.generated == 0


async def test_a_bug_is_mute_and_recorded(start) -> None:
    async with start() as house, house.caller() as stub:

        async def broken(scope, messages):
            raise ValueError(messages[0].content)

        house.compliance.screen = broken
        refusal, error = await refused(stub.Chat(chat("canary-4711")))

        assert refusal.reason is Reason.INTERNAL
        assert "canary" not in repr(error)
        assert house.audit.outcomes == ["INTERNAL"]


# --- blocked -----------------------------------------------------------------------------------


async def test_a_blocked_prompt_is_refused_with_receipt_and_counts(start) -> None:
    async with start() as house, house.caller() as stub:
        refusal, error = await refused(stub.Chat(chat("a forbidden word")))

        assert refusal.reason is Reason.BLOCKED
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        outcome = house.audit.of(Phase.OUTCOME)[0]
        assert outcome.outcome == "BLOCKED"
        assert outcome.counts[0].direction is Direction.PROMPT
        assert outcome.payload is None
        assert outcome.compliance_policy_digest == POLICY
        sent = prompt_bytes([Message(Role.USER, "a forbidden word")])
        assert commit(refusal.receipt.prompt_salt, sent) == refusal.receipt.prompt_commitment
        assert house.inference.generated == 0


async def test_an_answer_judged_by_another_policy_than_its_prompt_is_refused(start) -> None:
    other = {"compliance": {"releases_under": b"q" * 32}}
    async with start(other) as house, house.caller() as stub:
        refusal, _ = await refused(stub.Chat(chat("hello there")))

        assert refusal.reason is Reason.COMPLIANCE_DOWN
        assert house.compliance.asked_under == POLICY
        assert house.cache.answers == {}


async def test_blocked_mid_answer_what_was_delivered_stands(start) -> None:
    """The model is made to say what the prompt did not hold, as the fake masks by lower case."""
    async with start() as house, house.caller() as stub:
        prompt = "good words Forbidden and more"
        text, final = await drain(streaming(stub, chat(prompt)))

        assert text == "GOOD WORDS "
        assert final.finish_reason == FINISH_REASON_BLOCKED
        assert final.screening.counts[0].count == 1
        outcome = house.audit.of(Phase.OUTCOME)[0]
        assert (outcome.outcome, outcome.finish_reason) == ("released", FinishReason.BLOCKED)
        assert outcome.payload.released == "GOOD WORDS "
        assert house.cache.answers == {}
        assert (house.cache.leases, house.cache.abandoned) == (set(), 1)


# --- cancelled, late, cut ----------------------------------------------------------------------


async def test_cancelling_stops_the_engine_and_records_what_was_released(start) -> None:
    fakes = {"inference": {"endless": True, "token_s": 0.002}}
    async with start(fakes) as house, house.caller() as stub:
        stream = streaming(stub, chat("over and over", parameters={"max_tokens": 4_000}))
        seen = (await stream.read()).delta
        stream.cancel()
        await house.at_rest()
        stopped_at = house.inference.generated
        await asyncio.sleep(0.2)

        assert house.inference.generated == stopped_at < 4_000
        assert house.inference.running == 0
        outcome = house.audit.of(Phase.OUTCOME)[0]
        assert (outcome.outcome, outcome.finish_reason) == ("CANCELLED", FinishReason.CANCELLED)
        assert outcome.payload.released.startswith(seen)
        assert outcome.answer_delivered is not None
        assert house.cache.leases == set()


async def test_a_unary_call_that_is_cancelled_delivered_nothing(start) -> None:
    fakes = {"inference": {"endless": True, "token_s": 0.002}}
    async with start(fakes) as house, house.caller() as stub:
        call = stub.Chat(chat("over and over", parameters={"max_tokens": 4_000}))
        await until(lambda: house.inference.generated > 100)  # three times what is released at once
        call.cancel()
        await house.at_rest()

        outcome = house.audit.of(Phase.OUTCOME)[0]
        assert outcome.answer_delivered is None
        assert outcome.answer_released is not None
        assert house.inference.running == 0


async def test_a_deadline_is_told_before_it_passes_and_recorded(start) -> None:
    fakes = {"inference": {"endless": True, "token_s": 0.01}}
    async with start(fakes, reply_reserve_ms=9_000) as house, house.caller() as stub:
        refusal, _ = await refused(stub.Chat(chat(), timeout=10))

        assert refusal.reason is Reason.OUT_OF_TIME
        assert refusal.receipt is not None
        assert house.audit.outcomes == ["OUT_OF_TIME"]
        assert house.inference.running == 0


async def test_hopeless_work_is_refused_at_the_door(start) -> None:
    async with start(reply_reserve_ms=60_000) as house, house.caller() as stub:
        refusal, _ = await refused(stub.Chat(chat(), timeout=30))

        assert refusal.reason is Reason.OUT_OF_TIME
        assert house.journal.count("screen") == 0
        assert [event.phase for event in house.audit.events] == [Phase.OUTCOME]


async def test_a_stream_ends_with_its_certificate(start) -> None:
    fakes = {"inference": {"endless": True, "token_s": 0.01}}
    async with start(fakes) as house, house.caller(life_s=3) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drain(streaming(stub, chat(parameters={"max_tokens": 4_000})))

        assert from_rpc_error(caught.value).reason is Reason.UNAUTHENTICATED
        assert house.audit.outcomes == ["UNAUTHENTICATED"]
        assert house.audit.events[-1].payload.released
        refusal, _ = await refused(stub.Chat(chat()))
        assert refusal.reason is Reason.UNAUTHENTICATED
        assert len(house.audit.of(Phase.INTENT)) == 1  # the second was turned away at the door


async def test_a_stream_that_outlives_its_life_is_ended(start) -> None:
    fakes = {"inference": {"endless": True, "token_s": 0.01}}
    async with start(fakes, stream_life_ms=300) as house, house.caller() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drain(streaming(stub, chat(parameters={"max_tokens": 4_000})))

        assert from_rpc_error(caught.value).reason is Reason.OUT_OF_TIME
        assert house.inference.running == 0


async def test_a_stream_that_overruns_the_token_limit_is_cut(start) -> None:
    fakes = {"inference": {"endless": True}}
    limits = {"user_tokens_per_s": 0.01, "user_tokens_burst": 100}
    rest = {"expected_tokens": 20, "extend_tokens": 10}
    async with start(fakes, limits=limits, **rest) as house, house.caller() as stub:
        request = chat("over and over", parameters={"max_tokens": 4_000})
        text, final = await drain(streaming(stub, request))

        assert final.finish_reason == FINISH_REASON_LIMITED
        assert 80 < len(text.split()) <= 100
        assert house.audit.outcomes == ["released"]
        assert (house.cache.answers, house.cache.leases) == ({}, set())
        refusal, error = await refused(stub.Chat(request))
        assert refusal.reason is Reason.LIMITED
        assert refusal.retry_after_ms > 1_000
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# --- the door ----------------------------------------------------------------------------------


async def test_a_workload_without_a_role_is_denied_and_recorded_once(start) -> None:
    async with start() as house, house.caller(STRANGER) as stub:
        refusal, error = await refused(stub.Chat(chat()))

        assert refusal.reason is Reason.DENIED
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        (outcome,) = house.audit.events
        assert (outcome.phase, outcome.outcome) == (Phase.OUTCOME, "DENIED")
        assert outcome.authorization_policy_digest == house.pipeline.door.authorizer.digest
        assert refusal.receipt.index == 0
        assert house.journal.count("screen") == 0


@pytest.mark.parametrize("method", ["Chat", "ListModels"])
async def test_a_service_of_ours_is_no_caller(start, method) -> None:
    async with start() as house, house.caller("spiffe://sealgate.local/service/cache") as stub:
        request = chat() if method == "Chat" else pb.ListModelsRequest()
        refusal, _ = await refused(getattr(stub, method)(request))

        assert refusal.reason is Reason.DENIED
        (note,) = house.audit.events
        assert (note.phase, note.outcome) == (Phase.NOTE, "DENIED")


async def test_an_unknown_model_is_not_found_and_not_named_in_the_record(start) -> None:
    async with start() as house, house.caller() as stub:
        refusal, error = await refused(stub.Chat(chat(model="canary-model")))

        assert refusal.reason is Reason.NOT_FOUND
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert "canary" not in repr(house.audit.events)
        assert house.audit.outcomes == ["NOT_FOUND"]


async def test_who_may_not_ask_is_not_told_what_exists(start) -> None:
    async with start() as house, house.caller(STRANGER) as stub:
        refusal, _ = await refused(stub.Chat(chat(model="no-such")))

        assert refusal.reason is Reason.DENIED


async def test_requests_over_the_limit_are_told_when_to_come_back(start) -> None:
    limits = {"tenant_requests_per_s": 0.005, "tenant_requests_burst": 2}
    async with start(limits=limits) as house, house.caller() as stub:
        await stub.Chat(chat())
        await stub.Chat(chat())
        refusal, error = await refused(stub.Chat(chat()))

        assert refusal.reason is Reason.LIMITED
        assert 100_000 < refusal.retry_after_ms <= 200_001
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with house.caller(OTHER) as other:
            assert (await other.Chat(chat())).text


async def test_lists_of_models_are_limited_too_or_they_would_fill_the_log(start) -> None:
    limits = {"user_requests_per_s": 0.005, "user_requests_burst": 2}
    async with start(limits=limits) as house, house.caller() as stub:
        await stub.ListModels(pb.ListModelsRequest())
        await stub.Chat(chat())
        refusal, _ = await refused(stub.ListModels(pb.ListModelsRequest()))

        assert refusal.reason is Reason.LIMITED
        assert 100_000 < refusal.retry_after_ms <= 200_001
        assert house.audit.outcomes == ["released", "released", "LIMITED"]


async def test_a_denied_call_gives_its_tokens_back(start) -> None:
    limits = {"tenant_tokens_per_s": 0.001, "tenant_tokens_burst": 400}
    async with start(limits=limits) as house, house.caller(STRANGER) as stub:
        for _ in range(5):
            refusal, _ = await refused(stub.Chat(chat()))
            assert refusal.reason is Reason.DENIED
        assert house.audit.outcomes == ["DENIED"] * 5


async def test_a_flood_of_refusals_is_counted_not_recorded(start) -> None:
    async with start() as house, house.caller(STRANGER) as stub:
        touched = house.seconds_of_refusals()
        calls = [refused(stub.Chat(chat())) for _ in range(60)]
        told = [refusal for refusal, _ in await asyncio.gather(*calls)]
        singly_max = 10 * len(touched)
        assert {refusal.reason for refusal in told} == {Reason.DENIED}
        with_receipt = sum(refusal.receipt is not None for refusal in told)
        # The count of a second comes by itself, once the second is over.
        await until(lambda: house.audit.of(Phase.NOTE))

    singly = house.audit.outcomes.count("DENIED")
    notes = [dict(e.detail) for e in house.audit.of(Phase.NOTE)]
    assert with_receipt == singly
    assert singly + sum(int(note["count"]) for note in notes) == 60
    assert 10 <= singly <= singly_max


async def test_too_many_at_once_are_turned_away(start) -> None:
    async with start(in_flight_max=3) as house, house.caller() as stub:
        house.inference.hold = asyncio.Event()
        calls = [stub.Chat(chat(f"call {n}")) for n in range(8)]
        await until(lambda: sum(call.done() for call in calls) == 5)
        house.inference.hold.set()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        reasons = [from_rpc_error(e).reason for e in ends if isinstance(e, grpc.aio.AioRpcError)]

        assert set(reasons) == {Reason.OVERLOADED}
        assert len(reasons) == 5


async def test_a_drain_lets_calls_finish_and_loses_none(start) -> None:
    fakes = {"inference": {"token_s": 0.01}}
    calls = []
    async with start(fakes) as house:
        caller = house.caller()
        stub = await caller.__aenter__()
        calls = [asyncio.ensure_future(stub.Chat(chat(f"{LONG} {n}"))) for n in range(12)]
        house.inference.hold = asyncio.Event()
        await until(lambda: house.inference.running == 12)
        house.inference.hold.set()
    # Here the gateway has drained.
    replies = await asyncio.gather(*calls)
    assert len({reply.receipt.index for reply in replies}) == 12
    assert house.audit.outcomes == ["released"] * 12
    await caller.__aexit__(None, None, None)


async def test_limits_are_settled_by_what_was_really_used(start) -> None:
    """Each call reserves 260 tokens and uses 10; a second one would not fit without settling."""
    limits = {"user_tokens_per_s": 0.001, "user_tokens_burst": 400}
    async with start(limits=limits) as house, house.caller() as stub:
        for n in range(10):
            await stub.Chat(chat(f"call {n}"))

        assert house.audit.outcomes == ["released"] * 10


async def test_a_cancelled_call_is_settled_too(start) -> None:
    limits = {"user_tokens_per_s": 0.001, "user_tokens_burst": 400}
    fakes = {"inference": {"endless": True, "token_s": 0.01}}
    async with start(fakes, limits=limits) as house, house.caller() as stub:
        for _ in range(3):
            stream = streaming(stub, chat(parameters={"max_tokens": 4_000}))
            await stream.read()
            stream.cancel()
            await house.at_rest()

        assert house.audit.outcomes == ["CANCELLED"] * 3


@asynccontextmanager
async def relay(port, *, wait_s=0.0):
    """A TCP hop that can be cut: `cut()` resets every connection through it.

    wait_s: how long a connection waits before a byte goes on.
    """
    transports = []

    async def through(reader, writer):
        await asyncio.sleep(wait_s)
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", port)
        transports.extend([writer.transport, onward.transport])

        async def pump(source, sink):
            with suppress(OSError):
                while data := await source.read(65_536):
                    sink.write(data)

        await asyncio.gather(pump(reader, onward), pump(onward_reader, writer))

    def cut():
        for transport in transports:
            transport.abort()

    server = await asyncio.start_server(through, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], cut


async def test_calls_of_a_connection_that_dies_are_recorded_and_stop(start) -> None:
    fakes = {"inference": {"endless": True, "token_s": 0.0005}}
    async with start(fakes) as house, relay(house.port) as (house.port, cut):
        async with house.caller() as stub:
            request = chat(parameters={"max_tokens": 4_000})
            streams = [streaming(stub, request) for _ in range(6)]
            for stream in streams:
                await stream.read()
            cut()
            await house.at_rest()

        assert house.audit.outcomes == ["CANCELLED"] * 6
        assert house.inference.running == 0
        assert house.pipeline.in_flight == 0


async def test_a_caller_that_does_not_read_is_ended_with_its_stream_s_life(start) -> None:
    fakes = {"inference": {"endless": True, "token_s": 0.0005}}
    settings = {"stream_life_ms": 1_500, "expected_tokens": 4_096}
    async with start(fakes, **settings) as house, house.caller() as stub:
        request = chat("x" * 20_000 + " y", parameters={"max_tokens": 4_096})
        stream = streaming(stub, request)
        await until(lambda: house.audit.outcomes)
        await house.at_rest()

        assert house.audit.outcomes == ["OUT_OF_TIME"]
        assert house.inference.running == 0
        assert house.pipeline.in_flight == 0
        stream.cancel()
        assert (await stub.Chat(chat())).text  # the connection is as good as before


async def test_a_model_that_refuses_at_once_costs_no_tokens(start) -> None:
    limits = {"user_tokens_per_s": 0.001, "user_tokens_burst": 400}
    fakes = {"inference": {"dies_after": 0}}
    async with start(fakes, limits=limits) as house, house.caller() as stub:
        for n in range(4):
            refusal, _ = await refused(stub.Chat(chat("x" * 300 + str(n))))
            assert refusal.reason is Reason.INFERENCE_DOWN
