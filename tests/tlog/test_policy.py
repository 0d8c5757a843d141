"""Trust policies: the format to the letter, and quorums that count no witness twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkit.tlog import (
    NoteInvalid,
    Policy,
    PolicyInvalid,
    VerifierKey,
    check_proof,
    judge_checkpoint,
    open_checkpoint,
)
from tests.audit.witness_world import MemoryLog
from tests.tlog.vectors import TIME, keys_of

LOG = MemoryLog()
V = [str(keys_of(number).vkeys[number % 2]) for number in range(1, 7)]
MANY = [str(keys_of(number).vkeys[0]) for number in range(1, 41)]
TWO_LEVELS = f"""# as in the specification's example
log {LOG.vkey}

witness X1 {V[0]}
\twitness  X2\t{V[1]}   https://x2.example/
witness X3 {V[2]}
group X-witnesses 2 X1 X2 X3

witness Y1 {V[3]}
witness Y2 {V[4]}
group Y-witnesses any Y1 Y2

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


@pytest.mark.parametrize(
    ("names", "holds"),
    [
        ("", False),
        ("X1 X2", False),
        ("X1 Y1", False),
        ("Y1 Y2", False),
        ("X1 X3 Y2", True),
        ("X1 X2 X3 Y1 Y2", True),
        ("X-and-Y", False),  # a group's name is no witness's
        ("X1 X1 Y1", False),
    ],
)
def test_a_quorum_of_two_levels(names, holds):
    policy = Policy.parse(TWO_LEVELS.encode())
    assert policy.holds(names.split()) is holds
    assert Policy.parse(policy.text().encode()) == policy
    assert policy.witnesses[1].url == "https://x2.example/"


def test_no_quorum_needs_no_witness():
    assert Policy.parse(b"quorum none").holds([])
    assert Policy.parse(f"log {LOG.vkey} https://x\nquorum none\n".encode()).logs == (LOG.vkey,)


ONE = f"witness a {V[0]}\n"
BAD = {
    "": "quorum is missing",
    "quorum none\nquorum none\n": "line 2: quorum is there twice",
    "quorum a\n": "not defined",
    f"quorum a\n{ONE}": "not defined",
    f"{ONE}quorum a b\n": "malformed",
    f"{ONE}{ONE}quorum a\n": "line 2: name is taken",
    f"{ONE}witness b {V[0]}\nquorum a\n": "witness is there twice",
    f"log {LOG.vkey}\nlog {LOG.vkey}\nquorum none\n": "log is there twice",
    f"log {VerifierKey('x', LOG.vkey.public)}\nlog {LOG.vkey}\nquorum none\n": "there twice",
    f"log {V[0]}\nquorum none\n": "not Ed25519",
    f"witness a {LOG.vkey}\nquorum a\n": "not a cosigner's",
    f"witness none {V[0]}\nquorum none\n": "name is taken",
    f"{ONE}group g 1 none\nquorum g\n": "not defined",
    f"{ONE}group g 1\nquorum g\n": "malformed",
    f"{ONE}group g 0 a\nquorum g\n": "threshold",
    f"{ONE}group g 2 a\nquorum g\n": "threshold",
    f"{ONE}group g 01 a\nquorum g\n": "threshold",
    f"{ONE}group g +1 a\nquorum g\n": "threshold",
    f"{ONE}group g most a\nquorum g\n": "threshold",
    f"{ONE}group g 2 a a\nquorum g\n": "member is there twice",
    f"{ONE}group g 1 a\ngroup h 1 a\nquorum g\n": "in a group already",
    f"{ONE}group a 1 a\nquorum a\n": "name is taken",
    f"{ONE}group g 1 g\nquorum g\n": "not defined",
    f"{ONE}Quorum a\n": "malformed",
    f"{ONE}quorum a # why\n": "malformed",
    f"{ONE}quorum\u00a0a\n": "malformed",
    f"{ONE}quorum a\r\n": "control",
    f"{ONE}quorum a\x7f\n": "control",
    f"{ONE}quorum a\0\n": "control",
    f"log {LOG.vkey} a b\nquorum none": "malformed",
    f"witness a {V[0][:-3]}\nquorum a": "base64",
    "x\n" * 20_000: "too long",
    "#" * 1_000_001: "too long",
}


@pytest.mark.parametrize("text", BAD, ids=list(BAD.values()))
def test_what_is_no_policy_is_refused_with_its_line(text):
    with pytest.raises(PolicyInvalid, match=BAD[text]):
        Policy.parse(text.encode())


def test_names_are_octets_and_never_understood():
    """A Kelvin sign is no K, and bytes that are no UTF-8 are a name like any other."""
    policy = Policy.parse(f"witness K {V[0]}\nwitness \u212a {V[1]}\nquorum K\n".encode())
    assert policy.holds(["K"])
    assert not policy.holds(["\u212a"])
    raw = Policy.parse(b"witness \xff\xfe %s\nquorum \xff\xfe\n" % V[0].encode())
    assert raw.holds([raw.witnesses[0].name])
    with pytest.raises(PolicyInvalid):
        Policy.parse(b"witness a \xff%s\nquorum a\n" % V[0].encode())


@settings(deadline=None)
@given(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(1, n), st.sets(st.integers(0, n - 1)))
    )
)
def test_a_group_counts_to_its_threshold(drawn):
    number, need, present = drawn
    lines = [f"witness w{at} {key}" for at, key in enumerate(MANY[:number])]
    members = " ".join(f"w{at}" for at in range(number))
    text = "\n".join([*lines, f"group g {need} {members}", "quorum g"])
    policy = Policy.parse(text.encode())
    assert policy.holds([f"w{at}" for at in present]) == (len(present) >= need)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_no_policy_and_no_crash(data):
    with pytest.raises(PolicyInvalid):
        Policy.parse(data.replace(b"none", b""))


def test_a_checkpoint_below_the_quorum_is_not_opened():
    one, two = keys_of(1), keys_of(2)
    text = (
        f"log {LOG.vkey}\nwitness a {one.vkeys[0]}\nwitness b {two.vkeys[1]}\n"
        "group g {} a b\nquorum g\n"
    )
    any_of, both = (Policy.parse(text.format(need).encode()) for need in ("any", "all"))
    note = LOG.note(7) + one.cosign(LOG.text(7), TIME)
    assert open_checkpoint(note, any_of).size == 7
    with pytest.raises(NoteInvalid, match="quorum"):
        open_checkpoint(note, both)
    assert open_checkpoint(note + two.cosign(LOG.text(7), TIME), both).size == 7
    with pytest.raises(NoteInvalid, match="quorum"):
        open_checkpoint(LOG.note(7), any_of)


def test_a_cosignature_without_a_time_is_no_witness_s():
    """It is true of an old tree for ever: it would vouch for a log that was put back."""
    one = keys_of(1)
    for key in one.vkeys:
        policy = Policy.parse(f"log {LOG.vkey}\nwitness a {key}\nquorum a\n".encode())
        note = LOG.note(7) + one.cosign(LOG.text(7), 0)
        with pytest.raises(NoteInvalid, match="quorum"):
            open_checkpoint(note, policy)
        assert judge_checkpoint(note, policy).cosigned == {}
        assert open_checkpoint(note + one.cosign(LOG.text(7), TIME), policy).size == 7


def test_a_proof_is_worth_what_its_checkpoint_is():
    from meshkit.tlog import (
        ListHashes,
        Proof,
        ProofInvalid,
        format_proof,
        inclusion_proof,
        parse_checkpoint,
    )

    policy = Policy.parse(f"log {LOG.vkey}\nwitness a {keys_of(1).vkeys[1]}\nquorum a\n".encode())
    hashes = inclusion_proof(ListHashes(LOG.leaves), 3, 7)

    def proof(note):
        return format_proof(
            Proof(leaf=b"3", index=3, hashes=hashes, checkpoint=parse_checkpoint(note))
        )

    with pytest.raises(ProofInvalid, match="step 3: quorum"):
        check_proof(proof(LOG.note(7)), policy)
    good = proof(LOG.note(7) + keys_of(1).cosign(LOG.text(7), TIME))
    assert check_proof(good, policy).index == 3
    assert check_proof(good, str(LOG.vkey)).index == 3
