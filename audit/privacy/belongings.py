"""What is kept about a subject, or of a call: found by the data keys that it is under.

Every payload about a subject is under a key of that subject's, and says which. So the keys tell
where to look, and no index need be believed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from audit.privacy.payloads import Partition, partition_of
from audit.privacy.subjects import read_purpose
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from typing import TypeVar

    from audit.privacy.estate import Estate
    from audit.privacy.holds import Hold
    from audit.records.events import Leaf
    from meshkit.wrapped_keys import WrappedKey

    T = TypeVar("T")

__all__ = ["Belongings", "belongings_of", "demand", "held_call", "on_disk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """What is kept about a subject."""

    tenant: str
    subject: str
    pseudonyms: frozenset[str]
    classes: frozenset[str]
    key_ids: tuple[bytes, ...]
    numbers: tuple[int, ...]
    """Entries of the log, ascending."""
    places: tuple[str, ...]
    """Of their payloads; an entry may have two."""


async def belongings_of(estate: Estate, tenant: str, subject: str) -> Belongings:
    """Find all that is kept about a subject.

    Raises:
        Refusal: KEYS_DOWN: its pseudonyms cannot be told.
        OSError: the disk fails.
    """
    names = frozenset(await estate.pseudonyms.all_of("subject", tenant, subject))
    keys = [key for key in await estate.keys(tenant) if _subject_of(key) in names]
    key_ids = frozenset(key.key_id for key in keys)
    frames = [
        frame
        for partition in _partitions(estate.pseudonyms.tenant(tenant), keys)
        for frame in await estate.frames(partition)
        if frame.key_id in key_ids
    ]
    return Belongings(
        tenant=tenant,
        subject=subject,
        pseudonyms=names,
        classes=frozenset(_class_of(key) for key in keys),
        key_ids=tuple(sorted(key_ids)),
        numbers=tuple(sorted({frame.number for frame in frames})),
        places=tuple(frame.place for frame in frames),
    )


async def held_call(estate: Estate, hold: Hold, numbers: Sequence[int]) -> Hold:
    """Complete a hold on a call: its entries, whom they are about, and the keys they are under.

    Raises:
        Refusal: NOT_FOUND, if the call has no entries.
        OSError: the disk fails.
    """
    leaves = await estate.leaves(numbers)
    if not leaves:
        raise Refusal(Reason.NOT_FOUND)
    partitions = {
        partition_of(leaf.tenant, leaf.log["received_us"], leaf.log["retention"]) for leaf in leaves
    }
    wanted = set(numbers)
    frames = [
        frame
        for partition in sorted(partitions)
        for frame in await estate.frames(partition)
        if frame.number in wanted
    ]
    return replace(
        hold,
        pseudonyms=tuple(sorted({*hold.pseudonyms, *_subjects(leaves)})),
        numbers=tuple(sorted({*hold.numbers, *wanted})),
        key_ids=tuple(sorted({*hold.key_ids, *(frame.key_id for frame in frames)})),
    )


def _subjects(leaves: Sequence[Leaf]) -> set[str]:
    return {leaf.event.get("subject", "") for leaf in leaves} - {""}


def _subject_of(key: WrappedKey) -> str:
    sealed = read_purpose(key.purpose)
    return sealed.subject if sealed else ""


def _class_of(key: WrappedKey) -> str:
    sealed = read_purpose(key.purpose)
    return sealed.retention if sealed else ""


def _partitions(tenant: str, keys: Sequence[WrappedKey]) -> list[Partition]:
    """Return where payloads under these keys may be: what was sealed at midnight came after it."""
    return sorted(
        {Partition(key.day + later, tenant, _class_of(key)) for key in keys for later in (0, 1)}
    )


async def on_disk(work: Awaitable[T]) -> T:
    """Do what needs the disk; what the disk refuses is AUDIT_DOWN."""
    try:
        return await work
    except (OSError, sqlite3.Error):
        raise Refusal(Reason.AUDIT_DOWN) from None


def demand(holds: object, field: str) -> None:
    """Refuse a field that is not as it must be. Raises Refusal: INVALID_FIELD."""
    if not holds:
        raise Refusal(Reason.INVALID_FIELD, field=field)
