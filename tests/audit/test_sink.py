"""A disk that is slow, a collector that is dead: callers wait or are told; nothing is lost."""

import asyncio
import io
import logging
import time
from collections import Counter

import pytest
import structlog

from meshkit import counters
from meshkit.contract import Appended, Reason
from meshkit.logs import configure_logging
from meshkit.telemetry import Telemetry, root_span, telemetry
from tests.audit.test_durability import keys_in
from tests.audit.witness_world import until
from tests.audit.world import HeldDisk, make_event

EVENTS = 300
WAITING_MAX = 32


class Slow(HeldDisk):
    """A disk whose fsync takes 10 ms, or as long as it is held."""

    def sync(self, handle):
        time.sleep(0.01)
        super().sync(handle)


async def sent(audit, event, told):
    """Send an event until it is taken, as a producer does; count what it was told."""
    while True:
        (answer,) = await audit.append_many([event])
        if isinstance(answer, Appended):
            told["acked"] += 1
            return answer.index
        told[answer.reason] += 1
        assert answer.retry_after_ms
        await asyncio.sleep(answer.retry_after_ms / 1_000)


async def test_a_slow_disk_is_back_pressure_and_no_loss(world):
    told, disk = Counter(), Slow()
    async with world.open(
        disk, intake_events_max=WAITING_MAX, group_events_max=16, overloaded_retry_ms=5
    ) as audit:
        events = [make_event() for _ in range(EVENTS)]
        with disk.held():
            sending = asyncio.gather(*(sent(audit, event, told) for event in events))
            # Callers beyond the limit are told at once.
            await until(lambda: told[Reason.OVERLOADED] >= EVENTS - WAITING_MAX)
            assert audit.stats.waiting == WAITING_MAX
        places = await sending
        keys = keys_in(audit)
    assert told.keys() == {"acked", Reason.OVERLOADED}
    assert told["acked"] == EVENTS
    lost = [e for e, at in zip(events, places, strict=True) if keys[at] != (e.call_id, e.phase)]
    assert lost == []
    assert len(keys) == EVENTS + 1


@pytest.fixture
def lines(monkeypatch):
    """Fresh counts, and the log lines of this test."""
    monkeypatch.setattr(counters, "_counters", {})
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    configure_logging(stream=(said := io.StringIO()))
    yield said
    logging.getLogger().handlers = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


async def test_a_dead_collector_loses_spans_and_no_event(world, lines):
    """The audit path is not telemetry: nobody listens there, and every event is in the log."""
    dead = Telemetry(
        otlp_target="127.0.0.1:1", trace_sample_ratio=1, queue_spans_max=4, export_timeout_ms=100
    )
    async with telemetry(dead, service="audit"), world.open() as audit:
        for _ in range(50):
            with root_span("audit.append"):
                await audit.append(make_event())
        assert len(keys_in(audit)) == 50 + 1
    assert counters.counters()["telemetry.spans_lost"] >= 50 - 4
