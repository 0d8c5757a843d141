"""Which data keys the process holds, and what each may still be used for. No I/O.

fresh     OpenBao vouched for it less than `fresh_s` ago          seals and opens
stale     less than `stale_s` ago, and OpenBao is away since      seals
full      `records_max` or `bytes_max` are under it               opens
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from meshkit.wrapped_keys import DAY_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshkit.wrapped_keys import WrappedKey

__all__ = ["DAY_S", "PER_SUBJECT", "Clock", "Held", "HeldKeys", "KeyringSettings", "Place", "Slot"]

PER_SUBJECT = "s-"
"""How purposes begin that are of one person's data: most will not be back tomorrow, so their keys
are made when they are needed, not ahead."""

Slot = tuple[str, str, int]
"""Tenant, purpose, day: what is sealed under one key."""
Place = tuple[str, str, bytes]
"""Tenant, purpose, key id: tenants cannot share an entry."""


class KeyringSettings(BaseModel):
    """How long and how much the process holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fresh_s: float = Field(default=300, gt=0, description="Seals and opens; revocation latency.")
    stale_s: float = Field(default=900, gt=0, description="Seals, while OpenBao is away.")
    refresh_at: float = Field(default=0.8, gt=0, lt=1, description="Part of fresh_s.")
    refresh_jitter: float = Field(
        default=0.1, ge=0, lt=1, description="Part of that by which a key may be confirmed earlier."
    )
    ahead_s: float = Field(default=3_600, ge=0, description="Before midnight UTC.")
    tick_s: float = Field(default=5, gt=0, description="Between looks at what is due.")
    hold_off_s: float = Field(default=1, ge=0, description="No asking after OpenBao was away.")
    keys_max: int = Field(default=4_096, gt=0, description="Beyond it the least used goes.")
    records_max: int = Field(default=2**20, gt=0, description="Under one key; then a new one.")
    bytes_max: int = Field(default=2**30, gt=0, description="Under one key; then a new one.")


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, so that a test can have its own: `wall_s` since 1970, `steady_s` since whenever."""

    wall_s: Callable[[], float] = time.time
    steady_s: Callable[[], float] = time.monotonic

    def today(self) -> int:
        """Days since 1970-01-01 UTC."""
        return int(self.wall_s() // DAY_S)

    def until_midnight_s(self) -> float:
        """Seconds until the next day, UTC."""
        return DAY_S - self.wall_s() % DAY_S


@dataclass(slots=True)
class Held:
    """A data key in this process. `plaintext` is its only secret."""

    wrapped: WrappedKey
    plaintext: bytes = field(repr=False)
    confirmed_s: float
    """When OpenBao last vouched for it, by the steady clock."""
    used_s: float
    records: int = 0
    octets: int = 0
    sooner: float = 0.0
    """By which part of the wait it is confirmed earlier: drawn anew each time, so that many keys
    made together are not confirmed together."""
    away: bool = False
    """The last try to confirm it found OpenBao away."""

    @property
    def place(self) -> Place:
        """Where it is held."""
        return self.wrapped.tenant, self.wrapped.purpose, self.wrapped.key_id


class HeldKeys:
    """The keys, and the rules above."""

    def __init__(self, settings: KeyringSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._at: dict[Place, Held] = {}
        self._sealing: dict[Slot, Held] = {}

    def __len__(self) -> int:
        return len(self._at)

    def sealing(self, slot: Slot) -> Held | None:
        """Return the key that a slot's records are sealed under, whether or not it still may."""
        return self._sealing.get(slot)

    def at(self, place: Place) -> Held | None:
        """Return a key, whether or not it still may be used."""
        return self._at.get(place)

    def hold(self, wrapped: WrappedKey, plaintext: bytes) -> Held:
        """Hold a key that OpenBao just gave; the least used makes room."""
        now = self._clock.steady_s()
        held = Held(wrapped, plaintext, confirmed_s=now, used_s=now, sooner=self._sooner())
        self._at[held.place] = held
        if len(self._at) > self._settings.keys_max:
            least = min(self._at.values(), key=lambda one: one.used_s)
            self.forget(lambda key: key is least.wrapped)
        return held

    def seal_with(self, held: Held) -> None:
        """Let a held key be the one its slot seals under."""
        key = held.wrapped
        self._sealing[key.tenant, key.purpose, key.day] = held

    def confirm(self, held: Held) -> None:
        """OpenBao vouched for a key again."""
        held.confirmed_s = self._clock.steady_s()
        held.sooner = self._sooner()
        held.away = False

    def forget(self, goes: Callable[[WrappedKey], bool]) -> None:
        """Hold some keys no longer."""
        self._at = {at: one for at, one in self._at.items() if not goes(one.wrapped)}
        self._sealing = {at: one for at, one in self._sealing.items() if not goes(one.wrapped)}

    def count(self, held: Held, octets: int) -> None:
        """A record of so many bytes is sealed under a key."""
        held.records += 1
        held.octets += octets
        held.used_s = self._clock.steady_s()

    def touch(self, held: Held) -> None:
        """A record is opened with a key."""
        held.used_s = self._clock.steady_s()

    def _sooner(self) -> float:
        return random.uniform(0, self._settings.refresh_jitter)  # noqa: S311 -- no secret

    # --- rules ------------------------------------------------------------------------------

    def age_s(self, held: Held) -> float:
        """Seconds since OpenBao vouched for it."""
        return self._clock.steady_s() - held.confirmed_s

    def may_open(self, held: Held) -> bool:
        """Whether it is fresh."""
        return self.age_s(held) < self._settings.fresh_s

    def may_seal(self, held: Held) -> bool:
        """Whether it has room, and is fresh, or stale because OpenBao is away."""
        settings = self._settings
        limit = settings.stale_s if held.away else settings.fresh_s
        return not self.is_full(held) and self._clock.steady_s() - held.confirmed_s < limit

    def is_full(self, held: Held) -> bool:
        """Whether a new key must take over."""
        return held.records >= self._settings.records_max or held.octets >= self._settings.bytes_max

    def due(self) -> list[Held]:
        """Return what should be confirmed now: used since the last time, or tomorrow's."""
        after = self._settings.fresh_s * self._settings.refresh_at
        return [
            one
            for one in self._at.values()
            if (one.used_s >= one.confirmed_s or one.wrapped.day > self._clock.today())
            and self.age_s(one) >= after * (1 - one.sooner)
        ]

    def of(self, tenant: str) -> list[Held]:
        """Return a tenant's keys."""
        return [one for at, one in self._at.items() if at[0] == tenant]

    def counts(self) -> dict[str, int]:
        """Return how many keys are held, by tenant."""
        return dict(Counter(tenant for tenant, _, _ in self._at))

    def lacking_tomorrow(self) -> list[Slot]:
        """Return the slots of tomorrow that are used today, once that is `ahead_s` away."""
        if self._clock.until_midnight_s() > self._settings.ahead_s:
            return []
        today = self._clock.today()
        slots = [
            (at[0], at[1], today + 1)
            for at in self._sealing
            if at[2] == today and not at[1].startswith(PER_SUBJECT)
        ]
        return [slot for slot in slots if slot not in self._sealing]

    def drop_over(self) -> None:
        """Forget what is too old for anything."""
        longest = max(self._settings.stale_s, self._settings.fresh_s)
        over = {id(one.wrapped) for one in self._at.values() if self.age_s(one) >= longest}
        if over:
            self.forget(lambda key: id(key) in over)
