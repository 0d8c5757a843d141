"""The command line against real sockets, run in this process but for one test."""

import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from meshkit.contract import Message, Reason, Refusal, Role
from meshkit.tlog import (
    ListHashes,
    VerifierKey,
    checkpoint_text,
    format_note,
    inclusion_proof,
    leaf_hash,
    root_of,
    signature_line,
)
from sealgate.cli import BAD_USAGE, DONE, REFUSED, UNAVAILABLE, main
from sealgate.receipts import check, receipt_from_json
from sealgate.v1 import audit_pb2
from sealgate.v1.audit_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server


@pytest.fixture
def run(port, tls, capsys):
    """Run a command against the gateway; return exit code, standard output and error."""

    def invoke(*words, connected=True):
        options = ["--target", f"localhost:{port}", "--tls", str(tls)] if connected else []
        code = main([*words, *options])
        said = capsys.readouterr()
        return code, said.out, said.err

    return invoke


@pytest.fixture
def vkey_file(signer, tmp_path):
    path = tmp_path / "vkey"
    path.write_text(signer.vkey + "\n")
    return str(path)


def test_chat_prints_the_answer_and_a_line_about_it(run, vkey_file):
    code, out, err = run("chat", "one", "two", "--vkey", vkey_file)
    assert (code, out) == (DONE, "onetwo\n")
    assert "echo; stop; 5 tokens; cache l1; 2 EMAIL mask; record 41 of" in err
    assert "checked" in err


def test_chat_prints_json_lines_and_keeps_a_receipt_that_holds(
    run, vkey_file, signer, tmp_path, gateway
):
    kept = tmp_path / "receipt.json"
    words = ["chat", "one two", "--json", "--vkey", vkey_file, "--receipt", str(kept)]
    code, out, _ = run(*words, "--model", "echo", "--max-tokens", "9", "--seed", "3")
    *deltas, final = [json.loads(line) for line in out.splitlines()]
    assert code == DONE
    assert [line["delta"] for line in deltas] == ["one", "two"]
    assert final["final"]["text"] == "onetwo"
    assert final["final"]["receipt_checked"] is True
    receipt = receipt_from_json(json.loads(kept.read_text()))
    check(receipt, signer.vkey, messages=[Message(Role.USER, "one two")], answer="onetwo")
    assert gateway.seen[0][0].parameters.max_tokens == 9


def test_chat_reads_standard_input_and_can_wait_for_all_of_it(run, monkeypatch, gateway):
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe\n"))
    code, out, _ = run("chat", "--no-stream", "--system", "be brief")
    assert (code, out) == (DONE, "be brief from a pipe\n")
    request = gateway.seen[-1][0]
    assert [message.content for message in request.messages] == ["be brief", "from a pipe"]


def test_a_tampered_answer_is_an_error(run, vkey_file, gateway):
    gateway.tamper = "!"
    code, _, err = run("chat", "x", "--vkey", vkey_file)
    assert code == REFUSED
    assert "receipt does not hold, step 6" in err


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Reason.BLOCKED, REFUSED),
        (Reason.LIMITED, REFUSED),
        (Reason.OVERLOADED, UNAVAILABLE),
        (Reason.AUDIT_DOWN, UNAVAILABLE),
        (Reason.OUT_OF_TIME, UNAVAILABLE),
    ],
)
def test_a_refusal_has_an_exit_code_and_a_sentence(run, gateway, reason, expected):
    gateway.refusals += [Refusal(reason), Refusal(reason, retry_after_ms=5)]
    code, _, err = run("chat", "x", "--model", "echo")
    assert (code, err) == (expected, f"sealgate: {reason.value} ({reason.name})\n")
    code, out, _ = run("chat", "x", "--model", "echo", "--json")
    assert code == expected
    told = json.loads(out)
    assert (told["reason"], told["retry_after_ms"]) == (reason.name, 5)


def test_models_lists_them(run):
    code, out, _ = run("models")
    assert (code, out.split()[0]) == (DONE, "echo")
    code, out, _ = run("models", "--json")
    assert json.loads(out)["models"][0]["context_tokens"] == 2_048


def test_what_is_missing_is_said(run, monkeypatch, tmp_path):
    monkeypatch.delenv("SEALGATE_TLS", raising=False)
    code, _, err = run("models", connected=False)
    assert (code, "--tls" in err) == (BAD_USAGE, True)
    code, _, err = run("models", "--tls", str(tmp_path / "none"), connected=False)
    assert (code, "cannot read" in err) == (BAD_USAGE, True)
    code, _, err = run("chat", "x", "--vkey", str(tmp_path / "none"))
    assert (code, "cannot read" in err) == (BAD_USAGE, True)
    (tmp_path / "broken").write_text("no key")
    code, _, err = run("chat", "x", "--vkey", str(tmp_path / "broken"), "--target", "localhost:1")
    assert (code, err) == (BAD_USAGE, "sealgate: --vkey: verifier key is malformed\n")


def test_doctor_finds_a_healthy_gateway_healthy(run):
    code, out, _ = run("doctor", "--json")
    found = {each["check"]: each for each in json.loads(out)["checks"]}
    assert code == DONE, out
    assert "spiffe://sealgate.test/tenant/acme/app" in found["certificate"]["detail"]
    assert "TLSv1.3" in found["tls 1.3"]["detail"]
    assert "refused" in found["tls 1.2"]["detail"]
    assert found["health"]["detail"] == "SERVING"
    assert "echo" in found["authorization"]["detail"]


def test_doctor_says_what_is_wrong(run, gateway, tls, ca, tmp_path):
    gateway.refusals.append(Refusal(Reason.DENIED))
    code, out, _ = run("doctor")
    assert code == REFUSED
    assert "FAIL  authorization policy does not allow this call" in out
    (tls / "client.key").write_bytes(ca.issue("spiffe://sealgate.test/tenant/acme/app").key)
    code, out, _ = run("doctor")
    assert "FAIL  certificate   client.key is not client.pem's" in out
    code, out, _ = run("doctor", "--local", str(tmp_path), "--json")
    assert "holds no OpenBao" in out


class AuditReads(AuditServiceServicer):
    """Three leaves and a checkpoint over them."""

    def __init__(self, signer) -> None:
        self.leaves = [b'{"phase":"intent"}', b'{"phase":"outcome"}', b'{"other":1}']
        self.hashes = ListHashes([leaf_hash(leaf) for leaf in self.leaves])
        self.signer = signer

    async def GetRecord(self, request, _context):
        if request.call_id != b"c" * 16:
            raise Refusal(Reason.NOT_FOUND)
        reply = audit_pb2.GetRecordResponse()
        reply.records.add(index=0, phase=1, leaf=self.leaves[0])
        reply.records.add(index=1, phase=2, leaf=self.leaves[1])
        return reply

    async def GetByTrace(self, _request, context):
        return audit_pb2.GetByTraceResponse(
            records=(
                await self.GetRecord(audit_pb2.GetRecordRequest(call_id=b"c" * 16), context)
            ).records
        )

    async def GetCheckpoint(self, _request, _context):
        text = checkpoint_text(self.signer.origin, 3, root_of(self.hashes, 3))
        signed = signature_line(self.signer.verifier, self.signer.log.sign(text.encode()))
        return audit_pb2.GetCheckpointResponse(note=format_note(text, signed))

    async def GetInclusionProof(self, request, _context):
        proof = inclusion_proof(self.hashes, request.index, request.tree_size)
        return audit_pb2.GetInclusionProofResponse(hashes=proof)


@pytest.fixture
def audit_port(serve, signer, running):
    add = partial(add_AuditServiceServicer_to_server, AuditReads(signer))
    with running(serve(add)) as found:
        yield found


@pytest.fixture
def prove(audit_port, tls, tmp_path):
    """The words of `audit prove` but for the id."""
    connection = ["--target", f"localhost:{audit_port}", "--tls", str(tls)]
    return ["audit", "prove", "--out", str(tmp_path / "proofs"), *connection]


@pytest.mark.parametrize("which", ["--call", "--trace"])
def test_proofs_are_fetched_and_hold_offline(run, prove, vkey_file, which, signer):
    words = [*prove, which, (b"c" * 16).hex()]
    code, said, _ = run(*words, "--vkey", vkey_file, "--json", connected=False)
    assert code == DONE
    files = json.loads(said)["files"]
    assert [Path(name).name for name in files] == [
        "000000000000-intent.tlog-proof",
        "000000000001-outcome.tlog-proof",
    ]
    for name in files:
        code, _, _ = run("audit", "check", name, "--vkey", vkey_file, connected=False)
        assert code == DONE
    stranger = str(VerifierKey(signer.origin, b"k" * 32))
    code, _, err = run(*words, "--vkey", stranger, connected=False)
    assert code == REFUSED, err


def test_no_such_call_is_not_found(run, prove):
    code, _, err = run(*prove, "--call", "00" * 16, connected=False)
    assert code == REFUSED
    assert "NOT_FOUND" in err


def test_half_a_pipe_is_no_error(port, tls):
    program = f"{sys.executable} -m sealgate.cli models --target localhost:{port} --tls {tls}"
    piped = ["bash", "-c", f"set -o pipefail; {program} | true"]
    done = subprocess.run(piped, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["chat", "models", "audit", "compliance", "doctor"])
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    assert f"sealgate {command} " in capsys.readouterr().out.replace("\n", " ")
