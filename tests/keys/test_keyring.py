"""How long keys serve, against a key service and a clock of our own; and against OpenBao."""

import asyncio
import os
import random
import signal
import time
import timeit
from base64 import b64encode
from dataclasses import dataclass, field
from errno import ENOSPC

import pytest

from appliance.bootstrap import BootstrapSettings, prepared
from appliance.openbao import OpenBaoSettings, openbao
from meshkit.contract import Reason
from meshkit.envelope import (
    Clock,
    FolderWrappedKeys,
    KeyErased,
    KeyringSettings,
    MemoryWrappedKeys,
    SealBroken,
    keyring,
)
from meshkit.sealing import day_of, key_id_of
from meshkit.vault import DataKey, VaultDown, VaultRejected, vault

NOON = 20_000 * 86_400 + 43_200.0
DAY = 20_000
MINE = {"tenant": "acme", "purpose": "payload", "aad": b"event 7"}
QUIET = KeyringSettings(tick_s=3_600, refresh_jitter=0)


@dataclass
class Service:
    """Wraps by remembering. `mood` is what it raises; `asked` what it was asked."""

    keys: dict[str, tuple[str, bytes, bytes]] = field(default_factory=dict)
    mood: Exception | None = None
    asked: list[str] = field(default_factory=list)
    pause_s: float = 0

    async def datakey(self, name: str, *, aad: bytes) -> DataKey:
        self.asked.append("datakey")
        await asyncio.sleep(self.pause_s)
        if self.mood:
            raise self.mood
        plaintext, wrapped = os.urandom(32), b64encode(os.urandom(9)).decode()
        self.keys[wrapped] = (name, aad, plaintext)
        return DataKey(plaintext, wrapped)

    async def decrypt(self, name: str, wrapped: str, *, aad: bytes) -> bytes:
        self.asked.append("decrypt")
        await asyncio.sleep(self.pause_s)
        if self.mood:
            raise self.mood
        known = self.keys.get(wrapped)
        if known is None or known[:2] != (name, aad):
            raise VaultRejected(400)
        return known[2]


@dataclass
class Time:
    wall: float = NOON
    steady: float = 0.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.steady)


@dataclass
class Room:
    service: Service = field(default_factory=Service)
    store: MemoryWrappedKeys = field(default_factory=MemoryWrappedKeys)
    time: Time = field(default_factory=Time)

    def keyring(self, **changes):
        settings = QUIET.model_copy(update=changes)
        return keyring(self.service, self.store, settings, self.time.clock)


@pytest.fixture
def room() -> Room:
    return Room()


async def test_sealing_asks_once_a_day_and_purpose(room) -> None:
    async with room.keyring() as keys:
        records = [await keys.seal(plaintext=b"%d" % n, **MINE) for n in range(50)]
        opened = [await keys.open(sealed=record, **MINE) for record in records]

    assert opened == [b"%d" % n for n in range(50)]
    assert room.service.asked == ["datakey"]
    assert {day_of(key_id_of(record)) for record in records} == {DAY}


async def test_a_later_process_opens_what_an_earlier_one_sealed(room) -> None:
    async with room.keyring() as keys:
        record = await keys.seal(plaintext=b"x", **MINE)
    async with room.keyring() as keys:
        assert keys.try_open(sealed=record, **MINE) is None
        assert await keys.open(sealed=record, **MINE) == b"x"
        assert keys.try_open(sealed=record, **MINE) == b"x"


async def test_many_who_wait_make_one_key(room) -> None:
    room.service.pause_s = 0.01
    async with room.keyring() as keys:
        await asyncio.gather(*(keys.seal(plaintext=b"x", **MINE) for _ in range(100)))

    assert room.service.asked == ["datakey"]


async def test_one_who_goes_away_does_not_spoil_it_for_the_others(room) -> None:
    room.service.pause_s = 0.02
    async with room.keyring() as keys:
        first = asyncio.create_task(keys.seal(plaintext=b"x", **MINE))
        second = asyncio.create_task(keys.seal(plaintext=b"y", **MINE))
        await asyncio.sleep(0.005)
        first.cancel()
        record = await second

    assert len(record) > 0
    assert room.service.asked == ["datakey"]


@pytest.mark.parametrize(
    "other",
    [
        MINE | {"tenant": "rival"},
        MINE | {"purpose": "cache"},
        MINE | {"aad": b"event 8"},
    ],
)
async def test_a_record_opens_only_for_its_owner(room, other) -> None:
    async with room.keyring() as keys:
        await keys.seal(plaintext=b"theirs", **other)
        record = await keys.seal(plaintext=b"mine", **MINE)
        with pytest.raises(SealBroken):
            await keys.open(sealed=record, **other)


async def test_a_key_moved_to_another_tenant_does_not_open(room) -> None:
    """The wrapped form is bound to its tenant by OpenBao, even if the store is not trusted."""
    async with room.keyring() as keys:
        record = await keys.seal(plaintext=b"mine", **MINE)
    (key,) = room.store._keys.values()
    room.store._keys["rival", key.key_id] = key.__class__(
        key.key_id, "rival", key.purpose, key.wrapped
    )
    async with room.keyring() as keys:
        with pytest.raises(SealBroken):
            await keys.open(sealed=record, **MINE | {"tenant": "rival"})


# --- OpenBao away -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_s", "opens", "seals"),
    [
        (0, True, True),
        (299, True, True),
        (301, False, True),
        (899, False, True),
        (901, False, False),
    ],
)
async def test_how_long_keys_serve_while_openbao_is_away(room, age_s, opens, seals) -> None:
    async with room.keyring() as keys:
        record = await keys.seal(plaintext=b"x", **MINE)
        room.service.mood = VaultDown()
        room.time.passes(age_s)

        async def works(call) -> bool:
            try:
                await call
            except VaultDown:
                return False
            return True

        assert await works(keys.open(sealed=record, **MINE)) is opens
        assert await works(keys.seal(plaintext=b"y", **MINE)) is seals


async def test_a_refusal_ends_sealing_at_once_not_after_fifteen_minutes(room) -> None:
    async with room.keyring() as keys:
        await keys.seal(plaintext=b"x", **MINE)
        room.service.mood = VaultRejected(403)
        room.time.passes(301)
        with pytest.raises(VaultRejected):
            await keys.seal(plaintext=b"x", **MINE)
        assert keys.try_seal(plaintext=b"x", **MINE) is None


async def test_stale_sealing_needs_no_waiting(room) -> None:
    async with room.keyring() as keys:
        await keys.seal(plaintext=b"x", **MINE)
        room.service.mood = VaultDown()
        room.time.passes(241)
        await keys.maintain()
        room.time.passes(200)

        assert keys.try_seal(plaintext=b"x", **MINE) is not None
        room.time.passes(500)
        assert keys.try_seal(plaintext=b"x", **MINE) is None


async def test_while_away_it_is_not_asked_over_and_over(room) -> None:
    room.service.mood = VaultDown()
    async with room.keyring() as keys:
        for _ in range(20):
            with pytest.raises(VaultDown):
                await keys.seal(plaintext=b"x", **MINE)
        assert len(room.service.asked) == 1
        room.time.passes(1.1)
        room.service.mood = None
        await keys.seal(plaintext=b"x", **MINE)


# --- ahead of need ------------------------------------------------------------------------------


async def test_a_used_key_is_confirmed_before_it_is_over(room) -> None:
    async with room.keyring() as keys:
        record = await keys.seal(plaintext=b"x", **MINE)
        for _ in range(10):
            room.time.passes(241)
            await keys.maintain()
            assert keys.try_open(sealed=record, **MINE) == b"x"

    assert room.service.asked == ["datakey"] + ["decrypt"] * 10


async def test_an_unused_key_is_let_go(room) -> None:
    async with room.keyring() as keys:
        await keys.seal(plaintext=b"x", **MINE)
        for _ in range(20):
            room.time.passes(100)
            await keys.maintain()
        assert len(keys._held) == 0

    assert room.service.asked == ["datakey", "decrypt"]


async def test_midnight_needs_nobody(room) -> None:
    async with room.keyring() as keys:
        room.time.wall = (DAY + 1) * 86_400 - 3_500
        await keys.seal(plaintext=b"x", **MINE)
        for _ in range(17):
            await keys.maintain()
            room.time.passes(200)
            await keys.seal(plaintext=b"x", **MINE)
        await keys.maintain()
        room.service.mood = VaultDown()
        room.time.passes(150)
        record = await keys.seal(plaintext=b"tomorrow", **MINE)

    assert day_of(key_id_of(record)) == DAY + 1
    assert room.service.asked.count("datakey") == 2


async def test_noon_makes_no_key_for_tomorrow(room) -> None:
    async with room.keyring() as keys:
        await keys.seal(plaintext=b"x", **MINE)
        await keys.maintain()

    assert room.service.asked == ["datakey"]


# --- limits, erasing, trust -----------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"records_max": 3}, {"bytes_max": 9}])
async def test_a_full_key_hands_over(room, limit) -> None:
    async with room.keyring(**limit) as keys:
        records = [await keys.seal(plaintext=b"abc", **MINE) for _ in range(9)]
        assert all([await keys.open(sealed=one, **MINE) == b"abc" for one in records])

    assert len({key_id_of(record) for record in records}) == 3


async def test_the_least_used_key_makes_room(room) -> None:
    async with room.keyring(keys_max=3) as keys:
        for number in range(10):
            room.time.passes(1)
            await keys.seal(plaintext=b"x", **MINE | {"tenant": f"t{number}"})
        assert len(keys._held) == 3
        assert keys.try_seal(plaintext=b"x", **MINE | {"tenant": "t9"}) is not None
        assert keys.try_seal(plaintext=b"x", **MINE | {"tenant": "t0"}) is None


async def test_erased_is_erased_here_and_later(room) -> None:
    async with room.keyring() as keys:
        record = await keys.seal(plaintext=b"x", **MINE)
        kept = await keys.seal(plaintext=b"y", **MINE | {"tenant": "other"})

        assert await keys.erase("acme", DAY) == 1
        with pytest.raises(KeyErased):
            await keys.open(sealed=record, **MINE)
        assert await keys.open(sealed=kept, **MINE | {"tenant": "other"}) == b"y"
    async with room.keyring() as keys:
        with pytest.raises(KeyErased):
            await keys.open(sealed=record, **MINE)


async def test_what_another_process_erased_is_lost_here_within_five_minutes(room) -> None:
    async with room.keyring() as keys, room.keyring() as other:
        record = await keys.seal(plaintext=b"x", **MINE)
        await other.erase("acme", DAY)
        room.time.passes(241)
        await keys.maintain()

        with pytest.raises(KeyErased):
            await keys.open(sealed=record, **MINE)
        again = await keys.seal(plaintext=b"z", **MINE)
        assert key_id_of(again) != key_id_of(record)


async def test_a_key_is_kept_before_it_is_used(room) -> None:
    class Broken(MemoryWrappedKeys):
        async def put(self, key) -> None:
            raise OSError(ENOSPC, key.tenant)

    room.store = Broken()
    async with room.keyring() as keys:
        with pytest.raises(OSError, match="acme"):
            await keys.seal(plaintext=b"x", **MINE)
        assert keys.try_seal(plaintext=b"x", **MINE) is None


@pytest.mark.parametrize("tenant", ["", "A", "../x", "a|b", "a/b", "a" * 64])
async def test_a_tenant_is_a_label(room, tenant) -> None:
    async with room.keyring() as keys:
        with pytest.raises(ValueError, match="label"):
            await keys.seal(plaintext=b"x", **MINE | {"tenant": tenant})

    assert room.service.asked == []


def test_the_wrapping_is_bound_as_the_design_says(room) -> None:
    async def go() -> None:
        async with room.keyring() as keys:
            await keys.seal(plaintext=b"x", **MINE)

    asyncio.run(go())
    ((name, aad, _),) = room.service.keys.values()
    assert (name, aad) == ("t-acme", b"v1|acme|2024-10-04|payload")


# --- the folder -----------------------------------------------------------------------------------


async def test_a_folder_keeps_keys_across_processes_and_erases_them(room, tmp_path) -> None:
    folder = tmp_path / "deep" / "keys"
    room.store = FolderWrappedKeys(folder)
    async with room.keyring() as keys:
        record = await keys.seal(plaintext=b"x", **MINE)
    room.store = FolderWrappedKeys(folder)
    (file,) = folder.rglob("*.json")
    assert file.relative_to(folder).parts[:2] == ("acme", str(DAY))
    assert file.stat().st_mode & 0o777 == 0o600
    async with room.keyring() as keys:
        assert await keys.open(sealed=record, **MINE) == b"x"
        assert await keys.erase("acme", DAY) == 1
        assert await keys.erase("acme", DAY) == 0
        assert list(folder.rglob("*.json")) == []
        with pytest.raises(KeyErased):
            await keys.open(sealed=record, **MINE)


async def test_a_damaged_key_file_is_no_key(room, tmp_path) -> None:
    room.store = FolderWrappedKeys(tmp_path)
    async with room.keyring() as keys:
        record = await keys.seal(plaintext=b"x", **MINE)
    (file,) = tmp_path.rglob("*.json")
    file.write_text("{")
    async with room.keyring() as keys:
        with pytest.raises(SealBroken):
            await keys.open(sealed=record, **MINE)


# --- the real thing -------------------------------------------------------------------------------


async def test_with_openbao_and_without_it(tmp_path) -> None:
    clock = Time(wall=time.time())
    async with openbao(OpenBaoSettings(data=tmp_path / "bao")) as bao:
        async with prepared(bao, BootstrapSettings(tenants=("acme",))) as estate:
            login = await estate.admin.login("audit")
        store = FolderWrappedKeys(tmp_path / "keys")
        async with vault(bao.vault_settings(backoff_ms=1), login) as service:
            async with keyring(service, store, QUIET, clock.clock) as keys:
                record = await keys.seal(plaintext=b"x", **MINE)
            async with keyring(service, store, QUIET, clock.clock) as keys:
                assert await keys.open(sealed=record, **MINE) == b"x"
                sealed = await keys.seal(plaintext=b"y", **MINE)
                os.kill(bao.pid, signal.SIGKILL)

                assert await keys.open(sealed=sealed, **MINE) == b"y"
                clock.passes(301)
                with pytest.raises(VaultDown) as down:
                    await keys.open(sealed=sealed, **MINE)
                assert down.value.reason is Reason.KEYS_DOWN
                assert len(await keys.seal(plaintext=b"z", **MINE)) > 0
                clock.passes(600)
                with pytest.raises(VaultDown):
                    await keys.seal(plaintext=b"z", **MINE)


async def test_opening_costs_microseconds(room) -> None:
    async with room.keyring() as keys:
        record = await keys.seal(plaintext=b"x" * 400, **MINE)

        def once() -> None:
            keys.try_open(sealed=record, **MINE)

        best_us = min(timeit.repeat(once, number=500, repeat=10)) / 500 * 1e6
    assert best_us < 300, "about 10 on an idle machine; this only catches a request or a sleep"


async def test_keys_made_together_are_confirmed_at_different_times(room) -> None:
    tenants = [f"t{number}" for number in range(40)]
    async with room.keyring(refresh_jitter=0.2) as keys:
        for tenant in tenants:
            await keys.seal(**MINE | {"tenant": tenant}, plaintext=b"x")
        room.time.passes(300 * 0.8 * 0.9)
        await keys.maintain()
        early = room.service.asked.count("decrypt")
        room.time.passes(300 * 0.8 * 0.1)
        await keys.maintain()

    assert 0 < early < len(tenants)
    assert room.service.asked.count("decrypt") >= len(tenants)


async def test_after_the_end_of_a_key_was_told_nothing_stale_serves(room) -> None:
    """Not even to seal, and not even while OpenBao cannot say whether it is gone."""
    async with room.keyring() as keys:
        record = await keys.seal(plaintext=b"x", **MINE)
        room.service.mood = VaultDown()
        assert keys.try_seal(plaintext=b"y", **MINE) is not None
        await keys.ask_anew("acme")
        assert keys.held() == {}
        assert keys.try_seal(plaintext=b"y", **MINE) is None
        with pytest.raises(VaultDown):
            await keys.open(sealed=record, **MINE)
        room.service.mood = None
        room.time.passes(5)
        assert await keys.open(sealed=record, **MINE) == b"x"


async def test_ten_thousand_records_in_wrong_hands_open_for_nobody(room) -> None:
    """18 of the 20 tests of an audit log: swapped tenant, purpose, aad and data key id."""
    mine, theirs = MINE, MINE | {"tenant": "globex"}
    draw = random.Random(18)
    async with room.keyring() as keys:
        records = {
            owner["tenant"]: [await keys.seal(plaintext=b"%d" % n, **owner) for n in range(20)]
            for owner in (mine, theirs)
        }
        opened = 0
        for number in range(10_000):
            one, other = draw.choice(records["acme"]), draw.choice(records["globex"])
            lie = [
                (other, mine),
                (one, theirs),
                (one, mine | {"aad": b"event %d" % (8 + number)}),
                (one, mine | {"purpose": "cache"}),
                (one[:1] + other[1:17] + one[17:], mine),
                (other[:1] + one[1:17] + other[17:], mine),
                (one[:49] + other[49:], mine),
            ][number % 7]
            try:
                await keys.open(sealed=lie[0], **lie[1])
                opened += 1
            except SealBroken:
                continue

    assert opened == 0
