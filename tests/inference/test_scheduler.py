"""What the scheduler promises, of every arrival order, length and departure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.scheduler import Move, Scheduler, Terms

SLOTS, CHUNK, AGEING_S = 3, 8, 4.0


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """(step of arrival, prompt tokens, answer tokens), in order of arrival."""
    jobs = st.tuples(st.integers(0, 15), st.integers(1, 30), st.integers(1, 12))
    return sorted(draw(st.lists(jobs, max_size=12)), key=lambda job: job[0])


class World:
    """Carries plans out as an engine would and checks each against the promises."""

    def __init__(self, jobs, waiting_max=100, prompts=1, tokens_max=None) -> None:
        self.prompts = prompts
        self.tokens_max = tokens_max
        self.scheduler = Scheduler(
            slots=SLOTS,
            waiting_max=waiting_max,
            chunk_tokens=CHUNK,
            prompts=prompts,
            tokens_max=tokens_max,
            ageing_s=AGEING_S,
        )
        self.jobs = jobs
        self.read: dict[int, int] = {}
        self.answered: dict[int, int] = {}
        self.slots: dict[int, int] = {}  # slot -> job, as the engine's cache holds it
        self.admitted: list[int] = []
        self.done: list[int] = []
        self.terms: dict[int, Terms] = {}
        self.reused: dict[int, int] = {}
        self.queue: list[int] = []
        self.late: list[int] = []

    def step(self) -> bool:
        plan = self.scheduler.plan(lambda job: self.reused.get(job, 0))
        self.check_decode(plan.decode)
        assert len(plan.prefills) <= self.prompts
        assert sum(prefill.stop - prefill.start for prefill in plan.prefills) <= CHUNK
        for prefill in plan.prefills:
            self.check_prefill(prefill)
        assert len(self.slots) <= SLOTS
        assert sorted(self.slots) == list(range(len(self.slots)))
        self.check_memory()
        for job in dict.fromkeys((*plan.decode, *(each.job for each in plan.prefills))):
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
        assert prefill.first == (job not in self.read)
        if prefill.first:
            # Whoever waits is behind it: no smaller, no younger one has passed by.
            assert self.rank(job) == min(map(self.rank, self.queue))
            self.queue.remove(job)
            self.admitted.append(job)
            self.slots[prefill.slot] = job
            self.read[job] = self.reused.get(job, 0)
        assert self.slots[prefill.slot] == job
        assert prefill.start == self.read[job]
        assert 0 < prefill.stop - prefill.start <= CHUNK
        assert not any(prefill.start < stop < prefill.stop for stop in self.stops(job))
        self.read[job] = prefill.stop
        assert prefill.last == (prefill.stop == self.jobs[job][1])
        if prefill.last:
            self.answered[job] = 1

    def check_memory(self) -> None:
        """What runs never holds more than was reserved for it, nor that more than there is."""
        held = {job: self.read[job] + self.answered.get(job, 0) for job in self.slots.values()}
        room = {job: self.jobs[job][1] + self.jobs[job][2] for job in held}
        assert all(held[job] <= room[job] for job in held)
        assert self.tokens_max is None or sum(room.values()) <= self.tokens_max

    def rank(self, job: int):
        terms = self.terms[job]
        return terms.arrived_s - terms.priority * AGEING_S, job

    def stops(self, job: int):
        return self.terms[job].stops

    def submit(self, job: int, terms: Terms) -> bool:
        taken = self.scheduler.submit(job, self.jobs[job][1], terms)
        if taken:
            self.terms[job] = terms
            self.queue.append(job)
        return taken

    def leave(self, job: int) -> None:
        if job in self.queue:
            self.queue.remove(job)
        moves = self.scheduler.remove(job)
        self.read.pop(job, None)
        held = [slot for slot, holder in self.slots.items() if holder == job]
        for slot in held:
            del self.slots[slot]
        for move in moves:
            self.slots[move.target] = self.slots.pop(move.source)

    def run(self, leaving=(), terms=None) -> None:
        waiting = list(enumerate(self.jobs))
        for now in range(2_000):
            while waiting and waiting[0][1][0] <= now:
                job, (_, _, answer) = waiting.pop(0)
                told = {"answer_tokens": answer, "arrived_s": now} | (terms or {}).get(job, {})
                assert self.submit(job, Terms(**told))
            for job in self.scheduler.late(now):
                assert self.terms[job].latest_s < now
                self.queue.remove(job)
                self.late.append(job)
            assert all(self.terms[job].latest_s >= now for job in self.queue)
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


priorities = st.lists(st.integers(-3, 3), min_size=12, max_size=12)


@settings(max_examples=150)
@given(arrivals(), priorities, st.integers(42, 90), st.integers(1, 4), st.data())
def test_order_is_by_priority_and_age_and_memory_is_never_exceeded(
    jobs, wanted, tokens_max: int, prompts: int, data
) -> None:
    """`World` checks each step: the first in rank goes next, and all that run fit."""
    world = World(jobs, prompts=prompts, tokens_max=tokens_max)
    terms = {}
    for job, (_, prompt, _) in enumerate(jobs):
        stops = tuple(sorted(data.draw(st.sets(st.integers(1, prompt), max_size=4))))
        terms[job] = {"priority": wanted[job], "stops": stops}
        world.reused[job] = data.draw(st.sampled_from([0, *(n for n in stops if n < prompt)]))
    world.run(terms=terms)

    assert sorted(world.done) == list(range(len(jobs)))
    assert world.scheduler.reserved_tokens == 0


@settings(max_examples=100)
@given(arrivals(), priorities, st.lists(st.integers(0, 30), min_size=12, max_size=12))
def test_who_cannot_begin_in_time_never_begins_and_all_others_do(jobs, wanted, patience) -> None:
    world = World(jobs, tokens_max=60)
    terms = {
        job: {"priority": wanted[job], "latest_s": when + patience[job]}
        for job, (when, _, _) in enumerate(jobs)
    }
    world.run(terms=terms)

    assert not set(world.late) & set(world.admitted)
    assert sorted([*world.late, *world.done]) == list(range(len(jobs)))


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(1, 40))
def test_nobody_starves_under_a_stream_of_the_more_important(priority: int, tokens: int) -> None:
    """One slot's worth of memory, and a new request of higher priority at every step."""
    scheduler = Scheduler(
        slots=2, waiting_max=999, chunk_tokens=64, tokens_max=50, ageing_s=AGEING_S
    )
    scheduler.submit(0, tokens, Terms(answer_tokens=50 - tokens, arrived_s=0.0))
    begun = None
    for now in range(1, 200):
        scheduler.submit(now, 5, Terms(answer_tokens=1, priority=priority, arrived_s=now))
        step = scheduler.plan()
        if any(prefill.job == 0 for prefill in step.prefills):
            begun = now
            break
        for job in (*step.decode, *(prefill.job for prefill in step.prefills)):
            scheduler.remove(job)

    assert begun is not None
    assert begun <= priority * AGEING_S + 2


def test_what_would_never_fit_is_not_queued() -> None:
    scheduler = Scheduler(slots=2, waiting_max=9, chunk_tokens=CHUNK, tokens_max=20)

    assert not scheduler.submit(0, 11, Terms(answer_tokens=10))
    assert scheduler.submit(1, 10, Terms(answer_tokens=10))
    assert scheduler.plan().prefills[0].job == 1


def test_the_first_waits_for_memory_and_no_smaller_one_passes_by() -> None:
    scheduler = Scheduler(slots=3, waiting_max=9, chunk_tokens=CHUNK, tokens_max=20)
    for job, prompt in ((0, 8), (1, 15), (2, 2)):
        scheduler.submit(job, prompt)
    begun = [scheduler.plan().prefills for _ in range(3)]
    scheduler.remove(0)

    assert [[prefill.job for prefill in prefills] for prefills in begun] == [[0], [], []]
    assert [scheduler.plan().prefills[0].job for _ in range(3)] == [1, 1, 2]


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
