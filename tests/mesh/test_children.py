"""Who starts processes also sees that they work: ended, hung and paused ones are started again."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.children import Child, ChildError
from meshkit.vault import WrappedAppRole

SERVICE = '''
"""A service that serves nobody; it beats as meshkit.member does, for as long as it is told."""
import os, signal, sys, time

ready = os.environ["SLEEPER_READY_FILE"]
beats = int(os.environ["SLEEPER_BEATS"])
lock = ours = None

def drain(*_):
    if os.path.exists(ready) and os.stat(ready).st_ino == ours:
        os.unlink(ready)
    time.sleep(float(os.environ["SLEEPER_DRAIN_S"]))
    if lock:
        os.unlink(lock)
    sys.exit(0)

if os.environ.get("SLEEPER_BROKEN"):
    sys.exit("Cannot start: it is broken")
if standby := os.environ.get("SLEEPER_STANDBY_FILE"):
    lock = os.path.join(os.path.dirname(ready), "writer")
    open(standby, "w").close()
    while os.path.exists(lock):
        time.sleep(0.02)
    open(lock, "w").close()
signal.signal(signal.SIGTERM, drain)
with open(ready + ".new", "w") as file:
    file.write("7")
os.rename(ready + ".new", ready)
ours = os.stat(ready).st_ino
while True:
    time.sleep(0.2)
    if beats and os.path.exists(ready):
        beats -= 1
        os.utime(ready)
'''
FOR_EVER = 1_000_000


async def login() -> WrappedAppRole:
    return WrappedAppRole("role", "token", "path")


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Make a child that falls silent after so many beats."""
    (tmp_path / "sleeper").mkdir()
    (tmp_path / "sleeper" / "main.py").write_text(SERVICE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def made(beats: int, drain_s: float = 0.0, *, standby: bool = False) -> Child:
        return Child(
            service="sleeper",
            folder=tmp_path / "folder",
            settings={"SLEEPER_BEATS": str(beats), "SLEEPER_DRAIN_S": str(drain_s)},
            login=login,
            pause_s=0.05,
            silent_max_s=2.0,
            standby=standby,
        )

    return made


async def watched_until(child: Child, seconds: float, starts: int) -> None:
    """Watch a child until it was started so often, or so long."""
    watching = asyncio.create_task(child.watched())
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while child.starts < starts or not child.serving:
                await asyncio.sleep(0.05)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


async def test_one_that_beats_is_left_alone(child) -> None:
    beating = child(FOR_EVER)
    await beating.start()
    await watched_until(beating, 5, starts=2)
    assert beating.starts == 1
    await beating.stop()


async def test_one_that_hangs_is_killed_and_started_again(child) -> None:
    hanging = child(3)
    await hanging.start()
    first = hanging.pid
    await watched_until(hanging, 20, starts=2)
    assert hanging.starts == 2
    assert hanging.pid != first
    assert not Path(f"/proc/{first}").exists()
    await hanging.stop()


async def test_one_that_is_paused_is_killed_and_started_again(child) -> None:
    paused = child(FOR_EVER)
    await paused.start()
    os.kill(paused.pid, signal.SIGSTOP)
    await watched_until(paused, 20, starts=2)
    assert paused.starts == 2
    await paused.stop()


async def test_one_that_drains_for_long_is_not_taken_for_hung(child) -> None:
    draining = child(FOR_EVER, drain_s=4.0)
    await draining.start()
    before = asyncio.get_running_loop().time()
    os.kill(draining.pid, signal.SIGTERM)
    draining.settings = {**draining.settings, "SLEEPER_DRAIN_S": "0"}  # of the next one
    await watched_until(draining, 20, starts=2)
    assert asyncio.get_running_loop().time() - before >= 4.0
    await draining.stop()


async def test_one_that_is_replaced_drains_once_the_other_serves(child) -> None:
    first = child(FOR_EVER, drain_s=0.5)
    await first.start()
    old = first.pid
    watching = asyncio.create_task(first.watched())
    replacing = asyncio.create_task(first.replaced())
    while first.pid == old:
        assert Path(f"/proc/{old}").exists()
        assert first.serving
        await asyncio.sleep(0.01)
    assert first.serving
    await replacing

    assert not Path(f"/proc/{old}").exists()
    assert first.serving
    await asyncio.sleep(0.3)  # whoever watches takes the end of the old one for no failure
    assert first.starts == 2
    watching.cancel()
    await asyncio.wait([watching])
    await first.stop()


async def test_one_whose_successor_does_not_come_up_goes_on(child) -> None:
    first = child(FOR_EVER)
    await first.start()
    old = first.pid
    first.settings = {**first.settings, "SLEEPER_BROKEN": "yes"}
    with pytest.raises(ChildError, match="it is broken"):
        await first.replaced()

    assert first.pid == old
    assert first.serving
    await first.stop()


async def test_a_successor_that_must_be_alone_waits_for_the_first_to_let_go(child) -> None:
    """Its file says that it stands by; the first is not told to end before."""
    first = child(FOR_EVER, drain_s=0.5, standby=True)
    await first.start()
    old = first.pid
    await first.replaced()

    assert first.pid != old
    assert first.serving
    assert not Path(f"/proc/{old}").exists()
    await first.stop()
    assert not (first.folder / "writer").exists()


async def test_a_stop_during_a_replacement_leaves_nobody_behind(child) -> None:
    first = child(FOR_EVER, drain_s=0.3)
    await first.start()
    old = first.pid
    replacing = asyncio.create_task(first.replaced())
    while first.pid == old:
        await asyncio.sleep(0.01)
    new = first.pid
    replacing.cancel()
    await asyncio.wait([replacing])
    await first.stop()

    for pid in (old, new):
        assert not Path(f"/proc/{pid}").exists()
