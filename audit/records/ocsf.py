"""What an action of ours is in OCSF 1.8: class and activity. PURE.

An event's ids are written into its leaf when it is made; `ocsf_record` makes the whole record
of a leaf. `type_uid` is class * 100 + activity.
Source: https://schema.ocsf.io/1.8.0/classes
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from meshkit.contract import Phase, Reason

__all__ = [
    "ACTIONS",
    "Activity",
    "OcsfClass",
    "Status",
    "activity_of",
    "status_of",
]


class OcsfClass(IntEnum):
    """`class_uid`; the category is its thousands."""

    DATA_SECURITY_FINDING = 2006
    DETECTION_FINDING = 2004
    AUTHENTICATION = 3002
    AUTHORIZE_SESSION = 3003
    ENTITY_MANAGEMENT = 3004
    USER_ACCESS = 3005
    EVENT_LOG_ACTIVITY = 1008
    APPLICATION_LIFECYCLE = 6002
    API_ACTIVITY = 6003
    DATASTORE_ACTIVITY = 6005


class Status(IntEnum):
    """`status_id`."""

    UNKNOWN = 0
    SUCCESS = 1
    FAILURE = 2


class Activity(NamedTuple):
    """A class and `activity_id` within it."""

    class_uid: OcsfClass
    activity_id: int

    @property
    def type_uid(self) -> int:
        """What OCSF tells events apart by."""
        return self.class_uid * 100 + self.activity_id


_OTHER = 99
_API = OcsfClass.API_ACTIVITY
_LIFECYCLE = OcsfClass.APPLICATION_LIFECYCLE
_LOG = OcsfClass.EVENT_LOG_ACTIVITY
_STORE = OcsfClass.DATASTORE_ACTIVITY
_ENTITY = OcsfClass.ENTITY_MANAGEMENT
_FOUND = OcsfClass.DETECTION_FINDING

ACTIONS: dict[str, Activity] = {
    "chat": Activity(_API, 1),
    "chat.stream": Activity(_API, 1),
    "models.list": Activity(_API, 2),
    "refusals.counted": Activity(_API, _OTHER),
    "service.start": Activity(_LIFECYCLE, 3),
    "service.stop": Activity(_LIFECYCLE, 4),
    "model.load": Activity(_LIFECYCLE, 3),
    "model.unload": Activity(_LIFECYCLE, 4),
    "model.register": Activity(_LIFECYCLE, 1),
    "model.canary": Activity(_LIFECYCLE, 6),
    "model.promote": Activity(_LIFECYCLE, 6),
    "model.rollback": Activity(_LIFECYCLE, 7),
    "model.retire": Activity(_LIFECYCLE, 2),
    "model.shadow": Activity(_LIFECYCLE, _OTHER),
    "model.refuse": Activity(_LIFECYCLE, _OTHER),
    "model.read": Activity(_API, 2),
    "log.start": Activity(_LOG, 6),
    "log.stop": Activity(_LOG, 7),
    "log.recovery": Activity(_LOG, 8),
    "access.refused": Activity(OcsfClass.AUTHORIZE_SESSION, _OTHER),
    "log.read": Activity(_STORE, 1),
    "log.search": Activity(_STORE, 4),
    "console.login": Activity(OcsfClass.AUTHENTICATION, 1),
    "log.export": Activity(_LOG, 3),
    "reads.counted": Activity(_STORE, 1),
    "archive.put": Activity(_STORE, 5),
    "payload.read": Activity(_STORE, 10),
    "payload.expire": Activity(_STORE, 7),
    "subject.export": Activity(_STORE, 1),
    "subject.erase": Activity(_STORE, 7),
    "hold.set": Activity(_STORE, 2),
    "hold.release": Activity(_STORE, 2),
    "receipt.key": Activity(_ENTITY, 1),
    "key.rotate": Activity(_ENTITY, 3),
    "key.rewrap": Activity(_STORE, 9),
    "key.trim": Activity(_ENTITY, 4),
    "key.destroy": Activity(_ENTITY, 4),
    "key.pseudonym": Activity(_ENTITY, 1),
    "tenant.offboard": Activity(_ENTITY, 4),
    "tenant.irrecoverable": Activity(_STORE, 7),
    "policy.load": Activity(_ENTITY, 10),
    "policy.change": Activity(_ENTITY, 3),
    "permission.change": Activity(OcsfClass.USER_ACCESS, _OTHER),
    "backup.make": Activity(_LOG, 4),
    "backup.restore": Activity(_LOG, _OTHER),
    "witness.down": Activity(_FOUND, 1),
}
"""Every action there is. `docs/audit.md` says when each is recorded."""

_BY_OUTCOME = {
    Reason.UNAUTHENTICATED.name: Activity(OcsfClass.AUTHENTICATION, 1),
    Reason.DENIED.name: Activity(OcsfClass.AUTHORIZE_SESSION, _OTHER),
    Reason.BLOCKED.name: Activity(OcsfClass.DATA_SECURITY_FINDING, 1),
    Reason.EVIDENCE_LOST.name: Activity(_FOUND, 1),
}
_UNKNOWN = Activity(_API, _OTHER)


def activity_of(action: str, outcome: str) -> Activity:
    """Return what an event is: what became of it tells more than what was asked."""
    return _BY_OUTCOME.get(outcome) or ACTIONS.get(action) or _UNKNOWN


def status_of(outcome: str, phase: Phase) -> Status:
    """Return whether it worked: an INTENT does not know yet."""
    if phase is Phase.INTENT or not outcome:
        return Status.UNKNOWN
    return Status.SUCCESS if outcome in {"released", "ok"} else Status.FAILURE
