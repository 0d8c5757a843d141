"""A caller in Node, made of the .proto files and docs/receipts.md, asks a whole house."""

import asyncio
import json
import secrets
import subprocess
from pathlib import Path

import pytest

from sealgate.receipts import check, receipt_from_json

CLIENT = Path(__file__).parents[1] / "node" / "client.mjs"
MODEL = "smollm2-135m-instruct"
QUESTION = "user:Name three colours of the rainbow."


def node(house, *words: str, tls: Path | None = None) -> tuple[int, dict]:
    """Have Node ask; return the exit code and what it printed."""
    facts = house.facts
    where = ("--target", facts["gateway"], "--tls", str(tls or facts["tls"]))
    done = subprocess.run(
        ["node", CLIENT, "ask", *where, "--vkey", facts["vkey"], "--model", MODEL, *words],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def checked(case: dict) -> tuple[int, dict]:
    """Have Node check a receipt that was kept."""
    done = subprocess.run(
        ["node", CLIENT, "check"],
        input=json.dumps(case),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def told(house) -> dict:
    code, found = node(house, "--message", QUESTION, "--max-tokens", "40")
    assert code == 0, found
    return found


async def test_a_streamed_answer_and_its_receipt_fit_and_name_the_record(house, told) -> None:
    receipt = receipt_from_json(told["receipt"])
    check(receipt, house.vkey, answer=told["answer"])
    assert told["answer"] == "".join(told["deltas"])
    assert len(told["deltas"]) > 1

    async with house.reader() as reader:
        records = await reader.records(call_id=receipt.call_id)
    assert [record.index for record in records][-1] == receipt.index


def test_what_was_tampered_with_is_found_by_node(house, told) -> None:
    case = {name: told[name] for name in ("receipt", "messages", "answer")} | {"vkey": house.vkey}
    receipt = case["receipt"]
    other = {"role": "user", "content": "Name four colours of the rainbow."}

    assert checked(case) == (0, {"holds": True})
    lies = {
        6: case | {"answer": case["answer"] + "."},
        5: case | {"messages": [other]},
        4: case | {"receipt": receipt | {"index": receipt["index"] + 1}},
        3: case | {"receipt": receipt | {"key": "00" * 32}},
        1: case | {"vkey": "elsewhere/log" + house.vkey[house.vkey.index("+") :]},
    }
    for step, lie in lies.items():
        code, found = checked(lie)
        assert (code, found["step"]) == (1, step)


def test_a_gateway_is_not_believed_under_another_authority(house, tmp_path) -> None:
    own = Path(house.facts["tls"])
    for file in ("client.pem", "client.key"):
        (tmp_path / file).write_bytes((own / file).read_bytes())
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-nodes", "-subj", "/CN=other", "-keyout", tmp_path / "ca.key"]
    subprocess.run(
        [*made, *names, "-out", tmp_path / "ca.pem"], check=True, capture_output=True, timeout=60
    )

    code, found = node(house, "--message", QUESTION, tls=tmp_path)
    assert (code, found["code"]) == (1, "UNAVAILABLE")


async def test_a_stream_that_node_cancels_is_recorded_so(house) -> None:
    trace_id = secrets.token_bytes(16)
    words = ("--message", "user:Write a very long story about a lighthouse.")
    parent = ("--traceparent", f"00-{trace_id.hex()}-{'b7' * 8}-00")
    code, found = await asyncio.to_thread(
        node, house, *words, *parent, "--max-tokens", "1000", "--cancel-after", "1"
    )
    assert (code, found["cancelled"]) == (0, True)

    async with house.reader() as reader:
        async with asyncio.timeout(60):
            while len(records := await reader.records(trace_id=trace_id)) < 2:
                await asyncio.sleep(0.1)
    outcome = json.loads(records[-1].leaf)["event"]
    assert outcome["outcome"] == "CANCELLED"
    assert outcome["usage"]["completion_tokens"] < 900
