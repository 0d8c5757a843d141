"""A real tritonserver on a loopback port, with certificates that live for an hour."""

import datetime as dt
import importlib.util
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tritonclient.grpc as triton
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tritonclient.utils import InferenceServerException

from tests.ports import unused_port

ROOT = Path(__file__).parents[2]
READY_S = 60.0
NAMES = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]


def script(name):
    """A file of deploy/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Server:
    """A running tritonserver. tls: what tritonclient takes as keyword arguments."""

    repository: Path
    port: int
    tls: dict
    options: tuple = ()
    process: subprocess.Popen | None = None

    @property
    def address(self):
        return f"localhost:{self.port}"

    def start(self):
        setup = script("triton_server")
        folder = ROOT / "var" / "triton"
        assert setup.is_ready(folder), "run `make triton` first"
        command = setup.command(
            folder,
            self.repository,
            "--allow-http=false",
            "--allow-metrics=false",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.port}",
            "--exit-timeout-secs=5",
            f"--backend-config=python,shm-region-prefix-name={self.shared}",
            *self.options,
        )
        with (self.repository / "log").open("ab") as out:
            self.process = subprocess.Popen(
                command,
                env=setup.environment(folder),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.until_ready()

    @property
    def shared(self):
        return f"sealgate-test-{os.getpid()}-{self.port}-"

    def until_ready(self):
        ends = time.monotonic() + READY_S
        while time.monotonic() < ends and self.process.poll() is None:
            with triton.InferenceServerClient(self.address, **self.tls) as client:
                try:
                    if client.is_server_ready(client_timeout=1):
                        return
                except InferenceServerException:
                    time.sleep(0.05)
        raise AssertionError((self.repository / "log").read_text()[-2_000:])

    def rows(self, model):
        """How many rows the model has run, ever."""
        with triton.InferenceServerClient(self.address, **self.tls) as client:
            told = client.get_inference_statistics(model)
        return told.model_stats[0].inference_count

    @contextmanager
    def paused(self):
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self):
        """No time to clean up for anyone."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for left in Path("/dev/shm").glob(f"{self.shared}*"):
            left.unlink(missing_ok=True)


@contextmanager
def serving(repository, *options, tls=None):
    server = Server(repository, unused_port(), tls or {}, options)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None:
            server.kill()


def liar(folder):
    """A served model, with the right inputs and outputs, that answers wrongly in turn."""
    (folder / "1").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "data" / "triton_liar.py", folder / "1" / "model.py")
    honest = (folder.parent / "names_latin" / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(
        honest.replace('"names_latin"', f'"{folder.name}"').replace("-1, -1, 35", "-1, -1, -1")
    )


def certificates(folder):
    """Files: ca.pem, strange.pem (another CA), server.pem, client.pem, and their .key."""
    now = dt.datetime.now(dt.UTC)

    def signed(name, key, signer, issuer, *, ca):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
            .sign(signer, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (folder / f"{name}.pem").write_bytes(made.public_bytes(pem))
        plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(key.private_bytes(pem, *plain))
        return made.subject

    keys = {
        name: ec.generate_private_key(ec.SECP256R1())
        for name in ("ca", "strange", "server", "client")
    }
    issuer = signed("ca", keys["ca"], keys["ca"], None, ca=True)
    signed("strange", keys["strange"], keys["strange"], None, ca=True)
    for name in ("server", "client"):
        signed(name, keys[name], keys["ca"], issuer, ca=False)
