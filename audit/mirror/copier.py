"""Copies what is published to an object store, behind the log and never before an ack.

Under the store's URL, by the log's origin:

    <origin>/log/tile/…                     as on the disk: tiles and bundles, partial ones included
    <origin>/checkpoints/<size, 20 digits>  one signed checkpoint for each round of the mirror
    <origin>/payloads/<file>@<offset>       if told so: sealed payloads, as they were added

Every object is written once (`create`): in a bucket with object lock nothing can be taken back, and
what is there with other bytes is evidence, told as such, and ends the mirror. A round takes the
newest published checkpoint, copies all below it, and writes the checkpoint last, so that whatever
checkpoint is found there has its whole tree. Where a round got to is in `mirror.sqlite` beside the
log; if that is lost, the store is asked. A mirror switched on late, or after an outage, goes on
from there in strides of bounded size.

At the start the mirror is asked what it holds: a larger or another tree, signed by our key, means
that disk and lock were put back together, and the log does not open.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from itertools import islice
from typing import TYPE_CHECKING

import obstore
import structlog

from audit.mirror.files import LogFiles, files_of
from audit.mirror.objects import (
    NUMBER_DIGITS,
    STORE_ERRORS,
    StorePlace,
    newest_numbered,
    open_store,
    put_once,
)
from meshkit.background import running
from meshkit.contract import Checkpoint, Reason, Refusal
from meshkit.counters import counted, measured
from meshkit.tlog import TILE_WIDTH, NoteInvalid, open_checkpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from obstore.store import ObjectStore

    from audit.mirror.files import LogFile
    from audit.settings import AuditSettings
    from meshkit.tlog import LogKeys

__all__ = ["Mirror", "checkpoint_name", "mirrored_checkpoint", "mirroring", "store_place"]

log = structlog.get_logger()

_STRIDE = 65_536
"""Leaves between two notes of how far a catch-up is."""
_PIECE_BYTES = 4 * 1_024 * 1_024
"""Of a payload file, as one object: so much of it is in memory."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS cursor (one INTEGER PRIMARY KEY CHECK (one = 1),
  url TEXT NOT NULL, origin TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS payloads (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
"""


def store_place(settings: AuditSettings) -> StorePlace:
    """Say where the mirror is."""
    return StorePlace(
        url=settings.mirror_url,
        credentials=settings.mirror_credentials,
        ca=settings.mirror_ca,
        timeout_ms=settings.mirror_timeout_ms,
    )


def checkpoint_name(origin: str, size: int) -> str:
    """Name the object that holds the checkpoint of a size."""
    return f"{origin}/checkpoints/{size:0{NUMBER_DIGITS}d}"


async def mirrored_checkpoint(store: ObjectStore, keys: LogKeys) -> Checkpoint | None:
    """Return the newest checkpoint in a mirror; None if there is none.

    Raises:
        Refusal: EVIDENCE_LOST, if the newest object there is none of this log's.
        BaseError, OSError: the store cannot be asked.
    """
    size = await newest_numbered(store, f"{keys.name}/checkpoints")
    if size is None:
        return None
    got = await obstore.get_async(store, checkpoint_name(keys.name, size))
    try:
        found = open_checkpoint(bytes(await got.bytes_async()).decode(), keys)
    except (NoteInvalid, UnicodeDecodeError):
        raise Refusal(Reason.EVIDENCE_LOST) from None
    if found.size != size:
        raise Refusal(Reason.EVIDENCE_LOST)
    return found


class Mirror:
    """One log's copy in one store."""

    def __init__(
        self, settings: AuditSettings, store: ObjectStore, keys: Callable[[], LogKeys]
    ) -> None:
        """Copy what any of `keys` signed: asked each time, since keys are rotated."""
        self._settings = settings
        self._store = store
        self._keys = keys
        self._origin = keys().name
        self._payloads = settings.data_dir / "payloads"
        self._cursor = settings.data_dir / "mirror.sqlite"
        self._done: int | None = None
        self._published = 0
        self._mirrored = 0
        self._even_s = time.monotonic()
        self.conflict = False
        """The store holds something else than the log: nothing is written any more."""

    @property
    def _files(self) -> LogFiles:
        return LogFiles(self._settings.data_dir / "log", self._keys())

    @property
    def lag_events(self) -> int:
        """Published events that the newest mirrored checkpoint does not cover."""
        return self._published - self._mirrored

    @property
    def lag_s(self) -> float:
        """How long ago the mirror last held all that was published; 0 if it does now."""
        return time.monotonic() - self._even_s if self.lag_events else 0.0

    # --- at the start -----------------------------------------------------------------------

    async def check(self) -> None:
        """See that the mirror holds an earlier state of the log; go on if it cannot be asked.

        Raises:
            Refusal: EVIDENCE_LOST, if it holds a larger tree of this log, or another one.
        """
        try:
            async with asyncio.timeout(self._settings.mirror_timeout_ms / 1_000):
                held = await mirrored_checkpoint(self._store, self._keys())
        except (*STORE_ERRORS, TimeoutError) as failure:
            counted("audit.mirror.failed")
            log.warning("audit.mirror_unreachable", kind=type(failure).__name__)
            return
        except Refusal:
            self._alarm()  # anybody with the bucket's key may put nonsense there: it stops no log
            return
        published = await asyncio.to_thread(self._files.checkpoint)
        size = 0 if published is None else published.size
        if held is not None and not await asyncio.to_thread(self._files.holds, held, size):
            self._alarm()
            raise Refusal(Reason.EVIDENCE_LOST)

    def _alarm(self) -> None:
        self.conflict = True
        counted("audit.mirror.conflict")
        log.critical("audit.mirror_evidence", published=self._published, mirrored=self._mirrored)

    # --- rounds -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Copy for ever, once an interval; returns only after a conflict."""
        while not self.conflict:
            await self.once()
            await asyncio.sleep(self._settings.mirror_interval_ms / 1_000)

    async def once(self) -> None:
        """Copy what is new; what fails is counted, and tried again by the next call."""
        try:
            await self._round()
        except (*STORE_ERRORS, sqlite3.Error) as failure:
            counted("audit.mirror.failed")
            log.warning("audit.mirror_failed", kind=type(failure).__name__, backlog=self.lag_events)
        except Refusal:
            self._alarm()

    async def _round(self) -> None:
        published = await asyncio.to_thread(self._files.checkpoint)
        if published is None:
            return
        self._published = published.size
        if self._done is None:
            self._done = await self._found()
        await self._copy_log(published)
        if self._settings.mirror_payloads:
            await self._copy_payloads()
        self._even_s = time.monotonic()

    async def _copy_log(self, published: Checkpoint) -> None:
        assert self._done is not None  # set by the round
        if published.size == self._mirrored:
            return
        whole = published.size - published.size % TILE_WIDTH
        while self._done < whole:
            upto = min(whole, self._done + _STRIDE)
            await self._copy(files_of(upto, since=self._done, partial=False))
            await asyncio.to_thread(self._note, upto)
            self._done = upto
        if await asyncio.to_thread(self._files.root, published.size) != published.root:
            raise Refusal(Reason.EVIDENCE_LOST)
        await self._copy(files_of(published.size, since=whole))
        await self._put_checkpoint(published)
        self._mirrored = published.size

    async def _copy(self, files: Iterator[LogFile]) -> None:
        """Copy files, a bounded number at a time."""
        while some := list(islice(files, self._settings.mirror_concurrency)):
            await asyncio.gather(*(self._copy_file(file) for file in some))

    async def _copy_file(self, file: LogFile) -> None:
        data = await asyncio.to_thread(self._files.read, file)
        await put_once(self._store, f"{self._origin}/log/{file.path}", data)
        counted("audit.mirror.copied")

    async def _put_checkpoint(self, published: Checkpoint) -> None:
        """Write the checkpoint; one of that size may be there with other signatures on it."""
        name = checkpoint_name(self._origin, published.size)
        try:
            await put_once(self._store, name, published.note.encode())
        except Refusal:
            got = await obstore.get_async(self._store, name)
            try:
                found = open_checkpoint(bytes(await got.bytes_async()).decode(), self._keys())
            except (NoteInvalid, UnicodeDecodeError):
                raise Refusal(Reason.EVIDENCE_LOST) from None
            if (found.size, found.root) != (published.size, published.root):
                raise

    # --- payloads ---------------------------------------------------------------------------

    async def _copy_payloads(self) -> None:
        """Copy what was added to payload files since; they only grow, until they are erased."""
        for path, size in await asyncio.to_thread(self._grown):
            await self._copy_payload(path, size)

    def _grown(self) -> list[tuple[str, int]]:
        """Return the files that are longer than what was copied of them, and their length."""
        found = {
            path.relative_to(self._payloads).as_posix(): path.stat().st_size
            for path in self._payloads.rglob("*.sealed")
        }
        with closing(self._connect()) as connection:
            known: dict[str, int] = dict(connection.execute("SELECT path, bytes FROM payloads"))
            gone = [(path,) for path in known.keys() - found.keys()]
            connection.executemany("DELETE FROM payloads WHERE path = ?", gone)
        return [(path, size) for path, size in sorted(found.items()) if size > known.get(path, 0)]

    async def _copy_payload(self, path: str, size: int) -> None:
        at = await asyncio.to_thread(self._copied, path)
        while at < size:
            piece = await asyncio.to_thread(self._piece, path, at, min(size - at, _PIECE_BYTES))
            if not piece:  # erased meanwhile
                return
            at += await self._put_piece(f"{self._origin}/payloads/{path}@{at:012d}", piece)
            await asyncio.to_thread(self._note_payload, path, at)

    async def _put_piece(self, name: str, piece: bytes) -> int:
        """Write a piece; return how much of it is there.

        One may be there already, where our cursor was lost: shorter, or, of a file that came out
        of a backup, longer; and with bytes that were erased here since.
        """
        try:
            await put_once(self._store, name, piece)
        except Refusal:
            got = await obstore.get_async(self._store, name)
            found = bytes(await got.bytes_async())
            if not found or not await asyncio.to_thread(_was, piece, found):
                raise
            return min(len(piece), len(found))
        return len(piece)

    def _piece(self, path: str, at: int, length: int) -> bytes:
        try:
            with (self._payloads / path).open("rb") as file:
                file.seek(at)
                return file.read(length)
        except FileNotFoundError:
            return b""

    # --- how far it is ----------------------------------------------------------------------

    async def _found(self) -> int:
        """Return the leaves whose full files are known to be there: a multiple of 256."""
        noted = await asyncio.to_thread(self._noted)
        if noted is not None:
            return noted
        held = await mirrored_checkpoint(self._store, self._keys())
        return 0 if held is None else held.size - held.size % TILE_WIDTH

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._cursor, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
        return connection

    def _noted(self) -> int | None:
        with closing(self._connect()) as connection:
            row = connection.execute("SELECT url, origin, size FROM cursor").fetchone()
            if row is not None and tuple(row[:2]) == (self._settings.mirror_url, self._origin):
                return int(row[2])
            connection.executescript("DELETE FROM cursor; DELETE FROM payloads;")
        return None

    def _note(self, size: int) -> None:
        with closing(self._connect()) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO cursor VALUES (1, ?, ?, ?)",
                (self._settings.mirror_url, self._origin, size),
            )

    def _copied(self, path: str) -> int:
        with closing(self._connect()) as connection:
            found = connection.execute("SELECT bytes FROM payloads WHERE path = ?", (path,))
            row = found.fetchone()
        return 0 if row is None else int(row[0])

    def _note_payload(self, path: str, size: int) -> None:
        with closing(self._connect()) as connection:
            connection.execute("INSERT OR REPLACE INTO payloads VALUES (?, ?)", (path, size))


def _was(piece: bytes, found: bytes) -> bool:
    """Tell whether what is here once was what is there: erased payloads are zeros."""
    if piece.startswith(found) or found.startswith(piece):
        return True
    return all(ours in (0, theirs) for ours, theirs in zip(piece, found, strict=False))


@asynccontextmanager
async def mirroring(
    settings: AuditSettings, keys: Callable[[], LogKeys], store: ObjectStore | None = None
) -> AsyncIterator[Mirror | None]:
    """Mirror the log while the block runs, if settings say where; once more at its end.

    Raises:
        Refusal: EVIDENCE_LOST: see `Mirror.check`.
        ValueError, OSError: settings name no store.
    """
    if not settings.mirror_url:
        yield None
        return
    if store is None:
        store = await asyncio.to_thread(open_store, store_place(settings))
    mirror = Mirror(settings, store, keys)
    await mirror.check()
    async with AsyncExitStack() as owned:
        owned.enter_context(measured("audit.mirror.lag_events", lambda: mirror.lag_events))
        owned.enter_context(measured("audit.mirror.lag_s", lambda: mirror.lag_s))
        owned.push_async_callback(_last, mirror, settings.mirror_timeout_ms / 1_000)
        await owned.enter_async_context(running(mirror.run(), "audit-mirror"))
        yield mirror


async def _last(mirror: Mirror, patience_s: float) -> None:
    """Copy what the log published when it was closed."""
    if not mirror.conflict:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await mirror.once()
