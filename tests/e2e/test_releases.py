"""Releases of a running house, as its model administrator has them at the command line."""

import json

MODEL = "smollm2-135m-instruct"


def models(house, *words, tls="tls-models"):
    where = ("--target", house.facts["gateway"], "--tls", str(house.data / tls), "--json")
    ended = house.cli("models", *words, *where)
    return ended.returncode, json.loads(ended.stdout)


def test_the_shipped_model_is_live_and_remembered(house) -> None:
    code, told = models(house, "versions")
    (release,) = [each for each in told["releases"] if each["model"] == MODEL]
    (version,) = [each for each in release["versions"] if each["state"] == "live"]

    assert (code, version["share_percent"], version["loading"]) == (0, 100, False)
    kept = json.loads((house.data / "inference" / "releases.json").read_text())
    assert [each["live"] for each in kept["models"] if each["name"] == MODEL] == [
        version["version"]
    ]


def test_who_may_chat_may_not_change_who_answers(house) -> None:
    assert models(house, "rollback", MODEL)[1]["reason"] == "WRONG_STATE"
    assert models(house, "rollback", MODEL, tls="tls")[1]["reason"] == "DENIED"
