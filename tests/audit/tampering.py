"""Harms a log in every way there is, and holds the verifier to naming the file and the entry.

    python -m tests.audit.tampering SAMPLES

prints one JSON line: how many of SAMPLES flipped bits were found and named, and what a verification
costs. tests/audit/test_tampering.py does the same with few, and other harm besides.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from audit.log.signer import MemorySigner
from meshkit.tlog import LogInvalid, check_log, parse_tile_path
from tests.audit.logs import write_log
from tests.audit.world import ORIGIN

LARGE = (65_990, 66_100)
"""Sizes of a log with three levels of tiles; the first leaves older partial files behind."""
SMALL = (300, 700)


class Harmed:
    """A log in memory whose files can be changed and put back."""

    def __init__(self, folder, vkey):
        self.vkey = vkey
        self.sound = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self.files = dict(self.sound)

    def heal(self):
        self.files = dict(self.sound)

    def verify(self):
        """Return what the verifier holds against the log; None if it holds."""
        paths = [path for path in self.files if path != "checkpoint"]
        try:
            check_log(self.files.get, self.vkey, paths)
        except LogInvalid as bad:
            return bad
        return None

    def current(self, path):
        """Whether it is needed for the newest checkpoint: an older partial file is not."""
        size = int(self.sound["checkpoint"].split(b"\n")[1])
        parsed = parse_tile_path(path)
        if parsed is None:
            return True
        kind, number, width = parsed
        nodes = size >> (8 * (0 if kind == "entries" else int(kind)))
        return width == min(256, nodes - number * 256)

    def kinds(self):
        """Group the files by kind: level or bundle; full, partial, older."""
        found = {}
        for path in self.sound:
            parsed = parse_tile_path(path)
            kind = "checkpoint"
            if parsed is not None:
                full = "full" if parsed[2] == 256 else "partial"
                kind = f"{parsed[0]} {full if self.current(path) else 'older'}"
            found.setdefault(kind, []).append(path)
        return found

    def index_of(self, path, at):
        """Return the entries, first and last, that the byte `at` of a file is about."""
        kind, number, width = parse_tile_path(path)
        if kind != "entries":
            span = 256 ** int(kind)
            first = (number * 256 + at // 32) * span
            return first, first + span - 1
        data, start = self.sound[path], 0
        for place in range(width):
            end = start + 2 + int.from_bytes(data[start : start + 2])
            if at < end:
                # A length that is wrong spoils all that follows: the bundle's first is named.
                first = 0 if at < start + 2 else place
                return number * 256 + first, number * 256 + place
            start = end
        raise AssertionError


def flipped(data, rng):
    """Flip one bit; return the bytes and which byte it was."""
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :], at


def flips(log, samples, rng):
    """Flip bits, kinds of files in turn; return how many of each were found, all named."""
    found = Counter()
    kinds = sorted(log.kinds().items())
    for number in range(samples):
        kind, paths = kinds[number % len(kinds)]
        path = rng.choice(paths)
        log.files[path], at = flipped(log.sound[path], rng)
        bad = log.verify()
        assert bad is not None, f"a flipped bit of {path} is not found"
        assert bad.path == path, f"a flipped bit of {path} is told of {bad.path}"
        if path != "checkpoint" and log.current(path):
            first, last = log.index_of(path, at)
            assert first <= bad.index <= last, f"{path} at {at}: entry {bad.index} is named"
        log.files[path] = log.sound[path]
        found[kind] += 1
    return found


async def made(folder, sizes):
    signer = MemorySigner(ORIGIN)
    async for _ in write_log(folder, signer, sizes):
        pass
    return Harmed(folder, signer.vkey)


def main():
    samples, rng = int(sys.argv[1]), random.Random(5)
    found, took = Counter(), []
    with tempfile.TemporaryDirectory() as top:
        for name, sizes, some in (
            ("large", LARGE, samples // 5),
            ("small", SMALL, samples * 4 // 5),
        ):
            log = asyncio.run(made(Path(top) / name, sizes))
            found += flips(log, some, rng)
            start = time.process_time()
            assert check_log(log.sound.get, log.vkey).size == sizes[-1]
            took.append((time.process_time() - start) / sizes[-1] * 1e6)
    sys.stdout.write(json.dumps({
        "flipped": found.total(), "found and named": found.total(), "kinds": dict(found),
        "cpu_s_per_million_entries": round(took[0], 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
