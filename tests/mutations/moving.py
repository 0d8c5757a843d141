"""What is broken of the process that moves durable events under load."""

from tests.mutations.mutation import Mutation

_MOVER = "tests/audit/test_mover.py::"

MOVING = (
    Mutation(
        "payloads written to a file that was taken away",
        "audit/log/mover.py",
        "                    self.process.release()\n",
        "                    self.process.ready  # noqa: B018\n",
        f"{_MOVER}test_what_is_taken_away_is_not_written_to_any_more",
    ),
    Mutation(
        "a mover that outlives its killed writer",
        "audit/log/mover_process.py",
        "    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)\n",
        "    ctypes.CDLL(None)\n",
        f"{_MOVER}test_it_ends_with_a_parent_that_is_killed",
    ),
    Mutation(
        "a writer beside a killed one's mover",
        "audit/log/opening.py",
        "    disk.close(await _locked(disk, settings.data_dir / MOVER_LOCK, _MOVER_WAIT_S))\n",
        "",
        f"{_MOVER}test_the_next_writer_waits_until_the_killed_ones_process_is_gone",
    ),
    Mutation(
        "a call and phase indexed twice",
        "audit/log/mover_process.py",
        "        raise Refusal(Reason.EVIDENCE_LOST) from None\n",
        "        return\n",
        "tests/audit/test_mover_orders.py::test_the_same_call_and_phase_twice_is_evidence_lost",
    ),
    Mutation(
        "a move done twice because nobody heard of it",
        "audit/log/mover.py",
        "        self._index.refresh()\n",
        "",
        f"{_MOVER}test_a_move_that_was_done_though_nobody_heard_of_it_is_not_done_again",
    ),
    Mutation(
        "an end that waits for a stopped mover",
        "audit/log/mover.py",
        "            self.process.hurried = hurried\n",
        "            self.process.hurried = False\n",
        f"{_MOVER}test_one_that_is_stopped_does_not_hold_up_the_end",
    ),
    Mutation(
        "leaves passed over on their way into the tree",
        "audit/log/fresh.py",
        "if group.first > start or len(leaves) >= most:",
        "if len(leaves) >= most:",
        "tests/audit/test_fresh.py::test_no_gap_is_passed_over",
    ),
)
