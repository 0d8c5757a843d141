"""Triton's `config.pbtxt`, as text. PURE.

The form is protobuf's text format of `inference.ModelConfig` (triton-inference-server/common,
`protobuf/model_config.proto`); only the fields that our repositories use are known here.
`inference.triton_repository.folder` has each text read back by Triton's own schema before it is
written.

    name: "smollm2-135m-instruct"
    backend: "python"
    max_batch_size: 0
    model_transaction_policy { decoupled: true }
    input [ { name: "roles", data_type: TYPE_STRING, dims: [-1] } ]
    ...
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Batching", "Instances", "ModelConfig", "Tensor", "quoted", "rendered"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
_TYPE: Final = re.compile(r"TYPE_(BOOL|U?INT(8|16|32|64)|FP(16|32|64)|STRING|BF16)")
_PRINTABLE: Final = range(0x20, 0x7F)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or an output.

    dims: without the batch's; -1 is any size. optional: an input that a request may leave out.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Triton's dynamic batcher: requests that wait for one another are run as one.

    preferred: Rows that are sent at once when that many wait. queue_us: How long the first of them
    waits for others, in microseconds. waiting_max: Requests that may wait; 0: any number.
    waiting_ms: How long one may; then Triton refuses it. 0: any time.
    """

    preferred: tuple[int, ...] = ()
    queue_us: int = 0
    waiting_max: int = 0
    waiting_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """How many copies of the model are run at once, and where. gpus: their numbers; empty: all."""

    kind: Literal["KIND_CPU", "KIND_GPU", "KIND_MODEL", "KIND_AUTO"] = "KIND_CPU"
    count: int = 1
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What Triton is told of one model.

    backend or platform: which backend runs it; one of the two (`platform: "tensorrt_plan"`).
    batch_max: rows of one run; 0: the model has no batch dimension. decoupled: a request may have
    any number of responses. parameters: what the Python backend's model is handed.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    backend: str = ""
    platform: str = ""
    batch_max: int = 0
    decoupled: bool = False
    instances: Instances = Instances()
    batching: Batching | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what Triton would read otherwise than it was meant.

        Raises:
            ValueError: a name or a number is outside its range.
        """
        names = [self.name, *(each.name for each in (*self.inputs, *self.outputs))]
        types = [each.data_type for each in (*self.inputs, *self.outputs)]
        if not all(map(_NAME.fullmatch, names)) or not all(map(_TYPE.fullmatch, types)):
            msg = "a name or a type in a Triton configuration is not one"
            raise ValueError(msg)
        if bool(self.backend) == bool(self.platform) or self.batch_max < 0:
            msg = "a model in Triton needs one of backend and platform, and no negative batch"
            raise ValueError(msg)
        if self.batching is not None and (
            self.batch_max < 1 or any(not 0 < n <= self.batch_max for n in self.batching.preferred)
        ):
            msg = "dynamic batching needs batch_max, and preferred sizes within it"
            raise ValueError(msg)


def rendered(config: ModelConfig) -> str:
    """Return the text of config.pbtxt."""
    return "\n".join(("# Made by `sealgate models triton-repository`.", *_lines(config), ""))


def quoted(text: str) -> str:
    """Return a protobuf text format string: bytes of UTF-8, those that are not plain in octal."""
    letters = [
        chr(byte) if byte in _PRINTABLE and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in text.encode()
    ]
    return f'"{"".join(letters)}"'


def _lines(config: ModelConfig) -> Iterator[str]:
    yield f"name: {quoted(config.name)}"
    engine = ("backend", config.backend) if config.backend else ("platform", config.platform)
    yield f"{engine[0]}: {quoted(engine[1])}"
    yield f"max_batch_size: {config.batch_max}"
    if config.decoupled:
        yield "model_transaction_policy { decoupled: true }"
    yield from _tensors("input", config.inputs)
    yield from _tensors("output", config.outputs)
    gpus = f", gpus: {list(config.instances.gpus)}" if config.instances.gpus else ""
    kind, count = config.instances.kind, config.instances.count
    yield f"instance_group [ {{ kind: {kind}, count: {count}{gpus} }} ]"
    if config.batching is not None:
        yield from _batching(config.batching)
    for key, value in sorted(config.parameters.items()):
        yield f"parameters {{ key: {quoted(key)}, value: {{ string_value: {quoted(value)} }} }}"


def _tensors(kind: str, tensors: tuple[Tensor, ...]) -> Iterator[str]:
    for each in tensors:
        optional = ", optional: true" if each.optional else ""
        yield (
            f"{kind} [ {{ name: {quoted(each.name)}, data_type: {each.data_type}, "
            f"dims: {list(each.dims)}{optional} }} ]"
        )


def _batching(batching: Batching) -> Iterator[str]:
    yield "dynamic_batching {"
    if batching.preferred:
        yield f"  preferred_batch_size: {list(batching.preferred)}"
    yield f"  max_queue_delay_microseconds: {batching.queue_us}"
    if batching.waiting_max or batching.waiting_ms:
        yield "  default_queue_policy {"
        yield "    timeout_action: REJECT"
        yield f"    default_timeout_microseconds: {batching.waiting_ms * 1_000}"
        yield f"    max_queue_size: {batching.waiting_max}"
        yield "  }"
    yield "}"
