"""`sealgate models versions|load|…` against a gateway: what is asked, told, and returned."""

import asyncio
import json

import pytest

from meshkit.contract import Reason, Release, ReleasedVersion, ReleaseShadow, ReleaseTrial, StepKind
from sealgate.cli import main
from tests.fakes import MODEL
from tests.gateway.conftest import ASSISTANT
from tests.gateway.test_model_desk import ADMIN, DIGEST, Releases

WHOLE = Release(
    model=MODEL,
    versions=(
        ReleasedVersion(version="1", digest=b"1" * 32, state="live", share=9_500, calls=7),
        ReleasedVersion(version="2", digest=DIGEST, state="canary", share=500, error_rate=0.25),
    ),
    history=("0",),
    trial=ReleaseTrial(version="2", share=500, replicas=0, ends_s=1_800_000_000.0),
    shadow=ReleaseShadow(version="2", share=1_000, calls=3, agreement=0.5, length_ratio=1.5),
)


class Slow(Releases):
    """Loads in two looks, and then is warm or has failed."""

    def __init__(self, ends: str) -> None:
        super().__init__()
        self.ends, self.looks = ends, 0

    async def releases(self, model=""):
        assert model in {"", MODEL}
        self.looks += 1
        over = self.looks > 2
        version = ReleasedVersion(
            version="2",
            digest=DIGEST,
            state=self.ends if over else "registered",
            why="digest" if over and self.ends == "refused" else "",
            loading=not over,
        )
        return (Release(model=MODEL, versions=(version,)),)


@pytest.fixture
def run(start, authority, tmp_path, capsys):
    """Run a command against a gateway; return its exit code and what it printed."""

    async def ran(releases, *words, who=ADMIN):
        own = authority.issue(who)
        for name, pem in (
            ("ca.pem", own.peer_ca_pem),
            ("client.pem", own.chain_pem),
            ("client.key", own.key_pem),
        ):
            (tmp_path / name).write_bytes(pem)
        async with start(releases=releases) as house:
            where = ["--target", f"localhost:{house.port}", "--tls", str(tmp_path)]
            code = await asyncio.to_thread(main, ["models", *words, *where])
        return code, capsys.readouterr().out

    return ran


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (("unload", MODEL, "2"), StepKind.UNLOAD, {}),
        (("promote", MODEL, "2"), StepKind.PROMOTE, {}),
        (("rollback", MODEL), StepKind.ROLLBACK, {}),
        (("shadow", MODEL, "2", "--percent", "7"), StepKind.SHADOW, {"percent": 7}),
        (("canary", MODEL, "2"), StepKind.CANARY, {}),
        (("canary", MODEL, "2", "--percent", "5", "--hours", "1.5"), StepKind.CANARY,
         {"percent": 5, "seconds": 5_400}),
        (("canary", MODEL, "2", "--replicas", "2"), StepKind.CANARY, {"replicas": 2}),
    ],
)  # fmt: skip
async def test_each_command_is_one_step(run, words, kind, said) -> None:
    releases = Releases()
    code, out = await run(releases, *words, "--json")

    (step,) = releases.taken
    assert (code, step.kind, step.model) == (0, kind, MODEL)
    assert step.version == ("" if kind is StepKind.ROLLBACK else "2")
    assert {name: getattr(step, name) for name in said} == said
    assert json.loads(out)["versions"][0]["version"] == "2"


@pytest.mark.parametrize(("ends", "code"), [("warm", 0), ("failed", 1), ("refused", 1)])
async def test_a_load_is_waited_for(run, ends, code) -> None:
    releases = Slow(ends)
    found, out = await run(releases, "load", MODEL, "2", "--json")

    assert (found, json.loads(out)["versions"][0]["state"]) == (code, ends)
    assert releases.looks == 3


async def test_a_load_need_not_be_waited_for(run) -> None:
    code, out = await run(Slow("warm"), "load", MODEL, "2", "--no-wait", "--json")

    assert (code, json.loads(out)["versions"][0]["loading"]) == (0, True)


async def test_everything_is_told_to_people_and_to_programs(run) -> None:
    releases = Releases()

    async def whole(model=""):
        assert model in {"", MODEL}
        return (WHOLE,)

    releases.releases = whole
    _, listed = await run(releases, "versions", "--json")
    _, one = await run(releases, "versions", MODEL, "--json")
    _, text = await run(releases, "versions")

    told = json.loads(listed)["releases"][0]
    assert told == json.loads(one)["releases"][0]
    assert [each["share_percent"] for each in told["versions"]] == [95, 5]
    assert told["versions"][1]["error_rate"] == 0.25
    assert told["trial"] == {
        "version": "2", "percent": 5, "replicas": 0, "ends_s": 1_800_000_000.0,
    }  # fmt: skip
    assert (told["shadow"]["agreement"], told["history"]) == (0.5, ["0"])
    for word in ("live", "canary", "95 %", "trial of 2 until 2027-01-15", "agreement 0.50"):
        assert word in text


async def test_what_is_refused_ends_in_one(run) -> None:
    releases = Releases()
    releases.refuses = Reason.WRONG_STATE
    code, out = await run(releases, "rollback", MODEL, "--json")
    assert (code, json.loads(out)["reason"]) == (1, "WRONG_STATE")

    code, out = await run(Releases(), "promote", MODEL, "2", "--json", who=ASSISTANT)
    assert (code, json.loads(out)["reason"]) == (1, "DENIED")


async def test_a_name_that_is_no_text_is_wrong_usage(run) -> None:
    releases = Releases()
    code, out = await run(releases, "rollback", "\udc80", "--json")
    assert (code, json.loads(out)["error"], releases.taken) == (2, "unreadable", [])
