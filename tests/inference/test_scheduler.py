"""What the scheduler promises, of every arrival order, length and departure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.scheduler import Move, Scheduler

SLOTS, CHUNK = 3, 8


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """(step of arrival, prompt tokens, answer tokens), in order of arrival."""
    jobs = st.tuples(st.integers(0, 15), st.integers(1, 30), st.integers(1, 12))
    return sorted(draw(st.lists(jobs, max_size=12)), key=lambda job: job[0])


class World:
    """Carries plans out as an engine would and checks each against the promises."""

    def __init__(self, jobs, waiting_max=100, prompts=1) -> None:
        self.prompts = prompts
        self.scheduler = Scheduler(
            slots=SLOTS, waiting_max=waiting_max, chunk_tokens=CHUNK, prompts=prompts
        )
        self.jobs = jobs
        self.read: dict[int, int] = {}
        self.answered: dict[int, int] = {}
        self.slots: dict[int, int] = {}  # slot -> job, as the engine's cache holds it
        self.admitted: list[int] = []
        self.done: list[int] = []

    def step(self) -> bool:
        plan = self.scheduler.plan()
        self.check_decode(plan.decode)
        assert len(plan.prefills) <= self.prompts
        assert sum(prefill.stop - prefill.start for prefill in plan.prefills) <= CHUNK
        for prefill in plan.prefills:
            self.check_prefill(prefill)
        assert len(self.slots) <= SLOTS
        assert sorted(self.slots) == list(range(len(self.slots)))
        for job in (*plan.decode, *(prefill.job for prefill in plan.prefills)):
            if self.answered.get(job, 0) >= self.jobs[job][2]:
                self.leave(job)
                self.done.append(job)
        return bool(plan)

    def check_decode(self, decode) -> None:
        """All who may decode do, each in the slot that holds its keys."""
        ready = {job for job in self.read if self.read[job] == self.jobs[job][1]}
        assert set(decode) == ready
        for slot, job in enumerate(decode):
            assert self.slots[slot] == job
            self.answered[job] += 1

    def check_prefill(self, prefill) -> None:
        job = prefill.job
        if job not in self.read:
            self.admitted.append(job)
            self.slots[prefill.slot] = job
        assert self.slots[prefill.slot] == job
        assert prefill.start == self.read.get(job, 0)
        assert 0 < prefill.stop - prefill.start <= CHUNK
        self.read[job] = prefill.stop
        assert prefill.last == (prefill.stop == self.jobs[job][1])
        if prefill.last:
            self.answered[job] = 1

    def leave(self, job: int) -> None:
        moves = self.scheduler.remove(job)
        self.read.pop(job, None)
        held = [slot for slot, holder in self.slots.items() if holder == job]
        for slot in held:
            del self.slots[slot]
        for move in moves:
            self.slots[move.target] = self.slots.pop(move.source)

    def run(self, leaving=()) -> None:
        waiting = list(enumerate(self.jobs))
        for now in range(2_000):
            while waiting and waiting[0][1][0] <= now:
                job, (_, prompt, _) = waiting.pop(0)
                assert self.scheduler.submit(job, prompt)
            for job, when in leaving:
                if when == now and job < len(self.jobs):
                    self.leave(job)
            if not self.step() and not waiting:
                return
        pytest.fail("a request was left behind")


@settings(max_examples=150)
@given(arrivals(), st.integers(1, 4))
def test_every_request_is_answered_in_order_of_arrival(jobs, prompts: int) -> None:
    world = World(jobs, prompts=prompts)
    world.run()

    assert sorted(world.done) == list(range(len(jobs)))
    assert world.admitted == sorted(world.admitted)
    assert world.answered == {job: answer for job, (_, _, answer) in enumerate(jobs)}


@settings(max_examples=150)
@given(
    arrivals(),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 25)), max_size=8),
    st.integers(1, 4),
)
def test_departures_at_any_time_disturb_nobody_else(jobs, leaving, prompts: int) -> None:
    world = World(jobs, prompts=prompts)
    world.run(leaving)
    left = {job for job, _ in leaving}

    assert set(range(len(jobs))) - left <= set(world.done)
    assert world.admitted == sorted(world.admitted)
    assert (world.scheduler.running, world.scheduler.waiting) == (0, 0)


@given(st.integers(0, 5), st.integers(0, 12))
def test_the_queue_is_bounded(waiting_max: int, count: int) -> None:
    scheduler = Scheduler(slots=SLOTS, waiting_max=waiting_max, chunk_tokens=CHUNK)
    taken = [scheduler.submit(job, 1) for job in range(count)]

    assert sum(taken) == min(count, SLOTS + waiting_max)
    assert taken == sorted(taken, reverse=True)


def test_a_long_prompt_lets_others_decode_between_its_chunks() -> None:
    scheduler = Scheduler(slots=2, waiting_max=2, chunk_tokens=CHUNK)
    scheduler.submit(0, 1)
    scheduler.plan()
    scheduler.submit(1, 10 * CHUNK)

    assert [scheduler.plan().decode for _ in range(10)] == [(0,)] * 10


def test_many_short_prompts_share_a_step() -> None:
    scheduler = Scheduler(slots=4, waiting_max=4, chunk_tokens=CHUNK, prompts=4)
    for job in range(4):
        scheduler.submit(job, 3)

    first, second = scheduler.plan(), scheduler.plan()

    told = [(p.job, p.slot, p.stop - p.start, p.last) for p in first.prefills]
    assert told == [(0, 0, 3, True), (1, 1, 3, True), (2, 2, 2, False)]
    assert [(p.job, p.slot) for p in second.prefills] == [(2, 2), (3, 3)]
    assert second.decode == (0, 1)


def test_the_one_that_prefills_moves_up_with_the_others() -> None:
    scheduler = Scheduler(slots=4, waiting_max=4, chunk_tokens=CHUNK)
    for job in range(3):
        scheduler.submit(job, 1)
        scheduler.plan()
    scheduler.submit(3, 100)
    scheduler.plan()

    assert scheduler.remove(0) == (Move(2, 0), Move(3, 2))
    assert scheduler.plan().prefills[0].slot == 2
