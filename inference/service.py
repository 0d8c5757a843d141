"""The inference service: `meshkit.contract.Inference` over engines.

    async with open_inference(settings, verify=mac_verifier(lambda: keys)) as inference:
        async for item in inference.generate(scope, "smollm2-135m-instruct", screened, parameters):
            ...

Nothing reaches a model whose screening MAC does not hold for this tenant and call.
"""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from inference.contexts import Contexts
from inference.embedding import Embedders, embedders_of
from inference.model_notes import refusals_noted
from inference.release.core import Releases
from inference.release.desk import Desk
from inference.release.loading import StoreLoader
from inference.release.memory import remembered
from inference.release.settings import ReleaseSettings
from inference.release.shadowing import Answered, Shadows, is_sampled
from inference.release.windows import Sample
from inference.store.store import ModelStore
from meshkit.contract import Ended, Reason, Refusal, choose
from meshkit.counters import observed
from meshkit.files import read_or_none, write_private

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
    from pathlib import Path

    from inference.engines.base import Engine
    from inference.release.loading import Loader
    from inference.release.windows import Comparison
    from inference.settings import InferenceSettings
    from inference.store.keys import ModelKeys
    from meshkit.contract import Embedded, Generated, ModelInfo, Parameters, Scope, Screened
    from meshkit.journal import Journal
    from meshkit.screening_mac import Verify

__all__ = ["InferenceService", "open_inference"]

_KEY_BYTES = 16
_OWN_FAULTS = frozenset({Reason.INFERENCE_DOWN, Reason.INTERNAL})
"""Refusals that speak against the version that gave them."""


@dataclass(slots=True)
class _Served:
    """One call on one version, and what became of it.

    held_s: How long the caller took over what it was given: no slowness of the version's.
    """

    name: str
    version: str
    began_s: float
    ended: str = Reason.CANCELLED.name
    tokens: int = 0
    held_s: float = 0.0
    first: bool = True
    failed: bool = False
    answered: Answered | None = None

    def came(self, item: Generated | Ended) -> None:
        """Note what the engine gave."""
        if self.first:
            observed(f"gen_ai.first_token.{self.name}", time.perf_counter() - self.began_s)
            self.first = False
        if isinstance(item, Ended):
            self.ended, self.tokens = "", item.usage.completion_tokens
        elif self.answered is not None:
            self.answered.add(item.text)

    @property
    def took_s(self) -> float:
        """How long the version has worked on it."""
        return time.perf_counter() - self.began_s - self.held_s

    @property
    def sample(self) -> Sample | None:
        """What it says of the version; None if it says nothing."""
        if not self.failed and self.ended:
            return None
        return Sample(self.took_s, self.tokens, self.failed)


class InferenceService:
    """Implements `meshkit.contract.Inference`.

    Args:
        engines: Run already; each is the live version of its name.
        verify: Whether compliance vouches for a prompt.
        contexts: What engines are told of who asks.
        desk: Of releases; None: `engines` are all there is.
        settings: How shadows are bounded.
        embedders: Models that turn texts into vectors; None: there are none.
    """

    def __init__(
        self,
        engines: Sequence[Engine] = (),
        *,
        verify: Verify,
        contexts: Contexts | None = None,
        desk: Desk | None = None,
        settings: ReleaseSettings | None = None,
        embedders: Embedders | None = None,
    ) -> None:
        limits = settings or ReleaseSettings()
        self.desk = desk or Desk(Releases(limits.rules, _new_key), limits)
        self.desk.adopt(engines)
        self.shadows = Shadows(
            running_max=limits.shadow_running_max,
            busy_max=limits.shadow_busy_max,
            timeout_s=limits.shadow_timeout_ms / 1_000,
        )
        self._embedders = embedders or Embedders()
        self._verify = verify
        self._contexts = contexts or Contexts()

    @property
    def healthy(self) -> bool:
        """Whether every model can be asked."""
        return self._embedders.healthy and all(
            self.desk.listed_of(name) for name in self.desk.core.models if self._lives(name)
        )

    def _lives(self, name: str) -> bool:
        return bool(self.desk.core.models[name].live)

    @property
    def generated_tokens(self) -> int:
        """Tokens generated since the start, by all engines that are loaded."""
        return sum(engine.generated_tokens for engine in self.desk.engines.values())

    @property
    def embedding_models(self) -> tuple[ModelInfo, ...]:
        """Models that turn texts into vectors: loaded as long as the service is."""
        return tuple(engine.info for engine in self._embedders.engines.values())

    async def embed(self, scope: Scope, model: str, screened: Screened) -> Embedded:
        """See `meshkit.contract.Inference.embed`."""
        began_s, ended = time.perf_counter(), Reason.CANCELLED.name
        try:
            embedded = await self._embedders.embed(scope, model, screened, self._verify)
            ended = ""
        except Refusal as refusal:
            ended = refusal.reason.name
            raise
        finally:
            if model in self._embedders.engines:
                observed(f"gen_ai.request.{ended}.{model}", time.perf_counter() - began_s)
        return embedded

    async def models(self) -> tuple[ModelInfo, ...]:
        """List what gets traffic and can be asked."""
        return self.desk.listed()

    async def generate(
        self,
        scope: Scope,
        model: str,
        screened: Screened,
        parameters: Parameters,
        *,
        digest: bytes = b"",
    ) -> AsyncGenerator[Generated | Ended, None]:
        """See `meshkit.contract.Inference.generate`."""
        if model not in self.desk.core.models:
            raise Refusal(Reason.NOT_FOUND)
        if not self._verify(scope, screened):
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        served = self._begin(scope, model, digest)
        engine = self.desk.engines[model, served.version]
        context = self._contexts.of(scope)
        if self._shadowed(scope, served):
            # Nobody reads what a shadow says, so nobody waits for so much of it.
            alone = replace(context, wanted=None)
            served.answered = Answered(screened.messages, parameters, alone)
        try:
            async with aclosing(
                engine.generate(screened.messages, parameters, context=context)
            ) as items:
                async for item in items:
                    served.came(item)
                    given_s = time.perf_counter()
                    yield item
                    served.held_s += time.perf_counter() - given_s
        except Refusal as refusal:
            served.ended, served.failed = refusal.reason.name, refusal.reason in _OWN_FAULTS
            raise
        except Exception:
            served.failed = True
            raise
        finally:
            self._end(served)

    def _begin(self, scope: Scope, model: str, digest: bytes) -> _Served:
        if not digest:
            versions = self.desk.listed_of(model)
            if not versions:
                raise Refusal(Reason.INFERENCE_DOWN)
            digest = choose(versions, scope).digest
        version = self.desk.began(model, digest)
        self.shadows.make_way(self.desk.real_calls)
        return _Served(model, version, time.perf_counter())

    def _shadowed(self, scope: Scope, served: _Served) -> bool:
        """Whether this call is to be repeated: one of the live version's, and of the sample."""
        known = self.desk.core.models[served.name]
        shadow = known.shadow
        if shadow is None or served.version != known.live:
            return False
        loaded = (served.name, shadow.version) in self.desk.engines
        return (
            loaded
            and known.versions[shadow.version].ready
            and is_sampled(scope.call_id, shadow.share)
        )

    def _end(self, served: _Served) -> None:
        took_s = served.took_s
        observed(f"gen_ai.request.{served.ended}.{served.name}", took_s + served.held_s)
        desk, now_s = self.desk, self.desk.now_s()
        desk.do(desk.core.ended(served.name, served.version, served.sample, now_s))
        if served.answered is not None and not served.ended:
            served.answered.took_s = took_s
            self._follow(served, served.answered)

    def _follow(self, served: _Served, answered: Answered) -> None:
        shadow = self.desk.core.models[served.name].shadow
        if shadow is None:
            return
        engine = self.desk.engines.get((served.name, shadow.version))
        if engine is None:
            return
        core, now_s = self.desk.core, self.desk.now_s

        def tell(comparison: Comparison) -> None:
            core.compared(served.name, shadow.version, comparison, now_s())

        self.shadows.follow(answered, engine, tell, self.desk.real_calls)


@asynccontextmanager
async def open_inference(
    settings: InferenceSettings,
    *,
    verify: Verify,
    keys: ModelKeys | None = None,
    loader: Loader | None = None,
    journal: Journal | None = None,
) -> AsyncIterator[InferenceService]:
    """Load what was loaded before, or the configured model, and serve it while the block runs.

    Args:
        settings: The service's.
        verify: Whether compliance vouches for a prompt.
        keys: Whose signatures on models count, and who unwraps sealed ones; None: nobody.
        loader: Where versions come from; None: the store under `models_dir`.
        journal: Told of what was refused, if nothing can be served; else see `models_noted`.

    Raises:
        ModelFileError: weights missing or not the pinned ones.
        MemoryInvalidError: the file of releases is damaged.
        Refusal: KEYS_DOWN.
        OSError: the file of releases cannot be read.
    """
    release, file = settings.release, settings.release.state_file
    store = ModelStore(settings.models_dir, keys, settings.store_rules)
    desk = Desk(
        _core_of(release),
        release,
        loader=loader or StoreLoader(settings, store),
        keep=_keeping(file) if file is not None else None,
    )
    contexts = Contexts(share=settings.prefix_share, priorities=settings.tenant_priorities)
    async with AsyncExitStack() as owned:
        await owned.enter_async_context(desk.running())
        with refusals_noted(journal, desk):
            embedders = await owned.enter_async_context(embedders_of(settings, store, desk.note))
            await desk.begin(settings.model)
        service = InferenceService(
            verify=verify, contexts=contexts, desk=desk, settings=release, embedders=embedders
        )
        try:
            yield service
        finally:
            await service.shadows.close()


def _core_of(settings: ReleaseSettings) -> Releases:
    raw = read_or_none(settings.state_file) if settings.state_file is not None else None
    if raw is None:
        return Releases(settings.rules, _new_key)
    return remembered(raw, settings.rules, _new_key)


def _keeping(file: Path) -> Callable[[bytes], None]:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return partial(write_private, file)


def _new_key() -> bytes:
    return os.urandom(_KEY_BYTES)
