"""Which data key a payload is sealed under: one per tenant, class, day, and subject if it has one.

    audit-payload-<class>             payloads about nobody in particular
    s-<class>-<subject's pseudonym>   payloads about one subject

A purpose is a DNS label, and with tenant and day a slot of the keyring (`meshkit.held_keys`). So
what is kept about a subject can be erased by dropping its keys, and a class of a day by dropping
that day's. The pseudonym is the one in the leaf: whoever has the leaf knows the purpose. PURE.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from meshkit.held_keys import PER_SUBJECT

if TYPE_CHECKING:
    from audit.settings import AuditSettings
    from meshkit.contract import Event

__all__ = ["CLASS_PATTERN", "Sealed", "payload_purpose", "read_purpose", "retention_class"]

CLASS_PATTERN = r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?"
"""Of a retention class: with a pseudonym behind it, it still is a label of 63 bytes."""

_ANYBODY = "audit-payload-"
_OF_SUBJECT = re.compile(
    rf"{PER_SUBJECT}(?P<retention>{CLASS_PATTERN})-(?P<subject>[0-9a-f]{{32}})"
)


class Sealed(NamedTuple):
    """What a purpose tells: retention class, and the subject's pseudonym or nothing."""

    retention: str
    subject: str


def retention_class(settings: AuditSettings, event: Event) -> str:
    """Return the class of an event's payload: by its purpose of use, its tenant, or the default."""
    return (
        settings.retention_purposes.get(event.purpose)
        or settings.retention_tenants.get(event.tenant)
        or settings.retention_class
    )


def payload_purpose(retention: str, subject: str) -> str:
    """Return the purpose of payloads of a class about a subject (a pseudonym, or empty)."""
    return f"{PER_SUBJECT}{retention}-{subject}" if subject else f"{_ANYBODY}{retention}"


def read_purpose(purpose: str) -> Sealed | None:
    """Read what `payload_purpose` wrote; None for a key that seals no payloads."""
    if (found := _OF_SUBJECT.fullmatch(purpose)) is not None:
        return Sealed(found["retention"], found["subject"])
    if purpose.startswith(_ANYBODY):
        return Sealed(purpose.removeprefix(_ANYBODY), "")
    return None
