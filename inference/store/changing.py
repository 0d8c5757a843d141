"""How a store changes: a model comes, is signed, is sealed, goes. Each step whole, or not at all.

    adder = StoreChanger(store, limits)
    manifest = adder.add(Path("download/"), Claim(name="acme-chat", licence="Apache-2.0"))
    adder.sign("acme-chat", manifest.version)
    adder.seal("acme-chat", manifest.version)

One at a time: whoever comes while another is at it is refused (BUSY). A model is made under a name
that no reader looks at, synced, and then renamed to its own; what a crash left under such names is
removed by the next change. Readers never wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from secrets import token_hex
from typing import IO, TYPE_CHECKING

from inference.store.below import must_be_no_links
from inference.store.claims import Claim, manifest_of, must_agree, must_say_enough
from inference.store.errors import DISK_FULL, Fault, ModelFileError
from inference.store.formats import facts_of, must_be_taken
from inference.store.manifest import FileDigest, Manifest, is_name, is_version, must_be_distinct
from inference.store.private import private_folder
from inference.store.rules import Rules
from inference.store.sealing import ModelSeal, Sealer, wrapping_aad
from inference.store.signing import ModelSignature, must_be_signed, to_be_signed
from inference.store.sources import Limits, members_of
from inference.store.store import (
    MANIFEST,
    PLAIN_FILES,
    SEAL,
    SEALED_FILES,
    SIGNATURE,
    STORE,
    ModelStore,
)
from meshkit.files import fsync_folder, write_private
from meshkit.sealing import new_key_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from inference.store.keys import AdminKeys
    from inference.store.openssf import Published
    from inference.store.store import Entry, Opened

__all__ = ["StoreChanger"]

_COMING, _GOING = ".coming-", ".going-"
_PIECE_BYTES = 1 << 20
_PUBLIC = 0o644


class StoreChanger:
    """Changes a store. `keys` are asked by `sign` and by whatever seals."""

    def __init__(
        self, store: ModelStore, limits: Limits | None = None, keys: AdminKeys | None = None
    ) -> None:
        self._store = store
        self._limits = limits or Limits()
        self._keys = keys
        self._home = store.folder / STORE

    # --- what callers use -------------------------------------------------------------------

    def add(
        self,
        source: Path,
        claim: Claim | Manifest,
        *,
        seal: bool = False,
        published: Published | None = None,
    ) -> Manifest:
        """Take a model in: a folder, a .zip, .tar or .tar.gz, or one file.

        Args:
            source: Where it lies. Only read.
            claim: What is said of it; a whole manifest must hold to the letter.
            seal: Whether its files are encrypted; then they touch no disk of the store in plain.
            published: A publisher's signature that must hold for all of its files.

        Raises:
            ModelFileError: as `inference.store.errors` has them; the store is as it was.
            Refusal: KEYS_DOWN.
        """
        with self._alone(), ExitStack() as owned:
            coming = owned.enter_context(self._coming())
            plain = coming / PLAIN_FILES
            if seal:
                private = private_folder(_size_of(source), where=self._store.rules.plain_dir)
                owned.callback(private.close)
                plain = private.path / PLAIN_FILES
            with _disk():
                manifest = self._taken(source, claim, plain, published)
                _write(coming / MANIFEST, manifest.canonical())
                if seal:
                    paths = {file.path: plain / file.path for file in manifest.files}
                    self._sealed(manifest, paths, coming)
                self._publish(coming, manifest)
        return manifest

    def sign(self, name: str, version: str | None = None) -> Manifest:
        """Sign a model, once all of its files were held against its manifest.

        Raises:
            ModelFileError: it is not there, or damaged.
            Refusal: KEYS_DOWN.
        """
        with self._alone():
            entry = self._store.entry(name, version)
            self._opened(entry).close()
            signature = self._admin.sign(to_be_signed(entry.manifest))
            # Else a broken answer would be found out at the next load.
            must_be_signed(entry.manifest, signature, self._store.keys.signers())
            with _disk():
                self._keep_beside(entry, SIGNATURE, signature.text())
        return entry.manifest

    def put_signature(self, name: str, version: str, text: bytes) -> None:
        """Keep a signature that was made elsewhere, if it holds. Raises as `sign`."""
        with self._alone():
            entry = self._store.entry(name, version)
            signature = ModelSignature.parse(text)
            must_be_signed(entry.manifest, signature, self._store.keys.signers())
            with _disk():
                self._keep_beside(entry, SIGNATURE, signature.text())

    def seal(self, name: str, version: str | None = None) -> Manifest:
        """Encrypt the files of a model that is in the store, and remove what lay in plain.

        On a journal, a copy-on-write file system or flash, what was removed may still be found by
        whoever has the disk: `add(…, seal=True)` never writes it. What lies in plain beside sealed
        files, since a try was cut off, is removed once those were opened.

        Raises:
            ModelFileError: it is packaged, sealed already, not there, or damaged.
            Refusal: KEYS_DOWN.
        """
        with self._alone():
            entry = self._store.entry(name, version)
            if entry.packaged:
                raise ModelFileError(Fault.PACKAGED)
            home = self._store.folder / entry.home
            if entry.seal is not None:
                if not (home / PLAIN_FILES).exists():
                    raise ModelFileError(Fault.SEALED)
                self._opened(entry).close()
                with _disk():
                    shutil.rmtree(home / PLAIN_FILES)
                    fsync_folder(home)
                return entry.manifest
            with _disk(), self._coming() as coming:
                with self._opened(entry) as opened:
                    self._sealed(entry.manifest, opened.paths, coming)
                self._swap(coming, home)
        return entry.manifest

    def remove(self, name: str, version: str) -> None:
        """Remove a model. Who has it open keeps it so. Raises ModelFileError."""
        if not (is_name(name) and is_version(version)):
            raise ModelFileError(Fault.NOT_FOUND)
        with self._alone(), _disk():
            home = self._home / name / version
            must_be_no_links(home.parent, home)
            if not (home / MANIFEST).is_file():
                raise ModelFileError(Fault.NOT_FOUND)
            going = self._home / f"{_GOING}{token_hex(8)}"
            home.rename(going)
            fsync_folder(home.parent)
            shutil.rmtree(going)

    def _opened(self, entry: Entry) -> Opened:
        """Check all files of what is about to be signed or sealed. Raises as `ModelStore.open`."""
        rules = Rules(signed="off", plain_dir=self._store.rules.plain_dir)
        store = ModelStore(self._store.folder, self._store.keys, rules)
        return store.open(entry.manifest.name, entry.manifest.version)

    # --- taking in --------------------------------------------------------------------------

    def _taken(
        self, source: Path, claim: Claim | Manifest, into: Path, published: Published | None
    ) -> Manifest:
        files = _copied(source, into, self._limits)
        must_be_distinct(tuple(file.path for file in files))
        if published is not None:
            published.must_cover(files)
        if isinstance(claim, Manifest):
            must_say_enough(claim)
            _must_be_pinned(Manifest.parse(claim.canonical()), files)
        facts = facts_of({file.path: into / file.path for file in files})
        if isinstance(claim, Manifest):
            must_agree(claim, facts)
            manifest = claim
        else:
            version = claim.version or self._next_version(claim.name)
            manifest = manifest_of(self._based(claim), version, files, facts)
        self._must_be_new(manifest)
        return manifest

    def _based(self, claim: Claim) -> Claim:
        """Pin the model that an adapter is for, if it was named by its name; take its context."""
        if claim.kind != "adapter" or not is_name(claim.base):
            return claim
        found = [one for one in self._store.manifests() if one.digest.hex() == claim.base]
        base = found[0] if found else self._store.entry(claim.base).manifest
        context = base.context_tokens if claim.context_tokens is None else claim.context_tokens
        return replace(claim, base=base.digest.hex(), context_tokens=context)

    def _next_version(self, name: str) -> str:
        taken = [entry.version for entry in self._store.manifests() if entry.name == name]
        taken += [version for other, version in self._store.places() if other == name]
        return str(max((int(one) for one in taken if one.isdecimal()), default=0) + 1)

    def _must_be_new(self, manifest: Manifest) -> None:
        taken = {(one.name, one.version) for one in self._store.manifests()}
        taken |= set(self._store.places())
        # Case tells versions apart here, and may not where the store is copied to.
        folded = {(name, version.casefold()) for name, version in taken}
        if (manifest.name, manifest.version.casefold()) in folded:
            raise ModelFileError(Fault.EXISTS)

    def _publish(self, coming: Path, manifest: Manifest) -> None:
        _sync_tree(coming)
        above = self._home / manifest.name
        must_be_no_links(above)
        if not above.is_dir():
            above.mkdir()
            fsync_folder(self._home)
        home = above / manifest.version
        if home.is_dir():  # of a packaged model's signature, or a leftover: it has no manifest
            raise ModelFileError(Fault.EXISTS)
        coming.rename(home)
        fsync_folder(above)

    # --- sealing ----------------------------------------------------------------------------

    @property
    def _admin(self) -> AdminKeys:
        if self._keys is None:
            raise ModelFileError(Fault.CLAIM)
        return self._keys

    def _sealed(self, manifest: Manifest, plain: Mapping[str, Path], into: Path) -> None:
        """Write the sealed files and what opens them."""
        key, wrapped = self._admin.data_key(wrapping_aad(manifest))
        seal = ModelSeal(wrapped, new_key_id(0))
        sealer = Sealer(seal, key, manifest.digest)
        for file in manifest.files:
            with plain[file.path].open("rb") as raw:
                _write_pieces(into / SEALED_FILES / file.path, sealer.sealed(file, raw))
        _write(into / SEAL, seal.text())

    def _swap(self, coming: Path, home: Path) -> None:
        """Put sealed files in the place of plain ones. `sealed.json` is where a reader looks."""
        _sync_tree(coming)
        shutil.rmtree(home / SEALED_FILES, ignore_errors=True)  # of a try that was cut off
        (coming / SEALED_FILES).rename(home / SEALED_FILES)
        fsync_folder(home)
        (coming / SEAL).rename(home / SEAL)
        fsync_folder(home)
        shutil.rmtree(home / PLAIN_FILES)
        fsync_folder(home)

    def _keep_beside(self, entry: Entry, name: str, text: bytes) -> None:
        home = self._store.folder / entry.home
        must_be_no_links(home.parent, home)
        home.mkdir(parents=True, exist_ok=True)
        write_private(home / name, text, mode=_PUBLIC)

    # --- alone, and whole -------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        must_be_no_links(self._home)
        with _disk():
            self._home.mkdir(parents=True, exist_ok=True)
            lock = os.open(
                self._home / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ModelFileError(Fault.BUSY) from None
            for pattern in (f"{_COMING}*", f"{_GOING}*"):
                for left in self._home.glob(pattern):
                    shutil.rmtree(left, ignore_errors=True)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _coming(self) -> Iterator[Path]:
        """Make a folder to fill; what is left of it at the end goes."""
        with _disk():
            coming = self._home / f"{_COMING}{token_hex(8)}"
            coming.mkdir()
        try:
            yield coming
        finally:
            shutil.rmtree(coming, ignore_errors=True)


def _copied(source: Path, into: Path, limits: Limits) -> list[FileDigest]:
    """Copy a source's files; return what was written. Nothing is looked at on the way."""
    files: list[FileDigest] = []
    with members_of(source, limits) as members:
        for member in members:
            must_be_taken(member.path)
            target = into / member.path
            # Only what we wrote ourselves can stand there: the folder is new.
            if target.exists() or any(above.is_file() for above in target.parents):
                raise ModelFileError(Fault.DUPLICATE, member=member.path)
            digest, size = _write_pieces(target, _pieces(member.raw))
            files.append(FileDigest(member.path, digest, size))
    if not files:
        raise ModelFileError(Fault.EMPTY)
    return _without_wrapping(files, into)


def _without_wrapping(files: list[FileDigest], into: Path) -> list[FileDigest]:
    """Take off a folder that holds all there is, as archives of a folder have it."""
    first = files[0].path.split("/")[0]
    if not all(file.path.startswith(f"{first}/") for file in files):
        return files
    inner = into.with_name(f"{into.name}.inner")
    (into / first).rename(inner)
    into.rmdir()
    inner.rename(into)
    return [replace(file, path=file.path.removeprefix(f"{first}/")) for file in files]


def _must_be_pinned(manifest: Manifest, files: Iterable[FileDigest]) -> None:
    """Hold what came against a manifest that came with it, or before it."""
    there = {file.path: file for file in files}
    if set(there) != {file.path for file in manifest.files}:
        raise ModelFileError(Fault.FILES)
    for file in manifest.files:
        if there[file.path].bytes != file.bytes:
            raise ModelFileError(Fault.SIZE, member=file.path)
        if there[file.path].sha256 != file.sha256:
            raise ModelFileError(Fault.DIGEST, member=file.path)


def _pieces(raw: IO[bytes]) -> Iterator[bytes]:
    read: Callable[[int], bytes] = raw.read
    while piece := read(_PIECE_BYTES):
        yield piece


def _write(path: Path, text: bytes) -> None:
    _write_pieces(path, (text,))


def _write_pieces(path: Path, pieces: Iterable[bytes]) -> tuple[str, int]:
    """Write a new file, durably but for its folder; return SHA-256 and size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for piece in pieces:
            digest.update(piece)
            size += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), size


def _sync_tree(top: Path) -> None:
    for folder in (top, *(path for path in top.rglob("*") if path.is_dir())):
        fsync_folder(folder)


def _size_of(source: Path) -> int:
    """Guess the room that a source takes: an archive of weights hardly shrinks them."""
    if not source.is_dir():
        return source.stat().st_size if source.is_file() else 0
    return sum(path.stat().st_size for path in source.rglob("*") if path.is_file())


@contextmanager
def _disk() -> Iterator[None]:
    """Tell a full disk from one that cannot be written for another reason."""
    try:
        yield
    except OSError as error:
        raise ModelFileError(Fault.NO_ROOM if error.errno in DISK_FULL else Fault.STATE) from error
