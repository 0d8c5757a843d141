"""Who we are to OpenBao: AppRole login, and a token that outlives its time to live.

    login --> token, lease 1 h --renew at 2/3--> ... --max_ttl reached--> login again

A token that cannot be renewed for its whole lease any more is near its max_ttl: a new login
replaces it before it ends. When OpenBao is away the loop keeps trying, so that the first request
after its return finds a fresh token. Secret ids arrive response-wrapped: whoever unwraps first is
the only one, so a failed unwrap means that somebody else has read it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from meshkit.background import running
from meshkit.counters import counted, measured
from meshkit.vault_http import Answer, VaultDown, VaultHttp, VaultRejected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["AppRole", "Interception", "Login", "StaticToken", "Token", "WrappedAppRole"]
__all__ += ["live_token", "unwrap"]

log = structlog.get_logger()

_RENEW_AT = 2 / 3
_SHORTEST_WAIT_S = 0.05
_RETRY_WAIT_S = 1.0
"""Between tries while OpenBao is away, and between a request's 403 and the check it causes."""


@dataclass(frozen=True, slots=True)
class AppRole:
    """A login that may be used again, for as long as the secret id lives."""

    role_id: str
    secret_id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WrappedAppRole:
    """A login whose secret id must be unwrapped first; works once.

    creation_path: where the wrapped reply must have been made; any other place is a swap.
    """

    role_id: str
    wrapping_token: str = field(repr=False)
    creation_path: str


@dataclass(frozen=True, slots=True)
class StaticToken:
    """A token from elsewhere, used as it is and never renewed: for set-up and tools."""

    value: str = field(repr=False)


Login = AppRole | WrappedAppRole | StaticToken


class Interception(VaultRejected):
    """The wrapped secret id was opened before, or was made elsewhere: treat it as stolen."""


async def unwrap(http: VaultHttp, login: WrappedAppRole) -> AppRole:
    """Open a wrapped secret id.

    Raises:
        Interception: it was opened before, or does not come from `login.creation_path`.
        VaultDown: OpenBao cannot be asked.
    """
    try:
        seen = await http.call("POST", "sys/wrapping/lookup", {"token": login.wrapping_token})
        _must_come_from(login.creation_path, seen)
        opened = await http.call("POST", "sys/wrapping/unwrap", token=login.wrapping_token)
    except VaultRejected as refused:
        log.error("vault.interception", status=refused.status)  # noqa: TRY400 -- no text of theirs
        raise Interception(refused.status or 0) from None
    return AppRole(login.role_id, str(opened.need("secret_id")))


def _must_come_from(path: str, seen: Answer) -> None:
    if seen.data.get("creation_path") != path:
        raise VaultRejected(seen.status)


class Token:
    """The token to send, kept alive by `live_token`."""

    def __init__(self, http: VaultHttp, login: AppRole | StaticToken) -> None:
        self._http = http
        self._login = login
        self._value = login.value if isinstance(login, StaticToken) else ""
        self._lease_s = 0.0
        self._full_lease_s = 0.0
        self._renewable = False
        self._ends_s = 0.0
        self._doubted = asyncio.Event()
        self.logins = 0
        """How often a login was made: 1 at the start, one more at each max_ttl or loss."""
        self.renewals = 0

    @property
    def value(self) -> str:
        """What to send as X-Vault-Token."""
        return self._value

    @property
    def remaining_s(self) -> float:
        """Seconds until the token's lease is over; negative after."""
        return self._ends_s - time.monotonic()

    def doubt(self) -> None:
        """Tell that OpenBao answered 403: the token may be gone. It is checked soon."""
        self._doubted.set()

    async def log_in(self) -> None:
        """Get a new token. Raises VaultDown."""
        if isinstance(self._login, StaticToken):
            return
        body = {"role_id": self._login.role_id, "secret_id": self._login.secret_id}
        self._take(await self._http.call("POST", "auth/approle/login", body))
        self._full_lease_s = self._lease_s
        self.logins += 1

    async def renew_self(self) -> None:
        """Prolong the token, or replace it where it is lost or its end is in sight.

        Raises:
            VaultDown: OpenBao cannot be asked, or the login is refused.
        """
        if not self._renewable:
            await self.log_in()
            return
        try:
            self._take(await self._http.call("POST", "auth/token/renew-self", token=self._value))
            self.renewals += 1
        except VaultRejected:
            await self.log_in()
            return
        if self._lease_s < self._full_lease_s * _RENEW_AT:
            await self.log_in()

    async def revoke_self(self) -> None:
        """Give the token back; one that is already gone is no error. Raises VaultDown."""
        with suppress(VaultRejected):
            await self._http.call("POST", "auth/token/revoke-self", token=self._value)

    def _take(self, answer: Answer) -> None:
        auth = answer.body.get("auth") or {}
        self._value = str(auth.get("client_token") or self._value)
        self._lease_s = float(auth.get("lease_duration") or 0)
        self._renewable = bool(auth.get("renewable"))
        self._ends_s = time.monotonic() + self._lease_s

    async def keep_alive(self) -> None:
        """Renew for ever. Run by `live_token`."""
        wait_s = self._lease_s * _RENEW_AT
        while True:
            # Not wait_for, which in Python 3.11 loses a cancellation that comes with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait_s, _SHORTEST_WAIT_S)):
                    await self._doubted.wait()
                # A policy that says no looks like a lost token: never check it in a tight loop.
                await asyncio.sleep(min(_RETRY_WAIT_S, self._lease_s * _RENEW_AT))
            self._doubted.clear()
            try:
                await self.renew_self()
                wait_s = self._lease_s * _RENEW_AT
            except VaultDown as failure:
                counted("vault.renewal_failed")
                log.warning("vault.renewal_failed", status=failure.status)
                wait_s = min(_RETRY_WAIT_S, self._full_lease_s / 10)


@asynccontextmanager
async def live_token(http: VaultHttp, login: Login) -> AsyncIterator[Token]:
    """Log in, keep the token alive while the block runs, and revoke it at the end.

    Raises:
        Interception: the wrapped secret id was read by somebody else.
        VaultDown: the login was refused or OpenBao is away.
    """
    token = Token(http, await unwrap(http, login) if isinstance(login, WrappedAppRole) else login)
    if isinstance(login, StaticToken):
        yield token
        return
    await token.log_in()
    try:
        async with running(token.keep_alive(), "vault-token"):
            with measured("vault.token_remaining_s", lambda: token.remaining_s):
                yield token
    finally:
        with suppress(VaultDown):
            await token.revoke_self()
