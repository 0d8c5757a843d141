"""An engine is asked before callers ask it, and whether it says the same twice is known."""

import pytest

from inference.engines.null import NullEngine
from inference.store.warm import Remembered, warm
from meshkit.contract import Embedded, Ended, FinishReason, Generated, Reason, Refusal, Usage


class Odd(NullEngine):
    """Answers as told, call by call."""

    def __init__(self, *answers: str) -> None:
        super().__init__("x")
        self.answers = list(answers)

    async def generate(self, messages, parameters, **_):
        del messages, parameters
        answer = self.answers.pop(0)
        if not answer:
            raise Refusal(Reason.INFERENCE_DOWN)
        yield Generated(answer, 1)
        usage = Usage(prompt_tokens=1, completion_tokens=1)
        yield Ended(finish_reason=FinishReason.STOP, usage=usage)


class Embeds:
    def __init__(self, drift: float = 0.0, texts_max: int = 3) -> None:
        self.texts_max = texts_max
        self.info = NullEngine("x").info
        self.drift, self.calls = drift, 0

    async def embed(self, texts):
        self.calls += 1
        if len(texts) > self.texts_max:
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        vectors = tuple((1.0, len(text) + self.drift * self.calls) for text in texts)
        return Embedded(vectors, Usage())


@pytest.mark.parametrize(
    ("answers", "repeats", "in_a_batch"),
    [
        ("aa.a.", True, True),
        ("ab.a.", False, True),
        ("aa.b.", True, False),
        ("ab.c.", False, False),
    ],
)
async def test_answers_that_differ_are_told_apart(answers, repeats, in_a_batch) -> None:
    report = await warm(Odd(*answers))

    assert (report.repeats, report.in_a_batch) == (repeats, in_a_batch)
    assert report.deterministic is (repeats and in_a_batch)
    assert report.tokens == 1


async def test_an_engine_that_cannot_answer_is_not_warm() -> None:
    with pytest.raises(Refusal):
        await warm(Odd("a", ""))


async def test_what_it_answered_last_time_is_remembered(tmp_path) -> None:
    state = Remembered(tmp_path / "warm")

    assert (await warm(NullEngine("one"), state=state)).as_before is None
    again = await warm(NullEngine("one"), state=state)
    assert again.as_before is True
    (file,) = state.folder.iterdir()
    assert file.stem == NullEngine("one").info.digest.hex()
    assert state.compared(NullEngine("one").info.digest, b"other") is False
    file.write_text("{")
    assert (await warm(NullEngine("one"), state=state)).as_before is None
    assert (await warm(NullEngine("one"), state=state)).as_before is True


async def test_embeddings_are_compared_too() -> None:
    assert (await warm(Embeds())).deterministic
    assert not (await warm(Embeds(drift=0.5))).deterministic
    assert (await warm(Embeds(texts_max=1))).repeats


async def test_the_real_model_answers_alone_as_in_a_batch(smollm) -> None:
    engine = smollm.service.desk.engines[next(iter(smollm.service.desk.engines))]
    report = await warm(engine)

    assert report.deterministic
    assert report.tokens == 8
