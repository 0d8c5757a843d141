"""How long publishing stands still while OpenBao is away, and what a rotation costs who appends.

    python -m tests.soak.outage [--seconds N]

An audit log over a real OpenBao that is killed, sealed and paused under load, N seconds each. Its
data keys serve meanwhile, as they do for minutes; checkpoints cannot be signed. Then, on the same
log, keys are rotated and rewrapped under the same load, for N seconds after as many of quiet.
Prints JSON; exits 1 if an append failed or publishing did not catch up.
"""

from meshkit import tls_floor  # isort: skip -- before grpc

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import structlog

from appliance.bootstrap import BootstrapSettings, prepared
from appliance.openbao import OpenBaoSettings, openbao
from appliance.openbao_admin import Admin
from meshkit.vault import AppRole, StaticToken, vault
from tests.keys.audit_house import Load, audit_house
from tests.keys.test_outage import HASTY, away

assert tls_floor.in_time()

SETTINGS = BootstrapSettings(tenants=("demo",))
LIMIT_S = 60


class Published:
    """When checkpoints were published, seen every 5 ms."""

    def __init__(self, log):
        self._log = log
        self.at = [time.monotonic()]

    async def watch(self):
        seen = None
        while True:
            if self._log.stats.published != seen:
                seen = self._log.stats.published
                self.at.append(time.monotonic())
            await asyncio.sleep(0.005)

    def gap_s(self, since):
        """The longest time without a new checkpoint that ended after `since`."""
        ends = [*self.at, time.monotonic()]
        return max(b - a for a, b in pairwise(ends) if b > since)

    async def next(self):
        count = len(self.at)
        async with asyncio.timeout(LIMIT_S):
            while len(self.at) == count:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def housed(folder):
    """An audit service over an OpenBao of its own; the OpenBao, and a root token to seal it."""
    (folder / "bao").mkdir()
    (folder / "house").mkdir()
    async with openbao(OpenBaoSettings(data=folder / "bao", restart_pause_s=0.05)) as bao:
        root = json.loads((bao.data / "init.json").read_text())["root_token"]
        async with vault(bao.vault_settings(), StaticToken(root)) as keys:
            made = await keys.ask("POST", "auth/token/create-orphan", {"policies": ["root"]})
        async with prepared(bao, SETTINGS):
            pass
        stored = json.loads((bao.data / "operator.json").read_text())
        async with vault(bao.vault_settings(), AppRole(**stored)) as operator:
            login = await Admin(operator).login("audit")
        async with (
            vault(bao.vault_settings(**HASTY), login) as keys,
            audit_house(bao, keys, SETTINGS, folder / "house") as house,
        ):
            yield house, bao, made.body["auth"]["client_token"]


async def outage(house, bao, token, fault, seconds):
    """Take OpenBao away for so long, under load; return what that did to publishing."""
    load, published = Load(house.log, "demo", opens=False), Published(house.log)
    watching = asyncio.create_task(published.watch())
    try:
        async with load.running():
            await load.goes_on()
            await published.next()
            quiet_s = published.gap_s(published.at[1])
            began = time.monotonic()
            async with away(bao, token, fault):
                await asyncio.sleep(seconds)
            mended = time.monotonic()
            await published.next()
            back_s = time.monotonic() - mended
            async with asyncio.timeout(LIMIT_S):
                while house.log.stats.durable - house.log.stats.published > 200:
                    await asyncio.sleep(0.005)
            even_s = time.monotonic() - mended
        return {
            "away_s": round(mended - began, 2),
            "publish_gap_s": round(published.gap_s(began), 2),
            "publish_gap_before_s": round(quiet_s, 2),
            "first_checkpoint_after_s": round(back_s, 2),
            "caught_up_after_s": round(even_s, 2),
            "appends": len(load.done),
            "failed": len(load.failed),
        }
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def share(seconds, part):
    return sorted(seconds)[int(part * (len(seconds) - 1))]


async def rotation(house, seconds):
    """Rotate and rewrap a tenant's key and rotate the checkpoint key; how appends took it."""
    async with Load(house.log, "demo").running() as load:
        await load.goes_on(200)  # warm
        start = len(load.done)
        await asyncio.sleep(seconds)
        before = load.done[start:]
        start, acts, began = len(load.done), 0, time.monotonic()
        while time.monotonic() - began < seconds or not acts:
            for words in (
                ("rotate", "--tenant", "demo"),
                ("rewrap", "--tenant", "demo"),
                ("rotate", "--checkpoint"),
            ):
                code, told = await house.cli(*words)
                assert code == 0, told
                acts += 1
            await asyncio.sleep(seconds / 4)
        during = load.done[start:]
    return {
        "acts": acts,
        "appends": [len(before), len(during)],
        "failed": len(load.failed),
        "p50_ratio": round(share(during, 0.5) / share(before, 0.5), 2),
        "p99_ratio": round(share(during, 0.99) / share(before, 0.99), 2),
    }


async def measured(folder, seconds):
    async with housed(folder) as (house, bao, token):
        found = {
            fault: await outage(house, bao, token, fault, seconds)
            for fault in ("killed", "sealed", "paused")
        }
        found["rotation"] = await rotation(house, seconds)
    return found


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.soak.outage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each outage")
    asked = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        found = asyncio.run(measured(Path(folder), asked.seconds))
    sys.stdout.write(f"{json.dumps(found)}\n")
    return 1 if any(each["failed"] for each in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
