"""What the record needs of policies: each one in force, by its digest, and every change of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from compliance.policy import SHIPPED
from meshkit.contract import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compliance.policy_library import Book
    from compliance.policy_store import PolicyStore
    from meshkit.journal import Journal

__all__ = ["compliance_noted", "documents_of"]


def documents_of(book: Book) -> Iterator[Document]:
    """Each policy that judges anybody's text: its canonical form, whose SHA-256 its digest is.

    One that ships with Sealgate, or judges every tenant that is not named, may be read by all; any
    other by its tenants alone.
    """
    for name, policy in book.policies.items():
        if name == book.default or name in SHIPPED:
            yield Document("policy.compliance", policy.canonical())
        elif owners := sorted(who for who, whose in book.tenants.items() if whose == name):
            yield Document("policy.compliance", policy.canonical(), tuple(owners))


@contextmanager
def compliance_noted(journal: Journal, policies: PolicyStore) -> Iterator[None]:
    """Archive the policies in force, and tell of each set that takes their place."""

    def changed(old: Book, new: Book) -> None:
        journal.keep(*documents_of(new))
        told = {"kind": "compliance", "old": old.digest.hex(), "new": new.digest.hex()}
        journal.note("policy.change", detail=told | {"policies": str(len(new.policies))})

    book = policies.book
    journal.keep(*documents_of(book))
    in_force = {"kind": "compliance", "digest": book.digest.hex()}
    journal.note("policy.load", detail=in_force | {"policies": str(len(book.policies))})
    policies.listeners.append(changed)
    try:
        yield
    finally:
        policies.listeners.remove(changed)
