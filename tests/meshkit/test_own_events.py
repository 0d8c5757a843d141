"""A changed set of Cedar policies is an event, and what its digest stands for is archived."""

import json
from contextlib import contextmanager
from hashlib import sha256

import pytest

from meshkit.authorization import Authorizer
from meshkit.contract import OPERATORS
from meshkit.own_events import policies_noted, service_noted
from meshkit.policies import FOLDER


class Book:
    """What a journal is told."""

    def __init__(self):
        self.notes, self.documents = [], []

    def note(self, action, *, detail):
        self.notes.append((action, detail))

    def keep(self, *documents):
        self.documents += documents


@pytest.fixture
def folder(tmp_path):
    for each in FOLDER.iterdir():
        if each.suffix in {".cedar", ".cedarschema", ".json"}:
            (tmp_path / each.name).write_bytes(each.read_bytes())
    return tmp_path


@contextmanager
def noted(folder):
    book, authorizer = Book(), Authorizer(folder)
    with policies_noted(book, authorizer):
        yield book, authorizer


def test_the_set_in_force_can_be_opened_file_by_file(folder) -> None:
    with noted(folder) as (book, authorizer):
        whole, *files = book.documents

    assert whole.digest == authorizer.digest
    named = json.loads(whole.content)["files"]
    assert {each.digest.hex() for each in files} <= set(named.values())
    assert named["entities.json"] == sha256((folder / "entities.json").read_bytes()).hexdigest()
    # Who is who in all tenants is no tenant's to read; the rules are everybody's.
    hidden = [each.content for each in files if each.owners == (OPERATORS,)]
    assert hidden == [(folder / "entities.json").read_bytes()]
    assert whole.owners == ()


@pytest.mark.parametrize(
    ("name", "action"), [("base.cedar", "policy.change"), ("entities.json", "permission.change")]
)
def test_a_change_is_told_with_both_digests(folder, name, action) -> None:
    with noted(folder) as (book, authorizer):
        old = authorizer.digest
        (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
        assert authorizer.reload()
        _, (told, detail) = book.notes

        assert told == action
        assert (detail["old"], detail["new"]) == (old.hex(), authorizer.digest.hex())
        assert authorizer.digest in {each.digest for each in book.documents}
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    assert authorizer.reload()
    assert len(book.notes) == 2  # the block is left: nobody listens any more


def test_a_bad_set_changes_nothing_and_tells_nothing(folder) -> None:
    with noted(folder) as (book, authorizer):
        (folder / "base.cedar").write_text("permit (")
        assert not authorizer.reload()
    assert [action for action, _ in book.notes] == ["policy.load"]


def test_a_service_tells_that_it_starts_and_stops() -> None:
    book = Book()
    with service_noted(book, "cache"):
        assert [action for action, _ in book.notes] == ["service.start"]
    assert [action for action, _ in book.notes] == ["service.start", "service.stop"]
    assert all(detail["service"] == "cache" and detail["version"] for _, detail in book.notes)
