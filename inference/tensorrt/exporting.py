"""A model's whole export: the graph, and beside it what an engine needs to speak.

    model.onnx                                   see `inference.tensorrt.export`
    config.json, tokenizer.json                  as transformers has them
    tokenizer_config.json                        with the chat template

`sealgate models add FOLDER` takes such a folder as it is.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from inference.engines.cuda.device import from_state
from inference.precision.source import config_of, read_gguf_source, read_parts
from inference.tensorrt.calibration import measured_peaks
from inference.tensorrt.export import export_onnx
from inference.tensorrt.graph import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from inference.precision.source import Source
    from inference.store.store import ModelStore
    from inference.tensorrt.export import Exported

__all__ = ["digest_of", "export_model", "model_files", "read_model", "stretches"]

STRETCH_TOKENS = 256
"""Of a text that a model is measured on: as much as is read at once."""


@contextmanager
def model_files(model: str, store: ModelStore) -> Iterator[Mapping[str, Path]]:
    """Find a model's files, by their names: of a path, or of a model in a store, checked.

    Raises:
        ModelFileError: see `ModelStore.open`.
    """
    path = Path(model)
    if path.is_dir():
        yield {file.name: file for file in sorted(path.iterdir()) if file.is_file()}
    elif path.is_file():
        yield {path.name: path}
    else:
        with store.open(model) as opened:
            yield opened.paths


def read_model(files: Mapping[str, Path]) -> Source:
    """Read a model of GGUF or safetensors.

    Raises:
        PrecisionError: see `inference.precision.source.read_source`.
    """
    ggufs = [path for name, path in files.items() if name.endswith(".gguf")]
    return read_gguf_source(ggufs[0]) if len(ggufs) == 1 else read_parts(files)


def digest_of(files: Mapping[str, Path]) -> str:
    """Digest a model's files: hexadecimal SHA-256 of what `sha256sum *` prints of them."""
    lines = []
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def export_model(
    source: Source,
    folder: Path,
    *,
    precision: Precision,
    positions: int,
    built_from: str = "",
    texts: Sequence[Sequence[int]] = (),
) -> Exported:
    """Write the export of a model.

    Args:
        source: what `read_model` read.
        folder: made if it is not there.
        precision: of products, keys and values.
        positions: how far it can reach; the model's own context at most.
        built_from: see `digest_of`.
        texts: token ids, to scale an fp8 graph by.

    Raises:
        TensorRtError: DISK_FULL.
        PrecisionError: DAMAGED.
        OSError: the folder cannot be written.
    """
    arch = source.architecture
    weights = from_state(arch, source.network().state_dict(), device="cpu", dtype=torch.float32)
    peaks = measured_peaks(source.network(), texts) if precision is Precision.FP8 else {}
    exported = export_onnx(
        weights,
        folder,
        precision=precision,
        positions=min(positions, arch.context_tokens),
        built_from=built_from,
        peaks=peaks,
    )
    configuration = config_of(arch, ends=source.ends)
    (folder / "config.json").write_text(json.dumps(configuration, indent=1) + "\n", "utf-8")
    (folder / "tokenizer.json").write_text(source.tokenizer, "utf-8")
    told = {"chat_template": source.template}
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    return exported


def stretches(source: Source, text: str, *, most: int) -> list[list[int]]:
    """Cut a text into stretches of `STRETCH_TOKENS` token ids, `most` at most; no shorter ones."""
    ids: list[int] = source.encoder().encode(text, add_special_tokens=False).ids
    size = STRETCH_TOKENS
    return [ids[at : at + size] for at in range(0, len(ids) - size + 1, size)][:most]
