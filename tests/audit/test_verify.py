"""`sealgate audit verify` and `check`: what an auditor runs, and what it finds."""

import argparse
import json
import random

import pytest

from audit.log.signer import MemorySigner
from audit.witness.keys import WitnessKeys
from meshkit.tlog import decode_bundle, encode_bundle, entry_hashes
from sealgate.cli.audit import add_parser, write_proofs
from tests.audit.logs import write_log
from tests.audit.world import ORIGIN, make_outcome


def run(capsys, *words):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["audit", *map(str, words)])
    code = args.run(args)
    return code, capsys.readouterr().out


@pytest.fixture
async def log(tmp_path):
    """A log of 66,100 entries, so that three levels of tiles exist, written in two rounds."""
    folder = tmp_path / "log"
    signer = MemorySigner(ORIGIN)
    async for _ in write_log(folder, signer, [66_000, 66_100]):
        pass
    (tmp_path / "vkey").write_text(signer.vkey + "\n")
    return folder


def test_a_sound_log_holds(log, tmp_path, capsys):
    older = len(list(log.glob("tile/**/257.p/*"))) + len(list(log.glob("tile/1/001.p/1")))
    code, said = run(capsys, "verify", "--log", log, "--vkey", tmp_path / "vkey")
    assert code == 0
    assert "66100 entries" in said
    code, said = run(capsys, "verify", "--log", log, "--vkey", tmp_path / "vkey", "--json")
    # 259 bundles, 259 + 2 + 1 tiles, the checkpoint, and older partial files.
    assert json.loads(said)["size"] == 66_100
    assert json.loads(said)["files"] == 259 + 262 + 1 + older
    vkey = (tmp_path / "vkey").read_text().strip()
    assert run(capsys, "verify", "--log", log, "--vkey", vkey)[0] == 0


KINDS = [
    ("tile/0/007", 8 * 256, 256),
    ("tile/0/258.p/52", None, None),
    ("tile/1/000", None, None),
    ("tile/1/001.p/2", None, None),
    ("tile/2/000.p/1", None, None),
    ("tile/entries/003", 3 * 256, 256),
    ("tile/entries/258.p/52", 258 * 256, 52),
    ("tile/entries/257.p/208", None, None),  # an older partial bundle
    ("tile/0/257.p/208", None, None),
]


@pytest.mark.parametrize("name", [kind[0] for kind in KINDS])
def test_a_flipped_bit_is_found_and_its_file_named(log, tmp_path, capsys, name):
    rng = random.Random(name)
    path = log / name
    sound = path.read_bytes()
    for _ in range(2):
        data = bytearray(sound)
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        code, said = run(capsys, "verify", "--log", log, "--vkey", tmp_path / "vkey", "--json")
        told = json.loads(said)
        assert (code, told["ok"], told["file"]) == (1, False, name)
        if name.startswith("tile/0/") and told["index"] is not None:
            first = int(name.split("/")[2].split(".")[0]) * 256
            assert told["index"] == first + at // 32
    path.write_bytes(sound)


def test_every_bit_of_the_checkpoint_counts(log, tmp_path, capsys):
    path = log / "checkpoint"
    sound = path.read_bytes()
    rng = random.Random(1)
    for at in rng.sample(range(len(sound)), 40):
        data = bytearray(sound)
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        code, said = run(capsys, "verify", "--log", log, "--vkey", tmp_path / "vkey", "--json")
        assert (code, json.loads(said)["file"]) == (1, "checkpoint")
    path.write_bytes(sound)


def test_swapped_cut_missing_and_foreign_files_are_named(log, tmp_path, capsys):
    def verify():
        return json.loads(
            run(capsys, "verify", "--log", log, "--vkey", tmp_path / "vkey", "--json")[1]
        )

    one, two = log / "tile/entries/001", log / "tile/entries/002"
    kept = one.read_bytes(), two.read_bytes()
    one.write_bytes(kept[1])
    two.write_bytes(kept[0])
    assert verify()["file"] == "tile/entries/001"
    one.write_bytes(kept[0])
    two.write_bytes(kept[1][:-1])
    assert verify()["file"] == "tile/entries/002"
    two.unlink()
    assert verify()["file"] == "tile/entries/002"
    two.write_bytes(kept[1])
    (log / "tile/0/note.txt").write_text("hello")
    assert verify()["file"] == "tile/0/note.txt"
    (log / "tile/0/note.txt").unlink()
    assert verify()["ok"]


def test_an_entry_changed_together_with_its_tile_is_found(log, tmp_path, capsys):
    bundle, tile = log / "tile/entries/009", log / "tile/0/009"
    entries = decode_bundle(bundle.read_bytes(), 256)
    entries[17] = b'{"n":"forged"}'
    bundle.write_bytes(encode_bundle(entries))
    tile.write_bytes(b"".join(entry_hashes(entries)))
    code, said = run(capsys, "verify", "--log", log, "--vkey", tmp_path / "vkey", "--json")
    told = json.loads(said)
    assert (code, told["file"], told["index"]) == (1, "tile/0/009", 9 * 256)


async def test_proof_files_are_checked_offline(world, tmp_path, capsys):
    async with world.open() as audit:
        outcome = await audit.append(make_outcome())
        (path,) = await write_proofs(
            audit, "acme", tmp_path / "proofs", call_id=outcome.receipt.call_id
        )
    code, said = run(capsys, "check", path, "--vkey", world.data / "vkey", "--json")
    told = json.loads(said)
    assert (code, told["index"]) == (0, outcome.index)
    assert json.loads(told["leaf"])["event"]["outcome"] == "released"
    text = path.read_text()
    path.write_text(text.replace("index 1", "index 0"))
    code, said = run(capsys, "check", path, "--vkey", world.data / "vkey")
    assert code == 1
    assert "step 5" in said
    assert run(capsys, "check", tmp_path / "none", "--vkey", world.data / "vkey")[0] == 2


async def test_what_cannot_be_read_speaks_against_no_log(world, tmp_path, capsys):
    """A mistyped name or key is 2, not 1: the auditor must not raise an alarm for it."""
    async with world.open() as audit:
        await audit.append(make_outcome())
    log, vkey = world.data / "log", world.data / "vkey"
    broken = tmp_path / "broken"
    broken.write_text(vkey.read_text().strip()[:-4])
    for words in (
        ("verify", "--log", tmp_path / "none", "--vkey", vkey),
        ("verify", "--log", log, "--vkey", tmp_path / "none"),
        ("verify", "--log", log, "--vkey", broken),
        ("check", world.data / "index.sqlite", "--vkey", vkey),
        ("check", vkey, "--vkey", broken),
    ):
        assert run(capsys, *words)[0] == 2, words
        code, said = run(capsys, *words, "--json")
        assert (code, json.loads(said)["ok"]) == (2, False), words


async def test_a_policy_serves_in_place_of_the_key_and_asks_for_its_quorum(world, tmp_path, capsys):
    async with world.open() as audit:
        outcome = await audit.append(make_outcome())
        (proof,) = await write_proofs(
            audit, "acme", tmp_path / "proofs", call_id=outcome.receipt.call_id
        )
    trusted, strict, empty = world.data / "policy", tmp_path / "strict", tmp_path / "empty"
    witness = WitnessKeys.make(tmp_path / "w", "w.example").vkeys[0]
    strict.write_text(f"log {world.vkey}\nwitness a {witness}\nquorum a\n")
    empty.write_text("quorum none\n")
    for words in (("verify", "--log", world.log), ("check", proof)):
        assert run(capsys, *words, "--policy", trusted)[0] == 0
        code, said = run(capsys, *words, "--policy", strict)
        assert code == 1
        assert "quorum" in said
        for unusable in (empty, proof, tmp_path / "none"):
            assert run(capsys, *words, "--policy", unusable)[0] == 2
        with pytest.raises(SystemExit):
            run(capsys, *words, "--policy", trusted, "--vkey", world.vkey)
