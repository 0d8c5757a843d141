"""The real model, loaded once; screened prompts with a real MAC."""

import asyncio
import os
import resource
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from inference.engines.load import load_engine
from inference.gguf_file import read_gguf
from inference.registry import checked_file, load_manifest
from inference.service import InferenceService
from inference.settings import InferenceSettings
from inference.weights import load_weights
from meshkit.contract import (
    Message,
    Parameters,
    Role,
    Scope,
    Screened,
    Stage,
    TraceContext,
    Verdict,
)
from meshkit.screening_mac import MacKeys, digest_of_prompt, mac_verifier

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m-instruct"
KEYS = MacKeys({1: b"k" * 32}, current=1)
SCOPE = Scope(
    call_id=b"c" * 16,
    tenant="acme",
    principal="spiffe://sealgate.test/tenant/acme/app",
    trace=TraceContext(trace_id=b"t" * 16, span_id=b"s" * 8),
)


def screened(messages: tuple[Message, ...], scope: Scope = SCOPE) -> Screened:
    version, mac = KEYS.tag(
        stage=Stage.SCREENED,
        text_digest=digest_of_prompt(messages),
        policy_digest=b"p" * 32,
        tenant=scope.tenant,
        call_id=scope.call_id,
    )
    verdict = Verdict(policy_digest=b"p" * 32)
    return Screened(messages=messages, verdict=verdict, mac=mac, mac_key_version=version)


def settings(**changes: object) -> InferenceSettings:
    models_dir = Path(os.environ.get("SEALGATE_MODELS_DIR", ROOT / "var" / "models"))
    return InferenceSettings(
        **{"models_dir": models_dir, "slots": 4, "context_tokens_max": 1_024} | changes
    )


@dataclass(frozen=True)
class Client:
    """Asks as a gateway would, with a MAC that holds."""

    service: InferenceService

    def stream(self, *contents: str, messages=None, **parameters):
        prompt = messages or tuple(Message(Role.USER, content) for content in contents)
        return self.service.generate(SCOPE, MODEL, screened(prompt), Parameters(**parameters))

    async def ask(self, *contents: str, **parameters):
        *pieces, ended = [item async for item in self.stream(*contents, **parameters)]
        return "".join(piece.text for piece in pieces), ended, pieces


@pytest.fixture(scope="session")
def loaded():
    """Weights and tokenizer: four seconds, so once."""
    return load_engine(settings())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def smollm(loaded):
    loaded.start()
    yield Client(InferenceService((loaded,), verify=mac_verifier(lambda: KEYS)))
    await loaded.close()


@pytest.fixture(scope="session")
def triton(tmp_path_factory):
    """One tritonserver for all: scripted models, SmolLM2; loading needs the admin's key."""
    # Here: only these tests need Triton's client.
    from tests.inference import triton_world as world

    repository = tmp_path_factory.mktemp("triton")
    for dialect in world.DIALECTS:
        world.standin(repository, dialect.replace("sealgate", "scripted"), dialect)
    world.smollm2(repository, settings().models_dir.resolve())
    key = f"--grpc-restricted-protocol=model-repository:admin-key={world.ADMIN_KEY}"
    with world.running(repository, key) as server:
        yield server


@pytest_asyncio.fixture
async def on_triton(triton):
    """Open an engine over a model of that server; closed at the end."""
    from tests.inference import triton_world as world

    engines = []

    async def make(model, server=triton, **changes):
        models_dir = settings().models_dir
        engine = await asyncio.to_thread(
            world.opened, server, model, models_dir=models_dir, **changes
        )
        engine.start()
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        await engine.close()


@pytest.fixture
def make_settings():
    return settings


@pytest.fixture
def mac_keys():
    return KEYS


@pytest.fixture
def make_screened():
    return screened


@pytest.fixture
def scope():
    return SCOPE


@pytest.fixture(scope="session")
def model_path() -> Path:
    return checked_file(load_manifest(MODEL), settings().models_dir)


@pytest.fixture(scope="session")
def model_file(model_path):
    return read_gguf(model_path)


@pytest.fixture(scope="session")
def file_weights(model_file):
    return load_weights(model_file)


@pytest.fixture
def disk_of():
    """Let no file grow beyond so many bytes while the block runs: as a full disk, EFBIG."""

    @contextmanager
    def full(size: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full
