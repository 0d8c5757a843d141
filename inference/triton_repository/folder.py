"""A model's folder in a Triton repository: whole or not there at all.

DIR/NAME/config.pbtxt
DIR/NAME/VERSION/...      what the backend reads: model.py, model.plan, ...
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import text_format

from inference.triton_repository.config import rendered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference.triton_repository.config import ModelConfig

__all__ = ["RepositoryError", "check_text", "write_model"]


class RepositoryError(Exception):
    """A model's folder cannot be written as it was asked for."""


def check_text(text: str) -> None:
    """Have a configuration read by Triton's own schema.

    Raises:
        RepositoryError: Triton would not take it.
    """
    # Here: 0.1 s, and of use only to those who write repositories.
    from tritonclient.grpc import model_config_pb2  # noqa: PLC0415 -- as above

    try:
        text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        msg = "Triton's schema does not know this configuration"
        raise RepositoryError(msg) from error


def write_model(
    repository: Path, config: ModelConfig, files: Mapping[str, bytes | Path], *, version: int = 1
) -> Path:
    """Write one model's folder, in place of one of that name; return it.

    Args:
        repository: made if it is not there.
        config: the model's; its name is the folder's.
        files: what lies in the version's folder, by name: bytes, or a file to copy.
        version: 1 or more.

    Raises:
        RepositoryError: a name leads out of the folder, or Triton would not take the configuration.
        OSError: the disk does not take it; what was there before still is.
    """
    text = rendered(config)
    check_text(text)
    repository.mkdir(parents=True, exist_ok=True)
    target = repository / config.name
    with tempfile.TemporaryDirectory(prefix=f".{config.name}-", dir=repository) as scratch:
        fresh = Path(scratch) / "fresh"
        _fill(fresh / str(version), files)
        (fresh / "config.pbtxt").write_text(text, "utf-8")
        if target.exists():
            target.rename(Path(scratch) / "old")
        fresh.rename(target)
    return target


def _fill(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    folder.mkdir(parents=True)
    for name, source in files.items():
        if Path(name).name != name or name in {"", ".", ".."}:
            msg = "a file of a model in Triton must lie in its version's folder itself"
            raise RepositoryError(msg)
        if isinstance(source, Path):
            shutil.copyfile(source, folder / name)
        else:
            (folder / name).write_bytes(source)
