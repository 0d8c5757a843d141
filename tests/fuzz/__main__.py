"""Fuzzes every reader of a stranger's bytes: python -m tests.fuzz --inputs 1000000 --seed 1

Each input is a sample, mutated one to four times, or two samples spliced; one in fifty is noise.
Prints what was tried and how fast as JSON; ends with 1 at the first crash or false accept, with the
input in hex. The same seed makes the same inputs, whatever their number.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter

from tests.fuzz.targets import Target, targets

TELLING = (
    *(b"\0", b"\n", b"\n\n", b" ", b"+", b"=", b"\xff", b"\xe2\x80\x94 ", b"0", b"-1", b"x"),
    *(
        b"\x80",
        b"\r\n",
        b"\t",
        b"9999999999999999999",
        b".p/",
        b"old 0\n",
        b"none",
        b"\xed\xa0\x80",
    ),
)
PLACES_MAX = 4
NOISE = 0.02


def flip(rng, data):
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def put(rng, data):
    at = rng.randrange(len(data))
    data[at : at + rng.randrange(2)] = rng.choice(TELLING)


def cut(rng, data):
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 32, len(data)))]


def double(rng, data):
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.choice((1, 4, 44, 4_000))]


def swap(rng, data):
    """Exchange two lines: the format is one of lines."""
    lines = bytes(data).split(b"\n")
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]
    data[:] = b"\n".join(lines)


def count(rng, data):
    """Change a digit to another."""
    digits = [at for at, byte in enumerate(data[:400]) if 48 <= byte <= 57]
    if digits:
        data[rng.choice(digits)] = rng.randrange(48, 58)


MUTATIONS = (flip, flip, put, cut, double, swap, count)


def mutated(rng: random.Random, target: Target) -> bytes:
    """Make one input."""
    if rng.random() < NOISE:
        return rng.randbytes(rng.randrange(80))
    data = bytearray(rng.choice(target.samples))
    if rng.random() < 0.1:
        other = rng.choice(target.samples)
        data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]
    for _ in range(rng.randint(1, PLACES_MAX)):
        if data:
            rng.choice(MUTATIONS)(rng, data)
    return bytes(data)


def fuzz(inputs: int, seed: int, only: str | None = None) -> dict:
    """Try so many inputs, the targets by turns; return the counts.

    Raises:
        SystemExit: a crash or a false accept; says which input.
    """
    rng = random.Random(seed)
    chosen = [target for target in targets() if only in (None, target.name)]
    tried, accepted = Counter(), Counter()
    for target in chosen:  # the samples themselves: else nothing would be tested
        good = sum(target.check(sample) for sample in target.samples)
        assert good, target.name
    begun, cpu = time.monotonic(), time.process_time()
    for number in range(inputs):
        target = chosen[number % len(chosen)]
        data = mutated(rng, target)
        try:
            accepted[target.name] += target.check(data)
        except Exception as failure:  # noqa: BLE001 -- whatever it is, it is what we look for
            sys.exit(f"{target.name}: {type(failure).__name__} at input {number}: {data.hex()}")
        tried[target.name] += 1
    cpu_s, wall_s = time.process_time() - cpu, time.monotonic() - begun
    return {
        "inputs": inputs,
        "seed": seed,
        "accepted_and_right": dict(accepted),
        "tried": dict(tried),
        "cpu_s": round(cpu_s, 1),
        "wall_s": round(wall_s, 1),
        "inputs_per_cpu_s": round(inputs / max(cpu_s, 1e-9)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one target")
    args = parser.parse_args()
    sys.stdout.write(json.dumps(fuzz(args.inputs, args.seed, args.only), indent=1) + "\n")


if __name__ == "__main__":
    main()
