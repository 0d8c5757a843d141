"""The certificate of OpenBao's own listener, made before there is an OpenBao to ask for one.

Redis beside it gets its own the same way.

A CA that signs exactly one certificate (127.0.0.1, localhost) and whose private key is then
forgotten: nobody can make a second. Both are made anew at a start within 30 days of their end, so
the appliance must be restarted once in that time; clients read `ca.pem` again when they start.
ECDSA P-256 throughout.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshkit.files import read_or_none, write_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ensure_listener_tls"]

LIFETIME = dt.timedelta(days=730)
RENEW_WITHIN = dt.timedelta(days=30)
CLOCK_SLACK = dt.timedelta(minutes=5)


def ensure_listener_tls(folder: Path, *, name: str = "OpenBao") -> None:
    """Make `ca.pem`, `server.pem` and `server.key` in `folder`, unless good ones are there.

    Args:
        folder: It must be there, and nobody else may read it.
        name: Of the server, for those who read certificates.
    """
    now = dt.datetime.now(dt.UTC)
    parts = [read_or_none(folder / name) for name in ("ca.pem", "server.pem", "server.key")]
    if all(parts) and _not_after(parts[1] or b"") - now > RENEW_WITHIN:
        return
    authority = ec.generate_private_key(ec.SECP256R1())
    server = ec.generate_private_key(ec.SECP256R1())
    issuer = _name(f"Sealgate {name} listener CA")
    ca = _certificate(authority, authority, now, names=(issuer, issuer))
    leaf = _certificate(server, authority, now, names=(_name(name), issuer))
    pem = server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(folder / "server.key", pem)
    write_private(folder / "server.pem", leaf.public_bytes(Encoding.PEM))
    write_private(folder / "ca.pem", ca.public_bytes(Encoding.PEM))


def _not_after(pem: bytes) -> dt.datetime:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def _certificate(
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    *,
    names: tuple[x509.Name, x509.Name],
) -> x509.Certificate:
    """Certify `key` for the first name by `signer` of the second; equal names make a CA."""
    subject, issuer = names
    issuing = subject == issuer
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + LIFETIME)
        .add_extension(
            x509.BasicConstraints(ca=issuing, path_length=0 if issuing else None), critical=True
        )
        .add_extension(_key_usage(issuing=issuing), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not issuing:
        builder = builder.add_extension(_addresses(), critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _addresses() -> x509.SubjectAlternativeName:
    local = ipaddress.IPv4Address("127.0.0.1")
    return x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(local)])


def _key_usage(*, issuing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issuing, key_cert_sign=issuing, crl_sign=issuing,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
