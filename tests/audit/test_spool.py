"""Events that other programs leave for the service: recorded, or told that they are not."""

import asyncio

import pytest

from audit.records.spool import leave, record, spooling
from meshkit.contract import Reason, Refusal


class Recorder:
    """The log's `append`, which may refuse."""

    def __init__(self, refuses=None):
        self.refuses = refuses
        self.taken = []

    async def append(self, event, *, producer=None):
        if self.refuses is not None:
            raise Refusal(self.refuses)
        self.taken.append((event.action, producer))


async def left(folder, refuses, wait_s=30.0):
    """Leave an event while the service runs; return what its giver hears."""
    recorder = Recorder(refuses)
    async with spooling(recorder, folder):
        try:
            await asyncio.to_thread(record, folder, "backup.make", {"size": "1"}, wait_s)
        except Refusal as refusal:
            return refusal.reason, recorder.taken
    return None, recorder.taken


@pytest.mark.parametrize("reason", [Reason.INVALID_FIELD, Reason.CONFLICT, Reason.OVERLOADED])
async def test_what_was_refused_is_never_taken_for_recorded(tmp_path, reason) -> None:
    # What is only refused for now is given up by who left it.
    wait_s = 1.0 if reason is Reason.OVERLOADED else 30.0
    assert await left(tmp_path, reason, wait_s) == (Reason.AUDIT_DOWN, [])
    assert list((tmp_path / "pending").iterdir()) == []


async def test_what_was_recorded_is_told_so(tmp_path) -> None:
    assert await left(tmp_path, None) == (None, [("backup.make", None)])


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"action": "backup.make"}', b'{"action": []}',
                                 b'{"action": "backup.make", "detail": []}'])  # fmt: skip
async def test_nonsense_is_put_aside_and_what_stands_behind_it_is_recorded(tmp_path, raw) -> None:
    path = leave(tmp_path, "backup.make", {})
    (path.parent / "0.json").write_bytes(raw)
    recorder = Recorder()
    async with spooling(recorder, tmp_path):
        assert recorder.taken == [("backup.make", None)]
    assert [path.name for path in path.parent.iterdir()] == ["0.refused"]
