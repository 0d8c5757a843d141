"""What is broken of the torch engine: whose computed prompts are whose, memory, order, time."""

from tests.mutations.mutation import Mutation

_PREFIX = "tests/inference/test_prefix.py::"
_REUSE = "tests/inference/test_reuse.py::"
_SCHEDULER = "tests/inference/test_scheduler.py::"
_CONTEXTS = "tests/inference/test_contexts.py::"
_ENGINE = "tests/inference/test_engine.py::"

ENGINE = (
    Mutation(
        "a prompt's keys without its caller's salt",
        "inference/prefix.py",
        "key=salt, ",
        'key=b"k", ',
        f"{_REUSE}test_nothing_is_ever_reused_across_salts",
    ),
    Mutation(
        "a salt without the tenant",
        "inference/contexts.py",
        "whose = [self._share, scope.tenant]",
        "whose = [self._share]",
        f"{_CONTEXTS}test_salts_are_equal_for_equal_identities_alone",
    ),
    Mutation(
        "two identities that run together in a salt",
        "inference/contexts.py",
        "len(part).to_bytes(4) + part",
        "part",
        f"{_CONTEXTS}test_salts_are_equal_for_equal_identities_alone",
    ),
    Mutation(
        "kept beginnings beyond their memory",
        "inference/prefix.py",
        "while self.size + size > self.room",
        "while self.size > self.room",
        f"{_PREFIX}test_the_oldest_goes_first_and_the_room_is_never_exceeded",
    ),
    Mutation(
        "more tokens promised than there is memory",
        "inference/scheduler.py",
        "prompt.reserved <= room",
        "bool(room)",
        f"{_SCHEDULER}test_order_is_by_priority_and_age_and_memory_is_never_exceeded",
    ),
    Mutation(
        "priority without age: somebody starves",
        "inference/scheduler.py",
        "terms.arrived_s - terms.priority * self._ageing_s",
        "-terms.priority",
        f"{_SCHEDULER}test_nobody_starves_under_a_stream_of_the_more_important",
    ),
    Mutation(
        "a request begun after its deadline",
        "inference/scheduler.py",
        "each.terms.latest_s >= now_s]",
        "each.terms]",
        f"{_SCHEDULER}test_who_cannot_begin_in_time_never_begins_and_all_others_do",
    ),
    Mutation(
        "a wrong guess that is kept",
        "inference/engines/runner.py",
        "if drawn[-1] != expected:",
        "if drawn[-1] == BAD_LOGITS:",
        f"{_REUSE}test_guesses_that_fail_change_nothing_either",
    ),
    Mutation(
        "no memory on a CPU taken for a fault",
        "inference/engines/faults.py",
        "isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)",
        "False",
        f"{_ENGINE}test_no_memory_on_a_cpu_is_overloaded_and_the_next_call_works",
    ),
    Mutation(
        "a step that hangs and nobody is told",
        "inference/engines/faults.py",
        "time.monotonic() - began_s > self.longest_s",
        "began_s < 0",
        f"{_ENGINE}test_a_step_that_hangs_is_told_and_survived",
    ),
)
