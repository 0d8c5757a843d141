"""`python -m bench.null_inference`: inference in the mesh, over an engine without a model."""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc, as in every entry point

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bench.engine import ProseEngine
from inference.main import InferenceServer, inference_at
from inference.service import InferenceService
from meshkit.member import Member, run
from meshkit.screening_keys import watched_screening_keys
from meshkit.screening_mac import mac_verifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

assert tls_floor.in_time()


@asynccontextmanager
async def serve(settings: InferenceServer, member: Member) -> AsyncIterator[int]:
    """Serve the engine; yield the port."""
    async with watched_screening_keys(member.keys, settings.screening_keys) as mac_keys:
        service = InferenceService((ProseEngine(),), verify=mac_verifier(mac_keys))
        async with inference_at(settings, service, member.certificate) as port:
            yield port


if __name__ == "__main__":
    sys.exit(run("inference", InferenceServer, serve))
