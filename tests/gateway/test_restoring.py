"""Who gets values back, as the answer leaves: those whom Cedar allows, and the record says so."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from compliance.engine import Engine, expressions
from compliance.policy import parse_policy
from compliance.prefilter import HyperscanPrefilter
from compliance.recognizers import ALL
from compliance.scanner import Scanner
from compliance.service import ComplianceService
from meshkit.contract import Phase, Reason, Refusal, answer_bytes
from meshkit.screening_mac import MacKeys
from meshkit.status import from_rpc_error
from meshkit.tlog import commit
from meshkit.tokens import find_tokens
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1.common_pb2 import ACTION_REVEAL
from tests.gateway.conftest import ASSISTANT, OTHER, chat

MAIL = "ada@example.org"
PROMPT = f"please write to {MAIL} now"
ANSWER = f"PLEASE WRITE TO {MAIL} NOW"
CACHE = Path(__file__).parents[2] / "var" / "cache" / "compliance"
SCIENTIST = "spiffe://sealgate.local/tenant/demo/notebook"
POLICY = """
version: 1
name: tokens
default: {prompt: tokenise, answer: tokenise, threshold: 0.5}
"""


@pytest.fixture(scope="module")
def engine():
    return Engine(ALL, HyperscanPrefilter(expressions(ALL), CACHE))


@pytest.fixture
def compliance(engine):
    """The real one, patterns only, under a policy that tokenises everything."""
    keys = MacKeys({1: b"k" * 32}, 1)
    return ComplianceService(
        Scanner(engine, parse_policy(POLICY)),
        lambda: keys,
        memo_entries_max=100,
        text_chars_max=100_000,
    )


class Counting:
    """Tells how often and for what `reveal` was asked."""

    def __init__(self, compliance):
        self._compliance = compliance
        self.asked = []
        self.down = False

    async def reveal(self, scope, names):
        self.asked.append(tuple(names))
        if self.down:
            raise Refusal(Reason.COMPLIANCE_DOWN)
        return await self._compliance.reveal(scope, names)


@pytest.fixture
def counting(compliance):
    return Counting(compliance)


@pytest.fixture
def house(start, compliance, counting):
    real = {
        "screen": compliance.screen,
        "release": compliance.release,
        "reveal": counting.reveal,
    }
    return start(fakes={"compliance": real})


async def streamed(stub, request):
    frames = [f async for f in stub.ChatStream(pb.ChatStreamRequest(chat=request))]
    return [f.delta for f in frames[:-1]], frames[-1].final


def outcome_of(house):
    return house.audit.of(Phase.OUTCOME)[-1]


def deny(policies):
    rules = (policies / "base.cedar").read_text()
    forbid = 'forbid (principal, action == Sealgate::Action::"tokens.reveal", resource);'
    (policies / "base.cedar").write_text(f"{rules}\n{forbid}\n")


async def test_the_caller_gets_values_and_the_model_tokens(house, counting) -> None:
    async with house as running, running.caller() as stub:
        reply = await stub.Chat(chat(PROMPT, session="s"))

        assert reply.text == ANSWER
        (asked,) = running.inference.prompts
        assert MAIL not in asked[-1].content
        (token,) = find_tokens(asked[-1].content)
        assert counting.asked == [(token.name,)]


async def test_the_record_tells_what_was_revealed_and_keeps_tokens(house) -> None:
    async with house as running, running.caller() as stub:
        reply = await stub.Chat(chat(PROMPT, session="s"))
        outcome = outcome_of(running)

        revealed = [each for each in outcome.counts if each.action == "reveal"]
        assert [(each.type, each.count) for each in revealed] == [("EMAIL", 1)]
        assert outcome.actor.spiffe_id == ASSISTANT
        assert ACTION_REVEAL in {each.action for each in reply.screening.counts}
        assert MAIL not in outcome.payload.released
        assert find_tokens(outcome.payload.released)
        kept = answer_bytes(outcome.payload.released)
        assert commit(outcome.answer_released.salt, kept) == outcome.answer_released.value


async def test_the_receipt_opens_to_what_the_caller_got(house) -> None:
    async with house as running, running.caller() as stub:
        whole = await stub.Chat(chat(PROMPT, session="s"))
        deltas, final = await streamed(stub, chat(PROMPT, session="s"))

        for text, receipt in ((whole.text, whole.receipt), ("".join(deltas), final.receipt)):
            assert text == ANSWER
            opened = commit(receipt.answer_salt, answer_bytes(text))
            assert opened == receipt.answer_commitment


async def test_a_stream_never_shows_half_a_token(house) -> None:
    long = "\n\n".join(f"Line {n}, dear user{n}@example.org, of page {n}." for n in range(40))
    async with house as running, running.caller() as stub:
        running.inference.token_s = 0.001
        deltas, _ = await streamed(
            stub, chat(long, session="s", no_cache=True, parameters={"max_tokens": 2_000})
        )

        assert len(deltas) > 1
        assert not any("EMAIL" in delta or "[" in delta for delta in deltas)
        assert "".join(deltas) == "\n\n".join(
            f"LINE {n}, DEAR user{n}@example.org, OF PAGE {n}." for n in range(40)
        )


async def test_whom_cedar_denies_gets_tokens_and_nobody_is_asked(house, counting, policies) -> None:
    deny(policies)
    async with house as running, running.caller() as stub:
        whole = await stub.Chat(chat(PROMPT, session="s"))
        deltas, _ = await streamed(stub, chat(PROMPT, session="s", no_cache=True))

        assert whole.text == "".join(deltas)
        assert MAIL not in whole.text
        assert len(find_tokens(whole.text)) == 1
        assert counting.asked == []
        assert not [each for each in outcome_of(running).counts if each.action == "reveal"]
        got = answer_bytes(whole.text)
        assert commit(whole.receipt.answer_salt, got) == whole.receipt.answer_commitment


async def test_a_role_that_policy_does_not_name_gets_tokens(house, policies) -> None:
    entities = (policies / "entities.json").read_text()
    (policies / "entities.json").write_text(
        entities.replace("tenant/demo/auditor", "tenant/demo/notebook").replace(
            '"parents": [{"type": "Sealgate::Role", "id": "auditor"}]',
            '"parents": [{"type": "Sealgate::Role", "id": "data_scientist"}]',
        )
    )
    async with house as running:
        async with running.caller(SCIENTIST) as stub:
            seen = (await stub.Chat(chat(PROMPT, session="s"))).text
        async with running.caller() as stub:
            given = (await stub.Chat(chat(PROMPT, session="s"))).text

        assert find_tokens(seen)
        assert given == ANSWER


async def test_a_cached_answer_is_restored_for_this_caller(house, counting) -> None:
    async with house as running, running.caller() as stub:
        first = await stub.Chat(chat(PROMPT, session="s"))
        again = await stub.Chat(chat(PROMPT, session="s"))

        assert running.inference.calls == running.inference.calls[:1]
        assert first.text == again.text == ANSWER
        (kept,) = running.cache.answers.values()
        assert MAIL not in kept.text
        assert len(counting.asked) == 2


async def test_an_answer_with_tokens_of_its_own_is_not_kept_for_others(house) -> None:
    async with house as running, running.caller() as stub:
        running.inference.endless = False
        real = running.inference.generate

        def generate(scope, model, screened, parameters, *, digest=b""):
            changed = screened.messages[-1]
            said = type(changed)(changed.role, "bob@example.org it is")
            return real(
                scope, model, type(screened)(messages=(said,), verdict=screened.verdict,
                mac=screened.mac, mac_key_version=screened.mac_key_version), parameters,
            )  # fmt: skip

        running.inference.generate = generate
        reply = await stub.Chat(chat("who is it?", session="s"))

        assert reply.text == "BOB@EXAMPLE.ORG IT IS"
        assert running.cache.answers == {}
        assert running.cache.leases == set()


async def test_another_tenants_or_sessions_token_stays(house) -> None:
    async with house as running:
        async with running.caller() as stub:
            await stub.Chat(chat(PROMPT, session="s"))
            (token,) = find_tokens(outcome_of(running).payload.released)
            typed = f"who is [{token.name}]"
            same = await stub.Chat(chat(typed, session="s"))
            other = await stub.Chat(chat(typed, session="t"))
            none = await stub.Chat(chat(typed))
        async with running.caller(OTHER) as stub:
            stranger = await stub.Chat(chat(typed, session="s"))

        assert same.text == f"WHO IS {MAIL}"
        assert {other.text, none.text, stranger.text} == {f"WHO IS [{token.name}]"}


async def test_without_tokens_nobody_is_asked(house, counting) -> None:
    async with house as running, running.caller() as stub:
        text = "a person, [a list] and 3 phones"
        reply = await stub.Chat(chat(text, session="s"))
        deltas, _ = await streamed(stub, chat(text, session="s", no_cache=True))

        assert reply.text == "".join(deltas) == text.upper()
        assert counting.asked == []


async def test_values_that_cannot_be_looked_up_withhold_the_answer(house, counting) -> None:
    counting.down = True
    async with house as running, running.caller() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Chat(chat(PROMPT, session="s"))

        refusal = from_rpc_error(caught.value, down=Reason.INTERNAL)
        assert refusal.reason is Reason.COMPLIANCE_DOWN
        outcome = outcome_of(running)
        assert outcome.outcome == "COMPLIANCE_DOWN"
        assert outcome.answer_released is not None
        assert outcome.answer_delivered is None


async def test_a_stream_that_breaks_is_recorded_as_it_was_delivered(house, counting) -> None:
    async with house as running, running.caller() as stub:
        running.inference.token_s = 0.001
        counting.down = True
        call = stub.ChatStream(
            pb.ChatStreamRequest(chat=chat(f"{'many words, ' * 30}. {PROMPT}", session="s"))
        )
        got = ""
        with pytest.raises(grpc.aio.AioRpcError):  # noqa: PT012 -- it breaks on the way
            async for frame in call:
                got += frame.delta

        outcome = outcome_of(running)
        assert got
        assert "[" not in got
        assert commit(outcome.answer_delivered.salt, answer_bytes(got)) == (
            outcome.answer_delivered.value
        )


async def test_policies_that_changed_meanwhile_reveal_nothing(house, counting) -> None:
    async with house as running, running.caller() as stub:
        door = running.pipeline.door
        may = type(door).may_reveal
        digests = []

        def may_reveal(self, actor, arrival, call, digest):
            digests.append(digest)
            return may(self, actor, arrival, call, b"of another set".ljust(32))

        try:
            type(door).may_reveal = may_reveal
            reply = await stub.Chat(chat(PROMPT, session="s"))
        finally:
            type(door).may_reveal = may

        assert digests == [door.authorizer.digest]
        assert find_tokens(reply.text)
        assert counting.asked == []
