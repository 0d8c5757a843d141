"""`verify` finds what a load would, and what it would not look at."""

from dataclasses import replace
from pathlib import Path

import pytest

from inference.store.checking import check_model, check_store
from inference.store.errors import Fault, ModelFileError
from inference.store.signing import to_be_signed
from tests.inference.store_world import CLAIM, NAME, World, a_folder, gguf, world_in


@pytest.fixture
def world(tmp_path: Path) -> World:
    return world_in(tmp_path)


def checked(world: World, version: str | None = None, **rules: object):
    return check_model(world.store(**rules), NAME, version)


@pytest.mark.parametrize("seal", [False, True])
def test_a_sound_model_holds(world, seal) -> None:
    manifest = world.added(seal=seal)
    found = checked(world)

    assert found.holds
    assert (found.digest, found.sealed) == (manifest.digest.hex(), seal)
    assert (found.manifest, found.signature, found.files, found.content) == ("ok",) * 4


def test_each_thing_that_is_wrong_is_told(world) -> None:
    world.added(sign=False)
    assert checked(world).signature == "unsigned"
    world.changer().sign(NAME)
    path = world.home() / "files" / "model.gguf"
    path.write_bytes(gguf()[:-1] + b"\1")
    assert (checked(world).files, checked(world).holds) == ("digest", False)
    path.write_bytes(gguf())
    (path.parent / "more.gguf").write_bytes(gguf())
    assert (checked(world).extra, checked(world).holds) == (1, False)
    (path.parent / "more.gguf").unlink()
    assert checked(world).holds
    (world.home() / "manifest.json").write_bytes(b"{")
    found = checked(world, "1")
    assert (found.manifest, found.signature, found.holds) == ("manifest", "unknown", False)
    with pytest.raises(ModelFileError) as caught:
        checked(world, "9")
    assert caught.value.fault is Fault.NOT_FOUND


def test_a_manifest_that_lies_is_found_out_although_it_is_signed(world) -> None:
    """Whoever signs may have been wrong: what the files say of themselves is read again."""
    honest = world.added()
    for change, fault in (
        ({"template_sha256": "00" * 32}, "template"),
        ({"tokenizer_sha256": "00" * 32}, "tokenizer"),
        ({"architecture": "qwen2"}, "architecture"),
        ({"context_tokens": 65}, "context"),
    ):
        lie = replace(honest, **change)
        (world.home() / "manifest.json").write_bytes(lie.canonical())
        signature = world.keys.sign(to_be_signed(lie))
        (world.home() / "signature.json").write_bytes(signature.text())
        found = checked(world)
        assert (found.signature, found.files, found.content) == ("ok", "ok", fault)
        assert not found.holds


def test_without_keys_what_needs_them_does_not_hold(world) -> None:
    world.added(seal=True)
    world.keys.away = True
    found = checked(world)

    assert (found.signature, found.files, found.content) == ("keys_down", "keys_down", "unknown")
    assert not found.holds


def test_plain_copies_beside_sealed_ones_are_told(world) -> None:
    world.added(seal=True)
    (world.home() / "files").mkdir()
    (world.home() / "files" / "model.gguf").write_bytes(gguf())

    assert checked(world).extra == 1


def test_all_of_a_store_is_checked(world) -> None:
    world.added()
    claim = replace(CLAIM, name="other", context_tokens=None)
    world.changer().add(a_folder(world.top / "from"), claim)
    (world.home() / "files" / "model.gguf").unlink()

    found = {(one.name, one.version): one for one in check_store(world.store())}
    assert set(found) == {(NAME, "1"), ("other", "1")}, "packaged ones that were not fetched: not"
    assert found[NAME, "1"].files == "unreadable"
    assert (found["other", "1"].signature, found["other", "1"].content) == ("unsigned", "ok")
