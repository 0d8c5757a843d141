"""`screen` and `release` as neighbours see them: masks, blocks, counts, MACs, memo, failures."""

import asyncio
import threading
import time

import pytest

from compliance.engine import Engine
from compliance.memo import Memo
from compliance.names_base import Ask
from compliance.policy import parse_policy
from compliance.recognizers.base import Recognizer
from compliance.scanner import NameRunner, Scanner
from compliance.service import ComplianceService, open_compliance
from compliance.settings import ComplianceSettings
from meshkit.contract import BlockedText, Message, Reason, Refusal, Role, Stage
from meshkit.screening_mac import digest_of_answer, digest_of_prompt

CARD = "4111 1111 1111 1111"


@pytest.fixture
def service(scanner, mac_keys):
    return ComplianceService(
        scanner, lambda: mac_keys, memo_entries_max=100, text_chars_max=1_000_000
    )


def user(text):
    return [Message(Role.USER, text)]


async def chunks(*parts):
    for part in parts:
        yield part


async def released(service, scope, *parts):
    return [item async for item in service.release(scope, chunks(*parts))]


async def test_a_prompt_is_masked_counted_and_vouched_for(service, scope, mac_keys):
    messages = [Message(Role.SYSTEM, "Be kind."), *user(f"Card {CARD}, mail ada@example.org")]

    screened = await service.screen(scope, messages)

    assert [m.content for m in screened.messages] == [
        "Be kind.",
        "Card [CREDIT_CARD], mail [EMAIL]",
    ]
    assert [m.role for m in screened.messages] == [Role.SYSTEM, Role.USER]
    counts = {(c.type, c.action, c.count) for c in screened.verdict.counts}
    assert counts == {("CREDIT_CARD", "mask", 1), ("EMAIL", "mask", 1)}
    assert screened.verdict.policy_digest == service.policy.digest
    assert mac_keys.verify(
        screened.mac_key_version,
        screened.mac,
        stage=Stage.SCREENED,
        text_digest=digest_of_prompt(screened.messages),
        policy_digest=service.policy.digest,
        tenant="acme",
        call_id=scope.call_id,
    )


async def test_a_released_answer_is_vouched_for_at_its_own_stage(service, scope, mac_keys):
    last = (await released(service, scope, "Hello."))[-1]
    fields = {
        "text_digest": digest_of_answer("Hello."),
        "policy_digest": service.policy.digest,
        "tenant": "acme",
        "call_id": scope.call_id,
    }

    assert mac_keys.verify(last.mac_key_version, last.mac, stage=Stage.RELEASED, **fields)
    assert not mac_keys.verify(last.mac_key_version, last.mac, stage=Stage.SCREENED, **fields)


async def test_a_blocked_prompt_tells_what_was_found_and_nothing_of_the_text(service, scope):
    with pytest.raises(BlockedText) as caught:
        await service.screen(scope, user("use " + "AKIA" + "IOSFODNN7EXAMPLE"))

    assert caught.value.reason is Reason.BLOCKED
    assert [(c.subtype, c.action) for c in caught.value.verdict.counts] == [
        ("AWS_ACCESS_KEY", "block")
    ]
    assert "AKIA" not in repr(caught.value)


async def test_a_private_key_blocks_both_ways(service, scope, pem):
    with pytest.raises(BlockedText):
        await service.screen(scope, user(pem))
    *pieces, last = await released(service, scope, "Here you are:\n\n", pem)

    assert last.blocked
    assert pieces == [last.text]
    assert "BEGIN" not in last.text


@pytest.mark.parametrize("text", ["lone \ud800 surrogate", "\udfff"])
async def test_text_that_is_no_unicode_is_refused_by_its_field(service, scope, text):
    with pytest.raises(Refusal) as caught:
        await service.screen(scope, user(text))

    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "messages")
    with pytest.raises(Refusal) as late:
        await released(service, scope, text)
    assert late.value.reason is Reason.COMPLIANCE_DOWN


async def test_too_long_a_text_is_refused(scanner, mac_keys, scope):
    service = ComplianceService(scanner, lambda: mac_keys, memo_entries_max=1, text_chars_max=10)
    with pytest.raises(Refusal) as caught:
        await service.screen(scope, user("x" * 11))
    assert caught.value.reason is Reason.INVALID_FIELD
    with pytest.raises(Refusal):
        await released(service, scope, "x" * 6, "x" * 6)


@pytest.mark.parametrize("text", ["", " ", "\0\x01\x7f", "\u202e\u200b", "\n" * 500])
async def test_empty_and_odd_texts_pass_unchanged(service, scope, text):
    screened = await service.screen(scope, user(text))
    last = (await released(service, scope, text))[-1]

    assert screened.messages == tuple(user(text))
    assert last.text == text


async def test_no_messages_and_no_deltas_are_fine(service, scope):
    assert (await service.screen(scope, [])).messages == ()
    assert [item.text for item in await released(service, scope)] == [""]


async def test_the_memo_gives_the_same_verdict_without_scanning(service, scope, monkeypatch):
    first = await service.screen(scope, user(f"Card {CARD}"))
    monkeypatch.setattr(Engine, "find_all", lambda *_: pytest.fail("scanned again"))

    assert await service.screen(scope, user(f"Card {CARD}")) == first


async def test_the_memo_is_per_tenant_and_keeps_no_text(service, scope, monkeypatch):
    await service.screen(scope, user(f"Card {CARD}"))
    assert CARD not in repr(service._memo._entries)
    monkeypatch.setattr(
        Engine, "find_all", lambda *_: (_ for _ in ()).throw(Refusal(Reason.INTERNAL))
    )
    other = type(scope)(
        call_id=scope.call_id, tenant="bcme", principal=scope.principal, trace=scope.trace
    )

    with pytest.raises(Refusal):
        await service.screen(other, user(f"Card {CARD}"))


def test_the_memo_is_bounded_and_forgets_the_least_used():
    memo = Memo(2)
    one, two, three = (memo.key(b"", text) for text in ("1", "2", "3"))
    memo.put(one, 1)
    memo.put(two, 2)
    assert memo.get(one) == 1
    memo.put(three, 3)

    assert (memo.get(one), memo.get(two), memo.get(three)) == (1, None, 3)
    assert len(memo) == 2


def test_memo_keys_keep_scope_and_text_apart():
    memo = Memo(2)

    assert memo.key(b"a", "bc") != memo.key(b"ab", "c")
    assert memo.key(b"a", "b") != Memo(2).key(b"a", "b")


async def test_a_failing_recognizer_refuses_both_ways(scope, mac_keys):
    def fail(value):
        raise KeyError(value)

    bad = Recognizer(
        name="bad",
        type="SECRET",
        subtype="X",
        source="made up",
        pattern="canary",
        score=(0.9, 0.9),
        check=fail,
    )
    policy = parse_policy("{version: 1, name: p, default: {prompt: mask, answer: mask}}")
    service = ComplianceService(
        Scanner(Engine([bad]), policy), lambda: mac_keys, memo_entries_max=1, text_chars_max=100
    )
    with pytest.raises(Refusal) as caught:
        await service.screen(scope, user("a canary"))
    assert caught.value.reason is Reason.COMPLIANCE_DOWN
    with pytest.raises(Refusal) as late:
        await released(service, scope, "a canary")
    assert late.value.reason is Reason.COMPLIANCE_DOWN
    assert "canary" not in repr((caught.value, late.value))


class SlowNames:
    """A name model that takes until it may go on, or fails."""

    def __init__(self, failure=None):
        self.failure = failure
        self.goes_on = threading.Event()

    def ask(self, _window, _core):
        return Ask(runs=True, find=self.find)

    def find(self):
        if self.failure:
            raise self.failure
        assert self.goes_on.wait(60)
        return []


def with_names(scanner, mac_keys, model, queue_max):
    runner = NameRunner(model, workers=1, queue_max=queue_max)
    naming = Scanner(scanner.engine, scanner.policy, runner)
    return runner, ComplianceService(
        naming, lambda: mac_keys, memo_entries_max=0, text_chars_max=1000
    )


async def test_a_failing_name_model_refuses_the_text(scanner, mac_keys, scope):
    runner, service = with_names(scanner, mac_keys, SlowNames(RuntimeError("canary")), 4)
    with pytest.raises(Refusal) as caught:
        await service.screen(scope, user("Ada"))
    runner.close()

    assert caught.value.reason is Reason.COMPLIANCE_DOWN
    assert "canary" not in repr(caught.value)


async def test_a_full_queue_of_the_name_model_says_overloaded(scanner, mac_keys, scope):
    model = SlowNames()
    runner, service = with_names(scanner, mac_keys, model, 2)
    calls = [asyncio.create_task(service.screen(scope, user(f"Ada {i}"))) for i in range(5)]
    async with asyncio.timeout(60):
        while sum(call.done() for call in calls) < 3:
            await asyncio.sleep(0.005)
    model.goes_on.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    runner.close()
    refused = [r.reason for r in results if isinstance(r, Refusal)]

    assert refused == [Reason.OVERLOADED] * 3


class CountingNames(SlowNames):
    """Counts how often it is asked."""

    def __init__(self, *, runs=True):
        super().__init__()
        self.runs, self.threads, self.asked = runs, set(), 0

    def ask(self, _window, _core):
        return Ask(self.runs, self.find)

    def find(self):
        self.asked += 1
        self.threads.add(threading.current_thread())
        return []


async def test_a_window_seen_before_is_not_asked_about_again_but_per_tenant(scanner):
    model = CountingNames()
    runner = NameRunner(model, workers=1, queue_max=4, memo_entries_max=10)
    windows = scanner.windows("Ada Lovelace came.")
    for tenant in ("acme", "acme", "bcme"):
        await runner.find_all(windows, tenant)
    runner.close()

    assert model.asked == 2


async def test_what_rules_know_is_asked_without_another_thread(scanner):
    model = CountingNames(runs=False)
    runner = NameRunner(model, workers=1, queue_max=0)
    found = await runner.find_all(scanner.windows("Ada Lovelace came."), "acme")
    runner.close()

    assert found == {0: []}
    assert model.threads == {threading.current_thread()}


async def test_the_event_loop_runs_while_a_model_does(scanner, mac_keys, scope):
    model = SlowNames()
    runner, service = with_names(scanner, mac_keys, model, 4)
    task = asyncio.create_task(service.screen(scope, user("Ada")))
    for _ in range(3):
        await asyncio.sleep(0.005)
        assert not task.done()
    model.goes_on.set()
    await task
    runner.close()


async def test_closing_a_release_closes_its_source(service, scope):
    closed = asyncio.Event()

    async def source():
        try:
            while True:
                yield "The quick brown fox jumps over the lazy dog, again and again. "
        finally:
            closed.set()

    stream = service.release(scope, source())
    await anext(stream)
    await stream.aclose()

    assert closed.is_set()


async def test_a_block_closes_the_source_too(service, scope, pem):
    closed = asyncio.Event()

    async def source():
        try:
            yield pem
            yield "more"
        finally:
            closed.set()

    items = [item async for item in service.release(scope, source())]

    assert closed.is_set()
    assert [item.blocked for item in items] == [True]


async def test_it_opens_as_production_does_with_a_policy_file(tmp_path, mac_keys, scope):
    policy = tmp_path / "p.yaml"
    policy.write_text(
        "{version: 1, name: mine, default: {prompt: allow, answer: allow},"
        " types: {CREDIT_CARD: {prompt: mask, keep_last: 4}}}"
    )
    settings = ComplianceSettings(policy_file=policy, names=False)

    async with open_compliance(settings, mac_keys=mac_keys) as compliance:
        screened = await compliance.screen(scope, user(f"{CARD} ada@example.org"))

    assert screened.messages[0].content == "[CREDIT_CARD:1111] ada@example.org"
    assert {(c.type, c.action) for c in screened.verdict.counts} == {
        ("CREDIT_CARD", "mask"),
        ("EMAIL", "allow"),
    }


async def test_a_megabyte_is_screened_in_seconds(service, scope):
    text = (f"Write to ada@example.org or pay with {CARD} today; the rest is prose. " * 15_000)[
        :1_000_000
    ]
    started = time.process_time()
    screened = await service.screen(scope, user(text))

    assert time.process_time() - started < 60
    assert CARD not in screened.messages[0].content
