"""Releases in a running service: loading beside calls, switching under them, shadows, restarts.

The engines answer a fixed text each: what is tried here is who is asked, not what is said.
"""

import asyncio
import gc
import json
import os
import time
import weakref
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
import torch
from structlog.testing import capture_logs

from inference.engines.null import NullEngine
from inference.model_notes import models_noted
from inference.release.comparison import agreement, compare, refuses
from inference.release.memory import MemoryInvalidError
from inference.release.settings import ReleaseSettings
from inference.service import open_inference
from inference.store.errors import Fault, ModelFileError
from meshkit.contract import (
    PER_WHOLE,
    Ended,
    Message,
    ModelInfo,
    Parameters,
    Reason,
    Refusal,
    ReleaseStep,
    Role,
    StepKind,
    choose,
)
from meshkit.counters import counters, gauges

NAME = "m"
ASK = (Message(Role.USER, "hello"),)
TEXTS = {"1": "The first says this.", "2": "The second says that.", "3": "A third."}
LOAD, UNLOAD, CANARY = StepKind.LOAD, StepKind.UNLOAD, StepKind.CANARY
PROMOTE, ROLLBACK, SHADOW = StepKind.PROMOTE, StepKind.ROLLBACK, StepKind.SHADOW


class Spoken(NullEngine):
    """An engine whose faults a test can choose."""

    def __init__(self, version: str, text: str, **options) -> None:
        super().__init__(text, name=NAME, **options)
        self._info = replace(self._info, version=version)
        self.closed = self.down = self.fickle = False
        self.gate: asyncio.Event | None = None
        self.asked = 0

    @property
    def healthy(self) -> bool:
        return not (self.down or self.closed)

    async def generate(self, messages, parameters, *, context=None):  # noqa: ARG002 -- as engines
        self.asked += 1
        if not self.healthy:
            raise Refusal(Reason.INFERENCE_DOWN)
        async for item in super().generate(messages, parameters):
            if self.gate is not None:
                await self.gate.wait()
            assert not self.closed, "closed under a call"
            yield (
                item._replace(text=f"{item.text}{self.asked}")
                if self.fickle and not isinstance(item, Ended)
                else item
            )

    async def close(self) -> None:
        self.closed = True


class Versions:
    """A loader whose versions and faults a test can choose."""

    def __init__(self, *versions: str) -> None:
        self.made: dict[str, Spoken] = {}
        self.versions = list(versions)
        self.faults: dict[str, Exception] = {}
        self.fickle: set[str] = set()
        self.loads: list[str] = []

    def known(self):
        return [(NAME, version, version.encode().rjust(32, b"m")) for version in self.versions]

    def newest(self, name):
        del name
        return self.versions[-1]

    def load(self, name, version, manifest):
        assert (name, manifest) == (NAME, version.encode().rjust(32, b"m"))
        self.loads.append(version)
        if version in self.faults:
            raise self.faults[version]
        engine = self.made[version] = Spoken(version, TEXTS[version])
        engine.fickle = version in self.fickle
        return engine


class Book:
    """A journal that is looked at."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict]] = []
        self.kept = []

    def note(self, action, *, outcome="ok", detail=None):
        assert outcome == "ok"
        self.told.append((action, dict(detail or {})))

    def keep(self, *documents):
        self.kept += documents

    def of(self, action):
        return [detail for each, detail in self.told if each == action]


class World:
    """A service over chosen versions, and how a test speaks to it."""

    def __init__(self, service, versions, scope, screened) -> None:
        self.service, self.versions, self.book = service, versions, Book()
        self._scope, self._screened = scope, screened
        self.desk = service.desk

    def scope(self, session=""):
        return replace(self._scope, session=session, call_id=os.urandom(16))

    async def take(self, kind, version="", **rest):
        release = await self.desk.take(ReleaseStep(kind=kind, model=NAME, version=version, **rest))
        if kind is LOAD:
            await self.desk.settled()
            (release,) = await self.desk.releases(NAME)
        return release

    async def refused(self, kind, version="", **rest) -> Reason:
        with pytest.raises(Refusal) as caught:
            await self.take(kind, version, **rest)
        return caught.value.reason

    async def state(self, version):
        (release,) = await self.desk.releases(NAME)
        return release.find(version).state

    async def ask(self, session="", digest=b"", tokens=256):
        said = ""
        source = self.service.generate(
            self.scope(session), NAME, self._screened(ASK), Parameters(max_tokens=tokens),
            digest=digest,
        )  # fmt: skip
        async for item in source:
            said += "" if isinstance(item, Ended) else item.text
        return said


@pytest.fixture
def opened(make_settings, make_screened, scope):
    """Return how to open a service: `async with opened(versions, **release) as world`."""

    @asynccontextmanager
    async def started(versions, **release):
        limits = ReleaseSettings(**{"linger_ms": 0, "samples_min": 3} | release)
        chosen = make_settings(model=NAME, release=limits)
        async with open_inference(chosen, verify=lambda *_: True, loader=versions) as service:
            world = World(service, versions, scope, make_screened)
            with models_noted(world.book, service.desk):
                yield world

    return started


async def test_a_version_goes_all_the_way_and_back(opened) -> None:
    versions = Versions("1")
    async with opened(versions) as world:
        assert await world.ask() == TEXTS["1"]
        versions.versions.append("2")
        await world.take(LOAD, "2")
        assert await world.state("2") == "warm"
        assert await world.ask() == TEXTS["1"]

        await world.take(CANARY, "2", percent=50)
        said = {await world.ask(session=str(n)) for n in range(30)}
        assert said == {TEXTS["1"], TEXTS["2"]}

        await world.take(PROMOTE, "2")
        assert await world.ask() == TEXTS["2"]
        await world.take(ROLLBACK)
        assert await world.ask() == TEXTS["1"]
        await world.take(UNLOAD, "2")
        await world.desk.settled()
        assert versions.made["2"].closed

    actions = [action for action, _ in world.book.told]
    assert actions == [
        *("model.load", "model.register", "model.load", "model.canary", "model.promote"),
        *("model.rollback", "model.unload", "model.unload"),
    ]
    assert len(world.book.kept) == 2  # manifests, before they were told of


async def test_a_conversation_stays_on_its_version(opened) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(CANARY, "2", percent=30)
        first = {n: await world.ask(session=str(n)) for n in range(40)}
        assert {n: await world.ask(session=str(n)) for n in range(40)} == first

        await world.take(CANARY, "2", percent=60)  # and who has the new one keeps it
        more = {n: await world.ask(session=str(n)) for n in range(40)}
        assert all(more[n] == TEXTS["2"] for n, said in first.items() if said == TEXTS["2"])


def test_shares_are_kept_to(scope) -> None:
    infos = [
        ModelInfo(
            name=NAME, digest=bytes([n]) * 32, context_tokens=1, licence="", share=share,
            split_key=b"k" * 16,
        )
        for n, share in ((2, 1_000), (1, PER_WHOLE - 1_000))
    ]  # fmt: skip
    picked = [
        choose(infos, replace(scope, session=str(n), tenant=f"t{n % 7}")) for n in range(4_000)
    ]

    # 4,000 draws of a tenth: 400, and 19 is one standard deviation.
    assert 300 < sum(info is infos[0] for info in picked) < 500


async def test_the_digest_says_who_answers_and_no_other_does(opened) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(CANARY, "2", percent=50)
        digests = {info.version: info.digest for info in await world.service.models()}
        assert list(digests) == ["2", "1"]  # the live one last
        for version, digest in digests.items():
            for session in "abcdef":
                assert await world.ask(session=session, digest=digest) == TEXTS[version]

        await world.take(ROLLBACK)
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as caught:
            await world.ask(digest=b"x" * 32)
        assert caught.value.reason is Reason.INFERENCE_DOWN
        assert await world.ask() == TEXTS["1"]


@pytest.mark.parametrize(
    ("fault", "state", "why"),
    [
        (ModelFileError(Fault.DIGEST), "refused", "digest"),
        (ModelFileError(Fault.UNSIGNED), "refused", "unsigned"),
        (ModelFileError(Fault.UNREADABLE), "failed", "unreadable"),
        (Refusal(Reason.KEYS_DOWN), "failed", "keys_down"),
        (ModelFileError("no Triton", fault=Fault.TRITON), "failed", "triton"),
        (OSError(28, "No space left on device"), "failed", "no_room"),
        (MemoryError(), "failed", "no_memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "failed", "no_memory"),
        (KeyError(), "failed", "not_loaded"),
    ],
)
async def test_a_model_that_cannot_be_loaded_harms_nobody(opened, fault, state, why) -> None:
    versions = Versions("1")
    async with opened(versions) as world:
        versions.versions.append("2")
        versions.faults["2"] = fault
        loading = asyncio.ensure_future(world.take(LOAD, "2"))
        while not loading.done():
            assert await world.ask() == TEXTS["1"]
            await asyncio.sleep(0)
        found = (await loading).find("2")
        assert (found.state, found.why) == (state, why)
        assert world.book.of("model.refuse")[0]["rule"] == why

        del versions.faults["2"]
        await world.take(LOAD, "2")
        assert await world.state("2") == "warm"


async def test_a_load_that_failed_holds_nothing_of_what_it_read(opened) -> None:
    class Weights:
        pass

    class Damaged(Versions):
        def load(self, name, version, manifest):
            if version == "1":
                return super().load(name, version, manifest)
            read = Weights()
            held.append(weakref.ref(read))
            try:
                int("no number")
            except ValueError as error:
                raise ModelFileError(Fault.GGUF) from error

    held = []
    async with opened(Damaged("1")) as world:
        world.versions.versions.append("2")
        assert (await world.take(LOAD, "2")).find("2").why == "gguf"
        gc.collect()
        assert [each() for each in held] == [None]


async def test_a_version_that_never_says_the_same_is_not_warm(opened) -> None:
    versions = Versions("1")
    versions.fickle.add("2")
    async with opened(versions) as world:
        versions.versions.append("2")
        found = (await world.take(LOAD, "2")).find("2")

        assert (found.state, found.why) == ("failed", "not_deterministic")
        assert versions.made["2"].closed
        assert await world.refused(PROMOTE, "2") is Reason.WRONG_STATE


async def test_a_first_version_that_cannot_be_loaded_ends_the_start(opened) -> None:
    versions = Versions("1")
    versions.faults["1"] = ModelFileError(Fault.DIGEST)
    with pytest.raises(ModelFileError, match="wrong SHA-256"):
        async with opened(versions):
            pass


async def test_of_two_loads_at_once_one_is_turned_away(opened) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions += ["2", "3"]
        results = await asyncio.gather(
            world.take(LOAD, "2"), world.take(LOAD, "3"), return_exceptions=True
        )
        reasons = [each.reason for each in results if isinstance(each, Refusal)]

        assert reasons == [Reason.OVERLOADED]
        assert len(world.versions.loads) == 2  # the first start's, and one


async def test_a_call_under_way_ends_on_its_version(opened) -> None:
    versions = Versions("1")
    async with opened(versions) as world:
        versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(PROMOTE, "2")
        await world.take(ROLLBACK)
        await world.take(PROMOTE, "2")
        old, gate = versions.made["2"], asyncio.Event()
        old.gate = gate
        calls = [asyncio.ensure_future(world.ask()) for _ in range(3)]
        while world.desk.real_calls < 3:
            await asyncio.sleep(0)

        await world.take(ROLLBACK)
        await world.take(UNLOAD, "2")
        assert await world.ask() == TEXTS["1"]
        assert not old.closed
        gate.set()
        assert await asyncio.gather(*calls) == [TEXTS["2"]] * 3
        await world.desk.settled()
        assert old.closed


async def test_no_call_is_lost_while_versions_change_under_load(opened) -> None:
    async with opened(Versions("1"), linger_ms=5_000) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        over, answers = asyncio.Event(), []

        async def gateway(session):
            """As a gateway does it: a list that may be a moment old, then the call."""
            while not over.is_set():
                chosen = choose(await world.service.models(), world.scope(session))
                await asyncio.sleep(0.001)
                answers.append(await world.ask(session=session, digest=chosen.digest))

        callers = [asyncio.ensure_future(gateway(str(n))) for n in range(8)]
        for step in ((CANARY, "2"), (ROLLBACK, ""), (PROMOTE, "2"), (ROLLBACK, "")) * 5:
            await world.take(*step)
            more = len(answers) + 3 * len(callers)
            while len(answers) < more:
                assert not any(caller.done() for caller in callers), "a call is lost"
                await asyncio.sleep(0.001)
        over.set()
        await asyncio.gather(*callers)

    assert set(answers) == {TEXTS["1"], TEXTS["2"]}


async def test_errors_of_a_candidate_roll_it_back_and_count(opened) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(CANARY, "2", percent=99)
        before = counters().get("release.rollback.error_rate", 0)
        engine = world.versions.made["2"]
        digest = engine.info.digest
        engine.generate = failing
        for _ in range(3):
            with pytest.raises(Refusal):
                await world.ask(digest=digest)
        assert gauges()[f"release.canary_share.{NAME}"] == 0.99
        world.desk.tick()

        assert await world.state("2") == "warm"
        assert gauges()[f"release.canary_share.{NAME}"] == 0
        assert counters()["release.rollback.error_rate"] == before + 1
        assert world.book.of("model.rollback")[0]["rule"] == "error_rate"


async def failing(messages, parameters, *, context=None):
    for _ in ():
        yield _
    raise Refusal(Reason.INFERENCE_DOWN)


async def test_the_callers_own_faults_are_not_the_candidates(opened) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(CANARY, "2", percent=99)
        engine = world.versions.made["2"]

        async def picky(messages, parameters, *, context=None):
            for _ in ():
                yield _
            raise Refusal(Reason.INVALID_FIELD, field="messages")

        engine.generate = picky
        for _ in range(5):
            with suppress(Refusal):
                await world.ask(digest=engine.info.digest)
        world.desk.tick()
        (release,) = await world.desk.releases(NAME)

        assert (release.find("2").state, release.find("2").calls) == ("canary", 0)


async def test_a_dead_engine_ends_its_trial(opened) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(CANARY, "2", percent=50)
        world.versions.made["2"].down = True
        assert [info.version for info in await world.service.models()] == ["1"]
        world.desk.tick()

        assert (await world.desk.releases(NAME))[0].find("2").why == "down"
        assert {await world.ask(session=str(n)) for n in range(20)} == {TEXTS["1"]}


async def test_a_candidate_never_inherits_what_a_dead_live_version_leaves(opened) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(CANARY, "2", percent=1)
        world.versions.made["1"].down = True

        assert await world.service.models() == ()
        assert not world.service.healthy


async def test_a_shadow_is_asked_and_compared_and_heard_by_nobody(opened) -> None:
    async with opened(Versions("1"), shadow_samples_min=3, agreement_min=0.9) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(SHADOW, "2", percent=100)
        asked = world.versions.made["2"].asked
        for _ in range(4):
            assert await world.ask() == TEXTS["1"]
            await world.service.shadows.settled()
        (release,) = await world.desk.releases(NAME)

        assert world.versions.made["2"].asked == asked + 4
        assert release.shadow.calls == 4
        assert release.shadow.agreement == pytest.approx(agreement(TEXTS["1"], TEXTS["2"]))
        assert gauges()[f"release.shadow_agreement.{NAME}"] == release.shadow.agreement < 0.9
        assert release.find("2").calls == 0  # no call of its own

        await world.take(CANARY, "2", percent=1)
        world.desk.tick()
        assert await world.state("2") == "warm"
        assert world.book.of("model.rollback")[0]["rule"] == "drift"


async def test_shadows_go_first_when_there_is_much_to_do(opened) -> None:
    async with opened(Versions("1"), shadow_busy_max=2, shadow_running_max=1) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(SHADOW, "2", percent=100)
        live, shadow = world.versions.made["1"], world.versions.made["2"]
        shadow.gate = asyncio.Event()
        dropped = counters().get("release.shadow.dropped", 0)
        await world.ask()
        await world.ask()  # the one before it is still being repeated
        assert counters()["release.shadow.dropped"] == dropped + 1

        live.gate = asyncio.Event()
        calls = [asyncio.ensure_future(world.ask()) for _ in range(3)]
        await world.service.shadows.settled()
        assert counters()["release.shadow.dropped"] == dropped + 2
        live.gate.set()
        assert await asyncio.gather(*calls) == [TEXTS["1"]] * 3


async def test_a_restart_keeps_everything(opened, tmp_path) -> None:
    file = tmp_path / "releases.json"
    versions = Versions("1", "2", "3")
    versions.versions = ["1"]
    async with opened(versions, state_file=file) as world:
        versions.versions = ["1", "2", "3"]
        await world.take(LOAD, "2")
        await world.take(PROMOTE, "2")
        await world.take(LOAD, "3")
        await world.take(CANARY, "3", percent=40)
        await world.take(SHADOW, "3", percent=20)
        before = {n: await world.ask(session=str(n)) for n in range(20)}
    assert file.stat().st_mode & 0o777 == 0o600

    again = Versions("1", "2", "3")
    async with opened(again, state_file=file) as world:
        assert again.loads[0] == "2"  # who is live comes first
        await world.desk.settled()
        assert {n: await world.ask(session=str(n)) for n in range(20)} == before
        (release,) = await world.desk.releases(NAME)
        assert [(v.version, v.state) for v in release.versions] == [
            *(("1", "warm"), ("2", "live"), ("3", "canary"))
        ]
        assert (release.shadow.version, release.shadow.share) == ("3", 2_000)
        await world.take(ROLLBACK)
        await world.take(ROLLBACK)
        assert await world.ask() == TEXTS["1"]


async def test_a_model_that_is_named_later_begins_with_its_newest_version(
    make_settings, tmp_path
) -> None:
    class Two(Versions):
        def known(self):
            found = super().known()
            return [(name, *rest) for name in ("a", NAME) for _, *rest in found]

        def load(self, name, version, manifest):
            del manifest
            self.loads.append((name, version))
            return Spoken(version, TEXTS["1"])

    release = ReleaseSettings(state_file=tmp_path / "releases.json")
    for model, versions, newest in (("a", ("9", "10", "11"), "11"), (NAME, ("9", "10"), "10")):
        loader = Two(*versions)
        settings = make_settings(model=model, release=release)
        async with open_inference(settings, verify=None, loader=loader):
            assert loader.loads[-1] == (model, newest)


async def test_a_damaged_memory_is_refused_and_left_as_it_is(opened, tmp_path) -> None:
    file = tmp_path / "releases.json"
    async with opened(Versions("1"), state_file=file):
        pass
    told = json.loads(file.read_text())
    told["models"][0]["live"] = "9"
    file.write_text(json.dumps(told))
    damaged = file.read_bytes()

    with pytest.raises(MemoryInvalidError):
        async with opened(Versions("1"), state_file=file):
            pass
    assert file.read_bytes() == damaged


async def test_a_full_disk_under_the_memory_is_made_up_for(opened, tmp_path) -> None:
    file = tmp_path / "releases" / "releases.json"
    async with opened(Versions("1"), state_file=file) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        kept = file.read_bytes()
        failures = counters().get("release.not_kept", 0)
        file.parent.rename(tmp_path / "away")
        await world.take(PROMOTE, "2")
        assert await world.ask() == TEXTS["2"]
        assert counters()["release.not_kept"] > failures

        (tmp_path / "away").rename(file.parent)
        assert file.read_bytes() == kept
        world.desk.tick()
        assert json.loads(file.read_text())["models"][0]["live"] == "2"


async def test_a_changed_manifest_under_a_known_version_is_refused(opened, tmp_path) -> None:
    file = tmp_path / "releases.json"
    async with opened(Versions("1"), state_file=file) as world:
        world.versions.versions.append("2")
        await world.desk.releases()

    class Changed(Versions):
        def known(self):
            return [(n, v, m if v == "1" else b"x" * 32) for n, v, m in super().known()]

    async with opened(Changed("1", "2"), state_file=file) as world:
        assert await world.refused(LOAD, "2") is Reason.WRONG_STATE
        assert await world.state("2") == "refused"


@pytest.mark.parametrize(
    ("left", "right", "value"),
    [("same", "same", 1), ("", "", 1), ("", "x", 0), ("abc", "xyz", 0), ("abcd", "abxd", 0.75)],
)
def test_agreement_is_of_characters_in_order(left, right, value) -> None:
    assert agreement(left, right) == agreement(right, left) == value


@pytest.mark.parametrize(
    ("answer", "is_one"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I\u2019m unable to answer.", True),
        ("As an AI language model, I have no body.", True),
        ("抱歉，我无法回答这个问题。", True),
        ("Water is wet. I can tell you more.", False),
        ("The company is sorry for the delay.", False),
        ("水是一种化合物。", False),
    ],
)
def test_a_refusal_reads_like_one(answer, is_one) -> None:
    assert refuses(answer) is is_one
    assert compare("Yes.", answer, live_s=1, candidate_s=2).refused_candidate is is_one


async def test_a_start_without_keys_changes_nothing_that_is_remembered(opened, tmp_path) -> None:
    file, versions = tmp_path / "releases.json", Versions("1")
    async with opened(versions, state_file=file) as world:
        versions.versions = ["1", "2", "3"]
        await world.take(LOAD, "2")
        await world.take(PROMOTE, "2")
    kept = file.read_bytes()

    sealed = Versions("1", "2", "3")
    sealed.faults = dict.fromkeys("123", Refusal(Reason.KEYS_DOWN))
    with pytest.raises(Refusal):
        async with opened(sealed, state_file=file):
            pass
    assert file.read_bytes() == kept

    async with opened(Versions("1", "2", "3"), state_file=file) as world:
        assert await world.ask() == TEXTS["2"]  # not 3, which nobody has released


async def test_an_engine_that_breaks_while_it_warms_up_harms_nobody(opened) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions += ["2", "3"]
        load = world.versions.load

        def broken(name, version, manifest):
            engine = load(name, version, manifest)
            if version == "2":
                engine.generate = breaking
            return engine

        world.versions.load = broken
        found = (await world.take(LOAD, "2")).find("2")
        assert (found.state, found.why, found.loading) == ("failed", "not_loaded", False)
        assert world.versions.made["2"].closed

        await world.take(LOAD, "3")
        assert await world.state("3") == "warm"
        assert await world.ask() == TEXTS["1"]


async def breaking(messages, parameters, *, context=None):
    for _ in ():
        yield _
    raise RuntimeError(messages[0].content)


async def test_a_shadow_that_breaks_says_nothing_of_the_prompt(opened, caplog) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(SHADOW, "2", percent=100)
        world.versions.made["2"].generate = breaking
        failed = counters().get("release.shadow.failed", 0)
        with capture_logs() as told:
            assert await world.ask() == TEXTS["1"]
            await world.service.shadows.settled()
            await asyncio.sleep(0)
            gc.collect()  # asyncio tells of an error nobody looked at when its task is gone

        assert counters()["release.shadow.failed"] == failed + 1
        assert [line["kind"] for line in told if line["event"] == "releases.shadow_bug"] == [
            "RuntimeError"
        ]
        assert ASK[0].content not in caplog.text + str(told)


async def test_no_step_gives_traffic_to_an_engine_that_has_ended(opened) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        world.versions.made["2"].down = True
        world.desk.tick()
        for kind in (PROMOTE, CANARY):
            assert await world.refused(kind, "2") is Reason.WRONG_STATE

        assert await world.ask() == TEXTS["1"]
        world.versions.made["2"].down = False
        await world.take(PROMOTE, "2")
        assert await world.ask() == TEXTS["2"]


async def test_a_model_that_changes_behind_its_engine_answers_nobody(opened) -> None:
    async with opened(Versions("1")) as world:
        world.versions.versions.append("2")
        await world.take(LOAD, "2")
        await world.take(CANARY, "2", percent=50)
        engine = world.versions.made["2"]
        promised = engine.info.digest
        engine._info = replace(engine.info, digest=b"z" * 32)
        for digest in (promised, engine.info.digest):
            with pytest.raises(Refusal) as caught:
                await world.ask(digest=digest)
            assert caught.value.reason is Reason.INFERENCE_DOWN
        assert world.desk.real_calls == 0
        assert [info.version for info in await world.service.models()] == ["1"]

        world.desk.tick()
        assert await world.state("2") == "warm"
        assert await world.refused(PROMOTE, "2") is Reason.WRONG_STATE


async def test_who_reads_slowly_makes_no_version_slow(opened) -> None:
    async with opened(Versions("1")) as world:
        began_s = time.perf_counter()
        source = world.service.generate(world.scope(), NAME, world._screened(ASK), Parameters())
        async for _ in source:
            await asyncio.sleep(0.05)
        took_s = time.perf_counter() - began_s
        (release,) = await world.desk.releases(NAME)

        assert release.find("1").calls == 1
        assert release.find("1").p99_s < took_s - 0.05
