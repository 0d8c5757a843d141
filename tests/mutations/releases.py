"""What is broken of releases: who gets traffic, who may change it, what is told before."""

from tests.mutations.mutation import Mutation

_CORE = "tests/inference/test_release_core.py::"
_SERVICE = "tests/inference/test_release_service.py::"
_DESK = "tests/gateway/test_model_desk.py::"

RELEASES = (
    Mutation(
        "two live versions",
        "inference/release/moves.py",
        "            old.state, old.left_s = State.WARM, now_s\n",
        "            old.left_s = now_s\n",
        f"{_CORE}test_each_step_is_taken_back_by_one",
    ),
    Mutation(
        "traffic for a version that is not warm",
        "inference/release/core.py",
        "        if not found.releasable:\n"
        "            raise Refusal(Reason.WRONG_STATE)\n"
        "        old =",
        "        if found.state is State.LIVE:\n"
        "            raise Refusal(Reason.WRONG_STATE)\n"
        "        old =",
        f"{_CORE}test_what_a_state_does_not_allow_is_refused",
    ),
    Mutation(
        "a version unloaded under its calls",
        "inference/release/moves.py",
        "if found.leaving and not found.in_flight and away:",
        "if found.leaving and away:",
        f"{_SERVICE}test_a_call_under_way_ends_on_its_version",
    ),
    Mutation(
        "answers of a version that was not released",
        "inference/release/core.py",
        "found.state in RELEASED or (late and found.digest)",
        "found.digest",
        f"{_CORE}test_a_warm_version_answers_nobody",
    ),
    Mutation(
        "another version than the record names",
        "inference/release/core.py",
        "            if found.digest == digest and (",
        "            if found.digest and (",
        f"{_SERVICE}test_the_digest_says_who_answers_and_no_other_does",
    ),
    Mutation(
        "a changed manifest under a known version",
        "inference/release/core.py",
        "            return []\n        if known.why == DIGEST_CHANGED:\n",
        "            return []\n        if known.why != DIGEST_CHANGED:\n",
        f"{_CORE}test_a_version_whose_manifest_was_changed_is_not_loaded",
    ),
    Mutation(
        "a failed start that forgets what was live",
        "inference/release/desk.py",
        "        keep, self._keep = self._keep, None\n",
        "        keep = self._keep\n",
        f"{_SERVICE}test_a_start_without_keys_changes_nothing_that_is_remembered",
    ),
    Mutation(
        "a model that changed behind its engine",
        "inference/release/desk.py",
        "        if self.engines[name, version].info.digest != digest:\n",
        "        if not self.engines[name, version].info.digest:\n",
        f"{_SERVICE}test_a_model_that_changes_behind_its_engine_answers_nobody",
    ),
    Mutation(
        "a step that nobody records, its caller gone",
        "gateway/releases/desk.py",
        "            return await asyncio.shield(work)\n",
        "            return await work\n",
        f"{_DESK}test_a_step_whose_caller_has_gone_is_recorded_to_its_end",
    ),
    Mutation(
        "a step without a durable intent",
        "gateway/releases/desk.py",
        "            await self.ledger.record(replace(event, phase=Phase.INTENT",
        "            (replace(event, phase=Phase.INTENT",
        f"{_DESK}test_without_a_durable_intent_nothing_is_changed",
    ),
    Mutation(
        "a step without a policy's leave",
        "gateway/releases/desk.py",
        "            if not self._may(arrival, entrant.actor, step.model):\n",
        "            if not self._may(arrival, entrant.actor, step.model) and not step.model:\n",
        f"{_DESK}test_nobody_else_may_look_or_change",
    ),
    Mutation(
        "a conversation that changes its version",
        "meshkit/contract/release.py",
        "scope.session.encode() or scope.call_id",
        "scope.call_id",
        f"{_SERVICE}test_a_conversation_stays_on_its_version",
    ),
)
