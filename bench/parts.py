"""What services need from OpenBao, in memory: only for figures of one part by itself.

Governed figures never use this: they run the true appliance.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from gateway.arrival import Arrival, Certified, now_us
from meshkit.contract import Actor, Connection, Message, Role, Scope, TraceContext
from meshkit.deadline import Deadline
from meshkit.identity import TenantIdentity
from meshkit.vault import DataKey

if TYPE_CHECKING:
    from collections.abc import Sequence

TENANT = "bench"
PRINCIPAL = "spiffe://bench.test/tenant/bench/client"
DIGEST = bytes(range(32))
"""Stands for a model's or a policy's."""


class MemoryKeys:
    """Wraps data keys by remembering them."""

    def __init__(self) -> None:
        self._plaintext: dict[str, bytes] = {}

    async def datakey(self, _name: str, *, aad: bytes) -> DataKey:
        """Make a key."""
        made = DataKey(os.urandom(32), f"memory:{aad.hex()}:{len(self._plaintext)}")
        self._plaintext[made.wrapped] = made.plaintext
        return made

    async def decrypt(self, _name: str, wrapped: str, *, aad: bytes) -> bytes:
        """Unwrap one made before; KeyError otherwise."""
        assert aad.hex() in wrapped
        return self._plaintext[wrapped]


def scope(number: int) -> Scope:
    """Return the scope of call `number`."""
    trace = TraceContext(trace_id=(number + 1).to_bytes(16), span_id=(number + 1).to_bytes(8))
    return Scope(
        call_id=number.to_bytes(16), tenant=TENANT, principal=PRINCIPAL, session="", trace=trace
    )


def asked(text: str) -> Sequence[Message]:
    """Return a prompt of one turn."""
    return (Message(Role.USER, text),)


def actor() -> Actor:
    """Return the caller."""
    roles = frozenset({"application"})
    return Actor(spiffe_id=PRINCIPAL, tenant=TENANT, workload="client", roles=roles)


def arrival(number: int) -> Arrival:
    """Return call `number` at the door."""
    of = scope(number)
    return Arrival(
        call_id=of.call_id,
        action="chat",
        received_at_us=now_us(),
        trace=of.trace,
        peer=TenantIdentity("bench.test", TENANT, "client"),
        certified=Certified(ends_s=time.time() + 3_600, thumbprint=DIGEST),
        connection=Connection(
            tls_version="TLSv1.3", key_exchange_group="X25519MLKEM768", peer_ip="127.0.0.1"
        ),
        deadline=Deadline.after(60),
    )
