"""How a request reaches OpenBao: timeouts, bounded retries, and errors that say nothing secret.

Only requests that surely had no lasting effect, or that OpenBao itself asks to be sent again, are
retried: no connection (it never arrived), 429 and 5xx. A read that timed out is not retried. After
a 5xx a write may nevertheless have happened (OpenBao's audit device can fail on the way out), so a
compare-and-swap that was retried may conflict with itself: read again and compare before alarm.

What OpenBao says in its error texts never leaves this module, but for two constants that are
recognised here (`CasConflict`, `VaultRejected.unready`).
"""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 -- pydantic reads it at run time
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from pydantic import BaseModel, ConfigDict, Field, field_validator

from meshkit.contract import Reason, Refusal
from meshkit.counters import counted, measured
from meshkit.https_link import (
    BrokenOffError,
    HttpsLink,
    LinkLimits,
    NotReachedError,
    https_link,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = [
    "Answer",
    "CasConflict",
    "VaultDown",
    "VaultHttp",
    "VaultRejected",
    "VaultSettings",
    "connected_http",
]

log = structlog.get_logger()

_TOO_MANY = 429
_CLIENT_ERRORS = 400
_SERVER_ERRORS = 500
_FORBIDDEN = 403

Json = dict[str, Any]


class VaultSettings(BaseModel):
    """Where OpenBao (or HashiCorp Vault) is, and how long to wait for it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    address: str = Field(default="https://127.0.0.1:8200", description="https only; no path.")
    ca: Path = Field(description="PEM of the CA that signed OpenBao's own listener certificate.")
    connect_timeout_ms: int = Field(
        default=1_000, gt=0, description="To a host that does not answer."
    )
    request_timeout_ms: int = Field(default=5_000, gt=0, description="For a request and its reply.")
    attempts_max: int = Field(default=4, ge=1, le=10, description="The first try included.")
    backoff_ms: int = Field(
        default=50, gt=0, description="Before the first retry; doubles, full jitter."
    )
    backoff_max_ms: int = Field(
        default=1_000, gt=0, description="No pause between tries is longer."
    )
    connections_max: int = Field(
        default=16, gt=0, description="Beyond it requests wait their turn."
    )

    @field_validator("address")
    @classmethod
    def only_https(cls, value: str) -> str:
        """Tokens and data keys cross this connection: there is no plaintext mode."""
        if not value.startswith("https://"):
            msg = "address must begin with https://"
            raise ValueError(msg)
        return value.rstrip("/")


class VaultDown(Refusal):
    """OpenBao did not do what was asked, for whatever reason; `reason` is KEYS_DOWN.

    status: the last HTTP status, or None if no answer came.
    """

    def __init__(self, status: int | None = None) -> None:
        super().__init__(Reason.KEYS_DOWN)
        self.status = status


class VaultRejected(VaultDown):
    """OpenBao understood and said no (4xx): asking again, unchanged, will not help.

    unready: the mount is still being set up, so that asking again later will help after all.
    """

    def __init__(self, status: int, *, unready: bool = False) -> None:
        super().__init__(status)
        self.unready = unready

    @property
    def forbidden(self) -> bool:
        """Whether the token is spent or its policy does not reach that far."""
        return self.status == _FORBIDDEN


class CasConflict(Refusal):
    """A compare-and-swap lost: the secret is at another version than the writer believed."""

    def __init__(self) -> None:
        super().__init__(Reason.CONFLICT)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply: its HTTP status, and its JSON body ({} where there was none)."""

    status: int
    body: Json

    @property
    def data(self) -> Json:
        """The `data` object of the reply; empty if there is none."""
        return self.body.get("data") or {}

    def need(self, name: str) -> Any:  # noqa: ANN401 -- the API's types, not ours
        """Return `data[name]`. Raises VaultDown if it is not there: that is no OpenBao."""
        try:
            return self.data[name]
        except KeyError:
            raise VaultDown(self.status) from None


@dataclass(slots=True)
class _Reached:
    up: bool = True
    """Whether the last request was answered, with whatever."""


@dataclass(frozen=True, slots=True)
class VaultHttp:
    """Requests to one OpenBao, without any thought of tokens. Made by `connected_http`."""

    settings: VaultSettings
    _link: HttpsLink
    _reached: _Reached = field(default_factory=_Reached)

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        accept: frozenset[int] = frozenset(),
        wrap_ttl_s: int | None = None,
    ) -> Answer:
        """Send one request; `path` is what follows `/v1/`.

        Args:
            method: GET, POST, LIST or DELETE.
            path: Such as `transit/sign/name`.
            body: Sent as JSON.
            token: Sent as X-Vault-Token.
            accept: Statuses of 400 and beyond that are an answer here, not an error.
            wrap_ttl_s: Sent as X-Vault-Wrap-TTL: the reply comes wrapped.

        Raises:
            CasConflict: the compare-and-swap lost.
            VaultRejected: any other 4xx.
            VaultDown: no answer in time, or 429 or 5xx to the last.
        """
        headers = _headers(token, wrap_ttl_s)
        content = b"" if body is None else json.dumps(body).encode()
        status: int | None = None
        for attempt in range(self.settings.attempts_max):
            if attempt:
                await asyncio.sleep(self._pause_s(attempt))
            try:
                status, said = await self._link.request(method, f"/v1/{path}", headers, content)
            except NotReachedError:
                status = None
                continue
            except BrokenOffError as failure:
                kind = type(failure.__cause__).__name__
                log.warning("vault.broken", kind=kind, verb=method)
                self._gone("broken")
            if status in accept or not _worth_retrying(status):
                self._reached.up = True
                return _answer(status, said, accept)
        log.warning("vault.down", status=status, attempts=self.settings.attempts_max)
        return self._gone("down", status)

    def _gone(self, event: str, status: int | None = None) -> NoReturn:
        self._reached.up = False
        counted(f"vault.{event}")
        raise VaultDown(status) from None

    def _pause_s(self, attempt: int) -> float:
        longest = min(self.settings.backoff_ms << (attempt - 1), self.settings.backoff_max_ms)
        return random.uniform(0, longest) / 1_000  # noqa: S311 -- jitter is no secret


def _headers(token: str | None, wrap_ttl_s: int | None) -> list[tuple[str, str]]:
    headers = [("X-Vault-Request", "true"), ("Content-Type", "application/json")]
    if token:
        headers.append(("X-Vault-Token", token))
    if wrap_ttl_s is not None:
        headers.append(("X-Vault-Wrap-TTL", f"{wrap_ttl_s}s"))
    return headers


def _worth_retrying(status: int) -> bool:
    return status == _TOO_MANY or status >= _SERVER_ERRORS


def _answer(status: int, reply: bytes, accept: frozenset[int]) -> Answer:
    try:
        body = json.loads(reply) if reply else {}
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    if status < _CLIENT_ERRORS or status in accept:
        return Answer(status, body)
    said = " ".join(str(error) for error in body.get("errors") or ())
    if "check-and-set parameter did not match" in said:
        raise CasConflict
    raise VaultRejected(status, unready="Upgrading from non-versioned" in said)


@asynccontextmanager
async def connected_http(settings: VaultSettings) -> AsyncIterator[VaultHttp]:
    """Own a connection pool to OpenBao for as long as the block runs.

    Raises:
        OSError: `settings.ca` cannot be read or holds no certificate.
    """
    limits = LinkLimits(
        connect_s=settings.connect_timeout_ms / 1_000,
        request_s=settings.request_timeout_ms / 1_000,
        connections_max=settings.connections_max,
    )
    reached = _Reached()
    async with https_link(settings.address, settings.ca, limits) as link:
        with measured("vault.up", lambda: reached.up):
            yield VaultHttp(settings, link, reached)
