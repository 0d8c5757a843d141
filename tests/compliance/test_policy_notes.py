"""Each policy in force is archived for those whose text it judges, and a change of them is told."""

from hashlib import sha256

import pytest

from compliance.policy import default_policy
from compliance.policy_library import Book
from compliance.policy_notes import compliance_noted, documents_of


class Store:
    """The part of a policy store that is needed: a set, and who hears of another."""

    def __init__(self, book):
        self.book, self.listeners = book, []


class Journal:
    """What a journal is told."""

    def __init__(self):
        self.notes, self.documents = [], []

    def note(self, action, *, detail):
        self.notes.append((action, detail))

    def keep(self, *documents):
        self.documents += documents


@pytest.fixture
def book():
    default = default_policy()
    own = type(default)(default.file.model_copy(update={"name": "ward"}))
    unused = type(default)(default.file.model_copy(update={"name": "draft"}))
    return Book(
        policies={"default": default, "ward": own, "draft": unused},
        tenants={"acme": "ward", "globex": "ward", "initech": "default"},
        default="default",
    )


def test_a_policy_is_its_tenants_own_and_the_default_everybodys(book) -> None:
    kept = {each.digest: each for each in documents_of(book)}

    assert set(kept) == {book.policies["default"].digest, book.policies["ward"].digest}
    assert kept[book.of("initech").digest].owners == ()
    assert kept[book.of("acme").digest].owners == ("acme", "globex")
    assert all(sha256(each.content).digest() == digest for digest, each in kept.items())


def test_what_is_in_force_and_each_change_are_told(book) -> None:
    journal, store = Journal(), Store(book)
    other = Book(policies=book.policies, tenants={}, default="ward")
    with compliance_noted(journal, store):
        store.listeners[0](book, other)

    (loaded, first), (changed, then) = journal.notes
    assert (loaded, first["digest"]) == ("policy.load", book.digest.hex())
    assert changed == "policy.change"
    assert (then["old"], then["new"]) == (book.digest.hex(), other.digest.hex())
    assert store.listeners == []
