"""Witnesses in these tests: real processes over TLS, and logs in memory to show them."""

import asyncio
import os
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from audit.witness.keys import WitnessKeys
from meshkit.tlog import (
    ListHashes,
    VerifierKey,
    checkpoint_text,
    consistency_proof,
    format_add_checkpoint,
    format_note,
    leaf_hash,
    root_of,
    signature_line,
)
from tests.ports import unused_port

ROOT = Path(__file__).parents[2]
ORIGIN = "audit.example/log"


class MemoryLog:
    """A log of leaves in memory, with its key: what a log tells a witness."""

    def __init__(self, origin=ORIGIN, key=None, tag=b""):
        self.key = key or Ed25519PrivateKey.generate()
        self.vkey = VerifierKey(origin, self.key.public_key().public_bytes_raw())
        self.leaves = [leaf_hash(b"%s%d" % (tag, number)) for number in range(600)]

    def forked_at(self, at, tag=b"fork"):
        """The same log to everybody's eyes, but with other entries from `at` on."""
        other = MemoryLog(self.vkey.name, self.key, tag)
        other.leaves[:at] = self.leaves[:at]
        return other

    def root(self, size):
        return root_of(ListHashes(self.leaves), size)

    def text(self, size):
        return checkpoint_text(self.vkey.name, size, self.root(size))

    def sign(self, text):
        return format_note(text, signature_line(self.vkey, self.key.sign(text.encode())))

    def note(self, size):
        return self.sign(self.text(size))

    def proof(self, old, new):
        return consistency_proof(ListHashes(self.leaves), old, new)

    def request(self, old, new):
        return format_add_checkpoint(old, self.proof(old, new), self.note(new))


def make_certificates(folder):
    """A CA and a server certificate for 127.0.0.1; returns the paths of ca, chain and key."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("ca", ca_key, "ca", ca_key, [])
    leaf = _certificate(
        "witness", key, "ca", ca_key,
        [x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])],
    )  # fmt: skip
    names = folder / "ca.pem", folder / "chain.pem", folder / "key.pem"
    names[0].write_bytes(ca.public_bytes(Encoding.PEM))
    names[1].write_bytes(leaf.public_bytes(Encoding.PEM))
    names[2].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return names


def _certificate(subject, key, issuer, issuer_key, extensions):
    def named(name):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def trusting(ca):
    context = ssl.create_default_context(cafile=str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class WitnessProcess:
    """A witness in a process of its own. `start` and `kill` as often as a test likes."""

    def __init__(self, folder, name, certificates):
        self.folder = folder
        self.keys = WitnessKeys.make(folder, name)
        self.ca, self.chain, self.key = certificates
        self.logs = folder / "logs"
        self.logs.write_text("")
        self.port = unused_port()  # which it has again after it was killed
        self.process = None

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def trust(self, *vkeys):
        """Write the list of logs; its time is set ahead, for it may change twice in one tick."""
        moved = self.logs.stat().st_mtime_ns + 1_000_000
        known = self.logs.read_text()
        fresh = "".join(f"{vkey}\n" for vkey in vkeys if str(vkey) not in known)
        self.logs.write_text(known + fresh)
        os.utime(self.logs, ns=(moved, moved))

    def start(self, code=None, **more):
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        environment = os.environ | {
            "WITNESS_DATA_DIR": str(self.folder),
            "WITNESS_LOGS_FILE": str(self.logs),
            "WITNESS_CERT_CHAIN": str(self.chain),
            "WITNESS_PRIVATE_KEY": str(self.key),
            "WITNESS_PORT": str(self.port),
            "WITNESS_READY_FILE": str(ready),
            **more,
        }
        command = ["-m", "audit.witness.main"] if code is None else ["-c", code]
        self.process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while not ready.exists() or not ready.read_text():
            assert self.process.poll() is None, "the witness did not start"
            assert time.monotonic() < until
            time.sleep(0.01)
        self.port = int(ready.read_text())
        return self

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def policy_lines(*witnesses, need=None):
    """A policy that asks for `need` of these witnesses, each with both of its keys."""
    lines, groups = [], []
    for number, one in enumerate(witnesses):
        for kind, key in zip(("ed", "pq"), one.keys.vkeys, strict=True):
            lines.append(f"witness w{number}-{kind} {key} {one.url}")
        groups.append(f"w{number}")
        lines.append(f"group w{number} all w{number}-ed w{number}-pq")
    lines.append(f"group quorum {need or len(groups)} {' '.join(groups)}")
    return "\n".join([*lines, "quorum quorum", ""])


@contextmanager
def running(*processes):
    try:
        yield
    finally:
        for process in processes:
            process.kill()


async def until(holds, limit_s=30):
    """Wait for a condition, sync or async."""
    async with asyncio.timeout(limit_s):
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)
