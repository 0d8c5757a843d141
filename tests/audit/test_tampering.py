"""Whatever is changed in a log's files, the verifier names the file, and the entry where one is."""

import asyncio
import random

import pytest

from audit.log.publisher import signed_note
from audit.log.signer import MemorySigner
from meshkit.tlog import checkpoint_text, decode_bundle, encode_bundle, entry_hashes
from tests.audit.tampering import SMALL, flips, made
from tests.audit.world import ORIGIN


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return asyncio.run(made(tmp_path_factory.mktemp("log"), SMALL))


@pytest.fixture(autouse=True)
def _healed(log):
    log.heal()


def test_sixty_flipped_bits_are_found_and_named(log):
    found = flips(log, 60, random.Random(11))
    assert found.total() == 60
    assert len(found) == len(log.kinds()) >= 8


def current(log):
    return [path for path in log.sound if path != "checkpoint" and log.current(path)]


def test_a_deleted_file_is_named(log):
    for path in [*current(log), "checkpoint"]:
        del log.files[path]
        assert log.verify().path == path
        log.heal()


def test_an_older_partial_file_may_go(log):
    older = [path for path in log.sound if not log.current(path)]
    assert older
    for path in older:
        del log.files[path]
    assert log.verify() is None


def test_a_truncated_or_longer_file_is_named(log):
    for path, data in log.sound.items():
        for harmed in (b"", data[: len(data) // 2], data[:-1], data + b"\0", data + data[-32:]):
            log.files[path] = harmed
            assert log.verify().path == path, (path, len(harmed))
        log.heal()


def test_two_entries_that_changed_places_are_found(log):
    rng = random.Random(2)
    for path in ("tile/entries/000", "tile/entries/001", "tile/entries/002.p/188"):
        width = 188 if ".p/" in path else 256
        entries = decode_bundle(log.sound[path], width)
        for _ in range(5):
            one, two = sorted(rng.sample(range(width), 2))
            entries[one], entries[two] = entries[two], entries[one]
            log.files[path] = encode_bundle(entries)
            bad = log.verify()
            assert (bad.path, bad.index) == (path, int(path.split("/")[2][:3]) * 256 + one)
            entries[one], entries[two] = entries[two], entries[one]
        log.heal()


def test_entries_that_changed_places_together_with_their_hashes_are_found(log):
    """The forger rewrites bundle and tile: what is above speaks against both."""
    for number, tile in ((0, "tile/0/000"), (2, "tile/0/002.p/188")):
        width = 188 if ".p/" in tile else 256
        bundle = tile.replace("/0/", "/entries/")
        entries = decode_bundle(log.sound[bundle], width)
        entries[3], entries[9] = entries[9], entries[3]
        log.files[bundle] = encode_bundle(entries)
        log.files[tile] = b"".join(entry_hashes(entries))
        bad = log.verify()
        if width == 256:
            assert (bad.path, bad.index) == (tile, number * 256)
        else:  # the checkpoint alone speaks against a right edge that fits itself
            assert (bad.step, bad.path) == (5, "checkpoint")
        log.heal()


@pytest.mark.parametrize("kind", ["tile/0/00{}", "tile/entries/00{}"])
def test_files_in_another_order_are_found(log, kind):
    one, two = kind.format(0), kind.format(1)
    log.files[one], log.files[two] = log.sound[two], log.sound[one]
    assert log.verify().path == one


def test_tiles_and_bundles_in_another_order_together_are_found(log):
    for kind in ("tile/0/00{}", "tile/entries/00{}"):
        one, two = kind.format(0), kind.format(1)
        log.files[one], log.files[two] = log.sound[two], log.sound[one]
    bad = log.verify()
    assert (bad.path, bad.index) == ("tile/0/000", 0)


async def test_a_whole_other_log_under_another_key_is_found(log, tmp_path):
    """A forger with a key of his own rewrites everything: the vkey speaks against it."""
    other = await made(tmp_path, SMALL)
    log.files = other.sound
    assert log.verify().path == "checkpoint"


async def test_one_leaf_that_is_not_the_one_logged_convicts_the_log(log):
    """CT's Yeti 2022: one entry, one wrong leaf hash, signed over. No proof of it can be made."""
    entries = decode_bundle(log.sound["tile/entries/001"], 256)
    row = entry_hashes(entries)
    row[44] = entry_hashes([b"cosmic ray"])[0]
    log.files["tile/0/001"] = b"".join(row)
    bad = log.verify()
    assert (bad.path, bad.index) == ("tile/0/001", 256 + 44)


async def test_the_logs_own_key_cannot_vouch_for_another_tree(log, tmp_path):
    """The log itself lies: a checkpoint that its own key signed, over a root of nothing."""
    signer = MemorySigner(ORIGIN)
    mine = await made(tmp_path, SMALL)
    mine.vkey = signer.vkey
    note = await signed_note(signer, checkpoint_text(ORIGIN, 700, bytes(32)))
    mine.files["checkpoint"] = note.encode()
    bad = mine.verify()
    assert (bad.step, bad.path) == (5, "checkpoint")
