"""Signed notes and checkpoints: known ones open, and nothing near them does."""

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from meshkit.tlog import (
    EMPTY_ROOT,
    ListHashes,
    NoteInvalid,
    Proof,
    ProofInvalid,
    VerifierKey,
    check_proof,
    checkpoint_text,
    format_note,
    format_proof,
    inclusion_proof,
    leaf_hash,
    open_checkpoint,
    open_note,
    parse_checkpoint,
    parse_proof,
    root_of,
    signature_line,
)

# golang.org/x/mod/sumdb/note, example_test.go.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
PETERS_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6"
    "KE6RyyBwJnAM=\n"
)
ENOCHS_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33"
    "WWd1RvMc+QQ=\n"
)
NOTE = format_note(TEXT, PETERS_LINE)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOG = VerifierKey("example.org/log", KEY.public_key().public_bytes_raw())


def sign(text, key=KEY, as_key=LOG):
    return format_note(text, signature_line(as_key, key.sign(text.encode())))


def test_gos_example_opens_and_stays_as_it_was():
    key = VerifierKey.parse(PETER)
    assert str(key) == PETER
    assert open_note(NOTE, key) == TEXT
    assert open_note(format_note(TEXT, PETERS_LINE, ENOCHS_LINE), key) == TEXT


def test_every_truncation_and_every_byte_off_by_one_of_a_key_is_refused():
    for end in range(len(PETER)):
        with pytest.raises(NoteInvalid):
            VerifierKey.parse(PETER[:end])
    for at in range(len(PETER)):
        for step in (-1, 1):
            changed = PETER[:at] + chr(ord(PETER[at]) + step) + PETER[at + 1 :]
            with pytest.raises(NoteInvalid):
                VerifierKey.parse(changed)


@pytest.mark.parametrize(
    "bad",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "",
        "+c74f20a3+",
    ],
)
def test_gos_bad_keys_are_refused(bad):
    with pytest.raises(NoteInvalid):
        VerifierKey.parse(bad)


def test_every_truncation_and_every_byte_off_by_one_of_a_note_is_refused():
    key = VerifierKey.parse(PETER)
    for end in range(len(NOTE)):
        with pytest.raises(NoteInvalid):
            open_note(NOTE[:end], key)
    for at in range(len(NOTE)):
        for step in (-1, 1):
            changed = NOTE[:at] + chr(ord(NOTE[at]) + step) + NOTE[at + 1 :]
            with pytest.raises(NoteInvalid):
                open_note(changed, key)


def test_a_note_is_not_signed_by_a_key_it_does_not_name():
    other = VerifierKey("PeterNeumann", LOG.public)
    for key in (LOG, other, VerifierKey("Peter", VerifierKey.parse(PETER).public)):
        with pytest.raises(NoteInvalid, match="not signed"):
            open_note(NOTE, key)


def test_one_failing_signature_of_a_known_key_spoils_the_note():
    forged = signature_line(LOG, bytes(64))
    good = signature_line(LOG, KEY.sign(TEXT.encode()))
    for lines in ((good, forged), (forged, good)):
        with pytest.raises(NoteInvalid, match="does not hold"):
            open_note(format_note(TEXT, *lines), LOG)


@pytest.mark.parametrize(
    "note",
    [
        TEXT,
        TEXT + "\n",
        NOTE.replace("— ", "- "),
        NOTE + "\n",
        NOTE + "x",
        NOTE.replace("crypto", "cry\x00pto"),
        NOTE.replace("crypto", "cry\tpto"),
        NOTE.replace("crypto", "\ud800"),
        format_note(TEXT, *[PETERS_LINE] * 101),
        format_note(TEXT, PETERS_LINE.replace("=\n", "\n")),
        format_note(TEXT, "— PeterNeumann x08g\n"),
        format_note(TEXT, "— Peter+Neumann x08go/ZJ\n"),
        "x" * 1_000_001,
    ],
)
def test_malformed_notes_are_refused(note):
    with pytest.raises(NoteInvalid):
        open_note(note, VerifierKey.parse(PETER))


@given(st.text(max_size=300))
def test_no_text_makes_a_parser_fail_otherwise(text):
    for parse in (VerifierKey.parse, parse_checkpoint, parse_proof, lambda t: open_note(t, LOG)):
        with pytest.raises(NoteInvalid):
            parse(text)


def test_a_checkpoint_opens_for_its_log_alone():
    note = sign(checkpoint_text(LOG.name, 0, EMPTY_ROOT))
    opened = open_checkpoint(note, LOG)
    assert (opened.size, opened.root, opened.note) == (0, EMPTY_ROOT, note)
    # The same key bytes, another origin in the text: signed, but not this log's.
    with pytest.raises(NoteInvalid, match="another log"):
        open_checkpoint(sign(checkpoint_text("example.org/other", 0, EMPTY_ROOT)), LOG)


ROOT64 = b64encode(EMPTY_ROOT).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"{LOG.name}\n01\n{ROOT64}\n",
        f"{LOG.name}\n-1\n{ROOT64}\n",
        f"{LOG.name}\n+1\n{ROOT64}\n",
        f"{LOG.name}\n1 \n{ROOT64}\n",
        f"{LOG.name}\n١\n{ROOT64}\n",
        f"{LOG.name}\n{2**63}\n{ROOT64}\n",
        f"{LOG.name}\n1\n{ROOT64[:-4]}\n",
        f"{LOG.name}\n1\n{ROOT64.rstrip('=')}\n",
        f"{LOG.name}\n1\n",
        f"{LOG.name}\n",
        f"\n1\n{ROOT64}\n",
        f"{LOG.name}\n1\n{ROOT64}\n\nmore\n",
    ],
)
def test_signed_but_malformed_checkpoints_are_refused(text):
    with pytest.raises(NoteInvalid):
        open_checkpoint(sign(text), LOG)


def test_extension_lines_are_ignored():
    text = checkpoint_text(LOG.name, 1, EMPTY_ROOT) + "extension\n"
    assert open_checkpoint(sign(text), LOG).size == 1


# --- proof files --------------------------------------------------------------------------------

ENTRIES = [b'{"n":%d}' % number for number in range(11)]
TREE = ListHashes([leaf_hash(entry) for entry in ENTRIES])


def proof_text(index=6, **changes):
    note = sign(checkpoint_text(LOG.name, 11, root_of(TREE, 11)))
    whole = {
        "leaf": ENTRIES[index],
        "index": index,
        "hashes": inclusion_proof(TREE, index, 11),
        "checkpoint": parse_checkpoint(note),
    }
    return format_proof(Proof(**whole | changes))


def test_a_proof_file_proves_each_entry():
    for index in range(11):
        text = proof_text(index)
        assert text.startswith("c2sp.org/tlog-proof@v1\nextra ")
        assert check_proof(text, str(LOG)).leaf == ENTRIES[index]


def test_a_proof_file_says_which_step_fails():
    other = VerifierKey(LOG.name, VerifierKey.parse(PETER).public)
    beyond = parse_checkpoint(sign(checkpoint_text(LOG.name, 6, root_of(TREE, 6))))
    for step, text, key in (
        (1, proof_text().replace("index", "indices"), LOG),
        (3, proof_text(), other),
        (4, proof_text(checkpoint=beyond), LOG),
        (5, proof_text(leaf=b"{}"), LOG),
        (5, proof_text(hashes=()), LOG),
    ):
        with pytest.raises(ProofInvalid) as caught:
            check_proof(text, str(key))
        assert caught.value.step == step
    with pytest.raises(ProofInvalid, match="step 2"):
        check_proof(proof_text(), "nonsense")


def test_every_truncation_and_every_byte_off_by_one_of_a_proof_file_is_refused():
    text = proof_text()
    for end in range(len(text)):
        with pytest.raises(ProofInvalid):
            check_proof(text[:end], str(LOG))
    for at in range(len(text)):
        for step in (-1, 1):
            with pytest.raises(ProofInvalid):
                check_proof(text[:at] + chr(ord(text[at]) + step) + text[at + 1 :], str(LOG))
