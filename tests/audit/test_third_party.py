"""Our logs, verified by code that is not ours.

Go's golang.org/x/mod/sumdb (Debian packages), all of each log; and tlog-scales from PyPI, another
author's reading of the same specifications: signature, root, entries, both kinds of proof.
"""

import os
import random
import subprocess

import pytest
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey

from audit.log.signer import MemorySigner
from meshkit.tlog import (
    EMPTY_ROOT,
    check_log,
    consistency_proof,
    inclusion_proof,
    is_included,
    leaf_hash,
)
from meshkit.tlog import TileHashes as Tiles
from tests.audit.go_verifier import built
from tests.audit.logs import write_log
from tests.audit.world import ORIGIN, make_outcome

ROUNDS = int(os.environ.get("TLOG_RANDOM_SIZES", "4"))
"""Random sizes besides those named; `make chaos` asks for more."""
SIZES = [0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537]


@pytest.fixture(scope="session")
def go_verify(tmp_path_factory):
    folder = tmp_path_factory.mktemp("go")
    program = built(folder)

    def verify(log, vkey):
        (folder / "vkey").write_text(vkey)
        done = subprocess.run(
            [program, log, folder / "vkey"], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    return verify


def reader(folder):
    return lambda path: (folder / path).read_bytes() if (folder / path).exists() else None


def scaled(folder, vkey, rng, before):
    """What tlog-scales makes of a log: (size, root), once its own checks of it hold."""
    theirs = TilesReader(LocalBackend(folder))
    checkpoint = theirs.get_checkpoint()
    checkpoint.verify(Vkey.from_string(vkey))
    size, root = checkpoint.size, theirs.calculate_root_hash()
    assert root == checkpoint.root_hash
    for index in {0, size - 1, *(rng.randrange(size) for _ in range(3))} if size else ():
        leaf = leaf_hash(theirs.get_entry(index))
        theirs.get_inclusion_proof(index, size).check(leaf, root)
    if before is not None and before[0]:
        theirs.get_consistency_proof(before[0], size).check(before[1], root)
    return size, root


async def test_three_verifiers_agree_at_every_size(tmp_path, go_verify):
    rng = random.Random(7)
    sizes = sorted({*SIZES, *(rng.randrange(1, 70_000) for _ in range(ROUNDS))})
    signer, before = MemorySigner(ORIGIN), None
    async for store in write_log(tmp_path, signer, sizes):
        size, root = store.published.size, store.published.root
        assert go_verify(tmp_path, signer.vkey) == f"OK {size}"
        assert scaled(tmp_path, signer.vkey, rng, before) == (size, root)
        checked = check_log(reader(tmp_path), signer.vkey)
        assert (checked.size, checked.root) == (size, root)
        before = size, root
    assert size >= 65_537


async def test_proofs_are_those_that_the_other_library_makes(tmp_path):
    rng = random.Random(8)
    signer = MemorySigner(ORIGIN)
    async for store in write_log(tmp_path, signer, [1, 2, 255, 257, 700, 1_500]):
        size = store.published.size
        ours, theirs = Tiles(store, size), TilesReader(LocalBackend(tmp_path))
        theirs.set_size(size)
        for _ in range(20):
            index, old = rng.randrange(size), rng.randrange(1, size + 1)
            found = theirs.get_inclusion_proof(index, size).node_hashes
            assert inclusion_proof(ours, index, size) == tuple(found)
            found = theirs.get_consistency_proof(old, size).node_hashes
            assert consistency_proof(ours, old, size) == tuple(found)


async def test_an_empty_log_has_the_root_of_rfc_6962(tmp_path):
    async for store in write_log(tmp_path, MemorySigner(ORIGIN), [0]):
        assert store.published.root == EMPTY_ROOT


async def test_go_verifies_what_the_service_wrote(world, go_verify):
    for count in (1, 254, 300):
        async with world.open() as audit:
            await audit.append_many([make_outcome() for _ in range(count)])
        size = int((world.log / "checkpoint").read_text().split("\n")[1])
        assert go_verify(world.log, world.vkey) == f"OK {size}"


async def test_go_and_we_find_the_same_tampering(tmp_path, go_verify):
    signer = MemorySigner(ORIGIN)
    async for _ in write_log(tmp_path, signer, [700]):
        pass
    for name in (
        "checkpoint",
        "tile/0/001",
        "tile/0/002.p/188",
        "tile/entries/000",
        "tile/1/000.p/2",
    ):
        path = tmp_path / name
        sound = path.read_bytes()
        path.write_bytes(sound[:40] + bytes([sound[40] ^ 1]) + sound[41:])
        assert go_verify(tmp_path, signer.vkey).startswith("BAD"), name
        path.write_bytes(sound)
    other = MemorySigner(ORIGIN)
    assert go_verify(tmp_path, other.vkey).startswith("BAD")
    assert go_verify(tmp_path, signer.vkey) == "OK 700"


async def test_old_sizes_are_proven_from_todays_tiles(tmp_path):
    signer = MemorySigner(ORIGIN)
    roots = {}
    async for store in write_log(tmp_path, signer, [1, 100, 256, 300, 512, 1_500]):
        roots[store.published.size] = store.published.root
    tiles = Tiles(store, 1_500)
    for size, root in roots.items():
        for index in {0, size // 2, size - 1}:
            leaf = leaf_hash(store.entries(index, index + 1)[0])
            proof = inclusion_proof(tiles, index, size)
            assert is_included(leaf, index=index, size=size, proof=proof, root=root)
