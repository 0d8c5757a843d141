"""The folder that models lie in, and the one way to their files.

    <folder>/                               the packaged manifests' files, where those say
    <folder>/store/<name>/<version>/
        manifest.json                       canonical form: its SHA-256 is the model's digest
        signature.json                      if it is signed
        sealed.json                         if its files are encrypted; then they are in sealed/
        files/…  or  sealed/…

    with ModelStore(folder, keys).open("acme-chat") as opened:
        read(opened.path("model.gguf"))

`open` checks everything before it hands out a path: the manifest is the one that belongs there, is
signed as the rules want it, may be loaded here, and each file has its size and SHA-256. A path
leads to the very file that was checked, whatever becomes of its name: through a descriptor that
stays open, or to the decrypted copy in a folder of our own.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING

import structlog

from inference.store import below
from inference.store.errors import Fault, ModelFileError
from inference.store.keys import ModelKeys, NoKeys
from inference.store.manifest import FileDigest, Manifest, is_name, is_version
from inference.store.private import private_folder
from inference.store.rules import Rules
from inference.store.sealing import ModelSeal, Sealer, sealed_size, wrapping_aad
from inference.store.signing import ModelSignature, must_be_signed
from meshkit.vault import VaultRejected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["Entry", "ModelStore", "Opened", "packaged_manifests", "version_order"]

log = structlog.get_logger()

STORE = "store"
MANIFEST, SIGNATURE, SEAL = "manifest.json", "signature.json", "sealed.json"
PLAIN_FILES, SEALED_FILES = "files", "sealed"
_SMALL_BYTES = 64 << 20
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model in the store, as it says of itself: nothing is checked but its place.

    home: Its folder below the store's, which a packaged model may lack.
    """

    manifest: Manifest
    packaged: bool
    home: str
    signature: ModelSignature | None
    seal: ModelSeal | None

    def place(self, file: FileDigest) -> str:
        """Return where a file lies, below the models folder."""
        if self.packaged:
            return file.path
        return f"{self.home}/{PLAIN_FILES if self.seal is None else SEALED_FILES}/{file.path}"


@dataclass(slots=True)
class Opened:
    """A model whose files were checked. Its paths are good until it is closed."""

    manifest: Manifest
    paths: Mapping[str, Path]
    _owned: ExitStack = field(repr=False)

    def path(self, file: str | FileDigest) -> Path:
        """Return where to read a file. Raises ModelFileError: the manifest names no such file."""
        found = self.paths.get(file if isinstance(file, str) else file.path)
        if found is None:
            raise ModelFileError(Fault.NOT_FOUND)
        return found

    @property
    def weights(self) -> tuple[Path, ...]:
        """Where to read the files of the manifest's format, in order."""
        return tuple(self.path(file) for file in self.manifest.weights)

    def close(self) -> None:
        """Let go of the files. What is mapped stays until that ends."""
        self._owned.close()

    def __enter__(self) -> Self:
        """Be closed when the block ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


class ModelStore:
    """A folder of models. May be used from several threads and processes at once.

    Args:
        folder: `INFERENCE_MODELS_DIR`.
        keys: Whose signatures count, and who unwraps; None: nobody.
        rules: What may be loaded.
    """

    def __init__(
        self, folder: Path, keys: ModelKeys | None = None, rules: Rules | None = None
    ) -> None:
        self.folder = folder
        self.keys: ModelKeys = keys or NoKeys()
        self.rules = rules or Rules()

    def manifests(self) -> list[Manifest]:
        """Return every model there is, by name and version; damaged ones are logged and left out.

        Those packaged with this release are named even if their files were not fetched.
        """
        return [entry.manifest for entry in self.entries()]

    def entries(self) -> list[Entry]:
        """Return the same with what lies beside each manifest."""
        found = [self._packaged(manifest) for manifest in packaged_manifests()]
        for name, version in self.places():
            try:
                found.append(self._stored(name, version))
            except ModelFileError as error:
                log.warning("models.damaged", model=name, version=version, reason=error.name)
        return sorted(found, key=lambda entry: _order(entry.manifest))

    def places(self) -> list[tuple[str, str]]:
        """Return name and version of whatever has a manifest in the store, sound or not.

        A link where a model's folder should be is logged; one where a version's should be counts as
        a version, which cannot be opened.
        """
        if not self.folder.is_dir():
            return []
        with below.folder(self.folder) as top:
            return [
                (name, version)
                for name in _names(top, STORE)
                if is_name(name)
                for version in _names(top, f"{STORE}/{name}")
                if is_version(version) and _has_manifest(top, f"{STORE}/{name}/{version}")
            ]

    def entry(self, name: str, version: str | None = None) -> Entry:
        """Find a model; its newest version unless one is named.

        Raises:
            ModelFileError: NOT_FOUND, or its manifest is damaged.
        """
        for manifest in packaged_manifests():
            if manifest.name == name and version == manifest.version:
                return self._packaged(manifest)
        if version is not None:
            return self._stored(name, version)
        return self.entry(name, self.newest(name))

    def newest(self, name: str) -> str:
        """Return a name's newest version, sound or not: an older one shall not pass for it.

        Raises:
            ModelFileError: NOT_FOUND.
        """
        there = [(one.name, one.version) for one in packaged_manifests()] + self.places()
        versions = sorted((found for named, found in there if named == name), key=version_order)
        if not versions:
            raise ModelFileError(Fault.NOT_FOUND)
        return versions[-1]

    def open(self, name: str, version: str | None = None) -> Opened:
        """Check a model and hand out its files; the newest version unless one is named.

        Not for an event loop's thread: it reads all of the files, and may ask OpenBao.

        Raises:
            ModelFileError: it is not there, not signed as it must be, not allowed here, damaged.
            Refusal: KEYS_DOWN.
        """
        entry = self.entry(name, version)
        self.must_be_trusted(entry)
        self.rules.must_allow(entry.manifest)
        if entry.seal is None:
            return self._open_plain(entry)
        return self._open_sealed(entry, entry.seal)

    def must_be_trusted(self, entry: Entry) -> None:
        """Hold a model's signature against it, if the rules want one.

        Raises:
            ModelFileError: UNSIGNED, SIGNATURE.
            Refusal: KEYS_DOWN.
        """
        if self.rules.signed == "off" or (self.rules.signed == "packaged" and entry.packaged):
            return
        keys = {} if entry.signature is None else self.keys.signers()
        must_be_signed(entry.manifest, entry.signature, keys)

    def sealer(self, entry: Entry, seal: ModelSeal) -> Sealer:
        """Have a sealed model's key unwrapped. Raises ModelFileError: SEAL; Refusal: KEYS_DOWN."""
        try:
            key = self.keys.unwrap(seal.wrapped, aad=wrapping_aad(entry.manifest))
        except VaultRejected as refused:
            if refused.forbidden:
                raise
            raise ModelFileError(Fault.SEAL) from None
        return Sealer(seal, key, entry.manifest.digest)

    # --- entries ----------------------------------------------------------------------------

    def _packaged(self, manifest: Manifest) -> Entry:
        """Describe a packaged model; a signature that cannot be read is none."""
        home = f"{STORE}/{manifest.name}/{manifest.version}"
        try:
            text = self._beside(home, SIGNATURE)
            signature = None if text is None else ModelSignature.parse(text)
        except ModelFileError as error:
            log.warning("models.damaged", model=manifest.name, reason=error.name)
            signature = None
        return Entry(manifest=manifest, packaged=True, home=home, signature=signature, seal=None)

    def _stored(self, name: str, version: str) -> Entry:
        if not (is_name(name) and is_version(version)):
            raise ModelFileError(Fault.NOT_FOUND)
        home = f"{STORE}/{name}/{version}"
        text = self._beside(home, MANIFEST)
        if text is None:
            raise ModelFileError(Fault.NOT_FOUND)
        manifest = Manifest.parse(text)
        if (manifest.name, manifest.version) != (name, version) or manifest.canonical() != text:
            raise ModelFileError(Fault.MISPLACED)
        signature, seal = self._beside(home, SIGNATURE), self._beside(home, SEAL)
        return Entry(
            manifest=manifest,
            packaged=False,
            home=home,
            signature=None if signature is None else ModelSignature.parse(signature),
            seal=None if seal is None else ModelSeal.parse(seal),
        )

    def _beside(self, home: str, name: str) -> bytes | None:
        if not self.folder.is_dir():
            return None
        with below.folder(self.folder) as top:
            return below.read_small(top, f"{home}/{name}", bytes_max=_SMALL_BYTES)

    # --- files ------------------------------------------------------------------------------

    def _open_plain(self, entry: Entry) -> Opened:
        with ExitStack() as owned:
            private = private_folder(0, where=self.rules.plain_dir)
            owned.callback(private.close)
            top = owned.enter_context(below.folder(self.folder))
            paths = {}
            for file in entry.manifest.files:
                place = entry.place(file)
                handle = owned.enter_context(below.file_at(top, place, alone=not entry.packaged))
                must_match(handle, file)
                paths[file.path] = _named(private.path / file.path)
                # Whoever opens this opens the very file that was hashed, in our process or a child.
                _link(paths[file.path], f"/proc/{os.getpid()}/fd/{handle}")
            return Opened(entry.manifest, paths, owned.pop_all())

    def _open_sealed(self, entry: Entry, seal: ModelSeal) -> Opened:
        sealer = self.sealer(entry, seal)
        with ExitStack() as owned:
            private = private_folder(entry.manifest.size, where=self.rules.plain_dir)
            owned.callback(private.close)
            with below.folder(self.folder) as top:
                paths = {
                    file.path: _decrypted(sealer, file, (top, entry.place(file)), private.path)
                    for file in entry.manifest.files
                }
            return Opened(entry.manifest, paths, owned.pop_all())


def _names(top: int, path: str) -> list[str]:
    """List a folder; one that must not be entered is logged, and has nothing in it."""
    try:
        return below.names_in(top, path)
    except ModelFileError as error:
        log.warning("models.damaged", reason=error.name)
        return []


def _has_manifest(top: int, home: str) -> bool:
    try:
        return MANIFEST in below.names_in(top, home)
    except ModelFileError:
        return True  # opening it will say what is wrong


def must_match(handle: int, file: FileDigest) -> None:
    """Hold an open file against its pin. Raises ModelFileError: SIZE, DIGEST, UNREADABLE."""
    if os.fstat(handle).st_size != file.bytes:
        raise ModelFileError(Fault.SIZE, member=file.path)
    try:
        with os.fdopen(os.dup(handle), "rb") as raw:
            found = hashlib.file_digest(raw, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(Fault.UNREADABLE, member=file.path) from error
    if found != file.sha256:
        raise ModelFileError(Fault.DIGEST, member=file.path)


def _decrypted(sealer: Sealer, file: FileDigest, at: tuple[int, str], into: Path) -> Path:
    """Write a file's plaintext. What was written when it fails goes with the folder."""
    path = _named(into / file.path)
    digest = hashlib.sha256()
    with below.file_at(*at, alone=True) as handle, os.fdopen(os.dup(handle), "rb") as raw:
        if os.fstat(handle).st_size != sealed_size(file.bytes, sealer.seal.chunk_bytes):
            raise ModelFileError(Fault.SEAL, member=file.path)
        try:
            with path.open("xb") as plain:
                for chunk in sealer.opened(file, raw):
                    digest.update(chunk)
                    plain.write(chunk)
        except OSError as error:
            raise ModelFileError(Fault.NO_ROOM, member=file.path) from error
    if digest.hexdigest() != file.sha256:
        raise ModelFileError(Fault.DIGEST, member=file.path)
    return path


def _link(path: Path, target: str) -> None:
    try:
        path.symlink_to(target)
    except OSError as error:
        raise ModelFileError(Fault.NO_ROOM) from error


def _named(path: Path) -> Path:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(Fault.NO_ROOM) from error
    return path


def packaged_manifests() -> list[Manifest]:
    """Return the manifests that came with this release: pinned by it, as its code is."""
    entries = resources.files("inference.manifests").iterdir()
    return [
        Manifest.parse(entry.read_bytes())
        for entry in sorted(entries, key=lambda entry: entry.name)
        if entry.name.endswith(".json")
    ]


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return what orders versions: numbers in them as numbers, so that 10 comes after 9."""
    parts = _NUMBER.split(version)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _order(manifest: Manifest) -> tuple[str, tuple[tuple[int, int, str], ...]]:
    return manifest.name, version_order(manifest.version)
