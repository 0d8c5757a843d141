# ruff: noqa: INP001 -- the scripts beside it import it
"""What the scripts share that install something into an environment of its own, beside Sealgate's.

`FOLDER/.venv` is that environment. `FOLDER/ready.json` says that all of it is in place, and what it
was made from; what is there from something else, or only in part, is made anew. Standard library
only.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

READY = "ready.json"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
WHEELS = ("--only-binary", ":all:")
WHEELS_BY_HASH = (*WHEELS, "--require-hashes", "--no-compile")
Say = Callable[[str], None]


def teller(program: str) -> Say:
    """Return what tells progress on stderr."""

    def say(text: str) -> None:
        sys.stderr.write(f"{program}: {text}\n")
        sys.stderr.flush()

    return say


def packages(folder: Path) -> Path:
    """Return where the packages of the environment in a folder lie."""
    return folder.resolve() / ".venv" / "lib" / f"python{PYTHON}" / "site-packages"


@dataclass(frozen=True)
class SideInstall:
    """What an environment is made from.

    Attributes:
        requirements: a file of deploy/ that pins every package; pip adds none to them.
        options: of pip's, for all that it installs here.
        also: what else decides what becomes of it.
        holds: pattern of a file in the environment without which it is none.
    """

    requirements: str
    options: tuple[str, ...]
    also: dict[str, str] = field(default_factory=dict)
    holds: str = "bin/python"

    def pins(self) -> dict[str, str]:
        """Return what `ready.json` has to say."""
        return {
            "requirements_sha256": hashlib.sha256(self._file.read_bytes()).hexdigest()
        } | self.also

    def is_ready(self, folder: Path) -> bool:
        """Whether the environment was made whole, from the pins of today."""
        try:
            found = json.loads((folder / READY).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return bool(found == self.pins()) and any((folder / ".venv").glob(self.holds))

    def install(
        self, folder: Path, *, then: Callable[[], bool] = lambda: True, **variables: str
    ) -> bool:
        """Make the environment; return whether all of it is there.

        Args:
            folder: what it is made in.
            then: puts in what pip did not; returns whether it could.
            variables: of the environment in which pip runs, beside our own.
        """
        (folder / READY).unlink(missing_ok=True)
        # Its pip is ours: without one inside it is 20 MB smaller.
        venv.create(folder / ".venv", clear=True, with_pip=False)
        if not (self.pip(folder, self._file, **variables) and then()):
            return False
        (folder / READY).write_text(json.dumps(self.pins(), indent=1) + "\n", "utf-8")
        return True

    def pip(self, folder: Path, requirements: Path, *options: str, **variables: str) -> bool:
        """Install what a file names, and nothing else; return whether pip could."""
        python = str(folder / ".venv" / "bin" / "python")
        command = [sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-deps"]
        command += ["--disable-pip-version-check", *self.options, *options, "-r", str(requirements)]
        done = subprocess.run(command, check=False, env=os.environ | variables)  # noqa: S603 -- constants and paths of ours
        return done.returncode == 0

    def ensure(
        self,
        folder: Path,
        install: Callable[[Path], bool],
        say: Say,
        *,
        begins: str,
        failed: str,
        done: str = "ready",
    ) -> int:
        """Install what is not there yet, and say so; return the exit code."""
        if self.is_ready(folder):
            say(f"{folder}: already there")
            return 0
        say(begins)
        made = install(folder)
        say(f"{folder}: {done}" if made else failed)
        return 0 if made else 1

    @property
    def _file(self) -> Path:
        return Path(__file__).with_name(self.requirements)
