"""One contract for every checkpoint lock; then the whole service on a real OpenBao."""

import asyncio
import os
from contextlib import asynccontextmanager

import pytest

from appliance.bootstrap import CHECKPOINT_KEY, CHECKPOINT_LOCK
from audit.log.locks import LockConflict, SqliteLock, VaultLock
from audit.log.signer import MemorySigner, VaultSigner
from meshkit.call_id import new_call_id
from meshkit.contract import Refusal
from meshkit.envelope import keyring
from meshkit.tlog import VerifierKey, check_log, check_receipt
from meshkit.wrapped_keys import FolderWrappedKeys
from tests.audit.test_third_party import go_verify  # noqa: F401 -- a fixture
from tests.audit.world import ANSWER, MESSAGES, ORIGIN, MemoryLock, make_intent, make_outcome


@pytest.fixture(params=["memory", "sqlite", "vault"])
def two_locks(request, tmp_path, keys):
    """Two handles on one lock, as two processes would have them."""
    memory = MemoryLock()
    return {
        "memory": (memory, memory),
        "sqlite": (SqliteLock(tmp_path / "l.sqlite"), SqliteLock(tmp_path / "l.sqlite")),
        "vault": (VaultLock(keys, CHECKPOINT_LOCK), VaultLock(keys, CHECKPOINT_LOCK)),
    }[request.param]


async def test_a_lock_is_replaced_by_who_knows_what_it_holds_and_by_nobody_else(two_locks):
    ours, theirs = two_locks
    before = await ours.load()
    first = await ours.replace(before, "one")
    assert await theirs.load() == first
    second = await theirs.replace(first, "two")
    for stale in (before, first):
        with pytest.raises(LockConflict):
            await ours.replace(stale, "three")
    assert await ours.load() == second
    assert second.note == "two"


async def test_a_replacement_that_is_sent_again_meets_itself(two_locks):
    """The first answer was lost, or its asker was cancelled: that is no second writer."""
    ours, theirs = two_locks
    before = await ours.load()
    first = await ours.replace(before, "sent twice")
    assert await ours.replace(before, "sent twice") == first
    assert await theirs.load() == first


async def test_of_two_that_replace_at_once_one_wins(two_locks):
    ours, theirs = two_locks
    held = await ours.replace(await ours.load(), "start")
    outcomes = await asyncio.gather(
        ours.replace(held, "ours"), theirs.replace(held, "theirs"), return_exceptions=True
    )
    lost = [outcome for outcome in outcomes if isinstance(outcome, LockConflict)]
    assert len(lost) == 1
    (won,) = (outcome for outcome in outcomes if not isinstance(outcome, LockConflict))
    assert await ours.load() == won


async def test_an_unreadable_lock_is_down_not_empty(tmp_path):
    path = tmp_path / "lock.sqlite"
    path.write_bytes(os.urandom(4_096))
    with pytest.raises(Refusal, match="KEYS_DOWN"):
        await SqliteLock(path).load()


async def test_a_memory_signer_signs_what_its_vkey_verifies():
    signer = MemorySigner(ORIGIN)
    ((key, signature),) = await signer.sign(b"x")
    assert key == VerifierKey.parse(signer.vkey)
    assert key.verifies(signature, b"x")


@asynccontextmanager
async def on_openbao(world, keys):
    """The service as the appliance puts it together."""
    world.signer = await VaultSigner.load(keys, CHECKPOINT_KEY, ORIGIN)
    world.vkey = world.signer.vkey
    world.lock = VaultLock(keys, CHECKPOINT_LOCK)
    async with keyring(keys, FolderWrappedKeys(world.folder / "keys")) as sealer:
        world.sealer = sealer
        async with world.open() as audit:
            yield audit


async def test_the_service_on_openbao_outlives_its_absence_and_go_verifies_it(
    world,
    bao,
    go_verify,  # noqa: F811
):
    call_id = new_call_id()
    async with bao(world.folder / "bao") as (keys, stop), on_openbao(world, keys) as audit:
        await audit.append(make_intent(call_id))
        outcome = await audit.append(make_outcome(call_id))
        check_receipt(outcome.receipt, world.vkey, messages=MESSAGES, answer=ANSWER)
        async with asyncio.timeout(20):
            # Polled as a client would.
            while (await audit.checkpoint()).size <= outcome.index:
                await asyncio.sleep(0.02)
        assert (await audit.payload("acme", outcome.index)).payload.released == ANSWER
        await stop()
        later = [await audit.append(make_outcome()) for _ in range(20)]
        await asyncio.sleep(0.3)
        assert (await audit.checkpoint()).size < later[0].index + 1
        waited = audit.stats
    assert waited.durable == later[-1].index + 1
    async with bao(world.folder / "bao") as (keys, _), on_openbao(world, keys) as audit:
        again = await audit.append(make_outcome())
        async with asyncio.timeout(20):
            while (await audit.checkpoint()).size <= again.index:
                await asyncio.sleep(0.02)
    assert go_verify(world.log, world.vkey) == f"OK {again.index + 1}"
    checked = check_log(lambda path: (world.log / path).read_bytes(), world.vkey)
    assert checked.size == again.index + 1
