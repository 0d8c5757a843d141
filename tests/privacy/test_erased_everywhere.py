"""After an erasure nothing brings the text back, but what is told here."""

from __future__ import annotations

import asyncio
import json
import shutil

import grpc
import pytest

from appliance.backup_openbao import operator_of, restore_snapshot
from appliance.openbao import OpenBaoSettings, openbao
from meshkit.contract import CachedAnswer, CacheMiss
from meshkit.tlog import check_proof
from sealgate.cli import main as cli
from sealgate.errors import DeniedError, HeldError, NotFoundError, UnavailableError
from sealgate.v1 import cache_pb2
from sealgate.v1.cache_pb2_grpc import CacheServiceStub
from tests.audit.world import ANSWER
from tests.cache.conftest import ended, question, released
from tests.mesh.conftest import DOMAIN, service_id
from tests.privacy.conftest import TENANT, call

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOLDERS = ("payloads", "keys")


def asked(subject):
    return question(tenant=TENANT, subject=subject)


async def cached(office, subject):
    """Ask both replicas, so that each has the answer in its own L1."""
    for cache in office.caches:
        made = asked(subject)
        found = await cache.get(made)
        if isinstance(found, CacheMiss):
            await cache.put(made, found.lease, released(made), ended())
    return [type(await cache.get(asked(subject))) for cache in office.caches]


async def said(payloads, call_id):
    return [kept.released for kept in await payloads.read(call_id) if kept.released]


async def test_live_and_in_every_cache_it_is_gone_and_proven(office, bao) -> None:
    async with office.live(bao) as (log, port), office.officer(port) as payloads:
        mine, other = await call(log, "p-17"), await call(log, "p-18")
        assert await said(payloads, mine) == [ANSWER]
        assert [kept.released async for kept in payloads.export("p-17")][-1] == ANSWER
        for subject in ("p-17", "p-18"):
            assert await cached(office, subject) == [CachedAnswer, CachedAnswer]

        erased = await payloads.erase("p-17")

        assert (erased.payloads, erased.keys, erased.cached) == (2, 1, 1)
        for cache in office.caches:
            assert isinstance(await cache.get(asked("p-17")), CacheMiss)
            assert isinstance(await cache.get(asked("p-18")), CachedAnswer)
        with pytest.raises(NotFoundError):
            await payloads.read(mine)
        assert [kept async for kept in payloads.export("p-17")] == []
        assert await said(payloads, other) == [ANSWER]
        assert len(await log.records(TENANT, call_id=mine)) == 2
        assert check_proof(erased.proof, office.world.vkey).index == erased.index


async def test_neither_a_backup_nor_a_snapshot_brings_it_back_only_all_of_them_do(
    office, bao, tmp_path
) -> None:
    """Payloads and a live OpenBao; an OpenBao put back alone; and, honestly, with the key files."""
    data = office.world.data
    async with office.live(bao) as (log, port), office.officer(port) as payloads:
        mine = await call(log, "p-17")
        await said(payloads, mine)
        async with operator_of(bao.data) as operator:
            await operator.snapshot(tmp_path / "raft.snap")
        _ = [kept async for kept in payloads.export("p-17")]  # all is moved where backups find it
        for name in FOLDERS:
            shutil.copytree(data / name, tmp_path / f"{name}-backup")
        await payloads.erase("p-17")

    restore(data, tmp_path, "payloads")
    async with office.live(bao) as (_, port), office.officer(port) as payloads:
        with pytest.raises(NotFoundError):
            await payloads.read(mine)

    again = tmp_path / "bao-again"
    again.mkdir(mode=0o700)
    for name in ("seal.key", "operator.json"):
        shutil.copy2(bao.data / name, again / name)
    await restore_snapshot(again, tmp_path / "raft.snap")
    async with openbao(OpenBaoSettings(data=again, stop_ms=500)) as restored:
        async with office.live(restored) as (_, port), office.officer(port) as payloads:
            with pytest.raises(NotFoundError):
                await payloads.read(mine)
        restore(data, tmp_path, "keys")
        async with office.live(restored) as (_, port), office.officer(port) as payloads:
            assert await said(payloads, mine) == [ANSWER]


def restore(data, backups, name):
    shutil.rmtree(data / name)
    shutil.copytree(backups / f"{name}-backup", data / name)


async def test_an_answer_for_one_subject_is_never_another_s(office) -> None:
    for cache in office.caches:
        await cached(office, "p-1")
        for other in ("p-2", ""):
            found = await cache.get(asked(other))
            assert isinstance(found, CacheMiss)
            await cache.abandon(asked(other), found.lease)


async def test_a_cache_that_cannot_be_reached_leaves_the_erasure_open(office, bao) -> None:
    reachable, office.ports, office.purge_s = office.ports, [*office.ports, 1], 0.3
    async with (
        office.live(bao, erasure_retry_s=3_600) as (log, port),
        office.officer(port) as payloads,
    ):
        mine = await call(log, "p-17")
        with pytest.raises(UnavailableError):
            await payloads.erase("p-17")
        with pytest.raises(NotFoundError):
            await payloads.read(mine)
        assert told(log, "subject.erase") == 0
    office.ports, office.purge_s = reachable, 10
    async with office.live(bao) as (log, _):
        assert told(log, "subject.erase") == 1


def told(log, action):
    """Count the events of an action."""
    leaves = [log.parts.leaf(index) for index in range(log.stats.durable)]
    return sum(f'"action":"{action}"'.encode() in leaf for leaf in leaves)


@pytest.mark.parametrize("who", ["assistant", "auditor", "nobody"])
async def test_only_a_privacy_officer_may_and_refusals_are_recorded(office, bao, who) -> None:
    uri = f"spiffe://{DOMAIN}/tenant/{TENANT}/{who}"
    async with office.live(bao) as (log, port), office.officer(port, uri) as payloads:
        mine = await call(log, "p-17")
        tries = (
            payloads.read(mine),
            payloads.erase("p-17"),
            payloads.set_hold("tenant", "", "case-7"),
            payloads.release_hold(bytes(16)),
            payloads.holds(),
            anext(aiter(payloads.export("p-17"))),
        )
        for attempt in tries:
            with pytest.raises(DeniedError):
                await attempt
        assert told(log, "access.refused") == len(tries)
        assert told(log, "subject.erase") == 0


async def test_an_officer_has_no_say_over_another_tenant(office, bao) -> None:
    async with office.live(bao) as (_, port), office.officer(port) as payloads:
        for attempt in (
            payloads.erase("p-17", tenant="acme"),
            payloads.holds(tenant="acme"),
            payloads.read(bytes(16), tenant="Not A Label"),
        ):
            with pytest.raises(DeniedError):
                await attempt


@pytest.mark.parametrize("who", ["inference", "compliance"])
async def test_no_other_service_purges(office, who) -> None:
    holder = office.host.holder(service_id(who))
    async with grpc.aio.secure_channel(
        f"localhost:{office.ports[0]}", holder.channel_credentials()
    ) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await CacheServiceStub(channel).Purge(cache_pb2.PurgeRequest(tenant=TENANT))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_commands_of_the_docs_work(office, bao, tmp_path, capsys) -> None:
    made = office.host.authority.issue(f"spiffe://{DOMAIN}/tenant/{TENANT}/privacy")
    tls = tmp_path / "tls-privacy"
    tls.mkdir()
    for name, pem in (
        ("ca.pem", made.peer_ca_pem), ("client.pem", made.chain_pem), ("client.key", made.key_pem),
    ):  # fmt: skip
        (tls / name).write_bytes(pem)

    async with office.live(bao) as (log, port), office.officer(port) as payloads:
        mine = await call(log, "p-17")

        async def run(*words):
            where = ["--target", f"localhost:{port}", "--tls", str(tls), "--json"]
            code = await asyncio.to_thread(cli, ["audit", *words, *where])
            lines = capsys.readouterr().out.splitlines()
            return code, [json.loads(line) for line in lines if line.startswith("{")]

        code, told = await run("payload", "--call", mine.hex())
        assert (code, told[-1]["released"]) == (0, ANSWER)
        code, told = await run("export-subject", "--subject", "p-17", "--out", str(tmp_path / "e"))
        assert (code, told[-1]["payloads"]) == (0, 2)
        assert ANSWER in (tmp_path / "e").read_text()
        hold = ("--on", "subject", "--value", "p-17", "--reference", "case-2026-17")
        code, (set_, *_) = await run("hold", "set", *hold)
        assert code == 0
        erase = ("erase", "--subject", "p-17", "--out", str(tmp_path / "proofs"))
        code, told = await run(*erase)
        assert (code, told[-1]["reason"]) == (1, "HELD")
        assert (await run("hold", "list"))[1] == [set_]
        assert (await run("hold", "release", set_["id"]))[0] == 0
        code, told = await run(*erase)
        assert (code, told[-1]["payloads"]) == (0, 2)
        text = (tmp_path / "proofs" / told[-1]["proof"].rpartition("/")[2]).read_text()
        assert check_proof(text, office.world.vkey).index == told[-1]["index"]
        await payloads.set_hold("tenant", "", "case-8")
        with pytest.raises(HeldError):
            await payloads.erase("p-17")
