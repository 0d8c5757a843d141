"""Settings come from the environment, strictly."""

from __future__ import annotations

import pytest

from gateway.settings import GatewaySettings, LimitSettings


def test_nested_settings_have_names_of_their_own(monkeypatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "0")
    monkeypatch.setenv("GATEWAY_LIMITS__USER_TOKENS_PER_S", "12.5")
    monkeypatch.setenv("GATEWAY_TENANT_LIMITS", '{"demo": {"tenant_requests_per_s": 3}}')
    monkeypatch.setenv("GATEWAY_SERVING__DRAIN_MS", "200000")
    read = GatewaySettings.load()

    assert read.limits.rates().user_tokens.per_s == 12.5
    assert read.tenant_limits["demo"].rates().tenant_requests.per_s == 3
    assert read.serving.drain_ms == 200_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_LIMTS__USER_TOKENS_PER_S", "1"),
        ("GATEWAY_LIMITS__USER_TOKEN_PER_S", "1"),
        ("GATEWAY_LIMITS__USER_TOKENS_PER_S", "0"),
        ("GATEWAY_CALL_BUDGET_MS", "140000"),
        ("GATEWAY_USERS__ISSUER", "https://idp.example"),
    ],
)
def test_what_makes_no_sense_is_refused(monkeypatch, name, value) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"GATEWAY|Gateway"):
        GatewaySettings.load()


def test_every_rate_is_one_of_the_buckets() -> None:
    read = LimitSettings()
    named = {(rate.per_s, rate.burst) for rate in vars_of(read.rates())}
    assert named == {(2_000, 4_000), (1_000_000, 4_000_000)}


def vars_of(rates):
    return [getattr(rates, name) for name in rates.__dataclass_fields__]
