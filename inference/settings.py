"""What an operator may turn on inference. Units end the names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from inference.engines.settings import EmbeddingLimits
from inference.engines.triton.settings import TritonSettings
from inference.release.settings import ReleaseSettings
from inference.store.rules import Rules
from inference.text import Pieces
from meshkit.settings import MeshSettings


class InferenceSettings(MeshSettings):
    """Environment `INFERENCE_*`.

    Key and value cache: slots x context x 22.5 KiB at most for SmolLM2-135M (fp16; 45 KiB, fp32, in
    PyTorch), so 360 MiB with the defaults, or `kv_memory_mib`, and `prefix_memory_mib` beside it;
    pages that no request has reached yet take no memory.
    """

    model_config = SettingsConfigDict(env_prefix="INFERENCE_")

    engine: Literal["torch", "triton"] = Field(
        "torch", description="Who runs the model: this process, or NVIDIA Triton beside it."
    )
    triton: TritonSettings = TritonSettings()
    model: str = Field("smollm2-135m-instruct", description="A manifest in inference/manifests.")
    models_dir: Path = Field(
        default=Path("var/models"), description="Where weights lie, a folder a model."
    )
    models_signed: Literal["required", "packaged", "off"] = Field(
        "packaged",
        description="Which models must be signed under OpenBao's key: all; all but those whose "
        "manifest came with this release; none.",
    )
    models_plain_dir: Path | None = Field(
        default=None,
        description="Where sealed models are opened, in a folder of ours alone; none: in memory "
        "(/dev/shm) if there is room, else in the temporary folder.",
    )
    model_classifications: tuple[str, ...] | None = Field(
        default=None, description="Only models so classified are loaded; none: all."
    )
    risk_class_max: Literal["minimal", "limited", "high"] | None = Field(
        default=None, description="No model above this risk class is loaded; none: all."
    )
    release: ReleaseSettings = ReleaseSettings()
    steps_run_in: Literal["process", "triton"] = Field(
        "process", description="Of a model of format onnx: ONNX Runtime here, or a plan in Triton."
    )
    tensorrt_dir: Path = Field(
        default=Path("var/tensorrt"), description="Where `make tensorrt` put TensorRT-RTX."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the model runs; auto: on a GPU if there is one."
    )
    gpu_precision: Literal["bf16", "fp8"] = Field(
        "bf16", description="Of the matrices on a GPU; fp8 is faster, loses accuracy, needs Hopper."
    )
    threads: int = Field(2, ge=1, le=256, description="CPU threads of the forward pass.")
    slots: int = Field(8, ge=1, le=512, description="Requests that share a forward pass.")
    waiting_max: int = Field(
        64, ge=0, description="Requests that wait for a slot; then OVERLOADED."
    )
    priority_ageing_ms: int = Field(
        5_000, ge=1, description="Waiting that outweighs a point of priority: nobody starves."
    )
    tenant_priorities: dict[str, Annotated[int, Field(ge=-1_000, le=1_000)]] = Field(
        default={},
        description="Served sooner, the higher: tenant to number, -1,000 to 1,000; 0 for others.",
    )
    prefix_share: Literal["principal", "tenant", "nobody"] = Field(
        "principal", description="Whose prompts may share what was computed for a common beginning."
    )
    kv_memory_mib: int | None = Field(
        None, ge=1, description="Keys and values of what runs; unset: as much as full slots hold."
    )
    prefix_memory_mib: int = Field(
        256, ge=0, description="Keys and values kept for prompts that begin alike; 0: none."
    )
    guess_tokens: int = Field(
        3, ge=0, le=16, description="Tokens guessed from the prompt at once, on a CPU; 0: none."
    )
    guess_rows_max: int = Field(
        4, ge=1, description="Rows of a step up to which tokens are guessed: not when busy."
    )
    overloaded_retry_ms: int = Field(1_000, ge=1, description="What an OVERLOADED caller is told.")
    context_tokens_max: int = Field(
        2_048, ge=64, description="Prompt and answer together; capped by the model's own context."
    )
    prefill_chunk_tokens: int = Field(
        256, ge=16, description="Prompt tokens between two decode steps: bounds others' pauses."
    )
    gpu_prefill_chunk_tokens: int = Field(
        8_192, ge=16, description="The same on a GPU; 8,192 take an 8B model 180 ms on an H100."
    )
    piece_tokens: int = Field(
        8, ge=1, description="Tokens handed to a caller at once, after the first, at most."
    )
    piece_ms: int = Field(
        20,
        ge=0,
        description="How long they may wait for one another, unless the reader says its need.",
    )
    step_timeout_ms: int = Field(
        30_000,
        ge=1,
        description="A step that takes longer hangs: the engine is down until it ends.",
    )
    restarts_max: int = Field(
        3, ge=0, description="Engine faults survived, no answer between them."
    )
    stop_timeout_ms: int = Field(5_000, ge=1, description="For the engine's thread at shutdown.")

    @property
    def store_rules(self) -> Rules:
        """What may be loaded."""
        chosen = self.model_classifications
        return Rules(
            signed=self.models_signed,
            risk_class_max=self.risk_class_max,
            classifications=None if chosen is None else frozenset(chosen),
            plain_dir=self.models_plain_dir,
        )

    embedding: EmbeddingLimits = EmbeddingLimits()

    @property
    def pieces(self) -> Pieces:
        """How text is handed over."""
        return Pieces(self.piece_tokens, self.piece_ms / 1_000)
