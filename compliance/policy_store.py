"""The policies in force: loaded, tried, watched, kept under their digests.

    store = PolicyStore(source, finders, names)
    async with store.watching(every_s=2.0):
        scanner = store.of("acme")       one policy, for as long as the caller keeps the scanner

A change is taken whole or not at all. What is loaded anew is validated and its tests are run, off
the event loop, before one assignment puts it in force; calls that began before keep the scanner
they have. A bad file keeps the policies of before and alarms: the event
`compliance.policies_rejected`, the counter `compliance.policy_reload_failed`, and the gauge
`compliance.policy_rejected_s`, how long a bad set has stood there (0: none does).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import structlog

from compliance.policy import PolicyError, default_policy
from compliance.policy_library import Book, Library, load_book, load_one, stamps
from compliance.policy_trial import try_out
from compliance.scanner import Scanner
from meshkit.background import running
from meshkit.counters import counted, measured
from meshkit.files import write_private

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from compliance.policy import Policy
    from compliance.policy_finder import Finders
    from compliance.policy_library import Stamps
    from compliance.scanner import NameRunner

__all__ = ["PolicySource", "PolicyStore"]

log = structlog.get_logger()

BOOKS_KEPT = 8
"""Sets of policies that calls begun under them may still ask for by digest, after a change."""


@dataclass(frozen=True, slots=True)
class PolicySource:
    """Where policies come from: a folder, or one file for all tenants, or neither: the default."""

    folder: Path | None = None
    file: Path | None = None

    def library(self) -> Library:
        """Return what reads the files, and knows afterwards which it read."""
        return Library(self.place or Path())

    def load(self, library: Library) -> Book:
        """Read them. Raises PolicyError."""
        if self.folder is not None:
            return load_book(self.folder, library)
        policy = load_one(self.file, library) if self.file else default_policy()
        return Book(policies={policy.name: policy}, tenants={}, default=policy.name)

    def stamps(self, seen: frozenset[str]) -> Stamps:
        """What the files look like now; `seen`: those of the last reading."""
        if self.place is None:
            return ()
        names = seen | ({self.file.name} if self.file and not self.folder else set())
        return stamps(self.place, names, whole=self.folder is not None)

    @property
    def place(self) -> Path | None:
        """The folder that is read; None: no file is."""
        return self.folder or (self.file.parent if self.file else None)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A set of policies, each with its scanner."""

    book: Book
    scanners: Mapping[str, Scanner]

    def of(self, tenant: str) -> Scanner:
        return self.scanners[self.book.tenants.get(tenant, self.book.default)]


class PolicyStore:
    """Implements `compliance.scanner.Scanners`.

    names: shared by all policies. archive: a folder where the canonical form of each policy is kept
    under its digest. clock: seconds, monotonic.
    """

    def __init__(
        self,
        source: PolicySource,
        finders: Finders,
        names: NameRunner | None = None,
        *,
        archive: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load. Raises PolicyError: a service without policies does not start."""
        self._source = source
        self._finders = finders
        self._names = names
        self._archive = archive
        self._clock = clock
        self.listeners: list[Callable[[Book, Book], None]] = []
        """Told of each change, perhaps in another thread: the set before, the set in force now."""
        self._bad_since: float | None = None
        self._loading = Lock()
        self._seen: frozenset[str] = frozenset()
        self._stamps: Stamps | None = None
        self._before: deque[_Loaded] = deque(maxlen=BOOKS_KEPT)
        self._loaded = self._load()

    @property
    def book(self) -> Book:
        """The set in force."""
        return self._loaded.book

    @property
    def rejected_s(self) -> float:
        """How long files that cannot be used have stood there; 0 if those there are in force."""
        return 0.0 if self._bad_since is None else self._clock() - self._bad_since

    def of(self, tenant: str) -> Scanner:
        """Return the scanner of the tenant's one policy, as of now."""
        return self._loaded.of(tenant)

    def under(self, tenant: str, policy_digest: bytes) -> Scanner | None:
        """Return the tenant's scanner of that policy, in force or lately so; None if there is none.

        A policy that a neighbour already judges by may be on our disk too: then it is taken now.
        """
        found = self._under(tenant, policy_digest)
        if found is None and self.reload():
            found = self._under(tenant, policy_digest)
        return found

    def _under(self, tenant: str, policy_digest: bytes) -> Scanner | None:
        for loaded in (self._loaded, *reversed(self._before)):
            scanner = loaded.of(tenant)
            if scanner.policy.digest == policy_digest:
                return scanner
        return None

    def reload(self) -> bool:
        """Take what is on the disk if it changed and is good; return whether it was taken.

        Raises nothing: a bad set is counted and told once, and the old one stays in force.
        """
        if self._source.stamps(self._seen) == self._stamps or not self._loading.acquire(
            blocking=False
        ):
            return False
        try:
            return self._take(self._load())
        except PolicyError:
            self._reject()
            return False
        except Exception:  # noqa: BLE001 -- a watch that died would keep old policies and say nothing
            self._stamps = None  # perhaps not the files' fault (a full archive): look again
            self._reject()
            return False
        finally:
            self._loading.release()

    @asynccontextmanager
    async def watching(self, every_s: float) -> AsyncIterator[None]:
        """Look for a change every `every_s` seconds, for as long as the block runs."""
        with measured("compliance.policy_rejected_s", lambda: self.rejected_s):
            if self._source.place is None:
                yield  # the policy that ships with Sealgate changes with it
                return
            async with running(self._watch(every_s), "compliance policies"):
                yield

    async def _watch(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            # Thousands of terms and a new pattern database take a while: not on the event loop.
            await asyncio.to_thread(self.reload)

    def _load(self) -> _Loaded:
        before, library = dict(self._source.stamps(self._seen)), self._source.library()
        try:
            book = self._source.load(library)
        finally:
            self._seen = library.seen
            after = self._source.stamps(self._seen)
            # Written to while it was read: no stamps, so that the next look reads it again.
            self._stamps = None if any(before.get(k, v) != v for k, v in after) else after
        scanners = {name: self._ready(policy) for name, policy in book.policies.items()}
        self._keep(book)
        return _Loaded(book, scanners)

    def _ready(self, policy: Policy) -> Scanner:
        finder = self._finders.of(policy)
        try_out(policy, finder)
        return Scanner(finder, policy, self._names)

    def _take(self, loaded: _Loaded) -> bool:
        old = self._loaded
        changed = old.book.digest != loaded.book.digest
        if changed:
            self._before.append(old)
        self._loaded, self._bad_since = loaded, None
        if changed:
            log.info(
                "compliance.policies_loaded",
                old=old.book.digest.hex(),
                new=loaded.book.digest.hex(),
                policies=len(loaded.book.policies),
            )
            for listener in self.listeners:
                listener(old.book, loaded.book)
        return changed

    def _reject(self) -> None:
        """Alarm. What is wrong may quote a file, so it is not logged: `policy check` tells it."""
        self._bad_since = self._clock() if self._bad_since is None else self._bad_since
        counted("compliance.policy_reload_failed")
        log.error("compliance.policies_rejected", kept=self.book.digest.hex())

    def _keep(self, book: Book) -> None:
        """Write each policy's canonical form under its digest, once."""
        if self._archive is None:
            return
        self._archive.mkdir(parents=True, exist_ok=True, mode=0o700)
        for policy in book.policies.values():
            path = self._archive / f"{policy.digest.hex()}.json"
            if not path.exists():
                write_private(path, policy.canonical())
