"""A payload opens for its own tenant, class, subject, call and phase, and for nothing else."""

from __future__ import annotations

import os

import pytest
import pytest_asyncio

from audit.privacy.payloads import payload_aad
from audit.privacy.subjects import payload_purpose
from meshkit.contract import Phase, Reason, Refusal
from meshkit.envelope import MemoryWrappedKeys, keyring
from meshkit.sealing import SealBroken
from tests.audit.custody_world import OFFICER, CustodyWorld, KeysInMemory
from tests.audit.test_erasure import call, refused

CALL = bytes(15) + b"\1"
OWN = ("acme", "standard", "ab" * 16, CALL, Phase.OUTCOME)
OTHERS = {
    "tenant": ("globex", *OWN[1:]),
    "class": ("acme", "phi", *OWN[2:]),
    "subject": ("acme", "standard", "cd" * 16, *OWN[3:]),
    "nobody in particular": ("acme", "standard", "", *OWN[3:]),
    "call": (*OWN[:3], bytes(16), Phase.OUTCOME),
    "phase": (*OWN[:4], Phase.INTENT),
}


@pytest_asyncio.fixture
async def keys():
    async with keyring(KeysInMemory(), MemoryWrappedKeys()) as keys:
        yield keys


def place(tenant, retention, subject, call_id, phase):
    return {
        "tenant": tenant,
        "purpose": payload_purpose(retention, subject),
        "aad": payload_aad(call_id, phase),
    }


@pytest.mark.parametrize("other", OTHERS)
async def test_a_payload_moved_elsewhere_does_not_open(keys, other) -> None:
    sealed = await keys.seal(plaintext=b"text", **place(*OWN))
    await keys.seal(plaintext=b"theirs", **place(*OTHERS[other]))

    assert await keys.open(sealed=sealed, **place(*OWN)) == b"text"
    for _ in range(200):
        with pytest.raises(SealBroken):
            await keys.open(sealed=sealed, **place(*OTHERS[other]))


async def test_foreign_key_ids_open_nothing(keys) -> None:
    sealed = await keys.seal(plaintext=b"text", **place(*OWN))
    theirs = await keys.seal(plaintext=b"theirs", **place(*OTHERS["subject"]))
    for _ in range(1_000):
        forged = sealed[:1] + os.urandom(16) + sealed[17:]
        with pytest.raises(SealBroken):
            await keys.open(sealed=forged, **place(*OWN))
    with pytest.raises(SealBroken):
        await keys.open(sealed=sealed[:1] + theirs[1:17] + sealed[17:], **place(*OWN))


async def test_another_tenant_finds_nothing_to_read_export_or_erase(tmp_path) -> None:
    world = CustodyWorld(tmp_path)
    async with world.live() as (audit, custody):
        call_id = await call(audit, "p-17")
        await call(audit, "p-17", tenant="globex")
        foreign = custody.read_payload("globex", call_id, actor=OFFICER)
        assert await refused(foreign) is Reason.NOT_FOUND
        with pytest.raises(Refusal):
            await audit.payload("globex", 2)
        assert (await custody.erase_subject("initech", "p-17", actor=OFFICER)).payloads == 0
        assert (await custody.erase_subject("globex", "p-17", actor=OFFICER)).payloads == 2
        assert len(await custody.read_payload("acme", call_id, actor=OFFICER)) == 2
