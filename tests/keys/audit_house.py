"""An audit service over the room's OpenBao, laid out on disk as an appliance lays it out."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from appliance.bootstrap import Estate, prepared
from audit.app import audit_at
from audit.keys.service import AuditKeys, audit_keys
from audit.log.appender import AuditLog
from audit.log.locks import SqliteLock
from audit.log.opening import open_audit
from audit.log.signer import VaultSigner
from audit.main import AuditServer
from meshkit.authorization import Authorizer
from meshkit.contract import Appended, Refusal
from meshkit.held_keys import KeyringSettings
from meshkit.policies import FOLDER
from meshkit.tls import Certificate, CertificateHolder
from meshkit.vault import Vault
from sealgate.cli import main as cli
from tests.audit.world import make_outcome
from tests.mesh.conftest import JOIN, QUICK

DOMAIN = "sealgate.local"


@dataclass
class Load:
    """Appends and opens, as fast as one task can, until told to stop; counts what fails."""

    log: AuditLog
    tenant: str
    done: list[float] = field(default_factory=list)
    opens: bool = True
    opened: int = 0
    failed_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    first: Appended | None = None

    async def once(self) -> None:
        began = time.perf_counter()
        try:
            appended = await self.log.append(make_outcome(tenant=self.tenant))
            self.first = self.first or appended
            if self.opens:
                await self.log.payload(self.tenant, self.first.index)
                self.opened += 1
        except Refusal as refusal:
            self.failed.append(refusal.reason.name)
            self.failed_s.append(time.monotonic())
        self.done.append(time.perf_counter() - began)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        stop = asyncio.Event()

        async def work():
            while not stop.is_set():
                await self.once()
                await asyncio.sleep(0.001)

        task = asyncio.create_task(work())
        try:
            yield self
        finally:
            stop.set()
            await task

    async def goes_on(self, calls: int = 20) -> None:
        """Wait until so many more calls are over."""
        until = len(self.done) + calls
        async with asyncio.timeout(30):
            while len(self.done) < until:
                await asyncio.sleep(0.005)


@dataclass
class AuditHouse:
    data: Path
    estate: Estate
    log: AuditLog
    held: AuditKeys

    async def cli(self, *words: str) -> tuple[int, dict]:
        """Run a command beside the service, as another process would; return its code and JSON."""
        told = io.StringIO()

        def run() -> int:
            with redirect_stdout(told):
                return cli(["keys", *words, "--data", str(self.data), "--json"])

        code = await asyncio.to_thread(run)
        return code, json.loads(told.getvalue().splitlines()[-1])  # before it: logs of others

    def acts(self) -> list[tuple[str, str]]:
        """What the log says was done to keys, in order."""
        leaves = [self.log.parts.leaf(n) for n in range(self.log.stats.durable)]
        events = [json.loads(leaf) for leaf in leaves]
        return [
            (one["event"]["action"], one["event"]["outcome"])
            for one in events
            if one["log"]["producer"].endswith("/service/operator")
        ]


@asynccontextmanager
async def audit_house(
    bao,
    keys: Vault,
    settings,
    folder: Path,
    rules: KeyringSettings | None = None,
    *,
    overlap_days: float = 30.0,
) -> AsyncIterator[AuditHouse]:
    (folder / "openbao").symlink_to(bao.data)
    server = AuditServer(
        data_dir=folder / "audit",
        port=0,
        key_orders_every_s=0.02,
        checkpoint_key_look_s=0.1,
        publish_interval_ms=20,
        publish_retry_ms=20,
        segment_bytes_max=1 << 18,
        join=JOIN,
        serving=QUICK,
    )
    async with prepared(bao, settings) as estate:
        tls = await estate.issue_service("audit", folder / "tls-audit")
        certificate = CertificateHolder(
            Certificate.from_pem(
                chain=tls.cert_chain.read_bytes(),
                key=tls.private_key.read_bytes(),
                peer_ca=tls.peer_ca.read_bytes(),
            )
        )
        async with (
            audit_keys(keys, server, rules) as held,
            open_audit(
                server,
                signer=await VaultSigner.load(
                    keys, "audit-checkpoint", f"{DOMAIN}/audit", overlap_days=overlap_days
                ),
                lock=SqliteLock(folder / "lock.sqlite"),
                sealer=held.sealer,
                pseudonym_key=(await keys.secret("pseudonym-key")).newest,
                naming_keys=held.naming,
            ) as log,
            held.taking_orders(),
            audit_at(server, log, Authorizer(FOLDER), certificate) as port,
        ):
            ready = {"audit": f"localhost:{port}"}
            (folder / "ready.json").write_text(json.dumps(ready))
            yield AuditHouse(folder, estate, log, held)
