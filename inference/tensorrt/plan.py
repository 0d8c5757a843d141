"""What lies beside a plan, and the check that the two belong together, before anybody loads one.

    model.plan    TensorRT-RTX's own format: begins with `vtrt`; bytes 24 to 27 are the version that
                  built it, as seen with 1.7.1.116 (NVIDIA documents no header)
    plan.json     {"schema": "sealgate/plan/v1", …}: the fields of `Plan`

A plan is machine code for some GPUs, of one version of the library: another version does not load
it, so it is refused here, before that library is given the file.

    1  plan.json is sound
    2  the plan has the size and SHA-256 that it says
    3  the plan's own header names the version that it says
    4  that version is the one installed
    5  this machine's GPU is one that it was built for: the library itself is asked (`probe_plan`)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from inference.tensorrt.builder import installed_version, probe_plan
from inference.tensorrt.export import Exported, exported_from
from inference.tensorrt.faults import Fault, TensorRtError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PLAN_FILE", "PLAN_NOTES", "Plan", "must_load", "read_plan_notes", "version_in"]

PLAN_FILE, PLAN_NOTES = "model.plan", "plan.json"

_SCHEMA = "sealgate/plan/v1"
_MAGIC, _VERSION_AT = b"vtrt", slice(24, 28)
_NOTES_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a plan was made from, by what, and for what.

    graph_sha256: hexadecimal, of model.onnx and, if there is one, model.onnx.data behind it.
    sha256: of the plan. version: of TensorRT-RTX.
    capabilities: of GPUs, such as "8.9". slots, chunk_tokens, context_tokens: as in
    `inference.tensorrt.builder.Shapes`.
    """

    step: Exported
    version: str
    capabilities: tuple[str, ...]
    slots: int
    chunk_tokens: int
    context_tokens: int
    graph_sha256: str
    sha256: str
    size_bytes: int

    def written(self) -> bytes:
        """Return plan.json: canonical, so that equal plans have equal notes."""
        told = {"schema": _SCHEMA, "builder": "tensorrt-rtx", **asdict(self)}
        return json.dumps(told, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def read_plan_notes(path: Path) -> Plan:
    """Read plan.json.

    Raises:
        TensorRtError: PLAN_UNKNOWN.
    """
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_NOTES_BYTES_MAX))
        if (told.pop("schema"), told.pop("builder")) != (_SCHEMA, "tensorrt-rtx"):
            raise TensorRtError(Fault.PLAN_UNKNOWN)
        step = exported_from(told.pop("step"))
        if not isinstance(told["capabilities"], list):
            raise TensorRtError(Fault.PLAN_UNKNOWN)
        plan = Plan(**{**told, "step": step, "capabilities": tuple(told["capabilities"])})
        sizes = (plan.slots, plan.chunk_tokens, plan.context_tokens, plan.size_bytes)
        texts = (plan.version, plan.graph_sha256, plan.sha256, *plan.capabilities)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise TensorRtError(Fault.PLAN_UNKNOWN) from None
    if not all(type(size) is int and size > 0 for size in sizes):
        raise TensorRtError(Fault.PLAN_UNKNOWN)
    if not all(isinstance(text, str) for text in texts):
        raise TensorRtError(Fault.PLAN_UNKNOWN)
    return plan


def version_in(head: bytes) -> str:
    """Read the version that a plan's first 64 bytes name.

    Raises:
        TensorRtError: PLAN_DAMAGED.
    """
    if not head.startswith(_MAGIC) or len(head) < _VERSION_AT.stop:
        raise TensorRtError(Fault.PLAN_DAMAGED)
    return ".".join(str(byte) for byte in head[_VERSION_AT])


def must_load(plan: Plan, path: Path, home: Path) -> None:
    """See that a plan could be loaded here, by steps 2 to 5.

    Args:
        plan: what lies beside it.
        path: the plan's.
        home: where TensorRT-RTX is installed.

    Raises:
        TensorRtError: PLAN_DAMAGED, OTHER_VERSION, NOT_INSTALLED, NO_GPU or GPU_REFUSED.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError:
        raise TensorRtError(Fault.PLAN_DAMAGED) from None
    if (found, size) != (plan.sha256, plan.size_bytes):  # 2
        raise TensorRtError(Fault.PLAN_DAMAGED)
    if version_in(head) != plan.version:  # 3
        raise TensorRtError(Fault.OTHER_VERSION)
    if installed_version(home) != plan.version:  # 4
        raise TensorRtError(Fault.OTHER_VERSION)
    probe_plan(home, path)  # 5
