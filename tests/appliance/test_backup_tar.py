"""A backup's tar stream from somebody else: nothing in it leads elsewhere, or ends otherwise."""

import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.backup_tar import BackupInvalid, Packer, read_members


def packed(*files):
    packer = Packer(io.BytesIO())
    raw = b"".join(piece for name, content in files for piece in packer.data(name, content))
    return raw + b"".join(packer.end())


WHOLE = packed(("a/b", b"one"), ("c", bytes(5_000)))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up", "a/../../b", "a//b", "./a", "a/.", "a\nb", "a\x1b[2Jb"]
)
def test_no_name_leads_elsewhere_or_says_more_than_a_name(name: str) -> None:
    with pytest.raises(BackupInvalid, match="no plain file"):
        list(read_members(iter([packed((name, b"x"))]), lambda _: None, io.BytesIO()))


def headers(kind, **fields):
    """A stream whose first member is of another kind than a file, and none behind it."""
    info = tarfile.TarInfo("a")
    info.type, info.size = kind, fields.pop("size", 0)
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(10_240)


@pytest.mark.parametrize(
    "raw",
    [
        headers(tarfile.SYMTYPE, linkname="/etc/passwd"),
        headers(tarfile.LNKTYPE, linkname="../../etc/passwd"),
        headers(tarfile.DIRTYPE),
        headers(tarfile.CHRTYPE),
        headers(tarfile.FIFOTYPE),
        headers(tarfile.CONTTYPE),
        headers(
            tarfile.REGTYPE, size=512,
            pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)},
        ),
        headers(tarfile.REGTYPE, size=512, pax_headers={"GNU.sparse.map": "x,y"}),
        headers(tarfile.REGTYPE, size=512, pax_headers={"size": "-1"}),
        headers(tarfile.REGTYPE, size=1 << 60),
    ],
    ids=["symlink", "hardlink", "folder", "device", "fifo", "contiguous", "sparse", "sparse map",
         "negative", "endless"],
)  # fmt: skip
def test_what_is_no_plain_file_is_refused_before_a_byte_of_it_is_written(raw) -> None:
    class Nowhere(io.BytesIO):
        def write(self, data):
            assert len(data) <= 10_240
            return len(data)

    with pytest.raises(BackupInvalid):
        list(read_members(iter([raw]), lambda _: Nowhere(), io.BytesIO()))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_stream_is_refused_as_a_backup_and_never_otherwise(data) -> None:
    raw = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    kept = {}

    def keep(name):
        kept[name] = io.BytesIO()
        return kept[name]

    with suppress(BackupInvalid):
        list(read_members(iter([bytes(raw)]), keep, io.BytesIO()))
    assert not [name for name in kept if name.startswith("/") or ".." in name.split("/")]
