"""A server in a process of its own, for test_drain: serves until SIGTERM, then says what it did.

python drain_server.py FOLDER     (ca.pem, server.pem, server.key)
"""

import asyncio
import json
import sys
from pathlib import Path

import meshkit.tls_floor  # noqa: F401 -- before grpc

import grpc  # isort: skip

from meshkit.interceptors import MeshInterceptor
from meshkit.server import Serving, run, serving, stop_event
from meshkit.tls import Certificate, CertificateHolder

BEGUN: list[int] = []
ENDED: list[int] = []


async def slow(request, _context):
    BEGUN.append(1)
    await asyncio.sleep(0.3)
    ENDED.append(1)
    return request


async def slow_stream(request, _context):
    BEGUN.append(1)
    for _ in range(6):
        await asyncio.sleep(0.05)
        yield request
    ENDED.append(1)


def say(**told):
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def add_to(server):
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(slow),
        "Stream": grpc.unary_stream_rpc_method_handler(slow_stream),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Slow", handlers)])


async def main(folder: Path) -> None:
    certificate = Certificate.from_pem(
        chain=(folder / "server.pem").read_bytes(),
        key=(folder / "server.key").read_bytes(),
        peer_ca=(folder / "ca.pem").read_bytes(),
    )
    stop = stop_event()
    async with serving(
        add_to,
        address="127.0.0.1:0",
        credentials=CertificateHolder(certificate).server_credentials(),
        guard=MeshInterceptor(
            trust_domain="sealgate.test", call_budget_ms=60_000, admits=lambda *_: True
        ),
        settings=Serving(lame_duck_ms=100, drain_ms=5_000),
    ) as port:
        say(port=port)
        await stop.wait()
    say(begun=len(BEGUN), ended=len(ENDED))


run(main(Path(sys.argv[1])))
