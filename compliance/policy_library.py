"""Policies on a disk: which files there are, and whose text each judges.

    FOLDER/tenants.yaml      version: 1
                             default: ward            every tenant that is not named
                             tenants: {acme: pci-dss, globex: ward-7}
    FOLDER/ward.yaml         a policy; its `name` is the file's
    FOLDER/ward-7.yaml       extends: ward
    FOLDER/names.txt         a dictionary that one of them names

All of it is read and tried as one: a fault anywhere refuses the whole. A policy may extend, and a
tenant may have, one that ships with Sealgate (`compliance.policy.SHIPPED`); no file may bear the
name of one of those, so that a name always means the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from compliance.policy import SHIPPED, Policy, PolicyError, chained, shipped
from compliance.policy_format import PolicyFile, PolicyName, read_file, read_yaml, valid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["TENANTS", "Book", "Library", "Stamps", "load_book", "load_one", "stamps"]

TENANTS = "tenants.yaml"
POLICIES_MAX = 256
TENANTS_MAX = 10_000
DICTIONARY_BYTES_MAX = 2 * 1024 * 1024
_FILE_BYTES_MAX = DICTIONARY_BYTES_MAX

Tenant = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9\-]{0,61}[a-z0-9])?$")]
Stamp = tuple[int, int, int, int]
Stamps = tuple[tuple[str, Stamp | None], ...]


class _Tenants(BaseModel):
    """`tenants.yaml`: every tenant gets exactly one policy."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    version: Literal[1]
    default: PolicyName
    tenants: Annotated[dict[Tenant, PolicyName], Field(max_length=TENANTS_MAX)] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """All policies of one moment, and which of them judges whom."""

    policies: Mapping[str, Policy]
    tenants: Mapping[str, str]
    default: str
    digest: bytes = field(init=False)
    """SHA-256 over the names of tenants and the digests of their policies: 32 bytes."""

    def __post_init__(self) -> None:
        whole = hashlib.sha256(b"sealgate/compliance-policies/v1\0")
        for tenant in ("", *sorted(self.tenants)):
            whole.update(tenant.encode() + b"\0" + self.of(tenant).digest)
        for name in sorted(self.policies):
            whole.update(self.policies[name].digest)
        object.__setattr__(self, "digest", whole.digest())

    def of(self, tenant: str) -> Policy:
        """Return the one policy that judges this tenant's text."""
        return self.policies[self.tenants.get(tenant, self.default)]


class Library:
    """Reads the files of one folder, once each, and remembers which it read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, bytes] = {}
        self._files: dict[str, PolicyFile] = {}

    @property
    def seen(self) -> frozenset[str]:
        """Names of the files that were asked for, there or not."""
        return frozenset(self._read)

    def bytes_of(self, name: str) -> bytes:
        """Return a file's content. Raises PolicyError: not there, or too large."""
        self._read.setdefault(name, b"")
        path = self._folder / name
        if path.exists() and not path.is_file():
            msg = f"{name}: no file"  # but a pipe, perhaps, which would be waited for
            raise PolicyError(msg)
        try:
            with path.open("rb") as file:
                content = file.read(_FILE_BYTES_MAX + 1)
        except OSError as error:
            msg = f"{name}: {error.strerror}"
            raise PolicyError(msg) from None
        if len(content) > _FILE_BYTES_MAX:
            msg = f"{name}: larger than {_FILE_BYTES_MAX} bytes"
            raise PolicyError(msg)
        self._read[name] = content
        return content

    def file(self, name: str) -> PolicyFile:
        """Return the policy file of that name. Raises PolicyError, which names the file."""
        if name not in self._files:
            self._files[name] = file = self.parse(f"{name}.yaml")
            if file.name != name:
                msg = f"{name}.yaml: its name must be that of the file"
                raise PolicyError(msg)
        return self._files[name]

    def parse(self, file_name: str) -> PolicyFile:
        """Read a policy from a file of any name. Raises PolicyError, which names the file."""
        content = self.bytes_of(file_name)
        try:
            return read_file(content, self.bytes_of)
        except PolicyError as error:
            msg = f"{file_name}: {error}"
            raise PolicyError(msg) from None

    def policy(self, name: str) -> Policy:
        """Return a policy, its chain laid together. Raises PolicyError."""
        return chained(shipped(name) if name in SHIPPED else self.file(name), self.file)


def load_one(path: Path, library: Library | None = None) -> Policy:
    """Read one policy; what it extends stands beside it or ships with Sealgate.

    Raises:
        PolicyError: it cannot be read or used.
    """
    library = library or Library(path.parent)
    return chained(library.parse(path.name), library.file)


def load_book(folder: Path, library: Library | None = None) -> Book:
    """Read all policies of a folder, and those that its tenants have.

    Raises:
        PolicyError: any file of it cannot be read or used. Tests are not tried here.
    """
    library = library or Library(folder)
    tenants = _tenants(library)
    names = {path.stem for path in _policy_files(folder)}
    if own := sorted(names & set(SHIPPED)):
        msg = f"{own[0]}.yaml: a policy of this name ships with Sealgate; choose another"
        raise PolicyError(msg)
    if len(names) > POLICIES_MAX:
        msg = f"more than {POLICIES_MAX} policies"
        raise PolicyError(msg)
    wanted = {tenants.default, *tenants.tenants.values()}
    if missing := sorted(wanted - names - set(SHIPPED)):
        msg = f"{TENANTS}: {', '.join(missing)}: there is no such policy"
        raise PolicyError(msg)
    policies = {name: _named(name, library) for name in sorted(names | wanted)}
    return Book(policies=policies, tenants=tenants.tenants, default=tenants.default)


def _named(name: str, library: Library) -> Policy:
    try:
        return library.policy(name)
    except PolicyError as error:
        msg = str(error) if str(error).startswith(f"{name}.yaml: ") else f"{name}: {error}"
        raise PolicyError(msg) from None


def _tenants(library: Library) -> _Tenants:
    content = library.bytes_of(TENANTS)
    try:
        return valid(_Tenants, read_yaml(content))
    except PolicyError as error:
        msg = f"{TENANTS}: {error}"
        raise PolicyError(msg) from None


def _policy_files(folder: Path) -> list[Path]:
    """The policies of a folder; editors' and Kubernetes' files begin with a dot."""
    try:
        found = [path for path in folder.iterdir() if path.suffix == ".yaml"]
    except OSError as error:
        msg = f"policy folder: {error.strerror}"
        raise PolicyError(msg) from None
    return sorted(p for p in found if p.name != TENANTS and not p.name.startswith("."))


def stamps(folder: Path, seen: Iterable[str], *, whole: bool) -> Stamps:
    """Tell cheaply whether anything changed: size, times and inode of each file; None if missing.

    seen: files that the last reading asked for. whole: all policies of the folder too.
    """
    names = set(seen)
    if whole:
        names |= {TENANTS}
        try:
            names |= {path.name for path in _policy_files(folder)}
        except PolicyError:
            names |= {"."}
    return tuple((name, _stamp(folder / name)) for name in sorted(names))


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
