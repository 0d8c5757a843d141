"""Which files a store takes, and whether each is what its name says.

    .gguf .safetensors .onnx        walked from end to end, by sizes alone
    .plan                           TensorRT's machine code: only that it is no other thing
    .json                           parsed
    .txt .md .jinja LICENSE NOTICE README     UTF-8 text

All else is refused, and a pickle by name or by its first bytes most of all: reading one runs it.
"""

from __future__ import annotations

import json
import mmap
import os
from hashlib import sha256
from typing import IO, TYPE_CHECKING, Any

from inference.store.errors import Fault, ModelFileError
from inference.store.facts import Facts
from inference.store.gguf_check import check_gguf
from inference.store.onnx_check import check_onnx
from inference.store.safetensors_check import check_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["check_file", "facts_of", "must_be_taken"]

_PICKLES = frozenset(
    {"bin", "ckpt", "dill", "joblib", "mar", "npy", "npz", "p", "pickle", "pkl", "pt", "pt2", "pth"}
)
"""What may hold a pickle. numpy's formats may."""
_ARCHIVES = frozenset({"7z", "bz2", "gz", "nemo", "rar", "tar", "tgz", "whl", "xz", "zip", "zst"})
_TEXTS = frozenset({"txt", "md", "jinja"})
_NAMED_TEXTS = frozenset({"LICENSE", "LICENCE", "NOTICE", "README"})
_PICKLE_STARTS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_ARCHIVE_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")
_PROGRAM_STARTS = (b"\x7fELF", b"MZ", b"#!")
_START_BYTES = 8
_JSON_BYTES_MAX = 64 << 20
_TEXT_BYTES_MAX = 16 << 20
_PLAN_BYTES_MIN = 64

_CONFIG, _TOKENIZER = "config.json", "tokenizer.json"
_TOKENIZER_CONFIG, _TEMPLATE = "tokenizer_config.json", "chat_template.jinja"


def must_be_taken(path: str) -> None:
    """Refuse a name whose kind the store does not take. Raises ModelFileError."""
    name = path.rpartition("/")[2]
    extension = _extension(name)
    if extension in _PICKLES:
        raise ModelFileError(Fault.PICKLE, member=path)
    if extension in _ARCHIVES:
        raise ModelFileError(Fault.NESTED, member=path)
    if extension not in _CHECKS and extension not in _TEXTS and name not in _NAMED_TEXTS:
        raise ModelFileError(Fault.KIND, member=path)


def check_file(path: str, raw: IO[bytes], size: int) -> Facts:
    """Hold a file's content against its name; tell what it says of the model.

    Args:
        path: Its name, one that `must_be_taken` let by.
        raw: The file, at its start.
        size: Its size, in bytes.

    Raises:
        ModelFileError: it is another thing, damaged or cut off; `member` names it.
    """
    name = path.rpartition("/")[2]
    try:
        return _CHECKS.get(_extension(name), _text)(name, raw, size)
    except ModelFileError as error:
        raw.seek(0)
        fault = _another_thing(raw.read(_START_BYTES)) or error.fault or str(error)
        raise ModelFileError(fault, member=path) from error


def _another_thing(start: bytes) -> Fault | None:
    """Tell from a file's first bytes what it is that has no place here."""
    if start.startswith(_PICKLE_STARTS):
        return Fault.PICKLE
    if start.startswith(_ARCHIVE_STARTS):
        return Fault.NESTED
    return Fault.KIND if start.startswith(_PROGRAM_STARTS) else None


def facts_of(paths: Mapping[str, Path]) -> Facts:
    """Put together what all files of a model say. Raises ModelFileError, as `check_file`."""
    facts = Facts()
    # A template in a file of its own counts before the one in tokenizer_config.json.
    for path in sorted(paths, key=lambda path: (path != _TEMPLATE, path)):
        with paths[path].open("rb") as raw:
            facts = facts.over(check_file(path, raw, os.fstat(raw.fileno()).st_size))
    return facts


def _extension(name: str) -> str:
    stem, _, extension = name.rpartition(".")
    return extension.lower() if stem else ""


def _gguf(_name: str, raw: IO[bytes], size: int) -> Facts:
    return check_gguf(raw, size)


def _safetensors(_name: str, raw: IO[bytes], size: int) -> Facts:
    check_safetensors(raw, size)
    return Facts()


def _onnx(_name: str, raw: IO[bytes], size: int) -> Facts:
    # A first field that no reader knows can spell how a pickle or a program begins.
    if not size or _another_thing(raw.read(_START_BYTES)):
        raise ModelFileError(Fault.ONNX)
    with mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        check_onnx(view)
    return Facts()


def _plan(_name: str, raw: IO[bytes], size: int) -> Facts:
    if size < _PLAN_BYTES_MIN or _another_thing(raw.read(_START_BYTES)):
        raise ModelFileError(Fault.PLAN)
    return Facts()


def _json(name: str, raw: IO[bytes], size: int) -> Facts:
    text = _bounded(raw, size, _JSON_BYTES_MAX)
    try:
        told: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelFileError(Fault.JSON) from None
    told = told if isinstance(told, dict) else {}
    if name == _CONFIG:
        kind, context = told.get("model_type"), told.get("max_position_embeddings")
        return Facts(
            architecture=kind if isinstance(kind, str) else "",
            context_tokens=context if type(context) is int else None,
        )
    if name == _TOKENIZER_CONFIG and isinstance(template := told.get("chat_template"), str):
        try:
            return Facts(template=template.encode())
        except UnicodeEncodeError:  # JSON can spell half a character
            raise ModelFileError(Fault.TEXT) from None
    return Facts(tokenizer_sha256=sha256(text).hexdigest() if name == _TOKENIZER else "")


def _text(name: str, raw: IO[bytes], size: int) -> Facts:
    try:
        text = _bounded(raw, size, _TEXT_BYTES_MAX).decode()
    except UnicodeDecodeError:
        raise ModelFileError(Fault.TEXT) from None
    if "\0" in text:
        raise ModelFileError(Fault.TEXT)
    if name != _TEMPLATE:
        return Facts()
    # As the engine reads it: lines end in one way.
    return Facts(template=text.replace("\r\n", "\n").replace("\r", "\n").encode())


def _bounded(raw: IO[bytes], size: int, most: int) -> bytes:
    if size > most:
        raise ModelFileError(Fault.LARGE)
    return raw.read(size)


_CHECKS: dict[str, Callable[[str, IO[bytes], int], Facts]] = {
    "gguf": _gguf,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "plan": _plan,
    "json": _json,
}
