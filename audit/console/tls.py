"""HTTPS for browsers: TLS 1.3 alone, with the certificate that gRPC shows, whenever it is renewed.

A browser is asked for a certificate of `peer_ca_pem`. It may have none only where people may sign
in otherwise. Each handshake takes certificate and roots as they then are, so a renewal needs no
restart; there are no session tickets, for a resumed session would not be looked at again.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshkit.tls import Certificate, CertificateHolder

__all__ = ["browser_context"]


def browser_context(holder: CertificateHolder, *, certificate_required: bool) -> ssl.SSLContext:
    """Make a server's context that follows `holder`.

    Raises:
        ssl.SSLError: OpenSSL does not take what the holder has.
    """
    shown = holder.certificate
    newest = _context(shown, required=certificate_required)

    def follow(connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        """Called in each handshake, before a certificate is shown or asked for."""
        nonlocal shown, newest
        latest = holder.certificate
        if latest is not shown:
            shown, newest = latest, _context(latest, required=certificate_required)
        connection.context = newest

    newest.sni_callback = follow
    return newest


def _context(certificate: Certificate, *, required: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    context.num_tickets = 0
    context.load_verify_locations(cadata=certificate.peer_ca_pem.decode("ascii"))
    _load_chain(context, certificate)
    return context


def _load_chain(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Hand OpenSSL chain and key: it reads files only, so a file that never is on a disk."""
    handle = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(certificate.key_pem + b"\n" + certificate.chain_pem)
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
