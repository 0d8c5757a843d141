"""Blocking work is done in its order, its end is told to who waits, and no bug ends the thread."""

import asyncio
import threading

import pytest

from meshkit.work_threads import WorkThreads


async def test_what_work_returns_or_raises_is_told_to_who_waits():
    with WorkThreads("here") as threads:
        assert await threads.do(lambda: threading.current_thread().name) == "here_0"
        with pytest.raises(ZeroDivisionError):
            await threads.do(lambda: 1 // 0)
        assert await threads.do(lambda: 2) == 2


async def test_one_thread_does_all_in_the_order_in_which_it_came():
    done = []
    with WorkThreads("here") as threads:
        for number in range(100):
            threads.begin(lambda number=number: done.append(number))
        await threads.do(lambda: done.append(100))
        assert done == list(range(101))


async def test_several_threads_work_at_a_time():
    met = threading.Barrier(3, timeout=30)
    with WorkThreads("here", 3) as threads:
        await asyncio.gather(*(threads.do(met.wait) for _ in range(3)))


async def test_who_is_cancelled_stops_no_work_that_was_begun_and_all_that_was_not():
    begun, go_on, done = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        go_on.wait(30)
        done.append("first")

    with WorkThreads("here") as threads:
        waiting = [asyncio.create_task(threads.do(first))]
        waiting.append(asyncio.create_task(threads.do(lambda: done.append("second"))))
        await asyncio.to_thread(begun.wait, 30)
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        go_on.set()
        await threads.do(lambda: done.append("third"))
    assert all(one.cancelled() for one in waiting)
    assert done == ["first", "third"]


async def test_a_bug_that_nobody_waits_for_ends_no_thread():
    with WorkThreads("here") as threads:
        threads.begin(lambda: 1 // 0)
        assert await threads.do(lambda: "on") == "on"


async def test_leaving_waits_for_what_was_given():
    done, go_on = [], threading.Event()
    with WorkThreads("here") as threads:
        threads.begin(lambda: go_on.wait(30))
        threads.begin(lambda: done.append("last"))
        go_on.set()
    assert done == ["last"]


async def test_what_is_given_after_the_end_is_refused_not_forgotten():
    with WorkThreads("here") as threads:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        await threads.do(lambda: None)
    with pytest.raises(RuntimeError, match="closed"):
        threads.begin(lambda: None)
