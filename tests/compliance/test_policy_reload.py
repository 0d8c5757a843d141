"""Policies by tenant in a running service: one judges a call, a change is taken whole or not."""

import asyncio
import json
import os

import pytest
from structlog.testing import capture_logs

from compliance.policy import PolicyError
from compliance.policy_finder import Finders
from compliance.policy_store import BOOKS_KEPT, PolicySource, PolicyStore
from compliance.service import ComplianceService, open_compliance
from compliance.settings import ComplianceSettings
from meshkit.contract import BlockedText, Message, Reason, Refusal, Role, Scope, TraceContext
from meshkit.counters import counters, gauges

CARD = "4111 1111 1111 1111"
HOUSE = """
version: 1
name: house
extends: default
types: {CREDIT_CARD: {keep_last: 4}}
"""
STRICT = """
version: 1
name: strict
extends: house
types: {CREDIT_CARD: {prompt: block, answer: block}}
patterns: [{name: staff, type: CUSTOM_STAFF, pattern: 'E[0-9]{6}'}]
tests: [{text: E123456, becomes: "[CUSTOM_STAFF]"}]
"""
TENANTS = "version: 1\ndefault: house\ntenants: {acme: strict}\n"
FAILING = STRICT.replace('"[CUSTOM_STAFF]"', '"[STAFF]"')


def scope_of(tenant):
    trace = TraceContext(trace_id=b"\1" * 16, span_id=b"\2" * 8)
    return Scope(call_id=b"\3" * 16, tenant=tenant, principal="spiffe://x/y", trace=trace)


class Files:
    """A folder of policies that a test changes."""

    def __init__(self, path):
        self.path = path
        self.write("house.yaml", HOUSE)
        self.write("strict.yaml", STRICT)
        self.write("tenants.yaml", TENANTS)

    def write(self, name, text):
        """Replace a file whole, as an operator should."""
        fresh = self.path / f".{name}"
        fresh.write_text(text)
        fresh.replace(self.path / name)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "policies"
    folder.mkdir()
    return Files(folder)


@pytest.fixture
def store(files, engine, tmp_path):
    return PolicyStore(
        PolicySource(folder=files.path), Finders(engine), archive=tmp_path / "archive"
    )


@pytest.fixture
def service(store, mac_keys):
    return ComplianceService(store, lambda: mac_keys, memo_entries_max=100, text_chars_max=10_000)


async def screened(service, tenant, text):
    return await service.screen(scope_of(tenant), [Message(Role.USER, text)])


async def said(*parts):
    for part in parts:
        yield part


async def released(service, tenant, *parts, **under):
    return [i async for i in service.release(scope_of(tenant), said(*parts), **under)][-1]


async def test_each_tenant_is_judged_by_its_own_policy(service, store, mac_keys):
    theirs = await screened(service, "globex", f"{CARD} of E123456")
    assert theirs.messages[0].content == "[CREDIT_CARD:1111] of E123456"
    assert theirs.verdict.policy_digest == store.book.policies["house"].digest
    ours = await screened(service, "acme", "E123456")
    assert ours.messages[0].content == "[CUSTOM_STAFF]"
    assert ours.verdict.policy_digest == store.book.policies["strict"].digest

    with pytest.raises(BlockedText) as caught:
        await screened(service, "acme", CARD)
    assert caught.value.verdict.policy_digest == store.book.policies["strict"].digest
    assert (await released(service, "acme", "So: E123456.")).text == "So: [CUSTOM_STAFF]."
    assert (await released(service, "globex", "So: E123456.")).text == "So: E123456."


async def test_types_of_a_policys_own_are_counted_as_one(service):
    before = counters().get("compliance.findings.prompt.mask.CUSTOM", 0)
    await screened(service, "acme", "E123456")
    assert counters()["compliance.findings.prompt.mask.CUSTOM"] == before + 1
    assert not [name for name in counters() if "CUSTOM_" in name]


async def test_a_verdict_remembered_under_one_policy_is_not_used_under_another(
    service, files, store
):
    before = await screened(service, "globex", CARD)
    files.write("house.yaml", HOUSE.replace("keep_last: 4", "keep_last: 2"))
    assert store.reload()
    after = await screened(service, "globex", CARD)

    assert before.messages[0].content == "[CREDIT_CARD:1111]"
    assert after.messages[0].content == "[CREDIT_CARD:11]"
    assert before.verdict.policy_digest != after.verdict.policy_digest
    assert before.mac != after.mac


async def test_an_open_stream_keeps_the_policy_it_began_with(service, files, store):
    old = store.book.policies["house"].digest

    async def deltas():
        yield f"First {CARD} is one card. " * 3
        files.write("house.yaml", HOUSE.replace("keep_last: 4", "keep_last: 0"))
        assert store.reload()
        yield f"Then {CARD} is another. " * 3

    items = [item async for item in service.release(scope_of("globex"), deltas())]

    assert items[-1].text.count("[CREDIT_CARD:1111]") == 6
    assert items[-1].verdict.policy_digest == old
    assert (await released(service, "globex", CARD)).text == "[CREDIT_CARD]"


async def test_an_answer_is_judged_by_the_policy_of_its_prompt(service, files, store):
    prompt = await screened(service, "globex", "hello")
    digest = prompt.verdict.policy_digest
    for change in range(BOOKS_KEPT):
        files.write("house.yaml", HOUSE.replace("4", f"3, threshold: 0.{change + 1}"))
        assert store.reload()
    answer = await released(service, "globex", CARD, policy_digest=digest)
    assert (answer.text, answer.verdict.policy_digest) == ("[CREDIT_CARD:1111]", digest)

    files.write("house.yaml", HOUSE.replace("4", "1"))
    assert store.reload()
    with pytest.raises(Refusal) as caught:
        await released(service, "globex", CARD, policy_digest=digest)
    assert caught.value.reason is Reason.COMPLIANCE_DOWN


async def test_no_tenant_can_be_judged_by_anothers_policy(service, store):
    with pytest.raises(Refusal) as caught:
        await released(service, "globex", "x", policy_digest=store.book.policies["strict"].digest)
    assert caught.value.reason is Reason.COMPLIANCE_DOWN


async def test_a_policy_that_a_neighbour_has_already_is_taken_when_it_is_asked_for(
    service, files, store, engine
):
    files.write("house.yaml", HOUSE.replace("keep_last: 4", "keep_last: 1"))
    neighbour = PolicyStore(PolicySource(folder=files.path), Finders(engine))
    digest = neighbour.of("globex").policy.digest

    answer = await released(service, "globex", CARD, policy_digest=digest)
    assert (answer.text, answer.verdict.policy_digest) == ("[CREDIT_CARD:1]", digest)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("strict.yaml", "version: ["),
        ("strict.yaml", STRICT.replace("block", "shout")),
        ("strict.yaml", FAILING),
        ("strict.yaml", STRICT.replace("E[0-9]{6}", "(?:E{1,9}){1,9}x")),
        ("tenants.yaml", TENANTS.replace("strict", "stirct")),
        ("tenants.yaml", ""),
        ("strict.yaml", STRICT.replace("version: 1", "version: !!bool 1")),
        ("tenants.yaml", TENANTS.replace("version: 1", "version: !!int ''")),
        ("third.yaml", "version: 1\nname: third\nextends: house\ntypes: {EMIAL: {keep_last: 1}}"),
    ],
)
def test_a_bad_file_keeps_the_policies_of_before_and_alarms(store, files, name, text):
    book, before = store.book, counters().get("compliance.policy_reload_failed", 0)
    files.write("house.yaml", HOUSE.replace("4", "3"))
    files.write(name, text)

    with capture_logs() as logs:
        assert not store.reload()
        assert not store.reload()
    assert store.book is book
    assert counters()["compliance.policy_reload_failed"] == before + 1
    assert store.rejected_s > 0
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("compliance.policies_rejected", "error")
    ]

    files.write("strict.yaml", STRICT)
    files.write("tenants.yaml", TENANTS)
    (files.path / "third.yaml").unlink(missing_ok=True)
    with capture_logs() as logs:
        assert store.reload()
    assert store.rejected_s == 0.0
    assert (logs[0]["old"], logs[0]["new"]) == (book.digest.hex(), store.book.digest.hex())


def test_a_dictionary_that_was_missing_is_seen_when_it_comes(store, files):
    entry = "dictionaries: [{name: d, type: CUSTOM_D, file: d.txt}]\n"
    files.write("strict.yaml", STRICT + entry)
    assert not store.reload()
    files.write("d.txt", "Fine Term\n")
    assert store.reload()
    files.write("d.txt", "Other Term\n")
    assert store.reload()
    assert store.of("acme").policy.file.dictionaries[0].terms == ["Other Term"]


def test_a_pipe_in_the_folder_is_not_waited_for(store, files):
    os.mkfifo(files.path / "third.yaml")
    assert not store.reload()
    assert store.rejected_s > 0


def test_what_the_archive_had_no_room_for_is_taken_once_it_has(store, files, tmp_path):
    kept, aside = tmp_path / "archive", tmp_path / "aside"
    kept.rename(aside)
    kept.touch()  # no folder: nothing can be written into it
    files.write("house.yaml", HOUSE.replace("4", "3"))
    assert not store.reload()
    assert store.rejected_s > 0

    kept.unlink()
    aside.rename(kept)
    assert store.reload()
    assert store.rejected_s == 0.0


def test_a_change_that_says_the_same_is_no_change(store, files):
    book = store.book
    files.write("house.yaml", "# a comment\n" + HOUSE)
    assert not store.reload()
    assert store.book.digest == book.digest
    assert store.rejected_s == 0.0


def test_each_policy_is_kept_under_its_digest(store, files, tmp_path):
    old = store.book.policies["strict"]
    files.write("strict.yaml", STRICT.replace("{6}", "{7}").replace("E123456", "E1234567"))
    assert store.reload()

    kept = {path.stem for path in (tmp_path / "archive").iterdir()}
    assert kept >= {old.digest.hex(), *(p.digest.hex() for p in store.book.policies.values())}
    path = tmp_path / "archive" / f"{old.digest.hex()}.json"
    assert path.read_bytes() == old.canonical()
    assert json.loads(path.read_bytes())["name"] == "strict"
    assert path.stat().st_mode & 0o777 == 0o600


def test_one_file_for_all_tenants_is_watched_with_what_it_extends(files, engine):
    store = PolicyStore(PolicySource(file=files.path / "strict.yaml"), Finders(engine))
    first = store.of("anyone").policy.digest
    files.write("house.yaml", HOUSE.replace("keep_last: 4", "threshold: 0.6"))

    assert store.reload()
    assert store.of("anyone").policy.digest != first
    files.write("other.yaml", "not ours")
    assert not store.reload()


def test_a_service_does_not_start_without_good_policies(files, engine):
    files.write("strict.yaml", FAILING)
    with pytest.raises(PolicyError, match=r"strict: tests\.0"):
        PolicyStore(PolicySource(folder=files.path), Finders(engine))


def test_a_folder_and_a_file_at_once_are_refused(files):
    with pytest.raises(ValueError, match="cannot both"):
        ComplianceSettings(policy_dir=files.path, policy_file=files.path / "house.yaml")


async def test_under_load_every_answer_has_one_policy_and_a_bad_file_changes_nothing(
    files, mac_keys
):
    """Calls go on while good and bad sets come and go; each is judged by one that was whole."""
    settings = ComplianceSettings(
        policy_dir=files.path, names=False, policy_every_s=0.01, memo_entries_max=0
    )
    looks = {}
    done = asyncio.Event()
    async with open_compliance(settings, mac_keys=mac_keys) as service:

        async def caller(tenant):
            while not done.is_set():
                prompt = await screened(service, tenant, "E123456 said hello")
                digest = prompt.verdict.policy_digest
                answer = await released(service, tenant, CARD, " E123456", policy_digest=digest)
                assert answer.verdict.policy_digest == digest
                seen = (prompt.messages[0].content, answer.text)
                assert looks.setdefault((tenant, digest), seen) == seen
                await asyncio.sleep(0)

        async def until(condition):
            async with asyncio.timeout(30):
                while not condition():
                    await asyncio.sleep(0.005)

        callers = [asyncio.create_task(caller(t)) for t in ("acme", "globex", "initech") * 2]
        await until(lambda: len(looks) >= 3)
        files.write("strict.yaml", FAILING)
        await until(lambda: gauges()["compliance.policy_rejected_s"] > 0)
        before = len(looks)
        files.write("strict.yaml", STRICT)
        await until(lambda: gauges()["compliance.policy_rejected_s"] == 0)
        assert len(looks) == before
        files.write("house.yaml", HOUSE.replace("keep_last: 4", "keep_last: 2"))
        await until(lambda: len(looks) >= 6)
        done.set()
        await asyncio.gather(*callers)

    assert {text for (tenant, _), (_, text) in looks.items() if tenant == "globex"} == {
        "[CREDIT_CARD:1111] E123456",
        "[CREDIT_CARD:11] E123456",
    }
    assert {text for (tenant, _), (_, text) in looks.items() if tenant == "acme"} == {""}
