"""Builds tests/audit/go/verify.go, with Debian's Go and its packages."""

import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = Path("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog")


def built(folder):
    """Return the program, built in `folder`."""
    if shutil.which("go") is None or not PACKAGES.is_dir():
        msg = "apt-get install golang-go golang-golang-x-mod-dev"
        raise FileNotFoundError(msg)
    source = Path(__file__).parent / "go" / "verify.go"
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "",
    }
    program = folder / "verify"
    subprocess.run(["go", "build", "-o", program, source], env=environment, check=True)
    return program
