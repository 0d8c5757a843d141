"""How much a caller may ask: GCRA token buckets for requests and model tokens. PURE.

A bucket of rate `r` per second and burst `b` is one number, its theoretical arrival time `tat`:
taking `n` moves it to `max(tat, now) + n / r`, and is allowed while that stays within `b / r` of
now (ATM Forum TM 4.1, "virtual scheduling"). So at most `b + r * t` go in any `t` seconds.

    reserve(ask)    takes one request and the estimated tokens from every bucket, or from none
    extend(...)     takes more tokens for an answer that outgrew its estimate
    settle(...)     gives back what was not used, or books what went over as a debt

Each is one synchronous step, so no two calls can both take the last token. Scopes: the tenant, the
user (or workload) within the tenant, the model within the tenant. Time is the caller's, in seconds
of a monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeAlias

from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Ask",
    "Buckets",
    "Keys",
    "Limits",
    "MemoryLimits",
    "Rate",
    "Rates",
    "Reservation",
    "bucket_names",
    "rates_for",
]

_ROUNDING_S = 1e-6
"""A shorter wait is none: clocks are doubles, and a full bucket must be full despite rounding."""

_NAMES_MAX = 4_096
"""Callers whose bucket names are not put together anew each time."""

_IDLE_SCAN = 8
"""How many of the least recently used buckets are looked at for an idle one to drop."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a bucket yields: `per_s` units each second, `burst` units at once. Both above 0."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Requests and model tokens, for each scope."""

    tenant_requests: Rate
    tenant_tokens: Rate
    user_requests: Rate
    user_tokens: Rate
    model_requests: Rate
    model_tokens: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a call wants.

    model: the name of a model that exists, or empty: names a caller makes up share one bucket, or
        they would fill the memory.
    tokens: estimate of prompt and answer together.
    """

    tenant: str
    principal: str
    model: str
    tokens: int


Keys: TypeAlias = tuple[tuple[str, Rate], ...]
"""Names of buckets, and what each yields."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was taken: `tokens` from each of the token buckets named by `keys`."""

    keys: Keys
    tokens: int


class Limits(Protocol):
    """Reserve the estimate, settle the truth. In memory here; shared across replicas elsewhere."""

    async def reserve(self, ask: Ask) -> Reservation:
        """Take one request and `ask.tokens`.

        Raises:
            Refusal: LIMITED, with the delay after which the same ask would pass.
        """
        ...

    async def extend(self, reservation: Reservation, tokens: int) -> Reservation | None:
        """Take `tokens` more, or return None if they are not to be had now."""
        ...

    async def settle(self, reservation: Reservation, tokens_used: int) -> None:
        """Book what was really used. To be called once, with the newest reservation."""
        ...


@dataclass(slots=True)
class Buckets:
    """A bounded number of GCRA buckets by name.

    Only idle (full) buckets are ever dropped, as they carry no memory of use. Where none is idle, a
    new name shares the bucket `overflow`: many names cost accuracy, never the limit.
    """

    buckets_max: int
    _tat: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def delay_s(self, name: str, rate: Rate, units: float, now: float) -> float:
        """Return how long until `units` could be taken; 0 if now. Takes nothing.

        More than a full bucket is asked as a full bucket: otherwise it could never pass.
        """
        ahead = self._tat.get(name if name in self._tat else self._new(name, now), now) - now
        over = units - rate.burst if units < rate.burst else 0.0
        wait = (ahead if ahead > 0 else 0.0) + over / rate.per_s
        return wait if wait > _ROUNDING_S else 0.0

    def take(self, name: str, rate: Rate, units: float, now: float) -> None:
        """Take `units`, whether or not they are there: what is missing is a debt."""
        known = name if name in self._tat else self._new(name, now)
        tat = self._tat.get(known, now)
        self._tat[known] = max(now, tat) + units / rate.per_s
        self._tat.move_to_end(known)

    def give_back(self, name: str, rate: Rate, units: float, now: float) -> None:
        """Return `units` that were taken and not used. A full bucket stays full."""
        known = name if name in self._tat else self._new(name, now)
        if known in self._tat:
            self._tat[known] -= units / rate.per_s

    def __len__(self) -> int:
        return len(self._tat)

    def _new(self, name: str, now: float) -> str:
        """Return the bucket that a name without one draws from, making room for its own."""
        if len(self._tat) < self.buckets_max:
            return name
        for old in islice(self._tat, _IDLE_SCAN):
            if self._tat[old] <= now:
                del self._tat[old]
                return name
        return "overflow"


class MemoryLimits:
    """`Limits` of one process."""

    def __init__(
        self,
        rates: Callable[[str], Rates],
        *,
        clock: Callable[[], float],
        buckets_max: int = 100_000,
    ) -> None:
        """Take the rates by tenant, and a monotonic clock in seconds."""
        self._named = lru_cache(maxsize=_NAMES_MAX)(partial(bucket_names, rates))
        self._clock = clock
        self._buckets = Buckets(buckets_max)

    async def reserve(self, ask: Ask) -> Reservation:
        """See `Limits.reserve`."""
        return self._reserve(ask)

    async def extend(self, reservation: Reservation, tokens: int) -> Reservation | None:
        """See `Limits.extend`."""
        now = self._clock()
        if self._longest_delay(reservation.keys, tokens, now) > 0:
            return None
        for name, rate in reservation.keys:
            self._buckets.take(name, rate, tokens, now)
        return Reservation(reservation.keys, reservation.tokens + tokens)

    async def settle(self, reservation: Reservation, tokens_used: int) -> None:
        """See `Limits.settle`."""
        now = self._clock()
        unused = reservation.tokens - tokens_used
        for name, rate in reservation.keys:
            if unused >= 0:
                self._buckets.give_back(name, rate, unused, now)
            else:
                self._buckets.take(name, rate, -unused, now)

    def _reserve(self, ask: Ask) -> Reservation:
        """Check every bucket, then take from all: no await in between."""
        now, buckets = self._clock(), self._buckets
        requests, tokens = self._named(ask.tenant, ask.principal, ask.model)
        delay = max(
            self._longest_delay(requests, 1, now), self._longest_delay(tokens, ask.tokens, now)
        )
        if delay > 0:
            raise Refusal(Reason.LIMITED, retry_after_ms=int(delay * 1_000) + 1)
        for name, rate in requests:
            buckets.take(name, rate, 1, now)
        for name, rate in tokens:
            buckets.take(name, rate, ask.tokens, now)
        return Reservation(tokens, ask.tokens)

    def _longest_delay(self, keys: Keys, units: float, now: float) -> float:
        return max([self._buckets.delay_s(name, rate, units, now) for name, rate in keys])


def bucket_names(
    rates: Callable[[str], Rates], tenant: str, principal: str, model: str
) -> tuple[Keys, Keys]:
    """Name the buckets for requests and for tokens.

    A tenant is a DNS label, so `/` parts it from the rest.
    """
    its = rates(tenant)
    user, named = f"{tenant}/{principal}", f"{tenant}/{model}"
    requests = (
        (f"tenant requests {tenant}", its.tenant_requests),
        (f"user requests {user}", its.user_requests),
        (f"model requests {named}", its.model_requests),
    )
    tokens = (
        (f"tenant tokens {tenant}", its.tenant_tokens),
        (f"user tokens {user}", its.user_tokens),
        (f"model tokens {named}", its.model_tokens),
    )
    return requests, tokens


def rates_for(default: Rates, by_tenant: Mapping[str, Rates]) -> Callable[[str], Rates]:
    """Look rates up by tenant, with a default for all others."""
    return lambda tenant: by_tenant.get(tenant, default)
