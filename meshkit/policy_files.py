"""The files of a set of Cedar policies: read, told apart cheaply, and the manifest of their digest.

schema.cedarschema   *.cedar   entities.json
"""

from __future__ import annotations

import fnmatch
import json
import os
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["ENTITIES", "PoliciesInvalid", "manifest", "read_files", "stamp_of", "text_of"]

ENTITIES = "entities.json"
"""Who has which role, of all tenants."""
_FILE_BYTES_MAX = 16 * 1024 * 1024


class PoliciesInvalid(ValueError):  # noqa: N818 -- an answer about an operator's files
    """A set of policies cannot be used. Names the file and what Cedar says of it."""


def _names(folder: Path) -> list[str]:
    """Raises OSError: it cannot be listed, which is not to be without rules."""
    found = os.listdir(folder) if folder.is_dir() else ()  # noqa: PTH208 -- names, not paths
    return sorted([*fnmatch.filter(found, "*.cedar"), "schema.cedarschema", ENTITIES])


def read_files(folder: Path) -> dict[str, bytes]:
    """Read a set. Raises PoliciesInvalid: a file is missing, unreadable or too large."""
    try:
        names = _names(folder)
    except OSError as error:
        msg = f"policies: {error.strerror}"
        raise PoliciesInvalid(msg) from error
    files = {}
    for name in names:
        try:
            with (folder / name).open("rb") as file:
                files[name] = file.read(_FILE_BYTES_MAX + 1)
        except OSError as error:
            msg = f"{name}: {error.strerror}"
            raise PoliciesInvalid(msg) from error
        if len(files[name]) > _FILE_BYTES_MAX:
            msg = f"{name}: larger than {_FILE_BYTES_MAX} bytes"
            raise PoliciesInvalid(msg)
    return files


def text_of(name: str, raw: bytes) -> str:
    """Decode a file. Raises PoliciesInvalid: it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        msg = f"{name}: not UTF-8"
        raise PoliciesInvalid(msg) from error


def manifest(files: Mapping[str, bytes]) -> bytes:
    """Write the document that a set's digest is of: JSON, keys sorted, no white space.

    `{"files":{NAME: SHA-256 in hexadecimal…},"schema":"sealgate/policies/v2"}`
    """
    told = {name: sha256(raw).hexdigest() for name, raw in files.items()}
    return json.dumps(
        {"files": told, "schema": "sealgate/policies/v2"}, sort_keys=True, separators=(",", ":")
    ).encode()


def stamp_of(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Tell a changed set cheaply: name, size and time of each file; -1 for a missing one.

    Raises OSError: the folder cannot be listed.
    """
    stamps = []
    for name in _names(folder):
        try:
            found = (folder / name).stat()
        except OSError:
            stamps.append((name, -1, -1))
        else:
            stamps.append((name, found.st_size, found.st_mtime_ns))
    return tuple(stamps)
