"""Who is signed in: sessions kept in this process, named by a cookie that says nothing.

A session ends when it was idle or lived for too long, when the certificate or token that opened it
does, or by signing out; all of them end with the process. One that a certificate opened counts only
over connections that show that certificate.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshkit.contract import Actor

__all__ = ["Session", "Sessions"]

_TOKEN_BYTES = 32


@dataclass(slots=True, kw_only=True)
class Session:
    """One person at one browser."""

    actor: Actor
    """Without roles: the policies say at each request which they are."""
    claimed: frozenset[str]
    """Roles that a provider's token claims."""
    way: str
    """`certificate` or `oidc`."""
    thumbprint: bytes
    """SHA-256 of the certificate that opened it; empty if none did."""
    csrf: str
    opened_s: float
    ends_s: float
    seen_s: float

    def allows(self, token: str) -> bool:
        """Whether a form bears this session's token."""
        return compare_digest(self.csrf.encode(), token.encode())


class Sessions:
    """All of them. Times are seconds since 1970."""

    def __init__(
        self,
        *,
        idle_s: float,
        life_s: float,
        most: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._idle_s = idle_s
        self._life_s = life_s
        self._most = most
        self._clock = clock
        self._by_name: dict[bytes, Session] = {}

    def open(
        self,
        actor: Actor,
        *,
        way: str,
        claimed: frozenset[str] = frozenset(),
        thumbprint: bytes = b"",
        ends_s: float | None = None,
    ) -> str:
        """Open one; return the cookie's value.

        Args:
            actor: Who signed in.
            way: `certificate` or `oidc`.
            claimed: Roles that a token claims.
            thumbprint: Of the certificate that opened it.
            ends_s: When what opened it ends, if that is known.
        """
        now = self._clock()
        ends = min(now + self._life_s, now + self._life_s if ends_s is None else ends_s)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        while len(self._by_name) >= self._most:
            self._by_name.pop(min(self._by_name, key=lambda name: self._by_name[name].seen_s))
        self._by_name[_name(token)] = Session(
            actor=actor,
            claimed=claimed,
            way=way,
            thumbprint=thumbprint,
            csrf=secrets.token_urlsafe(_TOKEN_BYTES),
            opened_s=now,
            ends_s=ends,
            seen_s=now,
        )
        return token

    def of(self, token: str, *, thumbprint: bytes) -> Session | None:
        """Return the session of a cookie, if it is alive and this connection may use it."""
        session = self._by_name.get(_name(token))
        if session is None:
            return None
        now = self._clock()
        if now >= session.ends_s or now >= session.seen_s + self._idle_s:
            self.close(token)
            return None
        if session.thumbprint and not compare_digest(session.thumbprint, thumbprint):
            return None
        session.seen_s = now
        return session

    def close(self, token: str) -> None:
        """End one, if it is there."""
        self._by_name.pop(_name(token), None)

    def __len__(self) -> int:
        return len(self._by_name)


def _name(token: str) -> bytes:
    """Look up by a hash: what is in memory does not open a session, and times tell nothing."""
    return sha256(token.encode()).digest()
