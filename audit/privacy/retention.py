"""How long payloads are kept: by class, counted in whole days after the one they came on.

    class    of a call: that of its purpose of use, else of its tenant, else the default
    due      on the day `days + 1` after it came, UTC: day 31 for 30 days

A sweep takes what is due, partition by partition (day, tenant, class), with the data keys of that
day and class; payloads that a legal hold keeps stay, with their keys. It goes by dates alone, so
one after a week's downtime does what seven would have. Each partition is a plan (plans.py),
so a crash leaves nothing half done, and each leaves a `payload.expire` event with exact counts.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import structlog

from audit.privacy.payloads import Partition
from audit.privacy.plans import Plan, day_text
from audit.privacy.subjects import read_purpose
from meshkit.counters import counted
from meshkit.held_keys import DAY_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from audit.privacy.estate import Estate
    from audit.privacy.holds import Hold, Holds
    from audit.settings import AuditSettings
    from meshkit.wrapped_keys import WrappedKey

__all__ = ["Sweeper", "is_due", "today"]

log = structlog.get_logger()


def today() -> int:
    """Return the days since 1970-01-01, UTC."""
    return int(time.time() // DAY_S)


def is_due(day: int, days: int, now: int) -> bool:
    """Tell whether what came on `day` and is kept `days` is to go on the day `now`."""
    return now - day > days


class _Due(NamedTuple):
    """A partition whose time is over, and whose it is."""

    tenant: str
    partition: Partition
    keys: tuple[WrappedKey, ...]
    """Of that day and class."""
    subjects: dict[bytes, str]
    """Whom each of the tenant's keys is about."""


class Sweeper:
    """Looks for what is due. Its caller sees to it that nothing else changes holds or payloads.

    Args:
        estate: What there is.
        holds: What must stay.
        settings: Classes and their days.
    """

    def __init__(self, estate: Estate, holds: Holds, settings: AuditSettings) -> None:
        self._estate = estate
        self._holds = holds
        self._settings = settings
        self._told: set[tuple[str, str]] = set()

    async def plans(self, now: int) -> list[Plan]:
        """Return a plan for each partition that is due and has something that may go.

        Args:
            now: The day; what came on days that are over by then is in its partition.
        """
        found = []
        for due in await self._due(now):
            plan = await self._plan(due)
            if plan is not None:
                found.append(plan)
        return found

    def begun(self, plan: Plan) -> None:
        """Note that a plan is on stable storage: what it says of holds will be told, once."""
        self._told.add(_told_of(plan))

    async def _due(self, now: int) -> list[_Due]:
        """Find partitions, and keys of days whose partition never came or is gone."""
        names = await self._estate.tenants()
        keys: defaultdict[Partition, list[WrappedKey]] = defaultdict(list)
        subjects: defaultdict[str, dict[bytes, str]] = defaultdict(dict)
        for pseudonym, tenant in names.items():
            for key in await self._estate.keys(tenant):
                if (sealed := read_purpose(key.purpose)) is not None:
                    keys[Partition(key.day, pseudonym, sealed.retention)].append(key)
                    subjects[pseudonym][key.key_id] = sealed.subject
        partitions = sorted({*keys, *await self._estate.partitions()})
        return [
            _Due(names.get(each.tenant, ""), each, tuple(keys[each]), subjects[each.tenant])
            for each in partitions
            if self._is_over(each, now)
        ]

    def _is_over(self, partition: Partition, now: int) -> bool:
        days = self._settings.retention_days.get(partition.retention)
        if days is None:
            # Not known any more: kept, rather than erased by a slip in the settings.
            counted("audit.retention.unknown_class")
            return False
        return is_due(partition.day, days, now)

    async def _plan(self, due: _Due) -> Plan | None:
        holds = self._holds.of(due.tenant)
        frames = await self._estate.frames(due.partition)
        kept_keys = {k.key_id for k in due.keys if _keeps_key(holds, due.partition, k)}
        kept = {
            frame.number
            for frame in frames
            if _keeps(holds, due.partition, due.subjects.get(frame.key_id, ""))
            or any(frame.number in hold.numbers for hold in holds)
        }
        goes = [frame for frame in frames if frame.number not in kept]
        lost = [key.key_id for key in due.keys if key.key_id not in kept_keys]
        plan = Plan.expire(
            due.tenant,
            due.partition,
            key_ids=lost,
            places=[frame.place for frame in goes],
            whole=not kept,
            detail={
                "day": day_text(due.partition.day),
                "class": due.partition.retention,
                "payloads": str(len({frame.number for frame in goes})),
                "keys": str(len(lost)),
                "held": str(len(kept)),
            },
        )
        if not goes and not lost and (not kept or _told_of(plan) in self._told):
            return None
        return plan


def _told_of(plan: Plan) -> tuple[str, str]:
    """Return whose partition it is, which, and how much of it is held."""
    return plan.tenant, " ".join(plan.detail[key] for key in ("day", "class", "held"))


def _keeps(holds: Iterable[Hold], partition: Partition, subject: str) -> bool:
    return any(hold.keeps(partition.retention, subject) for hold in holds)


def _keeps_key(holds: Iterable[Hold], partition: Partition, key: WrappedKey) -> bool:
    sealed = read_purpose(key.purpose)
    subject = sealed.subject if sealed else ""
    return any(
        hold.keeps(partition.retention, subject) or key.key_id in hold.key_ids for hold in holds
    )
