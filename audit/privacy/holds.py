"""Legal holds: what neither retention nor erasure may take until somebody releases it.

    holds/<id>.json     one file a hold, durable before it is believed to be set

A hold is on a whole tenant, on a retention class, on a subject or on a call. Of a subject its
pseudonyms are kept as well, of which it has more after a rotation; of a call, which entries and
data keys it has, and whom it is about. The files are the service's alone to read. One that cannot
be read keeps the service from starting: to guess would be to erase.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from meshkit.contract import Reason, Refusal
from meshkit.files import clear_unfinished, fsync_folder, read_or_none, write_private

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["FOLDER", "Hold", "HoldScope", "Holds", "held_tenants"]

FOLDER = "holds"
"""Below the audit service's data."""
HOLDS_MAX = 10_000
"""In all: each is looked at for every payload that is due."""


class HoldScope(StrEnum):
    """What a hold is on."""

    TENANT = "tenant"
    CLASS = "class"
    SUBJECT = "subject"
    CALL = "call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One hold of one tenant."""

    id: bytes
    tenant: str
    scope: HoldScope
    value: str = ""
    """CLASS: its name. SUBJECT: its id. CALL: its id in hexadecimal."""
    pseudonyms: tuple[str, ...] = ()
    """SUBJECT: under all pseudonym keys there were. CALL: whom it is about, if it is about one."""
    numbers: tuple[int, ...] = ()
    """CALL: its entries in the log."""
    key_ids: tuple[bytes, ...] = ()
    """CALL: the data keys that its payloads are under."""
    reference: str
    set_us: int

    def keeps(self, retention: str, subject: str) -> bool:
        """Tell whether it is on all payloads of this class about this subject (or on more)."""
        match self.scope:
            case HoldScope.TENANT:
                return True
            case HoldScope.CLASS:
                return self.value == retention
            case HoldScope.SUBJECT:
                return subject in self.pseudonyms
            case HoldScope.CALL:
                return False

    def blocks(self, pseudonyms: Collection[str], classes: Collection[str]) -> bool:
        """Tell whether erasing a subject, who has payloads of these classes, would break it."""
        match self.scope:
            case HoldScope.TENANT:
                return True
            case HoldScope.CLASS:
                return self.value in classes
            case HoldScope.SUBJECT | HoldScope.CALL:
                return not set(self.pseudonyms).isdisjoint(pseudonyms)


class Holds:
    """All holds of one log. Methods that write block, for some milliseconds."""

    def __init__(self, folder: Path) -> None:
        """Read what there is. Raises Refusal: EVIDENCE_LOST, if a file is no hold."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_unfinished(folder)
        fsync_folder(folder.parent)
        found = _found(folder)
        self._holds = {hold.id: hold for hold in sorted(found, key=lambda one: one.set_us)}

    def of(self, tenant: str) -> list[Hold]:
        """Return a tenant's holds, oldest first."""
        return [hold for hold in self._holds.values() if hold.tenant == tenant]

    def all(self) -> list[Hold]:
        """Return the holds of all tenants, oldest first."""
        return list(self._holds.values())

    def find(self, tenant: str, hold_id: bytes) -> Hold:
        """Return one. Raises Refusal: NOT_FOUND, also for another tenant's."""
        hold = self._holds.get(hold_id)
        if hold is None or hold.tenant != tenant:
            raise Refusal(Reason.NOT_FOUND)
        return hold

    def put(self, hold: Hold) -> None:
        """Set a hold: durable when this returns.

        Raises:
            Refusal: OVERLOADED, if there are `HOLDS_MAX`.
            OSError: it is not set.
        """
        if hold.id not in self._holds and len(self._holds) >= HOLDS_MAX:
            raise Refusal(Reason.OVERLOADED)
        write_private(self._path(hold.id), json.dumps(_written(hold)).encode())
        self._holds[hold.id] = hold

    def remove(self, hold: Hold) -> None:
        """Release a hold: durable when this returns. Raises OSError: it may still be set."""
        self._path(hold.id).unlink(missing_ok=True)
        fsync_folder(self._folder)
        self._holds.pop(hold.id, None)

    def _path(self, hold_id: bytes) -> Path:
        return self._folder / f"{hold_id.hex()}.json"


def held_tenants(folder: Path) -> set[str]:
    """Return who has holds, for those who would take a tenant's keys; another may write meanwhile.

    Raises:
        Refusal: EVIDENCE_LOST, if a file is no hold.
        OSError: a file cannot be read.
    """
    return {hold.tenant for hold in _found(folder)}


def _found(folder: Path) -> list[Hold]:
    try:
        raws = [read_or_none(path) for path in folder.glob("*.json")]
        return [_read(raw) for raw in raws if raw is not None]
    except (ValueError, KeyError, TypeError):
        raise Refusal(Reason.EVIDENCE_LOST) from None


def _written(hold: Hold) -> dict[str, object]:
    return {
        "id": hold.id.hex(),
        "tenant": hold.tenant,
        "scope": hold.scope.value,
        "value": hold.value,
        "pseudonyms": hold.pseudonyms,
        "numbers": hold.numbers,
        "key_ids": [each.hex() for each in hold.key_ids],
        "reference": hold.reference,
        "set_us": hold.set_us,
    }


def _read(raw: bytes) -> Hold:
    told: dict[str, Any] = json.loads(raw)
    return Hold(
        id=bytes.fromhex(told["id"]),
        tenant=str(told["tenant"]),
        scope=HoldScope(told["scope"]),
        value=str(told["value"]),
        pseudonyms=tuple(map(str, told["pseudonyms"])),
        numbers=tuple(map(int, told["numbers"])),
        key_ids=tuple(bytes.fromhex(each) for each in told["key_ids"]),
        reference=str(told["reference"]),
        set_us=int(told["set_us"]),
    )
