"""Releases of a running house, as its model administrator has them."""

import json

import pytest

from sealgate import AsyncModels, DeniedError, WrongStateError

MODEL = "smollm2-135m-instruct"


def models(house, tls="tls-models"):
    return AsyncModels(house.facts["gateway"], tls=house.data / tls)


async def test_the_shipped_model_is_live_and_remembered(house) -> None:
    async with models(house) as desk:
        release = await desk.release(MODEL)
        assert MODEL in {each.model for each in await desk.versions()}
    (live,) = [each for each in release.versions if each.state == "live"]

    assert (live.share, live.loading, len(live.digest)) == (10_000, False, 32)
    kept = json.loads((house.data / "inference" / "releases.json").read_text())
    assert [each["live"] for each in kept["models"] if each["name"] == MODEL] == [live.version]


async def test_who_may_chat_may_not_change_who_answers(house) -> None:
    async with models(house) as desk, models(house, "tls") as assistant:
        with pytest.raises(WrongStateError):
            await desk.rollback(MODEL)
        for step in (
            assistant.rollback(MODEL),
            assistant.load(MODEL, "1"),
            assistant.promote(MODEL, "1"),
            assistant.versions(),
        ):
            with pytest.raises(DeniedError):
                await step
