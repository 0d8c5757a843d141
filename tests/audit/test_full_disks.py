"""Real file systems of 64 KiB that are full: closed, alarmed, and open again with space.

Each part of the log is put on one of its own. CT's Mammoth2024h1 filled its disk, and its log had
to be retired. (OpenBao's own audit disk: tests/keys/test_lifetimes.py.)
"""

import asyncio
import os
import subprocess
import time
from contextlib import ExitStack, contextmanager

import pytest

from bench.parts import MemoryKeys
from meshkit.contract import Appended, Reason
from meshkit.counters import counters
from meshkit.envelope import keyring
from meshkit.files import read_or_none
from meshkit.tlog import check_log
from meshkit.wrapped_keys import FolderWrappedKeys
from tests.audit.test_durability import keys_in
from tests.audit.world import make_outcome

EVENTS_MAX = 400
LIMIT_S = 20


@contextmanager
def tmpfs(folder):
    """Mount 64 KiB on a folder, which is made; yield how to make that a mebibyte."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        yield lambda: subprocess.run(
            ["mount", "-o", "remount,size=8m", str(folder)], check=True, capture_output=True
        )
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small():
    with ExitStack() as mounted:
        yield lambda folder: mounted.enter_context(tmpfs(folder))


async def until(holds):
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.005)


async def filled(audit, acked):
    """Append until one is refused; return that refusal and when it came."""
    for _ in range(EVENTS_MAX):
        event = make_outcome()
        (answer,) = await audit.append_many([event])
        if not isinstance(answer, Appended):
            return answer
        acked.append((event, answer.index))
    raise AssertionError


async def holds(world, acked):
    """Start again; every acknowledged event is there, once, and the log verifies."""
    async with world.open() as audit:
        again = await audit.append_many([event for event, _ in acked])
        assert [answer.index for answer in again] == [index for _, index in acked]
        keys_in(audit)
    checked = check_log(lambda path: read_or_none(world.log / path), world.vkey)
    assert checked.size > len(acked)


async def test_a_full_write_ahead_log_refuses_alarms_and_goes_on_with_space(world, small):
    enlarge, acked, before = small(world.data / "wal"), [], counters().get("audit.not_durable", 0)
    async with world.open(segment_bytes_max=16_000, publish_interval_ms=60_000) as audit:
        refusal = await filled(audit, acked)
        assert refusal.reason is Reason.AUDIT_DOWN
        assert counters()["audit.not_durable"] > before, "the refusal is the alarm's moment"
        enlarge()
        event = make_outcome()
        (answer,) = await audit.append_many([event])
        assert answer.index == acked[-1][1] + 1
        acked.append((event, answer.index))
    await holds(world, acked)


@pytest.mark.parametrize("part", ["log", "payloads"])
async def test_where_tiles_or_payloads_find_no_room_acks_go_on_and_publishing_alarms(
    world, small, part
):
    enlarge, acked, before = small(world.data / part), [], counters().get("audit.publish_failed", 0)
    async with world.open() as audit:
        start = time.perf_counter()
        while counters().get("audit.publish_failed", 0) == before:
            event = make_outcome()
            (answer,) = await audit.append_many([event])
            acked.append((event, answer.index))
            assert len(acked) < EVENTS_MAX * 10
            await asyncio.sleep(0.001)
        assert time.perf_counter() - start < LIMIT_S
        stuck = audit.stats.published
        (answer,) = await audit.append_many([make_outcome()])
        assert isinstance(answer, Appended), "acks do not wait for tiles"
        assert audit.stats.published == stuck
        check_log(lambda path: read_or_none(world.log / path), world.vkey)
        enlarge()
        await until(lambda: audit.stats.published == audit.stats.durable)
    await holds(world, acked)


async def test_without_room_for_a_data_key_nothing_is_sealed_and_nothing_acknowledged(world, small):
    folder = world.folder / "keys"
    enlarge = small(folder)
    ballast = folder / "ballast"
    async with keyring(MemoryKeys(), FolderWrappedKeys(folder)) as sealer:
        world.sealer = sealer
        async with world.open() as audit:
            with pytest.raises(OSError, match="No space"):
                ballast.write_bytes(bytes(1 << 17))
            durable = audit.stats.durable
            (answer,) = await audit.append_many([make_outcome(tenant="umbrella")])
            assert answer.reason in {Reason.KEYS_DOWN, Reason.AUDIT_DOWN}
            assert audit.stats.durable == durable
            enlarge()

            async def taken():
                (answer,) = await audit.append_many([make_outcome(tenant="umbrella")])
                return isinstance(answer, Appended)

            async with asyncio.timeout(LIMIT_S):
                while not await taken():
                    await asyncio.sleep(0.05)
    assert list(folder.glob("umbrella/*/*.json"))
