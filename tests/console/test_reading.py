"""What is shown, to whom, and that each reading of it is itself recorded."""

import json
import os
import re
import threading
import time
from types import SimpleNamespace

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from audit.records.events import parse_leaf
from audit.witness.app import serving_witness
from audit.witness.keys import WitnessKeys
from audit.witness.settings import WitnessSettings
from meshkit.tlog import ProofInvalid, check_proof
from tests.audit.witness_world import policy_lines
from tests.console.world import EVIL, a_call, house, token_in
from tests.ports import unused_port

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_record_is_shown_with_a_proof_that_anybody_can_check(console) -> None:
    call = (await a_call(console.log)).hex()
    await console.published()
    async with console.signed_in() as client:
        page = (await client.get(f"/calls/{call}/outcome")).text
        assert "Verified" in page
        assert "API Activity 6003" in page
        proof = await client.get(f"/calls/{call}/outcome/proof")
        vkey = (await client.get("/vkey")).text.strip()
    assert proof.headers["content-disposition"].endswith('.tlog-proof"')
    checked = check_proof(proof.text, vkey)
    assert json.loads(checked.leaf)["event"]["call_id"] == call
    with pytest.raises(ProofInvalid):
        check_proof(proof.text.replace("index ", "index 1"), vkey)


async def test_a_proof_that_does_not_hold_is_no_page_that_says_verified(
    console, monkeypatch
) -> None:
    call = (await a_call(console.log)).hex()
    await console.published()
    honest = console.log.inclusion

    async def lying(index, size):
        return tuple(bytes(32) for _ in await honest(index, size))

    monkeypatch.setattr(console.log, "inclusion", lying)
    async with console.signed_in() as client:
        reply = await client.get(f"/calls/{call}/outcome")
    assert reply.status_code == 500
    assert "Verified" not in reply.text


async def test_another_tenant_s_records_are_not_there(console) -> None:
    trace = os.urandom(16)
    theirs = await a_call(console.log, tenant="globex", user="eve", trace_id=trace)
    mine = await a_call(console.log, trace_id=trace)
    async with console.signed_in() as client:
        for path in (f"/calls/{theirs.hex()}", f"/calls/{theirs.hex()}/outcome/proof"):
            assert (await client.get(path)).status_code == 404
        for path in (f"/traces/{trace.hex()}", f"/search?trace={trace.hex()}"):
            page = (await client.get(path)).text
            assert mine.hex() in page
            assert theirs.hex() not in page
        assert "Nothing found" in (await client.get("/search?user=eve")).text
    async with console.signed_in(console.certificate("globex")) as client:
        assert (await client.get(f"/calls/{theirs.hex()}")).status_code == 200


async def test_every_reading_is_recorded_with_who_and_what_but_not_what_was_typed(console) -> None:
    call = (await a_call(console.log)).hex()
    async with console.signed_in() as client:
        await client.get(f"/calls/{call}")
        read = (await console.recorded("log.read"))[-1]
        assert read["detail"] == {"by": "console", "call": call, "count": "2"}
        assert read["actor"]
        await client.get("/search?user=grace&outcome=BLOCKED")
        sought = (await console.recorded("log.search"))[-1]
    assert sought["detail"] == {
        "by": "console",
        "count": "1",
        "fields": "newest_first,outcome,user",
    }
    assert "grace" not in json.dumps(sought)


async def test_a_search_finds_by_name_and_shows_only_the_name_that_was_typed(console) -> None:
    await a_call(console.log, user="heinrich.hertz")
    async with console.signed_in() as client:
        found = (await client.get("/search?user=heinrich.hertz")).text
        assert "2 records" in found
        assert found.count(">heinrich.hertz</span>") == 2
        every = (await client.get("/search?model=smollm2")).text
    assert "heinrich" not in every


async def test_a_search_goes_on_page_after_page_and_a_foreign_token_is_refused(tmp_path) -> None:
    from tests.console.world import house

    async with house(tmp_path, rows_max=2) as running:
        for _ in range(3):
            await a_call(running.log)
        async with running.signed_in() as client:
            seen, path = [], "/search?model=smollm2"
            while path:
                page = (await client.get(path)).text
                rows = page.split("<tbody>")[1] if "<tbody>" in page else ""
                seen += [part.split('"')[0] for part in rows.split('href="/calls/')[1:]]
                more = page.partition('rel="next" href="')[2].partition('"')[0]
                path = more.replace("&amp;", "&")
            assert len(seen) == len(set(seen)) == 6
            stolen = page_token = "x" * 20
            reply = await client.get(f"/search?model=smollm2&after={page_token}")
            assert reply.status_code == 400
            assert stolen not in reply.text


FIELDS = (
    *("call", "trace", "since", "until", "user", "subject", "workload", "model", "outcome"),
    *("action", "found", "done", "after"),
)


@pytest.mark.parametrize("field", FIELDS)
async def test_what_is_typed_is_text_in_every_field(console, field) -> None:
    async with console.signed_in() as client:
        reply = await client.get("/search", params={field: EVIL})
    assert reply.status_code in {200, 400}
    assert "<script" not in reply.text
    assert "<img" not in reply.text
    assert ">49<" not in reply.text


async def test_odd_requests_are_answered_in_constants(console) -> None:
    async with console.signed_in() as client:
        for path in (
            *("/calls/zz", "/calls/%3Cscript%3E", "/traces/" + "0" * 31, "/archive/" + "A" * 64),
            *("/calls/" + "0" * 32, "/calls/" + "0" * 32 + "/payload", "/static/../app.py"),
            *("/traces/" + "0" * 32, "/search?since=9999999-01-01", "/search?until=0001-01-01"),
        ):
            reply = await client.get(path)
            assert reply.status_code in {200, 400, 404}, path
            assert "<script" not in reply.text
            assert "Traceback" not in reply.text


async def test_texts_need_an_action_of_their_own(console) -> None:
    call = (await a_call(console.log)).hex()
    async with console.signed_in() as client:
        page = (await client.get(f"/calls/{call}/outcome")).text
        assert "policy does not let you open them" in page
        token = token_in(page)
        reply = await client.post(f"/calls/{call}/texts", data={"csrf": token})
    assert reply.status_code == 403


async def test_without_the_auditor_s_role_no_record_is_shown(console) -> None:
    call = (await a_call(console.log)).hex()
    async with console.signed_in(console.certificate(workload="privacy")) as client:
        overview = (await client.get("/")).text
        assert "audit.read" in overview
        assert call not in overview
        for path in (f"/calls/{call}", "/search?model=smollm2", "/verdicts"):
            assert (await client.get(path)).status_code == 403
        assert (await client.get("/subjects")).status_code == 200


async def test_spans_of_the_services_draw_the_waterfall_without_a_word_of_text(console) -> None:
    trace = os.urandom(16)
    call = await a_call(console.log, trace_id=trace)
    event = next(e for e in await console.recorded("chat.stream") if e["call_id"] == call.hex())
    request = pb.ExportTraceServiceRequest()
    parent = bytes.fromhex(event["span_id"])
    for service, number in (("gateway", None), ("compliance", 2), ("a secret: Ada", 3)):
        group = request.resource_spans.add()
        attribute = group.resource.attributes.add()
        attribute.key, attribute.value.string_value = "service.name", service
        span = group.scope_spans.add().spans.add()
        span.trace_id = trace
        span.span_id = parent if number is None else number.to_bytes(8)
        span.parent_span_id = b"" if number is None else parent
        span.name = "gateway.ChatStream" if number is None else "my mail is ada@example.org"
        span.start_time_unix_nano = time.time_ns()
        span.end_time_unix_nano = span.start_time_unix_nano + 5_000_000
        text = span.attributes.add()
        text.key, text.value.string_value = "prompt", "my card is 4111 1111 1111 1111"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{console.spans_port}") as channel:
        await TraceServiceStub(channel).Export(request)
    async with console.signed_in() as client:
        page = (await client.get(f"/traces/{trace.hex()}")).text
    assert "gateway · gateway.ChatStream" in page
    assert "compliance · unknown" in page
    assert "unknown · unknown" in page
    for text in ("Ada", "ada@", "4111", "my mail"):
        assert text not in page


async def test_witnesses_are_shown_with_what_they_cosigned(tmp_path) -> None:
    """One that cosigns and one that is away: what each says, and what the policy makes of it."""
    logs, folder = tmp_path / "logs", tmp_path / "w"
    logs.write_text("")
    north = SimpleNamespace(keys=WitnessKeys.make(folder, "north.example"))
    south = SimpleNamespace(keys=WitnessKeys.make(tmp_path / "s", "south.example"))
    south.url = f"http://127.0.0.1:{unused_port()}"  # nobody will listen there

    def asking(world):
        logs.write_text(f"{world.vkey}\n")
        (world.folder / "policy").write_text(policy_lines(north, south, need=1))
        return {"witness_policy": world.folder / "policy", "witness_timeout_ms": 10_000}

    witness = WitnessSettings(data_dir=folder, logs_file=logs, port=0)
    async with serving_witness(witness) as port:
        north.url = f"http://127.0.0.1:{port}"
        async with (
            house(tmp_path / "h", log_settings=asking) as running,
            running.signed_in() as who,
        ):
            await running.published()
            before = running.log.witnesses.states[0].size
            overview, page = (await who.get("/")).text, (await who.get("/checkpoint")).text
            states = running.log.witnesses.states
    shown = re.findall(r"<tr><th scope=\"row\">(w.*?)</tr>", page)
    rows = [re.sub(r"<[^>]+>", "|", row).strip("|").split("|") for row in shown]
    assert [(row[0], row[-1]) for row in rows] == [
        ("w0-ed, w0-pq", "cosigns"),
        ("w1-ed, w1-pq", "unreachable"),
    ]
    # Who looks adds to the log: it may have grown between the page and here.
    (size,) = (int(cell) for cell in rows[0] if cell.isdigit())
    assert before <= size <= states[0].size
    assert states[1].size == -1
    assert "The quorum is held" in page
    assert "quorum is held" in overview


async def test_records_are_counted_beside_the_loop_that_takes_evidence(
    console, monkeypatch
) -> None:
    threads = []

    def watched(leaf):
        threads.append(threading.current_thread())
        return parse_leaf(leaf)

    monkeypatch.setattr("audit.console.desk.parse_leaf", watched)
    async with console.signed_in() as client:
        assert "<rect" in (await client.get("/verdicts")).text
    assert threads
    assert threading.main_thread() not in threads
