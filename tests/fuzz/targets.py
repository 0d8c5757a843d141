"""What is fuzzed: each reader of a stranger's bytes, with samples, and what it must never accept.

A target's `check` is given bytes. It returns whether they were accepted, and raises AssertionError
if they should not have been; any exception but the reader's own is a crash.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.tlog import (
    BundleInvalid,
    ListHashes,
    NoteInvalid,
    Policy,
    Proof,
    ProofInvalid,
    bundle_path,
    check_proof,
    check_signatures,
    decode_bundle,
    encode_bundle,
    format_proof,
    inclusion_proof,
    is_consistent,
    is_included,
    judge_checkpoint,
    leaf_hash,
    open_note,
    parse_add_checkpoint,
    parse_checkpoint,
    parse_signature_lines,
    parse_size,
    parse_tile_path,
    tile_path,
)
from tests.audit.witness_world import MemoryLog
from tests.tlog.vectors import TIME, keys_of

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = MemoryLog()
FORK = LOG.forked_at(3)
ONE, TWO = keys_of(1), keys_of(2)
SIZES = (1, 2, 7, 33, 64, 65)


@dataclass(frozen=True)
class Target:
    name: str
    samples: list[bytes]
    check: "Callable[[bytes], bool]"


def policy_text(quorum="both"):
    return (
        f"# trust\nlog {LOG.vkey}\nwitness a {ONE.vkeys[0]} https://a.example\n"
        f"witness b {TWO.vkeys[1]}\ngroup both all a b\nquorum {quorum}\n"
    )


POLICY = Policy.parse(policy_text().encode())
NOTES = {
    size: LOG.note(size) + ONE.cosign(LOG.text(size), TIME) + TWO.cosign(LOG.text(size), TIME)
    for size in SIZES
}
SIGNED = {LOG.text(size) for size in SIZES}


def text_of(data):
    """As a service would read it; what is no UTF-8 is refused before."""
    return data.decode(errors="surrogateescape")


def note(data):
    try:
        text = open_note(text_of(data), LOG.vkey)
    except NoteInvalid:
        return False
    assert text in SIGNED
    return True


def checkpoint(data):
    try:
        judged = judge_checkpoint(text_of(data), POLICY)
    except NoteInvalid:
        return False
    assert judged.checkpoint.root == LOG.root(judged.checkpoint.size)
    assert judged.quorum == ({"a", "b"} <= set(judged.cosigned))
    assert set(judged.cosigned.values()) <= {TIME}
    return True


def cosignature(data):
    """Signature lines about one checkpoint, as a witness answers."""
    text = LOG.text(33)
    try:
        found = check_signatures(text, parse_signature_lines(data, text), (*ONE.vkeys, *TWO.vkeys))
    except NoteInvalid:
        return False
    assert all(int.from_bytes(blob[:8]) == TIME for _, blob in found)
    return bool(found)


def policy(data):
    try:
        found = Policy.parse(data)
    except NoteInvalid:
        return False
    assert found.holds([]) == (found.quorum == "none")
    assert found.holds([witness.name for witness in found.witnesses])
    again = found.text().encode(errors="surrogateescape")
    assert Policy.parse(again) == found
    return True


def add_checkpoint(data):
    """What a witness that cosigned size 7 would cosign now."""
    try:
        asked = parse_add_checkpoint(data)
        signed = bool(check_signatures(asked.text, asked.signatures, [LOG.vkey]))
    except NoteInvalid:
        return False
    if not signed or asked.old != 7 or asked.size < 7:
        return False
    if not is_consistent(
        old=7, old_root=LOG.root(7), new=asked.size, new_root=asked.root, proof=asked.proof
    ):
        return False
    assert asked.root == LOG.root(asked.size)
    assert asked.proof == LOG.proof(7, asked.size)
    return True


LEAVES = [b"%d" % number for number in range(600)]


def proof(data):
    try:
        found = check_proof(text_of(data), POLICY if data[-1:] == b"!" else str(LOG.vkey))
    except ProofInvalid:
        return False
    assert found.leaf == LEAVES[found.index]
    return True


def raw_proof(data):
    """Hashes alone: a count of them, index and size in the first bytes."""
    if len(data) < 4:
        return False
    index, size = data[0] % 65, max(data[1], 1)
    hashes = [data[at : at + 32] for at in range(4, len(data), 32)]
    size = min(size, 600)
    if index >= size:
        return False
    accepted = is_included(
        LOG.leaves[data[2]], index=index, size=size, proof=hashes, root=LOG.root(65)
    )
    assert not accepted or (data[2] == index and size <= 128)
    return accepted


def tile(data):
    path = text_of(data)
    found = parse_tile_path(path)
    if found is None:
        return False
    kind, number, width = found
    again = bundle_path(number, width) if kind == "entries" else tile_path(int(kind), number, width)
    assert again == path
    assert 1 <= width <= 256
    return True


def bundle(data):
    """The width is the last byte, so that it is fuzzed, too."""
    width = data[-1] if data else 0
    try:
        entries = decode_bundle(data[:-1], width)
    except BundleInvalid:
        return False
    assert encode_bundle(entries) == data[:-1]
    assert len(entries) == width
    return True


def size(data):
    try:
        found = parse_size(data)
    except NoteInvalid:
        return False
    assert data == b"%d\n" % found
    return True


def targets():
    """Return all of them, with their samples."""
    proofs = [
        format_proof(
            Proof(
                leaf=LEAVES[index],
                index=index,
                hashes=inclusion_proof(ListHashes(LOG.leaves), index, size),
                checkpoint=parse_checkpoint(LOG.note(size)),
            )
        ).encode()
        for size in SIZES
        for index in (0, size - 1)
    ]
    raw = [
        bytes([index, 65, index, 0]) + b"".join(inclusion_proof(ListHashes(LOG.leaves), index, 65))
        for index in (0, 1, 31, 63, 64)
    ]
    requests = [log.request(old, new) for log in (LOG, FORK) for old in (0, 7) for new in (7, 65)]
    answers = [keys.cosign(LOG.text(33), TIME).encode() for keys in (ONE, TWO)]
    classic = [line.splitlines(keepends=True)[0].encode() for line in map(bytes.decode, answers)]
    paths = ["tile/0/000", "tile/entries/x001/x234/067.p/255", "tile/63/999.p/1", "tile/1/x001/000"]
    return [
        Target("note", [LOG.note(size).encode() for size in SIZES], note),
        Target("checkpoint", [NOTES[size].encode() for size in SIZES], checkpoint),
        Target("cosignature", [*answers, *classic], cosignature),
        Target(
            "policy",
            [policy_text(name).encode() for name in ("both", "a", "none")] + [b"quorum none\n"],
            policy,
        ),
        Target("add-checkpoint", requests, add_checkpoint),
        Target("proof", proofs, proof),
        Target("raw proof", raw, raw_proof),
        Target("tile path", [path.encode() for path in paths], tile),
        Target(
            "bundle",
            [encode_bundle(LEAVES[:width]) + bytes([width]) for width in (1, 3, 200)] + [b"\0"],
            bundle,
        ),
        Target("size", [b"0\n", b"20852014\n", b"9223372036854775807\n"], size),
    ]


assert leaf_hash(LEAVES[5]) == LOG.leaves[5]
