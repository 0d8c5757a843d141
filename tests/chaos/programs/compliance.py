"""`python -m compliance.main`, which lies when told to."""

from meshkit import tls_floor  # isort: skip -- before grpc, as in every entry point

import sys

from compliance import main
from compliance.servicer import ComplianceServicer
from meshkit.member import run
from tests.chaos.programs.lies import lie_of

assert tls_floor.in_time()


class Liar(ComplianceServicer):
    """Lets prompts through unmasked under a MAC of other text, and cuts releases short."""

    async def Screen(self, request, context):
        reply = await super().Screen(request, context)
        if lie_of("compliance") == "wrong digest":
            for item, result in zip(request.items, reply.results, strict=True):
                del result.screened.messages[:]
                result.screened.messages.extend(item.messages)
        return reply

    async def Release(self, request_iterator, context):
        await super().Release(request_iterator, Cut(context))


class Cut:
    """A call whose last word is lost when it is time to lie."""

    def __init__(self, context):
        self._context = context

    async def write(self, frame):
        if lie_of("compliance") != "truncated" or not frame.HasField("released"):
            await self._context.write(frame)


if __name__ == "__main__":
    main.ComplianceServicer = Liar
    sys.exit(run("compliance", main.ComplianceServer, main.serve))
