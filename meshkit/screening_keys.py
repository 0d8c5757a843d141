"""The keys behind screening MACs, as a service of the mesh sees them: read again and again.

    async with watched_screening_keys(vault, Watching()) as keys:
        keys().verify(...)

The operator rotates the key; every holder reads the newest version and the one before it, each at
its own time. So that nobody meets a tag of a version it has not read yet, compliance goes on
tagging with the older key until `settle_s` after it first saw the newer: by then all have read it.
While OpenBao is away, what was read serves on: an older key vouches as well as a newer one.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, model_validator

from meshkit.background import running
from meshkit.contract import Refusal
from meshkit.counters import counted
from meshkit.screening_mac import MacKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from meshkit.vault import Secret, Vault

__all__ = ["SECRET", "Watching", "watched_screening_keys"]

log = structlog.get_logger()

SECRET = "screening-mac"  # noqa: S105 -- its name, not its value


class Watching(BaseModel):
    """How often the keys are read, nested in a service's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    every_s: float = Field(default=20.0, gt=0, description="Between two reads.")
    settle_s: float = Field(
        default=60.0, ge=0, description="A new key verifies at once but tags only after so long."
    )

    @model_validator(mode="after")
    def others_have_read_it_by_then(self) -> Self:
        """Else a tag could arrive before its key does."""
        if self.settle_s < 2 * self.every_s:
            msg = f"settle_s={self.settle_s} is less than twice every_s={self.every_s}"
            raise ValueError(msg)
        return self


@dataclass(slots=True)
class _Held:
    """The versions at hand, and since when the newest has been."""

    secret: Secret
    settle_s: float
    since_s: float = field(default_factory=time.monotonic)
    _settling: MacKeys = field(init=False)
    _settled: MacKeys = field(init=False)

    def __post_init__(self) -> None:
        self._prepare()

    def _prepare(self) -> None:
        """Have ready what `keys` returns: it is asked several times a call."""
        versions = self.secret.values
        self._settling = MacKeys(versions, min(versions))
        self._settled = MacKeys(versions, self.secret.current)

    def take(self, secret: Secret) -> None:
        """Take what was read just now."""
        if secret.current != self.secret.current:
            self.since_s = time.monotonic()
            log.info("screening_keys.rotated", version=secret.current)
        self.secret = secret
        self._prepare()

    def keys(self) -> MacKeys:
        """Return both versions; the older one tags while the newer is settling."""
        settled = time.monotonic() - self.since_s >= self.settle_s
        return self._settled if settled else self._settling


@asynccontextmanager
async def watched_screening_keys(
    keys: Vault, settings: Watching
) -> AsyncIterator[Callable[[], MacKeys]]:
    """Yield a function that returns the accepted versions of now.

    Raises:
        VaultDown: the first ones cannot be read.
    """
    held = _Held(await keys.secret(SECRET), settings.settle_s)
    async with running(_watch(keys, held, settings.every_s), "screening-keys"):
        yield held.keys


async def _watch(keys: Vault, held: _Held, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            held.take(await keys.secret(SECRET))
        except Refusal as failure:
            counted("screening_keys.not_read")
            log.warning("screening_keys.not_read", kind=type(failure).__name__)
