"""A sealed file opens where it was sealed, whole, or not at all."""

import io
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.store.errors import Fault, ModelFileError
from inference.store.manifest import FileDigest
from inference.store.sealing import ModelSeal, Sealer, sealed_size
from meshkit.sealing import OVERHEAD_BYTES, new_key_id

CHUNK = 1_024
RECORD = CHUNK + OVERHEAD_BYTES
SEALER = Sealer(ModelSeal("wrapped", new_key_id(0), CHUNK), b"k" * 32, b"m" * 32)


def file_of(content: bytes, path: str = "a.gguf") -> FileDigest:
    return FileDigest(path, sha256(content).hexdigest(), len(content))


def sealed(content: bytes, path: str = "a.gguf", sealer: Sealer = SEALER) -> bytes:
    return b"".join(sealer.sealed(file_of(content, path), io.BytesIO(content)))


def opened(raw: bytes, file: FileDigest, sealer: Sealer = SEALER) -> bytes:
    return b"".join(sealer.opened(file, io.BytesIO(raw)))


def is_refused(raw: bytes, file: FileDigest, sealer: Sealer = SEALER) -> bool:
    with pytest.raises(ModelFileError) as caught:
        opened(raw, file, sealer)
    return caught.value.fault is Fault.SEAL


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7])
def test_what_was_sealed_is_what_is_opened(size) -> None:
    content = bytes(n % 251 for n in range(size))
    raw = sealed(content)

    assert len(raw) == sealed_size(size, CHUNK)
    assert opened(raw, file_of(content)) == content
    assert raw != sealed(content), "never the same twice"
    assert content[:32] not in raw or size < 32, "too short to be sure"


CONTENT = bytes(n % 251 for n in range(3 * CHUNK + 7))
RAW = sealed(CONTENT)
CHUNKS = [RAW[at : at + RECORD] for at in range(0, len(RAW), RECORD)]


@pytest.mark.parametrize(
    "order", [(1, 0, 2, 3), (0, 0, 2, 3), (0, 2, 1, 3), (0, 1, 2), (0, 1, 3), (1, 2, 3), ()]
)
def test_chunks_out_of_place_do_not_open(order) -> None:
    assert is_refused(b"".join(CHUNKS[n] for n in order), file_of(CONTENT))


def test_a_file_that_was_cut_off_between_two_chunks_does_not_open() -> None:
    """Even if the manifest were to say that it ends there: what opens must be sealed as the end."""
    assert is_refused(b"".join(CHUNKS[:3]), file_of(CONTENT[: 3 * CHUNK]))
    assert is_refused(CHUNKS[0], file_of(CONTENT[:CHUNK]))


def test_a_file_goes_on_no_longer_than_it_was() -> None:
    assert is_refused(RAW + b"\0", file_of(CONTENT))
    assert is_refused(RAW + CHUNKS[3], file_of(CONTENT))


def test_a_chunk_of_another_file_or_model_does_not_open() -> None:
    file = file_of(CONTENT)
    for other in (
        sealed(CONTENT, "b.gguf"),
        sealed(CONTENT, sealer=replace(SEALER, model_digest=b"n" * 32)),
        sealed(CONTENT, sealer=replace(SEALER, key=b"j" * 32)),
    ):
        assert is_refused(other, file)
        assert is_refused(CHUNKS[0] + other[RECORD:], file)
        assert is_refused(other[:RECORD] + RAW[RECORD:], file)


def test_names_do_not_run_into_one_another() -> None:
    """A chunk of `a` and one of `a` and more: the length of the name is bound as well."""
    assert is_refused(sealed(CONTENT, "a.ggufx"), file_of(CONTENT, "a.gguf"))


def test_what_is_no_data_key_opens_nothing() -> None:
    with pytest.raises(ModelFileError) as caught:
        replace(SEALER, key=b"short")
    assert caught.value.fault is Fault.SEAL


def test_a_file_that_is_shorter_than_stated_is_not_sealed() -> None:
    with pytest.raises(ModelFileError) as caught:
        list(SEALER.sealed(file_of(CONTENT), io.BytesIO(CONTENT[:-1])))
    assert caught.value.fault is Fault.SIZE


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(RAW) - 1), st.integers(0, 7))
def test_no_flipped_bit_survives(at: int, bit: int) -> None:
    broken = bytearray(RAW)
    broken[at] ^= 1 << bit
    assert is_refused(bytes(broken), file_of(CONTENT))
