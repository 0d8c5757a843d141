"""`python -m cache.main`, which lies when told to."""

from meshkit import tls_floor  # isort: skip -- before grpc, as in every entry point

import sys

from cache import main
from cache.servicer import CacheServicer
from meshkit.member import run
from sealgate.v1 import cache_pb2
from tests.chaos.programs.lies import lie_of

assert tls_floor.in_time()


class Liar(CacheServicer):
    """Says that it has an answer, and gives one that is none."""

    async def Get(self, request, context):
        if lie_of("cache") == "wrong digest":
            hit = cache_pb2.CachedAnswer(text="half", finish_reason=99)
            return cache_pb2.GetResponse(hit=hit)
        return await super().Get(request, context)


if __name__ == "__main__":
    main.CacheServicer = Liar
    sys.exit(run("cache", main.CacheServer, main.serve))
