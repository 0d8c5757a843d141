"""What metrics tell of a model's release, for as long as a block runs."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from inference.release.showing import canary_share, shadow_agreement, versions_in
from inference.release.states import State
from meshkit.counters import measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inference.release.core import Releases

__all__ = ["model_measured"]


@contextmanager
def model_measured(core: Releases, name: str, clock: Callable[[], float]) -> Iterator[None]:
    """Have versions by state, the trial's share and the shadow's agreement read by metrics."""

    def agreement() -> float:
        return shadow_agreement(core, name, clock())

    with ExitStack() as owned:
        for state in State:
            read = partial(versions_in, core, name, state)
            owned.enter_context(measured(f"release.versions.{state.value}.{name}", read))
        share = partial(canary_share, core, name)
        owned.enter_context(measured(f"release.canary_share.{name}", share))
        owned.enter_context(measured(f"release.shadow_agreement.{name}", agreement))
        yield
