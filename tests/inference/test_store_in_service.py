"""A running service refuses what must not be loaded, and says so; the next load works."""

import json
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from inference.engines.null import NullEngine
from inference.model_notes import models_noted
from inference.release.loading import StoreLoader
from inference.release.settings import ReleaseSettings
from inference.service import open_inference
from inference.store.errors import Fault, ModelFileError
from inference.store.signing import to_be_signed
from meshkit.contract import Ended, Message, Parameters, Refusal, ReleaseStep, Role, StepKind
from tests.inference.store_world import CLAIM, NAME, World, gguf, world_in


class Checked(StoreLoader):
    """Checks as the service does; what would be built of the files only reads them."""

    def load(self, name, version, manifest):
        with self._store.open(name, version) as opened:
            assert opened.manifest.digest == manifest
            text = str(len(opened.weights[0].read_bytes()))
        engine = NullEngine(text, name=name)
        engine._info = replace(engine.info, digest=manifest, version=version)
        return engine


class Book:
    def __init__(self) -> None:
        self.told = []

    def note(self, action, *, outcome="ok", detail=None):
        self.told.append((action, dict(detail or {}), outcome))

    def keep(self, *documents):
        del documents


@pytest.fixture
def world(tmp_path: Path) -> World:
    return world_in(tmp_path)


@asynccontextmanager
async def serving(world: World, settings):
    loader = Checked(settings, world.store(risk_class_max="limited"))
    book = Book()
    async with open_inference(settings, verify=lambda *_: True, loader=loader) as service:
        with models_noted(book, service.desk):
            yield service, book


def unsigned(world: World, home: Path) -> None:
    del world
    (home / "signature.json").unlink()


def changed_after_signing(world: World, home: Path) -> None:
    del world
    manifest = json.loads((home / "manifest.json").read_text()) | {"default_system": "Be rude."}
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    (home / "manifest.json").write_text(text)


def another_key(world: World, home: Path) -> None:
    del world
    path = home / "signature.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"signature": "A" * 86 + "=="}))


def other_bytes(world: World, home: Path) -> None:
    del world
    (home / "files" / "model.gguf").write_bytes(gguf()[:-1] + b"\1")


def cut_off(world: World, home: Path) -> None:
    del world
    (home / "files" / "model.gguf").write_bytes(gguf()[:-1])


def link_out(world: World, home: Path) -> None:
    path = home / "files" / "model.gguf"
    path.rename(world.top / "elsewhere.gguf")
    path.symlink_to(world.top / "elsewhere.gguf")


def too_risky(world: World, home: Path) -> None:
    manifest = replace(world.store().entry(NAME, "2").manifest, risk_class="high")
    (home / "manifest.json").write_bytes(manifest.canonical())
    (home / "signature.json").write_bytes(world.keys.sign(to_be_signed(manifest)).text())


def no_room(world: World, home: Path) -> None:
    world.changer().seal(NAME, home.name)
    shutil.rmtree(world.plain)


def openbao_away(world: World, home: Path) -> None:
    del home
    world.keys.away = True


@pytest.mark.parametrize(
    "case",
    [
        (unsigned, "unsigned"),
        (changed_after_signing, "signature"),
        (another_key, "signature"),
        (other_bytes, "digest"),
        (cut_off, "size"),
        (link_out, "link"),
        (too_risky, "risk"),
        (no_room, "no_room"),
        (openbao_away, "keys_down"),
    ],
)
async def test_each_fault_is_refused_recorded_and_the_next_load_works(
    world, make_settings, make_screened, scope, case
) -> None:
    fault, name = case
    world.added()
    settings = make_settings(model=NAME, release=ReleaseSettings(linger_ms=0))
    async with serving(world, settings) as (service, book):
        world.added()
        fault(world, world.home("2"))
        step = ReleaseStep(kind=StepKind.LOAD, model=NAME, version="2")
        await service.desk.take(step)
        await service.desk.settled()

        ((_, detail, _),) = [note for note in book.told if note[0] == "model.refuse"]
        assert (detail["model"], detail["version"], detail["rule"]) == (NAME, "2", name)
        (release,) = await service.desk.releases(NAME)
        assert release.find("2").state in {"refused", "failed"}

        asked = make_screened((Message(Role.USER, "hello"),))
        answer = service.generate(scope, NAME, asked, Parameters(max_tokens=8))
        said = [item async for item in answer]
        assert isinstance(said[-1], Ended), "what is live answers on"
        world.keys.away = False
        world.plain.mkdir(exist_ok=True)
        world.changer().add(world.source("c.gguf"), CLAIM)
        world.changer().sign(NAME, "3")
        await service.desk.take(replace(step, version="3"))
        await service.desk.settled()
        (release,) = await service.desk.releases(NAME)
        assert release.find("3").state == "warm"


@pytest.mark.parametrize(
    ("fault", "name"),
    [(unsigned, "unsigned"), (other_bytes, "digest"), (openbao_away, "keys_down")],
)
async def test_a_start_that_is_refused_is_recorded(world, make_settings, fault, name) -> None:
    world.added()
    fault(world, world.home("1"))
    settings, book = make_settings(model=NAME), Book()
    loader = Checked(settings, world.store())
    with pytest.raises((ModelFileError, Refusal)):
        async with open_inference(settings, verify=None, loader=loader, journal=book):
            pytest.fail("it was served")
    ((_, detail, _),) = [note for note in book.told if note[0] == "model.refuse"]
    assert (detail["model"], detail["version"], detail["rule"]) == (NAME, "1", name)


async def test_a_first_start_takes_no_older_version_for_the_newest_that_is_damaged(
    world, make_settings
) -> None:
    world.added()
    world.added()
    (world.home("2") / "manifest.json").write_bytes(b"{")
    settings = make_settings(model=NAME)
    with pytest.raises(ModelFileError) as caught:
        async with open_inference(settings, verify=None, loader=Checked(settings, world.store())):
            pytest.fail("it was served")
    assert caught.value.fault is Fault.MANIFEST


async def test_what_was_unsigned_is_loaded_once_it_is_signed(world, make_settings) -> None:
    world.added()
    settings = make_settings(model=NAME, release=ReleaseSettings(linger_ms=0))
    async with serving(world, settings) as (service, _):
        world.changer().add(world.source("b.gguf"), CLAIM)
        step = ReleaseStep(kind=StepKind.LOAD, model=NAME, version="2")
        await service.desk.take(step)
        await service.desk.settled()
        (release,) = await service.desk.releases(NAME)
        assert release.find("2").state in {"refused", "failed"}
        world.changer().sign(NAME, "2")
        await service.desk.take(step)
        await service.desk.settled()
        (release,) = await service.desk.releases(NAME)
        assert release.find("2").state == "warm"
