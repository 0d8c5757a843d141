"""Two hops in a row: what a call carries from one service to the next."""

import grpc
import pytest

from meshkit.channel import Reaching, carried, channel_to
from meshkit.contract import Reason
from meshkit.interceptors import current
from meshkit.status import from_rpc_error
from meshkit.telemetry import root_span, step


def adds(name, behaviour):
    handler = grpc.unary_unary_rpc_method_handler(behaviour)

    def add_to(server):
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, {"Call": handler})]
        )

    return add_to


def to(port, ends):
    credentials = grpc.ssl_channel_credentials(ends.ca, ends.key, ends.chain)
    return channel_to(f"localhost:{port}", credentials, Reaching())


async def test_trace_and_deadline_go_along_and_the_deadline_is_shaved(
    serve, channel, tenant_ends, service_ends
):
    seen = {}

    async def back(request, _context):
        seen["back"] = current()
        return request

    async with serve(adds("test.Back", back)) as far, to(far, service_ends) as onward:

        async def front(request, _context):
            seen["front"] = current()
            with step("ask"):
                call = onward.unary_unary("/test.Back/Call")
                return await call(request, **carried(reserve_ms=10_000))

        async with (
            serve(adds("test.Front", front)) as near,
            channel(near, tenant_ends) as ours,
        ):
            assert await ours.unary_unary("/test.Front/Call")(b"x", timeout=25) == b"x"
    assert seen["back"].trace.trace_id == seen["front"].trace.trace_id
    assert seen["back"].trace.span_id != seen["front"].trace.span_id
    gap_s = seen["front"].deadline.at_s - seen["back"].deadline.at_s
    # What was under way meanwhile is not in it: the next hop's time begins when it is asked.
    assert 5 < gap_s < 10.5
    assert seen["back"].identity.name == "compliance"


async def test_hopeless_calls_are_not_made(serve, channel, tenant_ends):
    async def front(_request, _context):
        carried(reserve_ms=10_000)

    async with serve(adds("test.Front", front)) as near, channel(near, tenant_ends) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ours.unary_unary("/test.Front/Call")(b"x", timeout=5)
    assert from_rpc_error(caught.value).reason is Reason.OUT_OF_TIME


async def test_outside_an_rpc_nothing_can_be_carried():
    with root_span("x"), pytest.raises(LookupError):
        carried(reserve_ms=1)
