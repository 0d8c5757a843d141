"""Texts, erasure, export, legal holds: by those who may, each with its record."""

import json
import re

import pytest

from meshkit.contract import Document
from meshkit.tlog import check_proof
from tests.audit.world import ANSWER, MESSAGES
from tests.console.world import EVIL, a_call, token_in

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_texts_are_opened_by_an_act_and_that_is_recorded(console, desk) -> None:
    call = (await a_call(console.log)).hex()
    await desk.goto(f"/calls/{call}/outcome")
    assert ANSWER not in await desk.content()
    await desk.get_by_role("button", name="Open the texts").click()
    await desk.wait_for_url("**/texts")
    page = await desk.inner_text("main")
    assert ANSWER in page
    assert MESSAGES[0].content in page
    read = (await console.recorded("payload.read"))[-1]
    assert read["detail"]["call"] == call
    assert (await desk.request.get(f"/calls/{call}/texts")).status == 404  # no link does it


async def test_a_person_is_held_released_and_erased_with_a_proof(console, desk) -> None:
    call = (await a_call(console.log, subject="patient-1")).hex()
    await desk.goto("/subjects")
    await desk.get_by_label("On", exact=True).select_option("subject")
    await desk.get_by_label("Which").fill("patient-1")
    await desk.get_by_label("Reference").fill("case-7")
    await desk.get_by_role("button", name="Set the hold").click()
    await desk.get_by_role("rowheader", name="case-7").wait_for()

    async def erase():
        await desk.goto("/subjects")
        await desk.get_by_label("Person to be erased").fill("patient-1")
        await desk.get_by_label("This cannot be undone").check()
        await desk.get_by_role("button", name="Erase this person").click()
        await desk.wait_for_url("**/erase")
        return await desk.inner_text("main")

    assert "a legal hold stands against it" in await erase()
    assert (await console.recorded("subject.erase"))[-1]["outcome"] == "HELD"
    await desk.goto("/subjects")
    await desk.get_by_role("button", name="Release case-7").click()
    await desk.get_by_text("None.").wait_for()
    assert "Done, and on record" in await erase()
    await desk.get_by_text("Its proof").click()
    proof = check_proof(await desk.inner_text("pre"), console.log.vkey)
    assert json.loads(proof.leaf)["event"]["action"] == "subject.erase"
    assert b"patient-1" not in proof.leaf
    await desk.goto(f"/calls/{call}/outcome")
    assert await desk.get_by_text("Verified", exact=True).is_visible()  # the record stays
    await desk.get_by_role("button", name="Open the texts").click()
    await desk.get_by_role("heading", name="Not here").wait_for()


async def test_an_export_is_all_that_is_kept_about_a_person(console) -> None:
    call = (await a_call(console.log, subject="patient-2")).hex()
    async with console.signed_in(console.certificate(workload="privacy")) as client:
        token = token_in((await client.get("/subjects")).text)
        form = {"csrf": token, "subject": "patient-2"}
        reply = await client.post("/subjects/export", data=form)
        assert reply.headers["content-disposition"] == 'attachment; filename="export.jsonl"'
        assert reply.headers["x-content-type-options"] == "nosniff"
        items = [json.loads(line) for line in reply.text.splitlines()]
        assert {item["call_id"] for item in items} == {call}
        assert ANSWER in {item["released"] for item in items}
        nobody = await client.post("/subjects/export", data={**form, "subject": "nobody"})
        assert nobody.status_code == 404
    assert (await console.recorded("subject.export"))[-1]["subject"]


async def test_each_act_needs_its_own_action_and_what_is_typed_is_checked(console) -> None:
    async with console.signed_in() as client:  # an auditor is no privacy officer
        token = token_in((await client.get("/checkpoint")).text)
        assert "<form" not in (await client.get("/subjects")).text.partition("<main")[2]
        for path in ("erase", "export", "hold", f"holds/{'0' * 32}/release"):
            form = {"csrf": token, "subject": "x", "sure": "yes", "scope": "tenant"}
            reply = await client.post(f"/subjects/{path}", data=form)
            assert reply.status_code == 403
    async with console.signed_in(console.certificate(workload="privacy")) as client:
        token = token_in((await client.get("/subjects")).text)
        for path, form, status in (
            ("erase", {"subject": "patient-3"}, 400),  # not sure
            ("erase", {"subject": "", "sure": "yes"}, 400),
            ("hold", {"scope": "planet", "reference": "a"}, 400),
            ("hold", {"scope": "class", "value": EVIL, "reference": EVIL}, 400),
            (f"holds/{'0' * 32}/release", {}, 404),
        ):
            reply = await client.post(f"/subjects/{path}", data={"csrf": token, **form})
            assert reply.status_code == status
            assert "<script" not in reply.text


async def test_what_a_digest_stands_for_is_opened_and_a_foreign_document_is_not(console) -> None:
    text = json.dumps({"files": {"a": "ab" * 32}, "note": EVIL}).encode()
    mine = Document("policy.compliance", text, ("acme",))
    theirs = Document("policy.compliance", b"theirs", ("globex",))
    binary = Document("model.template", b"\xff\xfe", ())
    archive = console.archive
    for document in (mine, theirs, binary):
        await archive.put(document, document.digest)
    async with console.signed_in() as client:
        page = (await client.get(f"/archive/{mine.digest.hex()}")).text
        assert "policy.compliance" in page
        assert "<script" not in page
        assert f'href="/archive/{"ab" * 32}"' in page
        assert "no text" in (await client.get(f"/archive/{binary.digest.hex()}")).text
        assert (await client.get(f"/archive/{theirs.digest.hex()}")).status_code == 404
    read = (await console.recorded("log.read"))[-1]
    assert read["detail"]["digest"] == theirs.digest.hex()
    assert re.fullmatch("[0-9a-f]{64}", read["detail"]["digest"])
