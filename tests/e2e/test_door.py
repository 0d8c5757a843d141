"""What stands at the gateway's port besides its service: health, reflection, and no TLS 1.2."""

import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


def channel(house, **files) -> grpc.Channel:
    tls = Path(house.facts["tls"])
    wanted = {"root_certificates": "ca.pem", "private_key": "client.key"} | {
        "certificate_chain": "client.pem"
    }
    read = {name: (tls / file).read_bytes() for name, file in wanted.items()} | files
    return grpc.secure_channel(house.facts["gateway"], grpc.ssl_channel_credentials(**read))


@pytest.mark.parametrize("name", ["", "sealgate.v1.GatewayService"])
def test_health_says_serving(house, name: str) -> None:
    with channel(house) as opened:
        reply = health_pb2_grpc.HealthStub(opened).Check(
            health_pb2.HealthCheckRequest(service=name), timeout=30
        )
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_names_the_service_in_the_appliance(house) -> None:
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    with channel(house) as opened:
        stub = reflection_pb2_grpc.ServerReflectionStub(opened)
        (reply,) = stub.ServerReflectionInfo(iter([ask]), timeout=30)
    names = {service.name for service in reply.list_services_response.service}
    assert "sealgate.v1.GatewayService" in names


def test_nobody_gets_in_without_a_certificate(house) -> None:
    bare = {"private_key": None, "certificate_chain": None}
    with channel(house, **bare) as opened, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(("version", "agreed"), [("-tls1_2", False), ("-tls1_3", True)])
@pytest.mark.parametrize("port", ["gateway", "audit"])
def test_openssl_agrees_on_tls_1_3_only(house, port: str, version, agreed) -> None:
    tls = Path(house.facts["tls"])
    told = subprocess.run(
        [
            "openssl",
            "s_client",
            version,
            "-alpn",
            "h2",
            "-connect",
            house.facts[port],
            "-CAfile",
            tls / "ca.pem",
            "-cert",
            tls / "client.pem",
            "-key",
            tls / "client.key",
        ],
        input=b"",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (b"Cipher is TLS_" in told.stdout) is agreed
