"""Ask Presidio, in its own environment, about the same texts: the baseline of our figures.

    with open_presidio(Path("var/presidio")) as presidio:
        presidio.ask(text)          # works on it in its process …
        found = presidio.answer()   # … while ours did on the same text

`deploy/presidio_baseline.py` makes the environment, `compliance/presidio_child.py` is what runs in
it. Presidio's entities are put on a par with our types by `ENTITIES`; those without a counterpart
keep their name: they cover characters but count for no type, which is to Presidio's advantage.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compliance.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "ENTITIES",
    "THRESHOLDS",
    "About",
    "BaselineError",
    "Presidio",
    "open_presidio",
]

ENTITIES = {
    "CREDIT_CARD": "CREDIT_CARD",
    "CRYPTO": "BANK_ACCOUNT",
    "EMAIL_ADDRESS": "EMAIL",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP_ADDRESS",
    "LOCATION": "LOCATION",
    "MAC_ADDRESS": "IP_ADDRESS",
    "MEDICAL_LICENSE": "MEDICAL_RECORD",
    "ORGANIZATION": "ORG",
    "PERSON": "PERSON",
    "PHONE_NUMBER": "PHONE",
    "UK_NHS": "MEDICAL_RECORD",
    "URL": "URL",
    "US_BANK_NUMBER": "BANK_ACCOUNT",
    "US_DRIVER_LICENSE": "NATIONAL_ID",
    "US_ITIN": "NATIONAL_ID",
    "US_PASSPORT": "PASSPORT",
    "US_SSN": "US_SSN",
}
"""Presidio's entity -> our type. Without one: DATE_TIME (any date), NRP, UUID."""

THRESHOLDS = (0.4, 0.0)
"""The first is where it does best on mixed text, the second what it does unless told otherwise."""

STOP_TIMEOUT_S = 10


class BaselineError(Exception):
    """Presidio is not there, or ended; the text says what to do."""


@dataclass(frozen=True, slots=True)
class About:
    """What answers. load_s: until the first answer; memory_mb: its process's peak by then."""

    version: str
    model: str
    entities: tuple[str, ...]
    load_s: float
    memory_mb: float


class Presidio:
    """A running Presidio. Not thread-safe: one question at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        told = self._read()
        version = f"{told['presidio']} (spaCy {told['spacy']})"
        self.about = About(
            version, told["model"], tuple(told["entities"]), told["load_s"], told["memory_mb"]
        )

    def ask(self, text: str) -> None:
        """Send a text; `answer` must follow."""
        self._write({"id": 0, "text": text})

    def answer(self) -> list[Finding]:
        """Wait for what was found in the text asked about: unfiltered, types as in `ENTITIES`."""
        return findings(self._read()["spans"])

    def cpu_seconds(self, text: str, repeats: int) -> list[float]:
        """CPU time of each of `repeats` analyses of a text, taken in Presidio's own process."""
        self._write({"text": text, "repeats": repeats})
        told: list[float] = self._read()["cpu_seconds"]
        return told

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BaselineError(_ENDED) from None

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BaselineError(_ENDED)
        told: dict[str, Any] = json.loads(line)
        return told


_ENDED = "Presidio ended without an answer; its own messages stand above"


def findings(spans: Iterable[dict[str, Any]]) -> list[Finding]:
    """Turn spans `{"start", "end", "type", "score"?}` of another tool into findings."""
    return [
        Finding(
            ENTITIES.get(span["type"], span["type"]),
            span["type"],
            span["start"],
            span["end"],
            span.get("score", 1.0),
            "baseline",
        )
        for span in spans
    ]


@contextmanager
def open_presidio(folder: Path, *, pinned_to: Iterable[int] = ()) -> Iterator[Presidio]:
    """Run Presidio for as long as the block runs.

    Args:
        folder: As `deploy/presidio_baseline.py` made it.
        pinned_to: Cores for all its threads; none leaves it all there are.

    Raises:
        BaselineError: it is not there, or does not come up.
    """
    python = folder / ".venv" / "bin" / "python"
    if not (folder / "ready.json").exists() or not python.exists():
        msg = f"Presidio is not in {folder}; make it with deploy/presidio_baseline.py"
        raise BaselineError(msg)
    program = Path(__file__).with_name("presidio_child.py")
    cores = ",".join(str(core) for core in sorted(pinned_to))
    # What our own environment set must not lead it astray.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with subprocess.Popen(  # noqa: S603 -- our own program in an environment we made
        [str(python), "-I", str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=kept | ({"BENCH_CORES": cores} if cores else {}),
    ) as process:
        try:
            yield Presidio(process)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.close()
        process.wait(STOP_TIMEOUT_S)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        process.kill()
