"""What services need from OpenBao, in memory: only for figures of one part by itself.

Governed figures never use this: they run the true appliance.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from meshkit.contract import Message, Role, Scope, TraceContext
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
