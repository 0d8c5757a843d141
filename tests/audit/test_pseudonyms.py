"""Who is who in the log: per tenant, key by key, and never again once a key is erased."""

import json
import os
import time
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.keys.pseudonym_keys import PseudonymStore, pseudonym_keys
from audit.keys.pseudonyms import DerivedKeys, Names, Pseudonyms
from audit.log.appender import AuditLog
from meshkit.contract import Reason, Refusal
from meshkit.envelope import KeyringSettings
from meshkit.held_keys import DAY_S
from meshkit.vault import DataKey, VaultDown, VaultRejected
from tests.audit.world import World, make_event, make_outcome

LOG_KEY = bytes(range(32))
ADA = ("user", "acme", "ada")


class Service:
    """Wraps by remembering; `mood` is what it raises."""

    def __init__(self):
        self.keys = {}
        self.mood = None

    async def datakey(self, name, *, aad):
        if self.mood:
            raise self.mood
        made = DataKey(os.urandom(32), os.urandom(9).hex())
        self.keys[made.wrapped] = (name, aad, made.plaintext)
        return made

    async def decrypt(self, name, wrapped, *, aad):
        if self.mood:
            raise self.mood
        known = self.keys.get(wrapped)
        if known is None or known[:2] != (name, aad):
            raise VaultRejected(400)
        return known[2]


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def kept(service, tmp_path):
    """Open the keys of one folder, as a process does at its start."""

    @asynccontextmanager
    async def opened(**changes):
        whole = {"life_days": 365, "look_s": 3_600.0, "settings": KeyringSettings(tick_s=3_600)}
        async with pseudonym_keys(service, tmp_path / "pseudonyms", **whole | changes) as keys:
            yield keys

    return opened


async def user_of(keys, event=None):
    names = Pseudonyms(LOG_KEY, keys)
    return (await names.names(event or make_event())).user("acme", "ada")


def test_tenants_users_kinds_and_keys_are_told_apart():
    tenants = Pseudonyms(LOG_KEY, DerivedKeys(bytes(32)))
    one, other = (Names(tenants.tenant, os.urandom(32), "") for _ in range(2))
    names = {
        tenants.tenant("acme"), tenants.tenant("globex"), one.user("acme", "ada"),
        one.user("globex", "ada"), one.workload("acme", "ada"), one.user("acmea", "da"),
        one.subject("acme", "ada"), other.user("acme", "ada"),
    }  # fmt: skip
    assert len(names) == 8
    assert one.tenant("acme") == Pseudonyms(LOG_KEY, DerivedKeys(bytes(32))).tenant("acme")
    with pytest.raises(ValueError, match="32 bytes"):
        Pseudonyms(b"short", DerivedKeys(bytes(32)))


@settings(max_examples=50)
@given(st.text(max_size=30), st.text(max_size=30))
def test_no_two_names_share_a_pseudonym(one, other):
    names = Names(lambda tenant: tenant, bytes(32))
    assert (names.user("acme", one) == names.user("acme", other)) == (one == other)


async def test_a_later_process_gives_the_same_names(kept):
    async with kept() as keys:
        before = await user_of(keys)
        assert keys.at_hand("acme") is not None
    async with kept() as keys:
        assert keys.at_hand("acme") is None
        assert await user_of(keys) == before


async def test_a_rotation_begins_new_names_and_the_old_ones_are_still_known(kept):
    async with kept() as keys:
        names = Pseudonyms(LOG_KEY, keys)
        before = await user_of(keys)
        await keys.rotate("acme")
        after = await user_of(keys)
        assert before != after
        assert set(await names.all_of(*ADA)) == {before, after}
        assert set(await names.all_of("user", "globex", "ada")) & {before, after} == set()


async def test_a_key_that_is_too_old_is_followed_by_the_next(kept, monkeypatch):
    async with kept() as keys:
        before = await user_of(keys)
    now_s = time.time()
    monkeypatch.setattr("audit.keys.pseudonym_keys.time.time", lambda: now_s + 364 * DAY_S)
    async with kept() as keys:
        assert await user_of(keys) == before
    monkeypatch.setattr("audit.keys.pseudonym_keys.time.time", lambda: now_s + 366 * DAY_S)
    async with kept() as keys:
        assert await user_of(keys) != before


async def test_another_process_may_rotate(kept, tmp_path):
    async with kept(look_s=1e-9) as keys, kept() as other:
        before = await user_of(keys)
        await other.rotate("acme")
        assert await user_of(keys) == await user_of(other) != before


async def test_an_erased_key_is_gone_from_memory_disk_and_for_ever(kept, tmp_path):
    async with kept() as keys:
        names = Pseudonyms(LOG_KEY, keys)
        event = make_event()
        before = (await names.names(event)).user("acme", "ada")
        assert await keys.erase("acme") == 1
        assert names.at_hand(event) is None
        assert await names.all_of(*ADA) == []
        assert await PseudonymStore(tmp_path / "pseudonyms").keys("acme") == []
        assert (await names.names(event)).user("acme", "ada") != before


async def test_a_kept_key_that_does_not_open_is_no_answer_that_lacks_some(kept, service):
    """An erasure that took it for erased would say that nothing of the person is left."""
    async with kept() as keys:
        await user_of(keys)
    service.mood = VaultRejected(400)
    async with kept() as keys:
        with pytest.raises(Refusal) as caught:
            await Pseudonyms(LOG_KEY, keys).all_of(*ADA)
    assert caught.value.reason is Reason.KEYS_DOWN


async def test_erasing_what_is_older_keeps_the_newer(kept, monkeypatch):
    today = int(time.time() // DAY_S)
    async with kept() as keys:
        before = await user_of(keys)
        monkeypatch.setattr("audit.keys.pseudonym_keys.time.time", lambda: (today + 2) * DAY_S)
        await keys.rotate("acme")
        after = await user_of(keys)
        assert await keys.erase("acme", before_day=today + 1) == 1
        assert await Pseudonyms(LOG_KEY, keys).all_of(*ADA) == [after]
        assert await user_of(keys) == after != before


async def test_names_go_on_while_openbao_is_away_and_stop_at_their_time(kept, service):
    async with kept() as keys:
        before = await user_of(keys)
        service.mood = VaultDown()
        assert await user_of(keys) == before
        with pytest.raises(Refusal) as caught:
            await user_of(keys, make_event(tenant="globex"))
        assert caught.value.reason is Reason.KEYS_DOWN
    async with kept(settings=KeyringSettings(fresh_s=1e-6, stale_s=1e-6)) as keys:
        with pytest.raises(VaultDown):
            await user_of(keys)


async def test_a_tenant_without_a_key_is_recorded_under_one_that_nobody_keeps(kept, service):
    service.mood = VaultRejected(400)
    async with kept() as keys:
        one = await user_of(keys)
        assert await user_of(keys) == one
        assert await keys.every("acme") == []
    async with kept() as keys:
        assert await user_of(keys) != one


async def test_our_own_lost_login_says_nothing_of_a_tenant(kept, service):
    service.mood = VaultRejected(403)
    async with kept() as keys:
        with pytest.raises(VaultRejected):
            await user_of(keys)


def leaf_of(audit: AuditLog, index: int) -> dict:
    return json.loads(audit.parts.leaf(index))["event"]


async def test_the_leaf_names_its_key_and_a_repeat_is_the_same_event_after_a_rotation(
    kept, tmp_path
):
    world = World(tmp_path)
    event = make_outcome()
    async with kept() as keys:
        world.naming_keys = keys
        async with world.open() as audit:
            first = await audit.append(event)
            key_id = leaf_of(audit, first.index)["pseudonym_key"]
            await keys.rotate("acme")
            again = await audit.append(event)
            assert (again.index, again.leaf_hash) == (first.index, first.leaf_hash)
            other = make_outcome(event.call_id, actor=None)
            with pytest.raises(Refusal) as caught:
                await audit.append(other)
            assert caught.value.reason is Reason.CONFLICT
            fresh = await audit.append(make_outcome())
            assert leaf_of(audit, fresh.index)["pseudonym_key"] != key_id


async def test_a_repeat_is_the_same_event_after_its_key_is_erased(kept, tmp_path):
    world = World(tmp_path)
    event = make_outcome()
    async with kept() as keys:
        world.naming_keys = keys
        async with world.open() as audit:
            first = await audit.append(event)
            await keys.erase("acme")
            assert (await audit.append(event)).index == first.index
            with pytest.raises(Refusal) as caught:
                await audit.append(make_outcome(event.call_id, model="another"))
            assert caught.value.reason is Reason.CONFLICT


async def test_an_event_about_nobody_needs_no_key(kept, service, tmp_path):
    service.mood = VaultDown()
    world = World(tmp_path)
    async with kept() as keys:
        world.naming_keys = keys
        async with world.open() as audit:
            told = await audit.append(make_event(actor=None))
            assert "pseudonym_key" not in leaf_of(audit, told.index)
