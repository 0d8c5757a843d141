"""Mutual TLS 1.3 for servers and clients of the mesh, and the proof that it is no less.

    first fence     `enforce_tls13`: the process was started so that TLS 1.2 cannot be agreed on
    second          `Certificate`: a server certificate that is not ECDSA is refused, for RSA
                    would let TLS 1.2 back in
    third           `probe_tls13_only`: a server offers itself TLS 1.2 and must be turned away
    fourth          `meshkit.identity.connection_of`: each connection's version is looked at

A server's certificate lives in a `CertificateHolder` with the roots that its peers may come from;
each handshake takes what is in there, without any I/O, so replacing both needs no restart. A client
cannot do that (grpc/grpc#41779): `meshkit.channel.Line` makes a new channel.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 -- pydantic reads it at run time

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel, ConfigDict, Field

from meshkit import tls_floor

__all__ = [
    "Certificate",
    "CertificateHolder",
    "Tls",
    "TlsError",
    "enforce_tls13",
    "probe_tls13_only",
]

_CURVES = ("secp256r1", "secp384r1")
_PROBE_MS = 5_000
_READS_MAX = 2
_READ_AGAIN_S = 0.05
"""Whoever renews the files replaces key and certificate within microseconds, but not at once."""
_HANDSHAKE = b"\x16"
"""Content type of a record with a ServerHello; an alert's is 0x15. RFC 8446, 5.1."""


class TlsError(RuntimeError):
    """A server must not start like this. The text says why and holds no secret."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain with its key and the CAs that peers must come from, all PEM, checked."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    peer_ca_pem: bytes
    """One root, or several while one takes over from another."""
    serial: int
    not_after_s: float
    """Seconds since 1970."""

    @classmethod
    def from_pem(cls, *, chain: bytes, key: bytes, peer_ca: bytes) -> Certificate:
        """Check what we are about to show to the world.

        Raises:
            TlsError: something is no PEM, not ECDSA P-256 or P-384, the key is not the
                certificate's, or the certificate is over.
        """
        try:
            leaf, *_ = x509.load_pem_x509_certificates(chain)
            private = load_pem_private_key(key, password=None)
            x509.load_pem_x509_certificates(peer_ca)
        except (ValueError, TypeError):
            msg = "certificate, key or peer CA is not readable PEM"
            raise TlsError(msg) from None
        _must_be_ecdsa(leaf, private)
        not_after = leaf.not_valid_after_utc.timestamp()
        if not_after <= time.time():
            msg = "certificate is over"
            raise TlsError(msg)
        return cls(chain, key, peer_ca, leaf.serial_number, not_after)


def _must_be_ecdsa(leaf: x509.Certificate, private: object) -> None:
    public = leaf.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in _CURVES:
        msg = "certificate is not ECDSA P-256 or P-384: any other would let TLS 1.2 back in"
        raise TlsError(msg)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != public:
        msg = "private key is not the certificate's"
        raise TlsError(msg)


class CertificateHolder:
    """The certificate a server shows now. Replace it and the next handshake shows the new one."""

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate
        self._configuration = _configuration(certificate)

    @property
    def certificate(self) -> Certificate:
        """What is shown."""
        return self._certificate

    @property
    def remaining_s(self) -> float:
        """Seconds until it is over: a metric, for a renewer that died says nothing."""
        return self._certificate.not_after_s - time.time()

    def replace(self, certificate: Certificate) -> None:
        """Show another one from the next handshake on; connections that stand keep theirs."""
        self._configuration = _configuration(certificate)
        self._certificate = certificate

    def server_credentials(self) -> grpc.ServerCredentials:
        """Make credentials that demand a client certificate of `peer_ca_pem`.

        Raises:
            TlsError: the process could take TLS 1.2 (see `enforce_tls13`).
        """
        enforce_tls13()
        shown = self._configuration

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """Answer C-core, in its thread, once per handshake. None says: nothing changed."""
            nonlocal shown
            latest = self._configuration
            if latest is shown:
                return None
            shown = latest
            return latest

        return grpc.dynamic_ssl_server_credentials(
            shown,
            fetch,  # type: ignore[arg-type] # the stubs do not know that None is an answer
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Make client credentials of the certificate of this moment."""
        return _channel_credentials(self._certificate)


class Tls(BaseModel):
    """Certificate files: a required part of a service's settings. There is no plaintext mode."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    cert_chain: Path = Field(description="PEM, own certificate first, without the root.")
    private_key: Path = Field(description="PEM, PKCS #8, unencrypted; mode 0600.")
    peer_ca: Path = Field(description="PEM of the CA that peers' certificates must come from.")

    def load(self) -> Certificate:
        """Read and check the files; once more if they were just being replaced.

        Raises:
            TlsError: as `Certificate.from_pem`, or a file cannot be read.
        """
        for _ in range(_READS_MAX - 1):
            with suppress(TlsError):
                return self._read()
            time.sleep(_READ_AGAIN_S)
        return self._read()

    def _read(self) -> Certificate:
        try:
            chain, key, peer_ca = (
                path.read_bytes() for path in (self.cert_chain, self.private_key, self.peer_ca)
            )
        except OSError as failure:
            msg = f"cannot read {failure.filename}"
            raise TlsError(msg) from None
        return Certificate.from_pem(chain=chain, key=key, peer_ca=peer_ca)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Make server credentials of the files as they are now. Raises TlsError."""
        return CertificateHolder(self.load()).server_credentials()

    def client_credentials(self) -> grpc.ChannelCredentials:
        """Make client credentials of the files as they are now. Raises TlsError."""
        return _channel_credentials(self.load())


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key_pem, certificate.chain_pem)],
        root_certificates=certificate.peer_ca_pem,
    )


def _channel_credentials(certificate: Certificate) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=certificate.peer_ca_pem,
        private_key=certificate.key_pem,
        certificate_chain=certificate.chain_pem,
    )


def enforce_tls13() -> None:
    """Check that `meshkit.tls_floor` was imported before grpc in this process.

    Raises:
        TlsError: it was not, so a server here would take TLS 1.2.
    """
    if not tls_floor.in_time():
        msg = f"{tls_floor.VARIABLE} was not set before grpc was imported: import meshkit.tls_floor"
        raise TlsError(msg)


async def probe_tls13_only(host: str, port: int, *, timeout_ms: int = _PROBE_MS) -> None:
    """Offer our own server TLS 1.2 (it must refuse) and TLS 1.3 (it must agree).

    Call it once the server listens and before its health says SERVING. Only the first flight is
    looked at: a ServerHello means that the version was agreed on, an alert that it was not. A whole
    handshake would prove nothing about TLS 1.2, as it fails for want of a client certificate too.

    Raises:
        TlsError: TLS 1.2 was taken, TLS 1.3 was not, or there was no answer in time.
    """
    if await _agrees(host, port, ssl.TLSVersion.TLSv1_2, timeout_ms):
        msg = "this server takes TLS 1.2"
        raise TlsError(msg)
    if not await _agrees(host, port, ssl.TLSVersion.TLSv1_3, timeout_ms):
        msg = "this server does not take TLS 1.3"
        raise TlsError(msg)


async def _agrees(host: str, port: int, version: ssl.TLSVersion, timeout_ms: int) -> bool:
    """Whether a hello that offers only `version` is answered by a hello. Raises TlsError."""
    try:
        async with asyncio.timeout(timeout_ms / 1_000):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_client_hello(version))
                first = await reader.read(1)
            finally:
                writer.transport.abort()
    except ConnectionResetError:
        return False
    except (OSError, TimeoutError):
        msg = "this server cannot be reached to be probed"
        raise TlsError(msg) from None
    return first == _HANDSHAKE


def _client_hello(version: ssl.TLSVersion) -> bytes:
    """Make a first flight with an offer as wide as this OpenSSL can make it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    outgoing = ssl.MemoryBIO()
    handshake = context.wrap_bio(ssl.MemoryBIO(), outgoing)
    with suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()
