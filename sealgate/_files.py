"""What a client shows, kept as its files are: they are replaced long before a certificate ends.

Whoever keeps the files replaces them together, but one by one: for microseconds a certificate may
stand beside the key of another. Such a pair is not taken; what is at hand serves until they fit.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

__all__ = ["Files", "Pem", "Shown"]

Pem = str | Path | bytes
"""PEM itself, as bytes, or the path of a file with it."""

LOOK_S = 1.0
"""A call looks at the files unless another did so this short a time ago."""
_READS_MAX = 3
_READ_AGAIN_S = 0.02
"""At the very first call, which has nothing else to show."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A certificate chain, its key, and the CA that the server must come from, all PEM."""

    ca: bytes
    cert: bytes
    key: bytes = field(repr=False)

    def fits(self) -> bool:
        """Whether the key is the certificate's, and all of it can be read."""
        try:
            leaf, *_ = x509.load_pem_x509_certificates(self.cert)
            key = load_pem_private_key(self.key, password=None)
            x509.load_pem_x509_certificates(self.ca)
            return key.public_key() == leaf.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return False

    def credentials(self) -> grpc.ChannelCredentials:
        """Make mutual TLS credentials."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


class Files:
    """CA, certificate and key as they are now. Not safe to share between threads: see `Line`."""

    def __init__(self, ca: Pem, cert: Pem, key: Pem) -> None:
        """Prepare; nothing is read yet. What is given as bytes stays as it is."""
        # A process may go to another folder between two looks.
        self._given = [
            each if isinstance(each, bytes) else Path(each).absolute() for each in (ca, cert, key)
        ]
        self._paths = [each for each in self._given if isinstance(each, Path)]
        self._shown: Shown | None = None
        self._marks: list[tuple[int, ...]] | None = None
        """Of the files that `_shown` was read from; None: look again."""
        self._next_look_s = 0.0

    def latest(self) -> Shown:
        """Return what to show: the same object until files that fit have other content.

        Raises:
            OSError: a file cannot be read, and none was before.
        """
        if self._shown is None:
            self._shown = self._first()
        elif self._paths and time.monotonic() >= self._next_look_s:
            with suppress(OSError):
                self._shown = self._looked(self._shown)
        else:
            return self._shown
        self._next_look_s = time.monotonic() + LOOK_S
        return self._shown

    def _first(self) -> Shown:
        """Take what there is, whether it fits or not in the end: gRPC fails calls over it."""
        if not self._paths:
            return self._read()
        marks, shown = self._marked(), self._read()
        for _ in range(_READS_MAX - 1):
            if shown.fits():
                break
            time.sleep(_READ_AGAIN_S)
            marks, shown = self._marked(), self._read()
        self._marks = marks if shown.fits() else None
        return shown

    def _looked(self, at_hand: Shown) -> Shown:
        """Raises OSError: they cannot be read now; the next look is as good."""
        marks = self._marked()  # before they are read: what changes meanwhile is seen next time
        if marks == self._marks:
            return at_hand
        found = self._read()
        if found != at_hand and not found.fits():
            return at_hand
        self._marks = marks
        return at_hand if found == at_hand else found

    def _marked(self) -> list[tuple[int, ...]]:
        stats = [path.stat() for path in self._paths]
        return [(each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in stats]

    def _read(self) -> Shown:
        return Shown(
            *(each if isinstance(each, bytes) else each.read_bytes() for each in self._given)
        )
