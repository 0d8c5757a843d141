"""What runs in the server processes: `python -m bench.servers KIND READY_FD OPTIONS`.

Started by `bench.children` only. Each server here is an `async with` that yields what the parent
must know; it lives until its standard input ends.
"""

from __future__ import annotations

import asyncio
import cProfile
import importlib
import json
import os
import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from bench.children import ROOT, pin_as_told
from bench.micro import Effort
from meshkit import counters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import CodeType

    Step = Callable[[Effort], Awaitable[list[float]]]

ECHO_METHOD = "/bench.Echo/Call"


@asynccontextmanager
async def echo(options: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Serve the reference: grpc.aio, mTLS, bytes in, as many bytes out as their first four say.

    Options: `ca`, `chain`, `key`: paths of PEM files.
    """

    async def answer(request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return request[:1] * int.from_bytes(request[:4])

    credentials = _credentials(*(Path(options[name]) for name in ("ca", "chain", "key")))
    server = grpc.aio.server()
    service, method = ECHO_METHOD[1:].split("/")
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield {"port": port}
    finally:
        await server.stop(1)


@asynccontextmanager
async def appliance(options: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Run the true appliance, everything on, over an engine without a model.

    Options: `folder`, made anew; `tokens_per_s` of a stream, 0 for as fast as it goes.
    """
    house, settings = (
        importlib.import_module(f"appliance.{name}") for name in ("house", "settings")
    )
    engine = importlib.import_module("bench.engine").ProseEngine(
        tokens_per_s=options["tokens_per_s"]
    )
    shutil.rmtree(options["folder"], ignore_errors=True)
    wanted = settings.ApplianceSettings.model_validate(
        {"data_dir": options["folder"], "gateway_port": 0, "audit_port": 0, "console": False}
    )
    ASKS["tokens"] = lambda: {"newest": engine.newest_tokens}
    async with house.appliance(wanted, engine=engine) as running:
        yield {"port": running.port, "tls": str(running.tls)}


@asynccontextmanager
async def model(options: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Run the true appliance over the real model. Options: `folder`, made anew; `slots`."""
    house, settings, load, inference, on_top = (
        importlib.import_module(name)
        for name in (
            "appliance.house",
            "appliance.settings",
            "inference.engines.load",
            "inference.settings",
            "bench.on_top",
        )
    )
    shutil.rmtree(options["folder"], ignore_errors=True)
    wanted = settings.ApplianceSettings.model_validate(
        {"data_dir": options["folder"], "gateway_port": 0, "audit_port": 0, "console": False}
    )
    made = load.load_engine(inference.InferenceSettings(slots=options["slots"]))
    made.start()

    async def alone(asked: str) -> dict[str, Any]:
        first, streams = map(int, asked.split(","))
        told: dict[str, Any] = await on_top.alone(made, first, streams)
        return told

    ASKS["alone"] = alone
    try:
        async with house.appliance(wanted, engine=made) as running:
            yield {"port": running.port, "tls": str(running.tls)}
    finally:
        await made.close()


@asynccontextmanager
async def mesh(options: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Run the true mesh, five processes, Redis and OpenBao. Options: `folder`, made anew."""
    house, settings = (
        importlib.import_module(f"appliance.{name}") for name in ("mesh", "mesh_settings")
    )
    shutil.rmtree(options["folder"], ignore_errors=True)
    ports = {f"{name}_port": 0 for name in ("gateway", "compliance", "cache", "inference", "audit")}
    wanted = settings.MeshHouseSettings.model_validate(
        {"data_dir": options["folder"], "redis": True, **ports}
    )
    async with house.mesh(wanted, modules={"inference": "bench.null_inference"}) as running:
        yield {
            "port": running.children["gateway"].port,
            "tls": str(running.data / "tls"),
            "pids": {name: child.pid for name, child in running.children.items()},
        }


@asynccontextmanager
async def engine(options: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Measure the engine by itself when asked. Options: those of `bench.engine.cost_alone_us`."""
    part = importlib.import_module("bench.engine")

    async def cost() -> dict[str, Any]:
        return {"us_per_token": await part.cost_alone_us(**options)}

    ASKS["cost"] = cost
    yield {}


@asynccontextmanager
async def audit(options: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Serve the audit service by itself. Options: `folder`, for its log and certificates."""
    part = importlib.import_module("bench.audit_server")
    async with part.audit_server(Path(options["folder"])) as port:
        yield {"port": port}


@asynccontextmanager
async def small(options: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Measure steps in this very process. Options: `wanted` names, `seconds`, `repeats`."""
    steps: dict[str, Step] = {}
    for part in ("bench.small", "bench.inside"):
        steps |= importlib.import_module(part).STEPS
    effort = Effort(options["seconds"], options["repeats"])
    yield {name: await steps[name](effort) for name in options["wanted"]}


def _credentials(ca: Path, chain: Path, key: Path) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), chain.read_bytes())],
        root_certificates=ca.read_bytes(),
        require_client_auth=True,
    )


KINDS: dict[str, Callable[[dict[str, Any]], AbstractAsyncContextManager[dict[str, Any]]]] = {
    "appliance": appliance,
    "audit": audit,
    "echo": echo,
    "engine": engine,
    "mesh": mesh,
    "model": model,
    "small": small,
}


SERVICES = frozenset({"appliance", "audit", "engine", "model"})
"""Kinds that run the true services, and what is subtracted from those: on the same event loop."""


def _steps() -> dict[str, float]:
    """Return the mean wall microseconds of each step since the last time, and start anew."""
    taken = counters.step_times()
    counters.forget_step_times()
    return {name: time.total_ns / time.runs / 1_000 for name, time in taken.items()}


_calls = cProfile.Profile()


def _watch_calls() -> dict[str, Any]:
    """Count every function call of the event loop's thread from now on."""
    _calls.enable()
    return {}


def _tell_calls() -> dict[str, Any]:
    """Stop counting; tell of each function: calls, seconds of its own."""
    _calls.disable()
    rows = [(*_place(one.code), one.callcount, one.inlinetime) for one in _calls.getstats()]
    return {"rows": rows}


def _place(code: CodeType | str) -> tuple[str, str]:
    """Name a function's module path and itself; a built-in one has no path."""
    if isinstance(code, str):
        return "built-in", code.strip("<>")
    path = code.co_filename.removeprefix(f"{ROOT}/")
    return path.partition("/lib/python3.11/")[2] or path, f"{code.co_firstlineno} {code.co_name}"


ASKS: dict[str, Callable[..., dict[str, Any] | Awaitable[dict[str, Any]]]] = {
    "steps": _steps,
    "watch calls": _watch_calls,
    "tell calls": _tell_calls,
}
"""What the parent may ask a running server: a word, or a word, `=` and what goes with it."""


async def _answer(asked: str) -> dict[str, Any]:
    word, given, argument = asked.partition("=")
    told = ASKS[word](argument) if given else ASKS[word]()
    return told if isinstance(told, dict) else await told


async def serve(kind: str, ready_fd: int, options: dict[str, Any]) -> None:
    """Run one server until standard input ends; answer what is asked meanwhile."""
    with os.fdopen(ready_fd, "w", buffering=1) as parent:
        async with KINDS[kind](options) as told:
            parent.write(json.dumps(told) + "\n")
            while word := await asyncio.to_thread(sys.stdin.readline):
                parent.write(json.dumps(await _answer(word.strip())) + "\n")


if __name__ == "__main__":
    pin_as_told()
    # Services run as their own mains run them; the echo is what grpc.aio is by itself.
    run = importlib.import_module("meshkit.server").run if sys.argv[1] in SERVICES else asyncio.run
    run(serve(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])))
