"""Who may take a step of a model's release, and what the record says of it."""

import asyncio

import grpc
import pytest

from meshkit.contract import Phase, Reason, Refusal, Release, ReleasedVersion, StepKind
from meshkit.status import from_rpc_error
from sealgate.v1 import models_pb2 as pb
from sealgate.v1.models_pb2_grpc import ModelServiceStub
from tests.fakes import MODEL
from tests.gateway.conftest import ASSISTANT, DOMAIN, OTHER, STRANGER

ADMIN = f"spiffe://{DOMAIN}/tenant/demo/models"
OTHERS = (
    *(ASSISTANT, STRANGER, OTHER),
    f"spiffe://{DOMAIN}/tenant/demo/auditor",
    f"spiffe://{DOMAIN}/tenant/demo/privacy",
)
DIGEST = b"2" * 32
STEPS = {
    "LoadModel": (pb.LoadModelRequest(model=MODEL, version="2"), "model.load"),
    "UnloadModel": (pb.UnloadModelRequest(model=MODEL, version="2"), "model.unload"),
    "PromoteModel": (
        pb.PromoteModelRequest(model=MODEL, version="2", stage=pb.MODEL_STAGE_LIVE),
        "model.promote",
    ),
    "RollbackModel": (pb.RollbackModelRequest(model=MODEL), "model.rollback"),
    "SetShadow": (pb.SetShadowRequest(model=MODEL, version="2", percent=10), "model.shadow"),
}
CANARY = pb.PromoteModelRequest(
    model=MODEL, version="2", stage=pb.MODEL_STAGE_CANARY, percent=5, seconds=60
)


class Releases:
    """Inference's side: knows one model, takes every step that it is not told to refuse."""

    def __init__(self) -> None:
        self.taken = []
        self.refuses: Reason | None = None

    async def releases(self, model=""):
        if model not in {"", MODEL}:
            raise Refusal(Reason.NOT_FOUND)
        version = ReleasedVersion(version="2", digest=DIGEST, state="warm", share=500)
        return (Release(model=MODEL, versions=(version,), history=("1",)),)

    async def take(self, step):
        if self.refuses is not None:
            raise Refusal(self.refuses)
        self.taken.append(step)
        return (await self.releases(step.model))[0]


@pytest.fixture
async def desk(start):
    """A gateway with ModelService, and what it has inference do."""
    releases = Releases()
    async with start(releases=releases) as house:
        house.releases = releases
        yield house


async def refusal(call) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


def told(house, action):
    return [event for event in house.audit.events if event.action == action]


@pytest.mark.parametrize("method", STEPS)
async def test_a_step_is_taken_and_recorded_before_and_after(desk, method) -> None:
    request, action = STEPS[method]
    async with desk.raw_caller(ADMIN) as channel:
        reply = await getattr(ModelServiceStub(channel), method)(request)

    (step,) = desk.releases.taken
    assert (f"model.{step.kind.value}", step.model) == (action, MODEL)
    assert reply.release.versions[0].version == "2"
    intent, outcome = told(desk, action)
    assert (intent.phase, outcome.phase) == (Phase.INTENT, Phase.OUTCOME)
    assert intent.call_id == outcome.call_id
    assert (outcome.outcome, outcome.model, outcome.actor.workload) == ("released", MODEL, "models")
    if method != "RollbackModel":
        assert outcome.model_digest == DIGEST
        assert dict(outcome.detail)["version"] == "2"


async def test_a_trial_is_an_action_of_its_own(desk) -> None:
    async with desk.raw_caller(ADMIN) as channel:
        await ModelServiceStub(channel).PromoteModel(CANARY)

    (step,) = desk.releases.taken
    assert (step.kind, step.percent, step.seconds) == (StepKind.CANARY, 5, 60)
    assert dict(told(desk, "model.canary")[1].detail) == {
        "percent": "5", "seconds": "60", "version": "2",
    }  # fmt: skip


@pytest.mark.parametrize("who", OTHERS)
async def test_nobody_else_may_look_or_change(desk, who) -> None:
    async with desk.raw_caller(who) as channel:
        stub = ModelServiceStub(channel)
        calls = [getattr(stub, method)(request) for method, (request, _) in STEPS.items()]
        calls += [stub.PromoteModel(CANARY), stub.ListVersions(pb.ListVersionsRequest())]
        calls += [stub.GetRelease(pb.GetReleaseRequest(model=MODEL))]
        reasons = {(await refusal(call)).reason for call in calls}

    assert reasons == {Reason.DENIED}
    assert desk.releases.taken == []
    recorded = [event for event in desk.audit.events if event.action.startswith("model.")]
    assert {event.outcome for event in recorded} == {"DENIED"}
    assert len(recorded) == len(calls)


async def test_a_look_is_recorded_too(desk) -> None:
    async with desk.raw_caller(ADMIN) as channel:
        stub = ModelServiceStub(channel)
        (listed,) = (await stub.ListVersions(pb.ListVersionsRequest())).releases
        one = (await stub.GetRelease(pb.GetReleaseRequest(model=MODEL))).release
        missing = await refusal(stub.GetRelease(pb.GetReleaseRequest(model="nobody")))

    assert listed == one
    assert (one.versions[0].share, list(one.history)) == (500, ["1"])
    assert missing.reason is Reason.NOT_FOUND
    outcomes = [event.outcome for event in told(desk, "model.read")]
    assert outcomes == ["released", "released", "NOT_FOUND"]


@pytest.mark.parametrize("reason", [Reason.WRONG_STATE, Reason.OVERLOADED, Reason.INFERENCE_DOWN])
async def test_what_inference_refuses_is_told_and_recorded(desk, reason) -> None:
    desk.releases.refuses = reason
    async with desk.raw_caller(ADMIN) as channel:
        found = await refusal(ModelServiceStub(channel).PromoteModel(STEPS["PromoteModel"][0]))

    assert found.reason is reason
    assert told(desk, "model.promote")[1].outcome == reason.name


async def test_without_a_durable_intent_nothing_is_changed(desk) -> None:
    desk.audit.down = True
    async with desk.raw_caller(ADMIN) as channel:
        found = await refusal(ModelServiceStub(channel).RollbackModel(STEPS["RollbackModel"][0]))

    assert found.reason is Reason.AUDIT_DOWN
    assert desk.releases.taken == []


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("LoadModel", pb.LoadModelRequest(version="2"), "model"),
        ("LoadModel", pb.LoadModelRequest(model=MODEL), "version"),
        ("LoadModel", pb.LoadModelRequest(model=MODEL, version="../2"), "version"),
        ("UnloadModel", pb.UnloadModelRequest(model="ada@example.org", version="2"), "model"),
        ("PromoteModel", pb.PromoteModelRequest(model=MODEL, version="2"), "stage"),
        ("PromoteModel", pb.PromoteModelRequest(model=MODEL, version="2", stage=2, percent=5),
         "stage"),
        ("PromoteModel", pb.PromoteModelRequest(model=MODEL, version="2", stage=1,
                                                seconds=99_999_999), "seconds"),
        ("GetRelease", pb.GetReleaseRequest(), "model"),
    ],
)  # fmt: skip
async def test_malformed_requests_name_the_field_and_nothing_else(
    desk, method, request_, field
) -> None:
    async with desk.raw_caller(ADMIN) as channel:
        found = await refusal(getattr(ModelServiceStub(channel), method)(request_))

    assert (found.reason, found.field) == (Reason.INVALID_FIELD, field)
    assert desk.releases.taken == []
    assert "ada" not in str(desk.audit.events)


async def test_calls_at_the_desk_are_bounded(start) -> None:
    releases, gate = Releases(), asyncio.Event()
    real = releases.take

    async def slow(step):
        await gate.wait()
        return await real(step)

    releases.take = slow
    async with (
        start(releases=releases, model_steps_max=1) as house,
        house.raw_caller(ADMIN) as channel,
    ):
        stub = ModelServiceStub(channel)
        first = asyncio.ensure_future(stub.RollbackModel(STEPS["RollbackModel"][0]))
        while not told(house, "model.rollback"):
            await asyncio.sleep(0.005)
        found = await refusal(stub.RollbackModel(STEPS["RollbackModel"][0]))
        gate.set()
        await first

    assert found.reason is Reason.OVERLOADED
    assert len(releases.taken) == 1


async def test_without_a_desk_there_is_no_such_service(start) -> None:
    async with start() as house, house.raw_caller(ADMIN) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ModelServiceStub(channel).ListVersions(pb.ListVersionsRequest())

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_step_whose_caller_has_gone_is_recorded_to_its_end(start) -> None:
    releases, gate = Releases(), asyncio.Event()
    real = releases.take

    async def slow(step):
        await gate.wait()
        return await real(step)

    releases.take = slow
    async with start(releases=releases) as house, house.raw_caller(ADMIN) as channel:
        call = ModelServiceStub(channel).PromoteModel(STEPS["PromoteModel"][0])
        while not told(house, "model.promote"):
            await asyncio.sleep(0.005)
        call.cancel()
        async with asyncio.timeout(10):
            while not house.pipeline.ledger._tasks:  # until the gateway has learnt of it
                await asyncio.sleep(0.005)
            gate.set()
            while len(told(house, "model.promote")) < 2:
                await asyncio.sleep(0.005)

    intent, outcome = told(house, "model.promote")
    assert (outcome.phase, outcome.call_id) == (Phase.OUTCOME, intent.call_id)
    assert (len(releases.taken), outcome.outcome) == (1, "released")


async def test_a_defect_in_a_step_is_recorded(desk) -> None:
    async def broken(step):
        raise RuntimeError(step.model)

    desk.releases.take = broken
    async with desk.raw_caller(ADMIN) as channel:
        found = await refusal(ModelServiceStub(channel).RollbackModel(STEPS["RollbackModel"][0]))

    assert found.reason is Reason.INTERNAL
    assert [event.outcome for event in told(desk, "model.rollback")] == ["", "INTERNAL"]
