"""Backups are sealed as age files: others' open here, and nothing that was changed opens."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance import bech32
from appliance.age import CHUNK_BYTES, AgeInvalid, Identity, Passphrase, Recipient, opened, sealed

# Made by pyrage 1.4.0 (the Rust implementation `rage`), which opens what is sealed here, too.
SECRET = "AGE-SECRET-KEY-1FCU2Q6SNDMXGFMMAZPE8YUW6GG2PS93JJJ3DSYFZ76ALXR3NJ8WS0SAA7D"
PUBLIC = "age12e5shxwwswhc3a0hzfv3tjs39tys098lr6795fhtfgx65yycg94q63s3se"
TO_PUBLIC = """
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSB5NVgraVdzZVQxVGduV0ZmVkpSejhzTjkyK1U0N1dXZzRNR3VFMnEr
RURNCjUwcWVvcmlQeGxhN3NYS0puVDh2Vi96eXhIeCtmenMzcFhpYlNMWjF5R00KLT4gOHwtZ3JlYXNlICNjU1kKZjlGNkZa
VUxUa3NtbTNyS252bkdyZDRLL3JiK3V3S3QxNUVQUy9PVUR4a0h0NElqc21VS3B0ZmRIeXBBcmo4eApSSHF5YktZZlEyMkN4
bG9yY2VsLy9QR25RSmw4amtJdSt0eGVJak5Pb1J0OWtpVTBhTHRWVnNKb0pDSjFIRWsKLS0tIDBrT3RLVkRBR2ZFSU9xaHZF
V1FZR2tmWkN1MzZkRFoxQW1aQmRpcTZkcE0KZBNava1rA7MrTmMGMJJcJR1cL9UepaQC0jrmN89evqFo4Kq3cvp4tH5RpmMV
T3lZzy6TG5lB14o=
"""
BY_PASSPHRASE = """
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBNejBuK1JpNHhPeklQcFZ6L1Avcm5nIDE2CnV3c21hQWJWeDZGTVdl
LzhiR2JiZ1VOY3NpSUwyRmhOUG00Q3VrVmp6dHcKLS0tIDVpeWtDeHJHMUFKYU1IWUpsZ1Exc1AyTGJGZnNxREtQK0h3cDVN
UTNaZ2MKmqazJ71+6YBOLtGjYWAhM4wIEysx++9yVD3pEfg+9yAAqRB+fNzXrl3Xo5J7
"""
KEY = Identity.generate()


def plain(*pieces, key=KEY):
    return b"".join(opened(pieces, key))


def cipher(*pieces, to=KEY.recipient):
    return b"".join(sealed(pieces, [to]))


def test_a_file_of_another_implementation_opens() -> None:
    identity = Identity.parse(f"# created: now\n{SECRET}\n")
    assert identity.recipient.name == PUBLIC
    assert identity.text == SECRET
    assert Recipient.parse(PUBLIC) == identity.recipient
    assert plain(base64.b64decode(TO_PUBLIC), key=identity) == b"a backup" * 3


def test_a_passphrase_file_of_another_implementation_opens() -> None:
    raw = base64.b64decode(BY_PASSPHRASE)
    assert plain(raw, key=Passphrase(b"correct horse battery staple")) == b"by passphrase"
    with pytest.raises(AgeInvalid):
        plain(raw, key=Passphrase(b"correct horse battery stapler"))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES]),
    st.lists(st.integers(1, 90_000), max_size=6),
    st.data(),
)
def test_what_goes_in_comes_out_however_it_is_cut(size: int, cuts: list[int], data) -> None:
    content = data.draw(st.binary(min_size=32, max_size=32)) * (size // 32 + 1)
    content = content[:size]

    def pieces(whole):
        at = 0
        for cut in cuts:
            yield whole[at : at + cut]
            at += cut
        yield whole[at:]

    raw = b"".join(sealed(pieces(content), [KEY.recipient]))
    assert b"".join(opened(pieces(raw), KEY)) == content


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_flipped_bit_and_no_cut_opens(data) -> None:
    raw = cipher(bytes(2 * CHUNK_BYTES + 5))
    at = data.draw(st.one_of(st.integers(0, 250), st.integers(0, len(raw) - 1)), label="byte")
    changed = bytearray(raw)
    changed[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    with pytest.raises(AgeInvalid):
        plain(bytes(changed))
    with pytest.raises(AgeInvalid):
        plain(raw[:at])


def test_chunks_left_out_at_the_end_are_missed() -> None:
    raw = cipher(bytes(3 * CHUNK_BYTES))
    head = len(raw) - 3 * (CHUNK_BYTES + 16)
    for kept in range(3):
        with pytest.raises(AgeInvalid):
            plain(raw[: head + kept * (CHUNK_BYTES + 16)])


@pytest.mark.parametrize("step", [1, -1], ids=["last", "first"])
def test_a_passphrase_stands_alone(step: int) -> None:
    word = Passphrase(b"correct horse", work=2)
    others = [Identity.generate().recipient, word][::step]
    raw = b"".join(sealed([b"text"], others))
    with pytest.raises(AgeInvalid, match="alone"):
        list(opened([raw], word))
    assert b"".join(opened([b"".join(sealed([b"text"], [word]))], word)) == b"text"


def test_only_whom_it_was_sealed_for_opens_it() -> None:
    other = Identity.generate()
    raw = b"".join(sealed([b"text"], [KEY.recipient, other.recipient]))
    assert plain(raw) == plain(raw, key=other) == b"text"
    with pytest.raises(AgeInvalid):
        plain(raw, key=Identity.generate())
    with pytest.raises(AgeInvalid):
        plain(raw, key=Passphrase(b"x"))
    assert plain(cipher(b"t", to=Passphrase(b"x", work=4)), key=Passphrase(b"x")) == b"t"


def test_a_key_tells_nothing_of_itself() -> None:
    assert KEY.text not in repr(KEY)
    assert "secret words" not in repr(Passphrase(b"secret words"))


@pytest.mark.parametrize("text", ["", "age1", PUBLIC.upper()[:-1], PUBLIC[:-1] + "q", SECRET])
def test_what_is_no_public_key_is_none(text: str) -> None:
    with pytest.raises(AgeInvalid):
        Recipient.parse(text)


@given(st.binary(max_size=60))
def test_bech32_round_trip(raw: bytes) -> None:
    assert bech32.decode("age", bech32.encode("age", raw)) == raw


@given(st.binary(max_size=300))
def test_noise_is_no_age_file(raw: bytes) -> None:
    with pytest.raises(AgeInvalid):
        plain(raw)
