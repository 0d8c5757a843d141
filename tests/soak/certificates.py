"""Test 17: the whole mesh on certificates of a minute, for as long as is asked, under calls.

    python -m tests.soak.certificates [--seconds N] [--ttl SECONDS]

Five services in processes of their own, OpenBao and Redis; every certificate in it, and that of the
callers, lives `ttl` seconds and is renewed at two thirds. Three callers go on meanwhile, with one
client of the SDK, which sees its files replaced. One more keeps its first certificate, which nobody
replaces, and is to be refused once that is over. Exits 1 if a limit is missed. Prints one line of
JSON.
"""

from meshkit import tls_floor  # isort: skip -- before grpc, as in every entry point

import argparse
import asyncio
import json
import ssl
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from sealgate import AsyncClient, ReceiptError, SealgateError
from tests.chaos.engine import NAME
from tests.chaos.load import CALL_S, loaded
from tests.chaos.world import SERVICES, world
from tests.soak.machine import machine

assert tls_floor.in_time()

POLL_S = 0.5
PAUSE_S = 0.2


@dataclass
class Seen:
    """Certificates that a service showed, by serial, and the least time that one had left."""

    serials: set = field(default_factory=set)
    least_left_s: float = float("inf")


async def watch(ports, seen):
    """Look at what every service shows to whoever connects, for ever."""
    while True:
        for name, port in ports.items():
            pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
            shown = x509.load_pem_x509_certificate(pem.encode())
            found = seen[name]
            found.serials.add(shown.serial_number)
            left_s = shown.not_valid_after_utc.timestamp() - time.time()
            found.least_left_s = min(found.least_left_s, left_s)
        await asyncio.sleep(POLL_S)


async def outlive(client, folder):
    """Call over one connection until it is refused.

    Returns how long after the certificate's end a call was last answered (below 0: before it), and
    the reason that ended it.
    """
    pem = (folder / "client.pem").read_bytes()
    over_s = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    answered_s = 0.0
    while True:
        began_s = time.time()
        try:
            await client.chat("Hello.", model=NAME, max_tokens=8, timeout_s=CALL_S)
        except (SealgateError, ReceiptError) as failure:
            reason = getattr(failure, "reason", None)
            code = getattr(failure, "code", None)
            return round(answered_s - over_s, 2), str(reason or code)
        answered_s = began_s
        await asyncio.sleep(POLL_S)


async def run(folder, seconds, ttl_s):
    lives = {
        "APPLIANCE_CERTIFICATE_TTL_S": str(ttl_s),
        "APPLIANCE_CLIENT_CERTIFICATE_TTL_S": str(ttl_s),
    }
    seen = {name: Seen() for name in SERVICES}
    async with world(folder, **lives) as made:
        ports = {name: made.port(name) for name in SERVICES}
        watching = asyncio.create_task(watch(ports, seen))
        stale = asyncio.create_task(outlive(made.clients["bank"], made.data / "clients" / "bank"))
        target = f"localhost:{made.port('gateway')}"
        async with (
            AsyncClient(target, tls=made.data / "tls", vkey=made.vkey) as client,
            loaded({"demo": client}, PAUSE_S) as load,
        ):
            await asyncio.sleep(seconds)
        watching.cancel()
        past_s, reason = await stale
    return {
        "seconds": seconds, "ttl_s": ttl_s,
        "calls": len(load.tally.answered),
        "failed": [each.reason for each in load.tally.failed],
        "certificates": {name: len(found.serials) for name, found in seen.items()},
        # What it is valid from is 30 s before it was made.
        "oldest_s": {name: round(ttl_s - found.least_left_s, 1) for name, found in seen.items()},
        "last answer to the expired, s after its end": past_s, "refused with": reason,
        "machine": machine(),
    }  # fmt: skip


def missed(found):
    """Name the limits that were not kept."""
    renewals = int(found["seconds"] / found["ttl_s"])
    kept = {
        "calls": found["calls"] > found["seconds"],
        "failed": not found["failed"],
        "renewed": min(found["certificates"].values()) > renewals,
        "age": max(found["oldest_s"].values()) < found["ttl_s"],
        # OpenSSL knows whole seconds: in its last one a certificate is good.
        "refused in time": found["last answer to the expired, s after its end"] <= 1.0,
    }
    return sorted(name for name, holds in kept.items() if not holds)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.soak.certificates", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--ttl", type=int, default=60, help="of every certificate, seconds")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = asyncio.run(run(Path(folder) / "world", told.seconds, told.ttl))
    found["missed"] = missed(found)
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if found["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
