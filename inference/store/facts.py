"""What a model's files say of themselves, to be held against what its manifest says. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

__all__ = ["Facts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Of one file or of several together; what none of them says is empty or None.

    architecture: as `Manifest.architecture`.
    template: the chat template, UTF-8.
    tokenizer_sha256: of a GGUF, SHA-256 of the metadata fields whose names begin with
        `tokenizer.ggml.`, names and values as they lie in the file; else of `tokenizer.json`.
    """

    architecture: str = ""
    context_tokens: int | None = None
    template: bytes | None = field(default=None, repr=False)
    tokenizer_sha256: str = ""

    @property
    def template_sha256(self) -> str:
        """What `Manifest.template_sha256` is to be."""
        return "" if self.template is None else sha256(self.template).hexdigest()

    def over(self, other: Facts) -> Facts:
        """Return what either says; where both do, this one's."""
        return Facts(
            architecture=self.architecture or other.architecture,
            context_tokens=other.context_tokens
            if self.context_tokens is None
            else self.context_tokens,
            template=other.template if self.template is None else self.template,
            tokenizer_sha256=self.tokenizer_sha256 or other.tokenizer_sha256,
        )
