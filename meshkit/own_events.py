"""What every service tells of itself: that it started and stopped, that its Cedar set changed."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from meshkit.policy_files import ENTITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshkit.authorization import Authorizer, Policies
    from meshkit.journal import Journal
    from meshkit.tls import CertificateHolder

__all__ = ["policies_noted", "service_noted"]


@contextmanager
def service_noted(
    book: Journal,
    service: str,
    *,
    certificate: CertificateHolder | None = None,
) -> Iterator[None]:
    """Tell that a service starts, and when the block is left that it stops.

    Args:
        book: Where it is told.
        service: Its name, as in its SPIFFE id.
        certificate: Its serial is told; None: it has none of its own.
    """
    told = {"service": service, "version": _version()}
    if certificate is not None:
        told["certificate"] = f"{certificate.certificate.serial:x}"
    book.note("service.start", detail=told)
    try:
        yield
    finally:
        book.note("service.stop", detail={"service": service, "version": told["version"]})


@contextmanager
def policies_noted(book: Journal, authorizer: Authorizer) -> Iterator[None]:
    """Archive the Cedar set in force, and tell of each that takes its place.

    What may be done is `policy.change`; who has which role is `permission.change`.
    """

    def changed(old: Policies, new: Policies) -> None:
        book.keep(*new.documents)
        told = {"kind": "authorization", "old": old.digest.hex(), "new": new.digest.hex()}
        if old.rules != new.rules:
            book.note("policy.change", detail=told)
        if old.files[ENTITIES] != new.files[ENTITIES]:
            names = {
                "old_entities": sha256(old.files[ENTITIES]).hexdigest(),
                "new_entities": sha256(new.files[ENTITIES]).hexdigest(),
            }
            book.note("permission.change", detail=told | names)

    book.keep(*authorizer.policies.documents)
    in_force = {"kind": "authorization", "digest": authorizer.digest.hex()}
    book.note("policy.load", detail=in_force)
    authorizer.listeners.append(changed)
    try:
        yield
    finally:
        authorizer.listeners.remove(changed)


def _version() -> str:
    with suppress(PackageNotFoundError):
        return version("sealgate")
    return "unknown"
