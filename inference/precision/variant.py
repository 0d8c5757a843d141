"""A network put into a folder that engines, stores and others can read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from inference.precision.files import PRECISION, flattened, whole_folder, write_tensors
from inference.precision.source import config_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from inference.precision.network import Network
    from inference.precision.schemes import Precision
    from inference.precision.source import Source

__all__ = ["write_variant"]


def write_variant(
    target: Path,
    network: Network,
    source: Source,
    *,
    precision: Precision,
    about: Mapping[str, str],
) -> None:
    """Write a variant of `source`, whole or not at all.

    Args:
        target: a folder that is not there yet.
        network: the variant's sizes and weights.
        source: whose tokenizer and template it has.
        precision: of the weights.
        about: what else the file's header says of how it was made; no text of users.

    Raises:
        PrecisionError: EXISTS, DISK_FULL, NO_LIBRARY.
    """
    tensors, metadata = flattened(network.state_dict())
    told = {f"sealgate.{key}": value for key, value in about.items()}
    config = config_of(network.arch, ends=source.ends)
    config["dtype"] = str(precision.plain or torch.bfloat16).removeprefix("torch.")
    with whole_folder(target) as folder:
        _write_json(folder / "config.json", config)
        _write_json(folder / "tokenizer_config.json", {"chat_template": source.template})
        (folder / "tokenizer.json").write_text(source.tokenizer, encoding="utf-8")
        header = metadata | told | {PRECISION: precision.value, "format": "pt"}
        write_tensors(folder / "model.safetensors", tensors, header)


def _write_json(path: Path, told: Mapping[str, object]) -> None:
    path.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
