"""Cosignatures: our published vectors, another implementation's opinion, and every near miss."""

import json
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tlog_scales.signing import Vkey
from tlog_scales.tlog import Checkpoint as TheirCheckpoint

from meshkit.tlog import (
    CosignerKey,
    NoteInvalid,
    Policy,
    VerifierKey,
    check_signatures,
    cosignature_line,
    cosignature_message,
    format_note,
    judge_checkpoint,
    open_checkpoint,
    parse_add_checkpoint,
    parse_signature_lines,
    parse_size,
    split_note,
)
from tests.audit.witness_world import MemoryLog
from tests.tlog.vectors import TIME, keys_of, main

VECTORS = json.loads((Path(__file__).parent / "cosignatures.json").read_text("utf-8"))["cases"]
KEYS = keys_of(1)
LOG = MemoryLog()


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_the_published_vectors_hold(case):
    text, signatures = split_note(case["note"])
    assert text == case["checkpoint"]
    open_checkpoint(case["note"], VerifierKey.parse(case["log_vkey"]))
    keys = [CosignerKey.parse(one["vkey"]) for one in case["cosigners"]]
    assert len(check_signatures(text, signatures, keys)) == 4
    for key, one in zip(keys, case["cosigners"], strict=True):
        assert str(key) == one["vkey"]
        assert cosignature_message(key, text, case["time"]) == b64decode(one["message"])
        (raw,) = (r for name, r in signatures if (name, r[:4]) == (key.name, key.key_id))
        assert key.cosigned_at(raw[4:], text) == case["time"]


@pytest.mark.parametrize(
    "case",
    [case for case in VECTORS if case["checkpoint"].count("\n") == 3],  # it knows no extensions
    ids=lambda case: case["name"],
)
def test_another_implementation_believes_them(case):
    theirs = TheirCheckpoint.from_text(case["note"])
    for vkey in (case["log_vkey"], *(one["vkey"] for one in case["cosigners"])):
        theirs.verify(Vkey.from_string(vkey))


def test_the_vectors_can_be_made_again(capsys):
    """All but the ML-DSA signatures, which are randomised."""
    main()
    made = json.loads(capsys.readouterr().out)["cases"]
    for one, other in zip(made, VECTORS, strict=True):
        assert one | {"note": ""} == other | {"note": ""}


def test_the_message_is_spelt_out_in_bytes():
    """The layout once more, by hand: a slip in the code would be in its vectors, too."""
    text = "example.org/log\n3\n" + "A" * 43 + "=\n"
    classic, quantum = KEYS.vkeys
    assert cosignature_message(classic, text, 5) == b"cosignature/v1\ntime 5\n" + text.encode()
    assert cosignature_message(quantum, text, 5) == (
        b"subtree/v1\n\x00" + b"\x12witness.example/w1" + b"\x00\x00\x00\x00\x00\x00\x00\x05"
        + b"\x0fexample.org/log" + b"\x00" * 8 + b"\x00\x00\x00\x00\x00\x00\x00\x03" + b"\x00" * 32
    )  # fmt: skip


def test_every_bit_of_key_time_name_and_text_counts():
    text = LOG.text(9)
    for key, line in zip(KEYS.vkeys, KEYS.cosign(text, TIME).splitlines(), strict=True):
        blob = b64decode(line.rsplit(" ", 1)[1])[4:]
        assert key.cosigned_at(blob, text) == TIME
        for at in (*range(8), 8, 40, 71, len(blob) - 1):
            bad = bytearray(blob)
            bad[at] ^= 1
            assert key.cosigned_at(bytes(bad), text) is None, at
        for bad in (blob[:-1], blob + b"\0", blob[:8], b""):
            assert key.cosigned_at(bad, text) is None
        for other in (LOG.text(10), LOG.forked_at(3).text(9), text.replace("log", "lag"), "x"):
            assert key.cosigned_at(blob, other) is None
        renamed = CosignerKey("witness.example/w9", key.kind, key.public)
        # Ed25519 does not sign its name (that is why a key has one name); ML-DSA-44 does.
        assert (renamed.cosigned_at(blob, text) is None) == (key.kind == 6)


def test_an_extension_line_is_signed_by_the_one_and_not_by_the_other():
    plain = LOG.text(9)
    for key, line in zip(KEYS.vkeys, KEYS.cosign(plain, TIME).splitlines(), strict=True):
        blob = b64decode(line.rsplit(" ", 1)[1])[4:]
        assert (key.cosigned_at(blob, plain + "more\n") is None) == (key.kind == 4)


def test_a_time_beyond_63_bits_is_none():
    key = KEYS.vkeys[0]
    signature = KEYS.ed25519.sign(cosignature_message(key, LOG.text(3), 2**63))
    line = cosignature_line(key, 2**63, signature)
    assert key.cosigned_at(b64decode(line.rsplit(" ", 1)[1])[4:], LOG.text(3)) is None


def test_keys_are_read_as_written_and_nothing_near_them_is():
    for key in KEYS.vkeys:
        vkey = str(key)
        assert CosignerKey.parse(f"  {vkey}\n") == key
        for bad in (
            vkey[:-1],
            vkey + "A",
            vkey.replace("w1", "w2"),
            vkey.replace("+", " ", 1),
            str(LOG.vkey),
            "",
            "a+b",
        ):
            with pytest.raises(NoteInvalid):
                CosignerKey.parse(bad)
        with pytest.raises(NoteInvalid):
            VerifierKey.parse(vkey)
    with pytest.raises(NoteInvalid):
        CosignerKey.parse(str(CosignerKey("w" * 256, 4, KEYS.vkeys[0].public)))


def test_a_note_with_many_signatures_opens():
    """At least sixteen must be taken, whoever made them."""
    text = LOG.text(9)
    note = LOG.note(9) + "".join(keys_of(number).cosign(text, TIME) for number in range(3, 40))
    assert open_checkpoint(note, LOG.vkey).size == 9
    policy = Policy.parse(f"log {LOG.vkey}\nwitness a {keys_of(39).vkeys[1]}\nquorum a\n".encode())
    assert judge_checkpoint(note, policy).cosigned == {"a": TIME}
    # Twice by one key, at two times: the newer counts.
    note += KEYS.cosign(text, TIME) + KEYS.cosign(text, TIME + 9)
    policy = Policy.parse(f"log {LOG.vkey}\nwitness a {KEYS.vkeys[0]}\nquorum a\n".encode())
    assert judge_checkpoint(note, policy).cosigned == {"a": TIME + 9}


def test_a_known_key_that_fails_spoils_the_note_and_a_strange_one_does_not():
    text = LOG.text(9)
    policy = Policy.parse(
        f"log {LOG.vkey}\nwitness a {KEYS.vkeys[0]}\nwitness b {KEYS.vkeys[1]}\nquorum a\n".encode()
    )
    good = LOG.note(9) + KEYS.cosign(text, TIME)
    assert judge_checkpoint(good, policy).quorum
    of_another = KEYS.cosign(LOG.text(8), TIME).splitlines(keepends=True)
    for bad in (good + of_another[0], good + of_another[1]):
        with pytest.raises(NoteInvalid, match="does not hold"):
            judge_checkpoint(bad, policy)
    stranger = keys_of(7).cosign(LOG.text(8), TIME)
    assert judge_checkpoint(good + stranger, policy).quorum
    forged = LOG.forked_at(0).sign(text).split("\n\n")[1]
    assert judge_checkpoint(good + forged, policy).quorum  # the same key signs, and may twice
    with pytest.raises(NoteInvalid, match="not signed by a log"):
        judge_checkpoint(MemoryLog().note(9) + KEYS.cosign(MemoryLog().text(9), TIME), policy)


def test_a_log_speaks_for_itself_alone():
    """A key of the policy, over the checkpoint of another origin."""
    other = MemoryLog("other.example/log")
    policy = Policy.parse(f"log {LOG.vkey}\nlog {other.vkey}\nquorum none\n".encode())
    crossed = format_note(LOG.text(3), other.sign(LOG.text(3)).split("\n\n")[1])
    with pytest.raises(NoteInvalid, match="not signed by a log"):
        judge_checkpoint(crossed, policy)
    assert judge_checkpoint(other.note(3), policy).origin == "other.example/log"


# --- the witness protocol ---------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_a_request_is_read_as_it_was_written(a, b):
    old, new = sorted((a, b))
    asked = parse_add_checkpoint(LOG.request(old, new))
    assert (asked.old, asked.size, asked.root) == (old, new, LOG.root(new))
    assert (asked.note, asked.text, asked.origin) == (LOG.note(new), LOG.text(new), LOG.vkey.name)
    assert asked.proof == LOG.proof(old, new)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_garbage_is_no_request_answer_or_size(data):
    body = LOG.request(5, 30)
    for bad in (data, data + body, body + data[:1] + b"\n\n", b"old " + data):
        if bad != body:
            with pytest.raises(NoteInvalid):
                parse_add_checkpoint(bad)
    for parse in (lambda d: parse_signature_lines(d, LOG.text(3)), parse_size):
        try:
            found = parse(data)
        except NoteInvalid:
            continue
        assert parse is parse_size
        assert data == b"%d\n" % found


def test_an_answer_cannot_change_the_checkpoint_that_it_is_about():
    lines = KEYS.cosign(LOG.text(3), TIME)
    assert len(parse_signature_lines(lines.encode(), LOG.text(3))) == 2
    for bad in (b"", b"\n", lines.encode() + b"\n", b"more\n\n" + lines.encode(), b"\xff"):
        with pytest.raises(NoteInvalid):
            parse_signature_lines(bad, LOG.text(3))
