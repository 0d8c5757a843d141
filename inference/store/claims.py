"""What somebody says of a model when it is added, and how that becomes its manifest. PURE.

What the files themselves say is taken from them and need not be said; what is said and is not so is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.store.errors import Fault, ModelFileError
from inference.store.manifest import (
    Classification,
    FileDigest,
    Format,
    Kind,
    Manifest,
    RiskClass,
    must_be_distinct,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.store.facts import Facts

__all__ = ["Claim", "manifest_of", "must_agree", "must_say_enough"]

_FORMATS: tuple[Format, ...] = ("gguf", "safetensors", "onnx", "plan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is said of a model. See `Manifest`; None: as the files say, or the store decides."""

    name: str
    licence: str
    version: str | None = None
    kind: Kind = "chat"
    base: str = ""
    format: Format | None = None
    precision: str = ""
    context_tokens: int | None = None
    source: str = ""
    languages: tuple[str, ...] = ()
    intended_use: str = ""
    risk_class: RiskClass = "limited"
    classification: Classification = "unclassified"
    default_system: str = ""


def manifest_of(claim: Claim, version: str, files: Sequence[FileDigest], facts: Facts) -> Manifest:
    """Make the manifest of what was added.

    Raises:
        ModelFileError: CLAIM, CONTEXT, FORMAT, EMPTY, DUPLICATE.
    """
    must_say_enough(claim)
    must_be_distinct(tuple(file.path for file in files))
    context = claim.context_tokens
    manifest = Manifest(
        name=claim.name,
        version=version,
        files=tuple(sorted(files, key=lambda file: file.path)),
        format=_format(claim, files),
        precision=claim.precision,
        kind=claim.kind,
        base=claim.base,
        architecture=facts.architecture,
        context_tokens=facts.context_tokens or 0 if context is None else context,
        licence=claim.licence,
        source=claim.source,
        languages=claim.languages,
        intended_use=claim.intended_use,
        risk_class=claim.risk_class,
        classification=claim.classification,
        template_sha256=facts.template_sha256,
        tokenizer_sha256=facts.tokenizer_sha256,
        default_system=claim.default_system,
    )
    try:
        sound = Manifest.parse(manifest.canonical())
    except (ModelFileError, UnicodeEncodeError):
        raise ModelFileError(Fault.CLAIM) from None
    must_agree(sound, facts)
    return sound


def must_say_enough(claim: Claim | Manifest) -> None:
    """Refuse a model without a licence, and a base without an adapter or the reverse.

    Raises:
        ModelFileError: CLAIM.
    """
    if not claim.licence.strip() or (claim.kind == "adapter") != bool(claim.base):
        raise ModelFileError(Fault.CLAIM)


def must_agree(manifest: Manifest, facts: Facts) -> None:
    """Hold a manifest against what its files say of themselves.

    Raises:
        ModelFileError: FORMAT, ARCHITECTURE, CONTEXT, TEMPLATE, TOKENIZER.
    """
    if not manifest.weights:
        raise ModelFileError(Fault.FORMAT)
    if facts.architecture != manifest.architecture:
        raise ModelFileError(Fault.ARCHITECTURE)
    if facts.context_tokens is not None and manifest.context_tokens > facts.context_tokens:
        raise ModelFileError(Fault.CONTEXT)
    if manifest.template_sha256 and facts.template_sha256 != manifest.template_sha256:
        raise ModelFileError(Fault.TEMPLATE)
    if manifest.tokenizer_sha256 and facts.tokenizer_sha256 != manifest.tokenizer_sha256:
        raise ModelFileError(Fault.TOKENIZER)


def _format(claim: Claim, files: Sequence[FileDigest]) -> Format:
    there: list[Format] = [
        format_ for format_ in _FORMATS if any(f.path.endswith(f".{format_}") for f in files)
    ]
    if not there:
        raise ModelFileError(Fault.EMPTY)
    if claim.format is None and len(there) > 1:
        raise ModelFileError(Fault.CLAIM)
    found = claim.format or there[0]
    if found not in there:
        raise ModelFileError(Fault.FORMAT)
    return found
