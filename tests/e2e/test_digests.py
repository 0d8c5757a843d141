"""What records name by digest can be opened by the auditor who reads them."""

import asyncio
import json
import time
from hashlib import sha256

import pytest

from sealgate import NotFoundError
from tests.e2e.conftest import files_in

MODEL = "smollm2-135m-instruct"
PATIENCE_S = 60.0


def digests_in(event):
    """Every digest that a record of a call names a document by, by what it is of."""
    named = {name: event.get(name) for name in ("model_digest", "prompt_template_digest")}
    named |= event.get("policies", {})
    return {name: digest for name, digest in named.items() if digest}


async def opened(reader, digest):
    """The services start without waiting for the archive, so it may take a moment."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await reader.archived(bytes.fromhex(digest))
        except NotFoundError:
            assert time.monotonic() < until, digest
            await asyncio.sleep(0.1)


async def test_every_digest_of_a_call_can_be_opened(house) -> None:
    async with house.client() as client:
        result = await client.chat("Hello, I am ada@example.org", model=MODEL, max_tokens=4)
    async with house.reader() as reader:
        records = await reader.records(call_id=result.receipt.call_id)
        intent, outcome = (json.loads(record.leaf)["event"] for record in records)
        kinds = {}
        for name, digest in (digests_in(intent) | digests_in(outcome)).items():
            kind, content = await opened(reader, digest)
            assert sha256(content).hexdigest() == digest
            kinds[name] = kind

    assert kinds == {
        "model_digest": "model.manifest",
        "prompt_template_digest": "model.template",
        "authorization": "policy.authorization",
        "compliance": "policy.compliance",
    }
    assert set(digests_in(intent)) == set(kinds) - {"compliance"}  # not known before screening


async def test_show_digest_prints_the_manifest(house) -> None:
    async with house.client() as client:
        result = await client.chat("Hello again", model=MODEL, max_tokens=4)
    async with house.reader() as reader:
        records = await reader.records(call_id=result.receipt.call_id)
        digest = json.loads(records[0].leaf)["event"]["model_digest"]
        await opened(reader, digest)

    facts = house.facts
    where = ["--target", facts["audit"], "--tls", facts["auditor_tls"]]
    asked = house.cli("audit", "show-digest", digest, *where, "--json")
    assert asked.returncode == 0, asked.stderr
    told = json.loads(asked.stdout)
    assert told["kind"] == "model.manifest"
    assert json.loads(told["content"])["name"] == MODEL

    archive = str(house.data / "audit" / "archive")
    offline = house.cli("audit", "show-digest", digest, "--archive", archive)
    assert (offline.returncode, offline.stdout.strip()) == (0, told["content"])
    missing = house.cli("audit", "show-digest", "0" * 64, *where, "--json")
    assert (missing.returncode, json.loads(missing.stdout)["reason"]) == (1, "NOT_FOUND")


@pytest.mark.parametrize("service", ["gateway", "compliance", "cache", "inference", "audit"])
async def test_every_service_told_that_it_started(house, service) -> None:
    """Starts are the mesh's and no tenant's: they are read out of the log itself."""
    starts = [
        leaf
        for leaf in own_events(house)
        if leaf["event"]["action"] == "service.start"
        and leaf["event"]["detail"]["service"] == service
    ]
    assert starts
    assert starts[0]["log"]["producer"] == f"spiffe://sealgate.local/service/{service}"


async def test_models_policies_and_the_log_told_of_themselves(house) -> None:
    told = {"log.start", "receipt.key", "model.load", "policy.load", "archive.put"}
    assert {leaf["event"]["action"] for leaf in own_events(house, told)} >= told


def own_events(house, told=frozenset()):
    """NOTEs of the published log, once it holds that all services started, and these actions."""
    until = time.monotonic() + PATIENCE_S
    while True:
        leaves = [json.loads(leaf) for leaf in entries(house.data / "audit" / "log")]
        notes = [leaf for leaf in leaves if leaf["event"]["phase"] == "note"]
        actions = [leaf["event"]["action"] for leaf in notes]
        if actions.count("service.start") >= 5 and told <= set(actions):
            return notes
        assert time.monotonic() < until, actions
        time.sleep(0.1)


def entries(log):
    """Leaves of all bundles, each once: a full bundle takes the place of its partial ones."""
    best, bundles = {}, log / "tile" / "entries"
    for path, raw in files_in(bundles).items():
        if not path.name.startswith("."):
            number = path.relative_to(bundles).as_posix().partition(".p/")[0]
            if len(raw) >= len(best.get(number, b"")):
                best[number] = raw
    for _, raw in sorted(best.items()):
        at = 0
        while at < len(raw):
            size = int.from_bytes(raw[at : at + 2])
            yield raw[at + 2 : at + 2 + size]
            at += 2 + size
