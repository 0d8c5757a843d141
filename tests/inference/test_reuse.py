"""Kept beginnings, guesses and a memory budget change no bit of an answer; no one else has them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.architecture import Architecture
from inference.engines.llama import Llama
from inference.engines.load import _on_cpu
from inference.engines.memory import kv_room
from inference.engines.request import Answer
from inference.engines.runner import BAD_LOGITS, CpuRunner
from inference.engines.slots import bytes_per_token
from inference.prefix import keys_of
from inference.registry import ModelFileError
from inference.scheduler import Scheduler, Terms
from inference.weights import Codes4, Codes8, Layer, Weights
from meshkit.contract import Ended, Parameters

ARCH = Architecture(
    layers=1, width=64, hidden=96, heads=4, kv_heads=2, head=16,
    vocabulary=96, context_tokens=256, rope_base=10_000.0, norm_epsilon=1e-5,
)  # fmt: skip
START, END = 1, 2
SLOTS, CHUNK, ROOM = 3, 48, 224
OPENING = [START, 4]


class Words:
    """A tokenizer whose tokens are numbers in brackets."""

    ends = frozenset({0, START, END})

    def raw(self, token: int) -> bytes:
        return b"<%d>" % token


def codes4(rows: int, columns: int) -> Codes4:
    groups = (rows, columns // 32)
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.int8)
    return Codes4(codes, torch.rand(groups) * 0.2, torch.rand(groups) * -1.6)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """So small a model is no work for two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(5)
    a = ARCH
    layer = Layer(
        attention_norm=torch.rand(a.width) + 0.5,
        qkv=codes4((a.heads + 2 * a.kv_heads) * a.head, a.width),
        attention_out=codes4(a.width, a.width),
        feed_norm=torch.rand(a.width) + 0.5,
        gate_up=codes4(2 * a.hidden, a.width),
        down=codes4(a.width, a.hidden),
    )
    table = Codes8(
        torch.randint(-128, 128, (a.vocabulary, a.width), dtype=torch.int8),
        torch.rand(a.vocabulary, a.width // 32) * 0.006,
    )
    return Weights(
        architecture=a, embedding=table, layers=(layer,), final_norm=torch.rand(a.width) + 0.5
    )


@pytest.fixture
def parrot(weights) -> Weights:
    """It says its last word again: what stands in the embedding outweighs all that is added."""
    table = weights.embedding
    return replace(weights, embedding=replace(table, d=table.d * 1_000))


class Noted(Llama):
    """Remembers the logits that each prompt ended with."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights, slots=SLOTS, context_tokens=ROOM)
        self.run_tokens = 0
        self.last: dict[int, torch.Tensor] = {}
        self.decoded: list[tuple[int, int]] = []

    def decode(self, tokens, positions, slots=None):
        self.decoded.append((len(tokens), len(set(slots or range(len(tokens))))))
        return super().decode(tokens, positions, slots)

    def prefill(self, tokens, *, slot, start):
        self.run_tokens += len(tokens)
        self.last[slot] = super().prefill(tokens, slot=slot, start=start)
        return self.last[slot]


class World:
    """A runner driven as the engine's thread drives it, one thread, no clock."""

    def __init__(self, weights: Weights, **given_) -> None:
        self.model = Noted(weights)
        self.runner = CpuRunner(self.model, chunk_tokens=CHUNK, **given_)
        self.sizes: list[int] = []

    def ask(self, asked) -> list[tuple[list[int], torch.Tensor | None]]:
        """Answer all (salt, prompt, parameters) together; return tokens and first logits."""
        scheduler = Scheduler(
            slots=SLOTS, waiting_max=99, chunk_tokens=CHUNK, tokens_max=self.runner.tokens_max
        )
        answers = dict(enumerate(self.answer(*one) for one in asked))
        for job, answer in answers.items():
            terms = Terms(answer_tokens=answer.most, stops=answer.stops)
            assert scheduler.submit(job, len(answer.prompt), terms)
        running, first = dict(answers), {}
        with torch.inference_mode():
            while running:
                step = scheduler.plan(lambda job: self.runner.reusable(answers[job]))
                for job, token in self.runner.run(step, running)():
                    if job in running and isinstance(last_of(running[job], token), Ended):
                        del running[job]
                        for move in scheduler.remove(job):
                            self.runner.move(move)
                        self.runner.shrink(scheduler.running)
                for prefill in step.prefills:
                    if prefill.last:
                        first[prefill.job] = self.model.last[prefill.slot]
                self.sizes.append(self.runner.prefixes.size)
        return [(answers[job].tokens, first[job]) for job in answers]

    def answer(self, salt: bytes, prompt, parameters: Parameters) -> Answer:
        stops = self.runner.stops(prompt, Words.ends)
        keys = keys_of(salt, prompt, stops)
        room = ROOM - len(prompt)
        return Answer(prompt, parameters, Words(), room=room, stops=stops, keys=keys)


def last_of(answer: Answer, token: int):
    assert token != BAD_LOGITS
    return (answer.add(token) or (None,))[-1]


def same(ours, theirs) -> None:
    for (tokens, logits), (want, wanted) in zip(ours, theirs, strict=True):
        assert tokens == want
        assert torch.equal(logits, wanted)


def prompt_of(system: int, *turns: list[int]) -> list[int]:
    """A system message of 60 tokens, turns, and the question put to the model."""
    text = [START, 3, *(5 + (system * 7 + n) % 80 for n in range(60)), END]
    for turn in turns:
        text += [START, 3, *turn, END]
    return text + OPENING


def greedy(tokens: int = 6) -> Parameters:
    return Parameters(max_tokens=tokens)


def test_what_was_computed_for_one_prompt_is_reused_by_the_next_of_its_salt(weights) -> None:
    world, plain = World(weights, prefix_bytes=1 << 20), World(weights)
    asked = [(b"a", prompt_of(1, [9, 8, 7]), greedy()), (b"a", prompt_of(1, [6] * 30), greedy())]
    for one in asked:
        same(world.ask([one]), plain.ask([one]))

    assert world.runner.reused_tokens == 48
    assert plain.model.run_tokens - world.model.run_tokens == 48


def test_nothing_is_ever_reused_across_salts(weights) -> None:
    """The same prompt, to the token: another tenant's is computed again, and takes its time."""
    world = World(weights, prefix_bytes=1 << 20)
    prompt = prompt_of(1, [9, 8, 7])
    found = []
    for salt in (b"acme", b"globex", b"", b"", b"acme"):
        before = world.model.run_tokens
        world.ask([(salt, prompt, greedy(1))])
        found.append(world.model.run_tokens - before)

    assert found == [len(prompt)] * 4 + [len(prompt) - 48]


turns = st.lists(st.lists(st.integers(5, 84), max_size=40), max_size=3)
sampled = st.builds(
    Parameters,
    max_tokens=st.integers(1, 8),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_p=st.sampled_from([0.5, 1.0]),
    seed=st.integers(0, 5),
)
asks = st.tuples(st.sampled_from([b"a", b"b", b""]), st.integers(0, 2), turns, sampled)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(asks, min_size=1, max_size=3), min_size=1, max_size=3), st.data())
def test_answers_keep_their_bits_under_load_eviction_and_guesses(weights, rounds, data) -> None:
    """Rounds of requests that share slots, against a world where nothing is kept or guessed."""
    token_bytes = bytes_per_token(ARCH)
    room = data.draw(st.sampled_from([0, 60, 150, 1_000])) * token_bytes
    full = World(
        weights,
        prefix_bytes=room,
        guess_tokens=data.draw(st.integers(0, 4)),
        guess_rows_max=data.draw(st.integers(1, 8)),
        tokens_max=data.draw(st.sampled_from([None, ROOM, 2 * ROOM])),
    )
    plain = World(weights)
    for asked in rounds:
        told = [(salt, prompt_of(n, *said)[-190:], how) for salt, n, said, how in asked]
        same(full.ask(told), [plain.ask([one])[0] for one in told])

    assert max(full.sizes) <= room
    assert full.runner.prefixes.size % token_bytes == 0


def test_guesses_that_hold_save_steps_and_change_nothing(parrot) -> None:
    world, plain = World(parrot, guess_tokens=4), World(parrot)
    asked = [(b"", prompt_of(2), greedy(100))]
    same(world.ask(asked), plain.ask(asked))

    assert world.runner.held_tokens > 70
    assert len(world.model.decoded) < len(plain.model.decoded) / 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guesses_that_fail_change_nothing_either(weights, temperature) -> None:
    world, plain = World(weights, guess_tokens=4), World(weights)
    for seed in range(4):
        how = Parameters(max_tokens=100, temperature=temperature, top_p=0.3, seed=seed)
        same(world.ask([(b"", prompt_of(2), how)]), plain.ask([(b"", prompt_of(2), how)]))

    assert 0 < world.runner.held_tokens < world.runner.guessed_tokens - 4


def test_a_busy_engine_guesses_nothing(parrot) -> None:
    world = World(parrot, guess_tokens=4, guess_rows_max=2)
    world.ask([(b"", prompt_of(n), greedy(40 + 30 * n)) for n in range(3)])
    guessed = [requests for rows, requests in world.model.decoded if rows > requests]

    assert set(guessed) == {1}
    assert max(rows for rows, _ in world.model.decoded) == SLOTS


def test_memory_that_is_short_is_given_back_by_those_who_leave(weights, monkeypatch) -> None:
    world = World(weights, tokens_max=ROOM)
    forgotten = []
    monkeypatch.setattr(world.model.slots, "forget", forgotten.append)
    world.ask([(b"", prompt_of(n), greedy(20)) for n in range(3)])

    assert len(forgotten) >= 3
    assert set(forgotten) == {0, 1}  # there was memory for two of them


def test_what_cannot_be_kept_for_want_of_memory_is_no_fault(weights, monkeypatch) -> None:
    world = World(weights, prefix_bytes=1 << 20)
    world.ask([(b"a", prompt_of(1), greedy())])
    kept = world.runner.prefixes.size
    monkeypatch.setattr(world.model.slots, "kept", lambda *_: torch.empty(1 << 50))
    (tokens, _), = world.ask([(b"a", prompt_of(2), greedy())])  # fmt: skip

    assert (kept > 0, world.runner.prefixes.size, len(tokens)) == (True, 0, 6)


@pytest.mark.parametrize(
    ("budget", "lazy", "slots", "tokens_max"),
    [(None, True, 8, None), (900, True, 8, None), (350, True, 8, 350), (350, False, 3, None)],
)
def test_a_budget_is_slots_where_they_are_laid_out_and_tokens_where_not(
    budget, lazy, slots, tokens_max
) -> None:
    told = {"slots": 8, "context_tokens": 100, "token_bytes": 10, "lazy": lazy}
    room = kv_room(budget_bytes=budget and budget * 10, **told)

    assert (room.slots, room.tokens_max) == (slots, tokens_max)
    with pytest.raises(ModelFileError, match="holds no request"):
        kv_room(budget_bytes=999, **told)


def test_the_settings_reach_the_runner(weights, make_settings) -> None:
    told = make_settings(slots=8, kv_memory_mib=1, prefix_memory_mib=3, guess_tokens=2)
    runner = _on_cpu(weights, told, 1_024)

    assert (runner.slots_max, runner.tokens_max) == (8, (1 << 20) // bytes_per_token(ARCH))
    assert (runner.prefixes.room, runner.guess_tokens, runner.vocabulary) == (3 << 20, 2, 96)
