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

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from inference.precision.faults import Fault, PrecisionError, disk_faults
from inference.precision.schemes import quiet_torchao

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "NIBBLES",
    "PRECISION",
    "Coded",
    "coded_tensors",
    "flattened",
    "read_header",
    "read_tensors",
    "whole_folder",
    "write_tensors",
]

PRECISION, NIBBLES = "sealgate.precision", "sealgate.nibbles"
_QDATA, _SCALE, _ZERO = "_weight_qdata", "_weight_scale", "_weight_zero_point"
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


@dataclass(frozen=True, slots=True)
class Coded:
    """A quantised matrix: weight = scale * (code - zero), by row or by group of inputs.

    codes: int8 or e4m3, (outputs, inputs). scale: fp32, (outputs, groups). zero: int8, as scale.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return self.codes.shape[1] // self.scale.shape[1]

    def dequantised(self) -> torch.Tensor:
        """The matrix in fp32."""
        grouped = self.codes.float().view(*self.scale.shape, self.group)
        if self.zero is not None:
            grouped = grouped - self.zero[..., None]
        return (grouped * self.scale[..., None]).flatten(1)


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


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a file's tensors as a network takes them: torchao's, where they are quantised.

    Raises:
        PrecisionError: DAMAGED, NO_LIBRARY.
    """
    parts, metadata = _read(path)
    if PRECISION not in metadata or "tensor_names" not in metadata:
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


def read_header(path: Path) -> dict[str, str]:
    """Read a file's own words about itself.

    Raises:
        PrecisionError: DAMAGED.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, FileNotFoundError) as error:
        raise PrecisionError(Fault.DAMAGED) from error


def coded_tensors(path: Path) -> dict[str, torch.Tensor | Coded]:
    """Read a file's tensors as an engine takes them: plain, or as codes; without torchao.

    Raises:
        PrecisionError: DAMAGED.
    """
    parts, metadata = _read(path)
    nibbles = set(json.loads(metadata.get(NIBBLES, "[]")))
    found: dict[str, torch.Tensor | Coded] = {}
    for name, part in parts.items():
        if name.endswith((_SCALE, _ZERO)):
            continue
        stem, quantised, _ = name.rpartition(f".{_QDATA}")
        if not quantised:
            found[name] = part
            continue
        codes = _unpacked(part) if f"{stem}.weight" in nibbles else part
        try:
            scale = parts[f"{stem}.{_SCALE}"].float()
            coded = Coded(codes, scale, parts.get(f"{stem}.{_ZERO}"))
        except KeyError as error:
            raise PrecisionError(Fault.DAMAGED) from error
        found[f"{stem}.weight"] = _checked(coded)
    return found


def _checked(coded: Coded) -> Coded:
    rows, inputs = coded.codes.shape
    scale, zero = coded.scale, coded.zero
    if scale.dim() != 2 or scale.shape[0] != rows or inputs % scale.shape[1]:  # noqa: PLR2004 -- a matrix
        raise PrecisionError(Fault.DAMAGED)
    if zero is not None and zero.shape != scale.shape:
        raise PrecisionError(Fault.DAMAGED)
    return coded


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, FileNotFoundError) as error:
        raise PrecisionError(Fault.DAMAGED) from error


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
