"""What people search for: names instead of pseudonyms, pages, and the tokens between them. PURE.

    Question    what to find, by name
    Page        records, and the token of the next page
    token_of    where a page ended, bound to tenant and question; position_in reads it back

audit/search/query.py has the same in pseudonyms, as the index is asked.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from audit.search.query import Query
from meshkit.contract import Phase, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshkit.contract import Record

__all__ = ["Page", "People", "Question", "position_in", "query_of", "token_of"]

TRACE_ID_BYTES = 16
TIME_US_MAX = 2**53 - 1
"""As in a leaf."""
_TOKEN_HEAD = b"1"
_TOKEN_BYTES = 1 + 8 + 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to find within one tenant. Empty means: whatever it is."""

    since_us: int = 0
    """UTC, microseconds, of the event; included."""
    until_us: int | None = None
    """Excluded."""
    actor: str = ""
    """SPIFFE id of a workload."""
    user: str = ""
    """As its token named it."""
    subject: str = ""
    """Whom the data is about, as the caller said it."""
    model: str = ""
    trace_id: bytes = b""
    verdict_type: str = ""
    """With `verdict_action`: one and the same verdict must have both."""
    verdict_action: str = ""
    outcome: str = ""
    action: str = ""
    phase: Phase | None = None
    newest_first: bool = True

    def check(self) -> None:
        """Refuse what cannot be asked. Raises Refusal: INVALID_FIELD."""
        if not 0 <= self.since_us <= TIME_US_MAX:
            raise Refusal(Reason.INVALID_FIELD, field="since")
        if self.until_us is not None and not self.since_us < self.until_us <= TIME_US_MAX:
            raise Refusal(Reason.INVALID_FIELD, field="until")
        if self.trace_id and (len(self.trace_id) != TRACE_ID_BYTES or not any(self.trace_id)):
            raise Refusal(Reason.INVALID_FIELD, field="trace_id")

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of what is asked for, without what: a search is recorded with them."""
        return tuple(sorted(name for name, value in asdict(self).items() if value))


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """The pseudonyms of those whom a question names, under every key that is left; None: nobody."""

    actors: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    subjects: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Records in the order asked for; `next_token` is empty at the end."""

    records: tuple[Record, ...]
    next_token: str = ""


def query_of(
    question: Question, tenant: str, people: People, *, after: int | None, limit: int
) -> Query:
    """Ask a question in pseudonyms, of the index; `tenant` is one."""
    return Query(
        tenant=tenant,
        since_us=question.since_us,
        until_us=question.until_us,
        actors=people.actors,
        users=people.users,
        subjects=people.subjects,
        model=question.model,
        trace_id=question.trace_id,
        verdict_type=question.verdict_type,
        verdict_action=question.verdict_action,
        outcome=question.outcome,
        action=question.action,
        phase=question.phase,
        newest_first=question.newest_first,
        after=after,
        limit=limit,
    )


def token_of(question: Question, tenant: str, position: int) -> str:
    """Write where a page ended: the next one goes on behind entry `position`.

    The token is bound to tenant and question, so that it is refused with any other. It is no secret
    and grants nothing: who made one up would only turn his own pages, since the tenant of a search
    is never taken from it.
    """
    number = position.to_bytes(8)
    raw = _TOKEN_HEAD + number + _bound(question, tenant, number)
    return urlsafe_b64encode(raw).decode().rstrip("=")


def position_in(question: Question, tenant: str, token: str) -> int | None:
    """Return where the page ended that `token` was given with; None for no token.

    Raises:
        Refusal: INVALID_FIELD, if it is none of ours, or belongs to another question or tenant.
    """
    if not token:
        return None
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        raise Refusal(Reason.INVALID_FIELD, field="page_token") from None
    head, number, bound = raw[:1], raw[1:9], raw[9:]
    sound = len(raw) == _TOKEN_BYTES and head == _TOKEN_HEAD
    if not sound or bound != _bound(question, tenant, number):
        raise Refusal(Reason.INVALID_FIELD, field="page_token")
    position = int.from_bytes(number)
    if position > TIME_US_MAX:  # nobody's log is so long, and SQLite counts no further than 2**63
        raise Refusal(Reason.INVALID_FIELD, field="page_token")
    return position


def _bound(question: Question, tenant: str, number: bytes) -> bytes:
    asked = asdict(question) | {"trace_id": question.trace_id.hex(), "tenant": tenant}
    said: Iterable[tuple[str, object]] = sorted(asked.items())
    return sha256(b"sealgate/search/v1\0" + number + json.dumps(list(said)).encode()).digest()[:16]
