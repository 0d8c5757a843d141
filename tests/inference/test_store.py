"""A model is opened only if it is the one that somebody vouched for, whole, and allowed here."""

import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inference.store.checking import check_model
from inference.store.errors import Fault, ModelFileError
from inference.store.manifest import Manifest
from inference.store.private import private_folder
from inference.store.rules import Rules
from inference.store.signing import ModelSignature, to_be_signed
from inference.store.store import ModelStore, packaged_manifests, version_order
from meshkit.contract import Reason, Refusal
from meshkit.sealing import OVERHEAD_BYTES
from tests.inference.store_world import CLAIM, NAME, World, gguf, world_in


@pytest.fixture
def world(tmp_path: Path) -> World:
    return world_in(tmp_path)


def refused(world: World, version: str = "1", **rules: object) -> Fault | None:
    """Open a model that must be refused; nothing of it may be left behind."""
    with pytest.raises(ModelFileError) as caught:
        world.store(**rules).open(NAME, version)
    assert str(caught.value) == caught.value.fault
    assert list(world.plain.glob("sealgate-models-*/open-*")) == []
    return caught.value.fault


def test_what_was_added_is_what_is_opened(world) -> None:
    manifest = world.added()

    with world.store().open(NAME) as opened:
        assert opened.manifest == manifest
        assert opened.path("model.gguf").read_bytes() == gguf()
        assert opened.path("model.gguf").suffix == ".gguf"
        assert opened.path("model.gguf").stat().st_size == manifest.files[0].bytes
        with pytest.raises(ModelFileError):
            opened.path("other.gguf")
        path = opened.path("model.gguf")
    assert not path.exists()
    assert (manifest.architecture, manifest.context_tokens, manifest.format) == (
        "llama",
        64,
        "gguf",
    )


def test_the_newest_version_is_opened_by_number(world) -> None:
    for version in ("10", "9", None):
        world.changer().add(world.source(), replace(CLAIM, version=version))

    listed = [one.version for one in world.store().manifests() if one.name == NAME]
    assert listed == ["9", "10", "11"]
    with world.store(signed="off").open(NAME) as opened:
        assert opened.manifest.version == "11"
    versions = ["2", "10", "1", "1.2", "1.10", "rc1"]
    assert sorted(versions, key=version_order) == ["1", "1.2", "1.10", "2", "10", "rc1"]


def test_a_name_that_is_not_there_is_not_found(world) -> None:
    for name, version in ((NAME, None), (NAME, "1"), ("../x", None), ("..", "1"), (NAME, "../1")):
        with pytest.raises(ModelFileError) as caught:
            world.store().open(name, version)
        assert caught.value.fault is Fault.NOT_FOUND
    assert world.still_works()


# --- whose word it is -----------------------------------------------------------------------


def test_an_unsigned_model_is_refused_unless_told_otherwise(world) -> None:
    world.added(sign=False)

    assert refused(world) is Fault.UNSIGNED
    assert refused(world, signed="required") is Fault.UNSIGNED
    world.store(signed="off").open(NAME).close()
    assert world.still_works()


def test_a_signature_of_another_key_is_refused(world) -> None:
    manifest = world.added()
    path = world.home() / "signature.json"
    other = Ed25519PrivateKey.generate().sign(to_be_signed(manifest))

    path.write_bytes(ModelSignature(1, other).text())
    assert refused(world) is Fault.SIGNATURE
    path.write_bytes(world.keys.sign(manifest.canonical()).text())  # made for something else
    assert refused(world) is Fault.SIGNATURE
    path.write_bytes(replace(world.keys.sign(to_be_signed(manifest)), version=2).text())
    assert refused(world) is Fault.SIGNATURE
    for junk in (b"", b"[]", b"{}", b"\xff", path.read_bytes().replace(b"v1", b"v2")):
        path.write_bytes(junk)
        assert refused(world) is Fault.SIGNATURE
    assert world.still_works()


def test_a_manifest_that_was_changed_after_signing_is_refused(world) -> None:
    manifest = world.added()
    path = world.home() / "manifest.json"

    path.write_bytes(replace(manifest, default_system="Be rude.").canonical())
    assert refused(world) is Fault.SIGNATURE
    path.write_bytes(replace(manifest, name="other").canonical())
    assert refused(world) is Fault.MISPLACED
    path.write_bytes(replace(manifest, version="7").canonical())
    assert refused(world) is Fault.MISPLACED
    path.write_bytes(manifest.canonical() + b"\n")
    assert refused(world) is Fault.MISPLACED
    path.write_bytes(b"{}")
    assert refused(world) is Fault.MANIFEST
    path.write_bytes(manifest.canonical())
    world.store().open(NAME).close()


def test_after_a_rotation_both_signatures_count(world) -> None:
    world.added()
    world.keys.signing[2] = Ed25519PrivateKey.generate()
    world.added()

    for version in ("1", "2"):
        world.store().open(NAME, version).close()
    del world.keys.signing[1]
    assert refused(world, "1") is Fault.SIGNATURE


def test_packaged_models_are_pinned_by_the_release_or_signed(world) -> None:
    (pinned, *_) = [m for m in packaged_manifests() if m.name == "smollm2-135m-instruct"]
    for rules, fault in (({}, Fault.UNREADABLE), ({"signed": "required"}, Fault.UNSIGNED)):
        with pytest.raises(ModelFileError) as caught:
            world.store(**rules).open(pinned.name)
        assert caught.value.fault is fault
    home = world.folder / "store" / pinned.name / pinned.version
    home.mkdir(parents=True)
    (home / "signature.json").write_bytes(world.keys.sign(to_be_signed(pinned)).text())
    with pytest.raises(ModelFileError) as caught:
        world.store(signed="required").open(pinned.name)
    assert caught.value.fault is Fault.UNREADABLE, "trusted; but its files were not fetched"


def test_without_openbao_nothing_that_needs_it_is_opened(world) -> None:
    world.added()
    world.keys.away = True

    with pytest.raises(Refusal) as caught:
        world.store().open(NAME)
    assert caught.value.reason is Reason.KEYS_DOWN
    with pytest.raises(ModelFileError) as unknown:
        ModelStore(world.folder).open(NAME)  # nobody's keys count
    assert unknown.value.fault is Fault.SIGNATURE
    world.keys.away = False
    world.store().open(NAME).close()


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ({"risk_class_max": "minimal"}, Fault.RISK),
        ({"classifications": frozenset({"public"})}, Fault.CLASSIFICATION),
        ({"risk_class_max": "limited", "classifications": frozenset({"unclassified"})}, None),
    ],
)
def test_what_may_not_be_loaded_here_is_not(world, rules, fault) -> None:
    world.added()

    if fault is None:
        world.store(**rules).open(NAME).close()
    else:
        assert refused(world, **rules) is fault


# --- the files ------------------------------------------------------------------------------


def test_a_file_that_is_not_the_pinned_one_is_refused(world) -> None:
    world.added()
    path = world.home() / "files" / "model.gguf"
    whole = path.read_bytes()

    path.write_bytes(whole[:-1])
    assert refused(world) is Fault.SIZE
    path.write_bytes(whole + b"\0")
    assert refused(world) is Fault.SIZE
    path.write_bytes(whole[:-1] + b"\1")
    assert refused(world) is Fault.DIGEST
    path.unlink()
    assert refused(world) is Fault.UNREADABLE
    path.write_bytes(whole)
    world.store().open(NAME).close()


def aside(path: Path) -> Path:
    """Move something out of the store, so that a link can stand in its place."""
    there = path.parents[len(path.parts) - 1 - path.parts.index("models")] / "elsewhere" / path.name
    there.parent.mkdir(exist_ok=True)
    path.rename(there)
    return there


@pytest.mark.parametrize(
    "what", ["files/model.gguf", "files", "manifest.json", "signature.json", ".", "..", "../.."]
)
def test_a_link_out_of_the_store_is_refused(world, what) -> None:
    """Wherever it stands, and although what it leads to is the very thing."""
    world.added()
    path = Path(os.path.normpath(world.home() / what))
    path.symlink_to(aside(path))

    with pytest.raises(ModelFileError) as caught:
        world.store().open(NAME, "1")
    assert caught.value.fault is Fault.LINK
    # What else there is goes on being listed.
    assert "smollm2-135m-instruct" in {one.name for one in world.store().manifests()}
    path.unlink()
    (world.top / "elsewhere" / path.name).rename(path)
    world.store().open(NAME).close()


@pytest.mark.parametrize("kind", ["hard link", "pipe", "folder"])
def test_nothing_but_a_file_of_its_own_is_read(world, kind) -> None:
    world.added()
    path = world.home() / "files" / "model.gguf"
    if kind == "hard link":
        os.link(path, world.top / "second-name")
    else:
        aside(path)
        (os.mkfifo if kind == "pipe" else os.mkdir)(path)

    assert refused(world) is Fault.LINK
    assert world.still_works()


def test_what_was_checked_is_what_is_read_whoever_moves_the_names(world) -> None:
    """The classic race: a name that leads elsewhere between the check and the use."""
    world.added()
    path = world.home() / "files" / "model.gguf"

    with world.store().open(NAME) as opened:
        aside(path)
        path.write_bytes(b"something else")
        assert opened.path("model.gguf").read_bytes() == gguf()
    assert refused(world) is Fault.SIZE


def test_opened_at_once_by_many_each_has_its_own(world) -> None:
    world.added(seal=True)
    gate = threading.Barrier(4)

    def one(_: int) -> bytes:
        gate.wait()
        with world.store().open(NAME) as opened:
            return opened.path("model.gguf").read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(4))) == {gguf()}
    assert list(world.plain.glob("*/*")) == []


# --- sealed ---------------------------------------------------------------------------------


def test_a_sealed_model_opens_and_leaves_nothing_in_plain(world) -> None:
    world.added(seal=True)
    sealed = (world.home() / "sealed" / "model.gguf").read_bytes()

    assert gguf()[:64] not in sealed
    assert len(sealed) == len(gguf()) + OVERHEAD_BYTES
    assert not (world.home() / "files").exists()
    with world.store().open(NAME) as opened:
        path = opened.path("model.gguf")
        assert path.read_bytes() == gguf()
        assert (path.parent.stat().st_mode & 0o777, path.parent.parent.stat().st_mode & 0o777) == (
            0o700,
            0o700,
        )
    assert not path.exists()


def test_a_model_is_sealed_where_it_lies(world) -> None:
    world.added()
    world.changer().seal(NAME)

    assert not (world.home() / "files").exists()
    with world.store().open(NAME) as opened:
        assert opened.path("model.gguf").read_bytes() == gguf()
    with pytest.raises(ModelFileError) as caught:
        world.changer().seal(NAME)
    assert caught.value.fault is Fault.SEALED


def test_what_a_crash_left_in_plain_is_removed_by_sealing_again(world) -> None:
    world.added(seal=True)
    left = world.home() / "files"
    left.mkdir()
    (left / "model.gguf").write_bytes(gguf())
    sealed = world.home() / "sealed" / "model.gguf"
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelFileError) as caught:
        world.changer().seal(NAME)
    assert (caught.value.fault, left.exists()) == (Fault.SEAL, True), "it is all there is"

    sealed.write_bytes(whole)
    world.changer().seal(NAME)

    assert not left.exists()
    world.store().open(NAME).close()


def test_what_is_signed_is_decrypted_where_the_operator_says(world, monkeypatch) -> None:
    world.added(sign=False, seal=True)
    monkeypatch.setattr("inference.store.private._MEMORY", world.top / "not here")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(world.top / "nor here"))
    world.changer().sign(NAME)

    world.store().open(NAME).close()


def test_without_openbao_a_sealed_model_stays_so(world) -> None:
    world.added(sign=False, seal=True)
    world.keys.away = True

    with pytest.raises(Refusal) as caught:
        world.store(signed="off").open(NAME)
    assert caught.value.reason is Reason.KEYS_DOWN
    world.keys.away = False
    world.store(signed="off").open(NAME).close()


def test_a_data_key_of_another_model_opens_nothing(world) -> None:
    world.added(seal=True)
    world.changer().add(world.source("b.gguf"), CLAIM, seal=True)

    first, second = (world.store().entry(NAME, version) for version in ("1", "2"))
    with pytest.raises(ModelFileError) as caught:  # OpenBao itself refuses it
        world.store().sealer(second, first.seal)
    assert caught.value.fault is Fault.SEAL
    other = world.home("2") / "sealed.json"
    (world.home("1") / "sealed.json").write_bytes(other.read_bytes())
    assert refused(world, "1") is Fault.SEAL
    for junk in (b"", b"[]", b"{}"):
        other.write_bytes(junk)
        assert refused(world, "2") is Fault.SEAL


@pytest.mark.parametrize("chunk_bytes", [0, -1, 1.5, "1024", 1 << 40, True])
def test_a_seal_that_asks_for_odd_chunks_is_refused(world, chunk_bytes) -> None:
    world.added(seal=True)
    path = world.home() / "sealed.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chunk_bytes": chunk_bytes}))

    assert refused(world) is Fault.SEAL


# --- private folders ------------------------------------------------------------------------


def test_what_a_crash_left_goes_with_the_next_start(world) -> None:
    world.added(seal=True)
    held = private_folder(0, where=world.plain)
    home = held.path.parent
    left = home / "open-0123456789abcdef"
    left.mkdir()
    (left / ".lock").touch()
    (left / "model.gguf").write_bytes(gguf())

    world.store().open(NAME).close()

    assert not left.exists(), "its owner is gone"
    assert held.path.exists(), "its owner is not"
    held.close()
    assert list(home.iterdir()) == []


def test_a_private_folder_that_is_not_ours_is_not_used(world) -> None:
    world.added()
    home = world.plain / f"sealgate-models-{os.geteuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    home.chmod(0o755)
    assert refused(world) is Fault.UNREADABLE
    home.rmdir()
    home.symlink_to(world.top)
    assert refused(world) is Fault.UNREADABLE
    home.unlink()
    world.store().open(NAME).close()


def test_what_lies_behind_somebody_s_link_is_no_leftover(world) -> None:
    """`/dev/shm` is everybody's: whoever is first may put a link where our folder is to be."""
    others = world.top / "others" / "open-work"
    others.mkdir(parents=True)
    (others / ".lock").touch()
    (world.plain / f"sealgate-models-{os.geteuid()}").symlink_to(others.parent)
    with pytest.raises(ModelFileError):
        private_folder(0, where=world.plain)

    assert others.exists()


def test_no_room_is_told_before_anything_is_written(world) -> None:
    with pytest.raises(ModelFileError) as caught:
        private_folder(1 << 60, where=world.plain)
    assert caught.value.fault is Fault.NO_ROOM
    assert list(world.plain.iterdir()) == []


def test_a_disk_that_fills_while_a_model_is_opened(world, disk_of) -> None:
    world.added(seal=True)
    with disk_of(len(gguf()) - 1):
        assert refused(world) is Fault.NO_ROOM
    with world.store().open(NAME) as opened:
        assert opened.path("model.gguf").read_bytes() == gguf()


def test_rules_of_today_are_the_service_s(make_settings) -> None:
    settings = make_settings(
        models_signed="required", risk_class_max="limited", model_classifications=("public",)
    )

    assert settings.store_rules == Rules(
        signed="required", risk_class_max="limited", classifications=frozenset({"public"})
    )
    assert make_settings().store_rules == Rules()


def test_damaged_models_are_left_out_and_the_others_listed(world) -> None:
    world.added()
    world.added()
    (world.home("1") / "manifest.json").write_bytes(b"{")
    (world.folder / "store" / "UPPER").mkdir()
    (world.folder / "store" / NAME / ".coming").mkdir()

    listed = [one for one in world.store().manifests() if one.name == NAME]
    assert [one.version for one in listed] == ["2"]
    assert isinstance(listed[0], Manifest)
    assert world.store().places() == [(NAME, "1"), (NAME, "2")]


def test_an_older_version_does_not_pass_for_the_newest_that_is_damaged(world) -> None:
    world.added()
    world.added()
    (world.home("2") / "manifest.json").write_bytes(b"{")

    for look in (world.store().open, world.store().entry, world.changer().sign):
        with pytest.raises(ModelFileError) as caught:
            look(NAME)
        assert caught.value.fault is Fault.MANIFEST
    assert check_model(world.store(), NAME).version == "2"
    assert not check_model(world.store(), NAME).holds
    world.store().open(NAME, "1").close()


def test_a_disk_that_has_no_room_for_a_name(world, monkeypatch) -> None:
    def full(path: Path, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path), None, target)

    world.added()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "symlink_to", full)
        assert refused(world) is Fault.NO_ROOM
    assert world.still_works()
