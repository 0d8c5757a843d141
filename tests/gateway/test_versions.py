"""Several versions of one model: cache, record and engine are told of one digest."""

from dataclasses import replace

from meshkit.contract import ModelInfo, Reason
from sealgate.v1 import gateway_pb2 as pb
from tests.fakes import MODEL, TEMPLATE_DIGEST
from tests.gateway.conftest import chat
from tests.gateway.test_failures import refused

OLD, NEW = b"1" * 32, b"2" * 32
KEY = b"k" * 16
INFOS = tuple(
    ModelInfo(
        name=MODEL,
        digest=digest,
        context_tokens=4_096,
        licence="CC0-1.0",
        template_digest=TEMPLATE_DIGEST,
        version=version,
        state=state,
        share=share,
        split_key=KEY,
    )
    for digest, version, state, share in (
        (NEW, "2", "canary", 4_000),
        (OLD, "1", "live", 6_000),
    )
)


def versioned(house, infos=INFOS):
    """Have inference list these; return the digests that it is asked for."""
    asked, real = [], house.inference.generate

    async def models():
        return infos

    def generate(*args, digest=b"", **rest):
        asked.append(digest)
        return real(*args, **rest)

    house.inference.models, house.inference.generate = models, generate
    return asked


async def test_one_digest_from_the_door_to_the_engine(start) -> None:
    async with start() as house, house.caller() as stub:
        asked, questions, real = versioned(house), [], house.cache.get

        async def get(question):
            questions.append(question.model_digest)
            return await real(question)

        house.cache.get = get
        for n in range(24):
            await stub.Chat(chat(f"hello {n}", session=f"s{n}"))

        recorded = [event.model_digest for event in house.audit.events]
        assert set(asked) == {OLD, NEW}
        assert questions == asked
        assert recorded == [digest for digest in asked for _ in ("INTENT", "OUTCOME")]


async def test_a_conversation_has_one_version_through_all_its_turns(start) -> None:
    async with start() as house, house.caller() as stub:
        asked = versioned(house)
        for n in range(12):
            await stub.Chat(chat(f"turn {n}", session="one"))

        assert len(set(asked)) == 1


async def test_callers_see_a_model_once_and_it_is_the_live_version(start) -> None:
    async with start() as house, house.caller() as stub:
        versioned(house)
        (model,) = (await stub.ListModels(pb.ListModelsRequest())).models

        assert (model.digest, model.version, model.state) == (OLD, "1", "live")


async def test_a_version_that_is_gone_is_a_call_to_be_sent_again(start) -> None:
    async with start() as house, house.caller() as stub:
        versioned(house, (replace(INFOS[1], share=10_000),))
        house.inference.down = True
        refusal, _ = await refused(stub.Chat(chat()))

        assert refusal.reason is Reason.INFERENCE_DOWN
        assert {event.model_digest for event in house.audit.events} == {OLD}
