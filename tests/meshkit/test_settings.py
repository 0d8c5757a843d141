import pytest
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import SettingsConfigDict

from meshkit.settings import MeshSettings


class Inner(BaseModel):
    model_config = {"extra": "forbid"}
    peer_ca: str = "ca.pem"


class Sample(MeshSettings):
    model_config = SettingsConfigDict(env_prefix="SAMPLE_")
    drain_ms: int = Field(100, gt=0)
    tls: Inner = Inner()


def test_reads_its_variables_and_nested_ones(monkeypatch):
    monkeypatch.setenv("SAMPLE_DRAIN_MS", "5")
    monkeypatch.setenv("SAMPLE_TLS__PEER_CA", "other.pem")
    assert Sample.load() == Sample(drain_ms=5, tls=Inner(peer_ca="other.pem"))


@pytest.mark.parametrize("name", ["SAMPLE_DRIAN_MS", "sample_drian_ms", "SAMPLE_TSL__PEER_CA"])
def test_a_misspelt_variable_is_refused(monkeypatch, name):
    monkeypatch.setenv(name, "5")
    with pytest.raises(ValueError, match="unknown settings"):
        Sample.load()


def test_a_misspelt_nested_variable_is_refused(monkeypatch):
    monkeypatch.setenv("SAMPLE_TLS__PEER_AC", "5")
    with pytest.raises(ValidationError):
        Sample.load()


def test_a_bad_value_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setenv("SAMPLE_DRAIN_MS", "canary-4711")
    with pytest.raises(ValidationError) as caught:
        Sample.load()
    assert "canary" not in str(caught.value)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Sample().drain_ms = 7


def test_a_class_without_a_prefix_is_refused():
    with pytest.raises(TypeError):
        MeshSettings.load()


def test_naming_one_nested_field_leaves_its_neighbours_alone(monkeypatch) -> None:
    from gateway.settings import GatewaySettings

    monkeypatch.setenv("GATEWAY_SERVING__LAME_DUCK_MS", "7")
    serving = GatewaySettings.load().serving

    assert serving.lame_duck_ms == 7
    assert serving.drain_ms == GatewaySettings.model_fields["serving"].default.drain_ms
