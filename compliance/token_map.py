r"""Which value a token stands for: sealed, by session, for a while. Two stores of one kind.

    MemoryTokenMap    this process: the appliance
    RedisTokenMap     Redis: replicas of the mesh

Neither sees a tenant, a session, a token or a value, but keyed digests and ciphertext
(`compliance.tokens`). A session's entries end together, `life_s` after any of them was last used.

In Redis a session is a hash under `sealgate:tokens:<place>`, its fields token by token, each value
16 bytes of mark and the sealed value. One script looks and writes, so two replicas that meet the
same two values that share an id agree on whose it is.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Protocol

from compliance.tokens import MARK_BYTES
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted
from meshkit.redis_link import RedisAway, Script

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshkit.redis_link import RedisLink

__all__ = ["Entry", "MemoryTokenMap", "Place", "RedisTokenMap", "TokenMap"]

_RETRY_MS = 1_000
_FULL = -1


@dataclass(frozen=True, slots=True)
class Place:
    """A session: whose it is (a keyed digest will do), what it is known by, how long it lives."""

    tenant: str
    key: bytes
    life_s: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A token: what it is known by, the mark of its value (16 bytes), and the value, sealed."""

    field: bytes
    mark: bytes
    sealed: bytes


class TokenMap(Protocol):
    """Keeps sealed values by session and token. Every use of a session prolongs it."""

    async def put(self, place: Place, entries: Sequence[Entry]) -> list[bool]:
        """Keep each value whose token nobody has yet; return which tokens stand for these values.

        False: the token stands for a value of another mark, which stays.

        Raises:
            Refusal: COMPLIANCE_DOWN: the store cannot be reached; some may be kept.
                OVERLOADED: the session has as many as it may.
        """
        ...

    async def get(self, place: Place, fields: Sequence[bytes]) -> list[bytes | None]:
        """Return the sealed value of each token; None where there is none, or no longer.

        Raises:
            Refusal: COMPLIANCE_DOWN: the store cannot be reached.
        """
        ...


@dataclass(slots=True)
class _Tenant:
    """Sessions, the one idle longest first, and how many values they hold together."""

    order: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    values: int = 0


@dataclass(slots=True)
class _Session:
    tenant: str
    due_s: int
    """When it is looked at again."""
    ends_s: float = 0.0
    entries: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)


class MemoryTokenMap:
    """In this process. A tenant with too many loses the session that was idle longest.

    Args:
        entries_max: of a session.
        sessions_max: of a tenant.
        values_max: of a tenant, in all its sessions.
        clock: seconds, steady.
    """

    def __init__(
        self,
        *,
        entries_max: int,
        sessions_max: int,
        values_max: int = 200_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries_max = entries_max
        self._sessions_max = sessions_max
        self._values_max = values_max
        self._clock = clock
        self._sessions: dict[bytes, _Session] = {}
        self._tenants: defaultdict[str, _Tenant] = defaultdict(_Tenant)
        self._due: defaultdict[int, set[bytes]] = defaultdict(set)
        self._swept_s = 0

    def __len__(self) -> int:
        return len(self._sessions)

    async def put(self, place: Place, entries: Sequence[Entry]) -> list[bool]:
        """See `TokenMap.put`. Nothing is awaited: no other call comes between."""
        session = self._used(place, make=True)
        assert session is not None
        tenant = self._tenants[place.tenant]
        try:
            return [self._held(session, tenant, entry) for entry in entries]
        finally:
            self._hold_limits(tenant)

    def _held(self, session: _Session, tenant: _Tenant, entry: Entry) -> bool:
        known = session.entries.get(entry.field)
        if known is None:
            if len(session.entries) >= self._entries_max:
                raise _full()
            known = session.entries[entry.field] = (entry.mark, entry.sealed)
            tenant.values += 1
        return known[0] == entry.mark

    async def get(self, place: Place, fields: Sequence[bytes]) -> list[bytes | None]:
        """See `TokenMap.get`."""
        session = self._used(place, make=False)
        if session is None:
            return [None] * len(fields)
        found = (session.entries.get(each) for each in fields)
        return [each[1] if each else None for each in found]

    def _used(self, place: Place, *, make: bool) -> _Session | None:
        now_s = self._clock()
        self._sweep(now_s)
        session = self._sessions.get(place.key)
        if session is not None and session.ends_s <= now_s:
            self._forget(place.key)
            session = None
        if session is None:
            if not make:
                return None
            session = self._sessions[place.key] = _Session(place.tenant, ceil(now_s + place.life_s))
            self._due[session.due_s].add(place.key)
        session.ends_s = now_s + place.life_s
        tenant = self._tenants[place.tenant]
        tenant.order[place.key] = None
        tenant.order.move_to_end(place.key)
        return session

    def _hold_limits(self, tenant: _Tenant) -> None:
        """Drop sessions, but never the one that was used last."""
        while len(tenant.order) > 1 and (
            len(tenant.order) > self._sessions_max or tenant.values > self._values_max
        ):
            counted("tokens.sessions_dropped")
            self._forget(next(iter(tenant.order)))

    def _forget(self, key: bytes) -> None:
        session = self._sessions.pop(key)
        tenant = self._tenants[session.tenant]
        del tenant.order[key]
        tenant.values -= len(session.entries)
        if not tenant.order:
            del self._tenants[session.tenant]
        due = self._due[session.due_s]
        due.discard(key)
        if not due:
            del self._due[session.due_s]

    def _sweep(self, now_s: float) -> None:
        """Forget what is over, once a second: each session is looked at when it may be."""
        if int(now_s) == self._swept_s:
            return
        self._swept_s = int(now_s)
        for due_s in sorted(second for second in self._due if second <= now_s):
            for key in tuple(self._due[due_s]):
                session = self._sessions[key]
                if session.ends_s <= now_s:
                    self._forget(key)
                else:
                    self._due[due_s].discard(key)
                    session.due_s = ceil(session.ends_s)
                    self._due[session.due_s].add(key)
            self._due.pop(due_s, None)


_PUT = Script("""
-- KEYS: session. ARGV: its life in ms, how many it may have; then field and value, again and again.
-- Returns 1 or 0 for each, -1 where the session is full.
local held = {}
local size = redis.call('HLEN', KEYS[1])
for i = 3, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if known then
    held[#held + 1] = string.sub(known, 1, 16) == string.sub(ARGV[i + 1], 1, 16) and 1 or 0
  elseif size >= tonumber(ARGV[2]) then
    held[#held + 1] = -1
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    size = size + 1
    held[#held + 1] = 1
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return held
""")

_GET = Script("""
-- KEYS: session. ARGV: its life in ms, then fields.
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
""")

_FIELDS_AT_ONCE = 1_000
"""Lua's `unpack` takes some thousands; a call has a few."""


class RedisTokenMap:
    """In Redis, for all replicas. Sessions are bounded by its memory: idle ones go first.

    Args:
        link: as a user that may touch `sealgate:tokens:*`.
        entries_max: of a session.
    """

    def __init__(self, link: RedisLink, *, entries_max: int) -> None:
        self._link = link
        self._entries_max = entries_max

    async def put(self, place: Place, entries: Sequence[Entry]) -> list[bool]:
        """See `TokenMap.put`."""
        pairs = [part for each in entries for part in (each.field, each.mark + each.sealed)]
        args: tuple[bytes | int, ...] = (_life_ms(place), self._entries_max, *pairs)
        try:
            held = await self._link.run(_PUT, keys=(_name(place),), args=args)
        except RedisAway:
            raise _down() from None
        if _FULL in held:
            raise _full()
        return [each == 1 for each in held]

    async def get(self, place: Place, fields: Sequence[bytes]) -> list[bytes | None]:
        """See `TokenMap.get`."""
        found: list[bytes | None] = []
        for at in range(0, len(fields), _FIELDS_AT_ONCE):
            args: tuple[bytes | int, ...] = (_life_ms(place), *fields[at : at + _FIELDS_AT_ONCE])
            try:
                found += await self._link.run(_GET, keys=(_name(place),), args=args)
            except RedisAway:
                raise _down() from None
        return [None if each is None else each[MARK_BYTES:] for each in found]


def _name(place: Place) -> str:
    return f"sealgate:tokens:{place.key.hex()}"


def _life_ms(place: Place) -> int:
    return ceil(place.life_s * 1_000)


def _down() -> Refusal:
    counted("tokens.map_down")
    return Refusal(Reason.COMPLIANCE_DOWN)


def _full() -> Refusal:
    counted("tokens.session_full")
    return Refusal(Reason.OVERLOADED, retry_after_ms=_RETRY_MS)
