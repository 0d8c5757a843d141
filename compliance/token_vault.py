"""Gives values their tokens and, to those allowed, tokens their values back.

    stand_ins = await vault.stand_ins(scope, wanted)     before text travels
    values = await vault.reveal(scope, names)            the gateway asks, after Cedar allowed it

A token leaves only once its value is kept: text that could not be restored is refused instead.
"""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from compliance.token_map import Entry, MemoryTokenMap, Place, RedisTokenMap
from compliance.tokens import MARK_BYTES, SECRET_BYTES, TokenKeys, hash_of
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted
from meshkit.redis_link import redis_link
from meshkit.sealing import SealBroken
from meshkit.tokens import token_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from compliance.settings import ComplianceSettings
    from compliance.token_map import TokenMap
    from compliance.tokens import SessionKeys
    from meshkit.contract import Scope

__all__ = ["TOKEN_SECRET", "StandIns", "TokenVault", "lone_keys", "lone_vault", "token_vault"]

log = structlog.get_logger()

TOKEN_SECRET = "token-keys"  # noqa: S105 -- its name in OpenBao, not its value


@dataclass(frozen=True, slots=True)
class StandIns:
    """What stands for values in one text: hashes, and the tokens that were kept for it."""

    keys: TokenKeys
    tenant: str
    tokens: Mapping[tuple[str, str], str]

    def hash(self, type_: str, value: str) -> str:
        """Return the hash of a value, in brackets with its type."""
        return hash_of(self.keys.hashes(self.tenant), type_, value)

    def token(self, type_: str, value: str) -> str:
        """Return the token of a value that was asked for. Raises KeyError for another."""
        return self.tokens[type_, value]


class TokenVault:
    """Tokens of all sessions.

    Args:
        keys: by the secret that the replicas share.
        values: where they are kept, sealed.
        life_s: of a session's tokens, after the last use.
        call_life_s: of those of a call without a session: no later call can name them.
    """

    def __init__(
        self, keys: TokenKeys, values: TokenMap, *, life_s: float, call_life_s: float
    ) -> None:
        self._keys = keys
        self._values = values
        self._life_s = life_s
        self._call_life_s = call_life_s

    async def stand_ins(self, scope: Scope, wanted: Iterable[tuple[str, str]]) -> StandIns:
        """Make what a text needs: hashes at once, tokens once their values are kept.

        Args:
            scope: Of the call.
            wanted: Type and value, of what is to be tokenised.

        Raises:
            Refusal: COMPLIANCE_DOWN, OVERLOADED: a token could not be kept, so none may leave.
        """
        asked = tuple(dict.fromkeys(wanted))
        tokens = await self._kept(scope, asked) if asked else {}
        return StandIns(self._keys, scope.tenant, tokens)

    async def reveal(self, scope: Scope, names: Sequence[str]) -> dict[str, str]:
        """Return the values of those tokens that are of this tenant and session, and live.

        Raises:
            Refusal: COMPLIANCE_DOWN: they cannot be looked up.
        """
        session = self._keys.session(scope)
        asked = tuple(dict.fromkeys(names))
        fields = [session.field(name) for name in asked]
        found = await self._values.get(self._place(scope, session), fields)
        values = {
            name: value
            for name, sealed in zip(asked, found, strict=True)
            if sealed is not None and (value := _opened(session, name, sealed)) is not None
        }
        if len(values) < len(asked):
            counted("tokens.unknown", len(asked) - len(values))
        return values

    async def _kept(
        self, scope: Scope, wanted: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], str]:
        """Keep the values; where an id is another value's already, under the long one."""
        session = self._keys.session(scope)
        tokens: dict[tuple[str, str], str] = {}
        place = self._place(scope, session)
        left = list(wanted)
        for long in (False, True):
            marks = [session.mark(*each) for each in left]
            names = [
                session.name(type_, mark, long=long)
                for (type_, _), mark in zip(left, marks, strict=True)
            ]
            entries = [
                Entry(session.field(name), mark[:MARK_BYTES], session.seal(name, value))
                for name, mark, (_, value) in zip(names, marks, left, strict=True)
            ]
            held = await self._values.put(place, entries)
            pairs = list(zip(left, names, held, strict=True))
            tokens |= {each: token_of(name) for each, name, good in pairs if good}
            left = [each for each, _, good in pairs if not good]
            if not left:
                return tokens
            counted("tokens.collisions", len(left))
        raise Refusal(Reason.INTERNAL)  # 77 bits of two values are the same

    def _place(self, scope: Scope, session: SessionKeys) -> Place:
        life_s = self._life_s if scope.session else self._call_life_s
        return Place(scope.tenant, session.place, life_s)


def _opened(session: SessionKeys, name: str, sealed: bytes) -> str | None:
    """Open a value; one that was not sealed for this token is none, and somebody should know."""
    try:
        return session.open(name, sealed)
    except SealBroken:
        counted("tokens.broken")
        log.warning("tokens.broken")
        return None


def lone_keys() -> TokenKeys:
    """Return keys that nobody else has: for tools, and wherever no other replica is."""
    return TokenKeys(secrets.token_bytes(SECRET_BYTES))


def lone_vault() -> TokenVault:
    """Return a vault of this process alone, with keys of its own."""
    memory = MemoryTokenMap(entries_max=10_000, sessions_max=1_000)
    return TokenVault(lone_keys(), memory, life_s=3_600.0, call_life_s=600.0)


@asynccontextmanager
async def token_vault(settings: ComplianceSettings, keys: TokenKeys) -> AsyncIterator[TokenVault]:
    """Hold tokens as the settings say, for as long as the block runs.

    Raises:
        OSError: the CA of Redis cannot be read. Redis itself need not be there.
    """
    lives = {"life_s": settings.token_life_s, "call_life_s": settings.token_call_life_s}
    entries_max = settings.token_entries_max
    if not settings.redis.configured:
        memory = MemoryTokenMap(
            entries_max=entries_max,
            sessions_max=settings.token_sessions_max,
            values_max=settings.token_values_max,
        )
        yield TokenVault(keys, memory, **lives)
        return
    async with redis_link(settings.redis, name="tokens") as link:
        yield TokenVault(keys, RedisTokenMap(link, entries_max=entries_max), **lives)
