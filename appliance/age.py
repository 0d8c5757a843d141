r"""Files encrypted as age v1 has them, written and read as streams.

A backup must open when nothing of ours runs any more, so its encryption is nobody's own: the `age`
command of any distribution opens it (`age -d -i key.txt FILE`). Two kinds of key:

    X25519     a public key `age1…` seals, the secret key `AGE-SECRET-KEY-1…` opens: the host that
               makes backups cannot read them
    scrypt     a passphrase seals and opens

    header     "age-encryption.org/v1\n"
               "-> X25519 <ephemeral share>\n<wrapped file key>\n"     base64 without padding
            or "-> scrypt <salt> <log2 N>\n<wrapped file key>\n"
               "--- <HMAC-SHA-256 over all before and the three dashes>\n"
    payload    nonce 16 | chunks of 64 KiB, ChaCha20-Poly1305, each with its counter (11 bytes,
               big-endian) and 1 for the last: cut off, it does not open

The public key does not say who sealed: anybody has it. What a backup holds is believed for the
log's signatures. Source: https://c2sp.org/age v1.0.0 (STREAM: Hoang et al., 2015).
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from appliance.bech32 import Bech32Invalid, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "CHUNK_BYTES",
    "AgeInvalid",
    "Identity",
    "Opener",
    "Passphrase",
    "Recipient",
    "Sealer",
    "opened",
    "sealed",
]

CHUNK_BYTES = 64 * 1_024
_TAG_BYTES = 16
_KEY_BYTES = 32
_FILE_KEY_BYTES = 16
_VERSION = b"age-encryption.org/v1\n"
_X25519 = b"age-encryption.org/v1/X25519"
_SCRYPT = b"age-encryption.org/v1/scrypt"
_LINE_MAX = 256
_COLUMNS = 64
_STANZAS_MAX = 16
_WORK = 18
_WORK_MAX = 22
"""log2 of scrypt's N: 256 MiB and about a second as written; no more than 4 GiB as read."""


class AgeInvalid(ValueError):  # noqa: N818 -- an answer about a stranger's file
    """This is no age file, not for this key, or not as it was written."""


def _wrap(key: bytes, file_key: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), file_key, None)


def _unwrap(key: bytes, wrapped: bytes) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), wrapped, None)
    except InvalidTag:
        return None


def _derived(secret: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt, info).derive(secret)


class Sealer(Protocol):
    """Wraps a file's key."""

    def stanza(self, file_key: bytes) -> bytes:
        """Return the lines of the header by which the file key can be had again."""
        ...

    @property
    def name(self) -> str:
        """What may be told of it: the public key, or that it is a passphrase."""
        ...


class Opener(Protocol):
    """Unwraps a file's key."""

    kind: ClassVar[str]
    """Of the stanzas that it may open."""

    def file_key(self, arguments: list[str], body: bytes) -> bytes | None:
        """Return the key, 16 bytes; None if this stanza is another's. Raises AgeInvalid."""
        ...


@dataclass(frozen=True, slots=True)
class Recipient:
    """A public key: 32 bytes, as text `age1…`."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Read `age1…`. Raises AgeInvalid."""
        return cls(_decoded("age", text.strip()))

    @property
    def name(self) -> str:
        """The public key as text."""
        return encode("age", self.raw)

    def stanza(self, file_key: bytes) -> bytes:
        """See `Sealer.stanza`."""
        ephemeral = X25519PrivateKey.generate()
        share = ephemeral.public_key().public_bytes_raw()
        secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(self.raw))
        key = _derived(secret, share + self.raw, _X25519)
        return b"-> X25519 %s\n%s\n" % (_base64(share), _base64(_wrap(key, file_key)))


@dataclass(frozen=True, slots=True)
class Identity:
    """A secret key: 32 bytes, as text `AGE-SECRET-KEY-1…`."""

    raw: bytes = field(repr=False)
    kind: ClassVar[str] = "X25519"

    @classmethod
    def generate(cls) -> Identity:
        """Make one."""
        return cls(os.urandom(_KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Read a key file: comments and one line `AGE-SECRET-KEY-1…`. Raises AgeInvalid."""
        lines = [line.strip() for line in text.splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        if len(keys) != 1:
            reason = "a key file has one secret key"
            raise AgeInvalid(reason)
        return cls(_decoded("age-secret-key-", keys[0]))

    @property
    def text(self) -> str:
        """The secret key as text."""
        return encode("age-secret-key-", self.raw).upper()

    @property
    def recipient(self) -> Recipient:
        """Its public half."""
        key = X25519PrivateKey.from_private_bytes(self.raw)
        return Recipient(key.public_key().public_bytes_raw())

    def file_key(self, arguments: list[str], body: bytes) -> bytes | None:
        """See `Opener.file_key`."""
        if len(arguments) != 1:
            reason = "the header is damaged"
            raise AgeInvalid(reason)
        share = _unbase64(arguments[0].encode(), _KEY_BYTES)
        own = X25519PrivateKey.from_private_bytes(self.raw)
        try:
            secret = own.exchange(X25519PublicKey.from_public_bytes(share))
        except ValueError:  # a share of low order
            reason = "the key share is none"
            raise AgeInvalid(reason) from None
        return _unwrap(_derived(secret, share + self.recipient.raw, _X25519), body)


@dataclass(frozen=True, slots=True)
class Passphrase:
    """A passphrase, made slow to guess by scrypt; `work` is log2 of its N."""

    text: bytes = field(repr=False)
    work: int = _WORK
    kind: ClassVar[str] = "scrypt"

    @property
    def name(self) -> str:
        """Nothing of it."""
        return "passphrase"

    def _key(self, salt: bytes, work: int) -> bytes:
        return Scrypt(_SCRYPT + salt, _KEY_BYTES, 1 << work, 8, 1).derive(self.text)

    def stanza(self, file_key: bytes) -> bytes:
        """See `Sealer.stanza`."""
        salt = os.urandom(16)
        wrapped = _base64(_wrap(self._key(salt, self.work), file_key))
        return b"-> scrypt %s %d\n%s\n" % (_base64(salt), self.work, wrapped)

    def file_key(self, arguments: list[str], body: bytes) -> bytes | None:
        """See `Opener.file_key`."""
        if len(arguments) != 2 or not arguments[1].isdecimal():  # noqa: PLR2004 -- salt, work
            reason = "the header is damaged"
            raise AgeInvalid(reason)
        work = int(arguments[1])
        if not 1 <= work <= _WORK_MAX:
            reason = "it asks for too much work"
            raise AgeInvalid(reason)
        return _unwrap(self._key(_unbase64(arguments[0].encode(), 16), work), body)


def _decoded(prefix: str, text: str) -> bytes:
    try:
        raw = decode(prefix, text)
    except Bech32Invalid:
        raw = b""
    if len(raw) != _KEY_BYTES:
        reason = "this is no age key"
        raise AgeInvalid(reason)
    return raw


def _base64(raw: bytes) -> bytes:
    return b64encode(raw).rstrip(b"=")


def _unbase64(text: bytes, length: int) -> bytes:
    try:
        raw = b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        raw = b""
    if len(raw) != length or _base64(raw) != text:
        reason = "the header is damaged"
        raise AgeInvalid(reason)
    return raw


def _mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_derived(file_key, None, b"header"), header, sha256)


def _nonce(counter: int, *, last: bool) -> bytes:
    return counter.to_bytes(11) + bytes([last])


def _regrouped(pieces: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Cut a stream into chunks of `size`, and say which is the last; the last is not empty."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) > size:
            yield bytes(held[:size]), False
            del held[:size]
    yield bytes(held), True


def sealed(plain: Iterable[bytes], to: Sequence[Sealer]) -> Iterator[bytes]:
    """Encrypt a stream of pieces; yields pieces of about 64 KiB. What `plain` raises passes.

    Each of `to` can open it; a passphrase stands alone, as age demands.
    """
    file_key = os.urandom(_FILE_KEY_BYTES)
    header = _VERSION + b"".join(each.stanza(file_key) for each in to) + b"---"
    nonce = os.urandom(16)
    yield header + b" " + _base64(_mac(file_key, header)) + b"\n" + nonce
    cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
    for counter, (chunk, last) in enumerate(_regrouped(plain, CHUNK_BYTES)):
        yield cipher.encrypt(_nonce(counter, last=last), chunk, None)


@dataclass(slots=True)
class _Source:
    """Pieces, read by lines and by lengths."""

    pieces: Iterator[bytes]
    held: bytearray

    def line(self) -> bytes:
        while (end := self.held.find(b"\n")) < 0 and len(self.held) <= _LINE_MAX:
            self._more()
        if not 0 <= end <= _LINE_MAX:
            reason = "this is no age file"
            raise AgeInvalid(reason)
        return self.take(end + 1)[:-1]

    def take(self, length: int) -> bytes:
        while len(self.held) < length:
            self._more()
        taken = bytes(self.held[:length])
        del self.held[:length]
        return taken

    def rest(self) -> Iterator[bytes]:
        yield bytes(self.held)
        yield from self.pieces

    def _more(self) -> None:
        piece = next(self.pieces, None)
        if piece is None:
            reason = "the file is cut short"
            raise AgeInvalid(reason)
        self.held += piece


def opened(pieces: Iterable[bytes], opener: Opener) -> Iterator[bytes]:
    """Decrypt a stream of pieces; each piece that comes out was authentic, in its place.

    That the end is the end is known only with the last one.

    Raises:
        AgeInvalid: at the first byte that is not as it was written, or for another key.
    """
    source = _Source(iter(pieces), bytearray())
    file_key = _opened_header(source, opener)
    nonce = source.take(16)
    cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
    for counter, (chunk, last) in enumerate(_regrouped(source.rest(), CHUNK_BYTES + _TAG_BYTES)):
        if last and counter and len(chunk) <= _TAG_BYTES:
            reason = "the last chunk is empty"
            raise AgeInvalid(reason)
        try:
            yield cipher.decrypt(_nonce(counter, last=last), chunk, None)
        except InvalidTag:
            reason = f"chunk {counter} was changed, or the file is cut short"
            raise AgeInvalid(reason) from None


def _opened_header(source: _Source, opener: Opener) -> bytes:
    """Read and check the header; return the file key."""
    header = source.line() + b"\n"
    if header != _VERSION:
        reason = "this is no age file"
        raise AgeInvalid(reason)
    file_key: bytes | None = None
    scrypt = False
    for number in range(_STANZAS_MAX + 1):
        line = source.line()
        if line.startswith(b"--- "):
            break
        scrypt = scrypt or line.startswith(b"-> scrypt ")
        if scrypt and number:  # or whoever has another key could pass for who knows the passphrase
            reason = "a passphrase stands alone"
            raise AgeInvalid(reason)
        body = _stanza_body(source)
        header += line + b"\n" + b"".join(part + b"\n" for part in body)
        file_key = file_key or _tried(opener, line, b"".join(body))
    if file_key is None:
        reason = "it was sealed for another key, or with a passphrase"
        raise AgeInvalid(reason)
    if not hmac.compare_digest(_mac(file_key, header + b"---"), _unbase64(line[4:], 32)):
        reason = "the header was changed"
        raise AgeInvalid(reason)
    return file_key


def _stanza_body(source: _Source) -> list[bytes]:
    """Read lines of 64 characters, and the shorter one behind them."""
    lines = [source.line()]
    while len(lines[-1]) == _COLUMNS and len(lines) < _LINE_MAX:
        lines.append(source.line())
    return lines


def _tried(opener: Opener, line: bytes, body: bytes) -> bytes | None:
    words = line.decode("ascii", "replace").split(" ")
    if words[0] != "->" or len(words) < 2:  # noqa: PLR2004 -- arrow, kind
        reason = "the header is damaged"
        raise AgeInvalid(reason)
    if words[1] != opener.kind:
        return None
    return opener.file_key(words[2:], _unbase64(body, _FILE_KEY_BYTES + _TAG_BYTES))
