"""What a sealed record promises, of every record rather than of three."""

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkit.contract import Reason
from meshkit.sealing import (
    OVERHEAD_BYTES,
    Owner,
    SealBroken,
    day_of,
    key_id_of,
    new_key_id,
    open_record,
    seal_record,
)

modest = settings(max_examples=60, deadline=None)
keys = st.binary(min_size=32, max_size=32)
texts = st.binary(max_size=300)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
owners = st.builds(Owner, labels, labels)
days = st.integers(0, 2**32 - 1)


def by_the_specification(key: bytes, owner: Owner, record: bytes, aad: bytes) -> bytes:
    """The module docstring, read by somebody else: HKDF and AES-GCM of `cryptography`."""
    assert record[0] == 1
    key_id, salt, commitment, body = record[1:17], record[17:49], record[49:81], record[81:]
    context = b"sealgate/sealed/v1\0" + key_id
    for part in (owner.tenant.encode(), owner.purpose.encode(), aad):
        context += len(part).to_bytes(4, "big") + part
    okm = HKDF(SHA512(), length=64, salt=salt, info=context).derive(key)
    assert okm[32:] == commitment
    return AESGCM(okm[:32]).decrypt(bytes(12), body, context)


@modest
@given(keys, days, owners, texts, texts)
def test_what_was_sealed_comes_back_to_us_and_to_the_specification(
    key, day, owner, text, aad
) -> None:
    key_id = new_key_id(day)
    record = seal_record(key, key_id, owner, text, aad)

    assert open_record(key, owner, record, aad) == text
    assert by_the_specification(key, owner, record, aad) == text
    assert len(record) == len(text) + OVERHEAD_BYTES
    assert (key_id_of(record), day_of(key_id_of(record))) == (key_id, day)


@modest
@given(keys, owners, texts, texts, st.data())
def test_no_flipped_bit_survives(key, owner, text, aad, data) -> None:
    record = bytearray(seal_record(key, new_key_id(20_000), owner, text, aad))
    bit = data.draw(st.integers(0, len(record) * 8 - 1), label="bit")
    record[bit // 8] ^= 1 << bit % 8

    with pytest.raises(SealBroken):
        open_record(key, owner, bytes(record), aad)


@modest
@given(keys, owners, texts, texts, st.data())
def test_no_truncated_or_longer_record_opens(key, owner, text, aad, data) -> None:
    record = seal_record(key, new_key_id(20_000), owner, text, aad)
    cut = data.draw(st.integers(0, len(record) - 1), label="cut")

    for wrong in (record[:cut], record + b"\0", record[cut + 1 :]):
        with pytest.raises(SealBroken):
            open_record(key, owner, wrong, aad)


@modest
@given(keys, owners, owners, texts, st.tuples(texts, texts))
def test_a_record_opens_only_where_it_belongs(key, owner, other, text, aads) -> None:
    aad, other_aad = aads
    record = seal_record(key, new_key_id(20_000), owner, text, aad)
    for wrong_owner, wrong_aad in ((other, aad), (owner, other_aad), (other, other_aad)):
        if (wrong_owner, wrong_aad) != (owner, aad):
            with pytest.raises(SealBroken):
                open_record(key, wrong_owner, record, wrong_aad)


@modest
@given(keys, labels, labels, texts)
def test_names_cannot_run_into_one_another(key, tenant, purpose, text) -> None:
    record = seal_record(key, new_key_id(20_000), Owner(tenant, purpose), text, b"")
    moved = Owner(tenant + purpose[0], purpose[1:])

    with pytest.raises(SealBroken):
        open_record(key, moved, record, b"")


@modest
@given(keys, keys, owners, texts, texts)
def test_another_key_or_key_id_does_not_open(key, other, owner, text, aad) -> None:
    record = seal_record(key, new_key_id(20_000), owner, text, aad)
    swapped = record[:1] + new_key_id(20_000) + record[17:]

    with pytest.raises(SealBroken):
        open_record(key, owner, swapped, aad)
    if other != key:
        with pytest.raises(SealBroken):
            open_record(other, owner, record, aad)


VECTORS = json.loads(
    (Path(__file__).parents[2] / "docs" / "vectors" / "sealed-records.json").read_text()
)


@pytest.mark.parametrize("case", VECTORS["good"], ids=lambda case: case["name"])
def test_a_published_record_opens(case) -> None:
    key, record, aad = (bytes.fromhex(case[name]) for name in ("data_key", "record", "aad"))
    owner = Owner(case["tenant"], case["purpose"])

    assert open_record(key, owner, record, aad) == bytes.fromhex(case["plaintext"])
    assert by_the_specification(key, owner, record, aad) == bytes.fromhex(case["plaintext"])


@pytest.mark.parametrize("case", VECTORS["bad"], ids=lambda case: case["name"])
def test_a_published_forgery_does_not(case) -> None:
    key, record, aad = (bytes.fromhex(case[name]) for name in ("data_key", "record", "aad"))
    with pytest.raises(SealBroken):
        open_record(key, Owner(case["tenant"], case["purpose"]), record, aad)


def test_the_commitment_is_checked_not_only_the_tag() -> None:
    """A record whose tag holds under our key but whose commitment is to another one."""
    key, owner, key_id, salt = os.urandom(32), Owner("acme", "payload"), new_key_id(1), bytes(32)
    context = b"sealgate/sealed/v1\0" + key_id
    for part in (b"acme", b"payload", b""):
        context += len(part).to_bytes(4, "big") + part
    okm = HKDF(SHA512(), length=64, salt=salt, info=context).derive(key)
    body = AESGCM(okm[:32]).encrypt(bytes(12), b"text", context)
    head = b"\x01" + key_id + salt

    assert open_record(key, owner, head + okm[32:] + body, b"") == b"text"
    with pytest.raises(SealBroken):
        open_record(key, owner, head + os.urandom(32) + body, b"")


def test_equal_texts_do_not_look_equal() -> None:
    key, key_id = os.urandom(32), new_key_id(1)
    records = {seal_record(key, key_id, Owner("a", "b"), b"yes", b"") for _ in range(100)}

    assert len({record[17:49] for record in records}) == 100
    assert len({record[81:] for record in records}) == 100


def test_a_broken_seal_tells_nothing() -> None:
    with pytest.raises(SealBroken) as broken:
        open_record(bytes(32), Owner("a", "b"), b"ada@example.org" * 20, b"")

    assert broken.value.reason is Reason.INTERNAL
    assert "ada" not in str(broken.value)
