"""Triton on a network: who gets a word with it, and what a start makes of one without a fence.

127.0.0.2 stands for a network: of our settings only 127.0.0.1 and localhost are loopback.
"""

import asyncio
import ssl

import pytest
from pydantic import ValidationError

from inference.engines.triton.control import Control, State
from inference.engines.triton.fence import answers_strangers, must_be_fenced
from inference.engines.triton.settings import TritonSettings
from inference.registry import ModelFileError
from meshkit.contract import Ended, Message, Parameters, Role
from tests.compliance.triton_server import certificates
from tests.inference import triton_world as world

HOST = "127.0.0.2"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    certificates(folder)
    return folder


def serving(repository, files, *, mutual, floor):
    """A Triton with TLS. floor: as our script starts it; without, as it is by itself."""
    repository.mkdir()
    world.standin(repository, "scripted")
    return world.running(
        repository,
        f"--grpc-use-ssl{'-mutual' if mutual else ''}=true",
        f"--grpc-server-cert={files / 'server.pem'}",
        f"--grpc-server-key={files / 'server.key'}",
        f"--grpc-root-cert={files / 'ca.pem'}",
        host=HOST,
        floor=floor,
        tls={
            "ssl": True,
            "root_certificates": str(files / "ca.pem"),
            "certificate_chain": str(files / "client.pem"),
            "private_key": str(files / "client.key"),
        },
    )


def place(server, files, **changes):
    given = {
        "url": server.address, "ca": files / "ca.pem", "certificate": files / "client.pem",
        "key": files / "client.key", "control_ms": 10_000,
    }  # fmt: skip
    return TritonSettings(**given | changes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "triton:8001"},
        {"url": "127.0.0.2:8001", "ca": "ca.pem"},
        {"url": "triton:8001", "ca": "ca.pem", "certificate": "c.pem"},
        {"certificate": "c.pem"},
        {"certificate": "c.pem", "key": "k.pem"},
        {"metrics_url": "triton:8002"},
        {"url": "http://localhost:8001"},
        {"adapter": "another"},
    ],
)
def test_prompts_go_nowhere_in_the_clear(wrong) -> None:
    with pytest.raises(ValidationError):
        TritonSettings(**wrong)


async def test_a_fenced_triton_talks_to_us_and_to_nobody_else(on_triton, tmp_path, files) -> None:
    with serving(tmp_path / "r", files, mutual=True, floor=True) as server:
        tls = {"ca": files / "ca.pem", "certificate": files / "client.pem"}
        engine = await on_triton("scripted", server, **tls, key=files / "client.key")
        asked = engine.generate((Message(Role.USER, "say 2"),), Parameters())
        assert isinstance([item async for item in asked][-1], Ended)

        host, _, port = server.address.partition(":")
        assert not answers_strangers(host, int(port), files / "ca.pem", within_s=10)
        with pytest.raises(ssl.SSLCertVerificationError):
            answers_strangers(host, int(port), files / "strange.pem", within_s=10)
        for changes in (
            {"ca": files / "strange.pem"},
            {"certificate": files / "strange.pem", "key": files / "strange.key"},
        ):
            control = Control(place(server, files, **changes))
            assert control.look("scripted") is State.AWAY
            control.close()

        # Certificates are read anew after a failure: ours may be replaced under way.
        for suffix in ("pem", "key"):
            (tmp_path / f"own.{suffix}").write_bytes((files / f"strange.{suffix}").read_bytes())
        own = {"certificate": tmp_path / "own.pem", "key": tmp_path / "own.key"}
        control = Control(place(server, files, **own))
        assert control.look("scripted") is State.AWAY
        for suffix in ("pem", "key"):
            (tmp_path / f"own.{suffix}").write_bytes((files / f"client.{suffix}").read_bytes())
        assert control.look("scripted") is State.READY
        control.close()


@pytest.mark.parametrize(
    ("mutual", "floor", "why"),
    [(True, False, "TLS 1.3 alone"), (False, True, "no certificate")],
    ids=["takes TLS 1.2", "answers strangers"],
)
async def test_a_triton_without_a_fence_is_not_used(tmp_path, files, mutual, floor, why) -> None:
    with serving(tmp_path / "r", files, mutual=mutual, floor=floor) as server:
        with pytest.raises(ModelFileError, match=why):
            await asyncio.to_thread(must_be_fenced, place(server, files))
        # On loopback nothing is asked for.
        loopback = place(server, files, url=f"localhost:{server.port}")
        await asyncio.to_thread(must_be_fenced, loopback)
