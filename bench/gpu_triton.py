"""SmolLM2 through a real tritonserver: gRPC, Python backend, our engine inside, ours outside.

    python -m bench.gpu_triton --triton var/triton --models var/models --streams 1,32,128

Needs Triton (`make triton`), SmolLM2's weights (`make models`) and, for the published figures, a
GPU; `--device cpu` tries it on a CPU. Each caller asks for a story and reads it to the end, through
`TritonEngine`, as the inference service does; the rate is of all tokens between the first caller's
start and the last one's end. Callers, server and model share one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.engines.triton.control import Control, State
from inference.engines.triton.load import load_triton
from inference.settings import InferenceSettings
from inference.triton_repository.own import write_own
from meshkit.contract import Ended, Message, Parameters, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inference.engines.triton.engine import TritonEngine

ROOT = Path(__file__).resolve().parent.parent
MODEL = "smollm2-135m-instruct"
ASK = (Message(Role.USER, "Tell me a long story about a lighthouse keeper and the sea."),)
START_S = 60.0
ALONE = 21
"""Short asks, one after the other: the median of their first tokens is that of a caller alone."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One line."""

    streams: int
    piece_tokens: int
    tokens_per_s: float
    first_token_ms: float
    alone_first_token_ms: float
    responses: int
    texts: int


@contextmanager
def tritonserver(folder: Path, repository: Path, log: Path) -> Iterator[int]:
    """Run the server for as long as the block does; yield its gRPC port."""
    spec = importlib.util.spec_from_file_location("setup", ROOT / "deploy" / "triton_server.py")
    assert spec is not None
    assert spec.loader is not None
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = f"sealgate-bench-{os.getpid()}-"
    command = setup.command(
        folder,
        repository,
        "--allow-http=false",
        "--allow-metrics=false",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
        "--model-control-mode=explicit",
        "--exit-timeout-secs=5",
        f"--backend-config=python,shm-region-prefix-name={shared}",
    )
    environment = setup.environment(folder, setup.layered(folder))
    with log.open("ab") as out:
        server = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield port
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        for left in Path("/dev/shm").glob(f"{shared}*"):
            left.unlink(missing_ok=True)


async def one(engine: TritonEngine, tokens: int) -> tuple[float, int, int, str]:
    """Ask once; return when the first token came, tokens, responses and the text."""
    began, first, text, counted, responses = time.perf_counter(), 0.0, "", 0, 0
    async for item in engine.generate(ASK, Parameters(temperature=0.0, max_tokens=tokens)):
        first = first or time.perf_counter() - began
        if isinstance(item, Ended):
            counted = item.usage.completion_tokens
        else:
            responses += 1
            text += item.text
    return first, counted, responses, text


async def measure(settings: InferenceSettings, streams: int, piece: int, tokens: int) -> Rate:
    """Open the model, warm up, take the best of three rounds."""
    engine: Any = await asyncio.to_thread(load_triton, settings)
    engine.start()
    try:
        await one(engine, tokens)
        alone = sorted([(await one(engine, 4))[0] for _ in range(ALONE)])
        best: Rate | None = None
        for _ in range(3):
            began = time.perf_counter()
            told = await asyncio.gather(*(one(engine, tokens) for _ in range(streams)))
            took = time.perf_counter() - began
            firsts = sorted(first for first, _, _, _ in told)
            rate = Rate(
                streams,
                piece,
                sum(n for _, n, _, _ in told) / took,
                firsts[len(firsts) // 2] * 1e3,
                alone[len(alone) // 2] * 1e3,
                sum(n for _, _, n, _ in told),
                len({text for _, _, _, text in told}),
            )
            best = rate if best is None or rate.tokens_per_s > best.tokens_per_s else best
    finally:
        await engine.close()
    assert best is not None
    return best


def served(args: argparse.Namespace, port: int, repository: Path, streams: int, piece: int) -> Rate:
    """Write the model for so many slots, have it loaded, measure, have it unloaded."""
    given = {
        "models_dir": str(args.models.resolve()),
        "device": args.device,
        "slots": str(streams),
        "context_tokens_max": "1024",
        "piece_tokens": str(piece),
        "piece_ms": str(args.piece_ms),
    }
    write_own(repository, MODEL, settings=given)
    settings = InferenceSettings.model_validate(
        {"engine": "triton", "models_dir": args.models, "triton": {"url": f"127.0.0.1:{port}"}}
    )
    control = Control(settings.triton)
    try:
        ends = time.monotonic() + START_S
        while control.look(MODEL) in (State.AWAY, State.STARTING) and time.monotonic() < ends:
            time.sleep(0.2)
        control.load(MODEL)
        rate = asyncio.run(measure(settings, streams, piece, args.tokens))
        control.unload(MODEL)
        while control.look(MODEL) is State.READY:
            time.sleep(0.1)
    finally:
        control.close()
    return rate


def main() -> None:
    """Measure each number of streams with as many slots, for each size of piece."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--triton", type=Path, default=Path("var/triton"))
    parser.add_argument("--models", type=Path, default=Path("var/models"))
    parser.add_argument("--streams", default="1,32,128")
    parser.add_argument("--pieces", default="8,16", help="tokens that a response may hold")
    parser.add_argument("--piece-ms", type=int, default=20, help="how long they may wait")
    parser.add_argument("--tokens", type=int, default=400, help="of an answer")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="of the server")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rates = []
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch)
        with tritonserver(args.triton, repository, args.log) as port:
            for streams in map(int, args.streams.split(",")):
                for piece in map(int, args.pieces.split(",")):
                    rate = served(args, port, repository, streams, piece)
                    rates.append(rate)
                    print(
                        f"streams {rate.streams:4}  up to {rate.piece_tokens:3} tokens a response  "
                        f"{rate.tokens_per_s:9,.0f} tokens/s  first token "
                        f"{rate.first_token_ms:6.1f} ms, alone "
                        f"{rate.alone_first_token_ms:5.1f} ms  responses {rate.responses:6}  "
                        f"different texts {rate.texts}",
                        flush=True,
                    )
    if args.json:
        args.json.write_text(json.dumps([asdict(rate) for rate in rates], indent=2))


if __name__ == "__main__":
    main()
