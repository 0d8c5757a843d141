"""Whom a call is about: as it says, else the user of its token, else nobody; never a name."""

from __future__ import annotations

import pytest

from meshkit.contract import Reason, is_subject, subject_of_user
from tests.gateway.conftest import chat
from tests.gateway.test_failures import refused
from tests.gateway.test_path import streamed
from tests.gateway.test_users import ISSUER, jwks, token


def subjects(house):
    return [event.subject for event in house.audit.events]


async def test_both_events_of_a_call_say_whom_it_is_about(start) -> None:
    async with start() as house, house.caller() as stub:
        await stub.Chat(chat(subject="p-17"))
        await streamed(stub, chat(subject="p-18", no_cache=True))
        await stub.Chat(chat())

        assert subjects(house) == ["p-17"] * 2 + ["p-18"] * 2 + [""] * 2


async def test_a_refused_call_says_it_too(start) -> None:
    async with start() as house, house.caller() as stub:
        refusal, _ = await refused(stub.Chat(chat("a forbidden word", subject="p-17")))

        assert refusal.reason is Reason.BLOCKED
        assert subjects(house) == ["p-17", "p-17"]


async def test_answers_are_not_shared_between_subjects(start) -> None:
    async with start() as house, house.caller() as stub:
        for subject in ("p-17", "p-18", "", "p-17"):
            await stub.Chat(chat(subject=subject))

        assert len(house.cache.answers) == 3
        assert len(house.inference.calls) == 3


@pytest.mark.parametrize(
    ("sub", "said", "found"),
    [
        ("ada", "", "ada"),
        ("ada", "p-17", "p-17"),
        ("ada@example.org", "", subject_of_user("ada@example.org")),
    ],
)
async def test_the_user_of_the_token_stands_in(start, tmp_path, sub, said, found) -> None:
    (tmp_path / "jwks.json").write_bytes(jwks())
    users = {"issuer": ISSUER, "jwks_file": tmp_path / "jwks.json"}
    async with start(users=users) as house, house.caller() as stub:
        bearer = (("authorization", f"Bearer {token(sub=sub)}"),)
        await stub.Chat(chat(subject=said), metadata=bearer)

        assert subjects(house) == [found, found]


@pytest.mark.parametrize("subject", ["Ada Lovelace", "ada@example.org", ".", "-a", "ä", "a" * 129])
async def test_what_might_be_a_name_is_refused_and_not_repeated(start, subject) -> None:
    async with start() as house, house.caller() as stub:
        refusal, _ = await refused(stub.Chat(chat(subject=subject)))

        assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "subject")
        assert subjects(house) == [""]


@pytest.mark.parametrize("user", ["ada", "auth0|5f7", "ada@example.org", "Ada Lovelace", "x" * 256])
def test_every_user_has_a_subject_and_two_have_two(user) -> None:
    assert is_subject(subject_of_user(user))
    assert subject_of_user(user) != subject_of_user(f"{user}2")
