"""Does what the core decides: loads, warms, unloads, remembers, tells. Holds the engines.

    desk = Desk(Releases(rules, new_key), settings, loader=loader, keep=keep)
    await desk.begin("smollm2-135m-instruct")
    async with desk.running():
        ...

A version that cannot be loaded is told as such and stands as `failed` or `refused`; whatever else
is loaded goes on.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from inference.release.gauges import model_measured
from inference.release.loading import NOT_LOADED, why_not
from inference.release.memory import written
from inference.release.showing import shown
from inference.release.states import Load, Note, State, Unload, Warm
from inference.release.warming import answers_beside, fault_in_warming
from inference.store.errors import Fault, ModelFileError
from meshkit.background import running
from meshkit.contract import PER_WHOLE, Reason, Refusal, StepKind
from meshkit.counters import counted
from meshkit.logs import frames_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from inference.engines.base import Engine
    from inference.release.core import Releases
    from inference.release.loading import Loader
    from inference.release.settings import ReleaseSettings
    from inference.release.states import Decision, Model, Version
    from meshkit.contract import ModelInfo, Release, ReleaseStep

__all__ = ["Desk"]

log = structlog.get_logger()

_TICK_S = 1.0
_NOTES_MAX = 1_024
_REFUSED = frozenset(
    {Fault.MANIFEST, Fault.MISPLACED, Fault.SIZE, Fault.DIGEST, Fault.UNSIGNED, Fault.SIGNATURE}
    | {Fault.RISK, Fault.CLASSIFICATION, Fault.SEAL, Fault.PICKLE, Fault.LINK, Fault.PATH}
)
"""Faults of the model itself; with others another try may do better."""


class Desk:
    """Implements `meshkit.contract.ReleaseDesk`, in one event loop.

    Args:
        releases: The core.
        settings: For warm-up.
        loader: Where engines come from; None: there are those that are adopted.
        keep: Makes what is to be remembered durable; may raise OSError. None: nobody remembers.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        releases: Releases,
        settings: ReleaseSettings,
        *,
        loader: Loader | None = None,
        keep: Callable[[bytes], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.core = releases
        self.engines: dict[tuple[str, str], Engine] = {}
        self.faults: dict[tuple[str, str], Exception] = {}
        self._settings = settings
        self._loader = loader
        self._keep = keep
        self._kept, self._unkept = b"", False
        self._answers = answers_beside(settings.state_file)
        self._clock = clock
        self._tell: Callable[[Note], None] | None = None
        self._untold: list[Note] = []
        self._down: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._measuring = ExitStack()
        self._measured: set[str] = set()
        self._moved = asyncio.Event()

    # --- for calls ----------------------------------------------------------------------------

    def listed(self) -> tuple[ModelInfo, ...]:
        """Return what gets traffic now, a version an entry, the live one of a name last."""
        return tuple(info for name in self.core.models for info in self.listed_of(name))

    def listed_of(self, name: str) -> list[ModelInfo]:
        """Return the versions of a name that get traffic; none, if too few could answer it."""
        model = self.core.models.get(name)
        key = model.canary.key if model and model.canary else b""
        found = []
        for version, share in self.core.shares(name):
            if not self._is_up(name, version):
                continue
            engine = self.engines[name, version.version]
            state = version.state.value
            told = {"version": version.version, "state": state, "share": share, "split_key": key}
            found.append(replace(engine.info, **told))  # type: ignore[arg-type] # fields of it
        whole = not found or found[-1].state == State.LIVE or found[-1].share == PER_WHOLE
        return found if whole else []

    def began(self, name: str, digest: bytes) -> str:
        """Begin a call on the version of this digest. Raises Refusal: INFERENCE_DOWN."""
        version = self.core.began(name, digest, self._clock())
        if version is None:
            raise Refusal(Reason.INFERENCE_DOWN)
        if self.engines[name, version].info.digest != digest:
            self.do(self.core.ended(name, version, None, self._clock()))
            raise Refusal(Reason.INFERENCE_DOWN)
        return version

    def _is_up(self, name: str, version: Version) -> bool:
        """Whether its engine works, and is what was loaded: in a Triton that may change."""
        engine = self.engines[name, version.version]
        return engine.healthy and engine.info.digest == version.digest

    def _at(self, name: str, version: str) -> Version:
        return self.core.models[name].versions[version]

    def now_s(self) -> float:
        """Return the time: seconds since 1970."""
        return self._clock()

    @property
    def real_calls(self) -> int:
        """How many calls are under way, of all versions."""
        return sum(
            version.in_flight
            for model in self.core.models.values()
            for version in model.versions.values()
        )

    # --- for those who look after models --------------------------------------------------------

    async def releases(self, model: str = "") -> tuple[Release, ...]:
        """See `meshkit.contract.ReleaseDesk.releases`."""
        await self._look()
        now_s = self._clock()
        if model and model not in self.core.models:
            raise Refusal(Reason.NOT_FOUND)
        wanted = [model] if model else sorted(self.core.models)
        return tuple(shown(self.core, name, now_s) for name in wanted)

    async def take(self, step: ReleaseStep) -> Release:
        """See `meshkit.contract.ReleaseDesk.take`."""
        if step.kind is StepKind.LOAD:
            await self._look()
        now_s = self._clock()
        if step.kind in {StepKind.CANARY, StepKind.PROMOTE}:
            place = (step.model, step.version)
            if place in self.engines and not self._is_up(step.model, self._at(*place)):
                raise Refusal(Reason.WRONG_STATE)  # warm it was; now it would answer nobody
        self.do(self._decided(step, now_s))
        self._remember()
        return shown(self.core, step.model, now_s)

    def _decided(self, step: ReleaseStep, now_s: float) -> list[Decision]:
        core, name, version = self.core, step.model, step.version
        match step.kind:
            case StepKind.LOAD:
                return core.load(name, version)
            case StepKind.UNLOAD:
                return core.unload(name, version, now_s)
            case StepKind.PROMOTE:
                return core.promote(name, version, now_s)
            case StepKind.ROLLBACK:
                return core.rollback(name, now_s)
            case StepKind.SHADOW:
                return core.shadow(name, version, step.percent)
            case StepKind.CANARY:
                return core.canary(
                    name,
                    version,
                    percent=step.percent,
                    replicas=step.replicas,
                    for_s=float(step.seconds),
                    now_s=now_s,
                )

    # --- life ---------------------------------------------------------------------------------

    def adopt(self, engines: Iterable[Engine]) -> None:
        """Take engines over that run already; each is the live version of its name."""
        for engine in engines:
            name, version = engine.info.name, engine.info.version or "1"
            self.engines[name, version] = engine
            self.core.adopt(name, version, engine.info.digest)
            told = {"model": name, "version": version, "digest": engine.info.digest.hex()}
            self.note(Note("model.load", name, version, told))

    async def begin(self, name: str) -> None:
        """Load what was loaded before, or else the newest version of `name`; wait for the live one.

        Raises:
            ModelFileError, Refusal, OSError: no version of `name` could be loaded. What is
                remembered stays as it was: keys may be back at the next start.
        """
        keep, self._keep = self._keep, None
        self.core.own = name
        await self._live(name)
        self._keep = keep
        self._remember()

    async def _live(self, name: str) -> None:
        await self._look(quiet=True)
        self.do(self.core.again())
        model = self.core.models.get(name)
        if model is None or not model.versions:
            raise ModelFileError(Fault.NOT_FOUND)
        if not model.live:
            self.do(self.core.first(name, await self._first_of(model)))
        while (
            model.live not in model.versions or model.versions[model.live].state is not State.LIVE
        ):
            if not self._tasks:
                raise self._fault_of(name)
            self._moved.clear()
            await self._moved.wait()

    async def _first_of(self, model: Model) -> str:
        """Return the version to begin with. Raises ModelFileError: NOT_FOUND, MANIFEST."""
        if chosen := self._settings.first_version:
            if chosen not in model.versions:
                raise ModelFileError(Fault.NOT_FOUND)
            return chosen
        assert self._loader is not None
        newest = await asyncio.to_thread(self._loader.newest, model.name)
        if newest not in model.versions:  # which an older one shall not pass for
            raise ModelFileError(Fault.MANIFEST)
        return newest

    def _fault_of(self, name: str) -> Exception:
        faults = [fault for (named, _), fault in self.faults.items() if named == name]
        return faults[-1] if faults else ModelFileError(Fault.NOT_FOUND)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look at clocks and windows while the block runs; then close every engine."""
        try:
            async with running(self._ticking(), "releases"):
                yield
        finally:
            await self.close()

    async def close(self) -> None:
        """Close what is loaded, and what is being loaded as soon as it is."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        for engine in self.engines.values():
            await engine.close()
        self.engines.clear()
        self._measuring.close()

    def telling(self, tell: Callable[[Note], None]) -> None:
        """Have notes told from now on, and those first that nobody heard."""
        self._tell = tell
        untold, self._untold = self._untold, []
        for note in untold:
            tell(note)

    async def settled(self) -> None:
        """Wait until nothing is being loaded or closed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def tick(self) -> None:
        """Look at engines, clocks and windows."""
        now_s = self._clock()
        for name, version in list(self.engines):
            if self._is_up(name, self._at(name, version)):
                self._down.discard((name, version))
            elif (name, version) not in self._down:
                self._down.add((name, version))
                self.do(self.core.down(name, version, now_s))
        self.do(self.core.tick(now_s))
        if self._unkept:
            self._remember()

    async def _ticking(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.tick()

    # --- doing --------------------------------------------------------------------------------

    def do(self, decisions: list[Decision]) -> None:
        """Do what was decided; what takes time goes on in the background."""
        if not decisions:
            return
        for decision in decisions:
            match decision:
                case Load():
                    self._start(self._load(decision))
                case Warm():
                    self._start(self._warm(decision))
                case Unload():
                    engine = self.engines.pop((decision.name, decision.version))
                    self._start(engine.close())
                case Note():
                    self.note(decision)
        self._remember()
        self._moved.set()

    def _start(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload] # coroutines, all of them
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._moved.set()
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("releases.bug", kind=type(bug).__name__, frames=frames_of(bug))

    async def _load(self, asked: Load) -> None:
        assert self._loader is not None
        place = (asked.name, asked.version)
        try:
            engine = await asyncio.to_thread(self._loader.load, *place, asked.manifest)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the live version goes on
            self._failed(place, error)
            return
        self.faults.pop(place, None)
        self.engines[place] = engine
        self.do(self.core.loaded(*place, engine.info.digest))

    def _failed(self, place: tuple[str, str], error: Exception) -> None:
        frames, why = frames_of(error), why_not(error)
        refused = isinstance(error, ModelFileError) and error.fault in _REFUSED
        # Their frames would hold what was loaded.
        error.__cause__ = error.__context__ = None
        self.faults[place] = error.with_traceback(None)
        if why == NOT_LOADED:
            log.error("releases.load_failed", kind=type(error).__name__, frames=frames)
        self.do(self.core.failed(*place, why, self._clock(), refused=refused))

    async def _warm(self, asked: Warm) -> None:
        place = (asked.name, asked.version)
        try:
            fault = await fault_in_warming(
                self.engines[place],
                tokens=self._settings.warm_tokens,
                timeout_s=self._settings.warm_timeout_ms / 1_000,
                state=self._answers,
            )
        except Exception as error:  # noqa: BLE001 -- as in loading
            self._failed(place, error)
            return
        if fault:
            self.faults[place] = ModelFileError(f"the model did not warm up: {fault}")
            self.do(self.core.failed(*place, fault, self._clock()))
        else:
            self.do(self.core.warmed(*place, self._clock()))

    async def _look(self, *, quiet: bool = False) -> None:
        """See which versions there are now."""
        if self._loader is None:
            return
        for name, version, manifest in await asyncio.to_thread(self._loader.known):
            self.do(self.core.register(name, version, manifest, quiet=quiet))

    def note(self, note: Note) -> None:
        """Have something told; kept until somebody hears, as far as there is room."""
        if note.action == "model.rollback":
            rule = note.detail.get("rule", "operator")
            counted(f"release.rollback.{rule}")
            if rule != "operator":
                counted("release.rolled_back")
        if self._tell is not None:
            self._tell(note)
        elif len(self._untold) < _NOTES_MAX:
            self._untold.append(note)

    def _remember(self) -> None:
        """Make durable what changed; what could not be written is tried again each second."""
        for name in self.core.models.keys() - self._measured:
            self._measured.add(name)
            self._measuring.enter_context(model_measured(self.core, name, self._clock))
        if self._keep is None or (now := written(self.core)) == self._kept:
            return
        try:
            self._keep(now)
            self._kept, self._unkept = now, False
        except OSError as error:
            self._unkept = True
            counted("release.not_kept")
            log.error("releases.not_kept", errno=error.errno)  # noqa: TRY400 -- no text
