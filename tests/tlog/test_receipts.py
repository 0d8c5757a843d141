"""A receipt proves one prompt, one answer, one place; and whatever is changed, no longer."""

from dataclasses import fields, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from meshkit.contract import Message, Receipt, Role, answer_bytes, prompt_bytes
from meshkit.tlog import (
    ReceiptInvalid,
    VerifierKey,
    check_receipt,
    commit,
    endorsement_text,
    receipt_bytes,
)

LOG_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RECEIPT_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
LOG = VerifierKey("example.org/log", LOG_KEY.public_key().public_bytes_raw())
MESSAGES = (Message(Role.SYSTEM, "be brief"), Message(Role.USER, "hello"))
ANSWER = "hi"


def signed(receipt, key=RECEIPT_KEY):
    return replace(receipt, signature=key.sign(receipt_bytes(receipt)))


def honest():
    public = RECEIPT_KEY.public_key().public_bytes_raw()
    text = endorsement_text(LOG.name, public).encode()
    return signed(
        Receipt(
            origin=LOG.name,
            index=7,
            leaf_hash=b"l" * 32,
            call_id=b"c" * 16,
            trace_id=b"t" * 16,
            prompt_salt=b"p" * 32,
            prompt_commitment=commit(b"p" * 32, prompt_bytes(MESSAGES)),
            answer_salt=b"a" * 32,
            answer_commitment=commit(b"a" * 32, answer_bytes(ANSWER)),
            key=public,
            key_endorsement=LOG.key_id + LOG_KEY.sign(text),
        )
    )


def check(receipt, vkey=str(LOG)):
    check_receipt(receipt, vkey, messages=MESSAGES, answer=ANSWER)


def step_of(receipt, vkey=str(LOG)):
    with pytest.raises(ReceiptInvalid) as caught:
        check(receipt, vkey)
    return caught.value.step


def test_an_honest_receipt_holds():
    check(honest())
    check_receipt(honest(), str(LOG))


def test_the_failing_step_is_named():
    receipt = honest()
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
    public = stranger.public_key().public_bytes_raw()
    assert step_of(receipt, "nonsense") == 1
    assert step_of(receipt, str(VerifierKey("example.org/other", LOG.public))) == 1
    assert step_of(replace(receipt, leaf_hash=b"short")) == 2
    assert step_of(replace(receipt, prompt_commitment=b"")) == 2
    assert step_of(signed(replace(receipt, key=public), stranger)) == 3
    assert step_of(receipt, str(VerifierKey(LOG.name, public))) == 3
    assert step_of(replace(receipt, index=8)) == 4
    assert step_of(replace(receipt, prompt_salt=b"q" * 32)) == 5
    assert step_of(replace(receipt, answer_salt=b"q" * 32)) == 6


def test_an_erased_salt_opens_nothing_but_leaves_the_receipt_valid():
    erased = replace(honest(), prompt_salt=b"", answer_salt=b"")
    check_receipt(erased, str(LOG))
    assert step_of(erased) == 5


@given(st.data())
def test_no_flipped_bit_survives_in_any_field(data):
    receipt = honest()
    name = data.draw(st.sampled_from([f.name for f in fields(receipt)]))
    value = getattr(receipt, name)
    if isinstance(value, int):
        changed = value ^ 1 << data.draw(st.integers(0, 62))
    elif isinstance(value, str):
        at = data.draw(st.integers(0, len(value) - 1))
        changed = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
    else:
        bit = data.draw(st.integers(0, len(value) * 8 - 1))
        changed = (int.from_bytes(value) ^ 1 << bit).to_bytes(len(value))
    step_of(replace(receipt, **{name: changed}))


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_what_is_signed_tells_its_fields_apart(one, two):
    """Moving bytes between neighbouring fields must change what is signed."""
    receipt = honest()
    first = receipt_bytes(replace(receipt, call_id=one, trace_id=two))
    moved = receipt_bytes(replace(receipt, call_id=one + two[:1], trace_id=two[1:]))
    assert (first == moved) == (not two)


def test_a_checkpoint_signature_is_no_endorsement():
    receipt = honest()
    note = b"example.org/log\n7\n" + b"A" * 44 + b"\n"
    assert step_of(replace(receipt, key_endorsement=LOG.key_id + LOG_KEY.sign(note))) == 3
