"""The builder itself, in a process of its own, under the Python that has TensorRT-RTX.

    var/tensorrt/.venv/bin/python -I rtx_worker.py < JOB > LINES

JOB is one JSON object; LINES are JSON objects, one a line: any number of {"phase", "steps"}, then
one of {"fault": NAME} (a name of `inference.tensorrt.faults.Fault`) or a result:

    {"do": "version"}                                      {"version"}
    {"do": "build", "graph", "plan", "capabilities", "profiles", "workspace_bytes",
     "memory_bytes"}                                       {"version", "bytes"}
    {"do": "probe", "plan"}                                {"version"}: it could be loaded here

It imports nothing of ours: NVIDIA's library shares no process with keys or prompts, and what
becomes of it there (a crash, an end of memory) is its parent's finding. Of the library's own
messages only the kind is told.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
import time
from enum import StrEnum
from typing import Any

import tensorrt_rtx_bindings as rtx

_PHASE_EVERY_S = 0.2


class Kind(StrEnum):
    """The faults that can be told from here, by their names."""

    CAPABILITY = "CAPABILITY"
    DISK_FULL = "DISK_FULL"
    GPU_REFUSED = "GPU_REFUSED"
    GRAPH_REFUSED = "GRAPH_REFUSED"
    NO_GPU = "NO_GPU"
    NOT_BUILT = "NOT_BUILT"
    OTHER_VERSION = "OTHER_VERSION"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    PLAN_DAMAGED = "PLAN_DAMAGED"


_SIGNS = {
    Kind.GPU_REFUSED: ("cannot run on this GPU", "compute capability"),
    Kind.OUT_OF_MEMORY: ("OutOfMemory", "out of memory", "bad_alloc", "Cannot allocate"),
    Kind.NO_GPU: ("cudaError 35", "driver version is insufficient", "CUDA GPU properties"),
    Kind.PLAN_DAMAGED: ("serialization version", "magicTag", "expected format for TensorRT"),
}
"""What the library's messages hold, as seen with 1.7.1: on a CPU, and on an H100 for the first."""


class Told(Exception):  # noqa: N818 -- it ends the job, whatever it is
    """Ends the job with a fault."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind = kind


class Listener(rtx.ILogger):  # type: ignore[misc]  # the bindings bring no types
    """Keeps the first kind of trouble that the library speaks of, and none of its words."""

    def __init__(self) -> None:
        rtx.ILogger.__init__(self)
        self.kind: Kind | None = None

    def log(self, severity: Any, message: str) -> None:  # noqa: ANN401 -- the bindings' enum
        """Take a message."""
        if severity in {rtx.ILogger.ERROR, rtx.ILogger.INTERNAL_ERROR} and self.kind is None:
            self.kind = kind_of(message)


class Progress(rtx.IProgressMonitor):  # type: ignore[misc]  # as above
    """Tells phases and steps, not more often than a person can read."""

    def __init__(self) -> None:
        rtx.IProgressMonitor.__init__(self)
        self._steps = 0
        self._told_s = 0.0

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002 -- the library's
        """Tell it, if the last was not told just now."""
        if time.monotonic() - self._told_s >= _PHASE_EVERY_S:
            self._told_s = time.monotonic()
            tell({"phase": phase_name, "steps": self._steps})

    def phase_finish(self, phase_name: str) -> None:
        """Nothing to tell."""

    def step_complete(self, phase_name: str, step: int) -> bool:  # noqa: ARG002 -- the library's
        """Count; the build goes on."""
        self._steps += 1
        return True


def kind_of(message: str) -> Kind | None:
    """Which fault a message of the library's speaks of; None: none that we know."""
    signs = _SIGNS.items()
    return next((kind for kind, texts in signs if any(text in message for text in texts)), None)


def tell(told: dict[str, Any]) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def build(job: dict[str, Any]) -> dict[str, Any]:
    """Build a plan and write it."""
    # After the library is mapped: its 230 MB of code are not the model's.
    used = resource.RLIMIT_AS
    resource.setrlimit(used, (job["memory_bytes"], resource.getrlimit(used)[1]))
    listener = Listener()
    builder = rtx.Builder(listener)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, listener)
    if not parser.parse_from_file(job["graph"]) or not network.num_outputs:
        raise Told(listener.kind or Kind.GRAPH_REFUSED)
    config = configured(builder, job)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Told(listener.kind or Kind.NOT_BUILT)
    write(job["plan"], memoryview(plan))
    return {"version": rtx.__version__, "bytes": plan.nbytes}


def configured(builder: Any, job: dict[str, Any]) -> Any:  # noqa: ANN401 -- as above
    """Set what the job asks for."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE, job["workspace_bytes"])
    config.num_compute_capabilities = len(job["capabilities"])
    for number, name in enumerate(job["capabilities"]):
        capability = getattr(rtx.ComputeCapability, name, None)
        if capability is None:
            raise Told(Kind.CAPABILITY)
        config.set_compute_capability(capability, number)
    for shapes in job["profiles"]:
        profile = builder.create_optimization_profile()
        for tensor, (least, usual, most) in shapes.items():
            profile.set_shape(tensor, least, usual, most)
        config.add_optimization_profile(profile)
    config.progress_monitor = Progress()
    return config


def probe(job: dict[str, Any]) -> dict[str, Any]:
    """Ask the library whether it would load a plan on this machine."""
    listener = Listener()
    runtime = rtx.Runtime(listener)
    with open(job["plan"], "rb") as file:  # noqa: PTH123 -- no pathlib for one file
        header = file.read(runtime.engine_header_size)
    validity, why = runtime.get_engine_validity(header)
    if validity != rtx.EngineValidity.INVALID:
        return {"version": rtx.__version__}
    reasons = rtx.EngineInvalidityDiagnostics
    if why & int(reasons.VERSION_MISMATCH):
        raise Told(Kind.OTHER_VERSION)
    if why & int(reasons.MALFORMED_ENGINE):
        raise Told(Kind.PLAN_DAMAGED)
    if why & int(reasons.UNSUPPORTED_CC):
        raise Told(Kind.GPU_REFUSED)
    raise Told(Kind.OUT_OF_MEMORY if why & int(reasons.INSUFFICIENT_GPU_MEMORY) else Kind.NO_GPU)


def write(path: str, plan: memoryview) -> None:
    """Write a plan to the disk, and see it there."""
    with open(path, "wb") as file:  # noqa: PTH123 -- as above
        file.write(plan)
        file.flush()
        os.fsync(file.fileno())


def main() -> None:
    """Do the job."""
    job = json.load(sys.stdin)
    try:
        if job["do"] == "version":
            tell({"version": rtx.__version__})
        else:
            tell({"build": build, "probe": probe}[job["do"]](job))
    except Told as told:
        tell({"fault": told.kind})
    except MemoryError:
        tell({"fault": Kind.OUT_OF_MEMORY})
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        tell({"fault": Kind.DISK_FULL if full else Kind.NOT_BUILT})


if __name__ == "__main__":
    main()
