"""Proof, before anything is said to it, that a Triton on a network takes nobody but us.

tritonserver has no setting for the least TLS version and none for reading certificates anew. So a
Triton that is not on loopback must show here that it does not agree to TLS 1.2 and does not answer
whoever brings no certificate, be it by a proxy in front of it, or by GRPC_SSL_CIPHER_SUITES and an
ECDSA certificate of its own (docs/triton.md). On loopback nothing is asked for.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final

from inference.store.errors import Fault, ModelFileError
from meshkit.tls import TlsError, probe_tls13_only

if TYPE_CHECKING:
    from pathlib import Path

    from inference.engines.triton.settings import TritonSettings

__all__ = ["answers_strangers", "must_be_fenced"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""A client's first words in HTTP/2, and its empty SETTINGS frame. Source: RFC 9113, 3.4."""
_MS_PER_S: Final = 1_000


def must_be_fenced(settings: TritonSettings) -> None:
    """Look from outside, unless Triton is on loopback.

    Raises:
        ModelFileError: it takes TLS 1.2, or answers without a client's certificate, or cannot be
            reached to be looked at.
    """
    if settings.on_loopback or settings.ca is None:
        return
    host, _, port = settings.url.rpartition(":")
    try:
        asyncio.run(probe_tls13_only(host, int(port), timeout_ms=settings.control_ms))
        open_to_all = answers_strangers(
            host, int(port), settings.ca, within_s=settings.control_ms / _MS_PER_S
        )
    except (TlsError, OSError) as error:
        msg = "Triton is not on loopback, and cannot be shown to take TLS 1.3 alone"
        raise ModelFileError(msg, fault=Fault.TRITON) from error
    if open_to_all:
        msg = "Triton is not on loopback, and answers whoever brings no certificate"
        raise ModelFileError(msg, fault=Fault.TRITON)


def answers_strangers(host: str, port: int, ca: Path, *, within_s: float) -> bool:
    """Whether a server says a word of HTTP/2 to a client without a certificate.

    In TLS 1.3 the handshake ends before the server has looked for one, so its end proves nothing.

    Raises:
        OSError: it cannot be reached, or its own certificate is not of `ca`.
    """
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, port), timeout=within_s) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as line:
                line.sendall(_PREFACE)
                return bool(line.recv(1))
        except ssl.SSLCertVerificationError:
            raise
        except (ssl.SSLError, ConnectionError, TimeoutError):
            return False
