"""Who is at the browser: by certificate, or by what an OpenID provider says of a person.

    certificate   spiffe://<trust-domain>/tenant/<tenant>/<workload>; roles stand in the policies
    provider      a user behind the workload `OidcSettings.workload` of the tenant that the token
                  names; roles are those of the token that the tenant's `user_roles` allow

Either way the policies decide at each request anew, so that a role taken away counts at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography import x509

from meshkit.authorization import Request
from meshkit.contract import Actor, Reason, Refusal
from meshkit.identity import SPIFFE_ID_BYTES_MAX, TenantIdentity, is_label, parse_spiffe_id

if TYPE_CHECKING:
    import ssl

    from meshkit.authorization import Authorizer

__all__ = ["ENTRY", "Shown", "actor_now", "may_enter", "person_of", "shown_by", "workload_of"]

ENTRY = (
    *("audit.read", "payload.read", "payload.export", "payload.erase"),
    *("hold.set", "hold.release", "hold.list"),
)
"""Who may do one of these has something to do here."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate that a browser showed in the handshake."""

    uris: tuple[str, ...]
    thumbprint: bytes
    ends_s: float


def shown_by(connection: ssl.SSLObject | None) -> Shown | None:
    """Read a connection's certificate, which the handshake has verified; None if there is none."""
    der = None if connection is None else connection.getpeercert(binary_form=True)
    if not der:
        return None
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound):
        return None
    uris = tuple(names.value.get_values_for_type(x509.UniformResourceIdentifier))
    return Shown(uris, sha256(der).digest(), certificate.not_valid_after_utc.timestamp())


def workload_of(shown: Shown, *, trust_domain: str) -> Actor:
    """Tell which tenant's workload a certificate names; without roles yet.

    Raises:
        Refusal: UNAUTHENTICATED, if not exactly one URI stands in it, or it is no id of ours;
            DENIED, if it is a service's: services do not read.
    """
    if len(shown.uris) != 1 or len(shown.uris[0]) > SPIFFE_ID_BYTES_MAX:
        raise Refusal(Reason.UNAUTHENTICATED)
    identity = parse_spiffe_id(shown.uris[0], trust_domain=trust_domain)
    if not isinstance(identity, TenantIdentity):
        raise Refusal(Reason.DENIED)
    return Actor(spiffe_id=identity.spiffe_id, tenant=identity.tenant, workload=identity.workload)


def person_of(tenant: object, subject: str, *, workload: str, trust_domain: str) -> Actor:
    """Tell who a provider's token names; without roles yet.

    Raises:
        Refusal: UNAUTHENTICATED, if the tenant claim is no tenant's name.
    """
    if not isinstance(tenant, str) or not is_label(tenant):
        raise Refusal(Reason.UNAUTHENTICATED)
    identity = TenantIdentity(trust_domain, tenant, workload)
    return Actor(spiffe_id=identity.spiffe_id, tenant=tenant, workload=workload, user=subject)


def actor_now(actor: Actor, claimed: frozenset[str], authorizer: Authorizer) -> Actor:
    """Give somebody the roles that the policies allow at this moment.

    Args:
        actor: As `workload_of` or `person_of` returned.
        claimed: Roles that a person's token claims.
        authorizer: Knows the policies in force.
    """
    roles = (
        authorizer.roles_of(actor.spiffe_id)
        if actor.user is None
        else authorizer.user_roles(actor.tenant, claimed)
    )
    return Actor(
        spiffe_id=actor.spiffe_id,
        tenant=actor.tenant,
        workload=actor.workload,
        user=actor.user,
        roles=roles,
    )


def may_enter(actor: Actor, peer_ip: str, authorizer: Authorizer) -> bool:
    """Whether the policies let somebody do anything that the console is for."""
    return any(
        authorizer.decide(
            Request(actor=actor, action=action, tenant=actor.tenant, peer_ip=peer_ip)
        ).allowed
        for action in ENTRY
    )
