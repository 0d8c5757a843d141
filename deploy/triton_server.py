#!/usr/bin/env python3
"""NVIDIA Triton on a CPU, for tests and trials, in an environment of its own.

    python deploy/triton_server.py --into var/triton                    # install, once
    python deploy/triton_server.py --into var/triton --serve DIR [...]  # run it on 127.0.0.1:8001
    python deploy/triton_server.py --into var/triton --with-sealgate --serve DIR  # with our engine

The server comes out of the wheel nvidia-pytriton, with its Python backend only; that wheel, numpy
and onnxruntime are pinned by SHA-256 in `triton-requirements.txt`: 97 MB to download, 270 MB on
disk. A GPU deployment uses NVIDIA's own container instead. What follows `--serve DIR` goes to
tritonserver as it is.

`--with-sealgate` gives the models in it this checkout and the packages of the Python that runs this
script, torch among them, beside Triton's own numpy 1.26: a path or three, nothing more to download.
The server takes no TLS 1.2 then or otherwise, if its certificate's key is not RSA: C-core knows no
minimum version, so the suites that it is offered leave nothing else to agree on.

`INTO/ready.json` says that all of it is in place, and from which pins; what is there with other
pins, or only in part, is made anew. Needs glibc 2.35 and a Python 3.11 with a shared libpython.
Standard library only. Exits 1 without a network.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
import venv
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from deploy.side_install import PYTHON, WHEELS_BY_HASH, SideInstall, packages, teller

ROOT = Path(__file__).resolve().parent.parent
SIDE = SideInstall(
    "triton-requirements.txt",
    WHEELS_BY_HASH,
    {"python": PYTHON},
    holds="lib/*/site-packages/pytriton/tritonserver/bin/tritonserver",
)
is_ready, say = SIDE.is_ready, teller("triton_server")
TLS_13_ONLY = {"GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES256-GCM-SHA384"}
"""As meshkit/tls_floor.py has it: a TLS 1.2 suite that needs an RSA certificate."""


def main(argv: list[str] | None = None) -> int:
    """Make what is missing, or run the server; return the exit code."""
    parser = argparse.ArgumentParser(description="Install Triton by itself, or run it.")
    parser.add_argument("--into", type=Path, default=Path("var/triton"), metavar="FOLDER")
    parser.add_argument("--serve", type=Path, metavar="DIR", help="a model repository")
    parser.add_argument("--with-sealgate", action="store_true", help="for models that run Sealgate")
    args, more = parser.parse_known_args(argv)
    if more and args.serve is None:
        parser.error(f"unknown: {' '.join(more)}")
    if args.serve is None or not is_ready(args.into):
        missing = SIDE.ensure(
            args.into,
            install,
            say,
            begins="installing Triton into an environment of its own (97 MB to download)",
            failed="pip could not install it",
        )
        if missing:
            return missing
    if args.serve is not None:
        given = ("--http-address=127.0.0.1", "--grpc-address=127.0.0.1", *more)
        run = command(args.into, args.serve, *given)
        inside = layered(args.into) if args.with_sealgate else None
        os.execve(run[0], run, environment(args.into, inside))  # noqa: S606 -- it takes our place
    return 0


def install(folder: Path) -> bool:
    """Make the environment; return whether all of it is there."""

    def put_stub() -> bool:
        # The server looks for its Python in the backend's folder; the wheel keeps one a version.
        stub = _home(folder) / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
        (_home(folder) / "backends" / "python" / stub.name).symlink_to(stub.resolve())
        return True

    return SIDE.install(folder, then=put_stub)


def command(folder: Path, repository: Path, *more: str) -> list[str]:
    """Return how the server is started on a model repository."""
    home = _home(folder)
    return [
        str(home / "bin" / "tritonserver"),
        f"--model-repository={repository.resolve()}",
        f"--backend-directory={home / 'backends'}",
        f"--cache-directory={home / 'caches'}",
        *more,
    ]


def environment(folder: Path, inside: Path | None = None) -> dict[str, str]:
    """Return the environment in which its Python finds itself: by PATH, and its own libpython.

    Args:
        folder: what Triton was installed into.
        inside: the environment of the models' Python; None: Triton's own.
    """
    binaries = (inside or folder.resolve() / ".venv") / "bin"
    path = f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"
    library = str(sysconfig.get_config_var("LIBDIR"))
    return {**os.environ, "PATH": path, "LD_LIBRARY_PATH": library, **TLS_13_ONLY}


def layered(folder: Path) -> Path:
    """Make the environment in which Triton's Python finds us; return its folder. Cost: 50 ms.

    The stub heeds no PYTHONPATH, so a .pth file names the places, in this order: Triton's own
    packages (numpy below 2, without which it hands out empty tensors), ours, and the checkout.
    """
    inside = folder.resolve() / ".layered"
    venv.create(inside, with_pip=False)
    inner = inside / "lib" / f"python{PYTHON}" / "site-packages"
    places = (packages(folder), Path(sysconfig.get_path("purelib")), ROOT)
    fresh = inner / f".{os.getpid()}"
    fresh.write_text("".join(f"{place}\n" for place in places), "utf-8")
    fresh.rename(inner / "sealgate.pth")
    return inside


def _home(folder: Path) -> Path:
    return packages(folder) / "pytriton" / "tritonserver"


if __name__ == "__main__":
    sys.exit(main())
