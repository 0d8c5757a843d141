"""Segments of the write-ahead log are laid out ahead of their use, where there is room."""

import pytest

from audit.disk import Disk
from audit.wal import Entry, Wal

SIZE = 100_000


class Cramped(Disk):
    """A disk with room for two segments."""

    def free(self, _folder):
        return 2 * SIZE


def opened(folder, disk=None):
    wal = Wal(disk or Disk(), folder, segment_bytes_max=SIZE)
    wal.recover()
    return wal


def fill(wal, groups):
    for number in range(groups):
        wal.append([Entry(b"leaf %d" % number, bytes(10_000))])


def test_groups_overwrite_zeros_and_the_size_of_the_file_stands(tmp_path):
    wal = opened(tmp_path)
    wal.begin(0)
    sizes = set()
    for _ in range(8):
        fill(wal, 1)
        sizes.add((tmp_path / "000000000000.wal").stat().st_size)
    assert sizes == {SIZE}
    assert opened(tmp_path).end == 8


def test_the_next_segment_is_laid_out_once_and_taken(tmp_path):
    wal = opened(tmp_path)
    wal.begin(0)
    assert not (tmp_path / "spare").exists()
    wal.prepare()
    made = (tmp_path / "spare").stat()
    wal.prepare()
    assert (tmp_path / "spare").stat().st_mtime_ns == made.st_mtime_ns
    fill(wal, 12)
    assert not (tmp_path / "spare").exists()
    assert (tmp_path / "000000000001.wal").stat().st_ino == made.st_ino
    assert opened(tmp_path).end == 12


@pytest.mark.parametrize("left", [b"", bytes(SIZE), b"\xffSGWAL1\n" + bytes(SIZE)])
def test_what_an_earlier_run_laid_out_is_not_trusted(tmp_path, left):
    (tmp_path / "spare").write_bytes(left)
    wal = opened(tmp_path)
    wal.begin(0)
    fill(wal, 3)
    assert (tmp_path / "000000000000.wal").stat().st_size == SIZE
    assert opened(tmp_path).end == 3


def test_without_room_segments_grow_as_they_are_written(tmp_path):
    wal = opened(tmp_path, Cramped())
    wal.begin(0)
    wal.prepare()
    fill(wal, 12)
    assert not (tmp_path / "spare").exists()
    assert (tmp_path / "000000000001.wal").stat().st_size < SIZE
    assert opened(tmp_path).end == 12
