"""What services tell of themselves waits for audit, reaches it once, and is never lost unseen."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from meshkit.contract import Document, Event, Reason, Refusal
from meshkit.counters import counters, gauges
from meshkit.journal import Journalling, journal

PATIENCE_S = 20.0
QUICK = Journalling(retry_ms=5, settle_ms=60_000)


class Recorder:
    """Takes what it gets, unless it is told to refuse."""

    def __init__(self):
        self.taken = []
        self.tries = 0
        self.refusing = None

    async def append(self, event):
        await self._take(event)

    async def archive(self, document):
        await self._take(document)

    async def _take(self, item):
        self.tries += 1
        await asyncio.sleep(0)
        if self.refusing is not None:
            raise Refusal(self.refusing)
        self.taken.append(item)

    @property
    def said(self):
        return [each.action if isinstance(each, Event) else each.kind for each in self.taken]


@asynccontextmanager
async def lost():
    """Yield a list; it gets the number of what was lost while the block ran."""
    before, found = counters().get("journal.lost", 0), []
    yield found
    found.append(counters().get("journal.lost", 0) - before)


async def until(holds):
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)


async def test_what_is_told_arrives_in_order() -> None:
    recorder = Recorder()
    async with lost() as gone, journal(recorder, QUICK) as book:
        book.note("service.start", detail={"service": "cache"})
        book.keep(Document("policy.compliance", b"1"), Document("policy.compliance", b"2"))
        book.note("service.stop", detail={"service": "cache"})
        await book.settled()

        assert recorder.said == [
            "service.start", "policy.compliance", "policy.compliance", "service.stop",
        ]  # fmt: skip
        assert book.waiting == 0
    assert gone == [0]
    assert dict(recorder.taken[0].detail) == {"service": "cache"}
    assert recorder.taken[0].tenant == ""


@pytest.mark.parametrize("reason", [Reason.AUDIT_DOWN, Reason.OVERLOADED, Reason.KEYS_DOWN])
async def test_audit_may_come_later_than_the_service(reason) -> None:
    """The same event is sent again: the log takes it once by its call id."""
    recorder = Recorder()
    recorder.refusing = reason
    sent = []
    append = recorder.append

    async def watched(event):
        sent.append(event)
        await append(event)

    recorder.append = watched
    async with lost() as gone, journal(recorder, QUICK) as book:
        book.note("service.start")
        await until(lambda: recorder.tries >= 3)
        assert gauges()["journal.waiting"] == 1
        recorder.refusing = None
        await book.settled()
    assert recorder.said == ["service.start"]
    assert len({event.call_id for event in sent}) == 1
    assert gone == [0]


async def test_what_audit_will_never_take_holds_up_nothing() -> None:
    recorder = Recorder()
    recorder.refusing = Reason.INVALID_FIELD
    async with lost() as gone, journal(recorder, QUICK) as book:
        book.keep(Document("model.manifest", b"far too large"))
        await book.settled()
        recorder.refusing = None
        book.note("service.start")
        await book.settled()
    assert recorder.said == ["service.start"]
    assert gone == [1]


async def test_what_finds_no_room_is_counted_and_nobody_waits() -> None:
    recorder = Recorder()
    recorder.refusing = Reason.AUDIT_DOWN
    settings = QUICK.model_copy(update={"waiting_max": 3})
    async with lost() as gone, journal(recorder, settings) as book:
        for _ in range(5):
            book.note("model.load")
        assert book.waiting == 3
        recorder.refusing = None
        await book.settled()
    assert recorder.said == ["model.load"] * 3
    assert gone == [2]


async def test_the_end_waits_for_audit_but_not_for_ever() -> None:
    recorder = Recorder()
    recorder.refusing = Reason.AUDIT_DOWN
    hasty = QUICK.model_copy(update={"settle_ms": 200})
    async with lost() as gone, asyncio.timeout(PATIENCE_S), journal(recorder, hasty) as book:
        book.note("service.start")
        book.note("service.stop")
    assert recorder.said == []
    assert gone == [2]


async def test_the_last_word_is_still_sent() -> None:
    recorder = Recorder()
    async with lost() as gone, journal(recorder, QUICK) as book:
        book.note("service.stop")
    assert recorder.said == ["service.stop"]
    assert gone == [0]


async def test_another_thread_may_tell() -> None:
    """Policies are loaded off the event loop."""
    recorder = Recorder()
    async with journal(recorder, QUICK) as book:
        await asyncio.to_thread(book.note, "policy.change")
        await until(lambda: recorder.said == ["policy.change"])
