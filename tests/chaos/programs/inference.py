"""`python -m inference.main` over an engine without a model; lies when told to."""

from meshkit import tls_floor  # isort: skip -- before grpc, as in every entry point

import sys
from contextlib import asynccontextmanager

from inference import main
from inference.service import InferenceService
from inference.servicer import InferenceServicer
from meshkit.member import run
from meshkit.screening_keys import watched_screening_keys
from meshkit.screening_mac import mac_verifier
from tests.chaos.engine import Parrot
from tests.chaos.programs.lies import lie_of

assert tls_floor.in_time()


class Liar(InferenceServicer):
    """Cuts answers short, or ends them without saying how."""

    async def Generate(self, request, context):
        await super().Generate(request, Cut(context))


class Cut:
    """A call whose end is lost or garbled when it is time to lie."""

    def __init__(self, context):
        self._context = context

    async def write(self, frame):
        ended = frame.HasField("ended")
        lie = lie_of("inference")
        if ended and lie == "truncated":
            return
        if ended and lie == "wrong digest":
            frame.ended.finish_reason = 99
        await self._context.write(frame)


@asynccontextmanager
async def serve(settings, member):
    main.InferenceServicer = Liar
    async with watched_screening_keys(member.keys, settings.screening_keys) as mac_keys:
        service = InferenceService((Parrot(),), verify=mac_verifier(mac_keys))
        async with main.inference_at(settings, service, member.certificate) as port:
            yield port


if __name__ == "__main__":
    sys.exit(run("inference", main.InferenceServer, serve))
