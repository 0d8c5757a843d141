r"""Which token stands for a value, under which keys, and what a token in a text is spared. PURE.

All keys come of one secret, which the replicas share (HKDF-Expand, RFC 5869, 2.3, one block; the
secret is 32 random bytes, so there is nothing to extract). `+` joins; `\0` ends each label:

    tenant key  = expand(secret,      "sealgate/tokens/tenant/v1\0" + tenant)
    hash key    = expand(tenant key,  "sealgate/tokens/hash/v1\0")
    session key = expand(tenant key,  "sealgate/tokens/session/v1\0" + session)
    id, seal and field key, and place = expand(session key, "sealgate/tokens/<which>/v1\0")

    session = "s" + the caller's session id, or "c" + the call id, where there is none

    mark  = HMAC-SHA-256(id key or hash key, type + "\0" + the value in one spelling)
    id    = 16 characters of `ID_ALPHABET`, drawn from the mark; its first 10, mostly

So equal values of a session have one token, on every replica and in every turn, without anybody
having to remember it; tokens of two sessions, of two tenants and of calls without a session tell
nothing of each other; and without the secret nobody can try values. A hash is made likewise, under
a key of the tenant: it is the same in all its sessions, and nothing leads back from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from compliance.findings import TYPES
from compliance.normalise import fold
from meshkit.mac import hmac_sha256
from meshkit.sealing import Owner, SealBroken, open_record, seal_record
from meshkit.tokens import (
    ID_ALPHABET,
    ID_CHARS,
    ID_CHARS_LONG,
    find_tokens,
    has_digit_run,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compliance.findings import Finding
    from meshkit.contract import Scope
    from meshkit.tokens import Token

__all__ = [
    "MARK_BYTES",
    "SECRET_BYTES",
    "SessionKeys",
    "TokenKeys",
    "hash_of",
    "one_spelling",
    "spared",
    "token_spans",
]

SECRET_BYTES = 32
MARK_BYTES = 16
FIELD_BYTES = 16
_PURPOSE = "tokens"
_KEY_ID_BYTES = 16
_LENGTH_BYTES = 4
_PAD_BYTES = 64
"""Sealed values are filled up to a multiple of it: how long one is does not show."""

_EXACT = frozenset({"SECRET"})
_BY_DIGITS = frozenset(
    (
        *("BANK_ACCOUNT", "CN_RESIDENT_ID", "CREDIT_CARD", "IBAN", "MEDICAL_RECORD"),
        *("NATIONAL_ID", "PASSPORT", "PHONE", "PLATE", "US_SSN"),
    )
)
"""However these are grouped, they are one number. Not dates and addresses of hosts, where
1/12 and 11/2 differ by the place of a separator alone."""
_BY_WORDS = frozenset({"DATE_OF_BIRTH", "LOCATION", "ORG", "PERSON"})
_NOT_ALNUM = re.compile(r"[^\w+]|_")
_BETWEEN_WORDS = re.compile(r"[\s,;.\-_/·•]+")
_SPACE = re.compile(r"\s+")
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_AS_LABELLED = re.compile(r"[\s:#·：＃]")
_BLOCKS = frozenset({"pem_block", "base64_block"})
_HASH = re.compile(
    rf"\[(?:[A-Z][A-Z0-9_]{{0,47}})#[{ID_ALPHABET.lower()}]{{{ID_CHARS_LONG}}}\]", re.ASCII
)


def one_spelling(type_: str, value: str) -> str:
    """Return what all spellings of a value share, so that they share a token.

    Case, white space, full-width forms and look-alikes never count, but for secrets, where every
    character does. In numbers, separators do not count; between words, any is like a space.
    """
    if type_ in _EXACT:
        return value
    plain = fold(value).text.casefold()
    if type_ in _BY_DIGITS:
        return _NOT_ALNUM.sub("", plain)
    return (_BETWEEN_WORDS if type_ in _BY_WORDS else _SPACE).sub(" ", plain).strip()


@dataclass(frozen=True)
class SessionKeys:
    """What a session's tokens are made, named and sealed with."""

    tenant: str
    session: bytes
    key: bytes

    @cached_property
    def place(self) -> bytes:
        """What the token map knows the session by: 32 bytes that tell nothing of it."""
        return _expand(self.key, b"place")

    @cached_property
    def _ids(self) -> bytes:
        return _expand(self.key, b"id")

    @cached_property
    def _seals(self) -> bytes:
        return _expand(self.key, b"seal")

    @cached_property
    def _fields(self) -> bytes:
        return _expand(self.key, b"field")

    def mark(self, type_: str, value: str) -> bytes:
        """Digest of a value in one spelling: 32 bytes."""
        return hmac_sha256(self._ids, _valued(type_, value))

    def name(self, type_: str, mark: bytes, *, long: bool = False) -> str:
        """Name of the token of a value by its mark; the long one where the short one is taken."""
        return f"{type_}_{_id(mark)[: ID_CHARS_LONG if long else ID_CHARS]}"

    def field(self, name: str) -> bytes:
        """What the token map knows a token by within its session: 16 bytes."""
        return hmac_sha256(self._fields, name.encode())[:FIELD_BYTES]

    def seal(self, name: str, value: str) -> bytes:
        """Seal the value of a token for this tenant, session and name."""
        raw = value.encode()
        framed = len(raw).to_bytes(_LENGTH_BYTES) + raw
        padded = framed + bytes(-len(framed) % _PAD_BYTES)
        key_id = self.place[:_KEY_ID_BYTES]
        return seal_record(self._seals, key_id, self._owner, padded, self._aad(name))

    def open(self, name: str, sealed: bytes) -> str:
        """Return the value. Raises SealBroken: it was not sealed for this very token."""
        padded = open_record(self._seals, self._owner, sealed, self._aad(name))
        size = int.from_bytes(padded[:_LENGTH_BYTES])
        try:
            return padded[_LENGTH_BYTES : _LENGTH_BYTES + size].decode()
        except UnicodeDecodeError:
            raise SealBroken from None

    @property
    def _owner(self) -> Owner:
        return Owner(self.tenant, _PURPOSE)

    def _aad(self, name: str) -> bytes:
        """Bind session and token; the owner binds the tenant. No name holds a zero byte."""
        return b"sealgate/tokens/value/v1\0" + name.encode() + b"\0" + self.session


class TokenKeys:
    """The keys of all tenants and sessions, by one secret of 32 random bytes."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            msg = f"the secret of tokens needs {SECRET_BYTES} bytes"
            raise ValueError(msg)
        self._secret = secret
        self._of_session = lru_cache(maxsize=1_024)(self._session)

    def session(self, scope: Scope) -> SessionKeys:
        """Return a call's session, or the call's own where it has none. About 5 us, then less."""
        name = b"s" + scope.session.encode() if scope.session else b"c" + scope.call_id
        return self._of_session(scope.tenant, name)

    def hashes(self, tenant: str) -> bytes:
        """Return the key of a tenant's hashes: 32 bytes."""
        return _expand(self._tenant(tenant), b"hash")

    def _tenant(self, tenant: str) -> bytes:
        return _expand(self._secret, b"tenant", tenant.encode())

    def _session(self, tenant: str, name: bytes) -> SessionKeys:
        return SessionKeys(tenant, name, _expand(self._tenant(tenant), b"session", name))


def hash_of(key: bytes, type_: str, value: str) -> str:
    """Return what stands for a value that is hashed: `[PERSON#7k3f9q2mbx…]`, 77 bits.

    key: of `TokenKeys.hashes`.
    """
    return f"[{type_}#{_id(hmac_sha256(key, _valued(type_, value))).lower()}]"


def token_spans(text: str) -> list[tuple[int, int]]:
    """Where tokens and hashes stand in a text: theirs, or what nobody can tell from them."""
    return [(token.start, token.end) for token in find_tokens(text, TYPES)] + _hashes(text)


def _hashes(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in _HASH.finditer(text) if not _is_number(found[0])]


def spared(findings: Iterable[Finding], text: str) -> list[Finding]:
    """Cut tokens and hashes out of findings: what stands for data is none.

    What is left of a finding stays one if it holds a letter or a digit; block marks stay whole.
    Not every form is spared that is restored: see `_unlike_data`.
    """
    tokens = (token for token in find_tokens(text, TYPES) if _unlike_data(token, text))
    spans = [(token.start, token.end) for token in tokens] + _hashes(text)
    kept = list(findings)
    for start, end in spans:
        kept = [part for finding in kept for part in _around(finding, text, start, end)]
    return kept


def _unlike_data(token: Token, text: str) -> bool:
    """Whether a token is written as no label with its value would be.

    `Passport: X234K567MN` and `secret gH7kPq2vXz` are such, and data as likely as not.
    """
    raw = _EDGES.sub("", text[token.start : token.end])
    id_ = "".join(filter(str.isalnum, raw))[-len(token.name.rpartition("_")[2]) :]
    return _AS_LABELLED.search(raw) is None and id_ in {id_.upper(), id_.lower()}


def _around(finding: Finding, text: str, start: int, end: int) -> list[Finding]:
    if end <= finding.start or finding.end <= start or finding.recognizer in _BLOCKS:
        return [finding]
    sides = (
        replace(finding, end=max(finding.start, start)),
        replace(finding, start=min(finding.end, end)),
    )
    return [side for side in sides if any(map(str.isalnum, text[side.start : side.end]))]


def _is_number(hashed: str) -> bool:
    return has_digit_run(hashed.rpartition("#")[2])


def _valued(type_: str, value: str) -> bytes:
    return type_.encode() + b"\0" + one_spelling(type_, value).encode("utf-8", "surrogatepass")


def _expand(key: bytes, which: bytes, rest: bytes = b"") -> bytes:
    return hmac_sha256(key, b"sealgate/tokens/" + which + b"/v1\0" + rest + b"\x01")


def _id(mark: bytes) -> str:
    """Draw 16 characters from a mark; again, one time in ten, if four digits stand in a row."""
    tries = 0
    while True:
        number = int.from_bytes(hmac_sha256(mark, bytes((tries,))))
        characters = []
        for _ in range(ID_CHARS_LONG):
            number, index = divmod(number, len(ID_ALPHABET))
            characters.append(ID_ALPHABET[index])
        id_ = "".join(characters)
        if not has_digit_run(id_):
            return id_
        tries += 1
