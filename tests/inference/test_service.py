"""What stands before a model: the screening MAC, the model's name, the pinned digest."""

from dataclasses import replace
from pathlib import Path

import pytest

from inference.engines.null import NullEngine
from inference.registry import ModelFileError, checked_file, load_manifest, model_info
from inference.service import InferenceService, open_inference
from inference.store.manifest import FileDigest
from meshkit.contract import Ended, FinishReason, Message, Parameters, Reason, Refusal, Role
from meshkit.screening_mac import MacKeys, mac_verifier

ASK = (Message(Role.USER, "hello"),)
KEYS = MacKeys({1: b"k" * 32}, current=1)


@pytest.fixture
def service() -> InferenceService:
    return InferenceService(
        (NullEngine("One two three four five."),), verify=mac_verifier(lambda: KEYS)
    )


async def drain(service, scope, screened, model="null", **parameters):
    return [
        item async for item in service.generate(scope, model, screened, Parameters(**parameters))
    ]


async def reason_of(service, scope, screened, model="null"):
    with pytest.raises(Refusal) as caught:
        await drain(service, scope, screened, model)
    assert service.generated_tokens == 0
    return caught.value.reason, caught.value.field


async def test_a_screened_prompt_is_answered(service, scope, make_screened) -> None:
    *pieces, ended = await drain(service, scope, make_screened(ASK))

    assert "".join(piece.text for piece in pieces) == "One two three four five."
    assert ended.finish_reason is FinishReason.STOP
    assert service.generated_tokens == ended.usage.completion_tokens == 6


@pytest.mark.parametrize(
    "change",
    [
        {"mac": b"x" * 32},
        {"mac": b""},
        {"mac_key_version": 2},
        {"messages": (Message(Role.USER, "hello!"),)},
        {"messages": (Message(Role.SYSTEM, "hello"),)},
    ],
)
async def test_text_that_nobody_vouches_for_reaches_no_model(
    service, scope, make_screened, change
) -> None:
    forged = replace(make_screened(ASK), **change)

    assert await reason_of(service, scope, forged) == (Reason.INVALID_FIELD, "messages")


@pytest.mark.parametrize("change", [{"tenant": "globex"}, {"call_id": b"d" * 16}])
async def test_a_mac_is_good_for_one_tenant_and_call(service, scope, make_screened, change) -> None:
    elsewhere = replace(scope, **change)

    found = await reason_of(service, elsewhere, make_screened(ASK))
    assert found == (Reason.INVALID_FIELD, "messages")


async def test_an_unknown_model_is_not_found(service, scope, make_screened) -> None:
    found = await reason_of(service, scope, make_screened(ASK), model="gpt-9")
    assert found == (Reason.NOT_FOUND, None)


async def test_models_and_health(service) -> None:
    (info,) = await service.models()

    assert (info.name, len(info.digest), service.healthy) == ("null", 32, True)


@pytest.mark.parametrize(("rate", "flush_ms"), [(0, 20), (2_000, 5)])
async def test_the_null_engine_keeps_to_its_text_and_limit(rate, flush_ms) -> None:
    engine = NullEngine("abcd" * 20, tokens_per_s=rate, flush_ms=flush_ms)
    items = [item async for item in engine.generate(ASK, Parameters(max_tokens=15))]

    assert "".join(item.text for item in items[:-1]) == "abcd" * 15
    assert sum(item.tokens for item in items[:-1]) == 15
    assert isinstance(items[-1], Ended)
    assert items[-1].finish_reason is FinishReason.LENGTH


async def test_a_wrong_digest_is_not_loaded(tmp_path: Path, make_settings) -> None:
    file = tmp_path / load_manifest("smollm2-135m-instruct").weights[0].path
    file.parent.mkdir()
    pinned = load_manifest("smollm2-135m-instruct").weights[0].bytes
    with file.open("wb") as other:
        other.write(b"GGUF but not ours")
        other.truncate(pinned)

    with pytest.raises(ModelFileError, match="wrong SHA-256"):
        async with open_inference(make_settings(models_dir=tmp_path), verify=lambda *_: True):
            pass


def test_missing_weights_and_unknown_models_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        checked_file(load_manifest("smollm2-135m-instruct"), tmp_path)
    with pytest.raises(ModelFileError, match="no manifest"):
        load_manifest("../smollm2-135m-instruct")


@pytest.mark.parametrize(
    "change",
    [
        {"files": (FileDigest("a.gguf", "00" * 32, 1),)},
        {"version": "2"},
        {"template_sha256": "00" * 32},
        {"default_system": "Be rude."},
        {"precision": "bf16"},
    ],
)
def test_the_model_digest_tells_models_apart(change) -> None:
    manifest = load_manifest("smollm2-135m-instruct")
    digest = model_info(manifest, context_tokens=2_048).digest

    assert len(digest) == 32
    assert model_info(replace(manifest, **change), context_tokens=2_048).digest != digest


def test_the_context_is_the_smaller_of_setting_and_model() -> None:
    manifest = load_manifest("smollm2-135m-instruct")

    assert model_info(manifest, context_tokens=2_048).context_tokens == 2_048
    assert model_info(manifest, context_tokens=1 << 20).context_tokens == 8_192
