"""How a client reaches a gateway: certificates from files or memory, nothing from the process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from sealgate._files import Pem

__all__ = ["Connection"]

_RECEIVE_BYTES_MAX = 16 * 1_024 * 1_024
_AGAIN = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["CANCELLED"],
                },
            }
        ]
    }
)
"""A call that reaches a gateway just as it says goodbye is cancelled by gRPC, unseen and
unrecorded; it is made again by whoever serves the port then. Others only if asked for: `retries`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where a gateway is and what to show it."""

    target: str
    ca: Pem
    cert: Pem
    key: Pem
    server_name: str | None = None

    @classmethod
    def of(
        cls,
        target: str,
        tls: str | Path | None,
        pems: tuple[Pem | None, Pem | None, Pem | None],
        *,
        server_name: str | None,
    ) -> Self:
        """Take a folder, or CA, certificate and key one by one.

        Raises:
            TypeError: neither was given, or both.
        """
        if tls is not None and not any(pems):
            at = Path(tls)
            pems = (at / "ca.pem", at / "client.pem", at / "client.key")
        elif tls is not None:
            pems = (None, None, None)
        ca, cert, key = pems
        if ca is None or cert is None or key is None:
            msg = "give tls=FOLDER, or all of ca, cert and key"
            raise TypeError(msg)
        return cls(target=target, ca=ca, cert=cert, key=key, server_name=server_name)

    def options(self) -> list[tuple[str, Any]]:
        """Return channel options."""
        named = [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
        return [
            ("grpc.max_receive_message_length", _RECEIVE_BYTES_MAX),
            ("grpc.service_config", _AGAIN),
            *named,
        ]
