"""What is broken, one line at a time, and the test that must fail because of it."""

from tests.mutations.engine import ENGINE
from tests.mutations.models import MODELS
from tests.mutations.moving import MOVING
from tests.mutations.mutation import Mutation
from tests.mutations.plans import PLANS
from tests.mutations.releases import RELEASES
from tests.mutations.serving import SERVING

_ERASURE = "tests/audit/test_erasure.py::"
_DURABLE = "tests/audit/test_durability.py::"
_POWER = f"{_DURABLE}test_power_loss_at_any_moment_loses_and_doubles_nothing"
_ORDER = "tests/audit/test_syscalls.py::test_nothing_is_told_or_named_before_it_is_durable"
_SEALING = "tests/keys/test_sealing.py::"
_HISTORIES = "tests/audit/test_histories.py::"

FIVE = (
    Mutation(
        "fsync",
        "audit/log/disk.py",
        "        os.fdatasync(handle)",
        "        os.fstat(handle)",
        _ORDER,
    ),
    Mutation(
        "lock",
        "audit/log/locks.py",
        '" WHERE version = ?2"',
        '" WHERE version >= ?2 - ?2"',
        "tests/audit/test_locks.py::"
        "test_a_lock_is_replaced_by_who_knows_what_it_holds_and_by_nobody_else[sqlite]",
    ),
    Mutation(
        "AAD",
        "meshkit/sealing.py",
        '    return b"".join((whose, _LENGTH.pack(len(aad)), aad))\n',
        "    return whose\n",
        f"{_SEALING}test_a_record_opens_only_where_it_belongs",
    ),
    Mutation(
        "commitment",
        "meshkit/sealing.py",
        "if not hmac.compare_digest(okm[32:], record[_COMMITMENT_AT:_BODY_AT]):",
        "if not hmac.compare_digest(okm[32:], okm[32:]):",
        f"{_SEALING}test_the_commitment_is_checked_not_only_the_tag",
    ),
    Mutation(
        "leaf prefix",
        "meshkit/tlog/merkle.py",
        'sha256(b"\\x00" + entry)',
        "sha256(entry)",
        "tests/tlog/test_merkle.py::test_known_hashes_of_rfc_6962",
    ),
)
"""What proof rests on: durable, not forked, bound, committed, hashed as a leaf."""

MORE = (
    Mutation(
        "an endorsement by a known key that fails",
        "meshkit/tlog/receipts.py",
        "return bool(held) and all(held)",
        "return any(held)",
        "tests/audit/test_rotation.py::test_an_endorsement_that_fails_spoils_the_other",
    ),
    Mutation(
        "the key of before a rotation signs, too",
        "audit/log/signer.py",
        "return [*versions[:1], *overlapping][:ENDORSEMENTS_MAX]",
        "return versions[:1]",
        "tests/audit/test_rotation.py::test_what_is_in_force_follows_from_when_each_was_made",
    ),
    Mutation(
        "a rotation is told to auditors",
        "audit/log/signing_keys.py",
        "if signer.vkey != taken_up:",
        "if not taken_up:",
        "tests/audit/test_rotation.py::"
        "test_a_rotation_that_cannot_be_taken_up_now_is_taken_up_later",
    ),
    Mutation(
        "legal hold before an erasure",
        "audit/privacy/erasure.py",
        "if hold.blocks(found.pseudonyms, found.classes):",
        "if hold is None:",
        f"{_ERASURE}test_a_hold_stands_against_erasure_and_both_are_recorded",
    ),
    Mutation(
        "an erased subject's keys leave the disk",
        "audit/privacy/estate.py",
        "await self._kept.drop_keys(plan.tenant, plan.key_ids)",
        "pass",
        f"{_ERASURE}test_a_backup_of_payloads_brings_nothing_back",
    ),
    Mutation(
        "and memory",
        "audit/privacy/estate.py",
        "await self._held.forget(plan.tenant, plan.key_ids)",
        "pass",
        f"{_ERASURE}test_the_running_process_has_forgotten_the_key_too",
    ),
    Mutation(
        "caches forget an erased subject",
        "audit/privacy/erasure.py",
        "[await purge(plan.tenant, plan.subject) for purge in self._purges]",
        "[3]",
        f"{_ERASURE}test_an_erased_person_is_gone_and_the_log_still_holds",
    ),
    Mutation(
        "a payload is bound to its call",
        "audit/privacy/payloads.py",
        "call_id + phase.encode()",
        "phase.encode()",
        "tests/audit/test_payload_seals.py::test_a_payload_moved_elsewhere_does_not_open",
    ),
    Mutation(
        "day 31",
        "audit/privacy/retention.py",
        "return now - day > days",
        "return now - day >= days",
        "tests/audit/test_retention.py::"
        "test_on_day_31_payloads_and_keys_are_gone_and_the_leaf_is_there",
    ),
    Mutation(
        "what was begun is counted once",
        "audit/privacy/erasure.py",
        "await on_disk(self._estate.take(begun))",
        "pass",
        "tests/audit/test_retention.py::"
        "test_what_a_failed_sweep_began_is_told_of_once_however_often_it_is_tried",
    ),
    Mutation(
        "two products fit 16 bits",
        "compliance/requantise.py",
        "_WEIGHT_MAX = 63",
        "_WEIGHT_MAX = 127",
        "tests/compliance/test_lean_bert.py::"
        "test_two_products_fit_16_bits_so_that_no_cpu_cuts_one_off",
    ),
    Mutation(
        "an answer is its subject's alone",
        "cache/keys.py",
        "        scope.subject.encode(),\n",
        "",
        "tests/cache/test_keys.py::test_an_answer_is_nobody_elses[subject]",
    ),
    Mutation(
        "fsync of folders",
        "audit/log/disk.py",
        "            os.fsync(handle)",
        "            os.fstat(handle)",
        _ORDER,
    ),
    Mutation(
        "fsync before the ack",
        "audit/log/wal.py",
        "body, at)\n                self._disk.sync(handle)",
        "body, at)",
        f"{_POWER}[1]",
    ),
    Mutation(
        "exclusive writer",
        "audit/log/disk.py",
        "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        f"{_DURABLE}test_a_second_writer_is_refused_and_the_first_goes_on",
    ),
    Mutation(
        "chain of the write-ahead log",
        "audit/log/wal.py",
        "        if chain != _chained(self._chain, _FACTS.pack(first, count, length), body):\n"
        "            return None\n",
        "",
        f"{_DURABLE}test_a_flipped_bit_in_the_write_ahead_log_is_refused",
    ),
    Mutation(
        "lock in OpenBao",
        "audit/log/locks.py",
        "            raise LockConflict from None\n",
        "            return Locked(note, 0)\n",
        "tests/audit/test_locks.py::"
        "test_a_lock_is_replaced_by_who_knows_what_it_holds_and_by_nobody_else[vault]",
    ),
    Mutation(
        "node prefix",
        "meshkit/tlog/merkle.py",
        'sha256(b"\\x01" + left + right)',
        "sha256(left + right)",
        "tests/tlog/test_merkle.py::test_known_hashes_of_rfc_6962",
    ),
    Mutation(
        "root of the whole log",
        "meshkit/tlog/whole.py",
        "    _check_root(log)  # 5\n",
        "",
        "tests/audit/test_tampering.py::"
        "test_entries_that_changed_places_together_with_their_hashes_are_found",
    ),
    Mutation(
        "conflict with what is not durable",
        "audit/log/appender.py",
        "(under_way.followers if same else under_way.rivals).append(future)",
        "if not same:\n            raise Refusal(Reason.CONFLICT)\n"
        "        under_way.followers.append(future)",
        f"{_HISTORIES}test_what_never_became_durable_conflicts_with_nothing",
    ),
    Mutation(
        "repeats under way",
        "audit/log/appender.py",
        "        if under_way is not None:\n",
        "        if under_way is not None and self._closed:\n",
        f"{_HISTORIES}test_two_hundred_histories_under_faults_are_linearizable",
    ),
    Mutation(
        "a lock that is sent a checkpoint twice",
        "audit/log/locks.py",
        "        held = self._load()\n",
        "        held = None\n",
        "tests/audit/test_locks.py::test_a_replacement_that_is_sent_again_meets_itself[sqlite]",
    ),
    Mutation(
        "length of a SPIFFE id's path",
        "meshkit/identity.py",
        'case ["tenant", tenant, workload] if is_label(tenant) and is_label(workload):',
        'case ["tenant", tenant, *_, workload] if is_label(tenant) and is_label(workload):',
        "tests/audit/test_foreign.py::test_what_is_another_tenants_is_refused_every_time",
    ),
)

TABLE = FIVE + MORE + MOVING + ENGINE + MODELS + PLANS + RELEASES + SERVING
