"""Short form of tests/audit/foreign.py, and payload files that were put in another's place."""

import asyncio

import pytest

from meshkit.contract import Reason, Refusal
from tests.audit.foreign import TENANTS, run
from tests.audit.world import make_outcome

ROUNDS = 10
A_ROUND = {
    "wrong tenant": 1, "wrong record (AAD)": 1, "wrong purpose": 1, "foreign key id": 1,
    "foreign key id and tenant": 1, "foreign payload": 1, "foreign record": 2, "foreign trace": 2,
    "foreign payload by index": 2, "foreign proof": 2, "foreign receipt": 6, "SPIFFE id": 24,
}  # fmt: skip


async def test_what_is_another_tenants_is_refused_every_time(tmp_path):
    tried = await run(tmp_path, ROUNDS)
    assert tried == {kind: count * ROUNDS for kind, count in A_ROUND.items()}


async def test_a_payload_in_the_place_of_another_tenants_is_evidence_lost(world):
    async with world.open() as audit:
        places = [(await audit.append(make_outcome(tenant=each))).index for each in TENANTS]
        async with asyncio.timeout(20):
            while audit.stats.indexed <= max(places):
                await asyncio.sleep(0.01)
        files = list((world.data / "payloads").rglob("*.sealed"))
        sealed = [path.read_bytes() for path in files]
        assert len(files) == len(TENANTS)
        assert len({len(data) for data in sealed}) == 1, "else a length would tell"
        for path, data in zip(files, sealed[::-1], strict=True):
            path.write_bytes(data)
        for tenant, index in zip(TENANTS, places, strict=True):
            with pytest.raises(Refusal) as refused:
                await audit.payload(tenant, index)
            assert refused.value.reason is Reason.EVIDENCE_LOST
