"""Segments of the write-ahead log are laid out ahead of their use, where there is room."""

import pytest

from audit.log.disk import Disk
from audit.log.wal import Entry, Wal

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
    (tmp_path / "spare").write_bytes(bytes(SIZE))  # of an earlier run
    wal = opened(tmp_path, Cramped())
    wal.begin(0)
    wal.prepare()
    fill(wal, 12)
    assert not (tmp_path / "spare").exists()
    assert (tmp_path / "000000000001.wal").stat().st_size < SIZE
    assert opened(tmp_path).end == 12


class Meeting(Disk):
    """A disk that has something else happen right behind the next fsync."""

    then = None

    def sync(self, handle):
        super().sync(handle)
        then, self.then = self.then, None
        if then:
            then()


def test_a_segment_that_is_being_begun_is_not_laid_out_anew(tmp_path):
    disk = Meeting()
    wal = opened(tmp_path, disk)
    wal.begin(0)
    wal.prepare()
    fill(wal, 10)
    disk.then = wal.prepare  # the publisher's thread, while the appender's begins a segment
    fill(wal, 1)
    assert (tmp_path / "000000000001.wal").read_bytes()[:8] == b"SGWALS1\n"
    fill(wal, 1)
    assert opened(tmp_path).end == 12


class Faulty(Disk):
    """A disk that once cannot make names durable, nor take the new one back."""

    broken = False

    def sync_folder(self, path):
        if self.broken:
            raise OSError(5, "faulty")
        super().sync_folder(path)

    def unlink(self, path):
        if self.broken:
            raise OSError(5, "faulty")
        super().unlink(path)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_rotation_that_failed_leaves_nothing_that_hides_what_follows(tmp_path, ahead):
    disk = Faulty()
    wal = opened(tmp_path, disk)
    wal.begin(0)
    fill(wal, 2)
    if ahead:
        wal.prepare()
    disk.broken = True
    with pytest.raises(OSError, match="faulty"):
        wal.rotate()
    disk.broken = False
    fill(wal, 2)
    assert opened(tmp_path).end == 4
    fill(wal, 12)
    assert opened(tmp_path).end == 16
    wal.drop_before(14)
    assert opened(tmp_path).end == 16
