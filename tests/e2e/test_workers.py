"""Two gateway processes on one port, and one audit service: they serve, die, hang and drain."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Self

import pytest

from sealgate import AsyncClient, SealgateError
from tests.e2e.conftest import House

MODEL = "smollm2-135m-instruct"
WORKERS = 2
SETTINGS = {
    "APPLIANCE_GATEWAY_WORKERS": str(WORKERS),
    "APPLIANCE_WORKER_SILENT_MAX_S": "5",
    "APPLIANCE_RESTART_PAUSE_S": "0.2",
}


def workers(house: House) -> set[int]:
    """The processes of the gateway: children of the mesh's own, by their command line."""
    launcher = house.process.pid
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return {int(pid) for pid in children if b"gateway.main" in cmdline(pid)}


def cmdline(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def connections(pid: int, port: int) -> int:
    """How many connections a process holds that came in by `port` (Linux, proc(5))."""
    established = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "01":
                established.add(f"socket:[{fields[9]}]")
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    return len(established & held)


def port_of(house: House) -> int:
    return int(house.facts["gateway"].rpartition(":")[2])


async def asked(client: AsyncClient, number: int = 0) -> int:
    """Ask a short question; return the place of the call's record."""
    result = await client.chat(f"Say {number}.", model=MODEL, max_tokens=4)
    return result.receipt.index


async def on_each_worker(house: House, clients: list[AsyncClient], retries: int = 0) -> set[int]:
    """Add clients, each with a connection of its own, until every worker holds one."""
    for _ in range(40):
        facts = house.facts
        clients.append(
            AsyncClient(facts["gateway"], tls=facts["tls"], vkey=house.vkey, retries=retries)
        )
        await asked(clients[-1])
        holders = {pid for pid in workers(house) if connections(pid, port_of(house))}
        if len(holders) == WORKERS:
            return holders
    pytest.fail("one worker got no connection")


async def until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    running = House(tmp_path_factory.mktemp("crowd"), "appliance.mesh", SETTINGS).start()
    yield running
    assert running.stop() == 0


async def closed(clients: list[AsyncClient]) -> None:
    await asyncio.gather(*(client.aclose() for client in clients))


async def test_both_serve_one_port_and_write_one_log(crowd) -> None:
    clients: list[AsyncClient] = []
    both = await on_each_worker(crowd, clients)
    assert both == workers(crowd)

    places = await asyncio.gather(*(asked(each, n) for n, each in enumerate(clients * 3)))

    assert len(set(places)) == len(places)
    # Durable at once, published up to a second later.
    await until(lambda: verified(crowd)["size"] > max(places))
    await closed(clients)


class Callers:
    """Ask over and over, each over its own connection, until told to stop."""

    def __init__(self, clients: list[AsyncClient]) -> None:
        self.answered: list[int] = []
        self.failed: list[SealgateError] = []
        self._clients = clients
        self._over = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._asking(each)) for each in self._clients]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _asking(self, client: AsyncClient) -> None:
        while not self._over:
            try:
                self.answered.append(await asked(client, len(self.answered)))
            except SealgateError as failure:
                self.failed.append(failure)
                await asyncio.sleep(0.1)

    async def some_more(self) -> None:
        goal = len(self.answered) + 2 * len(self._clients)
        await until(lambda: len(self.answered) >= goal)


@pytest.mark.parametrize(
    ("number", "retries"), [(signal.SIGTERM, 0), (signal.SIGKILL, 5), (signal.SIGSTOP, 5)]
)
async def test_calls_go_on_when_one_drains_dies_or_hangs_and_it_comes_back(
    crowd, number, retries
) -> None:
    """A drain costs nobody a call; a death those under way there, which are safe to send again."""
    clients: list[AsyncClient] = []
    before = await on_each_worker(crowd, clients, retries)
    victim, *others = before
    async with Callers(clients) as callers:
        await callers.some_more()
        os.kill(victim, number)
        if number != signal.SIGSTOP:  # whoever was connected to one that hangs waits for its end
            await callers.some_more()
        await until(lambda: victim not in workers(crowd))
        await until(lambda: len(workers(crowd)) == WORKERS)
        await callers.some_more()

    assert callers.failed == []
    assert set(others) <= workers(crowd)
    new: list[AsyncClient] = []
    await until(lambda: ready(crowd) == WORKERS)
    assert await on_each_worker(crowd, new) == workers(crowd)
    await closed([*clients, *new])


def ready(house: House) -> int:
    """How many workers say that they serve."""
    return len(list((house.data / "services").glob("gateway*/port")))


async def test_sigterm_under_load_loses_no_call_and_leaves_no_gap(crowd) -> None:
    clients: list[AsyncClient] = []
    await on_each_worker(crowd, clients)
    begun = asyncio.Semaphore(0)

    async def streamed(client: AsyncClient, number: int) -> int:
        question = f"Tell me a story about {number} ships."
        async with client.stream(question, model=MODEL, max_tokens=48) as stream:
            await anext(stream)
            begun.release()
            async for _ in stream:
                pass
        return stream.result.receipt.index

    streams = [
        asyncio.create_task(streamed(each, number)) for number, each in enumerate(clients * 2)
    ]
    for _ in streams:
        await begun.acquire()
    crowd.process.send_signal(signal.SIGTERM)
    places = await asyncio.gather(*streams)

    assert len(set(places)) == len(streams)
    assert await asyncio.to_thread(crowd.process.wait, 120) == 0
    assert verified(crowd)["size"] > max(places)
    await closed(clients)


def verified(house: House) -> dict:
    """What the log says of itself, once every leaf and checkpoint was verified."""
    log, vkey = house.data / "audit" / "log", house.data / "audit" / "vkey"
    told = house.cli("audit", "verify", "--log", str(log), "--vkey", str(vkey), "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    return json.loads(told.stdout)
