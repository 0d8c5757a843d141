"""The key that signs checkpoints is rotated: before, while both sign, and after.

Who knows the old key alone believes until the overlap is over; who knows both, always; who knows
the new one alone, from the rotation on. That holds of the log, of its copies, and of receipts.
"""

import json
import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.log import signing_keys
from audit.log.receipts import ReceiptMaker
from audit.log.signer import MemorySigner, in_force
from audit.monitor.sources import FolderSource
from audit.monitor.state import MonitorState
from audit.monitor.watch import Limits, Monitor
from audit.witness.keys import WitnessKeys
from audit.witness.memory import WitnessMemory
from audit.witness.witness import LogList, Witness
from meshkit.contract import Refusal
from meshkit.tlog import (
    ENDORSEMENTS_MAX,
    LogInvalid,
    LogKeys,
    NoteInvalid,
    Policy,
    ProofInvalid,
    ReceiptInvalid,
    VerifierKey,
    check_log,
    check_proof,
    check_receipt,
    format_add_checkpoint,
    format_line,
    open_checkpoint,
    parse_checkpoint,
    split_note,
)
from sealgate.cli import main as cli
from sealgate.cli.audit import write_proofs
from tests.audit.test_third_party import go_verify  # noqa: F401 -- a fixture
from tests.audit.witness_world import MemoryLog, until
from tests.audit.world import ANSWER, ORIGIN, make_outcome

DAY_S = 86_400
WHEN = {"old": ("before", "while"), "both": ("before", "while", "after"), "new": ("while", "after")}
"""Who believes what."""


class Stage:
    """What a caller and an auditor took home at one time."""

    def __init__(self, folder, receipt, proof):
        self.folder, self.receipt, self.proof = folder, receipt, proof

    def read(self, path):
        file = self.folder / path
        return file.read_bytes() if file.exists() else None


async def taken(audit, world, name):
    """Append, and take home the receipt, the proof, and the log once it covers them."""
    appended = await audit.append(make_outcome())
    keys = LogKeys.parse(audit.vkey)

    def covered():
        checkpoint = parse_checkpoint((world.log / "checkpoint").read_text())
        signers = {raw[:4] for _, raw in split_note(checkpoint.note)[1]}
        return checkpoint.size > appended.index and signers == {key.key_id for key in keys.keys}

    await until(covered)
    (path,) = await write_proofs(
        audit, "acme", world.folder / f"proofs-{name}", call_id=appended.receipt.call_id, wait_s=10
    )
    folder = world.folder / name
    shutil.copytree(world.log, folder)
    return Stage(folder, appended.receipt, path.read_text())


async def looked(monitor):
    return [alarm.kind for alarm in await monitor.look()]


@pytest.fixture
async def stages(world):
    """A log taken home before, while and after; its keys; and what a monitor said each time."""
    found, alarms, mirror = {}, [], world.folder / "mirror"
    settings = {"checkpoint_key_look_s": 0.02, "mirror_url": str(mirror), "mirror_interval_ms": 100}
    async with world.open(**settings) as audit:
        old = audit.vkey
        found["before"] = await taken(audit, world, "before")
        monitor = Monitor(
            FolderSource(world.log),
            Policy.of_log(VerifierKey.parse(old)),
            MonitorState(),
            limits=Limits(),
        )
        alarms += await looked(monitor)
        world.signer.rotate()
        await until(lambda: len((world.data / "vkey").read_text().split()) == 2)
        both = (world.data / "vkey").read_text().strip()
        await until(lambda: keys_noted(audit) == 2)
        found["while"] = await taken(audit, world, "while")
        alarms += await looked(monitor)
        state = MonitorState.loads(monitor.state.dumps())
        known = Policy.parse((world.data / "policy").read_bytes())
        world.signer.retire()
        await until(lambda: (world.data / "vkey").read_text().count("\n") == 1)
        await until(lambda: keys_noted(audit) == 3)
        found["after"] = await taken(audit, world, "after")
        alarms += await looked(Monitor(FolderSource(world.log), known, state, limits=Limits()))
        assert await looked(monitor) == ["signature"]  # it was not told of the new key
        new = audit.vkey
    world.alarms, world.mirror = alarms, mirror
    return found, {"old": old, "both": both, "new": new}


def keys_noted(audit):
    """How often a receipt key was recorded."""
    leaves = [json.loads(audit.parts.leaf(n)) for n in range(audit.stats.durable)]
    return sum(leaf["event"]["action"] == "receipt.key" for leaf in leaves)


def holds(check, *errors):
    try:
        check()
    except errors:
        return False
    return True


async def test_each_verifier_believes_what_its_keys_signed(stages, go_verify, world) -> None:  # noqa: F811
    found, keys = stages
    both = LogKeys.parse(keys["both"])
    assert both.keys == (VerifierKey.parse(keys["new"]), VerifierKey.parse(keys["old"]))
    for who, vkey in keys.items():
        for name, stage in found.items():
            good = name in WHEN[who]
            size = parse_checkpoint((stage.folder / "checkpoint").read_text()).size
            told = (who, name)
            assert holds(lambda s=stage, v=vkey: check_log(s.read, v), LogInvalid) is good, told
            assert holds(lambda s=stage, v=vkey: check_proof(s.proof, v), ProofInvalid) is good
            assert (go_verify(stage.folder, vkey) == f"OK {size}") is good, told
            receipt = holds(
                lambda s=stage, v=vkey: check_receipt(s.receipt, v, answer=ANSWER), ReceiptInvalid
            )
            assert receipt is good, told
            file = world.folder / "vkey"
            file.write_text(f"{vkey}\n")
            words = ["audit", "verify", "--log", str(stage.folder), "--vkey", str(file), "--json"]
            assert (cli(words) == 0) is good, told
    assert world.alarms == []
    newest = max((world.mirror / ORIGIN / "checkpoints").glob("[0-9]*")).read_text()
    assert open_checkpoint(newest, VerifierKey.parse(keys["new"])).size > 0


async def test_a_rotation_while_the_log_was_closed_is_taken_up_at_its_start(world) -> None:
    async with world.open() as audit:
        await audit.append(make_outcome())
        old = audit.vkey
    world.signer.rotate()
    world.signer.retire()  # closed for longer than the overlap: only the lock bears the old key
    async with world.open() as audit:
        stage = await taken(audit, world, "after")
    assert check_log(stage.read, audit.vkey).size > 2
    with pytest.raises(LogInvalid, match="not signed"):
        check_log(stage.read, old)


async def test_a_lock_under_a_key_that_is_not_ours_is_still_refused(world) -> None:
    async with world.open() as audit:
        await audit.append(make_outcome())
    world.signer = MemorySigner(ORIGIN)
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        async with world.open():
            pass


async def test_a_rotation_that_cannot_be_taken_up_now_is_taken_up_later(world, monkeypatch) -> None:
    tries, real = [], signing_keys.tell_auditors

    def failing(*args):
        tries.append(args)
        if len(tries) < 3:
            raise OSError(28, "full")
        real(*args)

    async with world.open(checkpoint_key_look_s=0.02) as audit:
        monkeypatch.setattr(signing_keys, "tell_auditors", failing)
        world.signer.rotate()
        await until(lambda: keys_noted(audit) == 2)
    assert len(tries) == 3
    assert len((world.data / "vkey").read_text().split()) == 2


def with_lines(one, other, size):
    """A checkpoint of `one`, signed by `other` as well."""
    (line,) = split_note(other.note(size))[1]
    return one.note(size) + format_line(*line)


def test_a_witness_cosigns_through_a_rotation_and_needs_the_new_key_at_its_end(tmp_path) -> None:
    old, new = MemoryLog(), MemoryLog()
    (tmp_path / "logs").write_text(f"{old.vkey}\n")
    keys = WitnessKeys.make(tmp_path / "keys", "witness.example/one")
    memory, logs = WitnessMemory(tmp_path / "memory.sqlite"), LogList(tmp_path / "logs")
    witness = Witness(keys, memory, logs)

    def asked(before, size, note):
        return witness.add(format_add_checkpoint(before, old.proof(before, size), note)).status

    assert asked(0, 5, old.note(5)) == 200
    assert asked(5, 6, with_lines(new, old, 6)) == 200
    assert asked(6, 7, new.note(7)) == 403
    (tmp_path / "logs").write_text(f"{new.vkey}\n{old.vkey}\n")
    logs._read_at = 0  # two writes may fall in one tick
    logs.refresh()
    assert asked(6, 7, new.note(7)) == 200
    memory.close()


def test_a_known_key_s_signature_that_fails_spoils_the_other() -> None:
    old, new = MemoryLog(), MemoryLog()
    both = LogKeys((new.vkey, old.vkey))
    assert open_checkpoint(with_lines(new, old, 6), both).size == 6
    (line,) = split_note(old.note(6))[1]
    spoilt = new.note(7) + format_line(*line)  # the old key signed another size
    for trust in (both, old.vkey, Policy.of_log(*both.keys)):
        with pytest.raises(NoteInvalid, match="does not hold"):
            open_checkpoint(spoilt, trust)
    assert open_checkpoint(spoilt, new.vkey).size == 7


async def test_an_endorsement_that_fails_spoils_the_other() -> None:
    signer = MemorySigner(ORIGIN)
    old = signer.vkey
    signer.rotate()
    maker = await ReceiptMaker.start(signer)
    receipt = maker.make(make_outcome(), 7, bytes(32), None)
    check_receipt(receipt, signer.vkey)
    first, second = receipt.key_endorsement[:68], receipt.key_endorsement[68:]
    forged = replace(receipt, key_endorsement=first + second[:-1] + bytes([second[-1] ^ 1]))
    check_receipt(forged, signer.vkey.split("\n")[0])  # an unknown key's is passed over
    for vkey in (signer.vkey, old):
        with pytest.raises(ReceiptInvalid) as caught:
            check_receipt(forged, vkey)
        assert caught.value.step == 3
    for count in (0, ENDORSEMENTS_MAX + 1):
        with pytest.raises(ReceiptInvalid) as caught:
            check_receipt(replace(receipt, key_endorsement=first * count), signer.vkey)
        assert caught.value.step == 2


def test_keys_of_one_log_are_a_line_each_and_told_apart() -> None:
    one, two, stranger = MemoryLog().vkey, MemoryLog().vkey, MemoryLog("other.example/log").vkey
    assert LogKeys.parse(f"\n {one} \r\n\n{two}\n").keys == (one, two)
    assert LogKeys.parse(str(LogKeys((two, one)))).keys == (two, one)
    for wrong, why in {
        "": "malformed",
        f"{one}\n{one}\n": "twice",
        f"{one}\n{stranger}\n": "several logs",
        f"{one}\nnonsense\n": "malformed",
        "\n".join(str(MemoryLog().vkey) for _ in range(65)): "too many",
    }.items():
        with pytest.raises(NoteInvalid, match=why):
            LogKeys.parse(wrong)


@given(
    ages=st.lists(st.floats(0, 400 * DAY_S), min_size=1, max_size=9),
    overlap_s=st.floats(0, 60 * DAY_S),
)
def test_what_is_in_force_follows_from_when_each_was_made(ages, overlap_s) -> None:
    now = 1_800_000_000.0
    made = {number: now - age for number, age in enumerate(sorted(ages, reverse=True), 1)}
    found = in_force(made, overlap_s, now)
    assert found[0] == max(made)
    assert found == sorted(found, reverse=True)
    assert len(found) <= ENDORSEMENTS_MAX
    for version in made:
        overlapping = version == max(made) or now < made[version + 1] + overlap_s
        assert (version in found) <= overlapping
        assert overlapping <= (version in found or len(found) == ENDORSEMENTS_MAX)
    assert in_force(made, 0, now) == [max(made)]
