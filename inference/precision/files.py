"""A variant on disk: a folder with config.json, tokenizer.json and model.safetensors.

Tensors have Hugging Face's names. A quantised weight `M.weight` lies in the file as torchao's
`flatten_tensor_state_dict` names its parts, with torchao's description of it in the header:

    M._weight_qdata        codes: I8 (outputs, inputs); of int4 U8 (outputs, inputs / 2), see below;
                           of fp8 F8_E4M3
    M._weight_scale        (outputs, groups): weight = scale * (code - zero)
    M._weight_zero_point   I8 (outputs, groups); none of fp8

int4: codes -8..7 plus 8, two a byte, the even column in the low four bits (torchao would spend a
byte on each). The header's `sealgate.precision` is the name of the precision, and
`sealgate.nibbles` lists such weights.

A folder appears whole or not at all: it is filled under another name, synced, then renamed.

The engine reads the same without torchao: `inference.checkpoint`.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from inference.precision.faults import Fault, PrecisionError, disk_faults
from inference.precision.schemes import quiet_torchao
from inference.registry import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from inference.safetensors_file import Tensors

__all__ = [
    "NIBBLES",
    "PRECISION",
    "flattened",
    "read_state",
    "whole_folder",
    "write_tensors",
]

PRECISION, NIBBLES = "sealgate.precision", "sealgate.nibbles"
_QDATA = "_weight_qdata"
_ALIGNMENT = 8
_MIDDLE = 8
"""Added to a 4-bit code so that it is not negative."""
_CODES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.int64: "I64",
    torch.float8_e4m3fn: "F8_E4M3",
}


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, a tensor at a time: memory for one more tensor is all it takes.

    Raises:
        OSError: the disk is full, or worse. What was written stays: see `whole_folder`.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (-len(told) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(told)) + told)
        for tensor in tensors.values():
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            file.write(raw.numpy().data)
        file.flush()
        os.fsync(file.fileno())


def flattened(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Take torchao's tensors apart: plain tensors, and the header that puts them together again."""
    if all(type(tensor.detach()) is torch.Tensor for tensor in state.values()):
        return {name: tensor.detach() for name, tensor in state.items()}, {}
    with quiet_torchao():
        from torchao.prototype.safetensors import safetensors_support as ao  # noqa: PLC0415 -- late

    plain = {name: tensor.detach() for name, tensor in state.items()}
    parts: dict[str, torch.Tensor]
    metadata: dict[str, str]
    parts, metadata = ao.flatten_tensor_state_dict(plain)
    packed = [name for name, told in metadata.items() if '"_data": "int4"' in told]
    for name in packed:
        at = _part(name, _QDATA)
        parts[at] = _packed(parts[at])
    return parts, metadata | {NIBBLES: json.dumps(packed)}


def read_state(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Read tensors as a network takes them: torchao's, where they are quantised.

    Raises:
        PrecisionError: DAMAGED, NO_LIBRARY.
    """
    metadata = dict(tensors.metadata)
    try:
        parts = {name: tensors.get(name) for name in tensors.notes}
    except ModelFileError as error:
        raise PrecisionError(Fault.DAMAGED) from error
    if PRECISION not in metadata or NIBBLES not in metadata:
        return parts
    with quiet_torchao():
        from torchao.prototype.safetensors import safetensors_support as ao  # noqa: PLC0415 -- late

    try:
        for name in json.loads(metadata[NIBBLES]):
            at = _part(name, _QDATA)
            parts[at] = _unpacked(parts[at])
        whole, rest = ao.unflatten_tensor_state_dict(parts, metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise PrecisionError(Fault.DAMAGED) from error
    if rest:
        raise PrecisionError(Fault.DAMAGED)
    return dict(whole)


def _part(weight: str, part: str) -> str:
    return f"{weight.removesuffix('.weight')}.{part}"


def _packed(codes: torch.Tensor) -> torch.Tensor:
    shifted = (codes + _MIDDLE).to(torch.uint8)
    return shifted[:, ::2] | shifted[:, 1::2] << 4


def _unpacked(packed: torch.Tensor) -> torch.Tensor:
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
    return codes.to(torch.int8) - _MIDDLE


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill that becomes `target` at the end, or vanishes if anything goes wrong.

    Raises:
        PrecisionError: EXISTS, DISK_FULL.
    """
    if target.exists():
        raise PrecisionError(Fault.EXISTS)
    filling = target.with_name(f".{target.name}.{os.getpid()}")
    with disk_faults():
        filling.mkdir(parents=True)
        try:
            yield filling
            _sync(filling)
            filling.rename(target)
            _sync(target.parent)
        except BaseException:
            shutil.rmtree(filling, ignore_errors=True)
            raise


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
