"""What a digest stands for is kept as it was put, recorded, and shown to whom it belongs alone."""

import asyncio
import json
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.records.archive import Archive, document_at
from audit.records.notes import Notes
from meshkit.contract import OPERATORS, Document, Reason, Refusal

RULES = Document("policy.compliance", b'{"name":"default"}')
THEIRS = Document("policy.compliance", b'{"name":"ward"}', ("acme", "globex"))


@asynccontextmanager
async def opened(world, *, bytes_max=1_000):
    async with world.open() as audit:
        yield Archive(world.data / "archive", Notes(audit), document_bytes_max=bytes_max), audit


def puts(world):
    """The `archive.put` events of the log, out of its files."""
    raw = b"".join(
        path.read_bytes()
        for path in sorted((world.log / "tile" / "entries").rglob("*"))
        if path.is_file()
    )
    found, at = {}, 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 2])
        event = json.loads(raw[at + 2 : at + 2 + size])["event"]
        found[event["call_id"]] = event
        at += 2 + size
    return [event for event in found.values() if event["action"] == "archive.put"]


async def reason_of(call):
    with pytest.raises(Refusal) as caught:
        await call
    return caught.value.reason


async def test_what_was_put_is_there_under_its_digest_and_recorded_once(world) -> None:
    async with opened(world) as (archive, _):
        assert await archive.put(RULES, RULES.digest)
        assert not await archive.put(RULES, RULES.digest)
        assert (await archive.get(RULES.digest, "acme")).content == RULES.content

    name = RULES.digest.hex()
    assert (world.data / "archive" / name[:2] / name).read_bytes() == RULES.content
    (event,) = puts(world)
    assert event["detail"] == {
        "bytes": str(len(RULES.content)), "digest": name, "kind": RULES.kind, "owners": "1",
    }  # fmt: skip


async def test_only_its_owners_read_a_document(world) -> None:
    async with opened(world) as (archive, _):
        await archive.put(THEIRS, THEIRS.digest)
        secret = Document("policy.authorization.file", b"who is who", (OPERATORS,))
        await archive.put(secret, secret.digest)

        for tenant in ("acme", "globex"):
            assert (await archive.get(THEIRS.digest, tenant)).content == THEIRS.content
        for digest, tenant in (
            (THEIRS.digest, "initech"),
            (THEIRS.digest, ""),
            (secret.digest, "acme"),
            (bytes(32), "acme"),
        ):
            assert await reason_of(archive.get(digest, tenant)) is Reason.NOT_FOUND
        # Another tenant gets the same policy: one document, one owner more.
        late = Document(THEIRS.kind, THEIRS.content, ("initech",))
        assert await archive.put(late, late.digest)
        assert (await archive.get(THEIRS.digest, "initech")).content == THEIRS.content
        assert (await archive.get(THEIRS.digest, "acme")).content == THEIRS.content


@pytest.mark.parametrize("damage", [b"", b'{"name":"Default"}', RULES.content + b" "])
async def test_a_document_that_was_changed_is_given_to_nobody(world, damage) -> None:
    async with opened(world) as (archive, _):
        await archive.put(RULES, RULES.digest)
        name = RULES.digest.hex()
        (world.data / "archive" / name[:2] / name).write_bytes(damage)

        assert await reason_of(archive.get(RULES.digest, "acme")) is Reason.EVIDENCE_LOST
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        document_at(world.data / "archive", RULES.digest)


async def test_bytes_of_another_digest_are_not_taken(world) -> None:
    async with opened(world) as (archive, _):
        for wrong in (sha256(b"other").digest(), b"", RULES.digest[:-1]):
            assert await reason_of(archive.put(RULES, wrong)) is Reason.INVALID_FIELD
    assert not (world.data / "archive").exists()
    assert puts(world) == []


async def test_a_document_is_not_there_before_its_event_is(world) -> None:
    """And one whose event failed is put again, and recorded then."""
    async with opened(world) as (archive, audit):
        append = audit.append

        async def down(event, *, producer=None):
            raise Refusal(Reason.AUDIT_DOWN)

        audit.append = down
        assert await reason_of(archive.put(RULES, RULES.digest)) is Reason.AUDIT_DOWN
        assert await reason_of(archive.get(RULES.digest, "acme")) is Reason.NOT_FOUND
        audit.append = append
        assert await archive.put(RULES, RULES.digest)
        assert (await archive.get(RULES.digest, "acme")).kind == RULES.kind
    assert len(puts(world)) == 1


async def test_the_same_document_from_everywhere_at_once_is_one(world) -> None:
    async with opened(world) as (archive, _):
        owners = [f"tenant-{number}" for number in range(20)]
        copies = [Document(RULES.kind, RULES.content, (owner,)) for owner in owners]
        await asyncio.gather(*(archive.put(each, each.digest) for each in copies))
        for owner in owners:
            assert (await archive.get(RULES.digest, owner)).content == RULES.content


async def test_what_lies_under_a_digest_is_never_written_over(world) -> None:
    path = world.data / "archive" / RULES.digest.hex()[:2] / RULES.digest.hex()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"somebody was here first")
    async with opened(world) as (archive, _):
        assert await reason_of(archive.put(RULES, RULES.digest)) is Reason.EVIDENCE_LOST
    assert path.read_bytes() == b"somebody was here first"


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=64), st.binary(max_size=64))
def test_a_folder_gives_only_what_hashes_to_the_name(tmp_path_factory, content, found):
    folder = tmp_path_factory.mktemp("archive")
    digest = sha256(content).digest()
    path = folder / digest.hex()[:2] / digest.hex()
    path.parent.mkdir()
    path.write_bytes(found)
    if found == content:
        assert document_at(folder, digest).content == content
    else:
        with pytest.raises(Refusal):
            document_at(folder, digest)
