"""Text to train on and text to measure with, told apart once and for all.

Of the files given, in the order of their names, every tenth is held out; of a single file, the last
tenth of its characters. Text is cut into stretches of equal length, each read by itself; what is
left over at a file's end is dropped. No text of a held-out file is ever trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inference.precision.faults import Fault, PrecisionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

__all__ = ["Corpus", "order_of", "read_corpus", "split"]

_HELD_OUT_EVERY = 10
_TOKENS_MIN = 2
"""One to read, and one to come next."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Stretches of token ids: int64, (stretches, tokens)."""

    train: torch.Tensor
    held_out: torch.Tensor


def split(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell apart what trains and what measures."""
    if len(texts) < _HELD_OUT_EVERY:
        whole = "\n".join(texts)
        cut = len(whole) - len(whole) // _HELD_OUT_EVERY
        return [whole[:cut]], [whole[cut:]]
    held_out = list(texts[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY])
    train = [text for i, text in enumerate(texts, 1) if i % _HELD_OUT_EVERY]
    return train, held_out


def read_corpus(
    paths: Sequence[Path],
    encoder: Tokenizer,
    *,
    tokens: int,
    train_stretches: int,
    held_out_stretches: int,
) -> Corpus:
    """Read text files, and the `*.txt` of folders, until there is enough.

    Args:
        paths: files and folders.
        encoder: the model's tokenizer.
        tokens: in a stretch.
        train_stretches: to train on, at most; 0 if nothing is trained.
        held_out_stretches: to measure with, at most.

    Raises:
        PrecisionError: NUMBER, NOT_TEXT, TOO_LITTLE_TEXT.
    """
    if tokens < _TOKENS_MIN:
        raise PrecisionError(Fault.NUMBER)
    train, held_out = split([_text(path) for path in sorted(_files(paths))])
    return Corpus(
        _stretches(train, encoder, tokens, train_stretches),
        _stretches(held_out, encoder, tokens, held_out_stretches),
    )


def order_of(stretches: int, *, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Indices of batches, for ever: each round through the text is shuffled anew, by the seed."""
    draw = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(stretches, generator=draw)])
        yield left[:batch]
        left = left[batch:]


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from path.glob("*.txt")
        else:
            yield path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PrecisionError(Fault.NOT_TEXT) from error
    except OSError as error:
        raise PrecisionError(Fault.TOO_LITTLE_TEXT) from error


def _stretches(
    texts: Sequence[str], encoder: Tokenizer, tokens: int, stretches: int
) -> torch.Tensor:
    """Every text gives as much as the others, so that a limit does not mean the oldest only."""
    each = -(-stretches // max(len(texts), 1))
    # Long enough at 16 characters a token, and no longer: encoding is what takes time.
    starts = [text[: each * tokens * 16] for text in texts] if stretches else []
    cut: list[list[int]] = []
    for encoded in encoder.encode_batch(starts, add_special_tokens=False):
        count = min(len(encoded.ids) // tokens, each)
        cut += [encoded.ids[i * tokens : (i + 1) * tokens] for i in range(count)]
    if stretches and not cut:
        raise PrecisionError(Fault.TOO_LITTLE_TEXT)
    return torch.tensor(cut[:stretches], dtype=torch.long).view(-1, tokens)
