"""A release with real models, over real mutual TLS, into a real audit log.

Two versions of SmolLM2 that differ in what the template says by itself: 1 is the packaged one (the
engine that other tests use), 2 is added to a store and loaded from it.
"""

import asyncio
import json
import shutil
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from audit.app import audit_at
from audit.records.archive import Archive
from audit.records.notes import Notes
from inference.main import inference_at
from inference.model_notes import models_noted
from inference.registry import load_manifest
from inference.release.loading import StoreLoader
from inference.release.settings import ReleaseSettings
from inference.service import open_inference
from inference.store.store import ModelStore
from meshkit.audit_link import AuditLink, journal_over
from meshkit.authorization import Authorizer
from meshkit.policies import FOLDER
from sealgate import AsyncClient, AsyncModels, DeniedError, Message, Role, WrongStateError
from sealgate.v1.audit_pb2_grpc import AuditServiceStub
from tests.audit.world import World
from tests.gateway.conftest import Authority
from tests.mesh.conftest import FakeMesh, Host, service_id

MODEL = "smollm2-135m-instruct"
TENANT = "spiffe://sealgate.local/tenant/demo"
PROMPT = "Who are you, and what do you do?"
PIRATE = "You are a pirate. Answer every question with the single word Arrr and nothing else."


class Borrowed:
    """The engine that other tests use, as a version: closing it lets it go on."""

    def __init__(self, engine) -> None:
        self._engine = engine
        self.generate, self.info = engine.generate, engine.info
        self.healthy, self.generated_tokens = True, 0

    async def close(self) -> None:
        self.healthy = False


class Loader(StoreLoader):
    """The store's, but that version 1 is there already."""

    def __init__(self, settings, store, engine) -> None:
        super().__init__(settings, store)
        self._engine = engine
        self.loads = []

    def load(self, name, version, manifest):
        self.loads.append(version)
        return Borrowed(self._engine) if version == "1" else super().load(name, version, manifest)


class Fresh(FakeMesh):
    """Its gateway looks at each call which versions there are."""

    def gateway_settings(self, hops):
        return super().gateway_settings(hops).model_copy(update={"models_memo_ms": 0})


class Release:
    """A mesh whose inference, gateway and log are real; compliance is not what is tried here."""

    def __init__(self, folder, settings, engine) -> None:
        self.settings = settings
        self.engine = engine
        self.authority = Authority()
        self.records = World(folder)

    @asynccontextmanager
    async def open(self):
        async with AsyncExitStack() as owned:
            enter = owned.enter_async_context
            host = Host(self.authority, owned)
            self.log = await enter(self.records.open())
            mesh = Fresh(host, audit=self.log)
            for service in ("compliance", "cache"):
                mesh.ports[service] = await host.serve(service, getattr(mesh, service))
            placed, holder = host.placed, host.holder(service_id("audit"))
            archive = Archive(
                self.records.folder / "archive", Notes(self.log), document_bytes_max=1 << 20
            )
            mesh.ports["audit"] = await enter(
                audit_at(placed, self.log, Authorizer(FOLDER), holder, archive=archive)
            )
            own = host.holder(service_id("inference"))
            link = AuditLink(target=f"localhost:{mesh.ports['audit']}")
            book = await enter(journal_over(link, own, AuditServiceStub))
            store = ModelStore(self.settings.models_dir, rules=self.settings.store_rules)
            self.loader = Loader(self.settings, store, self.engine)
            self.service = await enter(
                open_inference(self.settings, verify=lambda *_: True, loader=self.loader)
            )
            owned.enter_context(models_noted(book, self.service.desk))
            mesh.ports["inference"] = await enter(
                inference_at(placed, self.service, own, desk=self.service.desk)
            )
            await mesh.serve_gateway()
            self.target = f"localhost:{mesh.ports['gateway']}"
            self.admin = await enter(self.client(AsyncModels, "models"))
            self.assistant = await enter(self.client(AsyncClient, "assistant"))
            yield self

    def client(self, kind, workload):
        own = self.authority.issue(f"{TENANT}/{workload}")
        return kind(
            self.target, ca=own.peer_ca_pem, cert=own.chain_pem, key=own.key_pem, timeout_s=120
        )

    async def ask(self, session="", tokens=12):
        """Return what was said, and the digest that the record of the call names."""
        result = await self.assistant.chat(
            [Message(Role.USER, PROMPT)], model=MODEL, max_tokens=tokens, session=session,
            no_cache=True,
        )  # fmt: skip
        events = [e for e in await self.told() if e.get("call_id") == result.receipt.call_id.hex()]
        digests = {event["model_digest"] for event in events}
        assert len(events) == 2  # INTENT and OUTCOME name the same version
        return result.text, digests

    async def told(self):
        await self.log.idle()
        return [
            json.loads(self.log.parts.leaf(at))["event"] for at in range(self.log.stats.durable)
        ]

    async def steps(self):
        """Return what inference told of steps: (action, version, rule)."""
        return [
            (event["action"].removeprefix("model."), event["detail"]["version"],
             event["detail"].get("rule", ""))
            for event in await self.told()
            if event["action"].startswith("model.") and event["phase"] == "note"
        ]  # fmt: skip


@pytest.fixture
def release(tmp_path, model_path, make_settings, loaded, smollm):
    manifest = replace(load_manifest(MODEL), version="2", default_system=PIRATE)
    models = tmp_path / "models"
    home = models / "store" / MODEL / "2"
    for file in manifest.files:
        place = home / "files" / file.path
        place.parent.mkdir(parents=True)
        shutil.copyfile(model_path, place)
    (home / "manifest.json").write_bytes(manifest.canonical())
    limits = ReleaseSettings(
        state_file=tmp_path / "releases.json",
        first_version="1",
        shadow_samples_min=2,
        agreement_min=0.9,
        linger_ms=0,
        warm_tokens=2,
    )
    settings = make_settings(
        models_dir=models, models_signed="off", release=limits, context_tokens_max=256, slots=2
    )
    return Release(tmp_path, settings, loaded)


async def test_a_release_of_a_real_model(release) -> None:
    one = release.engine.info.digest.hex()
    async with release.open() as running:
        said_by_one, digests = await running.ask()
        assert digests == {one}
        added = (await running.admin.load(MODEL, "2", wait_s=120)).find("2")
        assert (added.state, running.loader.loads) == ("warm", ["1", "2"])
        two = added.digest.hex()
        assert (await running.ask())[1] == {one}

        # On trial: conversations go to both, and each stays where it is.
        now = await running.admin.canary(MODEL, "2", percent=50, seconds=3_600)
        assert {v.version: v.share for v in now.versions} == {"1": 5_000, "2": 5_000}
        went = {}
        while not {one, two} <= set(went.values()):
            assert len(went) < 60, "half of the conversations, and none of sixty"
            session = f"s{len(went)}"
            (went[session],) = (await running.ask(session, tokens=1))[1]
        with_one = next(session for session, digest in went.items() if digest == one)
        assert (await running.ask(with_one, tokens=1))[1] == {one}

        # A shadow beside it: their answers differ, and that ends the trial.
        await running.admin.shadow(MODEL, "2", 100)
        for _ in range(2):
            await running.ask(with_one, tokens=6)
            await running.service.shadows.settled()
        assert await settled(running, "2") == ("warm", "drift")
        assert running.service.desk.core.models[MODEL].live == "1"

        # By hand, and back.
        await running.admin.promote(MODEL, "2")
        text, digests = await running.ask()
        assert (digests, text != said_by_one) == ({two}, True)
        await running.admin.rollback(MODEL)
        with pytest.raises(WrongStateError):
            await running.admin.rollback(MODEL)
        await running.admin.unload(MODEL, "2")
        async with running.client(AsyncModels, "assistant") as nobody:
            with pytest.raises(DeniedError):
                await nobody.promote(MODEL, "2")

    async with release.open() as again:
        assert again.loader.loads == ["1"]
        assert (await again.ask()) == (said_by_one, {one})
        (listed,) = await again.admin.versions()
        states = {each.version: each.state for each in listed.versions}
        assert states == {"1": "live", "2": "registered"}
        assert await all_steps(again) == STEPS
        assert [each async for each in taken(again) if each[0] != "model.read"] == TAKEN


async def all_steps(running):
    """Return the steps told once they are all there: nobody waits for what a service tells."""
    async with asyncio.timeout(30):
        while len(await running.steps()) < len(STEPS):
            await asyncio.sleep(0.1)
    return await running.steps()


async def taken(running):
    """Yield what was asked for through the gateway, and how it ended, as the log has it."""
    for event in await running.told():
        if event["action"].startswith("model.") and event["phase"] == "outcome":
            yield event["action"], event["outcome"]


async def settled(running, version):
    """Wait until a version is on trial no more; return its state and why."""
    async with asyncio.timeout(30):
        while True:
            found = (await running.admin.release(MODEL)).find(version)
            if found.state != "canary":
                return found.state, found.why
            await asyncio.sleep(0.1)


STEPS = [
    ("load", "1", ""),
    ("load", "2", ""),
    ("canary", "2", ""),
    ("shadow", "2", ""),
    ("rollback", "2", "drift"),
    ("promote", "2", ""),
    ("rollback", "1", "operator"),
    ("unload", "2", ""),
    ("unload", "1", ""),  # the service ends
    ("load", "1", ""),  # and starts again
]
TAKEN = [
    ("model.load", "released"),
    ("model.canary", "released"),
    ("model.shadow", "released"),
    ("model.promote", "released"),
    ("model.rollback", "released"),
    ("model.rollback", "WRONG_STATE"),
    ("model.unload", "released"),
    ("model.promote", "DENIED"),
]
