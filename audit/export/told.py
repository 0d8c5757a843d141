"""What a leaf says, for the formats: every field checked for its type, nothing believed. PURE.

An entry that is no leaf of ours (another log's, another schema's) becomes a `Told` without an
event: it is exported all the same, as the bytes that it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from meshkit.tlog import leaf_hash

__all__ = ["Told", "Verdict", "iso", "told_of"]

_SCHEMA = "sealgate/audit/v1"
_US = 1_000_000
_TIME_US_MAX = 253_402_300_799 * _US
"""The end of the year 9999: later ones cannot be written as a date."""


class Verdict(NamedTuple):
    """How often a type was found in one direction, and what was done."""

    direction: str
    type: str
    subtype: str
    action: str
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An entry. `event` and `log` are its members; empty, if it is no leaf of ours."""

    origin: str
    index: int
    leaf: bytes
    event: dict[str, Any] = field(default_factory=dict)
    log: dict[str, Any] = field(default_factory=dict)

    @property
    def leaf_hash(self) -> str:
        """RFC 6962 hash of the entry, as the log's proofs have it: 64 hexadecimal digits."""
        return leaf_hash(self.leaf).hex()

    def text(self, name: str) -> str:
        """Return a member of the event that is a text; empty if it has none."""
        value = self.event.get(name, "")
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int | None:
        """Return a member of the event that is an integer."""
        return _integer(self.event.get(name))

    def inner(self, name: str) -> dict[str, Any]:
        """Return a member of the event that is an object."""
        value = self.event.get(name)
        return value if isinstance(value, dict) else {}

    def count(self, name: str, member: str) -> int | None:
        """Return an integer of an inner object."""
        return _integer(self.inner(name).get(member))

    @property
    def received_us(self) -> int | None:
        """When the log took it: UTC, microseconds."""
        return _time(self.log.get("received_us"))

    @property
    def time_us(self) -> int:
        """When it happened, or else when the log took it, or else 0: UTC, microseconds."""
        return _time(self.event.get("time_us")) or self.received_us or 0

    @property
    def producer(self) -> str:
        """SPIFFE id of the service that said so."""
        value = self.log.get("producer", "")
        return value if isinstance(value, str) else ""

    @property
    def tls(self) -> tuple[str, str]:
        """Version and group of the caller's connection."""
        value = self.event.get("tls")
        some = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
        return (*some, "", "")[0], (*some, "", "")[1]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What was found, in numbers."""
        rows = self.event.get("verdicts")
        return tuple(_verdicts(rows)) if isinstance(rows, list) else ()


def told_of(leaf: bytes, index: int, origin: str) -> Told:
    """Read an entry; never raises."""
    event, log = _members(leaf)
    return Told(origin=origin, index=index, leaf=leaf, event=event, log=log)


def _members(leaf: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        whole = json.loads(leaf)
    except (ValueError, RecursionError):
        return {}, {}
    if not isinstance(whole, dict) or whole.get("schema") != _SCHEMA:
        return {}, {}
    event, log = whole.get("event"), whole.get("log")
    return (event, log) if isinstance(event, dict) and isinstance(log, dict) else ({}, {})


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(value: object) -> int | None:
    number = _integer(value)
    return number if number is not None and 0 < number < _TIME_US_MAX else None


def _verdicts(rows: list[object]) -> list[Verdict]:
    found = []
    for row in rows:
        match row:
            case [str(direction), str(kind), str(subtype), str(action), int(count)]:
                found.append(Verdict(direction, kind, subtype, action, count))
    return found


def iso(time_us: int) -> str:
    """Write a time as ISO 8601 in UTC, to the microsecond."""
    seconds, rest = divmod(time_us, _US)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"
