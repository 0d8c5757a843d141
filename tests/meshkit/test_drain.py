"""SIGTERM under load, to a process as production has it: calls under way finish, none is lost."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import grpc
import pytest

from meshkit.channel import Reaching, channel_to

SERVER = Path(__file__).with_name("drain_server.py")
CALLERS = 24


@pytest.fixture
async def process(server_ends, tmp_path):
    server_ends.write(tmp_path, "server")
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SERVER),
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(SERVER.parents[2])},
    )
    yield started
    if started.returncode is None:
        started.kill()
        await started.wait()


async def said(process):
    return json.loads(await asyncio.wait_for(process.stdout.readline(), 30))


async def caller(number, ours, results):
    """Call again and again until the server is gone; note how each call ended."""
    while True:
        try:
            if number % 2:
                await ours.unary_unary("/test.Slow/Unary")(b"x", timeout=60)
            else:
                pieces = [p async for p in ours.unary_stream("/test.Slow/Stream")(b"x", timeout=60)]
                assert len(pieces) == 6
        except grpc.aio.AioRpcError as failure:
            results.append(failure.code())
            return
        results.append(grpc.StatusCode.OK)


async def test_sigterm_under_load_loses_no_call(process, tenant_ends):
    port = (await said(process))["port"]
    results = []
    credentials = grpc.ssl_channel_credentials(tenant_ends.ca, tenant_ends.key, tenant_ends.chain)
    async with channel_to(f"localhost:{port}", credentials, Reaching()) as ours:
        callers = [asyncio.create_task(caller(i, ours, results)) for i in range(CALLERS)]
        async with asyncio.timeout(60):
            while len(results) < 2 * CALLERS:
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*callers), 60)
    told = await said(process)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    finished = results.count(grpc.StatusCode.OK)
    assert told == {"begun": finished, "ended": finished}
    assert finished >= 2 * CALLERS
    # Each caller's last call found the door closed: it never began.
    assert set(results) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert results.count(grpc.StatusCode.UNAVAILABLE) == CALLERS


async def test_a_drain_has_a_bound(serve, channel, tenant_ends):
    begun = asyncio.Event()

    async def forever(_request, _context):
        begun.set()
        await asyncio.sleep(60)

    def add_to(server):
        handler = grpc.unary_unary_rpc_method_handler(forever)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test.Slow", {"Unary": handler})]
        )

    loop = asyncio.get_running_loop()
    async with serve(add_to, drain_ms=200) as port:
        ours = channel(port, tenant_ends)
        call = ours.unary_unary("/test.Slow/Unary")(b"x")
        await begun.wait()
        left = loop.time()
    assert loop.time() - left < 30
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call
    await ours.close()
