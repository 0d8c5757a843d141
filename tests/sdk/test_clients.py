"""Both clients against a gateway on a real socket, over mutual TLS."""

import asyncio
import os
import subprocess
import sys

import pytest

import sealgate
from meshkit.contract import Reason, Receipt, Refusal
from sealgate import (
    AsyncClient,
    BrokenStreamError,
    Client,
    FinishReason,
    InvalidRequestError,
    LimitedError,
    Message,
    OutOfTimeError,
    ReceiptError,
    Role,
    SealgateError,
    UnavailableError,
    errors,
)
from sealgate._shape import Tries

CANARY = "canary-ada"


async def drained(stream):
    return [piece async for piece in stream]


async def asked(client, way, prompt):
    """Ask in one of the two ways; return all of the answer."""
    if way == "chat":
        return (await client.chat(prompt, model="echo")).text
    return "".join(await drained(client.stream(prompt, model="echo")))


async def test_a_chat_comes_back_whole_with_a_receipt_that_holds(connect, signer):
    result = await connect(vkey=signer.vkey).chat("hello there", model="echo")
    assert result.text == "hello there"
    assert result.finish_reason is FinishReason.STOP
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (3, 5)
    assert result.cache_tier == "l1"
    assert result.screening.policy_digest == b"p" * 32
    (found,) = result.screening.counts
    assert (found.type, found.action, found.count) == ("EMAIL", "mask", 2)
    assert result.receipt.index == 41


async def test_a_stream_yields_text_and_then_has_a_result(connect, signer):
    stream = connect(vkey=signer.vkey).stream("one two three", model="echo")
    with pytest.raises(BrokenStreamError):
        _ = stream.result
    assert await drained(stream) == ["one", "two", "three"]
    assert stream.text == stream.result.text == "onetwothree"
    assert stream.result.receipt is not None
    assert await drained(stream) == []


async def test_all_that_is_asked_for_arrives(connect, gateway):
    client = connect(token="a.b.c")
    await client.chat(
        [Message(Role.SYSTEM, "be brief"), {"role": "user", "content": "hi"}],
        model="echo",
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        seed=0,
        stop=["\n"],
        session="s-1",
        no_cache=True,
        purpose="research",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        timeout_s=50,
    )
    ((request, context),) = gateway.seen
    assert [(m.role, m.content) for m in request.messages] == [(1, "be brief"), (2, "hi")]
    sampling = request.parameters
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (7, 0.5, 0.9)
    assert sampling.HasField("seed")
    assert (list(sampling.stop), request.session, request.no_cache) == (["\n"], "s-1", True)
    assert context.header("authorization") == "Bearer a.b.c"
    assert context.header("sealgate-purpose") == "research"
    assert context.trace.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert context.deadline.remaining_s <= 50


async def test_models_are_listed(connect):
    (model,) = await connect().models()
    assert (model.name, model.context_tokens) == ("echo", 2_048)


FAMILIES = {
    Reason.INVALID_FIELD: errors.InvalidRequestError,
    Reason.NOT_FOUND: errors.NotFoundError,
    Reason.UNAUTHENTICATED: errors.UnauthenticatedError,
    Reason.DENIED: errors.DeniedError,
    Reason.BLOCKED: errors.BlockedError,
    Reason.LIMITED: errors.LimitedError,
    Reason.OVERLOADED: errors.OverloadedError,
    Reason.OUT_OF_TIME: errors.OutOfTimeError,
    Reason.CANCELLED: errors.CallCancelledError,
    Reason.COMPLIANCE_DOWN: errors.UnavailableError,
    Reason.CACHE_DOWN: errors.UnavailableError,
    Reason.INFERENCE_DOWN: errors.UnavailableError,
    Reason.AUDIT_DOWN: errors.UnavailableError,
    Reason.KEYS_DOWN: errors.UnavailableError,
    Reason.CONFLICT: errors.ConflictError,
    Reason.EVIDENCE_LOST: errors.EvidenceLostError,
    Reason.HELD: errors.HeldError,
    Reason.WRONG_STATE: errors.WrongStateError,
    Reason.INTERNAL: errors.InternalError,
}


async def test_every_reason_arrives_as_its_exception(connect, gateway, signer):
    client = connect()
    receipt = signer.receipt([Message(Role.USER, "x")], "")
    assert set(FAMILIES) == set(Reason)
    for reason, family in FAMILIES.items():
        for way in ("chat", "stream"):
            refusal = Refusal(reason, field="top_p", retry_after_ms=250)
            refusal.receipt = receipt
            gateway.refusals.append(refusal)
            with pytest.raises(SealgateError) as caught:
                await asked(client, way, CANARY)
            error = caught.value
            assert type(error) is family
            assert (error.reason, error.field, error.retry_after_ms) == (reason, "top_p", 250)
            assert error.receipt == receipt
            assert "canary" not in str(error)


async def test_models_fail_typed_too(connect, gateway):
    gateway.refusals.append(Refusal(Reason.DENIED))
    with pytest.raises(errors.DeniedError):
        await connect().models()


async def test_nobody_there_is_unavailable_without_a_reason(tls):
    async with AsyncClient("localhost:1", tls=tls) as client:
        with pytest.raises(UnavailableError) as caught:
            await client.chat("x", model="echo")
    assert caught.value.reason is None
    with Client("localhost:1", tls=tls) as client, pytest.raises(UnavailableError):
        client.models()


async def test_the_clients_own_deadline(connect, gateway):
    gateway.pause_s = 5
    with pytest.raises(OutOfTimeError):
        await connect(timeout_s=0.2).chat("x", model="echo")
    with pytest.raises(OutOfTimeError):
        await drained(connect().stream("x", model="echo", timeout_s=0.2))


@pytest.mark.parametrize(("tamper", "step"), [(" and more", 6)])
async def test_an_answer_that_is_not_the_recorded_one_is_found_out(
    connect, gateway, signer, tamper, step
):
    gateway.tamper = tamper
    client = connect(vkey=signer.vkey)
    with pytest.raises(ReceiptError) as caught:
        await client.chat("hello", model="echo")
    assert caught.value.step == step
    stream = client.stream("hello", model="echo")
    with pytest.raises(ReceiptError):
        await drained(stream)
    with pytest.raises(BrokenStreamError):
        _ = stream.result


async def test_an_answer_without_a_receipt_is_found_out_if_one_is_demanded(
    connect, gateway, signer
):
    gateway.unsigned = True
    with pytest.raises(ReceiptError) as caught:
        await connect(vkey=signer.vkey).chat("hello", model="echo")
    assert caught.value.step == 0
    assert (await connect().chat("hello", model="echo")).receipt is None


async def test_a_stream_that_just_ends_is_broken(connect, gateway):
    gateway.unended = True
    stream = connect().stream("one two", model="echo")
    with pytest.raises(BrokenStreamError):
        await drained(stream)
    assert stream.text == "onetwo"


async def test_a_refusal_midway_keeps_what_came_before(connect, gateway):
    gateway.refuse_midway = Refusal(Reason.COMPLIANCE_DOWN)
    stream = connect(retries=5).stream("one two", model="echo")
    with pytest.raises(UnavailableError) as caught:
        await drained(stream)
    assert caught.value.reason is Reason.COMPLIANCE_DOWN
    assert stream.text == "onetwo"
    assert len(gateway.seen) == 1


async def test_the_final_frame_is_the_last_word(connect, gateway, signer):
    gateway.refuse_after_all = Refusal(Reason.INTERNAL)
    stream = connect(vkey=signer.vkey).stream("one two", model="echo")
    assert await drained(stream) == ["one", "two"]
    assert stream.result.text == "onetwo"


async def test_closing_a_stream_cancels_the_call(connect, gateway):
    gateway.pause_s = 0.05
    stream = connect().stream("word " * 500, model="echo")
    assert await anext(stream) == "word"
    await stream.aclose()
    assert await asyncio.to_thread(gateway.closed.wait, 20)  # by itself it would end after 25 s
    assert await drained(stream) == []


async def test_a_cancelled_task_cancels_its_call(port, tls, gateway):
    gateway.pause_s = 0.05
    async with AsyncClient(f"localhost:{port}", tls=tls) as client:
        task = asyncio.create_task(drained(client.stream("word " * 500, model="echo")))
        assert await asyncio.to_thread(gateway.asked.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gateway.closed.wait, 20)


async def test_no_call_is_made_again_unless_asked_for(connect, gateway):
    gateway.refusals += [Refusal(Reason.LIMITED, retry_after_ms=10)]
    with pytest.raises(LimitedError):
        await connect().chat("x", model="echo")
    assert len(gateway.seen) == 1


@pytest.mark.parametrize("way", ["chat", "stream"])
async def test_a_call_is_made_again_as_often_as_asked_for(connect, gateway, way):
    client = connect(retries=2)
    gateway.refusals += [
        Refusal(Reason.LIMITED, retry_after_ms=10),
        Refusal(Reason.INFERENCE_DOWN),
    ]
    assert await asked(client, way, "x") == "x"
    assert len(gateway.seen) == 3
    gateway.refusals += [Refusal(Reason.LIMITED, retry_after_ms=10)] * 3
    with pytest.raises(LimitedError):
        await client.chat("x", model="echo")
    assert len(gateway.seen) == 6


async def test_a_stream_that_is_closed_while_it_waits_is_not_asked_for_again(
    connect, gateway, monkeypatch
):
    stream = connect(retries=1).stream("x", model="echo")
    closing = []

    def closed_meanwhile(_tries, _failure, *, begun):
        if isinstance(stream, sealgate.AsyncStream):
            closing.append(asyncio.create_task(stream.aclose()))
        else:
            stream.stream.close()
        return 0.0

    monkeypatch.setattr(Tries, "after", closed_meanwhile)
    gateway.refusals.append(Refusal(Reason.LIMITED, retry_after_ms=1))
    assert await drained(stream) == []
    assert len(gateway.seen) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(Reason.BLOCKED, retry_after_ms=1),
        Refusal(Reason.INTERNAL),
        Refusal(Reason.LIMITED, retry_after_ms=60_000),
    ],
)
async def test_what_no_other_try_can_help_is_not_tried_again(connect, gateway, refusal):
    gateway.refusals.append(refusal)
    with pytest.raises(SealgateError):
        await connect(retries=5).chat("x", model="echo")
    assert len(gateway.seen) == 1


@pytest.mark.parametrize(
    "messages",
    [[{"role": "robot", "content": CANARY}], [{"role": "user"}], f"{CANARY} \ud800"],
)
async def test_what_is_no_conversation_is_refused_before_it_is_sent(connect, gateway, messages):
    with pytest.raises(InvalidRequestError) as caught:
        await connect().chat(messages, model="echo")
    assert "canary" not in str(caught.value)
    assert not gateway.seen


@pytest.mark.parametrize("given", [{}, {"ca": b"x"}, {"tls": ".", "ca": b"x"}])
def test_a_client_without_certificates_is_a_type_error(given):
    with pytest.raises(TypeError, match="tls=FOLDER"):
        Client("localhost:1", **given)


async def test_an_unknown_option_is_a_type_error(connect):
    with pytest.raises(TypeError, match="max_token"):
        await connect().chat("x", model="echo", max_token=5)


async def test_another_cas_gateway_is_not_spoken_to(port, tls, ca):
    stranger = type(ca)()
    files = {"cert": tls / "client.pem", "key": tls / "client.key"}
    async with AsyncClient(f"localhost:{port}", ca=stranger.pem, **files) as client:
        with pytest.raises(UnavailableError):
            await client.chat("x", model="echo", timeout_s=5)


def test_importing_the_sdk_loads_no_service_and_sets_no_variable():
    program = (
        "import os; before = dict(os.environ)\n"
        "import sealgate, sys\n"
        "sealgate.AsyncClient, sealgate.Client, sealgate.AsyncAuditReader\n"
        "assert dict(os.environ) == before\n"
        "bad = {'gateway', 'audit', 'cache', 'compliance', 'inference', 'appliance', 'pydantic',\n"
        "       'structlog', 'opentelemetry', 'meshkit.tls_floor', 'meshkit.server'}\n"
        "assert not bad & sys.modules.keys(), bad & sys.modules.keys()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_SSL_CIPHER_SUITES"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)


def test_every_public_name_can_be_had():
    assert all(getattr(sealgate, name) is not None for name in sealgate.__all__)
    assert sealgate.Receipt is Receipt
    with pytest.raises(AttributeError):
        _ = sealgate.nothing
