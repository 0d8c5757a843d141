"""`sealgate doctor`: go down the road of a call, and say where it ends."""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import time
from dataclasses import asdict, dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sealgate.cli import DONE, REFUSED
from sealgate.cli._connection import add_options, client_of
from sealgate.errors import SealgateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["add_parser"]

_EPILOG = """examples:
  sealgate doctor --target localhost:50051 --tls var/appliance/tls
  sealgate doctor --local var/appliance        # its own certificates, and its OpenBao
  sealgate doctor --json

Checks, in this order: certificate and key, reach, TLS version, health, authorization; with --local
OpenBao. Exit code 0 if all of them hold, 1 if one does not."""

_TRY_S = 5.0
_OPENBAO_ACTIVE = 200
_EXPIRES_SOON_S = 3_600
_SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    ok: bool
    detail: str


class _Ailing(Exception):  # noqa: N818 -- a finding, not a malfunction
    """A check does not hold; the text says why."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="find out why it does not work",
        description="Check all that a call needs, step by step.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--local", type=Path, metavar="DIR", help="folder of an appliance here")
    add_options(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.local and args.tls is None:
        args.tls = args.local / "tls"
    found = []
    for finding in _examined(args):
        found.append(finding)
        if not args.json:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:<13} {finding.detail}")
    holds = all(finding.ok for finding in found)
    if args.json:
        print(json.dumps({"ok": holds, "checks": [asdict(finding) for finding in found]}))
    return DONE if holds else REFUSED


def _examined(args: argparse.Namespace) -> Iterator[Finding]:
    """Run all checks; each can be judged without the others."""
    checks: dict[str, Callable[[argparse.Namespace], str]] = {
        "certificate": _certificate,
        "reach": _reach,
        "tls 1.3": _tls13,
        "tls 1.2": _tls12,
        "health": _health,
        "authorization": _authorization,
    }
    if args.local:
        checks["openbao"] = _openbao
    for name, check in checks.items():
        try:
            yield Finding(name, ok=True, detail=check(args))
        except _Ailing as ailing:
            yield Finding(name, ok=False, detail=str(ailing))
        except OSError as failure:
            yield Finding(name, ok=False, detail=failure.strerror or type(failure).__name__)


def _file(args: argparse.Namespace, name: str) -> bytes:
    if args.tls is None:
        msg = "give --tls DIR or set SEALGATE_TLS"
        raise _Ailing(msg)
    path = Path(args.tls) / name
    try:
        return path.read_bytes()
    except OSError as failure:
        msg = f"{path}: {failure.strerror}"
        raise _Ailing(msg) from None


def _certificate(args: argparse.Namespace) -> str:
    """Whether ours is ECDSA, in its time, ours by its key, and bears a SPIFFE id."""
    try:
        certificate = x509.load_pem_x509_certificate(_file(args, "client.pem"))
        key = load_pem_private_key(_file(args, "client.key"), password=None)
        x509.load_pem_x509_certificates(_file(args, "ca.pem"))
    except (ValueError, TypeError):
        msg = "ca.pem, client.pem or client.key is no PEM of the kind"
        raise _Ailing(msg) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        msg = "client.key is not ECDSA"
        raise _Ailing(msg)
    if key.public_key() != certificate.public_key():
        msg = "client.key is not client.pem's"
        raise _Ailing(msg)
    left_s = certificate.not_valid_after_utc.timestamp() - time.time()
    if left_s <= 0:
        msg = "client.pem has expired"
        raise _Ailing(msg)
    soon = ", SOON" if left_s < _EXPIRES_SOON_S else ""
    return f"{_spiffe_id(certificate)}, ends in {left_s / 60:.0f} min{soon}"


def _spiffe_id(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or not uris[0].startswith("spiffe://"):
        msg = "client.pem bears no single SPIFFE id"
        raise _Ailing(msg)
    return uris[0]


def _address(args: argparse.Namespace) -> tuple[str, int]:
    host, _, port = args.target.rpartition(":")
    if not host or not port.isdecimal():
        msg = "--target is not HOST:PORT"
        raise _Ailing(msg)
    return host.strip("[]"), int(port)


def _reach(args: argparse.Namespace) -> str:
    started = time.monotonic()
    with socket.create_connection(_address(args), timeout=_TRY_S):
        return f"{args.target} answers in {(time.monotonic() - started) * 1_000:.1f} ms"


def _handshake(args: argparse.Namespace, version: ssl.TLSVersion) -> tuple[str, bytes]:
    """Shake hands as `version` only; return what was agreed and the gateway's certificate."""
    context = ssl.create_default_context(cadata=_file(args, "ca.pem").decode("ascii"))
    context.load_cert_chain(Path(args.tls) / "client.pem", Path(args.tls) / "client.key")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    name = args.server_name or _address(args)[0]
    with (
        socket.create_connection(_address(args), timeout=_TRY_S) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        cipher = secured.cipher()
        shown = secured.getpeercert(binary_form=True) or b""
        return f"{secured.version()} {cipher[0] if cipher else ''}", shown


def _tls13(args: argparse.Namespace) -> str:
    try:
        agreed, shown = _handshake(args, ssl.TLSVersion.TLSv1_3)
    except ssl.SSLError as failure:
        msg = f"no handshake: {failure.reason or 'failed'}"
        raise _Ailing(msg) from None
    ends = x509.load_der_x509_certificate(shown).not_valid_after_utc
    return f"{agreed}, gateway's certificate ends {ends:%Y-%m-%d %H:%M} UTC"


def _tls12(args: argparse.Namespace) -> str:
    try:
        _handshake(args, ssl.TLSVersion.TLSv1_2)
    except (ssl.SSLError, ConnectionResetError):
        return "refused, as it must be"
    msg = "the gateway takes TLS 1.2"
    raise _Ailing(msg)


def _health(args: argparse.Namespace) -> str:
    """Ask grpc.health.v1 by hand: the client needs no package for it."""
    credentials = grpc.ssl_channel_credentials(
        _file(args, "ca.pem"), _file(args, "client.key"), _file(args, "client.pem")
    )
    named = [("grpc.ssl_target_name_override", args.server_name)] if args.server_name else []
    with grpc.secure_channel(args.target, credentials, options=named) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        try:
            reply = check(b"", timeout=_TRY_S)
        except grpc.RpcError as failure:
            msg = f"no answer: {getattr(failure, 'code', lambda: None)()}"
            raise _Ailing(msg) from None
    if reply != _SERVING:
        msg = "NOT_SERVING"
        raise _Ailing(msg)
    return "SERVING"


def _authorization(args: argparse.Namespace) -> str:
    try:
        with client_of(args) as client:
            models = client.models()
    except (SealgateError, TypeError) as error:
        raise _Ailing(str(error)) from None
    return f"may ask {', '.join(model.name for model in models) or 'no model'}"


def _openbao(args: argparse.Namespace) -> str:
    """Whether the appliance's OpenBao answers, and is unsealed and active."""
    folder = args.local / "openbao"
    try:
        address = urlsplit(json.loads((folder / "openbao.json").read_text())["api_addr"])
        context = ssl.create_default_context(cafile=str(folder / "tls" / "ca.pem"))
    except (OSError, ValueError, KeyError):
        msg = f"{folder} holds no OpenBao of an appliance that you may read"
        raise _Ailing(msg) from None
    connection = HTTPSConnection(address.netloc, timeout=_TRY_S, context=context)
    try:
        connection.request("GET", "/v1/sys/health")
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != _OPENBAO_ACTIVE:
        msg = f"sealed, standby or not initialised (HTTP {status})"
        raise _Ailing(msg)
    return f"{address.netloc} unsealed and active"
