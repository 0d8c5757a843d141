"""What no real Triton sends: bytes that are not what they claim. Typed, and the next call works."""

import asyncio
import struct
import threading
from concurrent import futures
from dataclasses import replace
from types import SimpleNamespace

import grpc
import pytest
import pytest_asyncio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from inference.registry import ModelFileError, load_manifest, model_info
from inference.triton_repository.asked import description
from meshkit.contract import Document, Ended, Reason
from tests.inference import triton_world as world
from tests.inference.test_triton_faults import answer, refused, until

INFO = model_info(load_manifest(world.MODEL), context_tokens=512)
LOOKS = 20


def text(name, raw, cut=0):
    told = struct.pack("<I", len(raw)) + raw
    return name, "BYTES", [1], told[: len(told) - cut]


PIECE = (
    text("text", b"hello"),
    ("tokens", "INT32", [1], struct.pack("<i", 1)),
    ("model", "UINT8", [32], INFO.digest),
)
END = (text("finish_reason", b"stop"), ("usage", "INT32", [2], struct.pack("<ii", 3, 1)))
LIES = {
    "text_cut_off": [(text("text", b"hello", cut=2), *PIECE[1:]), END],
    "text_without_a_length": [(text("text", b"hello", cut=6), *PIECE[1:]), END],
    "no_such_type": [(("text", "NOPE", [1], b"abcd"), *PIECE[1:]), END],
    "a_number_for_text": [(("text", "INT32", [1], b"abcd"), *PIECE[1:]), END],
    "another_shape": [(("text", "BYTES", [3], PIECE[0][3]), *PIECE[1:]), END],
    "usage_in_words": [PIECE, (END[0], ("usage", "BYTES", [2], text("", b"a")[3] * 2))],
    "usage_is_no_number": [
        PIECE,
        (END[0], ("usage", "FP32", [2], struct.pack("<ff", 3, float("nan")))),
    ],
    "usage_beyond_what_was_asked": [
        PIECE,
        (END[0], ("usage", "INT32", [2], struct.pack("<ii", 3, 65))),
    ],
    "nothing": [()],
}


class Liar(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers as our model would, but for what a test sets. told: the description's bytes."""

    def __init__(self):
        self.answers, self.told, self.gate = [PIECE, END], description(INFO), threading.Event()
        self.cut = self.asked = self.described = 0
        self.gate.set()

    def ServerLive(self, *_):
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, *_):
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelReady(self, *_):
        return service_pb2.ModelReadyResponse(ready=True)

    def RepositoryModelLoad(self, *_):
        return service_pb2.RepositoryModelLoadResponse()

    def RepositoryModelUnload(self, *_):
        return service_pb2.RepositoryModelUnloadResponse()

    def ModelMetadata(self, *_):
        told = service_pb2.ModelMetadataResponse()
        for ours, theirs in ((world.INPUTS, told.inputs), (world.OUTPUTS, told.outputs)):
            for each in ours:
                kind = each.data_type.removeprefix("TYPE_").replace("STRING", "BYTES")
                theirs.add(name=each.name, datatype=kind)
        return told

    def ModelConfig(self, *_):
        told = service_pb2.ModelConfigResponse()
        told.config.model_transaction_policy.decoupled = True
        return told

    def ModelStreamInfer(self, requests, context):
        del context
        request = next(requests)
        if "describe" in {each.name for each in request.inputs}:
            self.described += 1
            last = response(text("description", self.told, cut=self.cut))
            last.infer_response.parameters["triton_final_response"].bool_param = True
            yield last
            return
        self.asked += 1
        self.gate.wait(60)
        yield from (response(*each) for each in self.answers)


def response(*tensors):
    made = service_pb2.ModelStreamInferResponse()
    for name, datatype, shape, raw in tensors:
        made.infer_response.outputs.add(name=name, datatype=datatype, shape=shape)
        made.infer_response.raw_output_contents.append(raw)
    return made


@pytest.fixture
def liar(tmp_path):
    served = Liar()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(served, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    served.place = SimpleNamespace(address=f"127.0.0.1:{port}", repository=tmp_path)
    yield served
    served.gate.set()
    server.stop(None).wait()


def opened(liar):
    return world.opened(liar.place, "liar", models_dir="var/models", load_ms=5_000)


@pytest_asyncio.fixture
async def engine(liar):
    made = await asyncio.to_thread(opened, liar)
    made.start()
    yield made
    await made.close()


@pytest.mark.parametrize("lie", LIES)
async def test_bytes_that_are_not_what_they_claim_are_no_answer(engine, liar, lie) -> None:
    assert isinstance((await answer(engine, "hi"))[-1], Ended)
    liar.answers = LIES[lie]
    assert (await refused(engine, "hi")).reason is Reason.INFERENCE_DOWN
    liar.answers = [PIECE, END]
    assert isinstance((await answer(engine, "hi"))[-1], Ended)


def told(content):
    """A description whose digest is that of its manifest, whatever that is."""
    document = Document("model.manifest", content)
    return description(replace(INFO, digest=document.digest, documents=(document,)))


@pytest.mark.parametrize(
    "content", [b"no JSON", b"[]", b"[[1, 2]]", b"7", b"[" * 100_000, b"\xff", b'{"name": 1}']
)
async def test_a_manifest_that_is_none_is_not_ours_until_it_is(engine, liar, content) -> None:
    sound, liar.told = liar.told, told(content)
    with pytest.raises(ModelFileError, match="cannot be had from Triton"):
        await asyncio.to_thread(opened, liar)
    engine._watch.suspect(doubt=True)
    await until(lambda: not engine.healthy)
    liar.told = sound
    await until(lambda: engine.healthy)
    assert isinstance((await answer(engine, "hi"))[-1], Ended)


async def test_a_description_that_is_cut_off_is_asked_for_again(engine, liar) -> None:
    liar.cut = 3
    with pytest.raises(ModelFileError, match="cannot be had from Triton"):
        await asyncio.to_thread(opened, liar)
    engine._watch.suspect(doubt=True)
    await until(lambda: not engine.healthy)
    liar.cut = 0
    await until(lambda: engine.healthy)
    assert isinstance((await answer(engine, "hi"))[-1], Ended)


async def test_a_fault_of_ours_in_a_look_is_not_the_last_look(engine, monkeypatch) -> None:
    look, looks = engine._watch._look, []

    def faulty():
        looks.append(1)
        if len(looks) < 3:
            raise KeyError
        look()

    monkeypatch.setattr(engine._watch, "_look", faulty)
    await until(lambda: len(looks) > 2 and engine.healthy)
    assert isinstance((await answer(engine, "hi"))[-1], Ended)


async def test_looking_leaves_no_threads(engine, liar) -> None:
    def descriptions():
        engine._watch.suspect(doubt=True)
        return liar.described

    await until(lambda: descriptions() > 2)
    before, seen = threading.active_count(), liar.described
    await until(lambda: descriptions() > seen + LOOKS)
    assert threading.active_count() < before + LOOKS // 2


async def test_an_answer_under_way_when_the_engine_closes_is_typed(engine, liar) -> None:
    liar.gate.clear()
    running = asyncio.create_task(refused(engine, "hi"))
    await until(lambda: liar.asked)
    await engine.close()
    assert (await running).reason is Reason.INFERENCE_DOWN


async def test_so_is_one_beside_which_another_failed(engine, liar) -> None:
    """After a failure the next answers have a connection of their own; this one has the old."""
    liar.gate = waiting = threading.Event()
    running = asyncio.create_task(refused(engine, "hi"))
    await until(lambda: liar.asked)
    liar.answers, liar.gate = LIES["nothing"], threading.Event()
    liar.gate.set()
    await refused(engine, "hi")
    await engine.close()
    ended, _ = await asyncio.wait((running,), timeout=20)
    waiting.set()
    assert ended
    assert running.result().reason is Reason.INFERENCE_DOWN


async def test_a_caller_who_leaves_is_not_told_that_triton_is_down(engine, liar) -> None:
    liar.gate.clear()
    running = asyncio.create_task(answer(engine, "hi"))
    await until(lambda: liar.asked)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert engine.healthy
