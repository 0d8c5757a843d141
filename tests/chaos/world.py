"""The mesh under test: the real services, OpenBao and Redis, in processes of their own.

Only the engine is none (`tests.chaos.engine`), and each service can be told to lie.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.mesh import Mesh, MeshHouseSettings, mesh
from meshkit.policies import FOLDER
from sealgate import AsyncClient
from tests.chaos.programs.lies import VARIABLE
from tests.chaos.say import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parent.parent.parent
SERVICES = ("gateway", "compliance", "cache", "inference", "audit")
TENANTS = ("demo", "bank", "clinic")
LIARS = ("compliance", "cache", "inference", "audit")
QUICK = {
    # A cut or paused neighbour is noticed within 2 s instead of 17.
    "GATEWAY_HOPS__REACHING__KEEPALIVE_MS": "1000",
    "GATEWAY_HOPS__REACHING__KEEPALIVE_TIMEOUT_MS": "1000",
    "GATEWAY_HOPS__CACHE_MS": "1500",
    "GATEWAY_AUDIT_BUDGET_MS": "5000",
    "APPLIANCE_WORKER_SILENT_MAX_S": "8",
    "APPLIANCE_RESTART_PAUSE_S": "0.1",
}


@dataclass
class World:
    house: Mesh
    clients: dict[str, AsyncClient]
    lies: Path
    vkey: str

    @property
    def data(self) -> Path:
        return self.house.data

    def pid(self, target: str) -> int:
        if target == "openbao":
            return self.house.bao.pid
        if target == "redis":
            assert self.house.redis is not None
            return self.house.redis.pid
        return self.house.children[target].pid

    def port(self, target: str) -> int:
        if target == "openbao":
            return int(self.house.bao.address.rpartition(":")[2])
        if target == "redis":
            assert self.house.redis is not None
            return self.house.redis.port
        return self.house.children[target].port

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of each process that runs."""
        return {name: resident_mb(child.pid) for name, child in self.house.children.items()}

    @contextmanager
    def lying(self, service: str, lie: str) -> Iterator[None]:
        told = self.lies / service
        fresh = self.lies / f".{service}"
        fresh.write_text(lie)
        fresh.replace(told)
        try:
            yield
        finally:
            told.unlink()


def resident_mb(pid: int) -> float:
    """0 for one that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@asynccontextmanager
async def world(data: Path, **changes: str) -> AsyncIterator[World]:
    """Run it all under `data`, anew."""
    shutil.rmtree(data, ignore_errors=True)
    lies = data / "lies"
    lies.mkdir(parents=True)
    os.environ |= {
        **{f"{name.upper()}_SERVING__LAME_DUCK_MS": "200" for name in SERVICES},
        **{f"{name.upper()}_SERVING__PING_INTERVAL_MIN_MS": "500" for name in SERVICES},
        **QUICK,
        VARIABLE: str(lies),
        "AUDIT_SERVING__LAME_DUCK_MS": "0",
        "GATEWAY_POLICIES_DIR": str(_policies(data / "policies")),
        "COMPLIANCE_CACHE_DIR": str(ROOT / "var" / "cache" / "compliance"),
        "PYTHONPATH": str(ROOT),
        **changes,
    }
    settings = MeshHouseSettings(
        data_dir=data / "mesh",
        models_dir=ROOT / "var" / "models",
        tenants=TENANTS,
        redis=True,
        **dict.fromkeys([f"{name}_port" for name in SERVICES], 0),
    )
    modules = {name: f"tests.chaos.programs.{name}" for name in LIARS}
    async with mesh(settings, tell=say, modules=modules) as house:
        made = World(house, {}, lies, (house.data / "audit" / "vkey").read_text().strip())
        for tenant in TENANTS:
            made.clients[tenant] = await _client(made, tenant)
        try:
            yield made
        finally:
            for client in made.clients.values():
                await client.aclose()


async def _client(made: World, tenant: str) -> AsyncClient:
    folder = made.data / "clients" / tenant
    folder.mkdir(parents=True)
    await made.house.estate.issue_client(tenant, "assistant", folder)
    return AsyncClient(f"localhost:{made.port('gateway')}", tls=folder, vkey=made.vkey)


def _policies(folder: Path) -> Path:
    """The shipped policies, with a workload for each tenant."""
    shutil.copytree(FOLDER, folder)
    entities = json.loads((folder / "entities.json").read_text())
    known = {each["uid"]["id"] for each in entities}
    for tenant in set(TENANTS) - known:
        place = {"type": "Sealgate::Tenant", "id": tenant}
        entities += [
            {"uid": place, "attrs": {"data_class": "internal", "user_roles": []}, "parents": []},
            {
                "uid": {
                    "type": "Sealgate::Workload",
                    "id": f"spiffe://sealgate.local/tenant/{tenant}/assistant",
                },
                "attrs": {"tenant": {"__entity": place}},
                "parents": [{"type": "Sealgate::Role", "id": "application"}],
            },
        ]
    (folder / "entities.json").write_text(json.dumps(entities))
    return folder
