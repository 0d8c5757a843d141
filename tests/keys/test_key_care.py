"""What `sealgate keys` does to a log that is being written, over a real OpenBao.

Rotate, rewrap and trim under load (14 of the 20 tests of an audit log), the end of a tenant, and
that each act stands in the log.
"""

import asyncio
import json
import statistics
import time

import pytest
import pytest_asyncio

from appliance.key_rotation import rotate_due
from audit.keys.orders import order
from audit.privacy.holds import Hold, Holds, HoldScope
from meshkit.contract import Reason, Refusal
from meshkit.rewrap import BATCH_MAX, rewrap, version_of
from meshkit.sealing import new_key_id
from meshkit.tlog import LogKeys, NoteInvalid, check_receipt, open_checkpoint, split_note
from meshkit.vault import VaultRejected
from meshkit.wrapped_keys import FolderWrappedKeys, WrappedKey, wrapping_aad
from tests.audit.world import make_outcome
from tests.keys.audit_house import AuditHouse, Load, audit_house
from tests.keys.conftest import SETTINGS

DAY = 20_000

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("house")
    async with (
        world.vault_of("audit") as keys,
        audit_house(world.bao, keys, SETTINGS, folder) as house,
    ):
        yield house


@pytest.fixture
def store(house: AuditHouse) -> FolderWrappedKeys:
    return FolderWrappedKeys(house.data / "audit" / "keys")


async def test_rotate_rewrap_and_trim_under_load(house, store) -> None:
    await house.estate.add_tenant("rota")
    async with Load(house.log, "rota").running() as load:
        await load.goes_on()
        before = len(load.done)
        code, told = await house.cli("rotate", "--tenant", "rota")
        assert (code, told) == (0, {"rotated": {"rota": 2}})
        code, told = await house.cli("trim", "--tenant", "rota")
        assert code == 1
        assert "rewrap first" in told["why"]
        code, told = await house.cli("rewrap", "--tenant", "rota")
        assert (code, told["rewrapped"]["rota"]["left"]) == (0, 0)
        assert {version_of(key.wrapped) for key in await store.keys("rota")} == {2}
        code, told = await house.cli("trim", "--tenant", "rota")
        assert (code, told["version"]) == (0, 2)
        await order(house.data / "audit", "look", tenant="rota")  # no key of before is left
        await load.goes_on()

    assert load.failed == []
    assert load.opened == len(load.done)
    quiet, busy = load.done[:before], load.done[before:]
    ratio = statistics.median(busy) / statistics.median(quiet)
    assert ratio < 50, f"median x{ratio:.1f} meanwhile"  # a stall would be thousands
    code, status = await house.cli("status", "--tenant", "rota")
    (rota,) = status["tenants"]
    assert (rota["latest"], rota["min_decryption"], rota["under_older"]) == (2, 2, 0)
    assert list(rota["versions"]) == ["2"]
    assert status["held"]["payload"]["rota"] >= 1
    assert [act for act in house.acts() if act[0] in {"key.rotate", "key.rewrap", "key.trim"}] == [
        ("key.rotate", "begun"), ("key.rotate", "ok"),
        ("key.rewrap", "begun"), ("key.rewrap", "ok"),
        ("key.trim", "begun"), ("key.trim", "ok"),
    ]  # fmt: skip


async def test_the_checkpoint_key_is_rotated_under_load(house) -> None:
    signer, folder = house.log.parts.signer, house.data / "audit"
    old, clock = (folder / "vkey").read_text().strip(), signer._clock
    async with Load(house.log, "demo", opens=False).running() as load:
        await load.goes_on()
        before, count = len(load.done), len(signer.known.keys)
        code, told = await house.cli("rotate", "--checkpoint")
        assert (code, told) == (0, {"checkpoint": count + 1})
        both = await checkpointed(house, load, lines=2)
        assert both.partition("\n")[2] == old
        assert holds(house, old) == holds(house, both) == holds(house, both.partition("\n")[0])
        signer._clock = lambda: clock() + 31 * 86_400  # the overlap is over
        new = await checkpointed(house, load, lines=1)
        assert new == both.partition("\n")[0]
        assert holds(house, new) == holds(house, both) == "holds"
        assert "not signed" in holds(house, old)
        await load.goes_on()
    signer._clock = clock
    assert load.failed == []
    quiet, busy = percentile(load.done[:before]), percentile(load.done[before:])
    assert busy < 50 * max(quiet, 0.05)  # a stall would be thousands
    check_receipt((await house.log.append(make_outcome(tenant="demo"))).receipt, new)
    assert house.acts()[-2:] == [("key.rotate", "begun"), ("key.rotate", "ok")]
    code, status = await house.cli("status", "--tenant", "demo")
    assert set(status["checkpoint"]) == {str(n + 1) for n in range(count + 1)}


def percentile(seconds, share=0.99) -> float:
    return sorted(seconds)[int(share * (len(seconds) - 1))]


async def checkpointed(house, load, lines) -> str:
    """The vkeys, once there are so many and a checkpoint bears a signature by each of them."""
    async with asyncio.timeout(30):
        while True:
            vkeys = (house.data / "audit" / "vkey").read_text().strip()
            note = (await house.log.checkpoint()).note
            signers = {raw[:4] for _, raw in split_note(note)[1]}
            keys = LogKeys.parse(vkeys).keys
            if len(keys) == lines and signers == {key.key_id for key in keys}:
                await load.goes_on()
                return vkeys
            await asyncio.sleep(0.02)


def holds(house, vkey) -> str:
    """What a verifier with these keys makes of the published checkpoint, now."""
    note = (house.data / "audit" / "log" / "checkpoint").read_text()
    try:
        open_checkpoint(note, LogKeys.parse(vkey))
    except NoteInvalid as invalid:
        return str(invalid)
    return "holds"


async def test_what_an_older_version_wrapped_is_gone_after_a_trim(house, world, store) -> None:
    await house.estate.add_tenant("trimmed")
    async with world.vault_of("audit") as keys:
        old = await keys.datakey("t-trimmed", aad=b"v1")
        await house.cli("rotate", "--tenant", "trimmed")
        assert await keys.decrypt("t-trimmed", old.wrapped, aad=b"v1") == old.plaintext
        assert (await house.cli("trim", "--tenant", "trimmed"))[0] == 0
        with pytest.raises(VaultRejected):
            await keys.decrypt("t-trimmed", old.wrapped, aad=b"v1")


async def test_more_keys_than_a_batch_holds_are_rewrapped_and_damage_is_left(
    house, world, tmp_path
) -> None:
    await house.estate.add_tenant("many")
    store = FolderWrappedKeys(tmp_path)
    async with world.vault_of("audit") as keys:
        plain = {}
        for number in range(BATCH_MAX + 3):
            key = WrappedKey(new_key_id(DAY + number % 3), "many", "audit-payload", "")
            made = await keys.datakey("t-many", aad=wrapping_aad(key))
            plain[key.key_id] = made.plaintext
            await store.put(WrappedKey(key.key_id, "many", "audit-payload", made.wrapped))
        moved = WrappedKey(new_key_id(DAY + 9), "many", "audit-payload", made.wrapped)
        await store.put(moved)  # of another day: OpenBao does not open it here
        await house.cli("rotate", "--tenant", "many")

        told = await rewrap(keys, store, "many", version=2)

        assert (told.done, told.left) == (BATCH_MAX + 3, 1)
        kept = {key.key_id: key for key in await store.keys("many")}
        assert kept[moved.key_id] == moved
        one = kept[next(iter(plain))]
        assert version_of(one.wrapped) == 2
        opened = await keys.decrypt("t-many", one.wrapped, aad=wrapping_aad(one))
        assert opened == plain[one.key_id]
        assert (await rewrap(keys, store, "many", version=2)).done == 0


async def test_a_key_erased_meanwhile_is_not_brought_back(tmp_path) -> None:
    store = FolderWrappedKeys(tmp_path)
    key = WrappedKey(new_key_id(DAY), "acme", "audit-payload", "vault:v1:x")
    await store.put(key)
    await store.drop("acme", DAY)

    assert not await store.replace(key, "vault:v2:y")
    assert await store.keys("acme") == []


async def test_pseudonyms_are_rotated_and_made_unlinkable_by_command(house) -> None:
    await house.estate.add_tenant("names")
    names = house.log.parts.pseudonyms
    first = await house.log.append(make_outcome(tenant="names"))
    code, told = await house.cli("rotate", "--pseudonyms", "--tenant", "names")
    assert code == 0
    second = await house.log.append(make_outcome(tenant="names"))
    leaves = [json.loads(house.log.parts.leaf(n.index))["event"] for n in (first, second)]
    assert leaves[0]["user"] != leaves[1]["user"]
    assert leaves[1]["pseudonym_key"] == told["rotated"]["names"]
    assert set(await names.all_of("user", "names", "ada")) == {leaf["user"] for leaf in leaves}
    code, told = await house.cli("destroy", "--pseudonyms", "--tenant", "names")
    assert (code, told["pseudonym_keys"]) == (0, 2)
    assert await names.all_of("user", "names", "ada") == []
    assert ("key.destroy", "ok") in house.acts()


async def test_a_tenant_s_end_step_by_step_and_nobody_else_s(house, store) -> None:
    for tenant in ("gone", "stays"):
        await house.estate.add_tenant(tenant)
    first = await house.log.append(make_outcome(tenant="gone"))
    async with Load(house.log, "stays").running() as other:
        code, told = await house.cli("destroy", "--tenant", "gone", "--grace-days", "0")
        assert (code, told["stage"]) == (0, "grace")
        await refuses_to_seal(house, "gone")
        with pytest.raises(Refusal):
            await house.log.payload("gone", first.index)
        refused = await house.log.append(make_outcome(tenant="gone", payload=None, **NO_TEXT))
        assert refused.receipt is not None  # its refusals are still recorded
        code, told = await house.cli("destroy", "--tenant", "gone", "--snapshot-days", "0")
        assert (code, told["stage"]) == (0, "deleted")
        assert await store.keys("gone") == []
        code, told = await house.cli("destroy", "--tenant", "gone")
        assert (code, told["stage"]) == (0, "done")
        code, told = await house.cli("destroy", "--tenant", "gone")
        assert (code, told["error"]) == (1, "not_now")
        await other.goes_on()

    assert other.failed == []
    ends = [act for act, outcome in house.acts() if outcome == "ok"]
    assert ends[-3:] == ["tenant.offboard", "key.destroy", "tenant.irrecoverable"]
    assert (await house.cli("rotate", "--tenant", "gone"))[0] == 1


async def test_within_the_grace_a_tenant_can_be_restored(house) -> None:
    await house.estate.add_tenant("back")
    first = await house.log.append(make_outcome(tenant="back"))
    await house.cli("destroy", "--tenant", "back")
    await refuses_to_seal(house, "back")
    code, told = await house.cli("destroy", "--tenant", "back")
    assert (code, told["error"]) == (1, "not_now")
    assert (await house.cli("rotate", "--tenant", "back"))[0] == 1
    assert (await house.cli("restore", "--tenant", "back"))[0] == 0
    await house.log.append(make_outcome(tenant="back"))
    assert (await house.log.payload("back", first.index)).payload.released
    assert (await house.cli("restore", "--tenant", "back"))[0] == 1


async def test_a_legal_hold_stands_against_the_end_of_a_tenant(house, store) -> None:
    """At each step, and at the audit service itself; the tries are recorded."""
    await house.estate.add_tenant("held")
    first = await house.log.append(make_outcome(tenant="held"))
    holds = Holds(house.data / "audit" / "holds")
    hold = Hold(
        id=bytes(16), tenant="held", scope=HoldScope.SUBJECT, value="p", reference="c", set_us=1
    )
    holds.put(hold)
    code, told = await house.cli("destroy", "--tenant", "held", "--grace-days", "0")
    assert (code, told["error"]) == (1, "not_now")
    assert ("tenant.offboard", "failed") in house.acts()
    assert (await house.log.payload("held", first.index)).payload.released
    holds.remove(hold)
    assert (await house.cli("destroy", "--tenant", "held", "--grace-days", "0"))[0] == 0
    holds.put(hold)
    code, told = await house.cli("destroy", "--tenant", "held")
    assert (code, told["error"]) == (1, "not_now")
    with pytest.raises(Refusal) as caught:
        await order(house.data / "audit", "drop", tenant="held")
    assert caught.value.reason is Reason.HELD
    assert (await house.cli("restore", "--tenant", "held"))[0] == 0
    assert (await house.log.payload("held", first.index)).payload.released
    holds.remove(hold)


async def test_what_is_due_is_rotated_and_rewrapped_by_the_calendar(house, store) -> None:
    await house.estate.add_tenant("calendar")
    first = await house.log.append(make_outcome(tenant="calendar"))

    assert "calendar" not in await rotate_due(house.data, life_days=1)
    assert "calendar" in await rotate_due(house.data, life_days=0)

    assert {version_of(key.wrapped) for key in await store.keys("calendar")} == {2}
    assert (await house.log.payload("calendar", first.index)).payload.released


async def test_what_cannot_be_recorded_is_not_done(house) -> None:
    await house.estate.add_tenant("mute")
    house.log.close(Reason.AUDIT_DOWN)
    try:
        code, told = await house.cli("rotate", "--tenant", "mute")
    finally:
        house.log._closed = None
    assert (code, told) == (3, {"error": "refused", "reason": "AUDIT_DOWN"})
    code, status = await house.cli("status", "--tenant", "mute")
    assert status["tenants"][0]["latest"] == 1


async def test_a_destroyed_tenant_gets_no_new_key_at_the_next_start(house, world) -> None:
    from appliance.bootstrap import prepare
    from appliance.openbao_keys import TenantKeys

    again = SETTINGS.model_copy(update={"tenants": ("gone", "demo")})
    await prepare(house.estate.keys, again)

    assert await TenantKeys(house.estate.keys).facts("gone") is None


NO_TEXT = {
    "prompt_screened": None,
    "answer_released": None,
    "answer_delivered": None,
    "outcome": "KEYS_DOWN",
}


async def refuses_to_seal(house: AuditHouse, tenant: str) -> None:
    began = time.monotonic()
    with pytest.raises(Refusal) as caught:
        await house.log.append(make_outcome(tenant=tenant))
    assert caught.value.reason is Reason.KEYS_DOWN
    assert time.monotonic() - began < 30
