"""A caller in Node, made of the .proto files and docs/receipts.md, believes what we believe.

Here against a small gateway that can be told to lie; tests/e2e has it ask a whole house.
"""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkit.contract import Message, Reason, Refusal, Role
from meshkit.tlog import ReceiptInvalid, check_receipt
from sealgate.receipts import receipt_to_json
from tests.sdk.conftest import Signer

CLIENT = Path(__file__).parents[1] / "node" / "client.mjs"
MESSAGES = (Message(Role.SYSTEM, "be brief"), Message(Role.USER, "hi 你好 \U0001f600"))
ANSWER = "Hello — 你好\n"


def node(*words: str, given: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        ["node", CLIENT, *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def ask(port, tls, signer, tmp_path):
    """Run one streaming call; return the exit code and what it printed."""
    vkey = tmp_path / "vkey"
    vkey.write_text(signer.vkey + "\n")

    def asked(*more: str, folder: Path = tls) -> tuple[int, dict]:
        where = ("--target", f"localhost:{port}", "--tls", str(folder), "--vkey", str(vkey))
        words = ("--model", "echo", "--message", "system:be brief", "--message", "user:hello you")
        done = node("ask", *where, *words, *more)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    return asked


def kept(receipt, vkey: str, messages=MESSAGES, answer: str = ANSWER) -> dict:
    turns = [{"role": each.role.value, "content": each.content} for each in messages]
    found = receipt_to_json(receipt)
    return {"receipt": found, "vkey": vkey, "messages": turns, "answer": answer}


def steps_of(cases: list[dict]) -> list[int | None]:
    """The step that Node finds broken in each case; None where all hold."""
    done = node("check", given="\n".join(json.dumps(case) for case in cases))
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(cases), done.stderr
    assert done.returncode == (0 if all("holds" in each for each in told) else 1)
    return [None if each.get("holds") else each["step"] for each in told]


def step_here(receipt, vkey: str, messages=MESSAGES, answer: str = ANSWER) -> int | None:
    try:
        check_receipt(receipt, vkey, messages=messages, answer=answer)
    except ReceiptInvalid as invalid:
        return invalid.step
    return None


def test_node_asks_and_finds_that_the_receipt_holds(ask, gateway) -> None:
    code, told = ask()

    assert code == 0
    assert told["answer"] == "".join(told["deltas"]) == "bebriefhelloyou"
    assert told["receipt"]["index"] == 41
    (request, _), *_ = gateway.seen
    assert [message.content for message in request.messages] == ["be brief", "hello you"]


def test_another_answer_than_was_signed_is_found_over_the_wire(ask, gateway) -> None:
    gateway.tamper = "!"

    assert ask() == (1, {"error": "step 6: receipt is about another answer", "step": 6})


def test_another_logs_receipt_is_found_over_the_wire(ask, tmp_path) -> None:
    (tmp_path / "vkey").write_text(Signer().vkey)

    code, told = ask()
    assert (code, told["step"]) == (1, 3)


@pytest.mark.parametrize("lack", ["unsigned", "unended"])
def test_an_answer_without_receipt_or_end_is_no_answer(ask, gateway, lack: str) -> None:
    setattr(gateway, lack, True)

    code, told = ask()
    assert code == 1
    assert told["error"] in {"step 0: there is no receipt", "the stream broke off"}


def test_a_gateway_of_another_authority_is_not_spoken_to(ask, gateway, ca, tls, tmp_path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    for file in ("client.pem", "client.key"):
        (stranger / file).write_bytes((tls / file).read_bytes())
    (stranger / "ca.pem").write_bytes(type(ca)().pem)

    code, told = ask(folder=stranger)
    assert (code, told["code"]) == (1, "UNAVAILABLE")
    assert gateway.seen == []


def test_a_refusal_keeps_its_code(ask, gateway) -> None:
    gateway.refusals.append(Refusal(Reason.BLOCKED))

    code, told = ask()
    assert (code, told["code"]) == (1, "PERMISSION_DENIED")


def test_a_cancelled_stream_ends_at_the_gateway_too(ask, gateway) -> None:
    gateway.pause_s = 0.5

    code, told = ask("--cancel-after", "1")
    assert code == 0
    assert told == {"cancelled": True, "deltas": ["be"]}
    assert gateway.closed.wait(10)


def test_honest_receipts_hold(signer) -> None:
    asked = [
        (MESSAGES, ANSWER),
        ((Message(Role.USER, "hi"),), ""),
        ((*MESSAGES, Message(Role.ASSISTANT, "x" * 70_000), Message(Role.USER, "?")), "\0"),
    ]
    cases = [kept(signer.receipt(*each), signer.vkey, *each) for each in asked]

    assert steps_of(cases) == [None, None, None]


def test_each_flipped_bit_and_cut_field_fails_at_the_step_that_the_page_names(signer) -> None:
    receipt = signer.receipt(MESSAGES, ANSWER)
    fields = [name for name in receipt_to_json(receipt) if name not in {"origin", "index"}]
    lies = [replace(receipt, index=40), replace(receipt, origin="sealgate.test/other")]
    for name in fields:
        value = getattr(receipt, name)
        for lie in (bytes([value[0] ^ 1]) + value[1:], value[:-1] + bytes([value[-1] ^ 128])):
            lies.append(replace(receipt, **{name: lie}))
        lies += [replace(receipt, **{name: lie}) for lie in (b"", value[:-1], value + b"\0")]
    # A record whose salts were erased: it is sound, and opens nothing.
    lies.append(replace(receipt, prompt_salt=b"", answer_salt=b""))

    found = steps_of([kept(lie, signer.vkey) for lie in lies])

    assert found == [step_here(lie, signer.vkey) for lie in lies]
    assert None not in found
    assert set(found) == {1, 2, 3, 4, 5, 6}


def test_another_text_or_speaker_is_found(signer) -> None:
    receipt = signer.receipt(MESSAGES, ANSWER)
    system, user = MESSAGES
    told = [
        ((user,), ANSWER),
        ((user, system), ANSWER),
        ((replace(system, role=Role.ASSISTANT), user), ANSWER),
        ((replace(system, content="be briefer"), user), ANSWER),
        (MESSAGES, ANSWER.strip()),
        (MESSAGES, ""),
    ]

    found = steps_of([kept(receipt, signer.vkey, *each) for each in told])
    assert found == [5, 5, 5, 5, 6, 6]


def test_verifier_keys_are_read_strictly(signer) -> None:
    receipt = signer.receipt(MESSAGES, ANSWER)
    name, key_id, encoded = signer.vkey.split("+", 2)
    vkeys = [
        f" {signer.vkey}\n",
        "",
        name,
        f"{name}+00000000+{encoded}",
        f"{name}+{key_id.upper()}x+{encoded}",
        f"{name}+{key_id}+{encoded[:-1]}",
        f"{name}+{key_id}+{encoded[:-2]}",
        f"{name}+{key_id}+A{encoded}",
        f"{name}+{key_id}+B{encoded[1:]}",
        f"other{name}+{key_id}+{encoded}",
        f"{name} +{key_id}+{encoded}",
    ]

    found = steps_of([kept(receipt, vkey) for vkey in vkeys])

    assert found == [step_here(receipt, vkey) for vkey in vkeys]
    assert found == [None, *[1] * 10]


turns = st.builds(Message, st.sampled_from(Role), st.text())


@settings(max_examples=4, deadline=None)
@given(st.lists(st.tuples(st.lists(turns, min_size=1, max_size=4), st.text()), max_size=25))
def test_any_text_becomes_the_same_bytes_in_both(texts) -> None:
    """Escapes, surrogate pairs, composed and not, line ends: no text is touched on the way."""
    signer = Signer()
    asked = [*texts, (MESSAGES, "\ufeff\u2028e\u0301\r\n")]
    cases = [kept(signer.receipt(*each), signer.vkey, *each) for each in asked]

    assert steps_of(cases) == [None] * len(cases)
