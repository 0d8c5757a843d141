"""Who may call whom: every identity against every service, on real sockets.

docs/ARCHITECTURE.md, "Who trusts whom", as a matrix. A peer that is not admitted gets as far as
the handshake (it has a certificate of our CA) and no further.
"""

from itertools import product

import grpc
import pytest

from sealgate.v1 import audit_pb2, cache_pb2, compliance_pb2, gateway_pb2, inference_pb2
from sealgate.v1.audit_pb2_grpc import AuditServiceStub
from sealgate.v1.cache_pb2_grpc import CacheServiceStub
from sealgate.v1.compliance_pb2_grpc import ComplianceServiceStub
from sealgate.v1.gateway_pb2_grpc import GatewayServiceStub
from sealgate.v1.inference_pb2_grpc import InferenceServiceStub
from tests.mesh.conftest import DOMAIN, SERVICES, service_id

TENANTS = {
    "assistant": f"spiffe://{DOMAIN}/tenant/demo/assistant",
    "auditor": f"spiffe://{DOMAIN}/tenant/demo/auditor",
    "gateway of a tenant": f"spiffe://{DOMAIN}/tenant/demo/gateway",
}
STRANGERS = {
    "foreign gateway": "spiffe://elsewhere.example/service/gateway",
    "sixth service": service_id("billing"),
    "dot segments": f"spiffe://{DOMAIN}/service/x/../gateway",
}
OPERATOR = {"operator": service_id("operator")}
IDENTITIES = {name: service_id(name) for name in SERVICES} | OPERATOR | TENANTS | STRANGERS
DOORS = ("Chat", "Screen", "Release", "Reveal", "Get", "Put", "Purge", "Generate", "ListModels")
DOORS += ("TakeStep", "Append", "GetCheckpoint")

UNARY = ("Chat", "Screen", "Reveal", "Get", "ListModels", "GetCheckpoint")

GATEWAY_ALONE = {"gateway"}
ADMITTED = {
    "Chat": set(TENANTS),
    **dict.fromkeys(DOORS[1:10], GATEWAY_ALONE),
    "Purge": {"gateway", "audit"},
    "Append": {*SERVICES, "operator"},
    "GetCheckpoint": {"auditor"},
}


def service_of(door):
    if door == "Chat":
        return "gateway"
    if door in {"Screen", "Release", "Reveal"}:
        return "compliance"
    if door in {"Get", "Put", "Purge"}:
        return "cache"
    return "inference" if door in {"Generate", "ListModels", "TakeStep"} else "audit"


async def knock(channel, door):  # noqa: C901 -- a case a door
    """Call with an empty request: whoever is admitted is told that it is malformed, or served."""
    match door:
        case "Chat":
            await GatewayServiceStub(channel).Chat(gateway_pb2.ChatRequest())
        case "Screen":
            await ComplianceServiceStub(channel).Screen(compliance_pb2.ScreenRequest())
        case "Reveal":
            await ComplianceServiceStub(channel).Reveal(compliance_pb2.RevealRequest())
        case "Release":
            call = ComplianceServiceStub(channel).Release()
            await call.done_writing()
            await call.read()
            await ended(call)
        case "Get":
            await CacheServiceStub(channel).Get(cache_pb2.GetRequest())
        case "Put":
            await CacheServiceStub(channel).Put(cache_pb2.PutRequest())
        case "Purge":
            await CacheServiceStub(channel).Purge(cache_pb2.PurgeRequest())
        case "Generate":
            call = InferenceServiceStub(channel).Generate(inference_pb2.GenerateRequest())
            await call.read()
            await ended(call)
        case "ListModels":
            await InferenceServiceStub(channel).ListModels(
                inference_pb2.InferenceServiceListModelsRequest()
            )
        case "TakeStep":
            await InferenceServiceStub(channel).TakeStep(inference_pb2.TakeStepRequest())
        case "Append":
            call = AuditServiceStub(channel).Append()
            await call.done_writing()
            await call.read()
            await ended(call)
        case _:
            await AuditServiceStub(channel).GetCheckpoint(audit_pb2.GetCheckpointRequest())


async def ended(call):
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata()
        )


REFUSED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}


async def test_every_identity_against_every_door(fake_mesh, host):
    wrong = {}
    for who, uri in IDENTITIES.items():
        credentials = host.holder(uri).channel_credentials()
        for service in SERVICES:
            async with grpc.aio.secure_channel(
                f"localhost:{fake_mesh.ports[service]}", credentials
            ) as channel:
                for door in (each for each in DOORS if service_of(each) == service):
                    try:
                        await knock(channel, door)
                        code = grpc.StatusCode.OK
                    except grpc.aio.AioRpcError as error:
                        code = error.code()
                    admitted = code in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
                    if admitted != (who in ADMITTED[door]) or not (admitted or code in REFUSED):
                        wrong[who, door] = code.name

    assert wrong == {}
    assert len(list(product(IDENTITIES, DOORS))) == 144


@pytest.mark.parametrize("service", SERVICES)
async def test_a_certificate_of_another_authority_gets_no_handshake(fake_mesh, host, service):
    from tests.gateway.conftest import Authority

    stranger = Authority().issue(service_id("gateway"))
    credentials = grpc.ssl_channel_credentials(
        host.authority.pem, stranger.key_pem, stranger.chain_pem
    )
    async with grpc.aio.secure_channel(
        f"localhost:{fake_mesh.ports[service]}", credentials
    ) as channel:
        door = next(each for each in UNARY if service_of(each) == service)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await knock(channel, door)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
