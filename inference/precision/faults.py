"""What may go wrong with a variant. A text is a constant: no path, no name, no number. PURE."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Fault", "PrecisionError", "disk_faults"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Fault(StrEnum):
    """Why there is no variant. The value is all that is told."""

    UNKNOWN_PRECISION = "no such precision"
    NEEDS_GPU = "this precision needs a GPU that computes in 8-bit floats (Hopper or later)"
    NO_DEVICE = "no such device here"
    NO_LIBRARY = "the extra `models` is not installed: pip install 'sealgate[models]'"
    NOT_A_MODEL = "neither a GGUF file nor a folder with config.json and safetensors"
    NOT_LLAMA = "the model is not of an architecture that can be computed here"
    DAMAGED = "the model's tensors are not those that its sizes ask for"
    NOT_FINITE = "the model holds weights that are no numbers"
    ALREADY_QUANTISED = "a quantised model cannot be quantised or trained: take what it came from"
    GROUPS = "the group does not divide the rows of every matrix"
    TOO_LITTLE_TEXT = "too little text: training and measuring need a stretch each"
    NOT_TEXT = "the text is not UTF-8"
    SPARSITY = "that share of each row's weights cannot be left out"
    NO_LAYERS = "a student keeps at least one layer and fewer than its teacher"
    NO_MANIFEST = "a model outside the store has no licence to pass on: say where to with --into"
    OTHER_VOCABULARY = "the variant has another vocabulary than the original"
    NUMBER = "a number that was asked for is outside its range"
    DIVERGED = "training diverged: the loss is no number"
    OTHER_RUN = "the unfinished run in that folder had other settings"
    EXISTS = "the target exists already"
    DISK_FULL = "the disk is full; nothing was kept"
    OUT_OF_MEMORY = "out of memory: take a smaller batch or shorter stretches"


class PrecisionError(Exception):
    """A variant could not be made, read or measured."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@contextmanager
def disk_faults() -> Iterator[None]:
    """Tell a full disk by its name; other errors of the disk pass.

    Raises:
        PrecisionError: DISK_FULL.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise PrecisionError(Fault.DISK_FULL) from error
        raise
