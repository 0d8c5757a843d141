"""`make demo`: a governed chat from nothing, each claim checked as it is made.

Starts the appliance under `var/demo` (anew: an earlier demo's data goes) and acts as its clients
over mTLS: an application that chats, and an auditor who reads. Every step either shows what really
happened or ends the demo with exit code 1; nothing here is assumed.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from meshkit.contract import Message, Role
from sealgate import AsyncAuditReader, AsyncClient, BlockedError, ReceiptError
from sealgate.receipts import check as check_receipt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from meshkit.contract import Receipt
    from sealgate import ChatResult

__all__ = ["main"]

DATA = Path("var/demo")
MODEL = "smollm2-135m-instruct"
START_S = 120
STOP_S = 60

ENGLISH = (
    "My name is Maria Thompson, my e-mail is maria.thompson@example.org and my card is "
    "4111 1111 1111 1111. Please explain to me in two sentences why the sky is blue."
)
CHINESE = "你好，我是王小明，身份证11010519491231002X，手机13800138000。请用中文说你好。"
FORBIDDEN = "Why does this key not work? AKIA" + "IOSFODNN7" + "EXAMPLE"
EXPECTED = {
    "en": {"PERSON", "EMAIL", "CREDIT_CARD"},
    "zh": {"PERSON", "CN_RESIDENT_ID", "PHONE"},
}
"""What must be found in each prompt; more may be."""


class DemoFailedError(Exception):
    """Something did not happen as claimed."""


def fail(claim: str) -> NoReturn:
    """End the demo."""
    raise DemoFailedError(claim)


def shown(claim: str) -> None:
    """Print what has just been shown: we would not be here otherwise."""
    print(f"   ✓ {claim}", flush=True)


def demand(claim: str, *, holds: bool) -> None:
    """Print what was shown, or end the demo."""
    if not holds:
        fail(claim)
    shown(claim)


@dataclass(frozen=True, slots=True)
class House:
    """A running appliance as its clients know it."""

    facts: dict[str, str]

    @property
    def vkey(self) -> str:
        """The log's verifier key, as its operator hands it to callers and auditors."""
        return Path(self.facts["vkey"]).read_text(encoding="utf-8").strip()

    def client(self) -> AsyncClient:
        """Return the application's client; it checks every receipt."""
        return AsyncClient.from_folder(self.facts["gateway"], self.facts["tls"], vkey=self.vkey)

    def reader(self) -> AsyncAuditReader:
        """Return the auditor's."""
        folder = self.facts["auditor_tls"]
        return AsyncAuditReader.from_folder(self.facts["audit"], folder, vkey=self.vkey)


@asynccontextmanager
async def running() -> AsyncIterator[House]:
    """Run the appliance in a process of its own, as an operator would."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True, mode=0o700)
    places = {
        "DATA_DIR": str(DATA), "GATEWAY_PORT": "0", "AUDIT_PORT": "0", "CONSOLE_PORT": "0",
    }  # fmt: skip
    environment = os.environ | {f"APPLIANCE_{name}": value for name, value in places.items()}
    with (DATA / "appliance.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "appliance.main", env=environment, stderr=log,
            stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    telling = asyncio.create_task(_pass_on(process))
    try:
        yield House(await _ready(process))
        process.send_signal(signal.SIGTERM)
        demand(
            "the appliance drained and stopped in good order",
            holds=await asyncio.wait_for(process.wait(), STOP_S) == 0,
        )
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await telling


async def _pass_on(process: asyncio.subprocess.Process) -> None:
    """Show what the appliance says of its progress, but not its advice for `make up`."""
    assert process.stdout is not None
    async for line in process.stdout:
        text = line.decode().rstrip()
        if not text.startswith((" ", "Serving")):
            print(f"   … {text}", flush=True)


async def _ready(process: asyncio.subprocess.Process) -> dict[str, str]:
    ready, deadline = DATA / "ready.json", time.monotonic() + START_S
    while not ready.exists():
        if process.returncode is not None or time.monotonic() > deadline:
            claim = f"the appliance starts (see {DATA / 'appliance.log'})"
            fail(claim)
        await asyncio.sleep(0.1)
    facts: dict[str, str] = json.loads(ready.read_text(encoding="utf-8"))
    return facts


async def command(*words: str) -> tuple[int, str]:
    """Run `sealgate …` as a person would; return exit code and standard output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sealgate.cli", *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


# --- the steps ------------------------------------------------------------------------------


async def screened_offline() -> dict[str, set[str]]:
    """Show what the policy finds and what the model will get instead."""
    into = DATA / "prompts"
    into.mkdir()
    prompts = {"en": ENGLISH, "zh": CHINESE}
    lines = [json.dumps({"id": name, "text": text}) for name, text in prompts.items()]
    (into / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, _ = await command(
        "compliance", "scan", "--input", str(into / "in.jsonl"), "--output", str(into / "out.jsonl")
    )
    demand("`sealgate compliance scan` read both prompts", holds=code == 0)
    found: dict[str, set[str]] = {}
    for line in (into / "out.jsonl").read_text(encoding="utf-8").splitlines():
        scanned = json.loads(line)
        found[scanned["id"]] = {finding["type"] for finding in scanned["findings"]}
        print(f"     you wrote   {prompts[scanned['id']]}\n     model gets  {scanned['text']}")
    for name, types in EXPECTED.items():
        demand(f"found in {name}: {', '.join(sorted(found[name]))}", holds=types <= found[name])
    return found


async def streamed(client: AsyncClient, prompt: str, *, traceparent: str = "") -> ChatResult:
    """Ask, and show the answer as it comes in."""
    print(f"   > {prompt}\n   < ", end="", flush=True)
    began, first, pieces = time.monotonic(), 0.0, 0
    stream = client.stream(prompt, model=MODEL, max_tokens=80, traceparent=traceparent)
    async for piece in stream:
        first, pieces = first or time.monotonic() - began, pieces + 1
        print(piece.replace("\n", " "), end="", flush=True)
    took = time.monotonic() - began
    used = stream.result.usage
    print(
        f"\n     {used.completion_tokens} tokens in {pieces} frames, {took:.1f} s; first text after"
        f" {first:.2f} s; tier: {stream.result.cache_tier}"
    )
    return stream.result


def tell_findings(result: ChatResult, expected: set[str]) -> None:
    """Show what the gateway says was found, and that it is what had to be."""
    for count in result.screening.counts:
        kind = f"{count.type} {count.subtype}".strip()
        print(f"     {count.direction.value:7} {kind:32} ×{count.count}  {count.action}")
    masked = {count.type for count in result.screening.counts if count.action == "mask"}
    demand("the gateway masked at least these before the model saw them", holds=expected <= masked)


def checked(house: House, prompt: str, result: ChatResult) -> Receipt:
    """Check the receipt against the text it came with, and that another text does not pass."""
    receipt = result.receipt
    if receipt is None:
        fail("an answer has a receipt")
    said = (Message(Role.USER, prompt),)
    check_receipt(receipt, house.vkey, messages=said, answer=result.text)
    shown(f"receipt: entry {receipt.index} of {receipt.origin}, and it fits this prompt and answer")
    try:
        check_receipt(receipt, house.vkey, messages=said, answer=result.text + ".")
        fooled = True
    except ReceiptError:
        fooled = False
    demand("the same receipt does not fit an answer with one more full stop", holds=not fooled)
    return receipt


async def recorded(house: House, receipt: Receipt, trace_id: bytes) -> None:
    """Find the record by call id and by the caller's own trace id."""
    async with house.reader() as reader:
        by_call = await reader.records(call_id=receipt.call_id)
        by_trace = await reader.records(trace_id=trace_id)
    phases = [record.phase.value for record in by_call]
    demand(f"by call id {receipt.call_id.hex()}: {', '.join(phases)}", holds=len(by_call) == 2)  # noqa: PLR2004 -- INTENT, OUTCOME
    demand(f"by trace id {trace_id.hex()}: the same records", holds=by_trace == by_call)
    leaf = by_call[-1].leaf.decode()
    print(f"     {leaf[:180]}…")
    texts = (ENGLISH, "Thompson", "4111", "maria")
    demand("no text of the call stands in the log", holds=not any(text in leaf for text in texts))


async def proved(house: House, receipt: Receipt) -> None:
    """Take proof files home, and check them without asking anybody."""
    folder = DATA / "proofs"
    code, _ = await command(
        "audit", "prove", "--call", receipt.call_id.hex(), "--out", str(folder),
        "--target", house.facts["audit"], "--tls", house.facts["auditor_tls"],
    )  # fmt: skip
    files = sorted(folder.glob("*.tlog-proof"))
    demand(f"proof files: {', '.join(f.name for f in files)}", holds=code == 0 and len(files) == 2)  # noqa: PLR2004 -- INTENT, OUTCOME
    for file in files:
        code, _ = await command("audit", "check", str(file), "--vkey", house.facts["vkey"])
        demand(f"`sealgate audit check {file.name}` holds, offline", holds=code == 0)


async def blocked(client: AsyncClient, house: House) -> None:
    """Send what policy forbids."""
    print("   > a prompt with an AWS access key in it")
    try:
        await client.chat(FORBIDDEN, model=MODEL)
    except BlockedError as refusal:
        receipt = refusal.receipt
    else:
        fail("a prompt with a key in it is blocked")
    shown("refused: PERMISSION_DENIED, reason BLOCKED")
    if receipt is None:
        fail("a blocked call has a receipt")
    async with house.reader() as reader:
        records = await reader.records(call_id=receipt.call_id)
    demand(
        "the refusal is on record, and its receipt came with it",
        holds=b"BLOCKED" in records[-1].leaf,
    )


async def repeated(client: AsyncClient, prompt: str, before: ChatResult) -> None:
    """Ask the same again."""
    again = await streamed(client, prompt)
    assert again.receipt is not None
    assert before.receipt is not None
    demand("answered from the sealed cache", holds=again.cache_tier == "l1")
    demand("with the same text", holds=again.text == before.text)
    demand(
        f"and a record of its own: entry {again.receipt.index}",
        holds=again.receipt.call_id != before.receipt.call_id,
    )


async def tampered(house: House) -> None:
    """Verify the whole log; change one byte of a copy, and verify that."""
    vkey = house.facts["vkey"]
    code, said = await command("audit", "verify", "--log", house.facts["log"], "--vkey", vkey)
    demand(said.strip(), holds=code == 0)
    copy = DATA / "tampered"
    shutil.copytree(house.facts["log"], copy)
    bundles = [path for path in (copy / "tile" / "entries").rglob("*") if path.is_file()]
    # The largest is the newest: an older checkpoint's partial one may hold no answer yet.
    bundle = max(bundles, key=lambda path: path.stat().st_size)
    raw = bytearray(bundle.read_bytes())
    place = raw.index(b"released")
    raw[place : place + 8] = b"reLeased"
    bundle.chmod(0o600)
    bundle.write_bytes(raw)
    print(f"   > one letter of one record changed in a copy: {bundle.relative_to(copy)}")
    code, said = await command("audit", "verify", "--log", str(copy), "--vkey", vkey)
    demand(said.strip(), holds=code == 1)


async def conversation(house: House, titled: Callable[[str], None]) -> None:
    """Do all that a client and an auditor do."""
    async with house.client() as client:
        trace_id = secrets.token_bytes(16)
        traceparent = f"00-{trace_id.hex()}-{secrets.token_bytes(8).hex()}-01"
        titled("An English prompt with a name, an e-mail address and a card number")
        english = await streamed(client, ENGLISH, traceparent=traceparent)
        tell_findings(english, EXPECTED["en"])
        titled("A Chinese prompt with a name, a resident id and a mobile number")
        chinese = await streamed(client, CHINESE)
        tell_findings(chinese, EXPECTED["zh"])
        titled("The receipt")
        receipt = checked(house, ENGLISH, english)
        titled("The record")
        await recorded(house, receipt, trace_id)
        titled("The proof")
        await proved(house, receipt)
        titled("A request that policy forbids")
        await blocked(client, house)
        titled("The same question again")
        await repeated(client, ENGLISH, english)
        titled("A log that cannot be altered unnoticed")
        await tampered(house)


async def demo() -> None:
    """Run all of it."""
    began, number = time.monotonic(), 0

    def titled(text: str) -> None:
        nonlocal number
        number += 1
        print(f"\n{number}. {text}", flush=True)

    titled("Starting: OpenBao, certificates, audit log, filters, SmolLM2-135M-Instruct")
    async with running() as house:
        shown(f"serving with mutual TLS 1.3 on {house.facts['gateway']}")
        shown(f"audit console for browsers on {house.facts['console']}, until the demo ends")
        titled("What the compliance policy makes of two prompts")
        await screened_offline()
        await conversation(house, titled)
        titled("Stopping")
    print(f"\nAll of it happened, in {time.monotonic() - began:.0f} s. Data: {DATA}. Next: make up")


async def _bounded(work: Awaitable[None]) -> None:
    async with asyncio.timeout(600):
        await work


def main() -> int:
    """Run; return the exit code."""
    try:
        asyncio.run(_bounded(demo()))
    except DemoFailedError as failure:
        print(f"\n✗ Not shown: {failure}", file=sys.stderr)
        return 1
    except TimeoutError:
        print("\n✗ The demo did not end within ten minutes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
