"""Several gateways without Redis: each takes its share, so that together they grant no more."""

import pytest

from gateway.admission import Ask
from gateway.app import limits_of
from gateway.settings import GatewaySettings
from meshkit.contract import Refusal

BURST = 12


def settings_of(replicas: int) -> GatewaySettings:
    few = {"user_requests_per_s": 0.001, "user_requests_burst": BURST}
    return GatewaySettings(limits=few, limits_replicas=replicas)


async def granted(limits) -> int:
    """How many calls are let in at once."""
    asked = Ask(tenant="acme", principal="app", model="m", tokens=1)
    for count in range(2 * BURST):
        try:
            await limits.reserve(asked)
        except Refusal:
            return count
    return 2 * BURST


@pytest.mark.parametrize("replicas", [1, 2, 3, 12])
async def test_together_they_let_in_what_one_would(replicas: int) -> None:
    settings, total = settings_of(replicas), 0
    for _ in range(replicas):
        async with limits_of(settings) as limits:
            total += await granted(limits)
    assert total == BURST


async def test_each_lets_one_call_in_even_where_its_share_is_less() -> None:
    """The bound that the page states: at most one call more per gateway."""
    settings, total = settings_of(5 * BURST), 0
    for _ in range(5 * BURST):
        async with limits_of(settings) as limits:
            total += await granted(limits)
    assert total == 5 * BURST
