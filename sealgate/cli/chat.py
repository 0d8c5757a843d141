"""`sealgate chat`: ask, and print the answer as it comes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from meshkit.contract import Message, Role
from sealgate.cli import BAD_USAGE, DONE
from sealgate.cli._connection import add_options, client_of, shown, told
from sealgate.cli._vkey import vkey_of
from sealgate.errors import NotFoundError
from sealgate.receipts import receipt_to_json

if TYPE_CHECKING:
    from sealgate._shape import ChatOptions, ChatResult
    from sealgate.sync import Client

__all__ = ["add_parser"]

_EPILOG = """examples:
  sealgate chat "What is a tamper-evident log?" --tls var/appliance/tls
  echo "Summarise: ..." | sealgate chat --system "Be brief." --max-tokens 64
  sealgate chat "Hello" --vkey var/appliance/audit/vkey --receipt receipt.json --json

With --json: one object a line, {"delta": ...} as text comes, then {"final": ...}; with --no-stream
the last only. Without: the text on standard output, a line about it on standard error.
With --vkey the receipt is checked against this very prompt and answer."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `chat`."""
    parser = subparsers.add_parser(
        "chat",
        help="ask a model and print its answer as it comes",
        description="Ask a model and print its answer as it comes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prompt", nargs="*", help="what to ask; without it, standard input")
    parser.add_argument("--model", help="name of a model [the first you may ask]")
    parser.add_argument("--system", metavar="TEXT", help="an instruction that goes before")
    _add_sampling(parser)
    parser.add_argument("--no-stream", action="store_true", help="print all of it at the end")
    parser.add_argument("--no-cache", action="store_true", help="neither look up nor keep it")
    parser.add_argument("--session", default="", help="conversation id within your tenant")
    parser.add_argument(
        "--subject", default="", metavar="ID", help="whom it is about: an opaque id, never a name"
    )
    parser.add_argument("--purpose", default="", help="purpose of use, where policy demands one")
    parser.add_argument("--vkey", help="the log's verifier key, or its file: check the receipt")
    parser.add_argument("--receipt", type=Path, metavar="FILE", help="keep the receipt, as JSON")
    add_options(parser)
    parser.set_defaults(run=_run)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="[256]")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="[0: greedy]")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="[1]")
    parser.add_argument("--seed", type=int, metavar="N", help="makes sampling reproducible")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="may repeat")


def _run(args: argparse.Namespace) -> int:
    prompt = " ".join(args.prompt) if args.prompt else sys.stdin.read().strip()
    if not prompt:
        print("sealgate: there is no prompt", file=sys.stderr)
        return BAD_USAGE
    return told(args, lambda: _ask(args, prompt))


def _ask(args: argparse.Namespace, prompt: str) -> int:
    messages = [Message(Role.SYSTEM, args.system)] if args.system else []
    messages.append(Message(Role.USER, prompt))
    vkey = vkey_of(args.vkey) if args.vkey else None
    with client_of(args, vkey=vkey) as client:
        model = args.model or _first(client)
        result = _answer(args, client, messages, model)
    if args.receipt and result.receipt:
        kept = json.dumps(receipt_to_json(result.receipt), indent=1)
        args.receipt.write_text(kept + "\n", encoding="utf-8")
    _summarise(args, result, model)
    return DONE


def _first(client: Client) -> str:
    models = client.models()
    if not models:
        msg = "there is no model that you may ask"
        raise NotFoundError(msg)
    return models[0].name


def _answer(
    args: argparse.Namespace, client: Client, messages: list[Message], model: str
) -> ChatResult:
    options: ChatOptions = {
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "stop": args.stop,
        "session": args.session,
        "subject": args.subject,
        "purpose": args.purpose,
        "no_cache": args.no_cache,
    }
    if args.seed is not None:
        options["seed"] = args.seed
    if args.no_stream:
        result = client.chat(messages, model=model, **options)
        if not args.json:
            print(shown(result.text))
        return result
    with client.stream(messages, model=model, **options) as stream:
        for piece in stream:
            if args.json:
                print(json.dumps({"delta": piece}, ensure_ascii=False), flush=True)
            else:
                print(shown(piece), end="", flush=True)
    if not args.json:
        print()
    return stream.result


def _summarise(args: argparse.Namespace, result: ChatResult, model: str) -> None:
    receipt = result.receipt
    counts = [
        {"direction": c.direction, "type": c.type, "action": c.action, "count": c.count}
        for c in result.screening.counts
    ]
    if args.json:
        final: dict[str, object] = {
            "text": result.text,
            "model": model,
            "finish_reason": result.finish_reason,
            "prompt_tokens": result.usage.prompt_tokens,
            "completion_tokens": result.usage.completion_tokens,
            "cache_tier": result.cache_tier,
            "findings": counts,
            "receipt": receipt_to_json(receipt) if receipt else None,
            "receipt_checked": args.vkey is not None,
        }
        print(json.dumps({"final": final}, ensure_ascii=False))
        return
    found = ", ".join(f"{c['count']} {c['type']} {c['action']}" for c in counts) or "nothing found"
    place = f"record {receipt.index} of {receipt.origin}" if receipt else "no receipt"
    checked = ", checked" if args.vkey and receipt else ""
    print(
        f"[{model}; {result.finish_reason}; {result.usage.completion_tokens} tokens; cache "
        f"{result.cache_tier}; {found}; {place}{checked}]",
        file=sys.stderr,
    )
