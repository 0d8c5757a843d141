"""How a client reaches a gateway: certificates from files or memory, nothing from the process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

__all__ = ["Connection", "Pem", "folder_files"]

Pem = str | Path | bytes
"""PEM itself, as bytes, or the path of a file with it."""

_RECEIVE_BYTES_MAX = 16 * 1_024 * 1_024


def folder_files(folder: str | Path) -> tuple[Path, Path, Path]:
    """Return where CA, certificate and key are in a client's TLS folder."""
    at = Path(folder)
    return at / "ca.pem", at / "client.pem", at / "client.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where a gateway is and what to show it."""

    target: str
    ca: Pem
    cert: Pem
    key: Pem
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Make mutual TLS credentials. Raises OSError: a file cannot be read."""
        return grpc.ssl_channel_credentials(_pem(self.ca), _pem(self.key), _pem(self.cert))

    def options(self) -> list[tuple[str, Any]]:
        """Return channel options."""
        named = [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
        return [("grpc.max_receive_message_length", _RECEIVE_BYTES_MAX), *named]


def _pem(given: Pem) -> bytes:
    return given if isinstance(given, bytes) else Path(given).read_bytes()
