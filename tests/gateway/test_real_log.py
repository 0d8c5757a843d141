"""What the gateway tells, the real log takes; what the log signs, the caller can check."""

from __future__ import annotations

import asyncio
import json

import pytest

from meshkit.contract import Message, Phase, Reason, Role, answer_bytes
from meshkit.tlog import check_receipt, commit
from meshkit.wire import receipt_from_wire
from sealgate.v1 import gateway_pb2 as pb
from tests.audit.world import World
from tests.gateway.conftest import OTHER, PATIENCE_S, STRANGER, chat
from tests.gateway.test_failures import refused, streaming
from tests.gateway.test_path import streamed


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def said(text):
    return [Message(Role.USER, text)]


async def leaves(audit, call_id, tenant="demo"):
    records = await audit.records(tenant, call_id=call_id)
    return [(record.phase, json.loads(record.leaf)["event"]) for record in records]


async def indexed(audit, call_id, *, count, tenant="demo"):
    """Wait until the index, which follows the log, has caught up with a call."""
    async with asyncio.timeout(PATIENCE_S):
        while len(found := await leaves(audit, call_id, tenant)) != count:
            await asyncio.sleep(0.05)
    return found


async def test_a_receipt_opens_the_commitments_of_the_record_it_names(start, world) -> None:
    async with world.open() as audit, start(audit=audit) as house, house.caller() as stub:
        reply = await stub.Chat(chat("hello secret world"))
        deltas, final = await streamed(stub, chat("hello again"))
        receipts = [
            (receipt_from_wire(reply.receipt), "hello secret world", reply.text),
            (receipt_from_wire(final.receipt), "hello again", "".join(deltas)),
        ]

        for receipt, prompt, answer in receipts:
            check_receipt(receipt, world.vkey, messages=said(prompt), answer=answer)
            (_, intent), (_, outcome) = await indexed(audit, receipt.call_id, count=2)
            committed = outcome["commitments"]
            assert committed["answer_delivered"] == receipt.answer_commitment.hex()
            assert committed["answer_delivered"] != committed["answer_released"]
            assert intent["commitments"]["prompt_received"] == receipt.prompt_commitment.hex()
            assert commit(receipt.answer_salt, answer_bytes(answer)) == receipt.answer_commitment


async def test_every_way_a_call_can_end_is_an_event_that_the_log_takes(start, world) -> None:
    fakes = {"inference": {"token_s": 0.002}}
    async with world.open() as audit, start(fakes, audit=audit) as house, house.caller() as stub:
        async with house.caller(STRANGER) as stranger, house.caller(OTHER) as other:
            told = {
                Reason.BLOCKED: stub.Chat(chat("a forbidden word")),
                Reason.NOT_FOUND: stub.Chat(chat(model="no/such model")),
                Reason.INVALID_FIELD: stub.Chat(chat("")),
                Reason.UNAUTHENTICATED: stub.Chat(chat(), metadata=(("authorization", "x"),)),
                Reason.DENIED: stranger.Chat(chat()),
            }
            for reason, call in told.items():
                refusal, _ = await refused(call)
                assert refusal.reason is reason
                check_receipt(refusal.receipt, world.vkey)
                *_, (phase, outcome) = await indexed(
                    audit, refusal.receipt.call_id, count=2 if reason is Reason.BLOCKED else 1
                )
                assert (phase, outcome["outcome"]) == (Phase.OUTCOME, reason.name)
            listed = await stub.ListModels(pb.ListModelsRequest())
            assert (await other.Chat(chat())).text == "HELLO BIG WORLD"
        assert len(listed.models) == 1

        house.inference.endless = True
        stream = streaming(stub, chat(parameters={"max_tokens": 4_000}))
        await stream.read()
        stream.cancel()
        _, (_, outcome) = await indexed(audit, house.inference.calls[-1], count=2)
        assert (outcome["outcome"], outcome["finish_reason"]) == ("CANCELLED", "cancelled")


async def test_a_flood_leaves_its_count_in_the_log(start, world) -> None:
    async with world.open() as audit:
        async with start(audit=audit) as house, house.caller(STRANGER) as stub:
            touched = house.seconds_of_refusals()
            told = await asyncio.gather(*[refused(stub.Chat(chat())) for _ in range(40)])
        before = audit.stats.durable

    singly = sum(refusal.receipt is not None for refusal, _ in told)
    assert 10 <= singly <= 10 * len(touched)
    assert singly < before <= singly + 2 + len(touched)  # its own start, a count for each second
