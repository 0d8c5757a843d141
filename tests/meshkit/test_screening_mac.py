"""What a screening tag vouches for: this stage, text, policy, tenant and call, and nothing else."""

import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkit.contract import Message, Role, Stage
from meshkit.screening_mac import MacKeys, digest_of_answer, digest_of_prompt, tag

KEY = bytes(range(32))
FIELDS = {
    "stage": Stage.SCREENED,
    "text_digest": b"\x01" * 32,
    "policy_digest": b"\x02" * 32,
    "tenant": "acme",
    "call_id": b"\x03" * 16,
}


def test_the_tag_is_what_the_module_docstring_says():
    body = b"sealgate/screening/v1\0"
    for part in (b"screened", b"\x01" * 32, b"\x02" * 32, b"acme", b"\x03" * 16):
        body += len(part).to_bytes(4, "big") + part

    assert tag(KEY, **FIELDS) == hmac.new(KEY, body, hashlib.sha256).digest()


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("stage", Stage.RELEASED),
        ("text_digest", b"\x04" * 32),
        ("policy_digest", b""),
        ("tenant", "acme2"),
        ("call_id", b"\x05" * 16),
    ],
)
def test_every_field_counts(field, other):
    keys = MacKeys({1: KEY}, 1)
    version, mac = keys.tag(**FIELDS)

    assert keys.verify(version, mac, **FIELDS)
    assert not keys.verify(version, mac, **FIELDS | {field: other})


@given(st.binary(max_size=6), st.binary(max_size=6), st.binary(max_size=6), st.binary(max_size=6))
@settings(max_examples=100)
def test_fields_cannot_be_shifted_into_one_another(a, b, c, d):
    one = tag(KEY, **FIELDS | {"text_digest": a, "policy_digest": b})
    two = tag(KEY, **FIELDS | {"text_digest": c, "policy_digest": d})

    assert (one == two) == ((a, b) == (c, d))


@given(st.integers(0, 255))
@settings(max_examples=60)
def test_no_flipped_bit_survives(bit):
    keys = MacKeys({1: KEY}, 1)
    version, mac = keys.tag(**FIELDS)
    flipped = (int.from_bytes(mac) ^ 1 << bit).to_bytes(32)

    assert not keys.verify(version, flipped, **FIELDS)


def test_two_versions_are_accepted_and_a_third_is_not():
    yesterday = MacKeys({1: KEY}, 1)
    today = MacKeys({1: KEY, 2: KEY[::-1]}, 2)
    version, mac = yesterday.tag(**FIELDS)

    assert version == 1
    assert today.verify(1, mac, **FIELDS)
    assert not today.verify(2, mac, **FIELDS)
    assert not today.verify(3, mac, **FIELDS)
    assert today.tag(**FIELDS)[0] == 2


@pytest.mark.parametrize("mac", [b"", b"x", b"\0" * 31, b"\0" * 33])
def test_a_tag_of_the_wrong_length_is_refused(mac):
    assert not MacKeys({1: KEY}, 1).verify(1, mac, **FIELDS)


def test_keys_must_be_long_and_the_current_one_at_hand():
    with pytest.raises(ValueError, match="not at hand"):
        MacKeys({1: KEY}, 2)
    with pytest.raises(ValueError, match="shorter"):
        MacKeys({1: b"short"}, 1)


def test_no_key_shows_in_its_holder():
    shown = repr(MacKeys({1: b"k" * 32}, 1))

    assert "kkk" not in shown


def test_digests_keep_role_and_text_apart():
    one = digest_of_prompt([Message(Role.USER, "ab"), Message(Role.USER, "c")])
    two = digest_of_prompt([Message(Role.USER, "a"), Message(Role.USER, "bc")])
    three = digest_of_prompt([Message(Role.SYSTEM, "ab"), Message(Role.USER, "c")])

    assert len({one, two, three, digest_of_answer("abc")}) == 4
