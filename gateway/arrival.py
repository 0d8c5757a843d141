"""What is known of a call before anything of it is believed, and why a stream must end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from meshkit.contract import Reason

if TYPE_CHECKING:
    from meshkit.contract import Connection, TraceContext
    from meshkit.deadline import Deadline
    from meshkit.identity import TenantIdentity

__all__ = ["Arrival", "Certified", "End", "certified", "now_us"]


@dataclass(frozen=True, slots=True)
class Certified:
    """The two facts of a peer's certificate that outlast the handshake.

    ends_s: `notAfter`, seconds since 1970.
    thumbprint: SHA-256 of its DER form: 32 bytes (RFC 8705, 3.1: what `cnf` binds a token to).
    """

    ends_s: float
    thumbprint: bytes


@dataclass(frozen=True, slots=True)
class End:
    """When a call must be over, and what its caller is then told.

    at_s: on the clock of `time.monotonic`.
    """

    at_s: float
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A call at the door."""

    call_id: bytes
    action: str
    """`chat`, `chat.stream` or `models.list`."""
    received_at_us: int
    trace: TraceContext
    peer: TenantIdentity
    certified: Certified
    connection: Connection
    deadline: Deadline
    """Ours, what it takes to tell a timeout already shaved off."""
    began_s: float = field(default_factory=time.monotonic)
    """When it came, on a clock that is never put back."""
    token: str = ""
    """What stood behind `authorization: Bearer `; empty if there was none."""

    @property
    def elapsed_us(self) -> int:
        """How long ago it came: microseconds, 1 or more."""
        return max(1, round((time.monotonic() - self.began_s) * 1e6))

    def ends(self, token_ends_s: float | None, life_ms: int) -> End:
        """Return the first of: deadline, longest life, end of certificate, end of token."""
        now, wall = time.monotonic(), time.time()
        too_late_s = min(self.deadline.at_s, now + life_ms / 1_000)
        known_until_s = self.certified.ends_s
        if token_ends_s is not None:
            known_until_s = min(known_until_s, token_ends_s)
        unknown_s = now + known_until_s - wall
        if unknown_s < too_late_s:
            return End(unknown_s, Reason.UNAUTHENTICATED)
        return End(too_late_s, Reason.OUT_OF_TIME)


@lru_cache(maxsize=1_024)
def certified(pem: bytes) -> Certified:
    """Read a certificate that the handshake has verified. Cost: 40 us, then a look-up.

    Raises:
        ValueError: this is no certificate.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    return Certified(certificate.not_valid_after_utc.timestamp(), certificate.fingerprint(SHA256()))


def now_us() -> int:
    """Return the time: UTC, microseconds since 1970."""
    return time.time_ns() // 1_000
