"""What is another tenant's: texts, keys, records, proofs, receipts, names. All of it is refused.

    python -m tests.audit.foreign ROUNDS

Prints one JSON line: attempts by kind, and how many got through.
"""

import asyncio
import dataclasses
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.parts import MemoryKeys
from meshkit.call_id import new_call_id
from meshkit.contract import Message, Payload, Reason, Refusal, Role, answer_bytes, prompt_bytes
from meshkit.envelope import SealBroken, keyring
from meshkit.identity import parse_spiffe_id
from meshkit.sealing import key_id_of
from meshkit.tlog import (
    Proof,
    ProofInvalid,
    ReceiptInvalid,
    check_proof,
    check_receipt,
    format_proof,
)
from meshkit.wrapped_keys import FolderWrappedKeys
from tests.audit.world import World, commitment, make_intent, make_outcome

TENANTS = ("acme", "umbrella")
DOMAIN = "mesh.example"
LEAF_NOT_IN_TREE = 5
"""The step of `check_proof`."""
NOISE = ("/../", "/./", "//", "/%2e%2e/", "%2f", "\\..\\", "/..", "\0", "?a", "#a", " ", "A")


class Foreign:
    """Two tenants in one log, and what each of them tries with what is the other's."""

    def __init__(self, audit, world, sealer, rng):
        self.audit, self.world, self.sealer, self.rng = audit, world, sealer, rng
        self.tried = Counter()

    async def seals(self, number):
        """A sealed text opens for its tenant, purpose and record, under its own key alone."""
        aad, text = number.to_bytes(8), b"text of a tenant"
        mine = {"tenant": "acme", "purpose": "payload", "aad": aad}
        sealed = await self.sealer.seal(plaintext=text, **mine)
        others = await self.sealer.seal(plaintext=text, **mine | {"tenant": "umbrella"})
        assert await self.sealer.open(sealed=sealed, **mine) == text
        foreign_key = sealed.replace(key_id_of(sealed), key_id_of(others), 1)
        assert foreign_key != sealed
        for kind, changed, record in (
            ("wrong tenant", {"tenant": "umbrella"}, sealed),
            ("wrong record (AAD)", {"aad": aad + b"x"}, sealed),
            ("wrong purpose", {"purpose": "cache"}, sealed),
            ("foreign key id", {}, foreign_key),
            ("foreign key id and tenant", {"tenant": "umbrella"}, foreign_key),
            ("foreign payload", {}, others),
        ):
            try:
                await self.sealer.open(sealed=record, **mine | changed)
            except SealBroken:
                self.tried[kind] += 1
            except Refusal as refusal:  # there is no such key of that tenant
                self.tried[kind] += refusal.reason in {Reason.NOT_FOUND, Reason.INTERNAL}
            else:
                raise AssertionError(kind)

    async def records(self, calls):
        """A tenant finds neither the other's records nor its texts."""
        for mine, theirs in (TENANTS, TENANTS[::-1]):
            outcome, event = calls[theirs]
            assert await self.audit.records(mine, call_id=event.call_id) == ()
            self.tried["foreign record"] += 1
            assert await self.audit.records(mine, trace_id=event.trace.trace_id) == ()
            self.tried["foreign trace"] += 1
            try:
                await self.audit.payload(mine, outcome.index)
            except Refusal as refusal:
                self.tried["foreign payload by index"] += refusal.reason is Reason.NOT_FOUND

    async def proofs(self, calls):
        """A proof or receipt of one tenant's record says nothing of the other's."""
        checkpoint = await self.audit.checkpoint()
        for mine, theirs in (TENANTS, TENANTS[::-1]):
            (ours, event), (foreign, _) = calls[mine], calls[theirs]
            (record,) = [
                each
                for each in await self.audit.records(mine, call_id=event.call_id)
                if each.index == ours.index
            ]
            hashes = await self.audit.inclusion(foreign.index, checkpoint.size)
            proof = Proof(
                leaf=record.leaf, index=foreign.index, hashes=hashes, checkpoint=checkpoint
            )
            try:
                check_proof(format_proof(proof), self.world.vkey)
            except ProofInvalid as invalid:
                self.tried["foreign proof"] += invalid.step == LEAF_NOT_IN_TREE
            for receipt, answer in (
                (foreign.receipt, event.payload.released),
                (dataclasses.replace(foreign.receipt, index=ours.index), None),
                (dataclasses.replace(foreign.receipt, leaf_hash=ours.leaf_hash), None),
            ):
                try:
                    check_receipt(receipt, self.world.vkey, answer=answer)
                except ReceiptInvalid:
                    self.tried["foreign receipt"] += 1

    def names(self):
        """An id that is spelt another way than ours is nobody's."""
        base = f"spiffe://{DOMAIN}/tenant/acme/app"
        noise = (
            "/../",
            "/./",
            "//",
            "/%2e%2e/",
            "%2f",
            "\\..\\",
            "/..",
            "\0",
            "?a",
            "#a",
            " ",
            "A",
        )
        for mark in noise:
            at = self.rng.randrange(len("spiffe://"), len(base) + 1)
            for text in (base[:at] + mark + base[at:], base + mark + "service/gateway"):
                try:
                    found = parse_spiffe_id(text, trust_domain=DOMAIN)
                except Refusal:
                    self.tried["SPIFFE id"] += 1
                else:
                    raise AssertionError(found)


async def _append_call(audit, tenant, number):
    call_id = new_call_id()
    messages = (Message(Role.USER, f"question {number} of {tenant}"),)
    answer = f"answer {number} for {tenant}"
    intent = make_intent(call_id, tenant=tenant)
    event = make_outcome(
        call_id,
        tenant=tenant,
        trace=intent.trace,
        payload=Payload(screened=messages, released=answer),
        answer_delivered=commitment(answer_bytes(answer)),
        answer_released=commitment(answer_bytes(answer)),
        prompt_screened=commitment(prompt_bytes(messages)),
    )
    await audit.append(intent)
    return await audit.append(event), event


async def run(folder, rounds):
    world = World(folder)
    keys = FolderWrappedKeys(folder / "keys")
    async with keyring(MemoryKeys(), keys) as sealer:
        world.sealer = sealer
        async with world.open() as audit:
            tries = Foreign(audit, world, sealer, random.Random(3))
            for number in range(rounds):
                calls = {each: await _append_call(audit, each, number) for each in TENANTS}
                last = max(outcome.index for outcome, _ in calls.values())
                async with asyncio.timeout(30):
                    while (await audit.checkpoint()).size <= last:
                        await asyncio.sleep(0.005)
                await tries.seals(number)
                await tries.records(calls)
                await tries.proofs(calls)
                tries.names()
    return tries.tried


def main():
    with tempfile.TemporaryDirectory() as top:
        tried = asyncio.run(run(Path(top), int(sys.argv[1])))
    told = {"attempts": tried.total(), "through": 0, "kinds": dict(tried)}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
