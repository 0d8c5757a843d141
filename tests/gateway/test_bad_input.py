"""Bad input is told by its field's name; nothing a person wrote appears anywhere else."""

from __future__ import annotations

import io

import grpc
import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshkit.contract import Phase, Reason
from meshkit.telemetry import Telemetry, telemetry
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1.common_pb2 import ROLE_ASSISTANT, ROLE_SYSTEM, ROLE_USER, Message, Parameters
from tests.gateway.conftest import STRANGER, chat
from tests.gateway.test_failures import refused, streaming

CANARY = "canary-4711"


def said(*contents, role=ROLE_USER):
    return [Message(role=role, content=content) for content in contents]


BAD = {
    "no model": ({"model": ""}, "model"),
    "long model": ({"model": CANARY * 20}, "model"),
    "NUL in model": ({"model": f"{CANARY}\0"}, "model"),
    "no messages": ({"messages": []}, "messages"),
    "too many messages": ({"messages": said(*[CANARY] * 257)}, "messages"),
    "empty message": ({"messages": said("")}, "messages.content"),
    "one message too long": ({"messages": said("x" * 262_145)}, "messages.content"),
    "all together too long": ({"messages": said(*["x" * 262_144] * 5)}, "messages"),
    "NUL in a message": ({"messages": said(f"{CANARY}\0")}, "messages.content"),
    "no role": ({"messages": said(CANARY, role=0)}, "role"),
    "unknown role": ({"messages": said(CANARY, role=9)}, "role"),
    "system last": ({"messages": said(CANARY, role=ROLE_SYSTEM)}, "messages.role"),
    "assistant last": ({"messages": said(CANARY, role=ROLE_ASSISTANT)}, "messages.role"),
    "session with a space": ({"session": f"{CANARY} 1"}, "session"),
    "long session": ({"session": "s" * 65}, "session"),
    "session in full width": ({"session": "ｓ"}, "session"),
    "max_tokens": ({"parameters": Parameters(max_tokens=4_097)}, "parameters.max_tokens"),
    "hot": ({"parameters": Parameters(temperature=2.1)}, "parameters.temperature"),
    "cold": ({"parameters": Parameters(temperature=-0.1)}, "parameters.temperature"),
    "NaN": ({"parameters": Parameters(temperature=float("nan"))}, "parameters.temperature"),
    "infinite": ({"parameters": Parameters(temperature=float("inf"))}, "parameters.temperature"),
    "top_p": ({"parameters": Parameters(top_p=1.1)}, "parameters.top_p"),
    "top_p NaN": ({"parameters": Parameters(top_p=float("nan"))}, "parameters.top_p"),
    "five stops": ({"parameters": Parameters(stop=["a"] * 5)}, "parameters.stop"),
    "empty stop": ({"parameters": Parameters(stop=[""])}, "parameters.stop"),
    "long stop": ({"parameters": Parameters(stop=["é" * 33])}, "parameters.stop"),
}


@pytest.mark.parametrize(("given", "field"), BAD.values(), ids=BAD)
async def test_a_field_out_of_its_range_is_named_and_its_value_is_not(start, given, field) -> None:
    async with start() as house, house.caller() as stub:
        refusal, error = await refused(stub.Chat(chat(**given)))

        assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, field)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.receipt is not None
        assert CANARY not in repr(error) + repr(house.audit.events)
        assert house.audit.outcomes == ["INVALID_FIELD"]
        refusal, _ = await refused(streaming(stub, chat(**given)).read())
        assert refusal.field == field


@pytest.mark.parametrize("purpose", ["Billing", "two words", "-billing", "x" * 65])
async def test_a_purpose_is_a_label(start, purpose) -> None:
    async with start() as house, house.caller() as stub:
        refusal, _ = await refused(stub.Chat(chat(), metadata=(("sealgate-purpose", purpose),)))
        assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "purpose")

        await stub.Chat(chat(), metadata=(("sealgate-purpose", "claims-handling"),))
        assert house.audit.events[-1].purpose == "claims-handling"


async def raw_call(house, raw):
    """Send bytes that no stub would."""
    async with house.raw_caller() as channel:
        return await refused(
            channel.unary_unary("/sealgate.v1.GatewayService/Chat")(raw, timeout=5)
        )


async def test_text_that_is_not_utf8_is_named(start) -> None:
    good = chat("AAAAAAAA").SerializeToString()
    async with start() as house:
        refusal, error = await raw_call(house, good.replace(b"AAAAAAAA", b"\xff\xfeAAAAAA"))

        assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "messages.content")
        assert "xff" not in repr(error)


async def test_bytes_that_are_no_message_are_refused(start) -> None:
    async with start() as house:
        refusal, _ = await raw_call(house, b"\xff\xff\xff\xff")

        assert refusal.reason is Reason.INVALID_FIELD


async def test_a_message_beyond_the_servers_limit_is_not_read(start) -> None:
    async with start() as house, house.caller() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Chat(chat("x" * 3_000_000))

        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert house.audit.events == []


async def test_the_widest_request_that_is_allowed_is_served(start) -> None:
    widest = {
        "messages": [*said(*["a" * 262_144] * 3, role=ROLE_SYSTEM), *said("b" * 262_144)],
        "session": "S" * 64,
        "parameters": Parameters(
            max_tokens=4_096, temperature=2, top_p=1, seed=2**64 - 1, stop=["x" * 64] * 4
        ),
    }
    async with start() as house, house.caller() as stub:
        reply = await stub.Chat(chat(**widest))

        assert len(reply.text) == 262_144


# --- traces and canaries -----------------------------------------------------------------------


async def test_one_trace_leads_from_the_caller_through_every_step_to_the_record(start) -> None:
    exporter, trace = InMemorySpanExporter(), "0af7651916cd43dd8448eb211c80319c"
    settings = Telemetry(trace_sample_ratio=1.0, strict=True)
    async with (
        telemetry(settings, service="gateway", exporter=exporter),
        start() as house,
        house.caller() as stub,
    ):
        parent = (("traceparent", f"00-{trace}-b7ad6b7169203331-01"),)
        reply = await stub.Chat(chat(), metadata=parent)

    spans = exporter.get_finished_spans()
    (root,) = [span for span in spans if span.name == "/sealgate.v1.GatewayService/Chat"]
    steps = {span.name for span in spans if span.parent.span_id == root.context.span_id}
    assert {f"{span.context.trace_id:032x}" for span in spans} == {trace}
    assert steps == {
        *("authenticate", "read", "admit", "authorize", "screen", "cache.get", "intent"),
        *("generate", "cache.put", "outcome", "settle"),
    }
    assert root.attributes["sealgate.audit.index"] == reply.receipt.index
    assert root.attributes["sealgate.audit.origin"] == reply.receipt.origin
    assert root.attributes["sealgate.audit.leaf_hash"] == reply.receipt.leaf_hash.hex()
    assert {event.trace.trace_id.hex() for event in house.audit.events} == {trace}
    assert reply.receipt.trace_id.hex() == trace


async def test_a_trace_that_is_malformed_is_replaced(start) -> None:
    async with start() as house, house.caller() as stub:
        reply = await stub.Chat(chat(), metadata=(("traceparent", f"00-{CANARY}"),))

        assert len(reply.receipt.trace_id) == 16
        assert any(reply.receipt.trace_id)


async def test_no_text_of_a_user_is_in_any_span_log_or_error(start, capfd) -> None:
    """Whatever happens to it: answered, blocked, denied, malformed, broken, cancelled."""
    exporter, log = InMemorySpanExporter(), io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
    errors = []
    async with (
        telemetry(
            Telemetry(trace_sample_ratio=1.0, strict=True), service="gateway", exporter=exporter
        ),
        start() as house,
        house.caller() as stub,
        house.caller(STRANGER) as stranger,
    ):
        text = f"{CANARY} secret"
        await stub.Chat(chat(text, session=CANARY))
        calls = (
            stub.Chat(chat(f"{CANARY} forbidden")),
            stub.Chat(chat(text, model=CANARY)),
            stub.Chat(chat(f"{CANARY}\0")),
            stub.Chat(chat(text), metadata=(("authorization", f"Bearer {CANARY}"),)),
            stub.Chat(chat(text), metadata=(("sealgate-purpose", f"{CANARY}!"),)),
            stub.Chat(chat(text), metadata=(("tracestate", f"a={CANARY}"),), timeout=0.01),
            stranger.Chat(chat(text)),
        )
        errors += [(await refused(call))[1] for call in calls]

        async def broken(scope, messages):
            raise ValueError(messages[0].content)

        house.compliance.screen = broken
        errors.append((await refused(stub.Chat(chat(text))))[1])
    structlog.reset_defaults()
    out, err = capfd.readouterr()

    told = "".join(
        f"{error.code()}{error.details()}{error.trailing_metadata()}" for error in errors
    )
    spans = "".join(span.to_json() for span in exporter.get_finished_spans())
    leaves = repr([(e.action, e.outcome, e.model, e.purpose, e.detail) for e in house.audit.events])
    assert "rpc.bug" in log.getvalue()
    assert len(house.audit.of(Phase.OUTCOME)) >= 8
    for where in (told, spans, leaves, log.getvalue(), out, err):
        assert CANARY not in where


async def test_a_stream_of_a_request_that_holds_no_chat_is_refused(start) -> None:
    async with start() as house, house.caller() as stub:
        refusal, _ = await refused(stub.ChatStream(pb.ChatStreamRequest()).read())

        assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "model")
