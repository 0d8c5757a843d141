"""A monitor that asks the audit service itself, over real TLS: checkpoints and proofs, no tiles."""

import asyncio
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from audit.app import audit_at
from meshkit.authorization import Authorizer
from meshkit.server import Serving
from meshkit.tls import CertificateHolder
from sealgate.cli import main
from tests.audit.witness_world import until
from tests.audit.world import World, make_outcome
from tests.gateway.conftest import DOMAIN

AUDITOR = f"spiffe://{DOMAIN}/tenant/demo/auditor"


@pytest.fixture
def served(authority, policies, tmp_path):
    """Return how to serve a world's log; the block yields it, and what the command line is told."""

    @asynccontextmanager
    async def serving(world):
        holder = CertificateHolder(authority.issue(f"spiffe://{DOMAIN}/service/audit"))
        listening = SimpleNamespace(
            host="127.0.0.1",
            port=0,
            trust_domain=DOMAIN,
            call_budget_ms=10_000,
            serving=Serving(lame_duck_ms=0, drain_ms=1_000),
        )
        tls = tmp_path / "tls"
        tls.mkdir(exist_ok=True)
        issued = authority.issue(AUDITOR)
        (tls / "ca.pem").write_bytes(authority.pem)
        (tls / "client.pem").write_bytes(issued.chain_pem)
        (tls / "client.key").write_bytes(issued.key_pem)
        async with (
            world.open() as log,
            audit_at(listening, log, Authorizer(policies), holder, reads_per_s_max=1_000) as port,
        ):
            words = ["audit", "monitor", "--log", f"localhost:{port}", "--tls", str(tls), "--once"]
            state = ["--state", str(tmp_path / "state.json")]
            yield log, [*words, *state, "--policy", str(world.data / "policy")]

    return serving


async def look(words, capsys):
    code = await asyncio.to_thread(main, words)
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def grown(log, count):
    last = (await log.append_many([make_outcome() for _ in range(count)]))[-1].index
    await until(lambda: log.stats.published > last)


async def test_a_growing_log_is_believed_and_another_one_under_its_key_is_not(
    served, tmp_path, capsys
):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    world, twin = World(tmp_path / "one"), World(tmp_path / "two")
    twin.signer, twin.vkey = world.signer, world.vkey
    async with served(world) as (log, words):
        await grown(log, 5)
        assert await look(words, capsys) == (0, [])
        await grown(log, 300)
        assert await look(words, capsys) == (0, [])
    async with served(twin) as (other, words):
        await grown(other, 400)
        code, (told,) = await look(words, capsys)
        assert (code, told["alarm"], told["breaks"]) == (1, "fork", True)
        assert told["believed_size"] >= 305
    code, (told,) = await look(words, capsys)
    assert (code, told["alarm"]) == (3, "unreachable")
