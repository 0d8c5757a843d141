"""How much memory keys and values may take, and what that is in slots and tokens."""

from __future__ import annotations

from dataclasses import dataclass

from inference.store.errors import Fault, ModelFileError

__all__ = ["KvRoom", "kv_room"]


@dataclass(frozen=True, slots=True)
class KvRoom:
    """slots: laid out. tokens_max: that requests may hold together; None: as many as fit."""

    slots: int
    tokens_max: int | None


def kv_room(
    *, slots: int, context_tokens: int, token_bytes: int, budget_bytes: int | None, lazy: bool
) -> KvRoom:
    """Lay out slots within a budget.

    Args:
        slots: wanted.
        context_tokens: room of each.
        token_bytes: keys and values of a token.
        budget_bytes: for all requests together; None: for what `slots` full ones hold.
        lazy: memory is taken as it is written, so that slots cost nothing but what they hold.

    Raises:
        ModelFileError: not even one request of full length would fit.
    """
    if budget_bytes is None:
        return KvRoom(slots, None)
    fit = budget_bytes // (context_tokens * token_bytes)
    if fit < 1:
        msg = "the memory for keys and values holds no request of full length"
        raise ModelFileError(msg, fault=Fault.NO_MEMORY)
    if lazy and fit < slots:
        return KvRoom(slots, budget_bytes // token_bytes)
    return KvRoom(min(slots, fit), None)
