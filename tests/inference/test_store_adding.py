"""A model comes into the store whole, or the store is as it was."""

import gzip
import io
import json
import os
import stat
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from inference.store.changing import StoreChanger
from inference.store.errors import Fault, ModelFileError
from inference.store.manifest import Manifest
from inference.store.sources import Limits
from inference.store.store import ModelStore
from meshkit.contract import Reason, Refusal
from tests.inference.store_world import CLAIM, NAME, World, a_folder, gguf, safetensors, world_in

SMALL = Limits(files_max=8, bytes_max=1 << 18, ratio_max=10, ratio_free_bytes=1 << 15)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return world_in(tmp_path)


def refused(world: World, source: Path, claim=CLAIM, **options: object) -> Fault | None:
    """Add what must be refused; the store is as it was, and the next model comes in."""
    before = everything(world)
    with pytest.raises(ModelFileError) as caught:
        world.changer(options.get("limits")).add(source, claim)
    assert str(caught.value) == caught.value.fault
    assert everything(world) == before
    return caught.value.fault


def everything(world: World) -> list[str]:
    return sorted(
        str(path.relative_to(world.folder))
        for path in world.folder.rglob("*")
        if path.name not in {"store", ".lock"}
    )


def zipped(world: World, members: dict[str, bytes], **attributes: int) -> Path:
    path = world.top / "model.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return path


def tarred(world: World, *members: tuple[tarfile.TarInfo, bytes], name: str = "m.tar.gz") -> Path:
    path = world.top / name
    with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


# --- what is taken --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["folder", "zip", "tar", "tar.gz", "wrapped"])
def test_a_model_comes_in_from_a_folder_or_an_archive(world, shape) -> None:
    folder = a_folder(world.top / "from")
    source = folder
    if shape == "zip":
        source = zipped(world, {path.name: path.read_bytes() for path in folder.iterdir()})
    elif shape != "folder":
        top = "model/" if shape == "wrapped" else ""
        files = [(member(top + path.name), path.read_bytes()) for path in folder.iterdir()]
        source = tarred(world, *files, name="m.tar" if shape == "tar" else "m.tgz")
    claim = replace(CLAIM, context_tokens=None, languages=("en",))
    manifest = world.changer().add(source, claim)

    assert {file.path for file in manifest.files} == {path.name for path in folder.iterdir()}
    assert (manifest.format, manifest.architecture, manifest.context_tokens) == (
        "safetensors", "llama", 128,
    )  # fmt: skip
    assert manifest.template_sha256
    assert manifest.tokenizer_sha256
    with world.store(signed="off").open(NAME) as opened:
        for path in folder.iterdir():
            assert opened.path(path.name).read_bytes() == path.read_bytes()
    assert (world.home() / "manifest.json").read_bytes() == manifest.canonical()


def test_a_model_goes_from_one_store_to_another_with_its_signature(world, tmp_path) -> None:
    manifest = world.added()
    text = (world.home() / "signature.json").read_bytes()
    (tmp_path / "other").mkdir()
    other = world_in(tmp_path / "other")
    there = StoreChanger(ModelStore(other.folder, world.keys))

    assert there.add(world.home() / "files", manifest) == manifest
    there.put_signature(NAME, "1", text)
    ModelStore(other.folder, world.keys).open(NAME).close()
    with pytest.raises(ModelFileError) as caught:
        there.put_signature(NAME, "1", text.replace(b'"version": 1', b'"version": 2'))
    assert caught.value.fault is Fault.SIGNATURE
    ModelStore(other.folder, world.keys).open(NAME).close()


def test_an_adapter_is_pinned_to_the_very_model_it_adapts(world) -> None:
    base = world.added()
    source = world.source("adapter_model.safetensors", safetensors())
    claim = replace(CLAIM, name="acme-tone", kind="adapter", base=NAME, context_tokens=None)
    manifest = world.changer().add(source, claim)

    assert (manifest.base, manifest.context_tokens) == (base.digest.hex(), base.context_tokens)
    assert refused(world, source, replace(claim, base="nobody")) is Fault.NOT_FOUND
    assert refused(world, source, replace(claim, base="")) is Fault.CLAIM


def test_versions_count_up_and_none_is_replaced(world) -> None:
    assert [world.added(sign=False).version for _ in range(2)] == ["1", "2"]
    assert refused(world, world.source(), replace(CLAIM, version="2")) is Fault.EXISTS
    named = world.changer().add(world.source(), replace(CLAIM, version="rc1"))
    assert named.version == "rc1"
    assert refused(world, world.source(), replace(CLAIM, version="RC1")) is Fault.EXISTS
    packaged = replace(CLAIM, name="smollm2-135m-instruct", version="1")
    assert refused(world, world.source(), packaged) is Fault.EXISTS
    assert world.changer().add(world.source(), replace(packaged, version=None)).version == "2"


def test_what_is_removed_is_gone_and_others_stay(world) -> None:
    world.added()
    world.added()
    with world.store().open(NAME, "1") as opened:
        world.changer().remove(NAME, "1")
        assert opened.weights[0].read_bytes() == gguf(), "who has it open keeps it"
    for name, version in ((NAME, "1"), (NAME, ".."), ("..", "1"), ("smollm2-135m-instruct", "1")):
        with pytest.raises(ModelFileError) as caught:
            world.changer().remove(name, version)
        assert caught.value.fault is Fault.NOT_FOUND
    world.store().open(NAME).close()


# --- what is refused ------------------------------------------------------------------------

BAD_NAMES = ["../m.gguf", "/m.gguf", "a/../../m.gguf", "a//m.gguf", ".hidden.json", "a\\m.gguf"]
BAD_NAMES += ["~/m.gguf", "-rf.gguf", "a/./m.gguf", "a b.gguf", "c:m.gguf", "a\nb.gguf"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_elsewhere_is_refused(world, name) -> None:
    outside = world.top / "m.gguf"
    sound = {"fine.json": b"{}"}

    assert refused(world, zipped(world, sound | {name: gguf()})) is Fault.PATH
    tar = tarred(world, (member("fine.json"), b"{}"), (member(name), gguf()))
    assert refused(world, tar) is Fault.PATH
    assert not outside.exists()
    assert world.still_works()


@pytest.mark.parametrize("kind", ["SYM", "LNK", "CHR", "BLK", "FIFO", "CONT"])
def test_links_and_devices_in_a_tar_are_refused(world, kind) -> None:
    odd = member("m.gguf", getattr(tarfile, f"{kind}TYPE"), "/etc/passwd")
    source = tarred(world, (member("fine.json"), b"{}"), (odd, b""))

    # A "contiguous" file is a file by another name; it is empty here.
    assert refused(world, source) is (Fault.GGUF if kind == "CONT" else Fault.LINK)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(world, kind) -> None:
    source = zipped(world, {"m.gguf": b"/etc/passwd"}, external_attr=(kind | 0o777) << 16)

    assert refused(world, source) is Fault.LINK


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "hard link", "pipe"])
def test_links_and_pipes_in_a_folder_are_refused(world, kind) -> None:
    folder = a_folder(world.top / "from")
    secret = world.top / "secret.json"
    secret.write_text("{}")
    if kind == "hard link":
        os.link(secret, folder / "other.json")
    elif kind == "pipe":
        os.mkfifo(folder / "other.json")
    else:
        there = secret if kind == "link to a file" else world.top
        (folder / "other.json").symlink_to(there)

    assert refused(world, folder) is Fault.LINK
    (world.top / "source").mkdir()
    (world.top / "source" / "m.gguf").symlink_to(secret)
    assert refused(world, world.top / "source" / "m.gguf") is Fault.LINK


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"model.pt": b"\x80\x04."}, Fault.PICKLE),
        ({"m.gguf": gguf(), "archive/data.pkl": b"\x80\x04."}, Fault.PICKLE),
        ({"m.gguf": b"\x80\x04\x95."}, Fault.PICKLE),
        ({"m.gguf": gguf(), "inner.zip": b"PK"}, Fault.NESTED),
        ({"m.gguf": gguf(), "setup.py": b"print()"}, Fault.KIND),
        ({"m.gguf": gguf()[:-1]}, Fault.GGUF),
        ({"m.safetensors": safetensors()[:-1]}, Fault.SAFETENSORS),
        ({"m.gguf": gguf(), "a.json": b"{"}, Fault.JSON),
        ({"m.gguf": gguf(), "M.gguf": gguf()}, Fault.DUPLICATE),
        ({"m.gguf": gguf(), "a.json": b"{}", "a.json/b.json": b"{}"}, Fault.DUPLICATE),
        ({"m.gguf": gguf(), "a.json/b.json": b"{}", "a.json": b"{}"}, Fault.DUPLICATE),
        ({"a.json": b"{}"}, Fault.EMPTY),
        ({}, Fault.EMPTY),
        ({"m.gguf": gguf(), "m.safetensors": safetensors()}, Fault.CLAIM),
        ({f"{n}.json": b"{}" for n in range(9)}, Fault.MANY),
        ({"m.gguf": gguf(), "big.txt": b"a" * (1 << 16)}, Fault.BOMB),
        ({"m.gguf": gguf(), "big.txt": os.urandom(1 << 18).hex().encode()}, Fault.LARGE),
    ],
)
def test_what_the_store_does_not_take_is_refused(world, members, fault) -> None:
    assert refused(world, zipped(world, members), limits=SMALL) is fault
    files = [(member(name), content) for name, content in members.items()]
    if files:
        assert refused(world, tarred(world, *files), limits=SMALL) is fault
    assert world.still_works()


@pytest.mark.parametrize("name", ["m.zip", "m.tar", "m.tgz"])
def test_what_is_no_archive_is_refused(world, name) -> None:
    whole = gzip.compress(os.urandom(64)) if name == "m.tgz" else b"no archive"
    sound = tarred(world, (member("m.gguf"), gguf()), name="sound.tgz").read_bytes()

    for content in (whole, sound[: len(sound) // 2] if name == "m.tgz" else b"PK\x05\x06"):
        assert refused(world, world.source(name, content)) is Fault.ARCHIVE
    # An empty .tar is an archive of nothing.
    assert refused(world, world.source(name, b"")) in {Fault.ARCHIVE, Fault.EMPTY}


def test_a_zip_that_was_altered_is_refused(world) -> None:
    source = zipped(world, {"m.gguf": os.urandom(512)})
    raw = bytearray(source.read_bytes())
    raw[200] ^= 1
    source.write_bytes(raw)

    assert refused(world, source) is Fault.ARCHIVE
    source = zipped(world, {"m.gguf": gguf()})
    # Encrypted; packed by LZMA; of a version that nobody reads; a directory that is said to begin
    # so late that its member begins before the file does.
    for mark, at, value in (
        (b"PK\x01\x02", 8, 1),
        (b"PK\x01\x02", 10, 14),
        (b"PK\x01\x02", 6, 99),
        (b"PK\x05\x06", 17, 255),
    ):
        raw = bytearray(source.read_bytes())
        raw[raw.find(mark) + at] = value
        assert refused(world, world.source("odd.zip", bytes(raw))) is Fault.ARCHIVE


def test_names_of_a_zip_are_read_only_if_they_are_few(world) -> None:
    """The directory is taken into memory as a whole: a long one is not."""
    for count in (9, 3_000):
        source = zipped(world, {f"{n:04}{'x' * 500}.json": b"" for n in range(count)})
        assert refused(world, source, limits=SMALL) is Fault.MANY


def test_a_tar_s_long_header_is_not_taken_into_memory(world) -> None:
    info = member("m.gguf")
    info.pax_headers = {"comment": "a" * (2 << 20)}
    path = world.top / "m.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO())

    assert refused(world, path) in {Fault.ARCHIVE, Fault.BOMB}
    assert refused(world, path, limits=Limits(ratio_max=1 << 30)) is Fault.ARCHIVE


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": "../x"}, Fault.CLAIM),
        ({"version": ".."}, Fault.CLAIM),
        ({"licence": " "}, Fault.CLAIM),
        ({"languages": ("english language",)}, Fault.CLAIM),
        ({"source": "x" * 5_000}, Fault.CLAIM),
        ({"default_system": "\ud800"}, Fault.CLAIM),
        ({"format": "safetensors"}, Fault.FORMAT),
        ({"context_tokens": 65}, Fault.CONTEXT),
    ],
)
def test_what_is_said_of_a_model_and_is_not_so_is_refused(world, change, fault) -> None:
    assert refused(world, world.source(), replace(CLAIM, **change)) is fault


def lied(manifest: Manifest, **changes: object) -> Manifest:
    return replace(manifest, version="2", **changes)


def test_a_manifest_that_lies_is_refused(world) -> None:
    honest = world.added()
    (file,) = honest.files
    lies = {
        Fault.SIZE: {"files": (replace(file, bytes=file.bytes + 1),)},
        Fault.DIGEST: {"files": (replace(file, sha256="00" * 32),)},
        Fault.FILES: {"files": (file, replace(file, path="other.gguf"))},
        Fault.FORMAT: {"format": "safetensors"},
        Fault.ARCHITECTURE: {"architecture": "qwen2"},
        Fault.CONTEXT: {"context_tokens": 65},
        Fault.TEMPLATE: {"template_sha256": "00" * 32},
        Fault.TOKENIZER: {"tokenizer_sha256": "00" * 32},
        Fault.MANIFEST: {"name": "../x"},
    }

    for fault, lie in lies.items():
        assert refused(world, world.source(), lied(honest, **lie)) is fault
    for lie in ({"licence": " "}, {"kind": "adapter"}, {"base": "00" * 32}):
        assert refused(world, world.source(), lied(honest, **lie)) is Fault.CLAIM
    assert world.changer().add(world.source(), lied(honest)).version == "2"


@pytest.mark.parametrize("where", ["store", f"store/{NAME}"])
def test_nothing_is_changed_behind_a_link(world, where) -> None:
    elsewhere = world.top / "elsewhere"
    world.added()
    (world.folder / where).rename(elsewhere)
    (world.folder / where).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))

    assert refused(world, world.source("b.gguf"), replace(CLAIM, version="2")) is Fault.LINK
    with pytest.raises(ModelFileError) as caught:
        world.changer().remove(NAME, "1")
    assert caught.value.fault is Fault.LINK
    assert sorted(elsewhere.rglob("*")) == before


# --- disks, others, crashes -----------------------------------------------------------------


@pytest.mark.parametrize("seal", [False, True])
def test_a_disk_that_fills_leaves_the_store_as_it_was(world, disk_of, seal) -> None:
    source = world.source()
    world.added()
    before = everything(world)

    for size in (0, len(gguf()) - 1):
        with disk_of(size), pytest.raises(ModelFileError) as caught:
            world.changer().add(source, CLAIM, seal=seal)
        assert caught.value.fault is Fault.NO_ROOM
        assert everything(world) == before
        assert list(world.plain.glob("*/open-*")) == []
    assert world.still_works()


def test_sealing_where_a_disk_is_full_leaves_the_model_in_plain(world, disk_of) -> None:
    world.added()
    with disk_of(len(gguf()) - 1), pytest.raises(ModelFileError) as caught:
        world.changer().seal(NAME)
    assert caught.value.fault is Fault.NO_ROOM
    world.store().open(NAME).close()
    world.changer().seal(NAME)
    world.store().open(NAME).close()


def test_openbao_away_leaves_the_store_as_it_was(world) -> None:
    world.added(sign=False)
    before = everything(world)
    world.keys.away = True

    for change in (
        lambda: world.changer().sign(NAME),
        lambda: world.changer().seal(NAME),
        lambda: world.changer().add(world.source(), CLAIM, seal=True),
    ):
        with pytest.raises(Refusal) as caught:
            change()
        assert caught.value.reason is Reason.KEYS_DOWN
        assert everything(world) == before
    world.keys.away = False
    assert world.still_works()


def test_one_changes_the_store_at_a_time(world) -> None:
    """Whoever comes second is told so, at once; readers are not kept."""
    world.added()
    inside, go_on = threading.Event(), threading.Event()

    class Slow(type(world.keys)):
        def sign(self, message):
            inside.set()
            assert go_on.wait(30)
            return super().sign(message)

    slow = Slow(signing=world.keys.signing, storage=world.keys.storage)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.changer(keys=slow).sign, NAME)
        assert inside.wait(30)
        for change in (
            lambda: world.changer().add(world.source(), CLAIM),
            lambda: world.changer().remove(NAME, "1"),
            lambda: world.changer().seal(NAME),
        ):
            with pytest.raises(ModelFileError) as caught:
                change()
            assert caught.value.fault is Fault.BUSY
        world.store().open(NAME).close()
        go_on.set()
        first.result(30)
    assert world.still_works()


def test_what_a_crash_left_goes_with_the_next_change(world) -> None:
    world.added()
    for name in (".coming-0123", ".going-0123"):
        (world.folder / "store" / name / "files").mkdir(parents=True)
        (world.folder / "store" / name / "files" / "model.gguf").write_bytes(b"half")

    assert [one.version for one in world.store().manifests() if one.name == NAME] == ["1"]
    world.added()
    assert list((world.folder / "store").glob(".[cg]o*")) == []


def test_a_signature_is_given_only_to_what_is_whole(world) -> None:
    world.added(sign=False)
    path = world.home() / "files" / "model.gguf"
    path.write_bytes(gguf()[:-1] + b"\1")

    with pytest.raises(ModelFileError) as caught:
        world.changer().sign(NAME)
    assert caught.value.fault is Fault.DIGEST
    assert not (world.home() / "signature.json").exists()
    path.write_bytes(gguf())
    world.changer().sign(NAME)
    assert json.loads((world.home() / "signature.json").read_text())["key"] == "model-signing"


def test_a_packaged_model_is_not_sealed_in_its_place(world) -> None:
    with pytest.raises(ModelFileError) as caught:
        world.changer().seal("smollm2-135m-instruct", "1")
    assert caught.value.fault is Fault.PACKAGED
