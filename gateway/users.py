"""Users behind a workload: JWTs, believed only as far as the list below goes.

    1. at most `token_bytes_max`; header `alg` on the allow-list, `kid` names a key of the set
    2. the key's own algorithm is used, never the header's choice (`meshkit.jwks`)
    3. signature; `iss`, `aud`, `exp`, and `nbf` where present, with `leeway_s`
    4. the tenant claim is the tenant of the certificate that carries the token
    5. where `cnf` is present, its `x5t#S256` is that certificate (RFC 8705, 3.1); other bindings
       are refused, since they cannot be checked
    6. `sub` is 1 to 256 visible ASCII characters; `roles` a list of strings

A verified token is remembered by its hash, with tenant and certificate, until `exp`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

import httpx2
import jwt
import structlog

from meshkit.background import running
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted
from meshkit.jwks import JwksInvalid, downloaded, parse_jwks, verified_claims

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from gateway.settings import UserSettings

__all__ = ["JwksInvalid", "User", "Users", "parse_jwks", "users"]

log = structlog.get_logger()

_ROLES_MAX = 32
_SUBJECT = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class User:
    """A believed token. `roles` are claimed, not yet allowed; `ends_s` is `exp`."""

    subject: str
    roles: frozenset[str]
    ends_s: float


@dataclass(slots=True)
class Users:
    """Verifies tokens by the newest good key set."""

    settings: UserSettings
    keys: Mapping[str, jwt.PyJWK]
    clock: Callable[[], float] = time.time
    _memo: dict[bytes, User] = field(default_factory=dict)

    async def verify(self, token: str, *, tenant: str, thumbprint: bytes) -> User:
        """Believe a token, or refuse.

        Args:
            token: As it stood behind `Bearer `.
            tenant: Of the certificate that carries it.
            thumbprint: SHA-256 of that certificate: 32 bytes.

        Raises:
            Refusal: UNAUTHENTICATED, for whatever is wrong with it.

        Cost: 2 us for one that is remembered, 60 to 150 us for a new one.
        """
        if len(token) > self.settings.token_bytes_max or not token.isascii():
            raise Refusal(Reason.UNAUTHENTICATED)
        name = hashlib.sha256(b"\0".join((token.encode(), tenant.encode(), thumbprint))).digest()
        known = self._memo.get(name)
        if known is None or known.ends_s <= self.clock():
            known = self._verified(token, tenant, thumbprint)
            self._remember(name, known)
        return known

    def replace_keys(self, keys: Mapping[str, jwt.PyJWK]) -> None:
        """Take another key set; what the old one vouched for is forgotten."""
        self.keys = keys
        self._memo.clear()

    def _remember(self, name: bytes, user: User) -> None:
        if len(self._memo) >= self.settings.memo_max:
            self._memo.clear()
        self._memo[name] = user

    def _verified(self, token: str, tenant: str, thumbprint: bytes) -> User:
        try:
            claims = self._claims(token)
        except (jwt.PyJWTError, UnicodeError):
            counted("users.tokens_refused")
            raise Refusal(Reason.UNAUTHENTICATED) from None
        subject, roles = claims.get("sub"), claims.get(self.settings.roles_claim, [])
        if (
            claims.get(self.settings.tenant_claim) != tenant
            or not _bound(claims.get("cnf"), thumbprint)
            or not isinstance(subject, str)
            or not _SUBJECT.fullmatch(subject)
            or not isinstance(roles, list)
            or len(roles) > _ROLES_MAX
            or not all(isinstance(role, str) for role in roles)
        ):
            counted("users.tokens_refused")
            raise Refusal(Reason.UNAUTHENTICATED)
        return User(subject, frozenset(roles), float(claims["exp"]))

    def _claims(self, token: str) -> dict[str, Any]:
        """Steps 1 to 3."""
        return verified_claims(
            token,
            self.keys,
            issuer=self.settings.issuer,
            audience=self.settings.audience,
            leeway_s=self.settings.leeway_s,
        )


def _bound(cnf: object, thumbprint: bytes) -> bool:
    """Step 5."""
    if cnf is None:
        return True
    if not isinstance(cnf, dict) or not isinstance(cnf.get("x5t#S256"), str):
        return False
    mine = base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
    return cnf["x5t#S256"].isascii() and compare_digest(cnf["x5t#S256"], mine)


# --- where the keys come from ---------------------------------------------------------------


@asynccontextmanager
async def users(settings: UserSettings) -> AsyncIterator[Users | None]:
    """Own the key set, kept fresh for as long as the block runs; None if there are no users.

    Raises:
        JwksInvalid, OSError, httpx2.HTTPError: there is no good set to start with.
    """
    if not settings.issuer:
        yield None
        return
    verifier = Users(settings, parse_jwks(await _fetched(settings)))
    async with running(_kept_fresh(verifier), "jwks"):
        yield verifier


async def _kept_fresh(verifier: Users) -> None:
    """Look for another key set now and then; a bad one keeps the old, and is counted."""
    newest = b""
    while True:
        await asyncio.sleep(verifier.settings.jwks_every_s)
        try:
            raw = await _fetched(verifier.settings)
            if raw != newest:
                verifier.replace_keys(parse_jwks(raw))
                newest = raw
        except (JwksInvalid, OSError, httpx2.HTTPError) as error:
            counted("users.jwks_refused")
            log.warning("users.jwks_kept", kind=type(error).__name__)


async def _fetched(settings: UserSettings) -> bytes:
    if settings.jwks_file is not None:
        raw = await asyncio.to_thread(_read, settings.jwks_file, settings.jwks_bytes_max)
    else:
        raw = await downloaded(settings.jwks_url, settings.jwks_ca_file, settings.jwks_bytes_max)
    if len(raw) > settings.jwks_bytes_max:
        msg = f"longer than {settings.jwks_bytes_max} bytes"
        raise JwksInvalid(msg)
    return raw


def _read(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as file:
        return file.read(bytes_max + 1)
