"""Why a model is refused. Every text is a constant: it may go into records and logs."""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import Final

__all__ = ["DISK_FULL", "Fault", "ModelFileError"]

DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a disk without room says, or a quota, or a limit to a file."""


class Fault(StrEnum):
    """Each way in which a model can fail; the name goes into the record, the text to a person."""

    NOT_FOUND = "no manifest bears that name and version"
    MANIFEST = "the manifest cannot be understood"
    MISPLACED = "the manifest is not the one that its place in the store says"
    UNREADABLE = "a file of the model cannot be read"
    FILES = "the files are not those that the manifest names"
    SIZE = "a file of the model has not the size that its manifest says"
    DIGEST = "a file of the model has the wrong SHA-256"
    UNSIGNED = "the model is not signed"
    SIGNATURE = "the model's signature does not hold"
    PUBLISHER = "the publisher's signature does not hold, or not for all of these files"
    RISK = "the model's risk class is above what may be loaded here"
    CLASSIFICATION = "the model's classification is not among those that may be loaded here"
    SEAL = "a sealed file of the model does not open: changed, cut off, moved or of another key"
    SEALED = "the model is sealed already"
    PACKAGED = "a packaged model cannot be changed; add it under a name of your own"
    NO_ROOM = "there is no room for the model's files"
    NO_MEMORY = "there is not enough memory for the model"
    TRITON = "the model cannot be had from Triton"
    STATE = "a file in the store cannot be written"
    BUSY = "the store is being changed by another command"
    EXISTS = "the store has that name and version already"
    PATH = "a file's name leads elsewhere, or is not one that the store takes"
    DUPLICATE = "two files bear the same name, or names that differ in case alone"
    LINK = "a link, a device or a pipe stands where a file should be"
    KIND = "a file is of a kind that the store does not take"
    PICKLE = "a file is a pickle, or may hold one: it could run code"
    NESTED = "an archive lies within the model"
    ARCHIVE = "the archive cannot be understood"
    MANY = "there are more files than may be added"
    LARGE = "there are more bytes than may be added"
    BOMB = "the archive unpacks to more than such an archive may"
    EMPTY = "there is no model in it"
    GGUF = "a file is no whole GGUF"
    SAFETENSORS = "a file is no whole safetensors"
    ONNX = "a file is no whole ONNX model"
    EXTERNAL = "an ONNX model keeps weights in other files"
    JSON = "a file is no JSON"
    TEXT = "a file is no UTF-8 text"
    PLAN = "a file is no TensorRT plan"
    FORMAT = "the files are not of the format that the manifest says"
    ARCHITECTURE = "the files are of another architecture than the manifest says"
    CONTEXT = "the manifest promises more context than the files do"
    TEMPLATE = "the chat template is not the one that the manifest names"
    TOKENIZER = "the tokenizer is not the one that the manifest names"
    CLAIM = "what is said of the model is missing, too long or not one of the values there are"


class ModelFileError(Exception):
    """A model's file is missing, or the model is not what its manifest says.

    fault: Which of the ways, where there is a name for it; given by itself if `what` says more.
    member: The file in question, as it was given: for a person who is shown it as text, never for
        a record or a log.
    """

    def __init__(self, what: str, *, member: str = "", fault: Fault | None = None) -> None:
        super().__init__(str(what))
        self.fault = what if isinstance(what, Fault) else fault
        self.member = member

    @property
    def name(self) -> str:
        """What a record says of it."""
        return self.fault.name.lower() if self.fault else "damaged"
