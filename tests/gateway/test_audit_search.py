"""Searching over the wire: real TLS, real policies, a real log; whose records, and who hears."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from audit.app import audit_at
from meshkit.authorization import Authorizer
from meshkit.contract import Direction, FindingCount, Phase, TraceContext
from meshkit.server import Serving
from meshkit.tls import CertificateHolder
from sealgate.audit_client import AsyncAuditReader
from sealgate.audit_search import Search
from sealgate.cli import DONE, REFUSED, main
from sealgate.errors import DeniedError, InvalidRequestError
from tests.audit.world import World, make_event, make_intent, make_outcome
from tests.gateway.conftest import ASSISTANT, DOMAIN

AUDITORS = {tenant: f"spiffe://{DOMAIN}/tenant/{tenant}/auditor" for tenant in ("demo", "other")}
TRACE = TraceContext(trace_id=b"t" * 16, span_id=b"s" * 8)
FOUND = (
    FindingCount(direction=Direction.PROMPT, type="PERSON", subtype="", action="mask", count=1),
)


@pytest.fixture
def policies(policies):
    entities = json.loads((policies / "entities.json").read_text())
    entities.append(
        {
            "uid": {"type": "Sealgate::Workload", "id": AUDITORS["other"]},
            "attrs": {"tenant": {"__entity": {"type": "Sealgate::Tenant", "id": "other"}}},
            "parents": [{"type": "Sealgate::Role", "id": "auditor"}],
        }
    )
    (policies / "entities.json").write_text(json.dumps(entities))
    return policies


@pytest.fixture
def serve(authority, policies, tmp_path):
    """Return how to serve a log with some records: `async with serve() as (log, reader_of)`."""

    @asynccontextmanager
    async def served(**settings):
        holder = CertificateHolder(authority.issue(f"spiffe://{DOMAIN}/service/audit"))
        listening = SimpleNamespace(
            host="127.0.0.1",
            port=0,
            trust_domain=DOMAIN,
            call_budget_ms=10_000,
            serving=Serving(lame_duck_ms=0, drain_ms=1_000),
        )
        async with (
            World(tmp_path).open(**settings) as log,
            audit_at(listening, log, Authorizer(policies), holder, reads_per_s_max=1_000) as port,
        ):
            yield log, lambda uri: reader(authority, port, uri)

    return served


def reader(authority, port, uri):
    issued = authority.issue(uri)
    return AsyncAuditReader(
        f"localhost:{port}", ca=authority.pem, cert=issued.chain_pem, key=issued.key_pem
    )


async def indexes(reader, page_size=0, **wanted):
    found = reader.search(Search(**wanted), page_size=page_size)
    return [record.index async for record in found]


async def test_records_are_found_by_what_they_say_and_newest_first(serve):
    async with serve() as (log, reader_of), reader_of(AUDITORS["demo"]) as auditor:
        intent = await log.append(make_intent(tenant="demo", subject="patient 7", trace=TRACE))
        other = await log.append(make_outcome(tenant="demo", counts=FOUND, model="big"))
        refused = await log.append(make_event(Phase.OUTCOME, tenant="demo", outcome="BLOCKED"))
        foreign = await log.append(make_outcome(tenant="other", counts=FOUND, subject="patient 7"))
        ours = [refused.index, other.index, intent.index]

        assert (await indexes(auditor, phase=Phase.OUTCOME)) == ours[:2]
        assert foreign.index not in await indexes(auditor)
        assert await indexes(auditor, subject="patient 7") == [intent.index]
        assert await indexes(auditor, trace_id=b"t" * 16) == [intent.index]
        assert await indexes(auditor, verdict_type="PERSON") == [other.index]
        assert await indexes(auditor, verdict_type="PERSON", verdict_action="block") == []
        assert await indexes(auditor, model="big", outcome="released") == [other.index]
        assert await indexes(auditor, outcome="BLOCKED") == [refused.index]
        user = {"user": "ada", "actor": "spiffe://example.org/tenant/acme/app"}
        assert await indexes(auditor, **user, oldest_first=True) == ours[::-1]
        assert await indexes(auditor, user="bob") == []
        now = datetime.now(UTC)
        assert await indexes(auditor, since=now + timedelta(hours=1)) == []
        lately = {"since": now - timedelta(hours=1), "until": now + timedelta(hours=1)}
        assert set(ours) <= set(await indexes(auditor, **lately))


async def test_pages_neither_repeat_nor_leave_out(serve):
    async with (
        serve(search_scan_events_max=1, search_page_records_max=7) as (log, reader_of),
        reader_of(AUDITORS["demo"]) as auditor,
    ):
        for number in range(30):
            await log.append(make_outcome(tenant=("demo", "other")[number % 2], trace=TRACE))
        whole = await indexes(auditor, action="chat")
        assert len(whole) == 15
        assert whole == sorted(whole, reverse=True)
        for size in (1, 4, 1_000):
            assert await indexes(auditor, size, action="chat") == whole
        assert await indexes(auditor, 4, action="chat", oldest_first=True) == whole[::-1]
        records = await auditor.records(trace_id=TRACE.trace_id)
        assert [record.index for record in records] == whole[::-1]


async def test_only_auditors_search_and_only_their_own_tenant(serve):
    async with (
        serve() as (log, reader_of),
        reader_of(AUDITORS["demo"]) as auditor,
        reader_of(AUDITORS["other"]) as neighbour,
        reader_of(ASSISTANT) as assistant,
    ):
        for _ in range(3):
            await log.append(make_outcome(tenant="demo"))
        with pytest.raises(DeniedError):
            await indexes(neighbour, tenant="demo")
        with pytest.raises(DeniedError):
            await indexes(assistant)
        assert await indexes(neighbour, action="chat") == []

        page = await auditor._stub.Search(Search(action="chat").request(1, ""))
        stolen = Search(action="chat").request(1, page.next_page_token)
        assert len((await auditor._stub.Search(stolen)).records) == 1
        with pytest.raises(InvalidRequestError) as refused:
            await neighbour_page(neighbour, page.next_page_token)
        assert refused.value.field == "page_token"


async def neighbour_page(neighbour, token):
    from sealgate.audit_client import _told

    await _told(neighbour._stub.Search(Search(action="chat").request(1, token)))


async def test_a_search_is_recorded_without_what_was_searched_for(serve):
    async with serve() as (_, reader_of), reader_of(AUDITORS["demo"]) as auditor:
        await indexes(auditor, user="Ada Lovelace", outcome="BLOCKED")
        with pytest.raises(DeniedError):
            await indexes(auditor, tenant="other")
        searches = [
            json.loads(record.leaf)["event"]
            async for record in auditor.search(Search(action="log.search", oldest_first=True))
        ]
    first, second = searches
    assert first["detail"]["fields"] == "newest_first,outcome,user"
    assert (first["detail"]["count"], first["outcome"]) == ("0", "ok")
    assert second["outcome"] == "DENIED"
    assert "Lovelace" not in json.dumps(searches)


@pytest.fixture
def tls(authority, tmp_path):
    issued = authority.issue(AUDITORS["demo"])
    folder = tmp_path / "tls"
    folder.mkdir()
    for name, pem in (
        ("ca.pem", authority.pem),
        ("client.pem", issued.chain_pem),
        ("client.key", issued.key_pem),
    ):
        (folder / name).write_bytes(pem)
    return folder


async def test_the_command_line_prints_a_table_or_json(serve, tls, capsys):
    async with serve() as (log, reader_of):
        made = await log.append(make_outcome(tenant="demo", counts=FOUND))
        target = reader_of(AUDITORS["demo"])._connection.target
        reach = ["--target", target, "--tls", str(tls)]

        async def run(*words):
            code = await asyncio.to_thread(main, ["audit", "search", *words, *reach])
            return code, capsys.readouterr().out

        code, table = await run("--from", "1h", "--verdict", "PERSON:mask")
        assert code == DONE
        head, row = table.splitlines()
        assert head.startswith("index")
        assert row.split()[0] == str(made.index)
        assert "PERSON:mask" in row
        code, lines = await run("--outcome", "released", "--json", "--limit", "1")
        assert json.loads(lines)["leaf"]["event"]["model"] == "smollm2"
        assert (await run("--model", "none"))[1] == "no such record\n"
        assert (await run("--tenant", "other"))[0] == REFUSED
