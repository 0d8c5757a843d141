"""One limit, two gateway processes, a Redis behind them: exactly what the limit grants."""

import asyncio

import pytest

from sealgate import AsyncClient, LimitedError
from tests.e2e.conftest import House
from tests.e2e.test_workers import connections, port_of, workers

BURST = 25
SETTINGS = {
    "APPLIANCE_GATEWAY_WORKERS": "2",
    "APPLIANCE_REDIS": "true",
    "GATEWAY_LIMITS__TENANT_REQUESTS_BURST": str(BURST),
    "GATEWAY_LIMITS__TENANT_REQUESTS_PER_S": "0.001",
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    running = House(tmp_path_factory.mktemp("limited"), "appliance.mesh", SETTINGS).start()
    yield running
    assert running.stop() == 0


async def test_two_gateways_grant_one_limit_between_them(limited) -> None:
    facts = limited.facts
    clients = [AsyncClient(facts["gateway"], tls=facts["tls"]) for _ in range(16)]

    answers = await asyncio.gather(
        *(client.models() for client in clients * 5), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, LimitedError)]
    holders = {pid for pid in workers(limited) if connections(pid, port_of(limited))}
    await asyncio.gather(*(client.aclose() for client in clients))

    assert len(holders) == 2, "both took calls"
    assert len(answers) - len(refused) == BURST
    assert all(refusal.retry_after_ms > 0 for refusal in refused)
