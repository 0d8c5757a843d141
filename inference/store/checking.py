"""Everything that a store says of a model, checked again: for `sealgate models verify`.

Nothing here loads a model. Each check says `ok`, or the name of what is wrong; one that cannot be
made, since a key is out of reach, says so, and counts as not held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inference.store import below
from inference.store.claims import must_agree
from inference.store.errors import Fault, ModelFileError
from inference.store.formats import facts_of
from inference.store.rules import Rules
from inference.store.store import PLAIN_FILES, SEALED_FILES, ModelStore
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inference.store.store import Entry

__all__ = ["OK", "Checked", "check_model", "check_store"]

OK = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found of one model. Each check is `ok` or the name of a `Fault` in lower case.

    manifest: it can be read, and belongs where it lies.
    signature: it holds; `not_needed`: a packaged manifest, pinned by this release.
    files: each has its size and SHA-256, and opens if it is sealed; `keys_down`: not asked.
    content: each is what its name says, and says of itself what the manifest says: architecture,
        context, chat template, tokenizer.
    extra: files that no manifest names, in its folder.
    """

    name: str
    version: str
    digest: str = ""
    packaged: bool = False
    sealed: bool = False
    manifest: str = OK
    signature: str = OK
    files: str = OK
    content: str = OK
    extra: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong with it."""
        signed = self.signature in {OK, "not_needed"}
        return signed and {self.manifest, self.files, self.content} == {OK} and not self.extra


def check_store(store: ModelStore) -> Iterator[Checked]:
    """Check every model in turn: those packaged whose files are there, and all that were added."""
    for entry in store.entries():
        if entry.packaged and is_there(store, entry):
            yield check_model(store, entry.manifest.name, entry.manifest.version)
    for name, version in store.places():
        yield check_model(store, name, version)


def check_model(store: ModelStore, name: str, version: str | None = None) -> Checked:
    """Check one model. Raises ModelFileError: NOT_FOUND."""
    if version is None:
        version = store.newest(name)
    try:
        entry = store.entry(name, version)
    except ModelFileError as error:
        if error.fault is Fault.NOT_FOUND:
            raise
        unknown = "unknown"
        return Checked(
            name=name,
            version=version,
            manifest=error.name,
            signature=unknown,
            files=unknown,
            content=unknown,
        )
    found = Checked(
        name=entry.manifest.name,
        version=entry.manifest.version,
        digest=entry.manifest.digest.hex(),
        packaged=entry.packaged,
        sealed=entry.seal is not None,
        signature=_signature(store, entry),
        extra=_extra(store, entry),
    )
    return _with_files(store, entry, found)


def is_there(store: ModelStore, entry: Entry) -> bool:
    """Whether a packaged model's files were fetched, or some of them."""
    return any((store.folder / file.path).exists() for file in entry.manifest.files)


def _with_files(store: ModelStore, entry: Entry, found: Checked) -> Checked:
    trusting = ModelStore(
        store.folder, store.keys, Rules(signed="off", plain_dir=store.rules.plain_dir)
    )
    try:
        opened = trusting.open(found.name, found.version)
    except (ModelFileError, Refusal) as error:
        return replace(found, files=_name(error), content="unknown")
    with opened:
        return replace(
            found,
            content=_outcome(lambda: must_agree(entry.manifest, facts_of(opened.paths))),
        )


def _signature(store: ModelStore, entry: Entry) -> str:
    if entry.packaged and entry.signature is None and store.rules.signed != "required":
        return "not_needed"
    strict = ModelStore(store.folder, store.keys, Rules(signed="required"))
    return _outcome(lambda: strict.must_be_trusted(entry))


def _extra(store: ModelStore, entry: Entry) -> int:
    """Count what lies in a model's folder and is in no manifest: plain files beside sealed, too."""
    if entry.packaged:
        return 0
    known = {entry.place(file) for file in entry.manifest.files}
    with below.folder(store.folder) as top:
        return sum(
            path not in known
            for kind in (PLAIN_FILES, SEALED_FILES)
            for path in below.walk(top, f"{entry.home}/{kind}")
        )


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except (ModelFileError, Refusal) as error:
        return _name(error)
    return OK


def _name(error: ModelFileError | Refusal) -> str:
    if isinstance(error, ModelFileError):
        return error.name
    return "keys_down" if error.reason is Reason.KEYS_DOWN else error.reason.name.lower()
