"""Throw-away certificates for servers that the bench starts alone: ECDSA P-256, one CA.

The same kind as OpenBao issues to the services, so that a handshake and a record cost the same.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

_LIFE = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM files of one end."""

    ca: Path
    chain: Path
    key: Path


def make_identities(folder: Path, spiffe_ids: dict[str, str]) -> dict[str, Identity]:
    """Make a CA and one leaf per entry, good for server and client, localhost and its SPIFFE id.

    Args:
        folder: Gets `ca.pem`, and `<name>.pem`, `<name>.key` for each name.
        spiffe_ids: SPIFFE id by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("bench CA", ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    (folder / "ca.pem").write_bytes(_pem(ca.sign(ca_key, hashes.SHA256())))
    return {name: _leaf(folder, name, uri, ca_key) for name, uri in spiffe_ids.items()}


def _leaf(folder: Path, name: str, uri: str, ca_key: ec.EllipticCurvePrivateKey) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.UniformResourceIdentifier(uri),
        ]
    )
    leaf = _certificate(name, key.public_key()).add_extension(names, critical=False)
    files = Identity(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
    files.chain.write_bytes(_pem(leaf.sign(ca_key, hashes.SHA256())))
    files.key.touch(mode=0o600)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def _certificate(name: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + _LIFE)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
