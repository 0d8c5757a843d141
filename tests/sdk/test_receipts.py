"""docs/receipts.md says the truth, and a receipt survives being kept."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from meshkit.contract import Message, Role, prompt_bytes
from sealgate import ReceiptError
from sealgate.receipts import check, receipt_from_json, receipt_to_json

PAGE = (Path(__file__).parents[2] / "docs" / "receipts.md").read_text()
PROMPT = (Message(Role.USER, "hi 你好"),)
ANSWER = "Hello — 你好"


@pytest.fixture
def receipt(signer):
    return signer.receipt(PROMPT, ANSWER)


@pytest.fixture
def by_hand(receipt, signer, tmp_path):
    """Run the page's program on a receipt, kept as JSON."""
    (program,) = re.findall(r'```python\n("""check\.py.*?)```', PAGE, re.DOTALL)
    (tmp_path / "check.py").write_text(program)

    def run(found=receipt, prompt=PROMPT[0].content, answer=ANSWER, vkey=signer.vkey):
        (tmp_path / "receipt.json").write_text(json.dumps(receipt_to_json(found)))
        words = [sys.executable, "check.py", "receipt.json", vkey, prompt, answer]
        return subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_the_pages_program_finds_that_it_holds(by_hand, receipt):
    done = by_hand()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"holds: record 41 of sealgate.test/log, call {receipt.call_id.hex()}\n"


def test_the_pages_program_finds_each_lie(by_hand, receipt):
    assert by_hand(answer=ANSWER + ".").returncode != 0
    assert by_hand(prompt="hi").returncode != 0
    assert by_hand(found=replace(receipt, index=42)).returncode != 0
    assert by_hand(found=replace(receipt, key=b"k" * 32)).returncode != 0


def test_the_pages_bytes_are_the_prompts():
    (block,) = re.findall(r"in hex:\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    written = "".join(re.match(r"(?:[0-9a-f]+ )*[0-9a-f]+", line)[0] for line in block.splitlines())
    assert bytes.fromhex(written) == prompt_bytes([Message(Role.USER, "hi")])


def test_a_kept_receipt_is_the_same(receipt):
    assert receipt_from_json(json.loads(json.dumps(receipt_to_json(receipt)))) == receipt


@pytest.mark.parametrize(
    "change",
    [
        {"origin": 5},
        {"index": "41"},
        {"index": True},
        {"key": None},
        {"key": "zz"},
        {"signature": 7},
    ],
)
def test_what_is_no_receipt_is_a_value_error(receipt, change):
    with pytest.raises(ValueError, match="receipt"):
        receipt_from_json(receipt_to_json(receipt) | change)


@pytest.mark.parametrize(
    ("change", "asked", "step"),
    [
        ({"origin": "elsewhere"}, {}, 1),
        ({"leaf_hash": b"short"}, {}, 2),
        ({"key": b"k" * 32}, {}, 3),
        ({"index": 42}, {}, 4),
        ({}, {"messages": [Message(Role.USER, "another")]}, 5),
        ({}, {"answer": "another"}, 6),
    ],
)
def test_the_step_that_fails_is_named(receipt, signer, change, asked, step):
    check(receipt, signer.vkey, messages=PROMPT, answer=ANSWER)
    with pytest.raises(ReceiptError) as caught:
        check(replace(receipt, **change), signer.vkey, **asked)
    assert caught.value.step == step
    assert str(caught.value) == f"receipt does not hold, step {step}"


def test_no_receipt_is_step_zero(signer):
    with pytest.raises(ReceiptError) as caught:
        check(None, signer.vkey)
    assert caught.value.step == 0
