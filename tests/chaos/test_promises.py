"""A run that could not fail would show nothing: each broken promise is seen."""

import random
from collections import Counter

import pytest

from meshkit.contract import Phase
from tests.chaos.faults import SERVICES, Fault, drawn, kinds_of
from tests.chaos.ledger import Ledger, broken_promises
from tests.chaos.load import CANARY, Answered, Failed, Tally
from tests.chaos.runner import Suffered
from tests.chaos.table import CELLS

CALL = b"c" * 16


def kept() -> tuple[Ledger, Tally]:
    """A log with one answered call, and a caller who was told so."""
    events = Counter({(CALL, Phase.INTENT): 1, (CALL, Phase.OUTCOME): 1})
    ledger = Ledger(2, events, {0: CALL, 1: CALL})
    return ledger, Tally(answered=[Answered(CALL, 1, 0.0, "miss")])


def test_a_log_that_holds_all_it_should_breaks_nothing() -> None:
    assert broken_promises(*kept()) == []


@pytest.mark.parametrize("phase", [Phase.INTENT, Phase.OUTCOME])
@pytest.mark.parametrize("times", [0, 2])
def test_an_event_that_is_missing_or_doubled_is_seen(phase, times) -> None:
    ledger, tally = kept()
    ledger.events[CALL, phase] = times

    assert broken_promises(ledger, tally)


def test_a_receipt_for_a_place_that_is_another_calls_is_seen() -> None:
    ledger, tally = kept()
    ledger.call_at[1] = b"d" * 16

    assert broken_promises(ledger, tally)


def test_a_refused_calls_receipt_counts_as_well() -> None:
    ledger, tally = kept()
    tally.failed.append(Failed(0.0, 0.0, "DENIED", (CALL, 1)))
    assert broken_promises(ledger, tally) == []
    tally.failed.append(Failed(0.0, 0.0, "DENIED", (CALL, 7)))

    assert broken_promises(ledger, tally)


def test_a_reason_that_the_table_does_not_give_is_seen() -> None:
    def heard(target: str, reason: str) -> set[str]:
        fault = Fault(target, "killed")
        seen = Suffered(
            fault=fault, struck_s=0, recovered_s=0, answered=0, heard=Counter({reason: 1})
        )
        return seen.unexpected

    assert heard("compliance", "COMPLIANCE_DOWN") == set()
    assert heard("compliance", "INTERNAL") == {"INTERNAL"}
    assert heard("cache", "INTERNAL") == {"INTERNAL"}
    assert heard("redis", "LIMITED") == {"LIMITED"}
    assert Fault("audit", "replaced").allowed == set()


def test_raw_text_is_recognised_and_masks_are_not() -> None:
    assert CANARY.findall("Write to canary-00000007@example.org.")
    assert CANARY.findall("mail is reveal-deadbeef@example.org")
    assert not CANARY.findall("Write to [EMAIL], number 00000007.")


def test_a_seed_draws_the_same_faults_again_and_every_kind_in_time() -> None:
    def faults(seed: int) -> list[Fault]:
        dice = random.Random(seed)
        return [drawn(dice, partitions=True) for _ in range(2_000)]

    assert faults(7) == faults(7)
    drawn_kinds = {(fault.target, fault.kind) for fault in faults(7)}
    all_kinds = {
        (target, kind)
        for target in (*SERVICES, "openbao", "redis")
        for kind in kinds_of(target, partitions=True)
    }
    assert drawn_kinds == all_kinds
    assert {(cell.target, cell.kind) for cell in CELLS} <= all_kinds
