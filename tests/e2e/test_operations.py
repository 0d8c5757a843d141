"""Stops, crashes, lost neighbours, other people's eyes: what an operator lives through."""

import asyncio
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from meshkit.tlog import parse_checkpoint
from sealgate import AsyncClient, SealgateError, UnavailableError
from tests.e2e.conftest import House, files_in

ROOT = Path(__file__).parent.parent.parent
MODEL = "smollm2-135m-instruct"


def verified(house) -> dict:
    """The log as `sealgate audit verify` sees it."""
    log, vkey = house.data / "audit" / "log", house.data / "audit" / "vkey"
    told = house.cli("audit", "verify", "--log", str(log), "--vkey", str(vkey), "--json")
    assert told.returncode == 0, told.stdout
    return json.loads(told.stdout)


async def test_no_word_of_a_user_rests_anywhere_in_the_clear(house) -> None:
    canary = f"zebra{secrets.token_hex(6)}"
    async with house.client() as client:
        await client.chat(f"Repeat: {canary}", model=MODEL, max_tokens=24)
        last = await client.chat(
            f"Repeat again: {canary}", model=MODEL, max_tokens=24, temperature=0.5
        )
        with pytest.raises(SealgateError):
            await client.chat(f"{canary} AKIA" + "IOSFODNN7EXAMPLE", model=MODEL)
        with pytest.raises(SealgateError):
            await client.chat(canary, model=canary)
    async with asyncio.timeout(60):  # until it is published, and what was refused behind it
        while size_of(house) < last.receipt.index + 4:
            await asyncio.sleep(0.1)

    files = files_in(house.data)
    assert any(path.suffix == ".sealed" for path in files), "payloads are stored, or this is idle"
    assert [str(path) for path, raw in files.items() if canary.encode() in raw] == []


def size_of(house) -> int:
    """How many entries the newest checkpoint holds."""
    return parse_checkpoint((house.data / "audit" / "log" / "checkpoint").read_text()).size


@dataclass(frozen=True)
class Lived:
    """A house that was killed under load, served once more and was then told to stop."""

    house: House
    receipts: list
    records: list
    """What was told of each receipt's call after the kill."""
    late: list
    """The results of calls that were under way when it was told to stop."""
    verified: dict
    killed: Path
    """The audit service's folder as the kill left it."""


async def acknowledged_until_killed(house: House) -> list:
    receipts, running = [], True

    async def keep_asking(client, number: int) -> None:
        while running:
            try:
                prompt = f"Say {number}{secrets.token_hex(2)}."
                result = await client.chat(prompt, model=MODEL, max_tokens=3)
            except SealgateError:
                return
            receipts.append(result.receipt)

    async with house.client() as client:
        calls = [asyncio.create_task(keep_asking(client, number)) for number in range(8)]
        while len(receipts) < 30:
            assert not all(call.done() for call in calls), "each was refused before the kill"
            await asyncio.sleep(0.05)
        house.kill()
        running = False
        await asyncio.gather(*calls)
    return receipts


async def under_way_at_the_end(house: House) -> list:
    begun: list[str] = []

    async def ask(client, number: int):
        stream = client.stream(f"Tell me about the number {number}.", model=MODEL, max_tokens=60)
        begun.append(await anext(stream))
        pieces = [piece async for piece in stream]
        assert stream.result.text.endswith("".join(pieces))
        return stream.result

    async with house.client() as client:
        calls = [asyncio.create_task(ask(client, number)) for number in range(6)]
        while len(begun) < 6:
            await asyncio.sleep(0.01)
        house.process.send_signal(signal.SIGTERM)
        results = await asyncio.gather(*calls)
    assert await asyncio.to_thread(house.process.wait, 60) == 0
    return results


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lived(tmp_path_factory, topology):
    """Starts are dear here, so three tests look at one life."""
    folder = tmp_path_factory.mktemp("lived")
    house = House(folder / "own", topology).start()
    receipts = await acknowledged_until_killed(house)
    subprocess.run(["cp", "-a", house.data / "audit", folder / "killed"], check=True)
    await asyncio.to_thread(house.start)
    async with house.reader() as reader:
        records = [await reader.records(call_id=receipt.call_id) for receipt in receipts]
    late = await under_way_at_the_end(house)
    yield Lived(house, receipts, records, late, verified(house), folder / "killed")
    if house.process.poll() is None:
        house.kill()


def test_what_was_acknowledged_survives_kill_9(lived) -> None:
    assert len(lived.receipts) >= 30
    for receipt, records in zip(lived.receipts, lived.records, strict=True):
        assert [(r.phase.value, r.index) for r in records][-1] == ("outcome", receipt.index)
    assert lived.verified["size"] > max(receipt.index for receipt in lived.receipts)


def test_sigterm_lets_calls_under_way_finish(lived) -> None:
    assert len(lived.late) == 6
    assert all(result.receipt.index < lived.verified["size"] for result in lived.late)


def test_a_restored_older_disk_is_refused(lived) -> None:
    """The newest checkpoint is held by OpenBao: a log that is behind it must not go on."""
    now = lived.house.data / "audit"
    subprocess.run(["rm", "-rf", now], check=True)
    subprocess.run(["cp", "-a", lived.killed, now], check=True)

    with pytest.raises(AssertionError, match="audit log contradicts an earlier checkpoint"):
        lived.house.start()


async def test_a_dead_openbao_does_not_stop_calls_at_once_and_its_end_is_noticed(own_house) -> None:
    house = own_house()
    bao = json.loads((house.data / "ready.json").read_text())["openbao_pid"]
    async with house.client() as client:
        await client.chat("Hello", model=MODEL, max_tokens=3)
        os.kill(bao, signal.SIGKILL)
        result = await client.chat("Hello again", model=MODEL, max_tokens=3)
        assert result.receipt is not None
    assert house.stop() == 0


async def test_a_client_that_never_reads_holds_nobody_up(house) -> None:
    async with house.client() as slow, house.client() as quick:
        stuck = slow.stream("Write on and on about the sea.", model=MODEL, max_tokens=200)
        await anext(stuck)
        result = await asyncio.wait_for(quick.chat("Hi", model=MODEL, max_tokens=4), 60)
        await stuck.aclose()
    assert result.receipt is not None


async def test_an_unreachable_gateway_is_a_typed_error(house) -> None:
    facts = house.facts

    async with AsyncClient.from_folder("localhost:1", facts["tls"]) as client:
        with pytest.raises(UnavailableError):
            await client.chat("Hello", model=MODEL, timeout_s=10)


def commands() -> list[str]:
    """The `sealgate` commands of the README."""
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if "bin/sealgate" in line]


def test_the_readme_has_commands_to_try() -> None:
    assert len(commands()) >= 2


@pytest.mark.parametrize("command", commands())
def test_the_readmes_commands_work(house, command: str) -> None:
    words = shlex.split(command)[1:]
    at = {"localhost:50051": house.facts["gateway"], "var/appliance": str(house.data)}
    words = [re.sub("|".join(at), lambda found: at[found[0]], word) for word in words]
    told = house.cli(*words)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip()
