"""Limits of engines that an operator may turn. Units end the names."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["EmbeddingLimits"]


class EmbeddingLimits(BaseModel):
    """What a call for vectors may cost: `INFERENCE_EMBEDDING__TEXTS_MAX=64`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: str = Field(
        default="",
        description="A manifest of kind `embedding`, loaded beside the chat model; empty: none.",
    )
    texts_max: int = Field(default=64, ge=1, le=4_096, description="Texts in one call.")
    text_characters_max: int = Field(
        default=8_192, ge=1, description="Characters of one text; its tokens: the model's context."
    )
    batch_tokens: int = Field(
        default=1_024,
        ge=1,
        le=65_536,
        description="Tokens of texts that share a forward pass; one long text may hold more.",
    )
    waiting_max: int = Field(default=16, ge=0, description="Calls that wait; then OVERLOADED.")
    overloaded_retry_ms: int = Field(
        default=500, ge=1, description="What an OVERLOADED caller is told."
    )
