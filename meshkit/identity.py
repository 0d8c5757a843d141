"""Who is at the other end: SPIFFE ids out of peer certificates, strictly. PURE.

    spiffe://<trust-domain>/tenant/<tenant>/<workload>      a caller
    spiffe://<trust-domain>/service/<name>                  one of the five services

Trust domain: lower-case DNS labels joined by dots. Everything else: one lower-case DNS label (RFC
1035, 2.3.1, digits allowed in front as RFC 1123 does), 1 to 63 characters. There is one spelling of
an id: no dot segments, percent-encoding, empty segments, trailing slash, query, fragment, port or
user. A certificate bears exactly one URI; one with more is nobody's.

An id says who the certificate was issued to. Whether that caller may do something is Cedar's and
the interceptors' business, not decided here.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from meshkit.contract import Connection, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Identity",
    "PeerContext",
    "ServiceIdentity",
    "TenantIdentity",
    "connection_of",
    "identity_of",
    "is_label",
    "is_trust_domain",
    "parse_spiffe_id",
    "peer_ip",
]

TLS_VERSION = "TLSv1.3"
"""What C-core calls the only version we take."""

SPIFFE_ID_BYTES_MAX = 2_048
"""SPIFFE-ID, 2.3: no longer id must be supported."""

_LABEL_CHARS_MAX, _LABELS_MAX = 63, 4_096
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_TRUST_DOMAIN_MAX = 255
_SCHEME = "spiffe://"


@dataclass(frozen=True, slots=True)
class TenantIdentity:
    """A workload of a tenant."""

    trust_domain: str
    tenant: str
    workload: str

    @property
    def spiffe_id(self) -> str:
        """The id as it stands in the certificate."""
        return f"{_SCHEME}{self.trust_domain}/tenant/{self.tenant}/{self.workload}"


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """One of our own services."""

    trust_domain: str
    name: str

    @property
    def spiffe_id(self) -> str:
        """The id as it stands in the certificate."""
        return f"{_SCHEME}{self.trust_domain}/service/{self.name}"


Identity = TenantIdentity | ServiceIdentity


class PeerContext(Protocol):
    """The part of `grpc.aio.ServicerContext` that is read here."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What the handshake proved, by C-core's names."""
        ...

    def peer(self) -> str:
        """Where the peer is, such as `ipv4:127.0.0.1:50514`."""
        ...


def is_label(text: str) -> bool:
    """Whether `text` is one lower-case DNS label: what tenants, workloads, services are named."""
    return len(text) <= _LABEL_CHARS_MAX and _is_label(text)


@lru_cache(maxsize=_LABELS_MAX)
def _is_label(text: str) -> bool:
    return _LABEL.fullmatch(text) is not None


def is_trust_domain(text: str) -> bool:
    """Whether `text` is lower-case DNS labels joined by dots, 255 characters at most."""
    return len(text) <= _TRUST_DOMAIN_MAX and all(is_label(part) for part in text.split("."))


def parse_spiffe_id(text: str, *, trust_domain: str) -> Identity:
    """Read an id of ours.

    Raises:
        Refusal: UNAUTHENTICATED, if it is of another trust domain, of another kind, or spelt in
            any way but the one above.
    """
    prefix = f"{_SCHEME}{trust_domain}/"
    if not is_trust_domain(trust_domain) or not text.startswith(prefix):
        raise Refusal(Reason.UNAUTHENTICATED)
    match text.removeprefix(prefix).split("/"):
        case ["tenant", tenant, workload] if is_label(tenant) and is_label(workload):
            return TenantIdentity(trust_domain, tenant, workload)
        case ["service", name] if is_label(name):
            return ServiceIdentity(trust_domain, name)
        case _:
            raise Refusal(Reason.UNAUTHENTICATED)


def identity_of(context: PeerContext, *, trust_domain: str) -> Identity:
    """Tell who the peer of an RPC is, by its verified certificate.

    Raises:
        Refusal: UNAUTHENTICATED, if there is no certificate, not exactly one URI in it, or the URI
            is no id of ours.
    """
    uris = tuple(context.auth_context().get("peer_uri", ()))
    if len(uris) != 1 or len(uris[0]) > SPIFFE_ID_BYTES_MAX:
        raise Refusal(Reason.UNAUTHENTICATED)
    try:
        text = uris[0].decode("ascii")
    except UnicodeDecodeError:
        raise Refusal(Reason.UNAUTHENTICATED) from None
    return parse_spiffe_id(text, trust_domain=trust_domain)


def connection_of(context: PeerContext) -> Connection:
    """Tell how the peer's bytes came, for the record.

    Raises:
        Refusal: UNAUTHENTICATED, if they did not come over TLS 1.3: the second fence behind
            `meshkit.tls.probe_tls13_only`.
    """
    facts = context.auth_context()
    version = _only(facts, "ssl_tls_version")
    if version != TLS_VERSION:
        raise Refusal(Reason.UNAUTHENTICATED)
    return Connection(
        tls_version=version,
        key_exchange_group=_only(facts, "ssl_negotiated_key_exchange_group"),
        peer_ip=peer_ip(context.peer()),
    )


def _only(facts: Mapping[str, Iterable[bytes]], name: str) -> str:
    values = tuple(facts.get(name, ()))
    return values[0].decode("ascii", "replace") if len(values) == 1 else ""


def peer_ip(peer: str) -> str:
    """Return the address in C-core's name of a peer; empty where there is none (a Unix socket).

    `ipv4:192.0.2.1:50514` and `ipv6:%5B2001:db8::1%5D:50514` are its forms.
    """
    family, _, rest = unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return ""
    host = rest.rpartition(":")[0].strip("[]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""
