"""Tokens through `screen`, `release` and `reveal`: what leaves, what is remembered, who is told."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compliance.policy import parse_policy
from compliance.scanner import Scanner
from compliance.service import ComplianceService, open_compliance
from compliance.settings import ComplianceSettings
from compliance.token_map import Entry, MemoryTokenMap
from compliance.token_vault import TokenVault
from compliance.tokens import SessionKeys, TokenKeys
from meshkit.contract import Message, Reason, Refusal, Role
from meshkit.tokens import ID_CHARS, ID_CHARS_LONG, find_tokens, parts_of, restored
from tests.compliance.conftest import CACHE
from tests.redis_world import real_redis

SECRET = b"s" * 32
CARD = "4111 1111 1111 1111"
MAIL = "ada@example.org"
POLICY = """
version: 1
name: tokens
default: {prompt: tokenise, answer: tokenise, threshold: 0.5}
types:
  URL: {prompt: hash, answer: hash}
  IP_ADDRESS: {prompt: replace, answer: replace, replacement: (a host)}
  ORG: {prompt: flag, answer: flag}
  US_SSN: {prompt: mask, answer: mask, keep_last: 2}
  SECRET: {prompt: block, answer: block}
"""


class Down:
    """A store that cannot be reached."""

    async def put(self, place, entries):  # noqa: ARG002 -- the signature it stands for
        raise Refusal(Reason.COMPLIANCE_DOWN)

    async def get(self, place, fields):  # noqa: ARG002 -- as above
        raise Refusal(Reason.COMPLIANCE_DOWN)


def vault(values=None, secret=SECRET):
    store = MemoryTokenMap(entries_max=1_000, sessions_max=100) if values is None else values
    return TokenVault(TokenKeys(secret), store, life_s=60.0, call_life_s=60.0)


@pytest.fixture
def made(engine, mac_keys):
    def make(tokens=None, policy=POLICY):
        return ComplianceService(
            Scanner(engine, parse_policy(policy)),
            lambda: mac_keys,
            memo_entries_max=100,
            text_chars_max=100_000,
            tokens=tokens or vault(),
        )

    return make


@pytest.fixture
def scope(scope):
    return replace(scope, session="case-7")


async def screened(service, scope, *texts):
    result = await service.screen(scope, [Message(Role.USER, text) for text in texts])
    return [message.content for message in result.messages]


async def released(service, scope, *parts):
    async def deltas():
        for part in parts:
            yield part

    return [item async for item in service.release(scope, deltas())]


async def put_back(service, scope, text):
    tokens = find_tokens(text)
    values = await service.reveal(scope, [token.name for token in tokens])
    return restored(parts_of(text, tokens), values)


async def test_each_action_leaves_what_it_should(made, scope):
    service = made()
    result = await service.screen(
        scope,
        [Message(Role.USER, f"{MAIL} https://example.org/a 203.0.113.77 536-22-8726 by Acme Ltd")],
    )
    mail, url, *rest = result.messages[0].content.split(" ")

    assert mail.startswith("[EMAIL_")
    assert url.startswith("[URL#")
    assert " ".join(rest) == "(a host) [US_SSN:26] by Acme Ltd"
    assert {(each.type, each.action) for each in result.verdict.counts} >= {
        ("EMAIL", "tokenise"),
        ("URL", "hash"),
        ("IP_ADDRESS", "replace"),
        ("US_SSN", "mask"),
    }


async def test_a_value_is_restored_from_what_the_model_saw(made, scope):
    service = made()
    text = f"Charge {CARD} and write to {MAIL}."
    (shown,) = await screened(service, scope, text)

    assert CARD not in shown
    assert MAIL not in shown
    assert await put_back(service, scope, shown) == text
    assert await put_back(service, scope, shown.lower()) == text.lower()


async def test_tokens_are_the_same_in_every_turn_and_replica(made, scope):
    store = MemoryTokenMap(entries_max=1_000, sessions_max=100)
    one, other = made(vault(store)), made(vault(store))
    (first,) = await screened(one, scope, f"mail {MAIL}")
    later = replace(scope, call_id=b"\7" * 16)

    assert await screened(other, later, f"Card {CARD}", f"mail {MAIL.upper()}") == [
        *(await screened(one, later, f"Card {CARD}")),
        first,
    ]
    assert await put_back(other, later, first) == f"mail {MAIL}"


async def test_tokens_of_an_earlier_turn_pass_and_are_no_findings(made, scope):
    service = made()
    (first,) = await screened(service, scope, f"Card {CARD}, mail {MAIL}")
    result = await service.screen(scope, [Message(Role.USER, f"{first} again, {first.lower()}")])

    assert result.messages[0].content == f"{first} again, {first.lower()}"
    assert result.verdict.counts == ()
    assert await put_back(service, scope, first) == f"Card {CARD}, mail {MAIL}"


@pytest.mark.parametrize("label", ["api_key: {}", "the password is {}", "微信号：{}"])
@pytest.mark.parametrize("form", ["[{}]", "{}"])
async def test_what_stands_for_data_is_none_even_behind_a_label(made, scope, label, form):
    service = made()
    text = label.format(form.format("PERSON_7K3F9Q2MBX"))
    result = await service.screen(scope, [Message(Role.USER, text)])
    *_, end = await released(service, scope, text)

    assert result.messages[0].content == end.text == text
    assert result.verdict.counts == end.verdict.counts == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("the secret: gH7kPq2vXz now", "gH7kPq2vXz"),
        ("Passport: X234K567MN", "X234K567MN"),
        ("PASSPORT 2X34K567BN", "2X34K567BN"),
        ("Medical record: BX234KM567", "BX234KM567"),
        ("Medical Record # BX23-KM567Z", "BX23-KM567Z"),
        ("email: bcdfghjkmn@example.org", "bcdfghjkmn"),
    ],
)
async def test_a_value_behind_its_label_does_not_pass_for_a_token(made, scope, text, value):
    service = made(policy="version: 1\nname: all\ndefault: {prompt: tokenise, answer: hash}")
    assert find_tokens(text)
    assert value not in (await screened(service, scope, text))[0]
    assert value not in (await released(service, scope, text))[-1].text


async def test_an_answer_is_tokenised_and_tokens_in_it_pass(made, scope):
    service = made()
    (asked,) = await screened(service, scope, f"mail {MAIL}")
    *pieces, end = await released(service, scope, f"It is {asked[5:]}, not b", "ob@example.org.")
    text = "".join(pieces)

    assert end.text == text
    assert [(each.type, each.action, each.count) for each in end.verdict.counts] == [
        ("EMAIL", "tokenise", 1)
    ]
    assert await put_back(service, scope, text) == f"It is {MAIL}, not bob@example.org."


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(1, 40), max_size=12))
def test_an_answer_is_the_same_however_it_is_cut(made, scope, sizes):
    async def check():
        service = made()
        text = f"Card {CARD} is of {MAIL}. Ask [PERSON_7K3F9Q2MBX], then http://example.org/x. " * 3
        whole = (await released(service, scope, text))[-1].text
        at, parts = 0, []
        for size in sizes:
            parts.append(text[at : at + size])
            at += size
        *pieces, end = await released(service, scope, *filter(None, parts), text[at:])

        assert end.text == "".join(pieces) == whole
        assert await put_back(service, scope, whole) == text.replace(
            "http://example.org/x", whole.split("then ")[1].split(". ")[0]
        )

    asyncio.run(check())


@pytest.mark.parametrize("change", [{"tenant": "other"}, {"session": "case-8"}, {"session": ""}])
async def test_a_token_is_worth_nothing_in_another_tenant_or_session(made, scope, change):
    service = made()
    (shown,) = await screened(service, scope, f"mail {MAIL}")

    assert await put_back(service, replace(scope, **change), shown) == shown
    assert await screened(service, replace(scope, **change), f"mail {MAIL}") != [shown]


async def test_calls_without_a_session_share_nothing(made, scope):
    service, alone = made(), replace(scope, session="")
    (shown,) = await screened(service, alone, f"mail {MAIL}")
    other = replace(alone, call_id=b"\7" * 16)

    assert await put_back(service, alone, shown) == f"mail {MAIL}"
    assert await put_back(service, other, shown) == shown
    assert await screened(service, other, f"mail {MAIL}") != [shown]


async def test_what_is_remembered_of_a_text_serves_every_session(made, scope):
    service = made()
    scopes = [replace(scope, session=f"s{number}") for number in range(3)]
    shown = [(await screened(service, each, f"mail {MAIL}"))[0] for each in scopes * 2]

    assert shown[:3] == shown[3:]
    assert len(set(shown)) == 3
    for each, text in zip(scopes, shown, strict=False):
        assert await put_back(service, each, text) == f"mail {MAIL}"


async def test_a_forged_token_stays(made, scope):
    service = made()
    await screened(service, scope, f"mail {MAIL}")

    assert await put_back(service, scope, "[EMAIL_7K3F9Q2MBX]") == "[EMAIL_7K3F9Q2MBX]"


async def test_tokens_expire_with_their_session(made, scope):
    now = [0.0]
    store = MemoryTokenMap(entries_max=10, sessions_max=10, clock=lambda: now[0])
    service = made(vault(store))
    (shown,) = await screened(service, scope, f"mail {MAIL}")
    now[0] = 59.0
    assert await put_back(service, scope, shown) == f"mail {MAIL}"
    now[0] = 120.0

    assert await put_back(service, scope, shown) == shown
    assert await screened(service, scope, f"mail {MAIL}") == [shown]


async def test_text_that_could_not_be_restored_is_refused_both_ways(made, scope):
    service = made(vault(Down()))
    for asked in (
        screened(service, scope, f"mail {MAIL}"),
        released(service, scope, f"mail {MAIL}"),
        service.reveal(scope, ["EMAIL_7K3F9Q2MBX"]),
    ):
        with pytest.raises(Refusal) as caught:
            await asked
        assert caught.value.reason is Reason.COMPLIANCE_DOWN
    assert await screened(service, scope, "No data, and 203.0.113.77") == ["No data, and (a host)"]


async def test_redis_down_refuses_what_policy_tokenises(made, scope, tmp_path):
    async with real_redis(tmp_path / "redis") as server:
        config = ComplianceSettings(
            names=False, cache_dir=CACHE, redis=server.link_settings("compliance")
        )
        (tmp_path / "policy.yaml").write_text(POLICY)
        config = config.model_copy(update={"policy_file": tmp_path / "policy.yaml"})
        keys = made()._mac_keys()
        async with open_compliance(config, mac_keys=keys, token_secret=SECRET) as service:
            (shown,) = await screened(service, scope, f"mail {MAIL}")
            assert await put_back(service, scope, shown) == f"mail {MAIL}"
            await server.kill()
            with pytest.raises(Refusal) as caught:
                await screened(service, scope, f"mail {MAIL}")

    assert caught.value.reason is Reason.COMPLIANCE_DOWN


async def test_two_values_that_share_an_id_both_come_back(made, scope, monkeypatch):
    def short(self, type_, mark, *, long=False):
        return f"{type_}_{'B' * (ID_CHARS_LONG if long else ID_CHARS)}"

    real = SessionKeys.name
    monkeypatch.setattr(
        SessionKeys,
        "name",
        lambda self, type_, mark, *, long=False: (
            real(self, type_, mark, long=True) if long else short(self, type_, mark)
        ),
    )
    service = made()
    text = f"from {MAIL} to bob@example.org"
    (shown,) = await screened(service, scope, text)

    assert await put_back(service, scope, shown) == text
    assert await screened(service, scope, text) == [shown]


async def test_a_value_moved_to_another_token_does_not_open(made, scope):
    store = MemoryTokenMap(entries_max=10, sessions_max=10)
    keys = TokenKeys(SECRET)
    service = made(vault(store))
    (shown,) = await screened(service, scope, f"mail {MAIL}")
    session, (token,) = keys.session(scope), find_tokens(shown)
    place = vault(store)._place(scope, session)
    (sealed,) = await store.get(place, [session.field(token.name)])
    await store.put(place, [Entry(session.field("EMAIL_7K3F9Q2MBX"), b"m" * 16, sealed)])

    assert await service.reveal(scope, [token.name, "EMAIL_7K3F9Q2MBX"]) == {token.name: MAIL}


async def test_many_calls_at_once_mix_nothing_up(made, scope):
    service = made()

    async def call(number):
        mine = replace(scope, session=f"s{number % 4}", tenant=f"t{number % 3}")
        text = f"mail user{number % 5}@example.org and {MAIL}"
        (shown,) = await screened(service, mine, text)
        *_, end = await released(service, mine, shown[:9], shown[9:])
        assert end.text == shown
        assert await put_back(service, mine, shown) == text
        return (mine.tenant, mine.session, text), shown

    found = await asyncio.gather(*(call(number) for number in range(64)))

    assert len(set(found)) == len({key for key, _ in found}) == len({shown for _, shown in found})


async def test_a_policy_without_tokens_spares_none(made, scope):
    service = made(policy="version: 1\nname: x\ndefault: {prompt: mask, answer: mask}\n")

    assert await screened(service, scope, f"mail {MAIL}") == ["mail [EMAIL]"]
