"""The parts that need no service: real server processes, real mTLS, real clocks."""

import asyncio
import json
import os
import subprocess
import sys
import time

import grpc
import pytest

from bench import echo, meter
from bench.children import ROOT, ChildFailedError, child
from bench.profile import calls_summary, summary


async def test_the_echo_answers_as_many_bytes_as_asked_and_is_metered():
    async with echo.echo_server(request_bytes=300, reply_bytes=512) as server:
        assert len(await server.call(0)) == 512
        run = await server.drive(in_flight=4, seconds=0.3)

    assert run.calls == len(run.latencies_s) >= 4
    assert 0 < run.spent.cpu_s <= run.spent.wall_s * 1.05 + 0.2  # two clocks, one after the other
    assert run.rate <= run.rate_per_cpu * 1.001
    assert max(run.latencies_s) < 30


async def test_the_echo_admits_nobody_without_a_certificate():
    async with echo.child_echo(echo.identities()) as process:
        port = (await process.told())["port"]
        ca = echo.FOLDER / "ca.pem"
        credentials = grpc.ssl_channel_credentials(ca.read_bytes())
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(echo.ECHO_METHOD)(b"\0\0\0\1", timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_is_gone_when_its_block_ends():
    async with echo.echo_server() as server:
        pid = server.pid
        assert meter.process_cpu_s(pid) > 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_server_that_fails_to_start_is_told_with_its_log():
    with pytest.raises(ChildFailedError, match=r"echo\.log"):
        async with child("echo", {}, pinned_to=None) as process:
            await process.told()


async def test_a_child_is_pinned_where_it_was_told():
    core = min(os.sched_getaffinity(0))
    async with echo.echo_server() as server:
        assert os.sched_getaffinity(server.pid) == {core}


async def test_load_and_server_keep_to_cores_of_their_own():
    usable = os.sched_getaffinity(0)
    try:
        echo.pin_load()
        async with echo.echo_server() as server:
            servers, load = os.sched_getaffinity(server.pid), os.sched_getaffinity(0)
    finally:
        os.sched_setaffinity(0, usable)
    assert len(servers) == len(load) == 1
    assert servers != load or len(usable) == 1


def test_the_cpu_clock_of_a_process_runs_with_its_work():
    before = meter.process_cpu_s(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert 0.045 < meter.process_cpu_s(os.getpid()) - before < 0.5


def test_foreign_work_on_the_core_does_not_count_against_the_server():
    before = meter.Reading(wall_s=100.0, cpu_s=5.0, core_busy_s=50.0)
    after = meter.Reading(wall_s=110.0, cpu_s=9.0, core_busy_s=58.0)
    spent = meter.between(before, after)
    assert (spent.cpu_s, spent.foreign_s, spent.available_s) == (4.0, 4.0, 6.0)
    assert spent.busy == pytest.approx(4 / 6)


def test_own_waiting_counts_against_the_server():
    spent = meter.between(meter.Reading(0.0, 0.0, 0.0), meter.Reading(10.0, 2.0, 2.0))
    assert (spent.available_s, spent.busy) == (10.0, 0.2)


def test_a_profile_boils_stacks_down_to_own_and_inclusive_time():
    imports = "main (m.py:1);exec_module (<frozen importlib._bootstrap_external>:940) 99"
    told = summary(["main (m.py:1);work (w.py:2) 30", "main (m.py:1);main (m.py:1) 10", imports])
    own, inclusive = told.split("inclusive")
    assert told.startswith("40 samples")
    assert " 75.0 %  work (w.py:2)" in own
    assert "100.0 %  main (m.py:1)" in inclusive


def test_counted_calls_come_out_per_request_by_package_and_function():
    told = calls_summary(
        [
            ("audit/a.py", "3 f", 20, 0.002),
            ("audit/b.py", "9 g", 10, 0.001),
            ("built-in", "h", 10, 0),
        ],
        requests=10,
    )
    assert told.startswith("4 function calls a request")
    assert "   300.0  audit\n" in told
    assert "   200.0     2.0  audit/a.py:3 f\n" in told


async def test_quick_run_writes_apart_from_published_figures(tmp_path):
    published = ROOT / "bench" / "results" / "latest.json"
    before = published.read_bytes() if published.exists() else None
    command = (sys.executable, "-m", "bench", "--quick", "--only", "echo_self_ratio")
    told = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=True
    )
    assert "echo_self_ratio" in told.stdout
    after = published.read_bytes() if published.exists() else None
    assert after == before
    figures = json.loads((published.parent / "unpublished.json").read_text())["figures"]
    assert figures["echo_self_ratio"]["value"] > 0


@pytest.mark.parametrize("flag", ["--only", "--profile"])
def test_an_unknown_figure_is_refused(flag):
    command = (sys.executable, "-m", "bench", flag, "no_such_figure")
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "no_such_figure" in told.stderr
